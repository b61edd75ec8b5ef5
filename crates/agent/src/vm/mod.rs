//! One task per VM: observe, ask `plan::vm`, do one step, repeat.
//!
//! Each pass reads the VM's records from the store and its domain from the hypervisor; a wake-up carries no data. If a
//! pass found nothing to do, and neither the view nor the hypervisor has changed since (`Settled`), the store is not
//! read again before [`READ_AGAIN`]. While a step runs, the task watches the record that caused it: when that changes,
//! the step's future is dropped and plan is asked again. What a dropped step may have left in the hypervisor is
//! observed as unknown until its call has ended, and plan does nothing on an unknown domain.

mod disks;
mod migrate;
mod report;
mod step;

use crate::{
    context::{Context, Options},
    faults,
    operation::scope,
    published::Strays,
    records,
    starts::StartTurn,
};
use drover_drivers::hypervisor::Domain;
use drover_model::{
    Claim, Mono, MoveFailure, Obs, Operation, Replaced, RunState, Stored, Stray, Version, VmRecord, VmState, VmStatus,
    VmView,
    domain::{KeptState, devices::Devices},
};
use drover_plan::{
    moves::{self, Back, Turn},
    place,
    vm::{self as plan, Decision, Elsewhere, HostState, Memory, Seen, Situation, Step},
};
use drover_store::StoreError;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// The first pause before a pass is retried after a store error, unless a wake-up comes first. Doubles up to
/// [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(200);
/// The longest pause between retries.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A settled VM is read from the store again after this time even if the view shows no change: the most that a missed
/// store event can cost. Reading every VM every 30 s would be most of a large cluster's requests.
const READ_AGAIN: Duration = Duration::from_secs(600);
/// After this many conflicts in a row the task backs off.
const CONFLICTS: u32 = 20;

/// What one pass observed.
struct Snapshot {
    record: Option<Stored<VmRecord>>,
    claim: Option<Stored<Claim>>,
    status: Option<Stored<VmStatus>>,
    domain: Obs<Domain>,
    /// Disks that the guest writes to, or has written to, instead of those that it was started with.
    replaced: Option<Replaced>,
}

impl Snapshot {
    /// The VM's domain, if it is known: not one that an earlier VM with the same UUID left, or an earlier grant.
    fn own(&self) -> Option<&Domain> {
        let earlier = |domain: &&Domain| {
            let mark = domain.mark.epoch;
            self.claim.as_ref().is_some_and(|c| c.value.is_after(mark) || c.value.is_past(mark))
        };
        self.domain.known().filter(|domain| !earlier(domain))
    }

    /// The guest of the VM's present grant, if its domain is here.
    fn granted(&self) -> Option<&Domain> {
        let claim = &self.claim.as_ref().filter(|claim| claim.value.node.is_some())?.value;
        let is_its = |mark| mark == claim.epoch || claim.adopts == Some(mark);
        self.own().filter(|domain| is_its(domain.mark.epoch))
    }
}

/// State after a pass that left nothing to do, now or at a later time. While all of it is unchanged, the next pass
/// would decide the same.
struct Settled {
    /// The VM in the view; it shows the record versions that the pass read.
    shown: Arc<VmView>,
    domain: Obs<Domain>,
    host: HostState,
    at: Mono,
}

/// A VM's task.
struct Task {
    ctx: Arc<Context>,
    /// Where it publishes that its domain is a stray.
    strays: watch::Sender<Strays>,
    uuid: Uuid,
    memory: Memory,
    /// Whether the crash count was taken over from the previous daemon's report.
    remembered: bool,
    /// The VM's last move, if it failed.
    failure: Option<MoveFailure>,
    /// The guest's migration, while it is under way.
    outgoing: Option<migrate::Outgoing>,
    settled: Option<Settled>,
    /// The last failure of the hypervisor, so that it is logged once; empty: it did as it was told.
    refused: String,
    /// The guest as it was last seen here, for the node's history: its run state, and the crashes.
    seen: Option<(RunState, u32)>,
    /// What this node decides itself after the guest has ended or was paused without an order, and the version of the
    /// VM's record then: an order that comes later is of another operation.
    own: Option<(Version, Operation)>,
    /// Its turn to be started, when it had to wait for it.
    start_turn: Option<StartTurn>,
    /// Since when its domain runs here without a claim of this node.
    stray: Option<Mono>,
}

