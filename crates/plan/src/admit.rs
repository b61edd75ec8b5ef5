//! Validation of requests about a VM in its present state, and the new record.
//!
//! The caller writes the result by compare-and-set on the version of the record that was the input, so a concurrent
//! change is never overwritten.

use drover_model::{
    AtRest, Claim, Definition, Epoch, Generation, NodeName, Paused, PausedBy, Replaced, RunState, VmMeta, VmName,
    VmRecord, VmState, VmStatus,
    vm::{SHUTDOWN_TIMEOUT_MAX_S, SHUTDOWN_TIMEOUT_S, VM_SCHEMA},
};
use std::path::PathBuf;
use uuid::Uuid;

/// A command that changes the wanted state of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run it. Cancels a shutdown that is under way.
    Start {
        /// Even if the disks of its definition have older data than the guest had.
        force: bool,
    },
    /// Ask the guest to power off, and force it off after this timeout in seconds (`None`: the default).
    Shutdown(Option<u32>),
    /// Force it off now.
    Stop,
    /// Ask the guest to power off, force it off after this timeout in seconds, and start it again.
    Restart(Option<u32>),
    /// Take it out of service. A running VM is shut down first, or forced off with `force`.
    Disable {
        /// Force it off instead of asking the guest.
        force: bool,
    },
    /// Pause its guest.
    Pause,
    /// Let its guest run on, or wake it.
    Resume,
    /// Cancel a move that is under way: the VM stays on its node, if it is not gone yet.
    CancelMove,
}

/// What is known of a VM's guest when a command comes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guest {
    /// Its run state, if its holder reports that under the present claim.
    pub run: Option<RunState>,
    /// Why it is paused, if it is.
    pub paused: Option<Paused>,
    /// Whether it may be on its way to another node.
    pub sent: bool,
    /// Disks that it writes to, or the last one has written to, instead of those that it was started with.
    pub replaced: Option<Replaced>,
    /// The epoch of the last grant.
    pub epoch: Epoch,
}

impl Guest {
    /// What the records say of the guest. A report under another claim is of another guest.
    pub fn of(claim: &Claim, report: Option<&VmStatus>) -> Guest {
        let (replaced, epoch) = (report.and_then(|report| report.replaced.clone()), claim.epoch);
        let report = report.filter(|report| claim.is_held_by(&report.node) && claim.epoch == report.epoch);
        let run = report.filter(|report| !report.unknown).and_then(|report| report.run);
        Guest { run, paused: report.and_then(VmStatus::why_paused), sent: claim.to.is_some(), replaced, epoch }
    }
}

/// Why a request is refused. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command is not possible in this state.
    #[error("VM {name} is in state {state}, and {command} needs {needs}")]
    State {
        /// The VM.
        name: VmName,
        /// Its state.
        state: &'static str,
        /// The command.
        command: &'static str,
        /// What the command requires, for users.
        needs: &'static str,
    },
    /// The guest's state does not allow it.
    #[error("VM {name} is not {done}: its guest {is}{hint}")]
    Guest {
        /// The VM.
        name: VmName,
        /// What is not done.
        done: &'static str,
        /// The guest's state, as the end of a sentence.
        is: String,
        /// What to do, after a separator; empty: nothing.
        hint: String,
    },
    /// The start that it needs would use older data than the guest has, or had.
    #[error("VM {name} is not {done}: {why}")]
    OlderDisks {
        /// The VM.
        name: VmName,
        /// What is not done.
        done: &'static str,
        /// Why not.
        why: String,
    },
    /// The VM has no node to run on.
    #[error("VM {0} is not assigned to a node; assign one first")]
    NoNode(VmName),
    /// The VM is being deleted.
    #[error("VM {0} is being deleted")]
    Deleting(VmName),
    /// The new definition belongs to another VM.
    #[error("the definition's {what} is {given}, but this VM's is {is}: {hint}")]
    Identity {
        /// `name` or `UUID`.
        what: &'static str,
        /// Value in the definition.
        given: String,
        /// Value of the VM.
        is: String,
        /// What to do.
        hint: &'static str,
    },
    /// The name has the form of a UUID.
    #[error("a VM cannot be named {0}: that has the form of a UUID, and a UUID always means the VM with that UUID")]
    NameIsUuid(VmName),
    /// A file of the definition is being deleted.
    #[error("{} is being deleted with VM {vm}; name another file", file.display())]
    FileLeaves {
        /// The file.
        file: PathBuf,
        /// The VM that it belongs to.
        vm: VmName,
    },
    /// The timeout is out of range.
    #[error("a timeout of {0} s is not valid; accepted are 1 to {max} s", max = SHUTDOWN_TIMEOUT_MAX_S)]
    Timeout(u32),
}

