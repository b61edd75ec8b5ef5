//! Failed starts and their retries.

use drover_model::{Claim, Epoch, Generation, Mono, NodeName};

/// Number of starts in a row refused by the hypervisor after which a VM fails: about two minutes after the first. A
/// bridge or a storage may take that long after the machine's boot.
pub const START_LIMIT: u32 = 8;

/// Whether nothing is known of a later grant than the one under which a guest is about to be started. `shown`: the
/// VM's claim in a view, which may be older than that grant. Without one, the VM is being deleted.
pub fn is_not_lost(granted: Epoch, me: &NodeName, shown: Option<&Claim>) -> bool {
    shown.is_some_and(|claim| claim.epoch < granted || claim.epoch == granted && claim.is_held_by(me))
}

/// How a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The definition is invalid, so that a retry is of no use.
    ForGood,
    /// The hypervisor refused it; what is missing may become available.
    Refused,
    /// Unknown reason, or unknown whether it failed.
    Unknown,
}

/// Failed starts in a row, of one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailures {
    /// The definition. A later one resets the count. (Not every change of the record does: a flush that orders a move,
    /// which is given up because the VM is off, would reset it each time.)
    pub of: Generation,
    /// Number of failed starts.
    pub tries: u32,
    /// Number of those that the hypervisor refused.
    pub refusals: u32,
    /// How the last one failed.
    pub last: Failed,
    /// Time of the last one.
    pub at: Mono,
    /// Error message of the last one.
    pub why: String,
    /// It was ordered back to where it came from.
    pub sent_back: bool,
}

impl StartFailures {
    /// Adds a failure to `before`, for that definition.
    pub(super) fn after(
        before: Option<&StartFailures>,
        of: Generation,
        last: Failed,
        why: String,
        at: Mono,
    ) -> StartFailures {
        let before = before.filter(|f| f.of == of);
        let (tries, refusals) = before.map_or((0, 0), |f| (f.tries, f.refusals));
        let sent_back = before.is_some_and(|f| f.sent_back);
        let refusals = if last == Failed::Unknown { refusals } else { refusals.saturating_add(1) };
        StartFailures { of, tries: tries.saturating_add(1), refusals, last, at, why, sent_back }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::testing::name;

    #[test]
    fn a_grant_is_lost_when_a_later_one_is_shown_or_it_was_taken_away() {
        let (me, other) = (name("a"), name("b"));
        let before = Claim::new(Epoch(7));
        let mine = before.granted_to(&me);
        for older in [&before, &mine] {
            assert!(is_not_lost(mine.epoch, &me, Some(older)), "{older:?}");
        }
        assert!(!is_not_lost(mine.epoch, &me, None), "it is gone");
        for later in [mine.granted_to(&other), mine.granted_to(&me), mine.released()] {
            assert!(!is_not_lost(mine.epoch, &me, Some(&later)), "{later:?}");
        }
    }
}
