//! Who ended a guest: the guest itself, or the host.

use super::{memory::Memory, seen::Seen};
use drover_model::{Mono, OffReason};
use std::time::Duration;

/// Time after which the hypervisor's word on who ended a guest does not come any more. libvirt (9.0.0) sends it when
/// QEMU begins to end, so it is there before the domain is seen off, or a moment later: it comes by another connection.
pub const WORD_BY_THEN: Duration = Duration::from_secs(5);

/// Why a domain is off, with what the hypervisor said when it ended: it may not say so any more (to another daemon, or
/// after its connection was lost).
pub(super) fn off_reason(seen: &Seen, memory: &Memory) -> Option<OffReason> {
    match seen.off {
        Some(OffReason::ShutdownOrEnded) if memory.ended == Some(seen.mark.epoch) => Some(OffReason::Ended),
        off => off,
    }
}

/// What is said while it may still become known how a guest ended.
pub(super) const WHO_ENDED_IT: &str = "finding out whether the guest powered itself off or was ended by the host";

/// Whether a guest that is off powered itself off, so that it is to stay off. `None`: that may still become known.
///
/// If nobody saw how it ended, it did: libvirt forgets why a domain is off when the machine or libvirtd restarts. So
/// what still says *shutdown* ended in this boot, while the daemon was not listening, on a machine that is not going
/// down. Then it was the guest, or somebody on the node who shut it down; hardly ever a signal. To boot it again would
/// be wrong for as long as the daemon was away, which may be days.
pub(super) fn powered_itself_off(seen: &Seen, memory: &Memory, now: Mono) -> Option<bool> {
    match off_reason(seen, memory) {
        // A power button pressed by us, for a command that was cancelled later, is not the guest's own decision.
        _ if memory.pressed.is_some_and(|(epoch, _)| epoch == seen.mark.epoch) => Some(false),
        Some(OffReason::Shutdown) => Some(true),
        Some(OffReason::ShutdownOrEnded) => {
            let late = memory.off_since.is_some_and(|(_, since)| now.since(since) >= WORD_BY_THEN);
            late.then_some(true)
        }
        _ => Some(false),
    }
}
