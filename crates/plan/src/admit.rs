//! Whether a request about a VM is allowed in its present state, and what its record becomes.
//!
//! The caller writes the result by compare-and-set on the version of the record that it gave in, so a decision made
//! here never overwrites somebody else's.

use drover_model::{
    AtRest, Claim, Definition, Generation, NodeName, VmMeta, VmName, VmRecord, VmState,
    vm::{SHUTDOWN_TIMEOUT_S, VM_SCHEMA},
};

/// A command that changes what is wanted of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run it. Takes back a shutdown that is under way.
    Start,
    /// Ask the guest to power off, and cut its power after so many seconds (`None`: the default).
    Shutdown(Option<u32>),
    /// Cut its power now.
    Stop,
    /// Ask the guest to power off, cut its power after so many seconds, and start it again.
    Restart(Option<u32>),
    /// Stop counting it. A running VM is shut down first, or cut off with `force`.
    Disable {
        /// Cut its power instead of asking the guest.
        force: bool,
    },
    /// Take back a move that is under way: it stays where it is, if it is not gone yet.
    CancelMove,
}

/// Why a request is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command makes no sense in this state.
    #[error("VM {name} is in state {state}, and {command} needs {needs}")]
    State {
        /// The VM.
        name: VmName,
        /// Its state.
        state: &'static str,
        /// What was asked.
        command: &'static str,
        /// What it needs, for people.
        needs: &'static str,
    },
    /// The VM has no node, so nobody would act.
    #[error("VM {0} is assigned to no node; assign one first")]
    NoNode(VmName),
    /// The VM is being deleted.
    #[error("VM {0} is being deleted")]
    Deleting(VmName),
    /// The new definition is of another VM.
    #[error("the definition's {what} is {given}, but this VM's is {is}: {hint}")]
    Identity {
        /// `name` or `UUID`.
        what: &'static str,
        /// What the definition says.
        given: String,
        /// What the VM has.
        is: String,
        /// What to do.
        hint: &'static str,
    },
    /// The deadline is out of range.
    #[error("a timeout of {0} s is not accepted: from 1 to {max} are", max = TIMEOUT_MAX_S)]
    Timeout(u32),
}

/// The longest time that a guest may be given to power off, in seconds: a day.
pub const TIMEOUT_MAX_S: u32 = 86_400;

/// Whether the VM is off for good: in a state of rest that is not running, and nobody holds it.
pub fn is_off(record: &VmRecord, claim: &Claim) -> bool {
    record.state.at_rest() && record.state != VmState::Start && claim.node.is_none()
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
    }
}

fn timeout(given: Option<u32>) -> Result<u32, Refusal> {
    match given.unwrap_or(SHUTDOWN_TIMEOUT_S) {
        t @ 1..=TIMEOUT_MAX_S => Ok(t),
        t => Err(Refusal::Timeout(t)),
    }
}

/// What a command makes of a record. The same record, unchanged, when there is nothing to do.
pub fn command(record: &VmRecord, command: Command) -> Result<VmRecord, Refusal> {
    use VmState::*;
    let refuse =
        |command, needs| Err(Refusal::State { name: record.name.clone(), state: record.state.word(), command, needs });
    if matches!(record.state, Delete { .. }) {
        return Err(Refusal::Deleting(record.name.clone()));
    }
    let state = match command {
        Command::Start if record.node.is_none() => return Err(Refusal::NoNode(record.name.clone())),
        // A restart that is under way ends in the same wish.
        Command::Start if matches!(record.state, Restart { .. }) => record.state.clone(),
        // A move that is under way is taken back.
        Command::Start => Start,
        Command::CancelMove => match record.state {
            Migrate { .. } => Start,
            _ => return refuse("cancel", "a move that is under way"),
        },
        Command::Stop => Stop,
        Command::Shutdown(given) => match record.state {
            Start | Restart { .. } | Shutdown { .. } | Migrate { .. } => {
                Shutdown { timeout_s: timeout(given)?, then: AtRest::Stop }
            }
            Stop => Stop,
            _ => return refuse("shutdown", "it to be running"),
        },
        Command::Restart(given) => match record.state {
            Start | Restart { .. } => Restart { timeout_s: timeout(given)? },
            _ => return refuse("restart", "it to be running (state start)"),
        },
        Command::Disable { force: true } => Disable,
        Command::Disable { force: false } => match record.state {
            Start | Shutdown { .. } | Restart { .. } | Migrate { .. } => {
                Shutdown { timeout_s: SHUTDOWN_TIMEOUT_S, then: AtRest::Disable }
            }
            _ => Disable,
        },
    };
    Ok(VmRecord { state, ..record.clone() })
}

/// A new definition for a VM. With `restart`, a running VM is restarted to take it up at once; otherwise it holds from
/// the next start.
pub fn modify(record: &VmRecord, definition: &Definition, restart: bool) -> Result<VmRecord, Refusal> {
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
        VmState::Start if restart => VmState::Restart { timeout_s: SHUTDOWN_TIMEOUT_S },
        state => state.clone(),
    };
    Ok(VmRecord {
        xml: definition.xml.clone(),
        description: definition.description.clone(),
        generation,
        state,
        ..record.clone()
    })
}

/// A new name for a VM that is off. `definition` is its present one.
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
    let generation = Generation(record.generation.0.saturating_add(1));
    Ok(VmRecord { name: renamed.name.clone(), xml: renamed.xml.clone(), generation, ..record.clone() })
}

