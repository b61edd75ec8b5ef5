//! When the console logs of deleted VMs are deleted.
//!
//! The log of a VM is wanted after its end: it may tell why. So it stays for a while. It stays for as long as the VM
//! exists, also on a node that the VM has left. Nobody notes when a VM was deleted; so two times must have passed: one
//! since the last output, and one in which this daemon has seen that the VM does not exist. The second begins anew with
//! the daemon, and protects the log of a VM that had been off for long when it was deleted.

use drover_model::{ClusterView, ConsoleLog, Mono};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// A log stays for so long after its last output.
pub const QUIET: Duration = Duration::from_secs(7 * DAY);
/// A log stays for so long after it was seen that its VM does not exist.
pub const GONE: Duration = Duration::from_secs(DAY);
/// The logs are looked at so often, if none is due before: how late it may be seen that a VM does not exist.
pub const LOOK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// Since when logs are seen without their VMs.
#[derive(Debug, Default)]
pub struct Orphans(BTreeMap<Uuid, Mono>);

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The VMs whose logs are to be deleted, if the store too has no record of them.
    pub delete: Vec<Uuid>,
    /// When to look again.
    pub look_again: Mono,
}

/// Decides which of a node's logs are to be deleted. `domains`: all domains with Drover's mark on this node. A VM whose
/// record cannot be read exists.
pub fn sweep(
    orphans: &mut Orphans,
    view: &ClusterView,
    logs: &[ConsoleLog],
    domains: &BTreeSet<Uuid>,
    now: Mono,
) -> Sweep {
    let is_orphan = |log: &&ConsoleLog| !view.vms.contains_key(&log.vm) && !domains.contains(&log.vm);
    let left: BTreeMap<Uuid, (Mono, Duration)> = logs
        .iter()
        .filter(is_orphan)
        .map(|log| (log.vm, (*orphans.0.get(&log.vm).unwrap_or(&now), log.quiet)))
        .collect();
    orphans.0 = left.iter().map(|(vm, (since, _))| (*vm, *since)).collect();
    let mut sweep = Sweep { delete: Vec::new(), look_again: now.after(LOOK_AGAIN) };
    for (vm, (since, quiet)) in left {
        let due = since.after(GONE).max(now.after(QUIET.saturating_sub(quiet)));
        if due <= now { sweep.delete.push(vm) } else { sweep.look_again = sweep.look_again.min(due) }
    }
    sweep
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{RecordKind, Version, VmRecord, testing::*};

    fn log(vm: u128, quiet: Duration) -> ConsoleLog {
        ConsoleLog { vm: Uuid::from_u128(vm), quiet }
    }

    #[test]
    fn a_log_is_deleted_a_while_after_its_vm() {
        let view = cluster(vec![node("a", 8)], Vec::new());
        let begin = Mono(1000);
        let at = |passed: Duration, quiet: Duration, orphans: &mut Orphans| {
            sweep(orphans, &view, &[log(1, quiet)], &BTreeSet::new(), begin.after(passed))
        };
        let ms = Duration::from_millis(1);
        let keep = |until: Mono| Sweep { delete: Vec::new(), look_again: until };
        let gone = vec![Uuid::from_u128(1)];

        // Off for long when it was deleted: a day from then.
        let mut orphans = Orphans::default();
        assert_eq!(at(Duration::ZERO, QUIET * 9, &mut orphans), keep(begin.after(LOOK_AGAIN)));
        assert_eq!(at(GONE - ms, QUIET * 9, &mut orphans), keep(begin.after(GONE)));
        assert_eq!(at(GONE, QUIET * 9, &mut orphans).delete, gone);

        // It wrote a moment before: a week.
        let mut orphans = Orphans::default();
        at(Duration::ZERO, Duration::ZERO, &mut orphans);
        assert_eq!(at(QUIET - ms, QUIET - ms, &mut orphans), keep(begin.after(QUIET)));
        assert_eq!(at(QUIET, QUIET, &mut orphans).delete, gone);
    }

    #[test]
    fn a_log_of_a_vm_that_exists_stays() {
        let mut view = cluster(vec![node("a", 8)], vec![vm(1, 64).on("a")]);
        view.apply(&VmRecord::path(&Uuid::from_u128(2)), Some((b"unreadable", Version(3))));
        let logs = [1, 2, 3, 4].map(|vm| log(vm, QUIET * 9));
        let domains = BTreeSet::from([Uuid::from_u128(3)]);
        let mut orphans = Orphans::default();
        sweep(&mut orphans, &view, &logs, &domains, Mono(0));
        let late = Mono(0).after(GONE);
        assert_eq!(sweep(&mut orphans, &view, &logs, &domains, late).delete, [Uuid::from_u128(4)]);

        // One that comes back and is deleted again has its full time again.
        let all: BTreeSet<Uuid> = logs.iter().map(|log| log.vm).collect();
        sweep(&mut orphans, &view, &logs, &all, late);
        assert!(sweep(&mut orphans, &view, &logs, &domains, late).delete.is_empty());
    }
}