/// Supervises one VM until it no longer concerns this node. `wake` is a counter that is incremented whenever there is a
/// reason to look again; returns the last value that was handled.
pub(crate) async fn run(
    ctx: Arc<Context>,
    strays: watch::Sender<Strays>,
    uuid: Uuid,
    mut wake: watch::Receiver<u64>,
) -> u64 {
    let mut task = Task {
        ctx,
        strays,
        uuid,
        memory: Memory::default(),
        remembered: false,
        failure: None,
        outgoing: None,
        settled: None,
        refused: String::new(),
        seen: None,
        own: None,
        start_turn: None,
        stray: None,
    };
    let mut retry = RETRY;
    // The last warning, so that it is logged once.
    let mut warned = String::new();
    let mut conflicts = 0;
    loop {
        task.ctx.membership().await;
        let handled = *wake.borrow_and_update();
        if task.is_settled().await {
            match wake.changed().await {
                Ok(()) => continue,
                Err(_) => return handled,
            }
        }
        let look_again = match task.pass().await {
            Ok(decision) => {
                retry = RETRY;
                warned.clear();
                conflicts = 0;
                match decision.step {
                    Step::Leave => return handled,
                    Step::Wait => decision.look_again,
                    _ => continue,
                }
            }
            Err(error) if error.is_conflict() && conflicts < CONFLICTS => {
                conflicts += 1;
                continue;
            }
            Err(error) => {
                // It may take long until the next pass.
                task.start_turn = None;
                let why = error.to_string();
                if warned == why {
                    tracing::debug!(vm = %uuid, %error, "processing a VM still fails");
                } else {
                    tracing::warn!(vm = %uuid, %error, "processing a VM failed, retrying");
                    warned = why;
                }
                let again = task.ctx.clock.now().after(retry);
                retry = (retry * 2).min(RETRY_MAX);
                // A record in a newer layout is read again only when it changes, which wakes the task.
                (!matches!(error, StoreError::Unreadable { .. })).then_some(again)
            }
        };
        tokio::select! {
            biased;
            changed = wake.changed() => if changed.is_err() { return handled },
            () = task.ctx.clock.until(look_again) => {}
        }
    }
}

impl Task {
    /// Whether nothing has changed since the last pass.
    async fn is_settled(&self) -> bool {
        let Some(settled) = &self.settled else { return false };
        let same = |view: &VmView| std::ptr::eq(view, &*settled.shown);
        let shown = self.ctx.views.latest().vms.get(&self.uuid).is_some_and(|vm| same(vm));
        shown
            && self.ctx.clock.now().since(settled.at) < READ_AGAIN
            && self.ctx.host_state() == settled.host
            && self.ctx.hypervisor.domain(self.uuid).await == settled.domain
    }

    /// The state to compare with before the next pass, if this one left nothing to do.
    fn settle(&self, snapshot: &Snapshot, decision: &Decision) -> Option<Settled> {
        let view = self.ctx.views.latest();
        let shown = view.vms.get(&self.uuid)?.clone();
        let is_read = shown.record.version == snapshot.record.as_ref()?.version
            && shown.claim.as_ref().map(|c| c.version) == snapshot.claim.as_ref().map(|c| c.version)
            && shown.status.as_ref().map(|s| s.version) == snapshot.status.as_ref().map(|s| s.version);
        // The turn of a move depends on other VMs, and anybody may delete a fault.
        let independent = shown.record.value.state.destination().is_none()
            && !matches!(shown.record.value.state, VmState::Fail { .. } | VmState::Unreadable)
            && !snapshot.domain.known().is_some_and(|d| d.sending)
            && !matches!(snapshot.domain, Obs::Unknown(_))
            && self.stray.is_none()
            && faults::none_of_vm(&view, &self.uuid);
        let idle = decision.step == Step::Wait && decision.look_again.is_none();
        let settled = || Settled {
            shown,
            domain: snapshot.domain.clone(),
            host: self.ctx.host_state(),
            at: self.ctx.clock.now(),
        };
        (is_read && independent && idle).then(settled)
    }

