//! The model around the decisions: a store, kernels, processes, and what is under way between them.

use crate::node::{Change, Flight, Node, Rec, Seen};
use drover_model::{Epoch, Mono, NodeName, Phase};
use drover_plan::primary::{Decision, Heard, Level, Situation, Standing, Timing, Want, Write, decide};
use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

/// A lease's term, in ticks. All clocks tick at once here, so its owner needs no margin.
const TERM: u8 = 2;
/// Timeout of one side for the other, in ticks.
const PATIENCE: u8 = 2;
/// Maximum age, in ticks: nothing depends on higher ones.
const OLD: u8 = 2;
/// Number of rounds without faults after which the cluster must have recovered.
const ROUNDS: usize = 40;
/// Maximum number of coordinators.
pub(crate) const MOST: usize = 3;

/// A tick, as the decisions see it.
const fn ticks(n: u8) -> Duration {
    Duration::from_millis(n as u64)
}

/// The moment that every decision is made at; ages are counted back from it.
const NOW: u64 = 1000;

fn ago(age: u8) -> Mono {
    Mono(NOW - u64::from(age))
}

static TIMING: LazyLock<Timing> = LazyLock::new(|| Timing {
    term: Some(ticks(TERM)),
    margin: Duration::ZERO,
    beat: ticks(1),
    grace: Duration::ZERO,
    stagger: Duration::ZERO,
    patience: ticks(PATIENCE),
});

pub(crate) static NAMES: LazyLock<Vec<NodeName>> =
    LazyLock::new(|| ["a", "b", "c"].iter().map(|name| NodeName::new(name).unwrap()).collect());

pub(crate) fn index(name: &NodeName) -> usize {
    NAMES.iter().position(|n| n == name).unwrap()
}

/// What is searched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    /// Number of coordinators.
    pub(crate) nodes: usize,
    /// Number of crashes of processes and machines.
    pub(crate) crashes: u8,
    /// Number of lost requests or answers.
    pub(crate) losses: u8,
    /// Number of requested handoffs.
    pub(crate) requests: u8,
    /// The planted defect.
    pub(crate) flaw: Flaw,
}

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// A claim leaves the silent lease where it is.
    LeaseOutlivesClaim,
    /// The kernel keeps addresses without a lifetime.
    NoLifetime,
    /// A thing counts as down as soon as it was ordered.
    DownUnconfirmed,
    /// Others wait for one tick less than the term.
    Impatient,
    /// Nobody claims while a handoff is on record.
    HandoffIsSacred,
    /// The store does not compare versions.
    BlindWrites,
    /// A candidate whose handoff is taken back does nothing.
    NoWayBack,
}

/// The record, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Beat,
    Write,
}

/// What may happen next. A node's number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Time passes.
    Tick,
    /// It reads the record and the leases, decides, and begins what it decided.
    Look(usize),
    /// It decides by what it read before.
    Step(usize),
    /// What it is doing with its addresses takes effect.
    Done(usize),
    /// Its request reaches the store, and the answer comes back.
    Arrive(usize, What),
    /// It gives up waiting; the request may still arrive.
    GiveUp(usize, What),
    /// A request arrives that was given up.
    ArriveLate(usize, What),
    /// The process dies.
    Crash(usize),
    /// The machine loses its power.
    PowerOff(usize),
    /// A new process.
    Restart(usize),
    /// A request to make it the primary.
    Request(usize),
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    rec: Rec,
    leases: [bool; MOST],
    nodes: Vec<Node>,
    crashes: u8,
    losses: u8,
    requests: u8,
}

impl State {
    /// The first is the primary, all is well.
    pub(crate) fn steady(world: &World) -> State {
        let rec = Rec { holder: Some(0), suspects: [true, false, false], handoff: None };
        let mut state = State {
            rec,
            leases: [true, false, false],
            nodes: vec![Node::fresh_process(); world.nodes],
            crashes: world.crashes,
            losses: world.losses,
            requests: world.requests,
        };
        for _ in 0..3 {
            state.round(world);
        }
        state
    }

