//! One task per VM: observe, ask `plan::vm`, do one step, again.
//!
//! A pass reads the VM's records from the store and the domain from the hypervisor, afresh each time; whatever rang the
//! bell only says that it is worth looking. While a step is being done the task watches for a change of the record that
//! caused it: then the step's future is dropped and plan is asked again. What a dropped step leaves behind in the
//! hypervisor is observed as unknown until it has come to rest, and plan does nothing on an unknown domain.

mod migrate;
mod step;

use crate::{context::Context, faults, records};
use drover_drivers::hypervisor::Domain;
use drover_model::{Claim, MoveFailure, Obs, Stored, Version, VmRecord, VmStatus, vm::VM_SCHEMA};
use drover_plan::{
    moves::{self, Turn},
    vm::{self as plan, Decision, Memory, Seen, Situation, Step},
};
use drover_store::StoreError;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// How soon a pass that the store did not answer is tried again, if nothing rings before. Doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(200);
/// The longest time between tries.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What one pass looked at.
struct Snapshot {
    record: Option<Stored<VmRecord>>,
    claim: Option<Stored<Claim>>,
    status: Option<Stored<VmStatus>>,
    domain: Obs<Domain>,
}

/// A VM's task.
struct Task {
    ctx: Arc<Context>,
    uuid: Uuid,
    memory: Memory,
    /// Whether crashes were taken over from the last daemon's report.
    remembered: bool,
    /// The VM's last move, if that failed.
    failure: Option<MoveFailure>,
    /// The guest's way to another node, while it is on it.
    journey: Option<migrate::Journey>,
}

/// Looks after one VM until it does not concern this node any more. The bell's value is counted up by whoever has a
/// reason to look again; what is returned is the value that was answered last.
pub(crate) async fn run(ctx: Arc<Context>, uuid: Uuid, mut bell: watch::Receiver<u64>) -> u64 {
    let mut task = Task { ctx, uuid, memory: Memory::default(), remembered: false, failure: None, journey: None };
    let mut retry = RETRY;
    loop {
        let rung = *bell.borrow_and_update();
        let look_again = match task.pass().await {
            Ok(decision) => {
                retry = RETRY;
                match decision.step {
                    Step::Leave => return rung,
                    Step::Wait => decision.look_again,
                    _ => continue,
                }
            }
            Err(error) if error.is_conflict() => continue,
            Err(error) => {
                tracing::warn!(vm = %uuid, %error, "cannot look after a VM now");
                let again = task.ctx.clock.now().after(retry);
                retry = (retry * 2).min(RETRY_MAX);
                Some(again)
            }
        };
        tokio::select! {
            biased;
            changed = bell.changed() => if changed.is_err() { return rung },
            () = task.ctx.clock.until(look_again) => {}
        }
    }
}

impl Task {
    /// Looks, decides, reports, and does one step (or drops it, if the record changes meanwhile).
    async fn pass(&mut self) -> Result<Decision, StoreError> {
        let (mut snapshot, mut decision) = self.decide().await?;
        let claimed = snapshot.claim.as_ref().is_some_and(|c| c.value.is_held_by(self.ctx.me()));
        if matches!(decision.step, Step::Destroy | Step::Undefine) && !claimed {
            // A guest without a claim may have come by migration, of which this side of the store has not heard yet.
            // Its claim said so before it came: what is read after a synchronisation shows it.
            self.ctx.store.sync().await?;
            (snapshot, decision) = self.decide().await?;
        }
        let sending = snapshot.domain.known().is_some_and(|d| d.sending);
        if !matches!(decision.step, Step::Wait | Step::Leave) {
            tracing::debug!(vm = %self.uuid, step = ?decision.step, doing = decision.doing, "step");
        }
        // The report comes first, so that whoever waits for the step sees what is being waited for; but it delays no
        // start.
        if decision.step != Step::Start {
            self.report(&snapshot, &decision).await?;
        }
        // One that an earlier daemon sent, or whose order was changed on its way.
        match snapshot.record.as_ref().and_then(|r| Some((r.version, r.value.state.destination()?.clone()))) {
            Some((version, to)) if decision.step == Step::Wait && sending => self.look_after(version, &to).await,
            _ if !sending => self.journey = None,
            _ => {}
        }
        if decision.step == Step::Wait
            && let Some(record) = &snapshot.record
        {
            faults::of_vm(&self.ctx, &record.value, snapshot.domain.known().map(|d| d.run)).await?;
        }
        let version = snapshot.record.as_ref().map(|r| r.version);
        let (ctx, uuid) = (self.ctx.clone(), self.uuid);
        tokio::select! {
            biased;
            done = self.execute(&decision, &snapshot) => done?,
            () = record_changed(&ctx, uuid, version) => {
                tracing::info!(vm = %uuid, step = ?decision.step, "the VM's record changed: the step is dropped");
            }
        }
        Ok(decision)
    }

