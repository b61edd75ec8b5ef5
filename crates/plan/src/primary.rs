//! The protocol of the primary's role: what a coordinator does next, as a pure function of what it knows.
//!
//! The role changes its holder in two ways. **Handoff**: both sides go through the phases of [`Phase`], and in each
//! phase one side acts; it writes the next phase when its part is done *and confirmed*, so that a phase never begins
//! before the previous one is over on both sides. **Claim**: when every other node that may have something up (a
//! *suspect*) has been silent for its lease's whole term.
//!
//! | phase | holder | candidate | who writes the next one, when |
//! |---|---|---|---|
//! | – | everything up, announcing | – | whoever asks for a handoff → `lock` |
//! | `lock` | everything up, announcing | waits for the lock | candidate, with the lock; it gets a lease by this → `stop` |
//! | `stop` | stops its exclusive services | – | holder, when they are down → `take` |
//! | `take` | addresses up, silent | addresses up, announcing | candidate, when its addresses are up and announced → `drop` |
//! | `drop` | takes its addresses down | addresses up, announcing | holder, when they are down → `start` |
//! | `start` | nothing | announces again, starts its exclusive services | candidate, when they are up: it is the holder now, and the old one's lease ends |
//! | `back` | everything up, announcing | takes all down | candidate, when it has nothing any more: the handoff is gone, and its lease |
//!
//! Before `drop`, either side may go to `back` when the other takes too long or cannot continue. From `drop` on only a
//! claim ends the handoff early.
//!
//! **The lease.** A node has authority until the time at which its last acknowledged renewal of its lease was *sent*,
//! plus the term, minus a margin. Without authority it takes everything down. Its addresses are in the kernel with a
//! lifetime that ends no later, so that a process that is killed or stopped keeps nothing either. Another node counts
//! the term from the time at which it *saw* the last change of the lease, which is later. So no clocks are compared,
//! and session expiry in the store does not matter. To claim, a node deletes the silent lease *of the version that it
//! saw*, in the same transaction that makes it the holder: a later renewal finds no lease, and an earlier one makes the
//! claim fail.
//!
//! The safety in every reachable state is checked by exhaustive search (`tests/handoff`), with the very function that
//! the daemons use.

pub mod admit;
pub mod election;

pub use election::Standing;

#[cfg(test)]
mod tests;

use drover_model::{FailedHandoff, Handoff, Mono, NodeName, Phase, Primary, Version, vm::Epoch};
use std::{collections::BTreeMap, time::Duration};

/// Durations of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Term of a lease; `None`: no other node can ever claim (the store is not shared), so leases are not renewed.
    pub term: Option<Duration>,
    /// The owner gives up its authority this long before the lease ends: for clock drift, and for the time that taking
    /// down needs.
    pub margin: Duration,
    /// Interval between renewals of a lease.
    pub beat: Duration,
    /// Time that a node must have been connected to the store before it claims. After an outage of the store all leases
    /// look silent, and their owners need a moment to renew them. (This avoids needless claims; safety does not depend
    /// on it.)
    pub grace: Duration,
    /// Additional delay of the claim of each further coordinator, so that the best one claims first.
    pub stagger: Duration,
    /// Timeout of one side for the other in a phase.
    pub patience: Duration,
}

impl Timing {
    /// Durations for a lease of this term. The margin, an eighth, is for clock drift (a thousandth would be a broken
    /// clock) and for the time that taking down needs. A renewal interval of an eighth tolerates the loss of one
    /// renewal.
    pub fn of(term: Duration) -> Timing {
        Timing {
            term: Some(term),
            margin: term / 8,
            beat: term / 8,
            grace: term / 4,
            stagger: term / 16,
            patience: term.saturating_mul(2).max(Duration::from_secs(8)),
        }
    }

    /// For a store that no other node uses.
    pub fn alone() -> Timing {
        Timing { term: None, ..Timing::of(Duration::from_secs(4)) }
    }

    /// End of the authority of a lease whose renewal was sent at `sent`.
    pub fn authority(&self, sent: Mono) -> Option<Mono> {
        self.term.map(|term| sent.after(term.saturating_sub(self.margin)))
    }
}

