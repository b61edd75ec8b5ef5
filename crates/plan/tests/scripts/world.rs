//! A small model of agents and hypervisors around plan's decisions, in rounds. All decisions are made by plan; this is
//! their effect on records and guests.

use drover_model::{
    Arrival, Claim, ClusterView, DaemonState, Epoch, Generation, How, Mono, MoveFailure, MoveKind, NodeName, NodeState,
    Obs, OffReason, PausedBy, RunState, Stored, VmRecord, VmState, VmView, WallTime, domain::Mark, testing::*,
    vm::VM_SCHEMA,
};
use drover_plan::{
    arrivals,
    drain::{self, Order, Plan},
    moves,
    vm::{self, Failed, HostState, Memory, Seen, Situation, Step},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// Duration of a round.
const ROUND: Duration = Duration::from_secs(1);

/// A cluster and what its nodes' daemons and hypervisors have.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) view: ClusterView,
    /// Guests that cannot be migrated, and why.
    pub(crate) unsendable: BTreeMap<Uuid, String>,
    /// Where VMs cannot be started, and why.
    pub(crate) unstartable: BTreeMap<(NodeName, Uuid), String>,
    /// Which VMs idle in which round: every third of them, by turns.
    pace: Option<u64>,
    domains: BTreeMap<(NodeName, Uuid), Seen>,
    memories: BTreeMap<(NodeName, Uuid), Memory>,
    /// The last output for each waiting VM.
    told: BTreeMap<Uuid, String>,
    rounds: u64,
    now: Mono,
}

/// What happened in a round.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Output for users.
    pub(crate) told: Vec<String>,
    /// Whether anything happened.
    pub(crate) busy: bool,
}

/// How a VM is moved, for users.
pub(crate) fn way(how: How) -> &'static str {
    match how {
        How::Live => "live",
        How::LiveElseCold => "live, else cold",
        How::Cold => "cold",
    }
}

impl World {
    /// Nothing yet; some VMs idle in each round.
    pub(crate) fn paced(pace: u64) -> World {
        World { pace: Some(pace), ..World::default() }
    }

    /// A VM, with its guest where it runs.
    pub(crate) fn put_vm(&mut self, vm: &VmView) {
        let uuid = vm.record.uuid;
        self.domains.retain(|(_, of), _| *of != uuid);
        if let Some(holder) = vm.holder() {
            let mark = Mark { epoch: vm.claim.as_ref().map_or(Epoch(1), |c| c.epoch), generation: Generation(1) };
            let paused = vm.status.as_ref().and_then(|status| status.why_paused()).map(|paused| paused.by);
            let run = if paused.is_some() { RunState::Paused } else { RunState::Running };
            let sending = vm.sent_to().is_some();
            let seen = Seen { run, off: None, paused, mark, sending, transit: None, transient: false };
            self.domains.insert((holder.clone(), uuid), seen);
        }
        self.view.put_vm(vm);
    }

    /// The wall-clock time.
    pub(crate) fn wall(&self) -> WallTime {
        WallTime(self.now.0)
    }

    pub(crate) fn state_of(&self, node: &NodeName) -> NodeState {
        self.view.nodes[node].record.domain_state
    }

    pub(crate) fn set_state(&mut self, node: &NodeName, state: NodeState) {
        self.view.change_node(node, |node| node.record.domain_state = state);
    }

    /// The plan that the node's state asks for, and what kind of move it makes; of one that takes VMs, the flush that
    /// could be ordered.
    pub(crate) fn plan(view: &ClusterView, node: &NodeName) -> (Plan, MoveKind) {
        match view.nodes[node].record.domain_state {
            NodeState::Unflush => (drain::bring_home(view, node), MoveKind::Unmigrate),
            _ => (drain::evacuate(view, node), MoveKind::Migrate),
        }
    }

    /// One pass of everything. All nodes plan on the same view, before any of them has written.
    pub(crate) fn round(&mut self) -> Round {
        let (picture, mut round) = (self.view.clone(), Round::default());
        (self.rounds, self.now) = (self.rounds + 1, self.now.after(ROUND));
        let living = |(name, node): (&NodeName, &std::sync::Arc<drover_model::NodeView>)| {
            (node.daemon_state() == DaemonState::Run).then(|| name.clone())
        };
        let living: Vec<NodeName> = picture.nodes.iter().filter_map(living).collect();
        for me in &living {
            self.drain(&picture, me, &mut round);
        }
        for me in &living {
            self.answer(me, &mut round);
        }
        let on_their_way: Vec<_> =
            self.domains.iter().filter(|(_, seen)| seen.sending).map(|(at, _)| at.clone()).collect();
        for (n, uuid) in (0..).zip(self.view.vms.keys().copied().collect::<Vec<_>>()) {
            if self.pace.is_some_and(|pace| (n + self.rounds * pace).is_multiple_of(3)) {
                round.busy = true;
                continue;
            }
            for me in &living {
                self.task(me, &uuid, &mut round);
            }
        }
        // Whoever was told to stop a migration did so by now.
        for at in on_their_way {
            self.travel(at, &mut round);
        }
        self.report_domains();
        round
    }

