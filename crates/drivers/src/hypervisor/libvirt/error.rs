//! Why a call failed: what libvirtd said, or that it said nothing.

use uuid::Uuid;
use virt::{connect::Connect, error::ErrorNumber};

/// Why a call failed.
pub(super) enum CallError {
    /// libvirtd answered, and refused.
    Refused(String),
    /// libvirtd answered, and did not accept the definition.
    Bad(String),
    /// libvirtd did not answer.
    Broken(String),
    /// There was no connection to libvirtd; nothing was sent.
    NoConnection(String),
    /// It was not allowed any more; nothing was sent.
    Withdrawn,
}

impl CallError {
    /// The error of a call that defines a domain.
    pub(super) fn bad(error: virt::error::Error) -> CallError {
        // What is missing on the machine (a directory, memory, a daemon) may become available.
        match error.code() {
            ErrorNumber::XmlError
            | ErrorNumber::XmlDetail
            | ErrorNumber::XmlInvalidSchema
            | ErrorNumber::ConfigUnsupported
            | ErrorNumber::InvalidArg
            | ErrorNumber::OsType
            | ErrorNumber::NoKernel
            | ErrorNumber::NoOs => CallError::Bad(error.message().to_owned()),
            _ => error.into(),
        }
    }

    /// What it was, by the connection on which it was seen: an error of the client's own transport ends the connection
    /// before it comes out (libvirt 9.0.0, `virNetClientMarkClose`). So on one that is open libvirtd has answered. What
    /// an error says of itself tells nothing: libvirtd passes on errors of its own connections, to virtlogd or to
    /// another libvirtd, which look alike.
    pub(super) fn seen_on(self, connection: &Connect) -> CallError {
        match self {
            CallError::Refused(why) | CallError::Bad(why) if !connection.is_alive().unwrap_or(false) => {
                CallError::Broken(why)
            }
            error => error,
        }
    }
}

impl From<virt::error::Error> for CallError {
    fn from(error: virt::error::Error) -> CallError {
        CallError::Refused(error.message().to_owned())
    }
}

/// The domain, or `None` when libvirtd says that there is none.
pub(super) fn find(connection: &Connect, uuid: Uuid) -> std::result::Result<Option<virt::domain::Domain>, CallError> {
    match virt::domain::Domain::lookup_by_uuid_string(connection, &uuid.to_string()) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(None),
        Err(error) => Err(error.into()),
    }
}