/// A lease as observed by this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The version seen last, by which it is deleted.
    pub version: Version,
    /// The store's revision of its last change. A lease that was deleted and created again may have the same version,
    /// but never the same revision.
    pub revision: i64,
    /// When this revision was first seen, by this node's clock.
    pub since: Mono,
    /// The term in the lease.
    pub term: Duration,
}

impl Heard {
    /// The observation after a read of the lease. Only an unchanged revision counts as silent since the first
    /// observation.
    #[must_use]
    pub fn read(before: Option<Heard>, version: Version, revision: i64, term: Duration, now: Mono) -> Heard {
        match before {
            Some(before) if before.revision == revision => before,
            _ => Heard { version, revision, since: now, term },
        }
    }
}

/// State of a group of services on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// All are confirmed to be down.
    Down,
    /// Up as far as possible: the required ones are confirmed, and those that may fail were tried. Addresses were
    /// announced.
    Up,
    /// Anything else.
    Unknown,
}

/// Wanted state of a group of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Up.
    Up,
    /// Down, at once.
    Down,
    /// No change: a write is under way that may change what is right.
    Keep,
}

/// Input of a decision.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// Current time of this node's clock.
    pub now: Mono,
    /// Durations of the protocol.
    pub timing: &'a Timing,
    /// The record as last read; `None` if unknown.
    pub record: Option<&'a Primary>,
    /// When the present version of the record was first seen.
    pub record_since: Mono,
    /// The existing leases.
    pub leases: &'a BTreeMap<NodeName, Heard>,
    /// End of the authority by this node's last acknowledged renewal.
    pub authority: Option<Mono>,
    /// When its last renewal was sent, acknowledged or not.
    pub last_beat: Option<Mono>,
    /// A renewal is under way.
    pub beating: bool,
    /// Since when it is connected to the store; `None` if it is not.
    pub connected: Option<Mono>,
    /// A change of the record is under way, or its outcome is not known yet.
    pub writing: bool,
    /// It holds the handoff's lock.
    pub locked: bool,
    /// This process has not changed its services yet. Addresses that its predecessor had up are in the kernel, for
    /// their lifetime.
    pub new: bool,
    /// State of the services that two nodes may have for a moment: addresses.
    pub shared: Level,
    /// State of the services that only one node may have.
    pub exclusive: Level,
    /// The error, if an address could not be brought up.
    pub trouble: Option<&'a str>,
    /// See [`Standing`].
    pub standing: &'a Standing,
}

/// A transaction on the record and the leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The new record.
    pub record: Primary,
    /// Create a lease for this node.
    pub make_lease: bool,
    /// Delete these leases, each in the version that was seen.
    pub end_leases: Vec<NodeName>,
    /// The reason, for users.
    pub why: String,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Wanted state of the addresses.
    pub shared: Want,
    /// Wanted state of the exclusive services.
    pub exclusive: Want,
    /// Another node of the cluster may have the addresses up, so that finding them elsewhere is not an error.
    pub contested: bool,
    /// Whether to announce addresses that are up. A new value restarts the announcements.
    pub announce: Option<(Epoch, Option<Phase>)>,
    /// Renew the lease now.
    pub beat: bool,
    /// Acquire the handoff's lock if true, release it if false.
    pub lock: bool,
    /// Transaction to write.
    pub write: Option<Write>,
    /// When to decide again without an event.
    pub again: Option<Mono>,
}

/// The part of a node in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Holder,
    Candidate,
    /// None.
    Outside,
}