    /// Every node reports the domains that it has in memory.
    fn report_domains(&mut self) {
        for node in self.view.nodes.keys().cloned().collect::<Vec<_>>() {
            let known = self.domains.keys().filter(|(at, _)| *at == node).map(|(_, uuid)| *uuid).collect::<Vec<_>>();
            let vms = &self.view.vms;
            let strays = self.view.nodes[&node].status.as_ref().map(|status| status.value.domains.clone());
            let strays = strays.unwrap_or_default().into_iter().filter(|uuid| !vms.contains_key(uuid));
            let domains: Vec<_> = strays.chain(known).collect();
            self.view.change_node(&node, |node| {
                if node.status.is_some() {
                    *node = node.clone().reporting(|report| report.domains = domains);
                }
            });
        }
    }

    /// Rounds until nothing happens any more; `None`: it does not end.
    pub(crate) fn settle(&mut self) -> Option<Vec<Round>> {
        let mut rounds = vec![];
        while rounds.len() < 500 {
            let round = self.round();
            let quiet = !round.busy;
            rounds.push(round);
            if quiet {
                return Some(rounds);
            }
        }
        None
    }

    /// A node carries out a flush or a ready of itself.
    fn drain(&mut self, picture: &ClusterView, me: &NodeName, round: &mut Round) {
        let (plan, kind) = match self.state_of(me) {
            NodeState::Flush | NodeState::Unflush => World::plan(picture, me),
            NodeState::Ready | NodeState::Flushed => return,
        };
        for order in plan.orders(picture, me, kind, self.wall()) {
            let vm = &self.view.vms[&order.uuid];
            let same_claim = order.claim.is_none_or(|version| vm.claim.as_ref().is_some_and(|c| c.version == version));
            if vm.record.version == order.version && same_claim {
                round.tell(format!("{me}: {}", ordered(&order)));
                self.set_record(&order.uuid, order.record);
            }
        }
        let empty = !self.domains.keys().any(|(node, _)| node == me);
        let next = match kind {
            MoveKind::Unmigrate => plan.is_done().then_some(NodeState::Ready),
            _ => (plan.has_left() && plan.strays.is_empty() && empty).then_some(NodeState::Flushed),
        };
        if let Some(next) = next {
            round.tell(format!("{me}: is {next}"));
            self.set_state(me, next);
        }
    }

    /// A node answers its incoming moves.
    fn answer(&mut self, me: &NodeName, round: &mut Round) {
        for answer in arrivals::answers(&self.view, me, &BTreeSet::new()) {
            let name = &self.view.vms[&answer.uuid].record.name;
            round.busy = true;
            if let Some(why) = &answer.refused {
                round.tell(format!("{me}: refuses {name}: {why}"));
            }
            let value = Arrival { schema: VM_SCHEMA, node: me.clone(), of: answer.of, refused: answer.refused };
            self.view.change_vm(&answer.uuid, |vm| vm.arrival = Some(kept(value)));
        }
        for uuid in arrivals::outdated(&self.view, me) {
            self.view.change_vm(&uuid, |vm| vm.arrival = None);
        }
    }

    /// A migration completes or fails.
    fn travel(&mut self, (from, uuid): (NodeName, Uuid), round: &mut Round) {
        let seen = self.domains.get(&(from.clone(), uuid)).copied().filter(|seen| seen.sending);
        let to = self.view.vms.get(&uuid).and_then(|vm| vm.sent_to().cloned());
        let (Some(seen), Some(to)) = (seen, to) else { return };
        let here = Seen { sending: false, ..seen };
        round.busy = true;
        match self.unsendable.get(&uuid).cloned() {
            Some(why) => {
                let name = &self.view.vms[&uuid].record.name;
                round.tell(format!("{name} on {from}: could not be sent to {to}: {why}"));
                self.domains.insert((from.clone(), uuid), here);
                self.move_failed(&from, &uuid, &to, why, 1);
            }
            None => {
                let mark = Mark { epoch: seen.mark.epoch.next(), ..seen.mark };
                self.domains.remove(&(from, uuid));
                self.domains.insert((to, uuid), Seen { mark, run: RunState::Paused, ..here });
            }
        }
    }

