//! The self-fence: a node that is cut off ends its guests, and lets its watchdog reset its machine, before any other
//! node may take its VMs. Decisions of the node itself; what others conclude is in [`crate::fence::watchdog`].
//!
//! A watchdog is a timer, outside of every process, that resets the machine when it runs out. The node *pets* it, which
//! starts it anew. It makes a [`Promise`](drover_model::Promise) to the others, in a record that it renews, and from
//! the sending of the first one pets the timer only until *end*: the time at which the last acknowledged renewal was
//! **sent**, and [`Timing::patience`].
//!
//! | what is promised | may pet | guests | next |
//! |---|---|---|---|
//! | not known yet | no | – | read the record |
//! | nothing | yes | – | if it is wanted: open the device, then promise |
//! | by an earlier daemon of this boot | no: its last renewal is not known | – | renew, then open the device, whose timer runs |
//! | it, until *end* | until then | ended from then on | renew; if it is not wanted any more: withdraw |
//! | it, and that was used as a proof | no | ended | wait for the reset |
//!
//! **Why the machine is off when others think so.** Let the last acknowledged renewal have been sent at `s`, and the
//! timeout be `W`. Each decision to pet was made before `s` + patience. It is carried out less than `W` after the pet
//! before it, however long the process was stopped in between: else the machine was reset. If the process is killed,
//! the kernel pets once more when it closes the device (`watchdog_release` in drivers/watchdog/watchdog_dev.c, Linux
//! 6.1), again within `W`; the next daemon of this boot opens the device, which pets it too, only once it has had a
//! renewal acknowledged. So the last pet is before `s` + patience + 2 `W`, and the machine is reset before `s` +
//! patience + 3 `W`. The promise is an eighth more ([`Timing::gone_after`]), for clocks that do not agree.
//!
//! The promise is withdrawn before the timer is stopped, and that is acknowledged. The other order would leave a
//! promise that nobody keeps. For the same reason the device is opened before the first promise is made.

use drover_model::Mono;
use std::time::Duration;

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The same for a device that cannot be opened while nothing is promised.
const OPEN_AGAIN: Duration = Duration::from_secs(30);

/// Durations, which follow from the watchdog's timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The watchdog's timeout.
    pub timeout: Duration,
    /// How long after the sending of an acknowledged renewal the watchdog is still petted: longer than the store
    /// usually needs to elect a leader, because an outage of the store that lasts longer resets every node.
    pub patience: Duration,
    /// Interval between renewals.
    pub beat: Duration,
    /// Interval between two pets.
    pub pet: Duration,
}

impl Timing {
    /// For a watchdog with this timeout.
    pub fn of(timeout: Duration) -> Timing {
        Timing { timeout, patience: timeout.saturating_mul(2), beat: timeout / 4, pet: timeout / 5 }
    }

    /// What is promised: so long after the sending of the last renewal the machine has been reset. See the module's
    /// documentation.
    pub fn gone_after(&self) -> Duration {
        let bound = self.patience.saturating_add(self.timeout.saturating_mul(3));
        bound.saturating_add(bound / 8)
    }
}

/// What this boot of the machine has promised, as far as this daemon knows. Clocks are the machine's own, which counts
/// also while the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promised {
    /// Not known yet.
    Unknown,
    /// Nothing: nobody concludes anything from its silence.
    Nothing,
    /// An earlier daemon of this boot has promised, and may have done so until a moment ago.
    Inherited,
    /// This daemon has promised.
    Until {
        /// The watchdog is petted before this only.
        end: Mono,
        /// Whether the promise is known to be in the store.
        known: bool,
    },
    /// The promise was used as a proof that this boot has ended, although it has not yet.
    Spent,
}

/// What the record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// There is none, or it is about another boot.
    Nothing,
    /// It is about this boot, and promises nothing.
    Withdrawn,
    /// It is about this boot, and promises, or cannot be read.
    Promise,
}

/// A change of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Promise, again or for the first time.
    Renew,
    /// Promise nothing any more.
    Withdraw,
}

impl Promised {
    /// After the record was read, with all that was written before.
    #[must_use]
    pub fn read(self, said: Said) -> Promised {
        use Promised::{Inherited, Nothing, Spent, Unknown, Until};
        match (self, said) {
            (Spent, _) => Spent,
            (Unknown | Nothing, Said::Nothing | Said::Withdrawn) | (Inherited, Said::Withdrawn) => Nothing,
            (Unknown | Nothing | Inherited, Said::Promise) => Inherited,
            // Somebody has deleted a promise of this boot.
            (Inherited | Until { known: true, .. }, Said::Nothing) => Spent,
            // Withdrawn, by a write whose answer was lost.
            (Until { known: true, .. }, Said::Withdrawn) => Nothing,
            (Until { end, .. }, Said::Promise) => Until { end, known: true },
            // The write that was sent may still arrive.
            (until @ Until { known: false, .. }, Said::Nothing | Said::Withdrawn) => until,
        }
    }