impl Situation<'_> {
    fn part(&self, record: &Primary) -> Part {
        if record.is_held_by(self.me) {
            Part::Holder
        } else if record.candidate() == Some(self.me) {
            Part::Candidate
        } else {
            Part::Outside
        }
    }

    fn is_suspect(&self, record: &Primary) -> bool {
        record.suspects.contains(self.me)
    }

    /// Whether it may have something up now.
    fn is_live(&self, record: &Primary) -> bool {
        let authority = self.timing.term.is_none() || self.authority.is_some_and(|until| self.now < until);
        self.is_suspect(record) && authority
    }

    fn resigns(&self) -> bool {
        self.standing.quit && self.standing.heir.is_none()
    }

    /// Deadline for the other side in the present phase.
    fn phase_deadline(&self) -> Mono {
        self.record_since.after(self.timing.patience)
    }

    /// What this node may and should have up: addresses, exclusive services.
    fn wants(&self, record: &Primary) -> (Want, Want) {
        use Want::{Down, Up};
        if !self.is_live(record) {
            // A restarted daemon continues where its predecessor was, if its lease is renewed in time.
            let may_yet = self.new && self.is_suspect(record) && self.leases.contains_key(self.me);
            return if may_yet { (Want::Keep, Want::Keep) } else { (Down, Down) };
        }
        match (self.part(record), record.phase()) {
            (Part::Holder, None) if self.resigns() => (Down, Down),
            (Part::Holder, None | Some(Phase::Lock | Phase::Back)) => (Up, Up),
            (Part::Holder, Some(Phase::Stop | Phase::Take)) => (Up, Down),
            (Part::Holder, Some(Phase::Drop | Phase::Start)) => (Down, Down),
            (Part::Candidate, Some(Phase::Take | Phase::Drop)) => (Up, Down),
            (Part::Candidate, Some(Phase::Start)) => (Up, Up),
            (Part::Candidate | Part::Outside, _) => (Down, Down),
        }
    }

    fn announce(&self, record: &Primary) -> Option<(Epoch, Option<Phase>)> {
        let phase = record.phase();
        let rightful = matches!(
            (self.part(record), phase),
            (Part::Holder, None | Some(Phase::Lock | Phase::Back))
                | (Part::Candidate, Some(Phase::Take | Phase::Drop | Phase::Start))
        );
        // The start of a handoff changes nothing for the holder.
        rightful.then_some((record.epoch, phase.filter(|p| *p != Phase::Lock)))
    }

    /// When the other suspects have been silent for long enough; `None`: there is nothing to claim.
    fn claim_due(&self, record: &Primary) -> Option<Mono> {
        let others = || record.suspects.iter().filter(|name| *name != self.me);
        let part = self.part(record);
        if !self.standing.eligible && part == Part::Outside {
            return None;
        }
        // A holder need not claim its own role.
        if part == Part::Holder && others().next().is_none() && self.leases.contains_key(self.me) {
            return None;
        }
        let silent = |name: &NodeName| match self.leases.get(name) {
            Some(lease) => lease.since.after(lease.term),
            // Not deleted by this protocol: then its term must still expire.
            None => self.record_since.after(self.timing.term.unwrap_or_default()),
        };
        let silent = others().map(silent).max();
        let polite = match silent {
            Some(_) => self.connected?.after(self.timing.grace),
            None => self.connected?,
        };
        let rank = if part == Part::Outside { self.standing.rank } else { 0 };
        Some(silent.unwrap_or(polite).max(polite).after(self.timing.stagger.saturating_mul(rank)))
    }

    /// The transaction that this node must write now; if there is none, when there may be one.
    fn write(&self, record: &Primary) -> (Option<Write>, Option<Mono>) {
        let (mut again, live) = (None, self.is_live(record));
        let down = self.shared == Level::Down && self.exclusive == Level::Down;
        let mut due = |at: Mono| {
            if at > self.now {
                again = Some(again.map_or(at, |earlier: Mono| earlier.min(at)));
            }
            at <= self.now
        };
        // No claim while something of an earlier epoch may be up here.
        if let Some(at) = self.claim_due(record)
            && (down || live)
            && due(at)
        {
            return (Some(self.claim(record)), None);
        }
        let part = self.part(record);
        let Some(handoff) = &record.handoff else {
            return match part {
                Part::Holder if down && self.resigns() => (Some(self.leave(record, "it may not have the role")), None),
                Part::Holder if live => (self.give_away(record, &mut due), again),
                Part::Holder => (None, again),
                _ if self.is_suspect(record) && down => {
                    (Some(self.leave(record, "it has nothing to do any more")), None)
                }
                _ => (None, again),
            };
        };
        let late = |who: &str, what: &str| format!("{who} has not {what} in {} s", self.timing.patience.as_secs_f32());
        let (holder, to) = (record.holder.as_ref().map_or("nobody", NodeName::as_str), handoff.to.as_str());
        let write = match (handoff.phase, part) {
            (Phase::Lock, Part::Candidate) if !self.standing.eligible => {
                Some(self.cancel(record, format!("{to} cannot be the primary now")))
            }
            (Phase::Lock, Part::Candidate) if self.locked && down => Some(self.enter(record)),
            (Phase::Lock, Part::Candidate | Part::Holder) if due(self.phase_deadline()) => {
                let why = if part == Part::Candidate {
                    late("the owner of the handoff lock", "released it")
                } else {
                    late(to, "begun")
                };
                Some(self.cancel(record, why))
            }
            (Phase::Stop, Part::Holder) if live && self.exclusive == Level::Down => {
                Some(self.advance(record, Phase::Take, "its exclusive services are down"))
            }
            (Phase::Stop, Part::Candidate) if due(self.phase_deadline()) => {
                Some(self.turn_back(record, late(holder, "stopped its services")))
            }
            (Phase::Take, Part::Candidate) if live && self.shared == Level::Up => {
                Some(self.advance(record, Phase::Drop, "it has the addresses, too"))
            }
            (Phase::Take, Part::Candidate) if self.trouble.is_some() => {
                Some(self.turn_back(record, self.trouble.unwrap_or_default().to_owned()))
            }
            (Phase::Stop | Phase::Take, Part::Candidate) if !self.standing.eligible => {
                Some(self.turn_back(record, format!("{to} cannot be the primary now")))
            }
            (Phase::Take, Part::Holder) if live && due(self.phase_deadline()) => {
                Some(self.turn_back(record, late(to, "brought the addresses up")))
            }
            (Phase::Drop, Part::Holder) if down => {
                Some(self.advance(record, Phase::Start, "it has let go of the addresses"))
            }
            (Phase::Start, Part::Candidate) if live && self.shared == Level::Up && self.exclusive == Level::Up => {
                Some(self.succeed(record))
            }
            (Phase::Back, Part::Candidate) if down => Some(self.leave(record, &handoff.why)),
            (_, Part::Outside) if self.is_suspect(record) && down => {
                Some(self.leave(record, "it has nothing to do any more"))
            }
            _ => None,
        };
        (write, again)
    }

    fn advance(&self, record: &Primary, phase: Phase, why: &str) -> Write {
        let mut record = record.clone();
        if let Some(handoff) = &mut record.handoff {
            handoff.phase = phase;
        }
        Write { record, make_lease: false, end_leases: Vec::new(), why: why.to_owned() }
    }

    fn turn_back(&self, record: &Primary, why: String) -> Write {
        let mut write = self.advance(record, Phase::Back, &why);
        if let Some(handoff) = &mut write.record.handoff {
            handoff.why = why;
        }
        write
    }

    /// The candidate, with the lock, gets a lease.
    fn enter(&self, record: &Primary) -> Write {
        let mut write = self.advance(record, Phase::Stop, "it has the lock");
        write.make_lease = write.record.suspects.insert(self.me.clone());
        write
    }

    /// Removes a handoff that has not begun.
    fn cancel(&self, record: &Primary, why: String) -> Write {
        let failed = record.candidate().map(|to| FailedHandoff { to: to.clone(), why: why.clone() });
        let record = Primary { handoff: None, failed, ..record.clone() };
        Write { record, make_lease: false, end_leases: Vec::new(), why }
    }

    /// Removes this node, which has nothing up and will not have, from the record.
    fn leave(&self, record: &Primary, why: &str) -> Write {
        let mut record = record.clone();
        record.suspects.remove(self.me);
        if record.is_held_by(self.me) {
            record.holder = None;
        }
        if record.candidate() == Some(self.me) {
            record.failed = Some(FailedHandoff { to: self.me.clone(), why: why.to_owned() });
            record.handoff = None;
        }
        let end_leases = self.leases.contains_key(self.me).then(|| self.me.clone()).into_iter().collect();
        Write { record, make_lease: false, end_leases, why: why.to_owned() }
    }

    /// The old holder has everything down, and this node has everything up.
    fn succeed(&self, record: &Primary) -> Write {
        self.become_holder(record, None, "the handoff is complete".to_owned())
    }

    /// Every other node that may have something up has been silent for its term.
    fn claim(&self, record: &Primary) -> Write {
        let failed = match &record.handoff {
            Some(Handoff { to, .. }) if to != self.me => Some(FailedHandoff {
                to: to.clone(),
                why: "it fell silent, or the holder did, before it was complete".to_owned(),
            }),
            _ => None,
        };
        let why = match &record.holder {
            Some(holder) if holder != self.me => format!("{holder} has been silent for its whole lease"),
            Some(_) => "the candidate has been silent for its whole lease".to_owned(),
            None => "nobody has the role".to_owned(),
        };
        self.become_holder(record, failed, why)
    }

    fn become_holder(&self, record: &Primary, failed: Option<FailedHandoff>, why: String) -> Write {
        let new = Primary {
            schema: record.schema,
            epoch: record.epoch.next(),
            holder: Some(self.me.clone()),
            suspects: [self.me.clone()].into(),
            handoff: None,
            failed,
        };
        let others = record.suspects.iter().filter(|name| *name != self.me && self.leases.contains_key(*name));
        let make_lease = !self.leases.contains_key(self.me);
        Write { record: new, make_lease, end_leases: others.cloned().collect(), why }
    }

    /// Begins a handoff if the holder has a reason to give the role away.
    fn give_away(&self, record: &Primary, due: &mut impl FnMut(Mono) -> bool) -> Option<Write> {
        let why = self.standing.leave.clone()?;
        // Rate limit: one attempt per timeout.
        if !self.standing.urgent && !due(self.phase_deadline()) {
            return None;
        }
        if let Some(heir) = &self.standing.heir {
            let tried = record.failed.as_ref().is_some_and(|failed| failed.to == *heir);
            if tried && !due(self.phase_deadline()) {
                return None;
            }
            let handoff = Some(Handoff { to: heir.clone(), phase: Phase::Lock, why: String::new() });
            let record = Primary { handoff, failed: None, ..record.clone() };
            return Some(Write { record, make_lease: false, end_leases: Vec::new(), why });
        }
        None
    }

    /// Whether to renew the lease now, and when to renew it next.
    fn beat(&self, record: &Primary) -> (bool, Option<Mono>) {
        // A node that cannot do its part lets its lease expire, so that the other side can continue.
        let stuck = match (self.part(record), record.phase()) {
            (Part::Holder, Some(Phase::Drop)) | (Part::Candidate, Some(Phase::Back)) => {
                self.now >= self.phase_deadline()
            }
            _ => false,
        };
        if self.timing.term.is_none() || !self.is_suspect(record) || self.beating || stuck {
            return (false, None);
        }
        let next = self.last_beat.map_or(self.now, |last| last.after(self.timing.beat));
        if self.connected.is_none() { (false, None) } else { (next <= self.now, Some(next)) }
    }
}