    /// Observes, decides, reports, and does one step (drops it when the record changes).
    async fn pass(&mut self) -> Result<Decision, StoreError> {
        self.settled = None;
        let (mut snapshot, mut decision) = self.decide().await?;
        // The reads may have waited for a new session of the store, in which the node's name may be another machine's.
        while !self.ctx.is_member() {
            self.ctx.membership().await;
            (snapshot, decision) = self.decide().await?;
        }
        let mark = snapshot.domain.known().map(|domain| domain.mark.epoch);
        let under = |claim: &Claim| claim.is_held_by(self.ctx.me()) && mark == Some(claim.epoch);
        let claimed = snapshot.claim.as_ref().is_some_and(|c| under(&c.value));
        if matches!(decision.step, Step::Destroy | Step::Undefine) && !claimed {
            // A guest without a claim, or with another mark, may have arrived by migration or be adopted, and this
            // server of the store may be behind: the claim was written before the guest was sent, so a read after a
            // sync shows it.
            self.ctx.store.sync().await?;
            (snapshot, decision) = self.decide().await?;
        }
        if decision.step != Step::Start {
            self.start_turn = None;
        }
        self.tell_of_guest(&snapshot, &decision.doing);
        let operation = self.operation(&snapshot);
        scope(operation, self.carry_out(&snapshot, &decision)).await?;
        self.settled = self.settle(&snapshot, &decision);
        Ok(decision)
    }

    /// The operation that the present state of the VM is part of.
    fn operation(&self, snapshot: &Snapshot) -> Option<Operation> {
        let record = snapshot.record.as_ref()?;
        let own = self.own.as_ref().filter(|(version, _)| *version == record.version);
        own.map(|(_, operation)| operation.clone()).or_else(|| record.value.operation.clone())
    }

    /// Reports, and does the step (drops it when the record changes).
    async fn carry_out(&mut self, snapshot: &Snapshot, decision: &Decision) -> Result<(), StoreError> {
        let sending = snapshot.domain.known().is_some_and(|d| d.sending);
        if !matches!(decision.step, Step::Wait | Step::Leave) {
            tracing::debug!(vm = %self.uuid, step = ?decision.step, doing = decision.doing, "step");
        }
        // The report is written before the step, so that whoever waits for the step sees what is under way; but it must
        // not delay a start, nor the resumption of a guest that executes nowhere just now.
        let hurry = decision.step == Step::Start || decision.step == Step::LetRun && self.memory.run_failures.is_none();
        if !hurry && !is_last_of_move(snapshot, decision) {
            self.report(snapshot, decision).await?;
        }
        // A migration that an earlier daemon began, or whose order changed while it was under way.
        match snapshot.record.as_ref().and_then(|r| Some((r.version, r.value.state.destination()?.clone()))) {
            Some((version, to)) if decision.step == Step::Wait && sending => {
                self.supervise_outgoing(version, &to).await
            }
            _ if !sending => self.outgoing = None,
            _ => {}
        }
        if decision.step == Step::Wait
            && let Some(record) = &snapshot.record
        {
            let run = snapshot.own().map(|domain| domain.run);
            faults::of_failed_vm(&self.ctx, record, run).await?;
            if self.is_ours(snapshot) {
                faults::of_guest(&self.ctx, record, &self.troubles(snapshot)).await?;
            }
        }
        self.report_stray(snapshot, decision).await?;
        let version = snapshot.record.as_ref().map(|r| r.version);
        let (ctx, uuid) = (self.ctx.clone(), self.uuid);
        tokio::select! {
            biased;
            done = self.execute(decision, snapshot) => done?,
            () = record_changed(&ctx, uuid, version) => {
                tracing::info!(vm = %uuid, step = ?decision.step, "the VM's record changed: the step is dropped");
            }
        }
        Ok(())
    }