/// How a VM is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, for a moment")]
pub enum Deletion {
    /// Nobody holds it and no disks are to go: its records can be deleted at once.
    Now,
    /// Its node must act first: the record becomes this, and the node deletes it.
    ByNode(VmRecord),
}

/// How a VM is deleted, with its disks or without.
pub fn delete(record: &VmRecord, claim: &Claim, disks: bool) -> Result<Deletion, Refusal> {
    if claim.node.is_none() && record.node.is_none() && disks {
        return Err(Refusal::NoNode(record.name.clone()));
    }
    // Taking the claim checks the record and changes the claim, so nobody can start the VM beside a deletion that
    // checks both.
    if claim.node.is_none() && !disks {
        return Ok(Deletion::Now);
    }
    Ok(Deletion::ByNode(VmRecord { state: VmState::Delete { disks }, ..record.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const XML: &str = "<domain><name>vm</name><memory unit='MiB'>64</memory><vcpu>1</vcpu></domain>";

    fn definition(xml: &str) -> Definition {
        Definition::parse(xml, Uuid::from_u128(1)).unwrap()
    }

    fn vm(state: VmState) -> VmRecord {
        VmRecord { state, ..define(&definition(XML), Some(NodeName::new("a").unwrap())) }
    }

    #[test]
    fn commands_by_state() {
        use VmState::*;
        let down = |timeout_s, then| Shutdown { timeout_s, then };
        let again = Restart { timeout_s: 180 };
        let failed = Fail { reason: "x".to_owned() };
        let to = NodeName::new("b").unwrap();
        let away = Migrate { to, kind: drover_model::MoveKind::Move, how: drover_model::How::Live };
        for (state, given, wanted) in [
            (Stop, Command::Start, Some(Start)),
            (Start, Command::Start, Some(Start)),
            (down(180, AtRest::Stop), Command::Start, Some(Start)),
            (again.clone(), Command::Start, Some(again.clone())),
            (failed.clone(), Command::Start, Some(Start)),
            (Start, Command::Shutdown(None), Some(down(180, AtRest::Stop))),
            (down(180, AtRest::Stop), Command::Shutdown(Some(5)), Some(down(5, AtRest::Stop))),
            (Stop, Command::Shutdown(None), Some(Stop)),
            (failed.clone(), Command::Shutdown(None), None),
            (Start, Command::Shutdown(Some(0)), None),
            (Start, Command::Shutdown(Some(TIMEOUT_MAX_S + 1)), None),
            (Start, Command::Restart(None), Some(again.clone())),
            (Stop, Command::Restart(None), None),
            (again, Command::Stop, Some(Stop)),
            (Disable, Command::Stop, Some(Stop)),
            (Start, Command::Disable { force: false }, Some(down(180, AtRest::Disable))),
            (Start, Command::Disable { force: true }, Some(Disable)),
            (failed, Command::Disable { force: false }, Some(Disable)),
            (Delete { disks: false }, Command::Start, None),
            (away.clone(), Command::CancelMove, Some(Start)),
            (away, Command::Restart(None), None),
            (Start, Command::CancelMove, None),
            (Stop, Command::CancelMove, None),
        ] {
            let got = command(&vm(state.clone()), given).map(|r| r.state);
            assert_eq!(got.clone().ok(), wanted, "{state:?} {given:?}: {got:?}");
        }
        let homeless = VmRecord { node: None, ..vm(Stop) };
        assert_eq!(command(&homeless, Command::Start), Err(Refusal::NoNode(homeless.name.clone())));
    }

    #[test]
    fn a_new_definition_keeps_the_identity_and_counts() {
        let xml = XML.replace("64", "128");
        let running = vm(VmState::Start);
        let new = modify(&running, &definition(&xml), false).unwrap();
        assert_eq!((new.generation, &new.state, &new.xml), (Generation(2), &VmState::Start, &definition(&xml).xml));
        let same = modify(&running, &definition(XML), true).unwrap();
        assert_eq!((same.generation, same.state.word()), (Generation(1), "restart"));
        assert_eq!(modify(&vm(VmState::Stop), &definition(&xml), true).unwrap().state, VmState::Stop);
        for other in [
            XML.replace(">vm<", ">other<"),
            XML.replace("<memory", "<uuid>0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d</uuid><memory"),
        ] {
            assert!(matches!(modify(&running, &definition(&other), false), Err(Refusal::Identity { .. })));
        }
    }

    #[test]
    fn only_a_vm_that_is_off_and_released_is_renamed() {
        let renamed = definition(XML).renamed(&VmName::new("new").unwrap()).unwrap();
        let free = Claim::never();
        let held = free.granted_to(&NodeName::new("a").unwrap());
        assert_eq!(rename(&vm(VmState::Stop), &free, &renamed).unwrap().name.as_str(), "new");
        assert!(rename(&vm(VmState::Stop), &held, &renamed).is_err());
        assert!(rename(&vm(VmState::Start), &free, &renamed).is_err());
    }

    #[test]
    fn deleting_waits_for_whoever_may_have_something_of_the_vm() {
        let free = Claim::never();
        let held = free.granted_to(&NodeName::new("a").unwrap());
        assert_eq!(delete(&vm(VmState::Stop), &free, false), Ok(Deletion::Now));
        for (claim, disks) in [(&held, false), (&free, true), (&held, true)] {
            let Ok(Deletion::ByNode(record)) = delete(&vm(VmState::Stop), claim, disks) else { panic!("{claim:?}") };
            assert_eq!(record.state, VmState::Delete { disks });
        }
    }
}