/// Whether a node must be notified of each renewal of a lease: only if it could claim the role when a lease falls
/// silent. Otherwise the record is enough: a node that gets a part in it reads the leases then, and counts their
/// silence from that read. `eligible`: it may have the role. `record`: as last read; `None` if unknown.
pub fn hears_leases(record: Option<&Primary>, me: &NodeName, eligible: bool) -> bool {
    let has_part =
        |record: &Primary| record.suspects.contains(me) || record.is_held_by(me) || record.candidate() == Some(me);
    eligible || record.is_none_or(has_part)
}

/// Decides what to do now. The same situation gives the same decision, and repeating a decision is idempotent.
pub fn decide(s: &Situation<'_>) -> Decision {
    let Some(record) = s.record else {
        let want = if s.new { Want::Keep } else { Want::Down };
        return Decision {
            shared: want,
            exclusive: want,
            contested: false,
            announce: None,
            beat: false,
            lock: false,
            write: None,
            again: None,
        };
    };
    let (mut shared, mut exclusive) = s.wants(record);
    if s.writing {
        // The record may have changed by now; what is down stays down until that is known.
        let keep = |want| if want == Want::Up { Want::Keep } else { want };
        (shared, exclusive) = (keep(shared), keep(exclusive));
    }
    let (write, later) = if s.writing || s.connected.is_none() { (None, None) } else { s.write(record) };
    let (beat, next_beat) = s.beat(record);
    let lapse = s.authority.filter(|until| s.is_suspect(record) && *until > s.now);
    let lock = s.part(record) == Part::Candidate && record.phase().is_some_and(|phase| phase != Phase::Back);
    Decision {
        shared,
        exclusive,
        contested: record.suspects.iter().any(|name| name != s.me),
        announce: s.announce(record),
        beat,
        lock,
        write,
        again: [later, next_beat.filter(|_| !beat), lapse].into_iter().flatten().min(),
    }
}