/// Whether the VM is off and stays off: in a state of rest other than running, and without a holder.
pub fn is_off(record: &VmRecord, claim: &Claim) -> bool {
    record.state.at_rest() && record.state != VmState::Start && claim.node.is_none()
}

/// Refuses a new name that has one of the forms of a UUID. (Earlier versions accepted them, so a VM may have one.)
pub fn new_name(name: &VmName) -> Result<(), Refusal> {
    match Uuid::parse_str(name.as_str()) {
        Ok(_) => Err(Refusal::NameIsUuid(name.clone())),
        Err(_) => Ok(()),
    }
}

/// The record of a new VM.
pub fn define(definition: &Definition, node: Option<NodeName>) -> VmRecord {
    VmRecord {
        schema: VM_SCHEMA,
        uuid: definition.uuid,
        name: definition.name.clone(),
        state: VmState::Stop,
        node,
        last_node: None,
        xml: definition.xml.clone(),
        generation: Generation(1),
        description: definition.description.clone(),
        profile: String::new(),
        meta: VmMeta::default(),
        placed: None,
        going: None,
        older_disks: None,
        operation: None,
        refused: Vec::new(),
    }
}

fn timeout(given: Option<u32>) -> Result<u32, Refusal> {
    match given.unwrap_or(SHUTDOWN_TIMEOUT_S) {
        t @ 1..=SHUTDOWN_TIMEOUT_MAX_S => Ok(t),
        t => Err(Refusal::Timeout(t)),
    }
}

/// The refusal because of why the guest is paused.
fn because(record: &VmRecord, paused: &Paused, done: &'static str) -> Refusal {
    let hint = match paused.by.way_on(&record.name) {
        way if way.is_empty() => ". Try again in a moment".to_owned(),
        way => format!(". {}{}", way.get(..1).unwrap_or_default().to_uppercase(), way.get(1..).unwrap_or_default()),
    };
    Refusal::Guest { name: record.name.clone(), done, is: paused.to_string(), hint }
}

/// Refuses what needs a guest that hears its power button.
fn hears(record: &VmRecord, guest: &Guest, done: &'static str) -> Result<(), Refusal> {
    match &guest.paused {
        Some(paused) if paused.by.lasts() => Err(because(record, paused, done)),
        _ => Ok(()),
    }
}

/// Refuses what needs a start, if that would use older data than the guest has, or had.
fn has_newest(record: &VmRecord, guest: &Guest, done: &'static str) -> Result<(), Refusal> {
    match guest.replaced.as_ref().and_then(|replaced| replaced.why_not_started(record)) {
        Some(why) => Err(Refusal::OlderDisks { name: record.name.clone(), done, why }),
        None => Ok(()),
    }
}

/// The state after an order that the guest executes again.
fn resume(record: &VmRecord, guest: &Guest) -> Result<VmState, Refusal> {
    match &guest.paused {
        Some(paused) if paused.by.can_resume() => Ok(VmState::Resume),
        Some(paused) if paused.by.lasts() => Err(because(record, paused, "resumed")),
        _ => Ok(record.state.clone()),
    }
}

