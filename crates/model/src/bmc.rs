//! How a node's power is controlled from outside: its baseboard management controller (BMC), or a program of the
//! administrator's.

use crate::{
    name::NodeName,
    record::{RecordKind, Writer},
    units::WallTime,
};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// The layout version of this module's record.
pub const BMC_SCHEMA: u32 = 1;

/// Port of IPMI over LAN (RMCP, ASF 2.0).
pub const IPMI_PORT: u16 = 623;

/// What controls a node's power, with the password for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmc {
    /// Where it is and how it is spoken to.
    pub access: BmcAccess,
    /// The password; `None` where none is needed.
    pub password: Option<Secret>,
}

impl fmt::Display for Bmc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.access.fmt(f)
    }
}

/// Where a BMC is and how it is spoken to: everything but the password.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BmcAccess {
    /// IPMI 2.0 over LAN.
    Ipmi {
        /// Host name or address.
        address: String,
        /// UDP port.
        port: u16,
        /// User.
        user: String,
    },
    /// Redfish over HTTPS.
    Redfish {
        /// `https://host` or `https://host:port`.
        url: String,
        /// Path of the system: `/redfish/v1/Systems/1`. `None`: the only one that the service has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// User.
        user: String,
        /// How the service is recognised.
        trust: Trust,
    },
    /// A program on each node: for a switched power strip, or a hypervisor above.
    Command {
        /// Absolute path.
        program: PathBuf,
        /// Its arguments.
        #[serde(default)]
        arguments: Vec<String>,
        /// How it is spoken to.
        interface: CommandInterface,
    },
}

impl fmt::Display for BmcAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BmcAccess::Ipmi { address, port: IPMI_PORT, .. } => write!(f, "IPMI {address}"),
            BmcAccess::Ipmi { address, port, .. } => write!(f, "IPMI {address}, port {port}"),
            BmcAccess::Redfish { url, .. } => write!(f, "Redfish {url}"),
            BmcAccess::Command { program, .. } => write!(f, "command {}", program.display()),
        }
    }
}

/// How a Redfish service is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// By its certificate: SHA-256 of its DER encoding, as 64 hexadecimal digits in lower case.
    Certificate(String),
    /// By the authority that signed its certificate, which names the URL's host: certificates in PEM.
    Authority(String),
}

/// How a program that controls power is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandInterface {
    /// One JSON object on its standard input, one on its standard output.
    Json,
    /// That of the fence agents: `key=value` lines on its standard input; its exit code is the answer.
    FenceAgent,
}

/// Power of a machine, as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PowerState::On => "on",
            PowerState::Off => "off",
        })
    }
}

/// `/nodes/<name>/bmc`: how other nodes control the power of this one. Written by its daemon at each start, from its
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcRecord {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// What it is and where, for people; nothing is done with it.
    pub shown: String,
    /// Which cluster key it is sealed with.
    pub key: String,
    /// The [`Bmc`], sealed: only a node with the cluster's key can read it or could have written it.
    pub sealed: String,
}

impl RecordKind for BmcRecord {
    type Key = NodeName;
    const AT: &'static str = "/nodes/*/bmc";
    const SCHEMA: u32 = BMC_SCHEMA;
    const WRITER: Writer = Writer::Node;
}

/// A node's report about its BMC, which it checks itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BmcReport {
    /// What it is and where, for people.
    pub shown: String,
    /// Why it would not cut this node's power; empty: it answers as it should.
    #[serde(default)]
    pub problem: String,
    /// It said that this node's machine is off while the node ran, so it controls another machine. What it says
    /// and does is never used as proof. False in reports of earlier versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wrong: bool,
    /// When it was last checked, by the node's own wall clock; 0: not yet.
    #[serde(default)]
    pub checked: WallTime,
}

/// A text that is never printed, logged or serialised by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text, for the one who must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed() {
        let access = BmcAccess::Ipmi { address: "10.0.0.9".to_owned(), port: 1623, user: "admin".to_owned() };
        let bmc = Bmc { access, password: Some(Secret::new("hunter2".to_owned())) };
        assert!(!format!("{bmc:?} {bmc}").contains("hunter2"));
        assert_eq!(bmc.to_string(), "IPMI 10.0.0.9, port 1623");
    }
}