    /// Observes, and asks plan.
    async fn decide(&mut self) -> Result<(Snapshot, Decision), StoreError> {
        let mut snapshot = self.look().await?;
        let seen = match &snapshot.domain {
            Obs::Known(d) => Obs::Known(Seen {
                run: d.run,
                off: d.off,
                paused: d.paused.as_ref().map(|paused| paused.by),
                mark: d.mark,
                sending: d.sending,
                transit: d.transit,
                transient: d.transient,
            }),
            Obs::Absent => Obs::Absent,
            Obs::Unknown(why) => Obs::Unknown(why.clone()),
        };
        snapshot.replaced = replaced(&snapshot, &seen);
        let now = self.ctx.clock.now();
        self.remember(&snapshot, now);
        let host = self.host_state(&snapshot).await;
        if host != HostState::GoingDown {
            let (record, claim) = (snapshot.record.as_ref(), snapshot.claim.as_ref());
            self.memory.absorb(record.map(|r| &r.value), claim.map(|c| &c.value), &seen, now);
        }
        let claim = snapshot.claim.as_ref().map(|c| &c.value);
        if let (Obs::Unknown(_), Some(claim), Some(why)) = (&seen, claim, self.ctx.hypervisor.given_up(self.uuid)) {
            self.memory.given_up(claim.epoch, why, now);
        }
        let ctx = self.ctx.clone();
        let Options { machine, boot, same_machine, .. } = &ctx.options;
        let was_in_memory = match (claim, &snapshot.status) {
            (Some(claim), Some(status)) => plan::was_in_memory(claim, &status.value, self.ctx.me(), boot),
            _ => false,
        };
        self.memory.absorb_gone(claim, &seen, was_in_memory, now);
        self.note_stray(claim, &seen, now);
        let counts = |other: &Elsewhere| claim.is_none_or(|claim| other.counts(claim));
        let elsewhere = Elsewhere::find(&self.ctx.views.latest(), self.ctx.me(), &self.uuid, counts);
        let turn = self.turn(&snapshot);
        let decision = plan::next(&Situation {
            me: self.ctx.me(),
            // The administrator says that the machine which had the name is gone.
            machine: if *same_machine { "" } else { machine },
            record: snapshot.record.as_ref(),
            claim: snapshot.claim.as_ref(),
            domain: &seen,
            memory: &self.memory,
            host: &host,
            turn: &turn,
            kept: self.kept(&snapshot),
            elsewhere: elsewhere.as_ref(),
            replaced: snapshot.replaced.as_ref(),
            back: &self.back(&snapshot),
            now,
        });
        Ok((snapshot, decision))
    }

    /// Whether guests can be started, or the machine is going down. That is asked only when it matters: when a guest is
    /// off that should not be. (Asked after the guest was seen off: what ended it was ordered before.)
    async fn host_state(&self, snapshot: &Snapshot) -> HostState {
        let wanted = |record: &Stored<VmRecord>| matches!(record.value.state, VmState::Start | VmState::Migrate { .. });
        let off = snapshot.domain.known().is_some_and(|domain| domain.run == RunState::Off);
        if off && snapshot.record.as_ref().is_some_and(wanted) && (self.ctx.options.going_down)().await {
            return HostState::GoingDown;
        }
        self.ctx.host_state()
    }

