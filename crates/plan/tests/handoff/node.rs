//! A coordinator of the model: what its process knows, what is under way, and what its machine's kernel has.

use crate::world::{MOST, NAMES, index};
use drover_model::{Handoff, NodeName, Phase, Primary};
use drover_plan::primary::Level;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Rec {
    pub(crate) holder: Option<usize>,
    pub(crate) suspects: [bool; MOST],
    pub(crate) handoff: Option<(usize, Phase)>,
}

impl Rec {
    pub(crate) fn to_primary(self) -> Primary {
        let handoff = self.handoff.map(|(to, phase)| Handoff { to: NAMES[to].clone(), phase, why: String::new() });
        let suspects: BTreeSet<NodeName> = (0..MOST).filter(|i| self.suspects[*i]).map(|i| NAMES[i].clone()).collect();
        Primary { holder: self.holder.map(|i| NAMES[i].clone()), suspects, handoff, ..Primary::vacant() }
    }

    pub(crate) fn of(primary: &Primary) -> Rec {
        let mut suspects = [false; MOST];
        primary.suspects.iter().for_each(|name| suspects[index(name)] = true);
        Rec {
            holder: primary.holder.as_ref().map(index),
            suspects,
            handoff: primary.handoff.as_ref().map(|h| (index(&h.to), h.phase)),
        }
    }
}

/// Something that was read, and whether the store still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Seen<T> {
    pub(crate) value: T,
    pub(crate) fresh: bool,
    pub(crate) age: u8,
}

/// A change on its way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    pub(crate) rec: Rec,
    pub(crate) make_lease: bool,
    pub(crate) end_leases: [bool; MOST],
    /// Whether everything that it names is still in the version that it names.
    pub(crate) fresh: bool,
}

/// A request under way, and how long ago it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flight<T> {
    pub(crate) what: T,
    pub(crate) age: u8,
}

/// A coordinator: its process, and its machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) runs: bool,
    // What the process knows.
    pub(crate) seen: Option<Seen<Rec>>,
    pub(crate) heard: [Option<Seen<()>>; MOST],
    pub(crate) authority: Option<u8>,
    pub(crate) beat_age: Option<u8>,
    pub(crate) dirty: bool,
    /// It has not done anything to its services yet.
    pub(crate) new: bool,
    pub(crate) shared: Level,
    pub(crate) exclusive: Level,
    /// What it is doing with its addresses: whether they come up, and for how many ticks at most.
    pub(crate) doing: Option<(bool, u8)>,
    // What is under way.
    pub(crate) beat: Option<Flight<bool>>,
    pub(crate) write: Option<Flight<Change>>,
    pub(crate) late_beat: Option<bool>,
    pub(crate) late_write: Option<Change>,
    /// For how many ticks its kernel has the addresses.
    pub(crate) addresses: Option<u8>,
    /// Its exclusive services run. Without an address nobody hears of them.
    pub(crate) services: bool,
}

impl Node {
    pub(crate) fn fresh_process() -> Node {
        Node {
            runs: true,
            seen: None,
            heard: [None; MOST],
            authority: None,
            beat_age: None,
            dirty: false,
            new: true,
            shared: Level::Unknown,
            exclusive: Level::Unknown,
            doing: None,
            beat: None,
            write: None,
            late_beat: None,
            late_write: None,
            addresses: None,
            services: false,
        }
    }

    /// The process is gone; what it sent may still arrive, and what its kernel has stays for its time. Its services die
    /// with it.
    pub(crate) fn crash(&mut self, power: bool) {
        let (late_beat, late_write) = (self.unanswered_beat(), self.unanswered_write());
        let addresses = self.addresses.filter(|_| !power);
        *self = Node { runs: false, late_beat, late_write, addresses, ..Node::fresh_process() };
    }

    /// Sets what no decision depends on to one value, so that states that differ in nothing else are one.
    pub(crate) fn forget(&mut self, me: usize) {
        if let Some(seen) = &mut self.seen {
            // A change that names an old version fails, whatever it is, so it does not matter when it is due.
            if seen.value.handoff.is_none() || !seen.fresh {
                seen.age = 0;
            }
            for (j, heard) in self.heard.iter_mut().enumerate() {
                if j != me && !seen.value.suspects[j] {
                    *heard = None;
                } else if let Some(heard) = heard.as_mut().filter(|heard| !heard.fresh) {
                    heard.age = 0;
                }
            }
            if !seen.value.suspects[me] {
                (self.beat_age, self.authority) = (None, None);
            }
        }
        if let Some(own) = &mut self.heard[me] {
            own.age = 0;
        }
        self.beat_age = self.beat_age.map(|age| age.min(1));
        self.authority = self.authority.filter(|left| *left > 0);
        if let Some(write) = self.write.as_mut().filter(|write| !write.what.make_lease) {
            write.age = 0;
        }
        // One that can have no effect any more is as good as none.
        self.late_beat = self.late_beat.filter(|fresh| *fresh);
        self.late_write = self.late_write.filter(|write| write.fresh);
    }

    pub(crate) fn unanswered_beat(&self) -> Option<bool> {
        self.beat.map(|b| b.what).or(self.late_beat)
    }

    pub(crate) fn unanswered_write(&self) -> Option<Change> {
        self.write.map(|w| w.what).or(self.late_write)
    }
}
