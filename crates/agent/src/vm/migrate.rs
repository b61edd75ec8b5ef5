//! Steps of a VM's move to another node. `plan::vm::moving` says how they fit together.

use super::{Snapshot, Task};
use crate::{
    events::{Entry, EventKind},
    records,
};
use drover_drivers::hypervisor::{HypervisorError, Sending};
use drover_model::{
    Claim, Mono, MoveFailure, NodeName, Progress, RunState, Stored, Version, VmRecord, VmState, VmStatus,
    domain::{Mark, devices::Disk},
};
use drover_plan::moves::{self, Return, Sent, Supervision};
use drover_store::StoreError;
use std::time::Duration;

/// Poll interval for migration progress.
const TICK: Duration = Duration::from_secs(1);
/// Maximum downtime of a migration by post-copy, which is not to end without the switch: QEMU (7.2) ends one when what
/// is left can be sent in that time. After the switch the guest does not wait for what is left.
const NEVER_BY_ITSELF: Duration = Duration::from_millis(1);

/// A migration that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    /// When it began, or when this daemon first saw it.
    begin: Mono,
    /// How it is done.
    sent: Sent,
    /// Whether it was aborted.
    aborted: bool,
}

impl Outgoing {
    fn begun(begin: Mono, sent: Sent) -> Outgoing {
        Outgoing { begin, sent, aborted: false }
    }
}

impl Task {
    /// Marks the claim as being sent, and migrates the guest.
    pub(super) async fn migrate(
        &mut self,
        snapshot: &Snapshot,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
        (to, post_copy): (&NodeName, bool),
    ) -> Result<(), StoreError> {
        let Some(domain) = snapshot.domain.known() else { return Ok(()) };
        let view = self.ctx.views.latest();
        let Some(target) = view.nodes.get(to) else { return Ok(()) };
        let vm = &record.value;
        let how = Sending {
            uri: target.record.value.migration.clone(),
            mark: Mark { epoch: claim.value.sent(), generation: domain.mark.generation },
            max_downtime: if post_copy {
                NEVER_BY_ITSELF
            } else {
                Duration::from_millis(vm.meta.max_downtime_ms.into())
            },
            post_copy,
            // Its files are in shared folders, or it would not be its turn. The hypervisor may take them for local
            // files.
            shared_files: view.vms.get(&self.uuid).is_some_and(|vm| vm.devices.disks.iter().all(Disk::is_uncached)),
        };
        // Set before the claim is written: from then on the guest may be migrating.
        self.memory.begin_sending(domain.mark.epoch);
        let ops = vec![
            records::check_op::<VmRecord>(&self.uuid, record.version),
            records::set_op(&self.uuid, claim, &claim.value.sending_to(to))?,
        ];
        self.ctx.store.multi(ops).await?;
        self.report_progress(Some(Progress::default())).await?;
        let sent = if post_copy { Sent::ByPostCopy } else { Sent::Whole };
        self.outgoing = Some(Outgoing::begun(self.ctx.clock.now(), sent));
        tracing::info!(vm = %vm.name, %to, epoch = %how.mark.epoch, post_copy, "sending a VM");
        let outcome = self.send(how, record.version, to).await;
        match outcome {
            Ok(()) => {
                tracing::info!(vm = %vm.name, %to, "a VM was sent");
                // The guest executes nowhere until it is handed over, and its progress is not reported any more then.
                return Ok(());
            }
            Err(HypervisorError::Refused { why, .. }) => {
                // The reason for the abort was recorded already.
                if self.outgoing.as_ref().is_none_or(|outgoing| !outgoing.aborted) {
                    tracing::warn!(vm = %vm.name, %to, why, "a VM could not be sent");
                    self.not_sent(record.version, to, why);
                }
            }
            Err(error) => {
                tracing::warn!(vm = %vm.name, %to, %error, "sending a VM: the outcome is unknown, checking");
                // The cause may persist: do not retry at once.
                self.ctx.clock.until(Some(self.ctx.clock.now().after(TICK))).await;
            }
        }
        self.report_progress(None).await
    }

