//! What a VM's task reports: its status, its faults, and what becomes of its guest for this node's history.

use super::{Snapshot, Task};
use crate::{
    events::{Entry, EventKind},
    faults::{self, Told, Troubles},
    records,
};
use drover_model::{Obs, RunState, Transit, VmState, VmStatus, vm::VM_SCHEMA};
use drover_plan::vm::{self as plan, Decision, Failures, LOOK_ELSEWHERE, Step};
use drover_store::StoreError;

impl Task {
    /// What is the matter with the guest.
    pub(super) fn troubles(&self, snapshot: &Snapshot) -> Troubles {
        let now = self.ctx.clock.now();
        let lasting = |failures: &Option<Failures>| {
            failures.as_ref().filter(|failures| failures.is_fault(now)).map(|failures| failures.why.clone())
        };
        let (paused, torn) = match &snapshot.domain {
            Obs::Unknown(_) => (Told::Unknown, Told::Unknown),
            _ => {
                let torn = snapshot.own().is_some_and(|d| d.transit == Some(Transit::Broken));
                let paused = snapshot.own().and_then(|d| d.paused.clone());
                let paused = paused.filter(|paused| paused.by.is_fault() && !torn);
                // It was resumed after an I/O error, and may have the next one in a moment.
                let open = self.memory.io_error.as_ref().is_some_and(|attempts| attempts.is_open(now));
                (if paused.is_none() && open { Told::Unknown } else { Told::Is(paused) }, Told::Is(torn))
            }
        };
        let older = snapshot.record.as_ref().zip(snapshot.replaced.as_ref());
        let older = older.and_then(|(record, replaced)| replaced.why_not_started(&record.value));
        Troubles {
            paused,
            torn,
            unresumed: lasting(&self.memory.run_failures),
            unkillable: match (lasting(&self.memory.cut_failures), &snapshot.domain) {
                (None, Obs::Unknown(_)) => Told::Unknown,
                (why, _) => Told::Is(why),
            },
            older,
        }
    }

    /// The VM's new status, if this node is to report it and it has changed.
    pub(super) fn status(&self, snapshot: &Snapshot, doing: &str) -> Option<VmStatus> {
        let claim = &snapshot.claim.as_ref()?.value;
        if !self.is_ours(snapshot) {
            return None;
        }
        let domain = snapshot.own();
        let old = snapshot.status.as_ref().map(|s| &s.value);
        let vanished = self.memory.vanished.is_some();
        let unknown = matches!(snapshot.domain, Obs::Unknown(_)) || vanished;
        let run = if vanished {
            plan::reported(old.and_then(|o| o.run), vanished, None)
        } else if unknown {
            old.and_then(|o| o.run)
        } else {
            domain.map(|d| d.run)
        };
        let since = old.filter(|o| o.run == run && o.node == *self.ctx.me()).map(|o| o.since);
        let paused = domain.and_then(|d| Some(plan::shown(claim, d.mark, d.paused.clone()?)));
        let status = VmStatus {
            // Keep a newer layout number: otherwise the report would differ each time.
            schema: old.map_or(VM_SCHEMA, |old| old.schema.max(VM_SCHEMA)),
            node: self.ctx.me().clone(),
            epoch: claim.epoch,
            run,
            paused: if unknown { old.and_then(|o| o.paused.clone()) } else { paused },
            unknown,
            doing: doing.to_owned(),
            generation: if unknown { old.and_then(|o| o.generation) } else { domain.map(|d| d.mark.generation) },
            crashes: self.memory.crashes,
            ended: self.memory.ended,
            since: since.unwrap_or_else(|| self.ctx.wall()),
            console: old.is_some_and(|o| o.console) || domain.is_some(),
            vnc: domain.and_then(|d| d.vnc.clone()),
            progress: domain.filter(|d| d.sending).and_then(|_| old?.progress),
            move_failure: self.failure.clone(),
            replaced: snapshot.replaced.clone(),
        };
        (old != Some(&status)).then_some(status)
    }

    /// Records that this node's guest went off or crashed, or is paused.
    pub(super) fn tell_of_guest(&mut self, snapshot: &Snapshot, doing: &str) {
        let held = snapshot.claim.as_ref().is_some_and(|claim| {
            // What was sent away ends here, and goes on there.
            claim.value.is_held_by(self.ctx.me()) && claim.value.to.is_none()
        });
        let (Some(record), Some(domain)) = (snapshot.record.as_ref().filter(|_| held), snapshot.own()) else { return };
        if domain.sending {
            return;
        }
        let now = (domain.run, self.memory.crashes);
        let Some((run, crashes)) = self.seen.replace(now) else { return };
        let (vm, me) = (&record.value, self.ctx.me());
        let told = if now.1 > crashes {
            Entry::new(vm, EventKind::GuestCrashed, format!("The guest of VM {} crashed on {me}.", vm.name))
                .with("in-a-row", now.1)
        } else if now.0 == RunState::Off && run != RunState::Off {
            Entry::new(vm, EventKind::GuestOff, format!("The guest of VM {} is off on {me}.", vm.name))
        } else if now.0 == RunState::Paused && run == RunState::Running {
            Entry::new(vm, EventKind::GuestPaused, format!("The guest of VM {} is paused on {me}.", vm.name))
        } else {
            return;
        };
        if matches!(vm.state, VmState::Start) {
            // Nobody has ordered that: what follows is not part of the operation that started it once.
            self.own = Some((record.version, self.ctx.own_operation()));
        }
        let told = told.with("doing", doing).with("state", &vm.state);
        self.ctx.tell(match self.operation(snapshot) {
            Some(operation) => told.of(operation),
            None => told,
        });
    }

    /// Raises or withdraws the fault of a stray. One that is handed over soon is none.
    pub(super) async fn report_stray(&self, snapshot: &Snapshot, decision: &Decision) -> Result<(), StoreError> {
        let lasting = self.stray.is_some_and(|since| self.ctx.clock.now().since(since) >= LOOK_ELSEWHERE);
        let name = || match (&snapshot.record, snapshot.domain.known()) {
            (Some(record), _) => record.value.name.to_string(),
            (None, Some(domain)) => domain.name.clone(),
            (None, None) => self.uuid.to_string(),
        };
        let message = lasting.then(|| {
            format!(
                "A guest of VM {} ({}) runs on {} without a claim: {}.",
                name(),
                self.uuid,
                self.ctx.me(),
                decision.doing
            )
        });
        faults::of_stray(&self.ctx, &self.uuid, message).await
    }

    pub(super) async fn report(&self, snapshot: &Snapshot, decision: &Decision) -> Result<(), StoreError> {
        // The records of a VM are deleted together; a report in between would make that fail.
        if decision.step == Step::DeleteRecords {
            return Ok(());
        }
        match (self.status(snapshot, &decision.doing), &snapshot.status) {
            (Some(status), Some(old)) => records::set(&*self.ctx.store, &self.uuid, old, &status).await.map(|_| ()),
            _ => Ok(()),
        }
    }
}