    fn move_failed(&mut self, me: &NodeName, uuid: &Uuid, to: &NodeName, reason: String, more: u32) {
        let version = self.view.vms[uuid].record.version;
        self.memories.entry((me.clone(), *uuid)).or_default().move_failed = Some((version, reason.clone()));
        self.view.change_vm(uuid, |vm| {
            *vm = vm.clone().reported(|report| {
                let before = report.move_failure.as_ref().map_or((0, 0), |f| (f.count, f.told));
                let (count, told) = (before.0 + more, before.1 + 1);
                report.move_failure = Some(MoveFailure { to: to.clone(), reason, count, told });
            });
        });
    }

    /// One pass of a VM's task on one node.
    fn task(&mut self, me: &NodeName, uuid: &Uuid, round: &mut Round) {
        let Some(vm) = self.view.vms.get(uuid).cloned() else { return };
        let at = (me.clone(), *uuid);
        if !vm.concerns(me) && !self.domains.contains_key(&at) {
            return;
        }
        let domain = self.domains.get(&at).map_or(Obs::Absent, |seen| Obs::Known(*seen));
        let memory = self.memories.entry(at.clone()).or_default();
        memory.absorb(Some(&vm.record.value), vm.claim.as_ref().map(|claim| &claim.value), &domain, self.now);
        let turn = moves::turn(&self.view, uuid);
        let situation = Situation {
            me,
            record: Some(&vm.record),
            claim: vm.claim.as_deref(),
            domain: &domain,
            memory,
            host: &HostState::Ready,
            turn: &turn,
            replaced: vm.status.as_ref().and_then(|report| report.replaced.as_ref()),
            kept: None,
            machine: "",
            elsewhere: None,
            back: &moves::back(&self.view, &vm.record, vm.claim.as_ref().and_then(|claim| claim.value.from.as_ref())),
            now: self.now,
        };
        let decision = vm::next(&situation);
        let told = format!("{} on {me}: {}", vm.record.name, decision.doing);
        if matches!(decision.step, Step::Wait | Step::Leave) {
            if !decision.doing.is_empty() && self.told.get(uuid) != Some(&told) {
                round.told.push(told.clone());
                self.told.insert(*uuid, told);
            }
            return;
        }
        round.busy = true;
        if !decision.doing.is_empty() {
            round.told.push(told.clone());
            self.told.insert(*uuid, told);
        }
        let Some(claim) = vm.claim.as_ref().map(|claim| claim.value.clone()) else { return };
        self.step(at, &vm, &claim, decision.step);
    }

