//! What a coordinator does next for the role of the primary: a pure function of what it knows, as all decisions are.
//!
//! The role passes in two ways. **Handed over**: both sides walk the phases of [`Phase`], and each phase has one side
//! that acts; it writes the next phase when its part is done *and confirmed*, so that a phase is never entered before
//! the one before it is over on both sides. **Claimed**: when every other node that may have something up (a *suspect*)
//! has been silent for its lease's whole term.
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
//! Before `drop`, either side may turn to `back` when the other takes too long or cannot. From `drop` on there is no
//! way back but a claim.
//!
//! **The lease.** A node has authority until its last acknowledged rewriting of its lease was *sent* plus the term,
//! less a margin. Without authority it takes down whatever it has. Its addresses are in the kernel with a lifetime that
//! ends no later, so that a process that is killed or stopped keeps nothing either. Another node counts the term from
//! when it *saw* the lease change last, which is later. So no clocks are compared, and it does not matter what the
//! store thinks of anybody's session. To claim, it deletes the silent lease *of the version that it saw*, in the same
//! change that makes it the holder: a rewriting that comes later finds nothing, and one that came earlier makes the
//! claim fail.
//!
//! That this holds in every state that there can be is checked by exhaustive search (`tests/handoff`), with the very
//! function that the daemons use.

pub mod admit;
pub mod election;

#[cfg(test)]
mod tests;

use drover_model::{FailedHandoff, Handoff, Mono, NodeName, Phase, Primary, Version, vm::Epoch};
use std::{collections::BTreeMap, time::Duration};

/// The times of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A lease's length; `None`: nobody else can ever claim (a store that is not shared), so nothing has to be
    /// rewritten.
    pub term: Option<Duration>,
    /// By so much earlier than its end the lease's owner lets go: for clocks that run at different speeds, and for the
    /// letting go itself.
    pub margin: Duration,
    /// How often a lease is rewritten.
    pub beat: Duration,
    /// Nobody claims before it has been connected with the store for so long. After an outage of the store all leases
    /// look silent, and their owners need a moment to rewrite them. (This is for peace, not for safety.)
    pub grace: Duration,
    /// So much later does each further coordinator claim, so that the best one does.
    pub stagger: Duration,
    /// How long one side waits for the other in a phase.
    pub patience: Duration,
}

impl Timing {
    /// The times for a lease of this length. The margin, an eighth, is for clock rates (a thousandth would be a broken
    /// clock) and for the time that letting go takes. A beat, an eighth, lets one of them get lost without any harm.
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

    /// For a store that nobody else uses.
    pub fn alone() -> Timing {
        Timing { term: None, ..Timing::of(Duration::from_secs(4)) }
    }

    /// Until when a lease gives authority whose rewriting was sent at this moment.
    pub fn authority(&self, sent: Mono) -> Option<Mono> {
        self.term.map(|term| sent.after(term.saturating_sub(self.margin)))
    }
}

/// What was seen of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The version that was seen last, by which it is deleted.
    pub version: Version,
    /// The store's counter at its last change. A lease that was deleted and made anew may have the same version, never
    /// this.
    pub revision: i64,
    /// Since when it is that one, by this node's clock: when it was first seen.
    pub since: Mono,
    /// The term that it promises.
    pub term: Duration,
}

impl Heard {
    /// What is known of a lease that was just read. Only one that is still the very same has been silent meanwhile.
    #[must_use]
    pub fn read(before: Option<Heard>, version: Version, revision: i64, term: Duration, now: Mono) -> Heard {
        match before {
            Some(before) if before.revision == revision => before,
            _ => Heard { version, revision, since: now, term },
        }
    }
}

/// What is known of a group of services on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// All of them are confirmed to be down.
    Down,
    /// They are up, as far as they can be: all that matter are confirmed, and those that may fail were tried. Addresses
    /// were announced.
    Up,
    /// Anything else.
    Unknown,
}

/// What is to become of a group of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Up.
    Up,
    /// Down, at once.
    Down,
    /// As it is: a write is under way that may change what is right.
    Keep,
}

