//! What is looked at right before a domain is changed, and how a definition is removed.

use super::{CallError, Shared, find, observe};
use drover_model::{Obs, domain::Mark};
use uuid::Uuid;
use virt::{connect::Connect, error::ErrorNumber};
use virt_sys as sys;

/// Says no unless the domain is the one that was decided about. (libvirt itself looks for a domain by its UUID only,
/// also when it is given an id. Between this question and what follows is no more than one call.)
pub(super) fn check_mark(domain: &virt::domain::Domain, mark: Mark) -> std::result::Result<(), CallError> {
    match Mark::read(&domain.get_xml_desc(0)?) {
        Some(found) if found == mark => Ok(()),
        Some(Mark { epoch, .. }) => {
            Err(CallError::Refused(format!("it is another guest by now, under grant {epoch} and not {}", mark.epoch)))
        }
        None => Err(CallError::Refused("it is not Drover's".to_owned())),
    }
}

/// Refuses unless there is no such domain, or only a definition of ours that is off.
pub(super) fn check_replaceable(
    connection: &Connect,
    shared: &Shared,
    uuid: Uuid,
) -> std::result::Result<(), CallError> {
    if let Some(left_over) = find(connection, uuid)? {
        if left_over.is_active()? {
            return Err(CallError::Refused("the domain is running already".to_owned()));
        }
        if let Obs::Unknown(why) = observe::one(connection, shared, uuid, true)? {
            return Err(CallError::Refused(why));
        }
    }
    Ok(())
}

/// Refuses a name that another domain has.
pub(super) fn check_name(connection: &Connect, uuid: Uuid, xml: &str) -> std::result::Result<(), CallError> {
    let Some(name) = drover_model::domain::name_of(xml) else { return Ok(()) };
    let found = match virt::domain::Domain::lookup_by_name(connection, &name) {
        Ok(domain) => domain.get_uuid_string()?,
        Err(error) if error.code() == ErrorNumber::NoDomain => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if found.parse() == Ok(uuid) {
        return Ok(());
    }
    Err(CallError::Refused(foreign(&name, &found)))
}

/// What is said of a name that a domain which is not Drover's has.
pub(super) fn foreign(name: &str, uuid: &str) -> String {
    format!(
        "this node has another domain named {name} (UUID {uuid}), and libvirt allows a name once: rename it ('virsh \
        domrename') or undefine it there"
    )
}

/// What keeps libvirt from removing a definition unless it is removed too: metadata of snapshots and checkpoints, and
/// saved memory.
pub(super) const METADATA: sys::virDomainUndefineFlagsValues = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;

/// Removes a definition. The NVRAM and the TPM's state are kept: they belong to the guest. (libvirt 9.0.0 deletes the
/// state of an emulated TPM unless it is asked to keep it, which is possible since 8.9.0.)
pub(super) fn undefine(domain: &virt::domain::Domain) -> std::result::Result<(), virt::error::Error> {
    domain.undefine_flags(METADATA | sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM)
}
