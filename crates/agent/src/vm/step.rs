//! Does one step for a VM. Every step may be dropped at any await and done again.

use super::{Snapshot, Task};
use crate::{belongings, records};
use drover_drivers::hypervisor::HypervisorError;
use drover_model::{
    Claim, Stored, VmRecord, VmState,
    domain::{Effective, Mark},
};
use drover_plan::vm::{Decision, Step};
use drover_store::StoreError;

impl Task {
    /// Does the decided step. What the hypervisor refuses is remembered for the next decision or logged; only the
    /// store's errors come out.
    pub(super) async fn execute(&mut self, decision: &Decision, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (Some(record), Some(claim)) = (&snapshot.record, &snapshot.claim) else { return Ok(()) };
        match &decision.step {
            Step::Wait | Step::Leave => Ok(()),
            Step::Start => self.start(decision, snapshot, record, claim).await,
            Step::PressButton => {
                if let Some(domain) = snapshot.domain.known() {
                    // Remembered before it is pressed: if the answer gets lost, the guest may have heard it all the
                    // same.
                    self.memory.pressed = Some((domain.mark.epoch, self.ctx.clock.now()));
                }
                let result = self.ctx.hypervisor.shutdown(self.uuid).await;
                self.log_failure(result);
                Ok(())
            }
            Step::Destroy => {
                tracing::info!(vm = %record.value.name, why = decision.doing, "cutting a VM's power");
                let result = self.ctx.hypervisor.destroy(self.uuid).await;
                self.back_off(result).await;
                Ok(())
            }
            Step::Undefine => {
                let result = self.ctx.hypervisor.undefine(self.uuid).await;
                self.back_off(result).await;
                Ok(())
            }
            Step::Complete(next) => self.complete(record, next, &decision.doing).await,
            Step::Release => {
                let ops = vec![records::set_op(&self.uuid, claim, &claim.value.released())?];
                self.ctx.store.multi(ops).await
            }
            Step::Migrate(to) => self.migrate(snapshot, record, claim, to).await,
            Step::AbortMigration => {
                tracing::info!(vm = %record.value.name, why = decision.doing, "stopping a migration");
                let result = self.ctx.hypervisor.abort_migration(self.uuid).await;
                self.log_failure(result);
                // Until it is seen to have stopped, or the record changes.
                let again = self.ctx.clock.now().after(drover_plan::vm::LOOK_AGAIN / 4);
                self.ctx.clock.until(Some(again)).await;
                Ok(())
            }
            Step::CallBack => self.call_back(claim).await,
            Step::GiveUpMove(why) => self.give_up_move(record, why).await,
            Step::HandOver(to) => self.hand_over(record, claim, to).await,
            Step::TakeOver => self.take_over(record, claim).await,
            Step::RemoveDisks => {
                self.remove_disks(record).await;
                Ok(())
            }
            Step::DeleteRecords => self.delete_records(record, claim).await,
        }
    }

    /// Takes the claim and creates the domain under it.
    async fn start(
        &mut self,
        decision: &Decision,
        snapshot: &Snapshot,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
    ) -> Result<(), StoreError> {
        let Some(domain_type) = *self.ctx.options.domain_type.borrow() else { return Ok(()) };
        let vm = &record.value;
        let granted = claim.value.granted_to(self.ctx.me());
        let mark = Mark { epoch: granted.epoch, generation: vm.generation };
        let console = self.ctx.console_file(&self.uuid);
        let effective = Effective { domain_type, mark, console_log: console.to_str() };
        let xml = match effective.render(&vm.xml) {
            Ok(xml) => xml,
            Err(error) => {
                self.memory.refused = Some((record.version, error.to_string()));
                return Ok(());
            }
        };
        let mut ops = vec![
            records::check_op::<VmRecord>(&self.uuid, record.version),
            records::set_op(&self.uuid, claim, &granted)?,
        ];
        if let (Some(mut status), Some(old)) = (self.status(snapshot, &decision.doing), &snapshot.status) {
            status.epoch = granted.epoch;
            ops.push(records::set_op(&self.uuid, old, &status)?);
        }
        self.ctx.store.multi(ops).await?;
        tracing::info!(vm = %vm.name, epoch = %granted.epoch, domain_type = domain_type.word(), "starting a VM");
        match self.ctx.hypervisor.create(self.uuid, xml).await {
            Ok(()) => {
                tracing::info!(vm = %vm.name, epoch = %granted.epoch, "started a VM");
                self.failure = None;
                Ok(())
            }
            Err(HypervisorError::Refused { why, .. }) => {
                tracing::warn!(vm = %vm.name, why, "the hypervisor refused to start a VM");
                self.memory.refused = Some((record.version, why));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(vm = %vm.name, %error, "starting a VM: not known whether it worked, looking it up");
                Ok(())
            }
        }
    }

    pub(super) async fn complete(
        &self,
        record: &Stored<VmRecord>,
        next: &VmState,
        why: &str,
    ) -> Result<(), StoreError> {
        let vm = &record.value;
        let done = VmRecord { state: next.clone(), ..vm.clone() };
        records::set(&*self.ctx.store, &self.uuid, record, &done).await?;
        tracing::info!(vm = %vm.name, from = %vm.state, to = %next, why, "a VM's state is complete");
        Ok(())
    }

    /// Deletes the disk files that are Drover's own. What cannot be deleted is told, and does not keep the VM from
    /// being deleted.
    async fn remove_disks(&mut self, record: &Stored<VmRecord>) {
        let files = drover_plan::disks::go_with(&self.ctx.views.latest(), &record.value);
        for (file, outcome) in self.ctx.disks.remove(files).await {
            match outcome {
                Ok(()) => tracing::info!(vm = %record.value.name, file = %file.display(), "deleted a disk"),
                Err(error) => {
                    tracing::warn!(vm = %record.value.name, file = %file.display(), %error, "a disk stays");
                }
            }
        }
        self.memory.disks_removed = true;
    }

    /// Deletes the VM's records, all or none.
    async fn delete_records(&self, record: &Stored<VmRecord>, claim: &Stored<Claim>) -> Result<(), StoreError> {
        let ops = belongings::of_vm(&*self.ctx.store, record, claim).await?;
        self.ctx.store.multi(ops).await?;
        tracing::info!(vm = %record.value.name, "deleted a VM");
        Ok(())
    }

    pub(super) fn log_failure(&self, result: drover_drivers::hypervisor::Result<()>) -> bool {
        match result {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(vm = %self.uuid, %error, "the hypervisor did not do as asked");
                true
            }
        }
    }

    /// After a failure of a step that plan would at once ask for again: waits a moment (or until the record changes,
    /// which drops this).
    async fn back_off(&self, result: drover_drivers::hypervisor::Result<()>) {
        if self.log_failure(result) {
            let again = self.ctx.clock.now().after(drover_plan::vm::LOOK_AGAIN);
            self.ctx.clock.until(Some(again)).await;
        }
    }
}