    /// Migrates the guest, and supervises the migration.
    async fn send(&mut self, how: Sending, version: Version, to: &NodeName) -> Result<(), HypervisorError> {
        let hypervisor = self.ctx.hypervisor.clone();
        let call = hypervisor.migrate(self.uuid, how);
        tokio::pin!(call);
        loop {
            // Nothing is won by waiting for a switch to post-copy.
            let waits = self.outgoing.is_some_and(|outgoing| outgoing.sent == Sent::ByPostCopy);
            let tick = self.ctx.clock.now().after(if waits { TICK / 10 } else { TICK });
            tokio::select! {
                biased;
                outcome = &mut call => return outcome,
                () = self.ctx.clock.until(Some(tick)) => {}
            }
            self.supervise_outgoing(version, to).await;
        }
    }

    /// Reports the progress of a migration that this daemon or an earlier one began, and aborts it if it does not
    /// finish.
    pub(super) async fn supervise_outgoing(&mut self, version: Version, to: &NodeName) {
        let (now, config) = (self.ctx.clock.now(), self.ctx.views.latest().config.clone());
        let outgoing = *self.outgoing.get_or_insert(Outgoing::begun(now, Sent::Whole));
        let Ok(Some(progress)) = self.ctx.hypervisor.migration(self.uuid).await else { return };
        if let Err(error) = self.report_progress(Some(progress)).await {
            tracing::debug!(vm = %self.uuid, %error, "cannot report the progress of a migration");
        }
        let elapsed = now.since(outgoing.begin);
        match moves::supervise(&config, elapsed, outgoing.sent) {
            Supervision::GoOn => {}
            Supervision::Switch => {
                // It is refused until the migration has begun to send.
                match self.ctx.hypervisor.post_copy(self.uuid).await {
                    Ok(()) => {
                        tracing::info!(vm = %self.uuid, "switched a migration to post-copy");
                        self.outgoing = Some(Outgoing { sent: Sent::Switched, ..outgoing });
                    }
                    Err(error) => tracing::debug!(vm = %self.uuid, %error, "post-copy cannot begin yet"),
                }
            }
            Supervision::SendAgain => {
                if !outgoing.aborted {
                    tracing::info!(vm = %self.uuid, "the migration does not converge: sending again, by post-copy");
                    self.memory.stalled = Some(version);
                    self.outgoing = Some(Outgoing { aborted: true, ..outgoing });
                }
                let result = self.ctx.hypervisor.abort_migration(self.uuid).await;
                self.log_failure(result);
            }
            Supervision::GiveUp => {
                if !outgoing.aborted {
                    let why = format!("it did not finish within {} s", elapsed.as_secs());
                    tracing::warn!(vm = %self.uuid, why, "aborting a migration");
                    self.not_sent(version, to, why);
                    self.outgoing = Some(Outgoing { aborted: true, ..outgoing });
                }
                let result = self.ctx.hypervisor.abort_migration(self.uuid).await;
                self.log_failure(result);
            }
        }
    }

    /// Records that migrating the guest failed.
    fn not_sent(&mut self, version: Version, to: &NodeName, why: String) {
        let count = self.failure.as_ref().map_or(0, |f| f.count).saturating_add(1);
        self.move_failed(version, to, why, count);
    }

    /// Records a failed move under this version of the VM's record, for the next decision and for the report. `count`:
    /// failed migrations in a row.
    fn move_failed(&mut self, version: Version, to: &NodeName, reason: String, count: u32) {
        let told = self.failure.as_ref().map_or(0, |f| f.told).saturating_add(1);
        self.failure = Some(MoveFailure { to: to.clone(), reason: reason.clone(), count, told });
        self.memory.move_failed = Some((version, reason));
    }

    /// Gives the move up: the VM stays on this node.
    pub(super) async fn give_up_move(&mut self, record: &Stored<VmRecord>, why: &str) -> Result<(), StoreError> {
        if let Some(to) = record.value.state.destination() {
            // No migration was attempted.
            let count = self.failure.as_ref().map_or(0, |f| f.count);
            self.move_failed(record.version, to, why.to_owned(), count);
        }
        self.complete(record, &VmState::Start, why).await
    }