    /// Notes whether the domain here is a stray, for the node's report.
    fn note_stray(&mut self, claim: Option<&Claim>, seen: &Obs<Seen>, now: Mono) {
        let stray = match seen {
            // Nothing is known of it: it stays what it was.
            Obs::Unknown(_) => return,
            seen => seen.known().filter(|seen| plan::is_stray(claim, self.ctx.me(), seen)),
        };
        self.stray = stray.map(|_| self.stray.unwrap_or(now));
        let reported = stray.filter(|seen| plan::is_reported(claim, seen)).map(|seen| {
            let paused = seen.paused.is_some_and(plan::may_be_ordered);
            Stray { uuid: self.uuid, epoch: seen.mark.epoch, paused }
        });
        self.strays.send_if_modified(|strays| match reported {
            Some(stray) => strays.insert(self.uuid, stray.clone()) != Some(stray),
            None => strays.remove(&self.uuid).is_some(),
        });
    }

    /// Whether the VM may be moved now, if it is to be. This is decided on the whole view, which must show the same
    /// order as the record.
    fn turn(&self, snapshot: &Snapshot) -> Turn {
        let Some(record) = snapshot.record.as_ref().filter(|r| r.value.state.destination().is_some()) else {
            return Turn::Go;
        };
        let view = self.ctx.views.latest();
        let shown = view.vms.get(&self.uuid).is_some_and(|vm| vm.record.version == record.version);
        if shown { moves::turn(&view, &self.uuid) } else { Turn::Wait("the order to move it has just come".to_owned()) }
    }

    /// What becomes of the VM if it cannot be started here, decided on the whole view.
    fn back(&self, snapshot: &Snapshot) -> Back {
        let failed = self.memory.start_failures.is_some();
        match (&snapshot.record, &snapshot.claim) {
            (Some(record), Some(claim)) if failed && claim.value.is_held_by(self.ctx.me()) => {
                moves::back(&self.ctx.views.latest(), record, claim.value.from.as_ref())
            }
            _ => Back::Nowhere,
        }
    }

    /// State that libvirt keeps for the VM on this node (a TPM, firmware variables) and that would stay behind in a
    /// move.
    fn kept(&self, snapshot: &Snapshot) -> Option<KeptState> {
        let record = &snapshot.record.as_ref().filter(|r| r.value.state.destination().is_some())?.value;
        let fresh = snapshot.claim.as_ref().is_some_and(|claim| claim.value.is_fresh());
        place::stays_behind(&Devices::read(&record.xml)).filter(|_| !fresh)
    }

    async fn look(&self) -> Result<Snapshot, StoreError> {
        let store = &*self.ctx.store;
        let (record, claim, status, domain) = tokio::join!(
            records::read(store, &self.uuid),
            records::read(store, &self.uuid),
            records::read_report(store, &self.uuid),
            self.ctx.hypervisor.domain(self.uuid)
        );
        Ok(Snapshot { record: record?, claim: claim?, status: status?, domain, replaced: None })
    }

    /// Takes over what an earlier daemon on this node reported: the crash count, and which guest the host ended.
    fn remember(&mut self, snapshot: &Snapshot, now: Mono) {
        if !self.remembered {
            self.remembered = true;
            if let Some(status) = snapshot.status.as_ref().filter(|s| s.value.node == *self.ctx.me()) {
                self.memory.crashes = status.value.crashes;
                self.memory.ended = status.value.ended;
                self.memory.crashed_at = (status.value.crashes > 0).then_some(now);
                self.failure.clone_from(&status.value.move_failure);
            }
        }
    }

    /// Whether it is for this node to tell of the VM: it holds it, or may take it.
    fn is_ours(&self, snapshot: &Snapshot) -> bool {
        let (Some(record), Some(claim)) = (&snapshot.record, &snapshot.claim) else { return false };
        let assigned = record.value.node.as_ref() == Some(self.ctx.me());
        claim.value.is_held_by(self.ctx.me()) || claim.value.node.is_none() && assigned
    }
}

