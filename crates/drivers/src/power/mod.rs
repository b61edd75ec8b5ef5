//! The power of other machines, by their BMCs or by a program of the administrator's: reading it, cutting it, and
//! switching it on. The trait [`Power`], its implementation by IPMI, Redfish and commands, and a fake with BMCs that
//! lie, are slow, or are dead.

mod command;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod ipmi;
mod redfish;
mod run;
pub mod tls;

use async_trait::async_trait;
use drover_model::{Bmc, BmcAccess, PowerState};
use std::time::Duration;

/// Deadline of one call to a BMC, whatever the BMC does.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// Deadline of one run of a command. The fence agents wait for up to 20 s until the power is as ordered.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum length of another's words in a message, in characters.
const WORDS_MAX: usize = 160;

/// A call failed. Whether an order took effect is unknown then: only a state that is read afterwards tells. Each
/// variant's `bmc` says which BMC was spoken to, without its password, and the messages do not contain it either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// Nothing answers there.
    #[error("{bmc} cannot be reached: {why}")]
    Unreachable {
        /// The BMC.
        bmc: String,
        /// What the attempt said.
        why: String,
    },
    /// The BMC answers, and refuses the user or the password.
    #[error("{bmc} refuses the user or the password")]
    Credentials {
        /// The BMC.
        bmc: String,
    },
    /// The service is not the one that is trusted: another certificate.
    #[error("{bmc} is not trusted: {why}")]
    Untrusted {
        /// The BMC.
        bmc: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// No complete answer before the deadline.
    #[error("{bmc} has not answered within {} s", .after.as_secs())]
    Timeout {
        /// The BMC.
        bmc: String,
        /// The deadline.
        after: Duration,
    },
    /// The answer says neither on nor off, or it is not one that the protocol knows.
    #[error("{bmc} gave an answer that cannot be used: {answer}")]
    Unusable {
        /// The BMC.
        bmc: String,
        /// The answer, shortened.
        answer: String,
    },
    /// The BMC understood the request, and says that it failed.
    #[error("{bmc} could not do it: {why}")]
    Failed {
        /// The BMC.
        bmc: String,
        /// What it said.
        why: String,
    },
    /// This node lacks what is needed to ask: a program that is not installed.
    #[error("{bmc} cannot be asked from here: {why}")]
    Local {
        /// The BMC.
        bmc: String,
        /// What is missing.
        why: String,
    },
}

/// Controls the power of machines. Every call ends within [`CALL_TIMEOUT`], that of a command
/// within [`COMMAND_TIMEOUT`], and may be cancelled by dropping its future.
#[async_trait]
pub trait Power: Send + Sync + 'static {
    /// Reads the power state. It is the only proof that a machine is off.
    async fn state(&self, bmc: &Bmc) -> Result<PowerState, PowerError>;

    /// Orders to cut the power at once, without asking the operating system. `Ok` says that the order was accepted, or
    /// that the machine was off already; BMCs answer before the power is gone.
    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError>;

    /// Orders to switch the power on. `Ok` says that the order was accepted, or that the machine was on already.
    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError>;
}

/// [`Power`] by IPMI, Redfish, or a command, as each BMC is configured.
#[derive(Debug, Default)]
pub struct PowerControl {
    ipmi: ipmi::Ipmi,
}

#[async_trait]
impl Power for PowerControl {
    async fn state(&self, bmc: &Bmc) -> Result<PowerState, PowerError> {
        match &bmc.access {
            BmcAccess::Ipmi { address, port, user } => {
                self.ipmi.state(bmc, ipmi::Access { address, port: *port, user }).await
            }
            BmcAccess::Redfish { url, system, user, trust } => {
                redfish::state(bmc, redfish::Access { url, system: system.as_deref(), user, trust }).await
            }
            BmcAccess::Command { program, arguments, interface } => {
                command::state(bmc, command::Access { program, arguments, interface: *interface }).await
            }
        }
    }

    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.order(bmc, PowerState::Off).await
    }

    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.order(bmc, PowerState::On).await
    }
}

impl PowerControl {
    async fn order(&self, bmc: &Bmc, wanted: PowerState) -> Result<(), PowerError> {
        let word = match wanted {
            PowerState::On => "on",
            PowerState::Off => "off",
        };
        match &bmc.access {
            BmcAccess::Ipmi { address, port, user } => {
                self.ipmi.order(bmc, ipmi::Access { address, port: *port, user }, word).await
            }
            BmcAccess::Redfish { url, system, user, trust } => {
                redfish::order(bmc, redfish::Access { url, system: system.as_deref(), user, trust }, wanted).await
            }
            BmcAccess::Command { program, arguments, interface } => {
                command::order(bmc, command::Access { program, arguments, interface: *interface }, word).await
            }
        }
    }
}

/// Another's words for a message: one line, shortened, and without the password, which a program may print.
fn words(bmc: &Bmc, text: &str) -> String {
    let text = text.trim();
    let password = bmc.password.as_ref().map(|password| password.reveal()).filter(|password| !password.is_empty());
    let text = password.map_or_else(|| text.to_owned(), |password| text.replace(password, "..."));
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
    if text.chars().count() > WORDS_MAX {
        line.push_str("...");
    }
    line
}