/// The state after an order to pause the guest.
fn pause(record: &VmRecord, guest: &Guest) -> Result<VmState, Refusal> {
    let refuse = |is: &str| {
        Err(Refusal::Guest { name: record.name.clone(), done: "paused", is: is.to_owned(), hint: String::new() })
    };
    match (&guest.paused, guest.run) {
        _ if guest.sent => refuse("may be on its way to another node"),
        (Some(Paused { by: PausedBy::Administrator, .. }), _) => Ok(record.state.clone()),
        (Some(Paused { by: PausedBy::IoError, .. }), _) if record.meta.resume_after_io_error => Err(Refusal::Guest {
            name: record.name.clone(),
            done: "paused",
            is: "is paused by an I/O error, and resumed by itself now and then".to_owned(),
            hint: format!(". To keep it paused: 'drover vm meta {} --no-resume-after-io-error'", record.name),
        }),
        (Some(paused), _) => Err(because(record, paused, "paused")),
        (None, Some(RunState::Running)) => Ok(VmState::Pause),
        (None, Some(RunState::ShuttingDown)) => refuse("is powering off"),
        (None, _) => refuse("does not run, as far as is known"),
    }
}

/// The record after a command; unchanged if there is nothing to do.
pub fn command(record: &VmRecord, guest: &Guest, command: Command) -> Result<VmRecord, Refusal> {
    use VmState::*;
    let refuse =
        |command, needs| Err(Refusal::State { name: record.name.clone(), state: record.state.word(), command, needs });
    if matches!(record.state, Delete { .. }) {
        return Err(Refusal::Deleting(record.name.clone()));
    }
    let state = match command {
        Command::Start { .. } if record.node.is_none() => return Err(Refusal::NoNode(record.name.clone())),
        // A restart that is under way ends in the same state.
        Command::Start { .. } if matches!(record.state, Restart { .. }) => record.state.clone(),
        Command::Start { force } => match record.state {
            Stop | Disable | Fail { .. } if force => {
                let older_disks = guest.replaced.as_ref().map(|_| guest.epoch).or(record.older_disks);
                return Ok(VmRecord { state: Start, older_disks, ..record.clone() });
            }
            Stop | Disable | Fail { .. } => {
                has_newest(record, guest, "started")?;
                Start
            }
            Start => resume(record, guest)?,
            Pause | Resume => Resume,
            // A move or a shutdown that is under way is cancelled.
            _ => Start,
        },
        Command::Resume => match record.state {
            Start if guest.run.is_none_or(|run| run == RunState::Off) => {
                return refuse("resume", "its guest to be in memory, as far as its node knows");
            }
            Start => resume(record, guest)?,
            Pause | Resume => Resume,
            _ => return refuse("resume", "it to be running (state start)"),
        },
        Command::Pause => match record.state {
            Start => pause(record, guest)?,
            Pause | Resume => Pause,
            _ => return refuse("pause", "it to be running (state start)"),
        },
        Command::CancelMove => match record.state {
            Migrate { .. } => Start,
            _ => return refuse("cancel", "a move that is under way"),
        },
        Command::Stop => Stop,
        Command::Shutdown(given) => match record.state {
            // Changes the time of a shutdown that the guest may have heard.
            Shutdown { .. } => Shutdown { timeout_s: timeout(given)?, then: AtRest::Stop },
            Start | Restart { .. } | Pause | Resume | Migrate { .. } => {
                let timeout_s = timeout(given)?;
                hears(record, guest, "shut down")?;
                Shutdown { timeout_s, then: AtRest::Stop }
            }
            Stop => Stop,
            _ => return refuse("shutdown", "it to be running"),
        },
        Command::Restart(given) => match record.state {
            Start | Restart { .. } | Pause | Resume => {
                let timeout_s = timeout(given)?;
                hears(record, guest, "restarted")?;
                has_newest(record, guest, "restarted")?;
                Restart { timeout_s }
            }
            _ => return refuse("restart", "it to be running (state start)"),
        },
        Command::Disable { force: true } => Disable,
        Command::Disable { force: false } => match record.state {
            Shutdown { .. } => Shutdown { timeout_s: SHUTDOWN_TIMEOUT_S, then: AtRest::Disable },
            Start | Restart { .. } | Pause | Resume | Migrate { .. } => {
                hears(record, guest, "shut down")?;
                Shutdown { timeout_s: SHUTDOWN_TIMEOUT_S, then: AtRest::Disable }
            }
            _ => Disable,
        },
    };
    Ok(VmRecord { state, ..record.clone() })
}

