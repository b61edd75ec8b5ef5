//! Input and output of one decision about a VM.

use super::{elsewhere::Elsewhere, memory::Memory, seen::Seen};
use crate::moves::{Back, Return, Turn};
use drover_model::{Claim, Epoch, Mono, NodeName, Obs, Replaced, Stored, VmRecord, VmState, domain::KeptState};
use std::time::Duration;

/// Poll interval for an unknown domain, or for a hypervisor that cannot be used, if no event comes before.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whether this node can start guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostState {
    /// It can.
    Ready,
    /// It cannot yet, for this reason.
    NotReady(String),
    /// The machine goes down. That guests end now tells nothing about what is wanted of them.
    GoingDown,
}

/// Input of one decision.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// The id of its machine. Empty: claims of any machine of its name count as its own.
    pub machine: &'a str,
    /// The VM's record; `None` if there is none.
    pub record: Option<&'a Stored<VmRecord>>,
    /// Its claim; `None` if there is none, or it cannot be read.
    pub claim: Option<&'a Stored<Claim>>,
    /// The domain on this node.
    pub domain: &'a Obs<Seen>,
    /// See [`Memory`]; already updated by [`Memory::absorb`], unless the machine goes down.
    pub memory: &'a Memory,
    /// Whether guests can be started here.
    pub host: &'a HostState,
    /// Whether it may move now, if it should be moved.
    pub turn: &'a Turn,
    /// State that libvirt keeps for it on this node, which is not transferred while the VM is off.
    pub kept: Option<KeptState>,
    /// A guest of the VM that another node reports.
    pub elsewhere: Option<&'a Elsewhere>,
    /// Disks that its guest has written to, or writes to, instead of those that it was started with ([`super::noted`]).
    pub replaced: Option<&'a Replaced>,
    /// What becomes of it if it cannot be started here.
    pub back: &'a Back,
    /// Current time of this process's clock.
    pub now: Mono,
}

impl Situation<'_> {
    /// Whether this machine holds the claim.
    pub(super) fn is_mine(&self, claim: &Claim) -> bool {
        let unknown = claim.machine.is_empty() || self.machine.is_empty();
        claim.is_held_by(self.me) && (unknown || claim.machine == self.machine)
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something changes, or until [`Decision::look_again`].
    Wait,
    /// The VM does not concern this node any more; its task ends.
    Leave,
    /// Take the claim (by compare-and-set on the record and the claim that were read), then create the domain.
    Start,
    /// Press the guest's power button.
    PressButton,
    /// Pause the guest.
    Pause,
    /// Let the guest execute again.
    Resume,
    /// Let the guest execute again, to see whether the cause of its I/O error is gone.
    ResumeAfterError,
    /// Wake the guest.
    Wake,
    /// Destroy the domain (forced power-off).
    Destroy,
    /// Undefine a domain that is off.
    Undefine,
    /// Write this state, by compare-and-set on the version of the record that was read.
    Complete(VmState),
    /// Release the claim.
    Release,
    /// Migrate the guest to that node.
    Migrate(NodeName),
    /// Migrate it by post-copy, because it changes its memory faster than that can be sent.
    MigrateByPostCopy(NodeName),
    /// Abort the migration.
    AbortMigration,
    /// The guest is here and is not being sent: grant the claim anew, above the send's epoch, without `to`.
    CallBack,
    /// It cannot be moved, for this reason: write state *start*.
    GiveUpMove(String),
    /// Nothing of it is here any more: transfer the claim to the target, and assign the VM there.
    HandOver(NodeName),
    /// The same, because its guest, with that mark, was taken to that node, outside Drover.
    Follow(NodeName, Epoch),
    /// Its guest has ended here, while it was being sent to that node: the same, above the mark of what may have come
    /// there, so that the VM is started anew.
    StartThere(NodeName),
    /// It cannot be started here, for this reason, and was brought here while off: order its move to that node.
    GoBack(Box<Return>, String),
    /// Its guest has arrived: take the claim from the source, and assign the VM here.
    TakeOver,
    /// Take the claim of a guest that runs here, assign the VM here, and write this state.
    Adopt(VmState),
    /// Grant the claim anew, with an epoch above the mark of the guest, which runs here.
    Regrant,
    /// Give the imported domain here, which has no mark yet, one, so that it is Drover's.
    Import,
    /// Replace the mark of the guest, which runs here, by that of the claim, and write its definition if it has none.
    Remark,
    /// Let the guest execute: it is paused by a migration that is over.
    LetRun,
    /// The guest has the claim's mark, and executes or is to stay paused: remove `resume`, `adopts` and `from`
    /// from the claim.
    Settle,
    /// Delete the disks of a VM that is being deleted.
    RemoveDisks,
    /// Delete the VM's records.
    DeleteRecords,
}

/// A step, its reason, and when to look again without an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The step.
    pub step: Step,
    /// What is going on, for users. Empty if there is nothing to report.
    pub doing: String,
    /// When to decide again at the latest.
    pub look_again: Option<Mono>,
}

impl Decision {
    pub(super) fn to(step: Step, doing: impl Into<String>) -> Decision {
        Decision { step, doing: doing.into(), look_again: None }
    }
    pub(super) fn wait(doing: impl Into<String>, look_again: Option<Mono>) -> Decision {
        Decision { step: Step::Wait, doing: doing.into(), look_again }
    }
}