    pub(crate) fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        use Action::{Arrive, ArriveLate, Crash, Done, GiveUp, Look, PowerOff, Request, Restart, Step};
        actions.push(Action::Tick);
        for (i, node) in self.nodes.iter().enumerate() {
            if node.late_beat.is_some() {
                actions.push(ArriveLate(i, What::Beat));
            }
            if node.late_write.is_some() {
                actions.push(ArriveLate(i, What::Write));
            }
            if !node.runs {
                actions.push(Restart(i));
                continue;
            }
            actions.extend([Look(i), Step(i)]);
            if node.doing.is_some() {
                actions.push(Done(i));
            }
            let under_way = [(What::Beat, node.beat.is_some()), (What::Write, node.write.is_some())];
            for (what, _) in under_way.into_iter().filter(|(_, is)| *is) {
                actions.push(Arrive(i, what));
                if self.losses > 0 {
                    actions.push(GiveUp(i, what));
                }
            }
            if self.crashes > 0 {
                actions.extend([Crash(i), PowerOff(i)]);
            }
            if self.requests > 0 && self.rec.handoff.is_none() && self.rec.holder.is_some_and(|h| h != i) {
                actions.push(Request(i));
            }
        }
        let _all_of_it_is_in_the_state = world;
    }

    pub(crate) fn act(&mut self, world: &World, action: Action) {
        self.happen(world, action);
        self.nodes.iter_mut().enumerate().for_each(|(i, node)| node.forget(i));
    }

    fn happen(&mut self, world: &World, action: Action) {
        match action {
            Action::Tick => self.tick(world),
            Action::Look(i) => {
                self.read(i);
                self.step(world, i);
            }
            Action::Step(i) => self.step(world, i),
            Action::Done(i) => self.done(world, i),
            Action::Arrive(i, what) => self.arrive(world, i, what),
            Action::GiveUp(i, what) => {
                self.losses -= 1;
                let node = &mut self.nodes[i];
                match what {
                    What::Beat => {
                        node.late_beat = node.unanswered_beat();
                        node.beat = None;
                    }
                    What::Write => {
                        node.late_write = node.unanswered_write();
                        (node.write, node.dirty) = (None, true);
                    }
                }
            }
            Action::ArriveLate(i, What::Beat) => {
                if let Some(fresh) = self.nodes[i].late_beat.take() {
                    self.apply_beat(world, i, fresh);
                }
            }
            Action::ArriveLate(i, What::Write) => {
                if let Some(change) = self.nodes[i].late_write.take() {
                    self.apply_write(world, i, change);
                }
            }
            Action::Crash(i) | Action::PowerOff(i) => {
                self.crashes -= 1;
                self.nodes[i].crash(matches!(action, Action::PowerOff(_)));
            }
            Action::Restart(i) => {
                let node = &mut self.nodes[i];
                let (late_beat, late_write, addresses) = (node.late_beat, node.late_write, node.addresses);
                *node = Node { late_beat, late_write, addresses, ..Node::fresh_process() };
            }
            Action::Request(to) => {
                self.requests -= 1;
                self.rec.handoff = Some((to, Phase::Lock));
                self.record_changed();
            }
        }
    }

    fn tick(&mut self, world: &World) {
        let older = |age: &mut u8| *age = (*age + 1).min(OLD);
        for node in &mut self.nodes {
            node.seen.iter_mut().for_each(|s| older(&mut s.age));
            node.heard.iter_mut().flatten().for_each(|s| older(&mut s.age));
            node.beat_age.iter_mut().for_each(older);
            node.beat.iter_mut().for_each(|b| older(&mut b.age));
            node.write.iter_mut().for_each(|w| older(&mut w.age));
            node.authority.iter_mut().for_each(|left| *left = left.saturating_sub(1));
            node.doing.iter_mut().for_each(|(_, left)| *left = left.saturating_sub(1));
            if world.flaw != Flaw::NoLifetime {
                node.addresses = node.addresses.map(|n| n - 1).filter(|n| *n > 0);
            }
        }
    }

    fn read(&mut self, i: usize) {
        let (rec, leases) = (self.rec, self.leases);
        let node = &mut self.nodes[i];
        if !node.seen.is_some_and(|s| s.fresh) {
            node.seen = Some(Seen { value: rec, fresh: true, age: 0 });
        }
        for (heard, exists) in node.heard.iter_mut().zip(leases) {
            *heard = match *heard {
                Some(seen) if seen.fresh && exists => Some(seen),
                _ => exists.then_some(Seen { value: (), fresh: true, age: 0 }),
            };
        }
        node.dirty = false;
    }

    fn decide(&self, world: &World, i: usize) -> Decision {
        let node = &self.nodes[i];
        let record = node.seen.map(|s| s.value.to_primary());
        let term = if world.flaw == Flaw::Impatient { TERM - 1 } else { TERM };
        let leases: BTreeMap<NodeName, Heard> = (0..MOST)
            .filter_map(|j| {
                let since = ago(node.heard[j]?.age);
                Some((
                    NAMES[j].clone(),
                    Heard { version: drover_model::Version(0), revision: 0, since, term: ticks(term) },
                ))
            })
            .collect();
        let standing = Standing { eligible: true, ..Standing::default() };
        decide(&Situation {
            me: &NAMES[i],
            now: Mono(NOW),
            timing: &TIMING,
            record: record.as_ref(),
            record_since: ago(node.seen.map_or(0, |s| s.age)),
            leases: &leases,
            authority: node.authority.map(|left| Mono(NOW + u64::from(left))),
            last_beat: node.beat_age.map(ago),
            beating: node.beat.is_some(),
            connected: Some(ago(OLD)),
            writing: node.write.is_some() || node.dirty,
            locked: true,
            new: node.new,
            shared: node.shared,
            exclusive: node.exclusive,
            trouble: None,
            standing: &standing,
        })
    }

    fn step(&mut self, world: &World, i: usize) {
        let decision = self.decide(world, i);
        let node = &mut self.nodes[i];
        let left = node.authority.unwrap_or(0);
        node.new &= decision.shared == Want::Keep && decision.exclusive == Want::Keep;
        match decision.shared {
            Want::Up if node.shared == Level::Up => node.addresses = Some(node.addresses.unwrap_or(0).max(left)),
            Want::Up if node.doing.is_none() => (node.doing, node.shared) = (Some((true, left)), Level::Unknown),
            Want::Down if node.shared != Level::Down && node.doing.is_none() => {
                (node.doing, node.shared) = (Some((false, 0)), Level::Unknown);
                if world.flaw == Flaw::DownUnconfirmed {
                    node.shared = Level::Down;
                }
            }
            _ => {}
        }
        match decision.exclusive {
            Want::Up => (node.services, node.exclusive) = (true, Level::Up),
            Want::Down => (node.services, node.exclusive) = (false, Level::Down),
            Want::Keep => {}
        }
        if decision.beat && node.beat.is_none() {
            let fresh = node.heard[i].is_some_and(|own| own.fresh);
            (node.beat, node.beat_age) = (Some(Flight { what: fresh, age: 0 }), Some(0));
        }
        if let Some(write) = decision.write {
            let sacred = world.flaw == Flaw::HandoffIsSacred
                && node.seen.is_some_and(|s| s.value.handoff.is_some())
                && write.record.handoff.is_none()
                && write.record.epoch > Epoch(0)
                && node.seen.is_some_and(|s| !matches!(s.value.handoff, Some((_, Phase::Start))));
            let stays = world.flaw == Flaw::NoWayBack
                && node.seen.is_some_and(|s| matches!(s.value.handoff, Some((_, Phase::Back))));
            if !sacred && !stays {
                let change = Self::change(world, node, &write);
                node.write = Some(Flight { what: change, age: 0 });
            }
        }
    }

    fn change(world: &World, node: &Node, write: &Write) -> Change {
        let mut end_leases = [false; MOST];
        if world.flaw != Flaw::LeaseOutlivesClaim {
            write.end_leases.iter().for_each(|name| end_leases[index(name)] = true);
        }
        let leases = (0..MOST).filter(|j| end_leases[*j]).all(|j| node.heard[j].is_some_and(|h| h.fresh));
        let fresh = node.seen.is_some_and(|s| s.fresh) && leases;
        Change { rec: Rec::of(&write.record), make_lease: write.make_lease, end_leases, fresh }
    }

    fn done(&mut self, world: &World, i: usize) {
        let node = &mut self.nodes[i];
        match node.doing.take() {
            // The kernel is told until when; nothing comes up when that is over.
            Some((true, left)) if left > 0 || world.flaw == Flaw::NoLifetime => {
                node.addresses = Some(node.addresses.unwrap_or(0).max(left).max(1));
                node.shared = Level::Up;
            }
            Some((true, _)) => {}
            Some((false, _)) => (node.addresses, node.shared) = (None, Level::Down),
            None => {}
        }
    }

    fn arrive(&mut self, world: &World, i: usize, what: What) {
        // Authority counts from the sending.
        let authority = |age: u8| Some(TERM.saturating_sub(age));
        match what {
            What::Beat => {
                let Some(Flight { what: fresh, age }) = self.nodes[i].beat.take() else { return };
                let taken = self.apply_beat(world, i, fresh);
                let node = &mut self.nodes[i];
                if taken {
                    node.authority = node.authority.max(authority(age));
                    node.heard[i] = Some(Seen { value: (), fresh: true, age: 0 });
                } else {
                    node.authority = None;
                }
            }
            What::Write => {
                let Some(Flight { what: change, age }) = self.nodes[i].write.take() else { return };
                let taken = self.apply_write(world, i, change);
                let node = &mut self.nodes[i];
                // What became of a change is known when the record was read again.
                node.dirty = true;
                if taken {
                    if change.make_lease {
                        node.authority = authority(age);
                        node.heard[i] = Some(Seen { value: (), fresh: true, age: 0 });
                    }
                    node.seen = Some(Seen { value: change.rec, fresh: true, age: 0 });
                }
            }
        }
    }

    fn apply_beat(&mut self, world: &World, i: usize, fresh: bool) -> bool {
        let good = self.leases[i] && (fresh || world.flaw == Flaw::BlindWrites);
        if good {
            self.lease_changed(i);
        }
        good
    }

    fn apply_write(&mut self, world: &World, i: usize, change: Change) -> bool {
        let blind = world.flaw == Flaw::BlindWrites;
        if !(change.fresh || blind) || (change.make_lease && self.leases[i] && !blind) {
            return false;
        }
        self.rec = change.rec;
        self.record_changed();
        for j in 0..MOST {
            if change.end_leases[j] && self.leases[j] {
                self.leases[j] = false;
                self.lease_changed(j);
            }
        }
        if change.make_lease {
            self.leases[i] = true;
            self.lease_changed(i);
        }
        true
    }

    /// Whatever names the record's version names an old one now.
    fn record_changed(&mut self) {
        for node in &mut self.nodes {
            node.seen.iter_mut().for_each(|s| s.fresh = false);
            node.write.iter_mut().for_each(|w| w.what.fresh = false);
            node.late_write.iter_mut().for_each(|w| w.fresh = false);
        }
    }

    fn lease_changed(&mut self, j: usize) {
        for node in &mut self.nodes {
            node.heard[j].iter_mut().for_each(|h| h.fresh = false);
            node.write.iter_mut().filter(|w| w.what.end_leases[j]).for_each(|w| w.what.fresh = false);
            node.late_write.iter_mut().filter(|w| w.end_leases[j]).for_each(|w| w.fresh = false);
        }
        let owner = self.nodes.get_mut(j);
        if let Some(owner) = owner {
            owner.beat.iter_mut().for_each(|b| b.what = false);
            owner.late_beat.iter_mut().for_each(|b| *b = false);
        }
    }

    /// One round without faults.
    fn round(&mut self, world: &World) {
        for i in 0..self.nodes.len() {
            if !self.nodes[i].runs {
                continue;
            }
            for _ in 0..2 {
                self.arrive(world, i, What::Beat);
                self.arrive(world, i, What::Write);
                self.read(i);
                self.done(world, i);
                self.step(world, i);
            }
        }
        self.tick(world);
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].addresses.is_some()).collect()
    }

    pub(crate) fn suspects_cover(&self) -> bool {
        self.owners().iter().all(|i| self.rec.suspects[*i])
    }

    pub(crate) fn one_owner(&self) -> bool {
        let owners = self.owners();
        let in_common = |(to, phase): (usize, Phase)| {
            matches!(phase, Phase::Take | Phase::Drop | Phase::Back)
                && owners.iter().all(|i| *i == to || Some(*i) == self.rec.holder)
        };
        owners.len() < 2 || (owners.len() == 2 && self.rec.handoff.is_some_and(in_common))
    }

    pub(crate) fn one_exclusive(&self) -> bool {
        self.nodes.iter().filter(|node| node.services && node.addresses.is_some()).count() < 2
    }

    pub(crate) fn recovers(&self, world: &World) -> bool {
        let mut state = self.clone();
        if state.nodes.iter().all(|node| !node.runs) {
            state.act(world, Action::Restart(0));
        }
        for _ in 0..ROUNDS {
            state.round(world);
            if state.is_well() {
                return true;
            }
        }
        false
    }

    fn is_well(&self) -> bool {
        self.rec.handoff.is_none() && self.rec.holder.is_some_and(|h| self.nodes[h].runs && self.owners() == [h])
    }

    pub(crate) fn handed_over(&self) -> bool {
        self.requests == 0 && matches!(self.rec.handoff, Some((_, Phase::Start)))
    }

    pub(crate) fn claimed(&self, world: &World) -> bool {
        self.requests == world.requests && self.rec.holder == Some(1)
    }

    pub(crate) fn taken_back(&self) -> bool {
        self.requests == 0 && self.rec.handoff.is_some_and(|(_, phase)| phase == Phase::Back)
    }
}
