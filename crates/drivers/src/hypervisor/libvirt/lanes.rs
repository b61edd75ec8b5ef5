//! Tracks unfinished calls per domain.
//!
//! A domain has three lanes, so that one kind of call need not wait for another:
//!
//! * *change*: start, undefine, erase, migrate. While one is under way the domain is unknown. Two are different: a
//!   guest that is being migrated, or started, is observed while it is in memory, because these calls can last without
//!   end, and somebody may want to power it off.
//! * *cut*: powering off overtakes whatever else is under way. The domain is unknown meanwhile.
//! * *question*: calls that talk to the guest's QEMU and may wait for it without end: the power button, the progress of
//!   a migration, aborting it. They change nothing themselves, so the domain is observed as usual.

use super::migrate;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The name of a start.
pub(super) const START: &str = "start a domain";

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Change,
    Cut,
    Question,
}

/// The names of the calls under way, by domain and kind.
#[derive(Debug, Default)]
pub(super) struct Lanes(BTreeMap<(Uuid, Kind), &'static str>);

impl Lanes {
    /// Takes a lane, or returns the name of the call in it.
    pub(super) fn take(&mut self, uuid: Uuid, kind: Kind, what: &'static str) -> Result<(), &'static str> {
        match self.0.get(&(uuid, kind)) {
            Some(earlier) => Err(earlier),
            None => {
                self.0.insert((uuid, kind), what);
                Ok(())
            }
        }
    }

    /// Frees a lane.
    pub(super) fn leave(&mut self, uuid: Uuid, kind: Kind) {
        self.0.remove(&(uuid, kind));
    }

    /// The call that is changing a domain.
    pub(super) fn change(&self, uuid: Uuid) -> Option<&'static str> {
        self.0.get(&(uuid, Kind::Cut)).or_else(|| self.0.get(&(uuid, Kind::Change))).copied()
    }
}

/// Whether a domain in memory is observed while that call is under way.
pub(super) fn shows(what: &str) -> bool {
    what == migrate::WHAT || what == START
}

/// Why a domain is unknown while that call is under way.
pub(super) fn busy(what: &str) -> String {
    format!("a call to {what} has not finished")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_overtakes_changes_and_questions_do_not_hide_the_domain() {
        let (mut lanes, uuid) = (Lanes::default(), Uuid::from_u128(1));
        lanes.take(uuid, Kind::Question, "press").unwrap();
        assert_eq!(lanes.change(uuid), None);
        assert_eq!(lanes.take(uuid, Kind::Question, "press"), Err("press"));
        lanes.take(uuid, Kind::Change, START).unwrap();
        assert_eq!(lanes.change(uuid), Some(START));
        lanes.take(uuid, Kind::Cut, "cut").unwrap();
        assert_eq!((lanes.change(uuid), lanes.change(Uuid::from_u128(2))), (Some("cut"), None));
        lanes.leave(uuid, Kind::Cut);
        lanes.leave(uuid, Kind::Change);
        assert_eq!(lanes.change(uuid), None);
    }
}
