//! Disks of a guest that somebody replaced while it ran (an external snapshot, a copy): what is noted of them, and
//! starts that would use older data.
//!
//! A start makes the domain from the VM's record. If the record still names what the guest has left, the guest would
//! boot with older data, and write to an image that others are made of. So it is not started, and an administrator
//! decides: put the newest image into the definition, or order a start with the older one. It is not done by itself,
//! for it cannot be known which is right: a tool may have given its snapshot up, or merged it while the guest was off.
//! A guest that goes back to the disk of its definition (`virsh blockcommit --active --pivot`) ends it.

use super::{
    seen::{Seen, in_memory},
    situation::Situation,
};
use drover_model::{OffReason, Replaced, VmRecord, domain::Written, domain::written};

/// A domain's disks.
#[derive(Debug, Clone, Copy)]
pub struct Disks<'a> {
    /// Those that it was started with; empty: not known.
    pub started: &'a Written,
    /// Those that it has.
    pub live: &'a Written,
}

/// What to note of a VM's replaced disks, after what was noted `before`. `domain`: its own, if it was seen.
pub fn noted(
    before: Option<&Replaced>,
    record: Option<&VmRecord>,
    domain: Option<(&Seen, Disks<'_>)>,
) -> Option<Replaced> {
    let Some((Seen { run, mark, .. }, Disks { started, live })) = domain else { return before.cloned() };
    // An earlier version started it.
    let defined = record.filter(|vm| started.is_empty() && vm.generation == mark.generation).map(|vm| written(&vm.xml));
    let started = defined.as_ref().unwrap_or(started);
    match Replaced::between(mark.epoch, started, live) {
        Some(replaced) => Some(replaced),
        // Of a domain that is off it may be the definition of a start that has not been successful.
        None if in_memory(*run) => before.filter(|before| started.is_empty() && before.of == mark.epoch).cloned(),
        None => before.cloned(),
    }
}

/// Why the VM is not started on this node now.
pub(super) fn refused(s: &Situation<'_>, vm: &VmRecord, seen: Option<&Seen>) -> Option<String> {
    // Saved memory is restored with the disks that the guest had (libvirt 9.0.0, `qemuDomainObjRestore`).
    let restored = seen.is_some_and(|seen| seen.off == Some(OffReason::Saved));
    s.replaced.filter(|_| !restored)?.why_not_started(vm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{
        Epoch, Generation, RunState,
        domain::Mark,
        testing::{VmWords, vm},
    };

    fn disk(source: &str) -> Written {
        Written::from([("vda".to_owned(), source.to_owned())])
    }

    #[test]
    fn what_is_seen_of_a_guest_is_noted_until_the_next_one_runs() {
        let mut record = vm(1, 64).on("a").record.value.clone();
        record.xml =
            "<domain><devices><disk><source file='/a'/><target dev='vda'/></disk></devices></domain>".to_owned();
        let replaced = |epoch| Replaced::between(Epoch(epoch), &disk("/a"), &disk("/s"));
        let (none, a, s) = (Written::new(), disk("/a"), disk("/s"));
        let domain = |run, epoch, generation| {
            let mark = Mark { epoch: Epoch(epoch), generation: Generation(generation) };
            Seen { run, off: None, paused: None, mark, sending: false, transit: None, transient: false }
        };
        let (on, off) = (RunState::Running, RunState::Off);
        let (other, before) = (Generation(record.generation.0 + 1).0, replaced(3));
        let own = record.generation.0;
        for (what, seen, started, live, is) in [
            ("replaced", domain(on, 4, own), &a, &s, replaced(4)),
            ("replaced before it ended", domain(off, 4, own), &a, &s, replaced(4)),
            ("started by an earlier version", domain(on, 4, own), &none, &s, replaced(4)),
            ("back", domain(on, 4, own), &a, &a, None),
            ("another definition", domain(on, 4, other), &s, &s, None),
            ("defined, not started yet", domain(off, 4, own), &a, &a, before.clone()),
            ("unknown what it was started with", domain(on, 3, other), &none, &s, before.clone()),
            ("another one, of which that is unknown", domain(on, 4, other), &none, &s, None),
        ] {
            let disks = Disks { started, live };
            assert_eq!(noted(before.as_ref(), Some(&record), Some((&seen, disks))), is, "{what}");
        }
        assert_eq!(noted(before.as_ref(), Some(&record), None), before);
    }
}
