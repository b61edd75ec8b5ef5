//! The model around the decisions: machines, links, BMCs, an administrator, and what may happen next.

use crate::{
    host::{Daemon, Domain, Host},
    store::{FenceIs, FenceRec, NAMES, NodeRec, Store, Write, Wrongs, boot_id},
    worker::{Read, Sight, Stage, Worker},
};
use drover_model::{Epoch, FencePhase, WallTime, testing::*};
use drover_plan::fence;
use std::time::Duration;

/// Number of nodes with VMs.
pub(crate) const HOSTS: usize = 2;
/// Maximum number of VMs.
pub(crate) const VMS: usize = 2;
/// Number of coordinators.
const WORKERS: usize = 3;
/// Duration of a tick: an order to cut the power is sent within it or not at all (5 s), and is carried out within three
/// of them or never (`ORDER_IN_FORCE`).
pub(crate) const TICK: Duration = Duration::from_secs(15);

/// What is searched: how much may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// Number of VMs.
    pub(crate) vms: usize,
    /// Number of nodes that may be lost.
    pub(crate) mortal: usize,
    /// Number of power losses of machines, with their BMCs or without, and of cut links.
    pub(crate) deaths: u8,
    /// Number of changes of the primary.
    pub(crate) elections: u8,
    /// Number of crashes of a primary's process, whose last write may arrive later.
    pub(crate) crashes: u8,
    /// Number of crashes of a node's daemon.
    pub(crate) blips: u8,
    /// Number of times that a BMC which could be read is not.
    pub(crate) doubts: u8,
    /// Number of times that an administrator confirms that a machine is off, which it is.
    pub(crate) words: u8,
    /// Whether the primary listens to machines whose daemons have sessions.
    pub(crate) listens: bool,
    /// The planted defect.
    pub(crate) flaw: Flaw,
}

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    None,
    /// A BMC that took the order counts as one that reads off.
    OrderIsProof,
    /// The administrator's word is about whatever boot there is when it arrives.
    BlindWord,
    /// The fence does not say that the power is to be cut.
    UnwrittenCuts,
    /// A node that is back does not wait until its power cannot be cut any more.
    HastyReturn,
    /// It does not if something proves that its earlier boot has ended.
    HastyIfProved,
    /// An order is sent however long ago it was announced.
    LateOrders,
    /// A VM is given away without a look at the versions of its record and its claim.
    OrdersUnchecked,
    /// A BMC that did not answer once is not asked again.
    AskedOnce,
    /// A new primary does not go on with what another has begun.
    Abandons,
    /// A node ends its fence also when its session is over.
    UncheckedSession,
    /// A node whose power was to be cut never comes back.
    WaitsForEver,
}

/// What may happen next. A worker's or a node's number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Time passes.
    Tick,
    /// Another coordinator gets the role.
    Elect(usize),
    /// The primary's process is started anew.
    Restart(usize),
    /// It reads everything.
    Read(usize),
    /// It sends that one of the writes that it decides on what it has read.
    Send(usize, usize),
    /// What it sent arrives, and the answer comes back.
    Arrive(usize),
    /// What a process that is gone had sent arrives.
    ArriveLate(usize),
    /// It sees whether that node's machine answers.
    Probe(usize, usize),
    /// It reads that node's BMC.
    Hear(usize, usize, Read),
    /// An order to cut the power, sent that long ago, is carried out.
    Cut(usize, usize),
    /// The machine loses its power, maybe with its BMC.
    Die(usize, bool),
    Boot(usize),
    Unplug(usize),
    Plug(usize),
    /// The node's daemon.
    Crash(usize),
    Start(usize),
    /// The store ends the session of a node.
    Expire(usize),
    Enter(usize),
    Look(usize),
    Register(usize),
    /// It reads a VM's records, and does what follows.
    See(usize, usize),
    Act(usize, usize),
    Create(usize, usize),
    /// An administrator sees that a machine is off, and says so; the daemon that is told reads, and writes.
    Say(usize),
    Note,
    Confirm,
    /// An administrator lets a node take VMs again.
    Ready(usize),
}

/// An administrator's word under way: the node, the boot that is meant, and what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Word {
    node: usize,
    boot: u8,
    write: Option<Write>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) store: Store,
    /// The first one has the role; a later one may think so.
    pub(crate) workers: [Worker; WORKERS],
    pub(crate) hosts: [Host; HOSTS],
    /// Writes of processes that are gone.
    late: Vec<Write>,
    word: Option<Word>,
    /// How much may still go wrong.
    left: World,
    pub(crate) wrongs: Wrongs,
}