/// Whether this step lets a guest execute again at the node that it was sent to.
fn is_last_of_move(snapshot: &Snapshot, decision: &Decision) -> bool {
    let sent = snapshot.claim.as_ref().is_some_and(|claim| claim.value.to.is_some());
    sent && matches!(decision.step, Step::HandOver(_))
}

/// What is to be noted of the VM's replaced disks. Only the guest of a grant tells of them: not what an earlier VM with
/// its UUID has left, nor a copy of the guest that somebody's own migration has left here.
fn replaced(snapshot: &Snapshot, seen: &Obs<Seen>) -> Option<Replaced> {
    let before = snapshot.status.as_ref().and_then(|status| status.value.replaced.as_ref());
    let record = snapshot.record.as_ref().map(|record| &record.value);
    let disks = snapshot.granted().map(|domain| plan::Disks { started: &domain.started_with, live: &domain.disks });
    plan::noted(before, record, seen.known().zip(disks))
}

/// Completes when the view shows a newer version of the VM's record than `decided_on`.
async fn record_changed(ctx: &Context, uuid: Uuid, decided_on: Option<Version>) {
    let mut views = ctx.views.subscribe();
    let newer = |view: &Arc<drover_model::ClusterView>| {
        view.vms.get(&uuid).is_some_and(|vm| decided_on.is_none_or(|version| vm.record.version > version))
    };
    if views.wait_for(newer).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Epoch, Generation, NodeName, domain::Mark};
    use std::collections::BTreeMap;

    /// A domain in memory with that mark, under that claim.
    fn snapshot(claim: &Claim, epoch: Epoch) -> Snapshot {
        Snapshot {
            record: None,
            claim: Some(Stored::new(claim.clone(), Version::NEW)),
            status: None,
            domain: Obs::Known(Domain {
                transient: false,
                transit: None,
                uuid: Uuid::nil(),
                name: String::new(),
                run: RunState::Paused,
                off: None,
                paused: None,
                mark: Mark { epoch, generation: Generation(1) },
                vnc: None,
                sending: false,
                started_with: BTreeMap::new(),
                disks: BTreeMap::new(),
            }),
            replaced: None,
        }
    }

    #[test]
    fn what_an_earlier_vm_left_is_not_the_vms_own_domain() {
        let claim = Claim { born: Epoch(7), epoch: Epoch(7), ..Claim::new(Epoch(7)) };
        let me = NodeName::new("a").unwrap();
        let claim = claim.granted_to(&me);
        let of = |epoch: Epoch| snapshot(&claim, epoch);
        assert!(of(claim.epoch).own().is_some());
        assert!(of(Epoch(6)).own().is_none());
    }

    /// A copy that somebody's own migration left has the disks from before a snapshot, and the guest's mark.
    #[test]
    fn a_copy_on_a_node_without_the_claim_tells_nothing_of_the_disks() {
        let me = NodeName::new("a").unwrap();
        let held = Claim::new(Epoch(7)).granted_to(&me);
        assert!(snapshot(&held, held.epoch).granted().is_some());
        assert!(snapshot(&held.released(), held.epoch).granted().is_none());
        assert!(snapshot(&held.granted_to(&me), held.epoch).granted().is_none(), "it has the mark before the grant's");
        let adopting = held.granted_above(held.epoch, &me);
        assert!(snapshot(&adopting, held.epoch).granted().is_some());
    }

    /// What a node that died was sending is no guest that could vanish.
    #[test]
    fn what_an_earlier_grant_left_is_not_the_vms_own_domain() {
        let (me, other) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let sending = Claim::new(Epoch(7)).granted_to(&other).sending_to(&me);
        let of = |claim: &Claim, mark| snapshot(claim, mark).own().is_some();
        let above = sending.granted_above_sent(&me);
        assert!(of(&above, above.epoch) && !of(&above, sending.sent()));
        assert!(of(&sending.handed_to(&me), sending.sent()));
        let adopting = sending.granted_above(Epoch(4), &me);
        assert!(of(&adopting, Epoch(4)) && !of(&adopting, Epoch(3)));
    }
}