/// What a coordinator is in the view of an election; see [`election::standing`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// It may have the role.
    pub eligible: bool,
    /// How many others should claim before it.
    pub rank: u32,
    /// Why it should give the role away, if it has it.
    pub leave: Option<String>,
    /// That is urgent: it is not going to be there for long.
    pub urgent: bool,
    /// Who should have it then.
    pub heir: Option<NodeName>,
    /// It lets go of the role even if nobody takes it over.
    pub quit: bool,
}

/// Everything that the decision depends on.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// This node's clock.
    pub now: Mono,
    /// The times.
    pub timing: &'a Timing,
    /// The record, as it was last read; `None`: not known.
    pub record: Option<&'a Primary>,
    /// When the record's present version was first seen.
    pub record_since: Mono,
    /// The leases that there are.
    pub leases: &'a BTreeMap<NodeName, Heard>,
    /// Until when this node's last acknowledged rewriting gives it authority.
    pub authority: Option<Mono>,
    /// When its last rewriting was sent, acknowledged or not.
    pub last_beat: Option<Mono>,
    /// A rewriting is under way.
    pub beating: bool,
    /// Since when it is connected with the store; `None`: it is not.
    pub connected: Option<Mono>,
    /// A change of the record is under way, or its outcome has not been looked up yet.
    pub writing: bool,
    /// It has the handoff's lock.
    pub locked: bool,
    /// This process has not done anything to its services yet. What its predecessor had up is in the kernel, for its
    /// time.
    pub new: bool,
    /// Services that two nodes may have for a moment: addresses.
    pub shared: Level,
    /// Services that only one node may have.
    pub exclusive: Level,
    /// Why an address cannot be brought up, if that was tried and failed.
    pub trouble: Option<&'a str>,
    /// See [`Standing`].
    pub standing: &'a Standing,
}

/// A change of the record, and of the leases with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The record as it is to be.
    pub record: Primary,
    /// This node gets a lease.
    pub make_lease: bool,
    /// These leases end, each in the version that was seen.
    pub end_leases: Vec<NodeName>,
    /// Why, for people.
    pub why: String,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Addresses.
    pub shared: Want,
    /// The others.
    pub exclusive: Want,
    /// Somebody else of the cluster may have the addresses up, so finding them elsewhere means nothing.
    pub contested: bool,
    /// Whether to announce addresses that are up. A new value starts the announcements anew.
    pub announce: Option<(Epoch, Option<Phase>)>,
    /// Rewrite the lease now.
    pub beat: bool,
    /// Have the handoff's lock; if not, give it back.
    pub lock: bool,
    /// Change the record.
    pub write: Option<Write>,
    /// When to look again without any news.
    pub again: Option<Mono>,
}