    /// Looks at everything, and asks plan.
    async fn decide(&mut self) -> Result<(Snapshot, Decision), StoreError> {
        let snapshot = self.look().await?;
        let seen = match &snapshot.domain {
            Obs::Known(d) => Obs::Known(Seen { run: d.run, off: d.off, mark: d.mark, sending: d.sending }),
            Obs::Absent => Obs::Absent,
            Obs::Unknown(why) => Obs::Unknown(why.clone()),
        };
        let now = self.ctx.clock.now();
        self.remember(&snapshot, now);
        self.memory.absorb(snapshot.record.as_ref().map(|r| &r.value), &seen, now);
        let turn = self.turn(&snapshot);
        let decision = plan::next(&Situation {
            me: self.ctx.me(),
            record: snapshot.record.as_ref(),
            claim: snapshot.claim.as_ref(),
            domain: &seen,
            memory: &self.memory,
            host: &self.ctx.host_state(),
            turn: &turn,
            now,
        });
        Ok((snapshot, decision))
    }

    /// Whether the VM may go, if it is to be moved: a question to the whole view, which must show the same order as the
    /// record.
    fn turn(&self, snapshot: &Snapshot) -> Turn {
        let Some(record) = snapshot.record.as_ref().filter(|r| r.value.state.destination().is_some()) else {
            return Turn::Go;
        };
        let view = self.ctx.views.latest();
        let shown = view.vms.get(&self.uuid).is_some_and(|vm| vm.record.version == record.version);
        if shown { moves::turn(&view, &self.uuid) } else { Turn::Wait("the order to move it has just come".to_owned()) }
    }

    async fn look(&self) -> Result<Snapshot, StoreError> {
        let store = &*self.ctx.store;
        let (record, claim, status, domain) = tokio::join!(
            records::read(store, &self.uuid),
            records::read(store, &self.uuid),
            records::read_report(store, &self.uuid),
            self.ctx.hypervisor.domain(self.uuid)
        );
        Ok(Snapshot { record: record?, claim: claim?, status: status?, domain })
    }

    /// Takes over the crashes that an earlier daemon on this node reported.
    fn remember(&mut self, snapshot: &Snapshot, now: drover_model::Mono) {
        if !self.remembered {
            self.remembered = true;
            if let Some(status) = snapshot.status.as_ref().filter(|s| s.value.node == *self.ctx.me()) {
                self.memory.crashes = status.value.crashes;
                self.memory.crashed_at = (status.value.crashes > 0).then_some(now);
                self.failure.clone_from(&status.value.move_failure);
            }
        }
    }

    /// What there is to report, if this node has anything to say and it is news.
    fn status(&self, snapshot: &Snapshot, doing: &str) -> Option<VmStatus> {
        let record = &snapshot.record.as_ref()?.value;
        let claim = &snapshot.claim.as_ref()?.value;
        let assigned = record.node.as_ref() == Some(self.ctx.me());
        if !(claim.is_held_by(self.ctx.me()) || claim.node.is_none() && assigned) {
            return None;
        }
        let domain = snapshot.domain.known();
        let old = snapshot.status.as_ref().map(|s| &s.value);
        let unknown = matches!(snapshot.domain, Obs::Unknown(_));
        let run = if unknown { old.and_then(|o| o.run) } else { domain.map(|d| d.run) };
        let since = old.filter(|o| o.run == run && o.node == *self.ctx.me()).map(|o| o.since);
        let status = VmStatus {
            // A later layout stays one: else the report would be news each time.
            schema: old.map_or(VM_SCHEMA, |old| old.schema.max(VM_SCHEMA)),
            node: self.ctx.me().clone(),
            epoch: claim.epoch,
            run,
            unknown,
            doing: doing.to_owned(),
            generation: if unknown { old.and_then(|o| o.generation) } else { domain.map(|d| d.mark.generation) },
            crashes: self.memory.crashes,
            since: since.unwrap_or_else(|| self.ctx.wall()),
            console: old.is_some_and(|o| o.console) || domain.is_some(),
            vnc: domain.and_then(|d| d.vnc.clone()),
            progress: domain.filter(|d| d.sending).and_then(|_| old?.progress),
            move_failure: self.failure.clone(),
        };
        (old != Some(&status)).then_some(status)
    }

    async fn report(&self, snapshot: &Snapshot, decision: &Decision) -> Result<(), StoreError> {
        // The records of a VM that is being deleted vanish together; a report must not come in between.
        if decision.step == Step::DeleteRecords {
            return Ok(());
        }
        match (self.status(snapshot, &decision.doing), &snapshot.status) {
            (Some(status), Some(old)) => records::set(&*self.ctx.store, &self.uuid, old, &status).await.map(|_| ()),
            _ => Ok(()),
        }
    }
}

/// Completes when the view shows a later version of the VM's record than the one that was decided on.
async fn record_changed(ctx: &Context, uuid: Uuid, decided_on: Option<Version>) {
    let mut views = ctx.views.subscribe();
    let newer = |view: &Arc<drover_model::ClusterView>| {
        view.vms.get(&uuid).is_some_and(|vm| decided_on.is_none_or(|version| vm.record.version > version))
    };
    if views.wait_for(newer).await.is_err() {
        std::future::pending::<()>().await;
    }
}