    /// Before a write is sent, at `sent`: it may arrive.
    #[must_use]
    pub fn sending(self, write: Write, sent: Mono, timing: &Timing) -> Promised {
        match (self, write) {
            (Promised::Nothing, Write::Renew) => Promised::Until { end: sent.after(timing.patience), known: false },
            (before, _) => before,
        }
    }

    /// After a write that was sent at `sent` is known to be done. One that failed, or may have, changes nothing: then
    /// the record is read.
    #[must_use]
    pub fn done(self, write: Write, sent: Mono, timing: &Timing) -> Promised {
        let end = sent.after(timing.patience);
        match (self, write) {
            (Promised::Spent, _) => Promised::Spent,
            (_, Write::Withdraw) => Promised::Nothing,
            (Promised::Until { end: before, .. }, Write::Renew) => {
                Promised::Until { end: end.max(before), known: true }
            }
            (_, Write::Renew) => Promised::Until { end, known: true },
        }
    }

    /// Whether the watchdog may be petted now. To open its device pets it, too.
    pub fn may_pet(self, now: Mono) -> bool {
        match self {
            Promised::Nothing => true,
            Promised::Until { end, .. } => now < end,
            Promised::Unknown | Promised::Inherited | Promised::Spent => false,
        }
    }
}

/// Input of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// The machine's clock.
    pub now: Mono,
    /// Durations.
    pub timing: Timing,
    /// See [`Promised`].
    pub promised: Promised,
    /// Whether the watchdog is to be armed: not in maintenance, while the daemon stops, or after the device has failed.
    pub wanted: bool,
    /// Whether this daemon acts under the node's name, so that it may make a first promise.
    pub member: bool,
    /// Whether the store can be asked.
    pub connected: bool,
    /// A read or a write of the record is under way, or one must be read again first.
    pub busy: bool,
    /// Whether the device is open.
    pub open: bool,
    /// When this daemon began.
    pub began: Mono,
    /// When it was last tried to open or close the device.
    pub tried: Option<Mono>,
    /// When it was last petted.
    pub petted: Option<Mono>,
    /// When a write was last sent.
    pub sent: Option<Mono>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// Pet the watchdog.
    pub pet: bool,
    /// Open its device, which starts it.
    pub open: bool,
    /// Stop it, and close its device.
    pub close: bool,
    /// Change the record.
    pub write: Option<Write>,
    /// End all guests, and start none.
    pub end_guests: bool,
    /// When to decide again without an event.
    pub again: Option<Mono>,
}

impl Decision {
    /// Whether something is done that changes the situation.
    pub fn acts(&self) -> bool {
        self.pet || self.open || self.close || self.write.is_some()
    }
}

/// Decides. The same situation gives the same decision.
pub fn decide(s: &Situation) -> Decision {
    let mut again: Option<Mono> = None;
    let mut due = |at: Option<Mono>| match at {
        Some(at) if at > s.now => {
            again = Some(again.map_or(at, |other| other.min(at)));
            false
        }
        _ => true,
    };
    let may_pet = s.promised.may_pet(s.now);
    // The timer of an earlier daemon runs. It must be petted also if it is not wanted any more, until it is stopped.
    let (opens, pause) = match s.promised {
        Promised::Nothing => (s.wanted && s.member && s.connected, OPEN_AGAIN),
        Promised::Until { .. } => (may_pet, RETRY),
        Promised::Unknown | Promised::Inherited | Promised::Spent => (false, RETRY),
    };
    let open = !s.open && opens && due(s.tried.map(|at| at.after(pause)));
    let pet = s.open && may_pet && due(s.petted.map(|at| at.after(s.timing.pet)));
    let closes = s.open && s.promised == Promised::Nothing && !s.wanted;
    let close = closes && due(s.tried.map(|at| at.after(RETRY)));
    // The timer has not run out in twice its time, although nobody pets it: it does not run.
    let idle = !s.open && s.now >= s.began.after(s.timing.timeout.saturating_mul(2));
    let next = match s.promised {
        Promised::Nothing => (s.wanted && s.member && s.open).then_some((Write::Renew, RETRY)),
        Promised::Inherited | Promised::Until { .. } if idle => Some((Write::Withdraw, RETRY)),
        Promised::Until { .. } if !s.wanted && s.open => Some((Write::Withdraw, RETRY)),
        Promised::Inherited | Promised::Until { .. } => Some((Write::Renew, s.timing.beat)),
        Promised::Unknown | Promised::Spent => None,
    };
    let ready = s.connected && !s.busy;
    let write = next.filter(|(_, pause)| ready && due(s.sent.map(|at| at.after(*pause)))).map(|(write, _)| write);
    let end_guests = match s.promised {
        Promised::Until { end, .. } => due(Some(end)),
        Promised::Spent => true,
        _ => false,
    };
    if end_guests {
        due(Some(s.now.after(RETRY)));
    }
    Decision { pet, open, close, write, end_guests, again }
}

#[cfg(test)]
mod tests;