/// Sets a new definition. With `restart`, a running VM is restarted to apply it at once; otherwise it applies from the
/// next start.
pub fn modify(record: &VmRecord, guest: &Guest, definition: &Definition, restart: bool) -> Result<VmRecord, Refusal> {
    if matches!(record.state, VmState::Delete { .. }) {
        return Err(Refusal::Deleting(record.name.clone()));
    }
    if definition.uuid != record.uuid {
        return Err(Refusal::Identity {
            what: "UUID",
            given: definition.uuid.to_string(),
            is: record.uuid.to_string(),
            hint: "a VM keeps its UUID; define another VM instead",
        });
    }
    if definition.name != record.name {
        return Err(Refusal::Identity {
            what: "name",
            given: definition.name.to_string(),
            is: record.name.to_string(),
            hint: "rename the VM instead",
        });
    }
    let changed = definition.xml != record.xml;
    let generation = if changed { Generation(record.generation.0.saturating_add(1)) } else { record.generation };
    let state = match &record.state {
        VmState::Start if restart => {
            hears(record, guest, "restarted")?;
            has_newest(&VmRecord { xml: definition.xml.clone(), ..record.clone() }, guest, "restarted")?;
            VmState::Restart { timeout_s: SHUTDOWN_TIMEOUT_S }
        }
        state => state.clone(),
    };
    // Another definition may start where this one did not.
    let refused = if changed { Vec::new() } else { record.refused.clone() };
    Ok(VmRecord {
        xml: definition.xml.clone(),
        description: definition.description.clone(),
        generation,
        state,
        refused,
        ..record.clone()
    })
}

/// Renames a VM that is off. `definition` is its present one.
pub fn rename(record: &VmRecord, claim: &Claim, renamed: &Definition) -> Result<VmRecord, Refusal> {
    if matches!(record.state, VmState::Delete { .. }) {
        return Err(Refusal::Deleting(record.name.clone()));
    }
    if !is_off(record, claim) {
        return Err(Refusal::State {
            name: record.name.clone(),
            state: record.state.word(),
            command: "rename",
            needs: "it to be off (state stop, disable or fail, and released by its node)",
        });
    }
    new_name(&renamed.name)?;
    let generation = Generation(record.generation.0.saturating_add(1));
    Ok(VmRecord { name: renamed.name.clone(), xml: renamed.xml.clone(), generation, ..record.clone() })
}

/// How to delete a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, for a moment")]
pub enum Deletion {
    /// No node holds it and no disks are deleted: its records can be deleted at once.
    Now,
    /// Its node must act first: write this record, and the node deletes the VM.
    ByNode(VmRecord),
}

/// Decides how to delete a VM, with its disks or without.
pub fn delete(record: &VmRecord, claim: &Claim, disks: bool) -> Result<Deletion, Refusal> {
    if claim.node.is_none() && record.node.is_none() && disks {
        return Err(Refusal::NoNode(record.name.clone()));
    }
    // Taking the claim checks the record and changes the claim, so no node can start the VM concurrently with a
    // deletion that checks both.
    if claim.node.is_none() && !disks {
        return Ok(Deletion::Now);
    }
    Ok(Deletion::ByNode(VmRecord { state: VmState::Delete { disks }, ..record.clone() }))
}

#[cfg(test)]
mod tests;