impl State {
    pub(crate) fn steady(world: &World) -> State {
        let mut domains = [Domain::Absent; VMS];
        domains[..world.vms].fill(Domain::Runs(1));
        State {
            store: Store::steady(),
            workers: [Worker::default(); WORKERS],
            hosts: [Host::steady(domains), Host::steady([Domain::Absent; VMS])],
            late: vec![],
            word: None,
            left: *world,
            wrongs: Wrongs::default(),
        }
    }

    fn sight(&self) -> Sight {
        let listens = self.left.listens;
        let unheard =
            std::array::from_fn(|n| listens && self.store.nodes[n].session.is_some() && !self.hosts[n].answers());
        let mut store = self.store;
        for node in &mut store.nodes {
            node.session = node.session.map(|session| crate::store::Session { own: false, member: false, ..session });
        }
        Sight { store, unheard }
    }

    pub(crate) fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.quiet_actions(world, actions);
        // Late orders may cut one boot after the other.
        actions.retain(|action| !matches!(action, Action::Boot(n) if self.hosts[*n].boot > world.deaths + 1));
        self.faults(world, actions);
    }

    /// What may happen without a fault.
    pub(crate) fn quiet_actions(&self, world: &World, actions: &mut Vec<Action>) {
        use Action::*;
        actions.push(Tick);
        for (i, worker) in self.workers.iter().enumerate() {
            if i == 0 || worker.sight.is_some() {
                actions.push(Read(i));
            }
            if worker.write.is_some() {
                actions.push(Arrive(i));
            }
            if worker.sight.is_none() {
                continue;
            }
            let pass = worker.pass(world);
            if worker.write.is_none() {
                actions.extend((0..pass.writes.len()).map(|k| Send(i, k)));
            }
            for (n, attempt) in worker.tries.iter().enumerate() {
                let Some(attempt) = attempt else { continue };
                match attempt.stage {
                    Stage::Announced { .. } => actions.push(Probe(i, n)),
                    Stage::Look { reading, answers, ordered } => {
                        // After an order the machine is asked when the BMC has been read.
                        if answers.is_none() && (!ordered || reading.is_some()) {
                            actions.push(Probe(i, n));
                        }
                        if reading.is_none() {
                            actions.push(Hear(i, n, self.truth(n)));
                        }
                    }
                    Stage::Ended { .. } => {}
                }
            }
        }
        actions.extend((0..self.late.len()).map(ArriveLate));
        for (n, host) in self.hosts.iter().enumerate() {
            self.of_host(world, n, host, actions);
        }
        match &self.word {
            Some(Word { write: None, .. }) => actions.push(Note),
            Some(_) => actions.push(Confirm),
            None => {}
        }
    }

    fn of_host(&self, world: &World, n: usize, host: &Host, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend((0..3).filter(|age| host.orders[*age]).map(|age| Cut(n, age)));
        if !host.power {
            actions.push(Boot(n));
        } else if !host.linked {
            actions.push(Plug(n));
        }
        if host.power && host.daemon == Daemon::Down {
            actions.push(Start(n));
        }
        let session = self.store.nodes[n].session;
        if session.is_some_and(|session| !host.talks() || !session.own) {
            actions.push(Expire(n));
        }
        if host.talks() {
            match host.daemon {
                Daemon::Down => {}
                Daemon::Out => actions.push(Enter(n)),
                _ if !session.is_some_and(|session| session.own) => actions.push(Enter(n)),
                Daemon::Joins { end: None, .. } => actions.push(Look(n)),
                Daemon::Joins { .. } => actions.push(Register(n)),
                Daemon::Member => {}
            }
            // It may be about to end its fence when its session ends.
            let unchecked = world.flaw == Flaw::UncheckedSession && !session.is_some_and(|s| s.own);
            if matches!(host.daemon, Daemon::Joins { end: Some(_), .. }) && unchecked {
                actions.push(Register(n));
            }
        }
        for v in 0..world.vms {
            if host.creating[v].is_some() {
                actions.push(Create(n, v));
            }
            let member = host.daemon == Daemon::Member && host.talks() && session.is_some_and(|s| s.own);
            if member && host.creating[v].is_none() {
                if host.seen[v].map(|seen| seen.recs) != Some(self.store.vms[v]) {
                    actions.push(See(n, v));
                }
                if host.step(&self.store, n, v).is_some() {
                    actions.push(Act(n, v));
                }
            }
        }
        let flushed = self.store.nodes[n].rec.is.flushed && session.is_some_and(|s| s.member);
        if flushed {
            actions.push(Ready(n));
        }
    }

    fn faults(&self, world: &World, actions: &mut Vec<Action>) {
        use Action::{Crash, Die, Elect, Hear, Restart, Say, Unplug};
        if self.left.elections > 0 {
            actions.extend([Elect(1), Elect(2)]);
        }
        if self.left.crashes > 0 {
            let busy = |worker: &Worker| worker.write.is_some() || worker.tries.iter().any(Option::is_some);
            actions.extend((0..WORKERS).filter(|i| busy(&self.workers[*i])).map(Restart));
        }
        for (n, host) in self.hosts.iter().enumerate().take(world.mortal) {
            if self.left.deaths > 0 && host.power {
                actions.extend([Die(n, false), Die(n, true)]);
                if host.linked {
                    actions.push(Unplug(n));
                }
            }
            if self.left.blips > 0 && host.daemon != Daemon::Down {
                actions.push(Crash(n));
            }
            if self.left.words > 0 && self.word.is_none() && !host.power {
                actions.push(Say(n));
            }
            for (i, worker) in self.workers.iter().enumerate() {
                let asks = |attempt: &crate::worker::Try| matches!(attempt.stage, Stage::Look { reading: None, .. });
                if self.left.doubts > 0 && self.truth(n) != Read::Nothing && worker.tries[n].as_ref().is_some_and(asks)
                {
                    actions.push(Hear(i, n, Read::Nothing));
                }
            }
        }
    }

    fn truth(&self, n: usize) -> Read {
        match self.hosts[n] {
            Host { mute: true, .. } => Read::Nothing,
            Host { power: true, .. } => Read::On,
            Host { power: false, .. } => Read::Off,
        }
    }

    pub(crate) fn act(&mut self, world: &World, action: Action) {
        self.happen(world, action);
        self.canonical(world);
    }

    fn happen(&mut self, world: &World, action: Action) {
        let sight = self.sight();
        match action {
            Action::Tick => {
                self.workers.iter_mut().for_each(Worker::tick);
                self.hosts.iter_mut().for_each(Host::tick);
            }
            Action::Elect(i) => {
                self.left.elections -= 1;
                self.store.primary += 1;
                self.workers.swap(0, i);
            }
            Action::Restart(i) => {
                self.left.crashes -= 1;
                self.late.extend(self.workers[i].write);
                self.workers[i] = Worker::default();
            }
            Action::Read(i) => self.workers[i].read(sight, i == 0),
            Action::Send(i, k) => self.workers[i].write = self.workers[i].pass(world).writes.get(k).copied(),
            Action::Arrive(i) => {
                if let Some(write) = self.workers[i].write.take() {
                    let taken = self.store.apply(world, &write, &mut self.wrongs);
                    self.workers[i].answered(&write, taken);
                }
            }
            Action::ArriveLate(k) => {
                let write = self.late.remove(k);
                self.store.apply(world, &write, &mut self.wrongs);
            }
            Action::Probe(i, n) => {
                if self.workers[i].probe(world, n, self.hosts[n].answers()) {
                    self.hosts[n].orders[0] = true;
                }
            }
            Action::Hear(i, n, said) => {
                self.left.doubts -= u8::from(said != self.truth(n));
                self.workers[i].hears(world, n, said);
            }
            Action::Say(n) => {
                self.left.words -= 1;
                self.word = Some(Word { node: n, boot: self.store.nodes[n].rec.is.boot, write: None });
            }
            Action::Note => self.note(world),
            Action::Confirm => {
                if let Some(Word { write: Some(write), .. }) = self.word.take() {
                    self.store.apply(world, &write, &mut self.wrongs);
                }
            }
            Action::Ready(n) => {
                let rec = &mut self.store.nodes[n].rec;
                rec.set(NodeRec { flushed: false, ..rec.is });
            }
            action => self.at_host(world, action),
        }
    }

    fn at_host(&mut self, world: &World, action: Action) {
        let State { store, hosts, .. } = self;
        match action {
            Action::Cut(n, age) => {
                let host = &mut hosts[n];
                host.orders[age] = false;
                let acts = store.nodes[n].session.is_some_and(|session| session.member && session.own);
                self.wrongs.member_cut |= host.power && acts;
                if host.power {
                    self.die(n, false);
                }
            }
            Action::Die(n, mute) => {
                self.left.deaths -= 1;
                self.die(n, mute);
            }
            Action::Boot(n) => hosts[n].start(),
            Action::Unplug(n) => {
                self.left.deaths -= 1;
                hosts[n].linked = false;
            }
            Action::Plug(n) => hosts[n].linked = true,
            Action::Crash(n) => {
                self.left.blips -= 1;
                hosts[n].crash();
                self.disown(n);
            }
            Action::Start(n) => hosts[n].daemon = Daemon::Out,
            Action::Expire(n) => store.nodes[n].session = None,
            Action::Enter(n) => hosts[n].enter(store, n),
            Action::Look(n) => hosts[n].look(world, store, n),
            Action::Register(n) => hosts[n].register(store, n),
            Action::See(n, v) => hosts[n].read(world, store, n, v),
            Action::Act(n, v) => {
                if let Some(step) = hosts[n].step(store, n, v) {
                    self.wrongs.epoch_back |= hosts[n].act(store, n, v, &step);
                }
            }
            Action::Create(n, v) => hosts[n].create(v),
            _ => {}
        }
    }

    fn die(&mut self, n: usize, mute: bool) {
        self.hosts[n].die(mute);
        self.disown(n);
    }

    /// Its daemon is gone; its session is there until it expires.
    fn disown(&mut self, n: usize) {
        if let Some(session) = &mut self.store.nodes[n].session {
            (session.own, session.member) = (false, false);
        }
    }

    /// The daemon that was told of a machine that is off reads, and decides (`agent::commands::fence`).
    fn note(&mut self, world: &World) {
        let Some(word) = self.word.take() else { return };
        let recs = self.store.nodes[word.node];
        let record = node(NAMES[word.node].as_str(), 8).booted(&boot_id(recs.rec.is.boot)).record.value.clone();
        let present = recs.session.map(|_| drover_model::DaemonState::Run);
        let old = recs.fence.map(|fence| fence.is.full());
        let boot = boot_id(word.boot);
        let boot = Some(&*boot).filter(|_| world.flaw != Flaw::BlindWord);
        let by = (&NAMES[0], Epoch(1));
        if let Ok(Some(new)) = fence::confirm(&record, present, old.as_ref(), (boot, false), by, WallTime(0)) {
            let write = Write {
                node: word.node as u8,
                announces: false,
                primary: None,
                no_session: true,
                rec: Some(recs.rec.v),
                fence: recs.fence.map_or(FenceIs::Missing, |fence| FenceIs::At(fence.v)),
                set_fence: Some(Some(FenceRec::of(&new))),
                flush: false,
                order: None,
            };
            self.word = Some(Word { write: Some(write), ..word });
        }
    }

    pub(crate) fn is_proved(&self, n: usize) -> Option<u8> {
        self.store.nodes[n].fence.filter(|fence| fence.is.phase.is_proved()).map(|fence| fence.is.boot)
    }

    pub(crate) fn phase(&self, n: usize) -> Option<FencePhase> {
        let recs = &self.store.nodes[n];
        recs.fence.filter(|f| f.is.phase != FencePhase::Over && f.is.boot == recs.rec.is.boot).map(|f| f.is.phase)
    }

    /// Takes together what differs in names and numbers only: the coordinators without the role are alike, and of
    /// versions only the order counts.
    fn canonical(&mut self, world: &World) {
        self.workers.iter_mut().for_each(|worker| worker.settle(world));
        self.workers[1..].sort_unstable();
        self.late.sort_unstable();
        self.late.dedup();
        let word = self.word.as_mut().and_then(|word| word.write.as_mut());
        crate::rank::versions(&mut self.store, &mut self.workers, &mut self.late, &mut self.hosts, word);
    }
}

impl State {
    /// An administrator says that a machine is off.
    pub(crate) fn say(&mut self, n: usize) {
        self.word = Some(Word { node: n, boot: self.store.nodes[n].rec.is.boot, write: None });
    }
}
