//! Steps of a VM. Each may be dropped at any await, and is idempotent.

use super::{Snapshot, Task};
use crate::{
    belongings,
    commands::CommandError,
    events::{Entry, EventKind},
    records,
};
use drover_drivers::hypervisor::HypervisorError;
use drover_model::{
    Claim, Generation, MoveKind, Stored, VmRecord, VmState,
    domain::{DomainType, KeptState, Mark, devices::Devices},
};
use drover_plan::vm::{Decision, Failed, Step};
use drover_store::StoreError;
use std::sync::Arc;

impl Task {
    /// Does the decided step. Errors of the hypervisor are remembered for the next decision or logged; only errors of
    /// the store are returned.
    pub(super) async fn execute(&mut self, decision: &Decision, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (Some(record), Some(claim)) = (&snapshot.record, &snapshot.claim) else { return Ok(()) };
        match &decision.step {
            Step::Wait | Step::Leave => Ok(()),
            Step::Start => self.start(decision, snapshot, record, claim).await,
            Step::PressButton => {
                if let Some(domain) = snapshot.domain.known() {
                    // Recorded before the call: if the answer is lost, the guest may still have received the request.
                    self.memory.pressed = Some((domain.mark.epoch, self.ctx.clock.now()));
                }
                let result = self.ctx.hypervisor.shutdown(self.uuid).await;
                self.log_failure(result);
                Ok(())
            }
            Step::Pause | Step::Resume | Step::Wake => {
                let Some(domain) = snapshot.domain.known() else { return Ok(()) };
                let hypervisor = &self.ctx.hypervisor;
                let result = match decision.step {
                    Step::Pause => hypervisor.pause(self.uuid, domain.mark).await,
                    Step::Wake => hypervisor.wake(self.uuid, domain.mark).await,
                    _ => hypervisor.resume(self.uuid, domain.mark).await,
                };
                match result {
                    Ok(()) => {
                        tracing::info!(vm = %record.value.name, step = ?decision.step, "did as ordered");
                        self.memory.acted(record.version, self.ctx.clock.now(), None);
                    }
                    Err(HypervisorError::Refused { why, .. }) => {
                        tracing::warn!(vm = %record.value.name, step = ?decision.step, why, "the hypervisor refused");
                        self.memory.acted(record.version, self.ctx.clock.now(), Some(why));
                    }
                    // It may have been done: look, and ask again if it was not.
                    unknown => self.back_off(unknown).await,
                }
                Ok(())
            }
            Step::ResumeAfterError => {
                let Some(domain) = snapshot.domain.known() else { return Ok(()) };
                let refused = self.ctx.hypervisor.resume(self.uuid, domain.mark).await.err().map(|e| e.to_string());
                tracing::info!(vm = %record.value.name, refused, "resumed a guest after an I/O error, as configured");
                self.memory.resumed_after_error(self.ctx.clock.now(), refused);
                Ok(())
            }
            Step::Destroy => {
                let Some(domain) = snapshot.domain.known() else { return Ok(()) };
                let name = &record.value.name;
                tracing::info!(vm = %name, why = decision.doing, "powering a VM off");
                let result = self.ctx.hypervisor.destroy(self.uuid, domain.mark).await;
                let failed = result.as_ref().err().map(HypervisorError::words);
                self.log_failure(result);
                if let Some(why) = failed {
                    self.memory.cut_failed(domain.mark.epoch, why, self.ctx.clock.now());
                }
                Ok(())
            }
            Step::Undefine => {
                let Some(domain) = snapshot.domain.known() else { return Ok(()) };
                let result = self.ctx.hypervisor.undefine(self.uuid, domain.mark).await;
                self.back_off(result).await;
                Ok(())
            }
            Step::Complete(next) => self.complete(record, next, &decision.doing).await,
            Step::Release => {
                // Without a holder: an imported domain was here, and what is kept of it still is. So the VM is not new.
                let free = if claim.value.node.is_some() { claim.value.released() } else { claim.value.freed() };
                let ops = vec![records::set_op(&self.uuid, claim, &free)?];
                self.ctx.store.multi(ops).await
            }
            Step::Migrate(to) => self.migrate(snapshot, record, claim, (to, false)).await,
            Step::MigrateByPostCopy(to) => self.migrate(snapshot, record, claim, (to, true)).await,
            Step::AbortMigration => {
                tracing::info!(vm = %record.value.name, why = decision.doing, "stopping a migration");
                let result = self.ctx.hypervisor.abort_migration(self.uuid).await;
                self.log_failure(result);
                // Wait a moment for it to stop (or until the record changes, which drops this).
                let again = self.ctx.clock.now().after(drover_plan::vm::LOOK_AGAIN / 4);
                self.ctx.clock.until(Some(again)).await;
                Ok(())
            }
            Step::CallBack => self.call_back(snapshot, claim).await,
            Step::GiveUpMove(why) => self.give_up_move(record, why).await,
            Step::GoBack(back, why) => self.go_back(record, back, why).await,
            Step::HandOver(to) => self.hand_over(record, (claim, &claim.value.handed_to(to)), to).await,
            Step::StartThere(to) => self.hand_over(record, (claim, &claim.value.granted_above_sent(to)), to).await,
            Step::Follow(to, mark) => self.hand_over(record, (claim, &claim.value.followed_to(to, *mark)), to).await,
            Step::TakeOver => self.take_over(record, claim).await,
            Step::Adopt(state) => self.adopt(snapshot, record, claim, state).await,
            Step::Regrant => {
                let Some(domain) = snapshot.domain.known() else { return Ok(()) };
                let granted = claim.value.granted_above(domain.mark.epoch, self.ctx.me());
                let granted = self.ctx.identified(granted, self.ctx.me());
                records::set(&*self.ctx.store, &self.uuid, claim, &granted).await?;
                tracing::warn!(vm = %record.value.name, epoch = %granted.epoch, "{}", decision.doing);
                Ok(())
            }
            Step::Import => {
                let result = self.ctx.hypervisor.import(self.uuid).await;
                if result.is_ok() {
                    tracing::info!(vm = %record.value.name, "took over a domain that was not Drover's");
                    self.memory.imported = Some(claim.value.epoch);
                }
                self.back_off(result).await;
                Ok(())
            }
            Step::Remark => {
                let Some(domain) = snapshot.domain.known() else { return Ok(()) };
                // Nobody knows which definition the guest of an earlier record was started from.
                let earlier = claim.value.adopts_of_earlier(domain.mark.epoch);
                let generation = if earlier { Generation(0) } else { domain.mark.generation };
                let mark = Mark { epoch: claim.value.epoch, generation };
                tracing::info!(vm = %record.value.name, epoch = %mark.epoch, "marking its guest: {}", decision.doing);
                let result = self.ctx.hypervisor.mark(self.uuid, domain.mark, mark).await;
                if let Some(why) = result.as_ref().err().map(HypervisorError::words) {
                    self.memory.mark_failed(domain.mark.epoch, why, self.ctx.clock.now());
                }
                self.log_failure(result);
                Ok(())
            }
            Step::LetRun => {
                let Some(domain) = snapshot.domain.known() else { return Ok(()) };
                self.let_run(record, domain.mark).await;
                Ok(())
            }
            Step::Settle => self.settle_claim(claim).await,
            Step::RemoveDisks => {
                if self.remove_disks(record).await? {
                    self.erase_kept(record, claim).await;
                    (self.memory.disks_removed, self.memory.delete_wait) = (true, None);
                }
                Ok(())
            }
            Step::DeleteRecords => match self.delete_records(record, claim).await {
                // It becomes readable without any change of this VM's records.
                Err(error @ StoreError::Unreadable { .. }) => {
                    self.delete_later(&record.value, CommandError::from(error).to_string());
                    Ok(())
                }
                done => done,
            },
        }
    }