    /// Orders the VM, which cannot be started here, back to where it came from, or to another node.
    pub(super) async fn go_back(
        &mut self,
        record: &Stored<VmRecord>,
        back: &Return,
        why: &str,
    ) -> Result<(), StoreError> {
        let ordered = back.ordered(&record.value, self.ctx.me(), why, self.ctx.wall());
        records::set(&*self.ctx.store, &self.uuid, record, &ordered).await?;
        self.memory.sent_back();
        tracing::warn!(vm = %record.value.name, to = %back.to, why, "a VM cannot be started here, and goes back");
        Ok(())
    }

    /// Writes the migration's progress into the status. Only this task writes that.
    async fn report_progress(&self, progress: Option<Progress>) -> Result<(), StoreError> {
        let Some(old) = records::read_report::<VmStatus>(&*self.ctx.store, &self.uuid).await? else { return Ok(()) };
        if old.value.progress == progress {
            return Ok(());
        }
        let status = VmStatus { progress, ..old.value.clone() };
        records::set(&*self.ctx.store, &self.uuid, &old, &status).await.map(|_| ())
    }

    /// Gives the VM to the node that it was migrated to, or that is to start it, with this grant of the claim.
    pub(super) async fn hand_over(
        &mut self,
        record: &Stored<VmRecord>,
        (claim, granted): (&Stored<Claim>, &Claim),
        to: &NodeName,
    ) -> Result<(), StoreError> {
        self.settle_at(record, (claim, granted), to).await?;
        self.failure = None;
        self.memory.handed_over();
        tracing::info!(vm = %record.value.name, %to, "handed a VM over");
        let what = format!("VM {} was handed over to {to}.", record.value.name);
        self.ctx.tell(Entry::new(&record.value, EventKind::VmMoved, what).with("to", to));
        Ok(())
    }

    /// Takes the claim and the VM over from the node that sent it.
    pub(super) async fn take_over(
        &mut self,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
    ) -> Result<(), StoreError> {
        let me = self.ctx.me().clone();
        self.settle_at(record, (claim, &claim.value.handed_to(&me).settled()), &me).await?;
        tracing::info!(vm = %record.value.name, from = ?claim.value.node, "took a VM over");
        Ok(())
    }

    /// The transaction that ends a move.
    async fn settle_at(
        &self,
        record: &Stored<VmRecord>,
        (claim, granted): (&Stored<Claim>, &Claim),
        to: &NodeName,
    ) -> Result<(), StoreError> {
        let granted = self.ctx.identified(granted.clone(), to);
        let ops = vec![
            records::set_op(&self.uuid, record, &record.value.settled_at(to))?,
            records::set_op(&self.uuid, claim, &granted)?,
        ];
        self.ctx.store.multi(ops).await
    }

    /// Lets a guest execute that has arrived, or whose migration has failed.
    pub(super) async fn let_run(&mut self, record: &Stored<VmRecord>, mark: Mark) {
        let result = self.ctx.hypervisor.resume(self.uuid, mark).await;
        let failed = result.as_ref().err().map(HypervisorError::words);
        self.log_failure(result);
        match failed {
            None => {
                let (name, me) = (&record.value.name, self.ctx.me());
                tracing::info!(vm = %name, "a VM executes again after its migration");
                let what = format!("VM {name} executes on {me} again after its migration.");
                self.ctx.tell(Entry::new(&record.value, EventKind::GuestResumed, what));
            }
            Some(why) => self.memory.run_failed(mark.epoch, why, self.ctx.clock.now()),
        }
    }

    /// Removes from the claim what it says of a guest that has come, or has been marked anew.
    pub(super) async fn settle_claim(&self, claim: &Stored<Claim>) -> Result<(), StoreError> {
        records::set(&*self.ctx.store, &self.uuid, claim, &claim.value.settled()).await.map(|_| ())
    }

    /// Ends a send: the guest stayed here.
    pub(super) async fn call_back(&self, snapshot: &Snapshot, claim: &Stored<Claim>) -> Result<(), StoreError> {
        let guest = snapshot.own().filter(|domain| domain.run != RunState::Off).map(|domain| domain.mark.epoch);
        records::set(&*self.ctx.store, &self.uuid, claim, &claim.value.called_back(guest)).await.map(|_| ())
    }
}