    fn step(&mut self, at: (NodeName, Uuid), vm: &VmView, claim: &Claim, step: Step) {
        let ((me, uuid), record) = (at.clone(), &vm.record.value);
        match step {
            Step::Wait | Step::Leave => {}
            Step::Start if self.unstartable.contains_key(&at) => {
                let (why, now) = (self.unstartable[&at].clone(), self.now);
                self.set_claim(&uuid, claim.granted_to(&me));
                let memory = self.memories.entry(at).or_default();
                memory.start_failed(record.generation, Failed::ForGood, why, now);
            }
            Step::GoBack(back, why) => {
                let ordered = back.ordered(record, &me, &why, self.wall());
                self.memories.entry(at).or_default().sent_back();
                self.set_record(&uuid, ordered);
            }
            Step::Start => {
                let granted = claim.granted_to(&me);
                let mark = Mark { epoch: granted.epoch, generation: record.generation };
                let run = RunState::Running;
                let seen = Seen { run, off: None, paused: None, mark, sending: false, transit: None, transient: false };
                self.domains.insert(at, seen);
                self.set_claim(&uuid, granted);
            }
            Step::Pause => {
                let domain = self.domains.get_mut(&at).unwrap();
                (domain.run, domain.paused) = (RunState::Paused, Some(PausedBy::Administrator));
            }
            Step::Resume | Step::Wake | Step::LetRun => {
                let domain = self.domains.get_mut(&at).unwrap();
                (domain.run, domain.paused) = (RunState::Running, None);
            }
            Step::PressButton => {
                let (now, domain) = (self.now, self.domains.get_mut(&at).unwrap());
                (domain.run, domain.off) = (RunState::Off, Some(OffReason::Shutdown));
                let pressed = Some((domain.mark.epoch, now));
                self.memories.entry(at).or_default().pressed = pressed;
            }
            Step::Destroy | Step::Undefine => _ = self.domains.remove(&at),
            Step::Complete(state) => self.set_record(&uuid, VmRecord { state, ..record.clone() }),
            Step::Release => self.set_claim(&uuid, claim.released()),
            Step::Import | Step::ResumeAfterError => {}
            Step::Migrate(to) | Step::MigrateByPostCopy(to) => {
                let domain = self.domains.get_mut(&at).unwrap();
                domain.sending = true;
                let epoch = domain.mark.epoch;
                self.memories.entry(at).or_default().begin_sending(epoch);
                self.set_claim(&uuid, claim.sending_to(&to));
            }
            Step::AbortMigration => self.domains.get_mut(&at).unwrap().sending = false,
            Step::CallBack => {
                let guest = self.domains.get(&at).filter(|seen| seen.run != RunState::Off).map(|seen| seen.mark.epoch);
                self.set_claim(&uuid, claim.called_back(guest));
            }
            Step::GiveUpMove(why) => {
                if let Some(to) = record.state.destination() {
                    self.move_failed(&me, &uuid, to, why, 0);
                }
                self.set_record(&uuid, VmRecord { state: VmState::Start, ..record.clone() });
            }
            Step::HandOver(to) => {
                self.memories.entry(at).or_default().handed_over();
                self.settle_at(vm, claim.handed_to(&to), &to);
            }
            Step::StartThere(to) => self.settle_at(vm, claim.granted_above_sent(&to), &to),
            Step::Follow(to, mark) => self.settle_at(vm, claim.followed_to(&to, mark), &to),
            Step::TakeOver => self.settle_at(vm, claim.granted_to(&me), &me),
            Step::Settle => self.set_claim(&uuid, claim.settled()),
            Step::Adopt(state) => {
                let granted = claim.granted_above(self.domains[&at].mark.epoch, &me);
                self.set_record(&uuid, VmRecord { state, ..record.arrived(&me, MoveKind::Migrate) });
                self.set_claim(&uuid, granted);
            }
            Step::Regrant => self.set_claim(&uuid, claim.granted_above(self.domains[&at].mark.epoch, &me)),
            Step::Remark => self.domains.get_mut(&at).unwrap().mark.epoch = claim.epoch,
            Step::RemoveDisks => self.memories.entry(at).or_default().disks_removed = true,
            Step::DeleteRecords => self.view.apply(&<VmRecord as drover_model::RecordKind>::path(&uuid), None),
        }
    }

    /// The change that completes a move.
    fn settle_at(&mut self, vm: &VmView, granted: Claim, to: &NodeName) {
        let old = &vm.record.value;
        let new = match &old.state {
            VmState::Migrate { to: wanted, kind, .. } if wanted == to => {
                VmRecord { state: VmState::Start, ..old.arrived(to, *kind) }
            }
            _ => old.arrived(to, MoveKind::Migrate),
        };
        self.set_record(&old.uuid, new);
        self.set_claim(&old.uuid, granted);
        self.view.change_vm(&old.uuid, |vm| vm.status = None);
    }

    pub(crate) fn set_record(&mut self, uuid: &Uuid, record: VmRecord) {
        self.view.change_vm(uuid, |vm| vm.record = Stored::new(record, vm.record.version.next()).into());
    }

    fn set_claim(&mut self, uuid: &Uuid, claim: Claim) {
        self.view.change_vm(uuid, |vm| {
            let version = vm.claim.as_ref().map(|claim| claim.version.next()).unwrap_or_default();
            vm.claim = Some(Stored::new(claim, version).into());
        });
    }
}

impl Round {
    fn tell(&mut self, told: String) {
        self.told.push(told);
        self.busy = true;
    }
}

/// An order of a plan, for users.
pub(crate) fn ordered(order: &Order) -> String {
    let record = &order.record;
    let node = record.node.as_ref().map(NodeName::as_str).unwrap_or_default();
    match &record.state {
        VmState::Migrate { to, how, .. } => format!("orders {} from {node} to {to}, {}", record.name, way(*how)),
        VmState::Shutdown { .. } => format!("orders {} to be shut down", record.name),
        state => format!("orders {} to {state} on {node}", record.name),
    }
}