    /// Takes the claim, and creates and starts the domain under it.
    async fn start(
        &mut self,
        decision: &Decision,
        snapshot: &Snapshot,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
    ) -> Result<(), StoreError> {
        let Some(domain_type) = *self.ctx.options.domain_type.borrow() else { return Ok(()) };
        let vm = &record.value;
        // It ends with this start, also when that is dropped.
        let Some(turn) = self.start_turn.take().or_else(|| self.ctx.starts.at_once()) else {
            return self.await_start(decision, snapshot, vm.meta.priority).await;
        };
        let granted = self.ctx.identified(claim.value.granted_to(self.ctx.me()), self.ctx.me());
        let mark = Mark { epoch: granted.epoch, generation: vm.generation };
        let xml = match self.ctx.effective(&self.uuid, domain_type, mark, &vm.xml) {
            Ok(xml) => xml,
            Err(error) => {
                self.memory.start_failed(vm.generation, Failed::ForGood, error.to_string(), self.ctx.clock.now());
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
        if !self.ctx.is_member() {
            // The node's session was lost meanwhile: the name may be another machine's, which may start the VM too.
            return Ok(());
        }
        tracing::info!(vm = %vm.name, epoch = %granted.epoch, domain_type = domain_type.word(), "starting a VM");
        let (ctx, uuid) = (self.ctx.clone(), self.uuid);
        let allowed = Arc::new(move || ctx.may_start(&uuid, granted.epoch));
        match self.ctx.hypervisor.create(self.uuid, xml, allowed).await {
            Ok(()) => {
                tracing::info!(vm = %vm.name, epoch = %granted.epoch, "started a VM");
                let what = format!("VM {} was started on {}.", vm.name, self.ctx.me());
                self.ctx.tell(Entry::new(vm, EventKind::GuestStarted, what));
                self.failure = None;
                Ok(())
            }
            Err(HypervisorError::Withdrawn { .. }) => {
                tracing::info!(vm = %vm.name, "not started: this node may not start it any more, or cannot know");
                drop(turn);
                // The view may show it before the store's server that is read does.
                let again = self.ctx.clock.now().after(drover_plan::vm::LOOK_AGAIN / 4);
                self.ctx.clock.until(Some(again)).await;
                Ok(())
            }
            Err(error) => {
                let (how, why) = match error {
                    HypervisorError::BadDefinition { why, .. } => (Failed::ForGood, why),
                    HypervisorError::Refused { why, .. } => (Failed::Refused, why),
                    error => (Failed::Unknown, error.to_string()),
                };
                match how {
                    Failed::Unknown => {
                        tracing::warn!(vm = %vm.name, why, "starting a VM: the outcome is unknown, checking");
                    }
                    Failed::ForGood | Failed::Refused => {
                        tracing::warn!(vm = %vm.name, why, "the hypervisor refused to start a VM");
                        let what = format!("The hypervisor of {} refused to start VM {}.", self.ctx.me(), vm.name);
                        self.ctx.tell(Entry::new(vm, EventKind::GuestRefused, what).with("why", &why));
                    }
                }
                self.memory.start_failed(vm.generation, how, why, self.ctx.clock.now());
                Ok(())
            }
        }
    }

    /// Waits for a turn to start the VM. Everything is looked at anew before the turn is used.
    async fn await_start(&mut self, decision: &Decision, snapshot: &Snapshot, priority: i32) -> Result<(), StoreError> {
        let doing = "waiting for other guests that are being started on this node".to_owned();
        self.report(snapshot, &Decision { doing, ..decision.clone() }).await?;
        self.start_turn = Some(self.ctx.starts.turn(priority).await);
        Ok(())
    }

    /// Takes the claim of a guest that runs here.
    async fn adopt(
        &self,
        snapshot: &Snapshot,
        record: &Stored<VmRecord>,
        claim: &Stored<Claim>,
        state: &VmState,
    ) -> Result<(), StoreError> {
        let Some(domain) = snapshot.domain.known() else { return Ok(()) };
        let (me, mark) = (self.ctx.me(), domain.mark.epoch);
        let (granted, kind) = match claim.value.never_granted() {
            true => (claim.value.adopting(mark, me), MoveKind::Move),
            false => (claim.value.granted_above(mark, me), MoveKind::Migrate),
        };
        let vm = VmRecord { state: state.clone(), ..record.value.arrived(me, kind) };
        let ops = vec![
            records::set_op(&self.uuid, record, &vm)?,
            records::set_op(&self.uuid, claim, &self.ctx.identified(granted, me))?,
        ];
        self.ctx.store.multi(ops).await?;
        tracing::warn!(vm = %vm.name, %mark, state = %vm.state, "took a guest over that runs here without a claim");
        Ok(())
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
        let what = match next {
            VmState::Fail { reason } => format!("VM {} was given up: {reason}.", vm.name),
            next => format!("VM {} is done with state {}, and in state {next} now.", vm.name, vm.state),
        };
        let kind = if matches!(next, VmState::Fail { .. }) { EventKind::VmFailed } else { EventKind::VmState };
        self.ctx.tell(Entry::new(vm, kind, what).with("why", why));
        Ok(())
    }

    /// Deletes state that the hypervisor keeps (a TPM, firmware variables) of a VM that is deleted with its disks. As
    /// with disks, a failure is only logged.
    async fn erase_kept(&self, record: &Stored<VmRecord>, claim: &Stored<Claim>) {
        let vm = &record.value;
        let kept = Devices::read(&vm.xml).kept;
        if kept.is_empty() {
            return;
        }
        let domain_type = self.ctx.options.domain_type.borrow().unwrap_or(DomainType::Qemu);
        let mark = Mark { epoch: claim.value.epoch, generation: vm.generation };
        let Ok(xml) = self.ctx.effective(&self.uuid, domain_type, mark, &vm.xml) else { return };
        let nvram = kept.contains(&KeptState::Nvram);
        match self.ctx.hypervisor.erase(self.uuid, xml, nvram).await {
            Ok(()) => tracing::info!(vm = %vm.name, ?kept, "deleted the state that the hypervisor kept of a VM"),
            Err(error) => {
                tracing::warn!(vm = %vm.name, ?kept, %error, "could not delete the state that the hypervisor keeps of \
                a VM")
            }
        }
    }

    /// Notes why the VM, or its disks, cannot be deleted yet.
    pub(super) fn delete_later(&mut self, vm: &VmRecord, why: String) {
        if self.memory.delete_wait.as_ref().is_none_or(|(told, _)| *told != why) {
            tracing::warn!(vm = %vm.name, why, "a VM is not deleted yet");
        }
        let again = self.ctx.clock.now().after(drover_plan::vm::LOOK_AGAIN);
        self.memory.delete_wait = Some((why, again));
    }

    /// Deletes the VM's records in one transaction.
    async fn delete_records(&self, record: &Stored<VmRecord>, claim: &Stored<Claim>) -> Result<(), StoreError> {
        let ops = belongings::of_vm(&*self.ctx.store, record, claim).await?;
        self.ctx.store.multi(ops).await?;
        tracing::info!(vm = %record.value.name, "deleted a VM");
        self.ctx.tell(Entry::new(
            &record.value,
            EventKind::VmDeleted,
            format!("VM {} was deleted.", record.value.name),
        ));
        Ok(())
    }

    /// Logs a failure once: a request may be repeated for hours.
    pub(super) fn log_failure(&mut self, result: drover_drivers::hypervisor::Result<()>) -> bool {
        let Err(error) = result else {
            self.refused.clear();
            return false;
        };
        let why = error.to_string();
        if self.refused == why {
            tracing::debug!(vm = %self.uuid, why, "a request to the hypervisor still fails");
        } else {
            tracing::warn!(vm = %self.uuid, why, "a request to the hypervisor failed");
            self.refused = why;
        }
        true
    }

    /// Pauses after a failed step that plan would ask for again at once (until the record changes, which drops this).
    async fn back_off(&mut self, result: drover_drivers::hypervisor::Result<()>) {
        if self.log_failure(result) {
            let again = self.ctx.clock.now().after(drover_plan::vm::LOOK_AGAIN);
            self.ctx.clock.until(Some(again)).await;
        }
    }
}
