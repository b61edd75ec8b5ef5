//! The steps that bring a VM to another node. What they mean for each other is told in `plan::vm::moving`.

use super::{Snapshot, Task};
use crate::records;
use drover_drivers::hypervisor::{HypervisorError, Sending};
use drover_model::{
    Claim, Mono, MoveFailure, MoveKind, NodeName, Progress, Stall, Stored, Version, VmRecord, VmState, VmStatus,
    domain::{Mark, devices::Disk},
};
use drover_plan::moves::{self, Supervision};
use drover_store::StoreError;
use std::time::Duration;

/// How often it is looked how far a migration is.
const TICK: Duration = Duration::from_secs(1);

/// A guest that is on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journey {
    /// Since when, as far as this daemon knows.
    begin: Mono,
    /// Whether the guest was let go on at the target.
    post_copy: bool,
    /// Whether it is to come back.
    given_up: bool,
}

impl Journey {
    fn begun(begin: Mono) -> Journey {
        Journey { begin, post_copy: false, given_up: false }
    }
}

impl Task {
    /// Says in the claim that the guest is being sent, and sends it.
    pub(super) async fn migrate(
        &mut self,
        snapshot: &Snapshot,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
        to: &NodeName,
    ) -> Result<(), StoreError> {
        let Some(domain) = snapshot.domain.known() else { return Ok(()) };
        let view = self.ctx.views.latest();
        let Some(target) = view.nodes.get(to) else { return Ok(()) };
        let vm = &record.value;
        let how = Sending {
            uri: target.record.value.migration.clone(),
            mark: Mark { epoch: claim.value.epoch.next(), generation: domain.mark.generation },
            max_downtime: Duration::from_millis(vm.meta.max_downtime_ms.into()),
            post_copy: view.config.stall == Stall::PostCopy,
            // Its files are in shared folders, or it would not be its turn; the hypervisor may take these for local
            // ones.
            shared_files: view.vms.get(&self.uuid).is_some_and(|vm| vm.devices.disks.iter().all(Disk::is_uncached)),
        };
        // Before anybody may know of it: from here on the guest may be sent.
        self.memory.begin_sending(domain.mark.epoch);
        let ops = vec![
            records::check_op::<VmRecord>(&self.uuid, record.version),
            records::set_op(&self.uuid, claim, &claim.value.sending_to(Some(to)))?,
        ];
        self.ctx.store.multi(ops).await?;
        self.report_progress(Some(Progress::default())).await?;
        self.journey = Some(Journey::begun(self.ctx.clock.now()));
        tracing::info!(vm = %vm.name, %to, epoch = %how.mark.epoch, "sending a VM");
        let outcome = self.send(how, record.version, to).await;
        match outcome {
            Ok(()) => tracing::info!(vm = %vm.name, %to, "a VM was sent"),
            Err(HypervisorError::Refused { why, .. }) => {
                // Why it was given up is known already.
                if self.journey.as_ref().is_none_or(|journey| !journey.given_up) {
                    tracing::warn!(vm = %vm.name, %to, why, "a VM could not be sent");
                    self.not_sent(record.version, to, why);
                }
            }
            Err(error) => {
                tracing::warn!(vm = %vm.name, %to, %error, "sending a VM: not known whether it worked, looking it up");
                // Whatever it was may last; it is not tried again at once.
                self.ctx.clock.until(Some(self.ctx.clock.now().after(TICK))).await;
            }
        }
        self.report_progress(None).await
    }

    /// Sends the guest, and looks after it on its way.
    async fn send(&mut self, how: Sending, version: Version, to: &NodeName) -> Result<(), HypervisorError> {
        let hypervisor = self.ctx.hypervisor.clone();
        let call = hypervisor.migrate(self.uuid, how);
        tokio::pin!(call);
        loop {
            let tick = self.ctx.clock.now().after(TICK);
            tokio::select! {
                biased;
                outcome = &mut call => return outcome,
                () = self.ctx.clock.until(Some(tick)) => {}
            }
            self.look_after(version, to).await;
        }
    }