/// The part that a node plays in the record.
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

    fn quits(&self) -> bool {
        self.standing.quit && self.standing.heir.is_none()
    }

    /// When the other side has been waited for long enough.
    fn too_late(&self) -> Mono {
        self.record_since.after(self.timing.patience)
    }

    /// What this node may and should have up: addresses, others.
    fn wants(&self, record: &Primary) -> (Want, Want) {
        use Want::{Down, Up};
        if !self.is_live(record) {
            // A daemon that was started again goes on where its predecessor was, if it gets its lease rewritten in
            // time.
            let may_yet = self.new && self.is_suspect(record) && self.leases.contains_key(self.me);
            return if may_yet { (Want::Keep, Want::Keep) } else { (Down, Down) };
        }
        match (self.part(record), record.phase()) {
            (Part::Holder, None) if self.quits() => (Down, Down),
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
        // What the handoff's beginning changes for the holder is nothing.
        rightful.then_some((record.epoch, phase.filter(|p| *p != Phase::Lock)))
    }

    /// The other suspects' silence is long enough at this moment; `None`: it can never be, for there is nothing to
    /// claim.
    fn claim_due(&self, record: &Primary) -> Option<Mono> {
        let others = || record.suspects.iter().filter(|name| *name != self.me);
        let part = self.part(record);
        if !self.standing.eligible && part == Part::Outside {
            return None;
        }
        // What it holds it need not claim.
        if part == Part::Holder && others().next().is_none() && self.leases.contains_key(self.me) {
            return None;
        }
        let silent = |name: &NodeName| match self.leases.get(name) {
            Some(lease) => lease.since.after(lease.term),
            // Deleted by other means than ours: then it must still run out.
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

    /// The one change of the record that is this node's to make now; and if there is none, when there may be one.
    fn write(&self, record: &Primary) -> (Option<Write>, Option<Mono>) {
        let (mut again, live) = (None, self.is_live(record));
        let down = self.shared == Level::Down && self.exclusive == Level::Down;
        let mut due = |at: Mono| {
            if at > self.now {
                again = Some(again.map_or(at, |earlier: Mono| earlier.min(at)));
            }
            at <= self.now
        };
        // Nothing is claimed while something of an earlier grant may be up here.
        if let Some(at) = self.claim_due(record)
            && (down || live)
            && due(at)
        {
            return (Some(self.claim(record)), None);
        }
        let part = self.part(record);
        let Some(handoff) = &record.handoff else {
            return match part {
                Part::Holder if down && self.quits() => (Some(self.leave(record, "it may not have the role")), None),
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
                Some(self.forget(record, format!("{to} cannot be the primary now")))
            }
            (Phase::Lock, Part::Candidate) if self.locked && down => Some(self.enter(record)),
            (Phase::Lock, Part::Candidate | Part::Holder) if due(self.too_late()) => {
                let why = if part == Part::Candidate {
                    late("somebody who needs a steady primary", "given the lock back")
                } else {
                    late(to, "begun")
                };
                Some(self.forget(record, why))
            }
            (Phase::Stop, Part::Holder) if live && self.exclusive == Level::Down => {
                Some(self.advance(record, Phase::Take, "its exclusive services are down"))
            }
            (Phase::Stop, Part::Candidate) if due(self.too_late()) => {
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
            (Phase::Take, Part::Holder) if live && due(self.too_late()) => {
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

    /// The handoff has not begun, and does not.
    fn forget(&self, record: &Primary, why: String) -> Write {
        let failed = record.candidate().map(|to| FailedHandoff { to: to.clone(), why: why.clone() });
        let record = Primary { handoff: None, failed, ..record.clone() };
        Write { record, make_lease: false, end_leases: Vec::new(), why }
    }

    /// This node has nothing up, and will not.
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

    /// The holder has let go of everything, and this node has everything.
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

    /// The holder has a reason to have the role no longer.
    fn give_away(&self, record: &Primary, due: &mut impl FnMut(Mono) -> bool) -> Option<Write> {
        let why = self.standing.leave.clone()?;
        // One attempt after the other, not one on the heels of the other.
        if !self.standing.urgent && !due(self.too_late()) {
            return None;
        }
        if let Some(heir) = &self.standing.heir {
            let tried = record.failed.as_ref().is_some_and(|failed| failed.to == *heir);
            if tried && !due(self.too_late()) {
                return None;
            }
            let handoff = Some(Handoff { to: heir.clone(), phase: Phase::Lock, why: String::new() });
            let record = Primary { handoff, failed: None, ..record.clone() };
            return Some(Write { record, make_lease: false, end_leases: Vec::new(), why });
        }
        None
    }

    /// Whether the lease should go on living, and when it is to be rewritten next.
    fn beat(&self, record: &Primary) -> (bool, Option<Mono>) {
        // Who cannot do its part lets its lease run out, so that the other side may go on.
        let stuck = match (self.part(record), record.phase()) {
            (Part::Holder, Some(Phase::Drop)) | (Part::Candidate, Some(Phase::Back)) => self.now >= self.too_late(),
            _ => false,
        };
        if self.timing.term.is_none() || !self.is_suspect(record) || self.beating || stuck {
            return (false, None);
        }
        let next = self.last_beat.map_or(self.now, |last| last.after(self.timing.beat));
        if self.connected.is_none() { (false, None) } else { (next <= self.now, Some(next)) }
    }
}

/// What to do now. The same situation gives the same decision, and what was done already is asked for again without
/// harm.
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
        // The record may be another one by now; what is down stays so until that is known.
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
