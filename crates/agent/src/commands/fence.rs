//! Requests about fences: what an administrator confirms, and what becomes of a node's VMs.

use super::{
    CommandError, Commands, Result,
    node::known,
    update::{Outcome, Write},
};
use crate::{events::About, records};
use drover_model::{
    ClusterView, DaemonState, Demand, Epoch, Fence, FencePhase, NodeName, NodeRecord, NodeSession, NodeStatus, Only,
    Primary, RecordKind, Version,
};
use drover_plan::{
    fence,
    recover::Plan,
    standing::{self, Losses},
};
use drover_store::{CreateMode, Op};

impl From<fence::Refusal> for CommandError {
    fn from(refusal: fence::Refusal) -> CommandError {
        CommandError::Refused(refusal.to_string())
    }
}

impl Commands {
    /// Records that an administrator says that a node's machine is off, so that its VMs are started elsewhere. Returns
    /// the phase of its fence. `boot`: the boot of the machine that was seen to be off; `None`: the last one.
    /// `for_good`: it does not come back, so that it keeps no VM.
    pub async fn confirm_off(&self, name: NodeName, boot: Option<String>, for_good: bool) -> Result<FencePhase> {
        let (name, boot) = (&name, boot.as_deref());
        self.update(About::Node(name.clone()), || async move {
            let store = &*self.ctx.store;
            let (record, session, status, old, primary) = tokio::join!(
                records::read::<NodeRecord>(store, name),
                records::read_report::<NodeSession>(store, name),
                records::read_report::<NodeStatus>(store, name),
                records::read::<Fence>(store, name),
                records::read::<Primary>(store, &Only)
            );
            let Some(record) = record? else {
                known(&*self.view()?, name)?;
                return Err(CommandError::NotFound(format!("there is no node {name}")));
            };
            let (old, epoch) = (old?, primary?.map_or(Epoch(0), |primary| primary.value.epoch));
            let reported = status?.map(|status| status.value.daemon).filter(|daemon| *daemon != DaemonState::Stop);
            let present = session?.map(|_| reported.unwrap_or(DaemonState::Init));
            let by = (self.ctx.me(), epoch);
            let fence = old.as_ref().map(|old| &old.value);
            let confirmed = fence::confirm(&record.value, present, fence, (boot, for_good), by, self.ctx.wall())?;
            let Some(new) = confirmed else {
                return Ok(Outcome::Unchanged(fence.map_or(FencePhase::Proved, |fence| fence.phase)));
            };
            let path = NodeSession::path(name);
            let ops = vec![
                records::check_op::<NodeRecord>(name, record.version),
                // It has no session.
                Op::Create(path.clone(), Vec::new(), CreateMode::Persistent),
                Op::Delete(path, Some(Version::NEW)),
                match &old {
                    Some(old) => records::set_op(name, old, &new)?,
                    None => records::create_op(name, &new)?,
                },
            ];
            let before = old.as_ref().and_then(|old| old.value.operation.as_ref());
            let before = before.map(|before| format!(", after operation {}", before.id)).unwrap_or_default();
            let log = format!("confirmed to be off (boot {}{before})", record.value.boot);
            let (name, version) = (name.clone(), old.map_or(Version::NEW, |old| old.version.next()));
            let shows =
                move |view: &ClusterView| view.fences().get(&name).is_some_and(|fence| fence.version >= version);
            Ok(Outcome::Write(Write { ops, answer: new.phase, log, shows: Box::new(shows), taken: Vec::new() }))
        })
        .await
    }

    /// What the loss of each node would mean, and of several at once if they must be tolerated; and how many further
    /// VMs of a size fit now.
    pub async fn plan_losses(&self, size: Option<Demand>) -> Result<(Losses, Option<u64>)> {
        let view = self.view()?;
        let further = size.map(|size| standing::further(&view, size));
        Ok((crate::standing::losses(&view, size).await, further))
    }

    /// What becomes of a node's VMs if it is off.
    pub fn plan_recovery(&self, name: &NodeName) -> Result<Plan> {
        let view = self.view()?;
        known(&view, name)?;
        Ok(standing::if_lost(&view, std::slice::from_ref(name)))
    }
}