    /// Tells how far a guest is that is being sent, by this daemon or by an earlier one, and gives it up if it does not
    /// come to its end.
    pub(super) async fn look_after(&mut self, version: Version, to: &NodeName) {
        let (now, config) = (self.ctx.clock.now(), self.ctx.views.latest().config.clone());
        let Journey { begin, post_copy, given_up } = *self.journey.get_or_insert(Journey::begun(now));
        let Ok(Some(progress)) = self.ctx.hypervisor.migration(self.uuid).await else { return };
        if let Err(error) = self.report_progress(Some(progress)).await {
            tracing::debug!(vm = %self.uuid, %error, "the progress of a migration is not told");
        }
        let elapsed = now.since(begin);
        match moves::supervise(&config, elapsed, post_copy) {
            Supervision::GoOn => {}
            Supervision::PostCopy => {
                tracing::info!(vm = %self.uuid, "the migration does not converge: the guest goes on at the target (post-copy)");
                // What libvirt refuses (the migration was begun without it, say) is tried again, until somebody stops
                // it.
                let result = self.ctx.hypervisor.post_copy(self.uuid).await;
                let post_copy = !self.log_failure(result);
                self.journey = Some(Journey { begin, post_copy, given_up });
            }
            Supervision::GiveUp => {
                if !given_up {
                    let why = format!("it did not come to its end in {} s", elapsed.as_secs());
                    tracing::warn!(vm = %self.uuid, why, "giving a migration up");
                    self.not_sent(version, to, why);
                    self.journey = Some(Journey { begin, post_copy, given_up: true });
                }
                let result = self.ctx.hypervisor.abort_migration(self.uuid).await;
                self.log_failure(result);
            }
        }
    }

    /// Sending the guest failed.
    fn not_sent(&mut self, version: Version, to: &NodeName, why: String) {
        let count = self.failure.as_ref().map_or(0, |f| f.count).saturating_add(1);
        self.move_failed(version, to, why, count);
    }

    /// A move failed as of this version of the record; remembered for the next decision, and for people. `count`: how
    /// often in a row sending failed.
    fn move_failed(&mut self, version: Version, to: &NodeName, reason: String, count: u32) {
        let told = self.failure.as_ref().map_or(0, |f| f.told).saturating_add(1);
        self.failure = Some(MoveFailure { to: to.clone(), reason: reason.clone(), count, told });
        self.memory.move_failed = Some((version, reason));
    }

    /// The VM cannot be moved: it runs on here.
    pub(super) async fn give_up_move(&mut self, record: &Stored<VmRecord>, why: &str) -> Result<(), StoreError> {
        if let Some(to) = record.value.state.destination() {
            // It was not tried.
            let count = self.failure.as_ref().map_or(0, |f| f.count);
            self.move_failed(record.version, to, why.to_owned(), count);
        }
        self.complete(record, &VmState::Start, why).await
    }

    /// Tells how far a migration is. Only this task writes the status.
    async fn report_progress(&self, progress: Option<Progress>) -> Result<(), StoreError> {
        let Some(old) = records::read_report::<VmStatus>(&*self.ctx.store, &self.uuid).await? else { return Ok(()) };
        if old.value.progress == progress {
            return Ok(());
        }
        let status = VmStatus { progress, ..old.value.clone() };
        records::set(&*self.ctx.store, &self.uuid, &old, &status).await.map(|_| ())
    }

    /// Gives the claim, and the VM, to the node that it went to, or that is to start it.
    pub(super) async fn hand_over(
        &mut self,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
        to: &NodeName,
    ) -> Result<(), StoreError> {
        self.settle_at(record, claim, to).await?;
        self.failure = None;
        tracing::info!(vm = %record.value.name, %to, "handed a VM over");
        Ok(())
    }

    /// Takes the claim, and the VM, from the node that sent it.
    pub(super) async fn take_over(
        &mut self,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
    ) -> Result<(), StoreError> {
        let me = self.ctx.me().clone();
        self.settle_at(record, claim, &me).await?;
        tracing::info!(vm = %record.value.name, from = ?claim.value.node, "took a VM over");
        Ok(())
    }

    /// The one change that ends a move, done by whichever end sees first that it is one.
    async fn settle_at(
        &self,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
        to: &NodeName,
    ) -> Result<(), StoreError> {
        let old = &record.value;
        let new = match &old.state {
            VmState::Migrate { to: wanted, kind, .. } if wanted == to => {
                VmRecord { state: VmState::Start, ..old.arrived(to, *kind) }
            }
            // Somebody wants something else by now; it is done there.
            _ => old.arrived(to, MoveKind::Migrate),
        };
        let ops = vec![
            records::set_op(&self.uuid, record, &new)?,
            records::set_op(&self.uuid, claim, &claim.value.granted_to(to))?,
        ];
        self.ctx.store.multi(ops).await
    }

    /// The guest is here after all: the claim says so.
    pub(super) async fn call_back(&self, claim: &Stored<Claim>) -> Result<(), StoreError> {
        records::set(&*self.ctx.store, &self.uuid, claim, &claim.value.sending_to(None)).await.map(|_| ())
    }
}
