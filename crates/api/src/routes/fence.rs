//! Endpoints of fences, and of the standing recovery plan.

use super::{node::subject, stopping};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, field, get, post},
};
use axum::http::StatusCode;
use drover_agent::NodeHandle;
use drover_model::{
    Bytes, ClusterView, Demand, FencePhase, NodeName, NodeView, Version, VmName,
    wire::{
        self, FenceInfo, FenceNode, LossFigures, LossPlan, LossTogether, NodeChanged, NodeLoss, Nothing, PlanLosses,
    },
};
use drover_plan::{
    recover::{Fate, Plan},
    standing::{Loss, Together},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Timeout for the recovery of a node's VMs.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/plan", "The standing recovery plan: what the loss of each node would mean now.", losses)
            .answers::<LossPlan>(),
        get("/node/{node}/fence", "Its fence, and what becomes of its VMs if its machine is off.", one)
            .answers::<FenceInfo>(),
        post("/node/{node}/fence", "Confirm that its machine is off, so that its VMs start elsewhere.", confirm)
            .answers::<NodeChanged>()
            .waits(),
    ]
}

fn shown(handle: &NodeHandle, view: &ClusterView, name: &NodeName, node: &NodeView) -> Result<FenceInfo, ApiError> {
    let plan = handle.commands().plan_recovery(name)?;
    let vms = plan.items.iter().map(|item| {
        let (fate, to, reason) = item.fate.in_words();
        let how = if matches!(item.fate, Fate::Starts { .. } | Fate::UnderWay(_)) { "cold" } else { "" };
        wire::Fate {
            vm: item.vm.to_string(),
            uuid: item.uuid.to_string(),
            fate: fate.to_owned(),
            to: to.map(ToString::to_string).unwrap_or_default(),
            how: how.to_owned(),
            reason,
        }
    });
    Ok(FenceInfo::of(view, node, vms.collect()))
}

async fn one(call: Call, _: Nothing) -> Answer {
    let view = call.state.node.view();
    let (name, node) = subject(&view, &call)?;
    answer::json(&shown(&call.state.node, &view, &name, &node)?)
}

async fn losses(call: Call, request: PlanLosses) -> Answer {
    let size = match request {
        PlanLosses { memory: Some(0), .. } => {
            return Err(ApiError::parameter(field!(PlanLosses.memory), "0", "a whole number of MiB from 1"));
        }
        PlanLosses { vcpus: Some(0), .. } => {
            return Err(ApiError::parameter(field!(PlanLosses.vcpus), "0", "a whole number from 1"));
        }
        PlanLosses { memory: None, vcpus: Some(vcpus) } => {
            let why = "none without memory";
            return Err(ApiError::parameter(field!(PlanLosses.vcpus), &vcpus.to_string(), why));
        }
        PlanLosses { memory, vcpus } => memory.map(|mib| Demand { memory: Bytes::mib(mib), vcpus: vcpus.unwrap_or(1) }),
    };
    let (losses, further) = call.state.node.commands().plan_losses(size).await?;
    let names = |vms: Vec<VmName>| vms.iter().map(ToString::to_string).collect();
    let figures = |loss: Loss| LossFigures {
        go_on: loss.go_on,
        bound: names(loss.bound),
        short: names(loss.short),
        missing: loss.missing.as_mib(),
        further: loss.further,
    };
    let together = losses.together.map(|Together { nodes, loss, planned, all }| LossTogether {
        nodes: nodes.iter().map(ToString::to_string).collect(),
        figures: figures(loss),
        planned,
        all,
    });
    let each = losses.each.into_iter();
    let nodes = each.map(|(node, loss)| NodeLoss { node: node.to_string(), figures: figures(loss) });
    let tolerate = call.state.node.view().config.tolerate;
    answer::json(&LossPlan { tolerate, further, nodes: nodes.collect(), together })
}

async fn confirm(call: Call, request: FenceNode) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    if !request.confirm_off {
        let why = "a node is fenced by hand only if confirm_off says that its machine is off";
        return Err(ApiError::parameter("confirm_off", "false", why));
    }
    let phase = call.state.node.commands().confirm_off(name.clone(), request.boot, false).await?;
    let (message, phase) = if request.wait {
        let plan = recovered(&call, &name).await?;
        let message = match waiting(&plan, &name) {
            Some(vms) => format!("Node {name} is off. No other node can take these of its VMs: {vms}."),
            None => format!("Node {name} is off, and its VMs were given to other nodes."),
        };
        (message, phase_of(&call.state.node.view(), &name).unwrap_or(phase))
    } else {
        (format!("Node {name} counts as off: its VMs are being given to other nodes."), phase)
    };
    let version = call.state.node.view().nodes.get(&name).map_or(Version::NEW, |node| node.record.version);
    answer::json(&NodeChanged { message, name: name.to_string(), state: phase.word().to_owned(), version: version.0 })
}

fn phase_of(view: &ClusterView, name: &NodeName) -> Option<FencePhase> {
    view.fences().get(name).map(|fence| fence.value.phase)
}

/// The VMs that no other node can take.
pub(crate) fn waiting(plan: &Plan, name: &NodeName) -> Option<String> {
    let vms: Vec<String> = plan.waiting(name).map(|(vm, why)| format!("{vm} ({why})")).collect();
    (!vms.is_empty()).then(|| vms.join(", "))
}

/// Waits until nothing of a node that is off is left, but what has to wait. Returns that.
pub(crate) async fn recovered(call: &Call, name: &NodeName) -> Result<Plan, ApiError> {
    let deadline = Instant::now() + RECOVERY_TIMEOUT;
    let mut views = call.state.node.views();
    let left = |view: &ClusterView| match phase_of(view, name) {
        Some(FencePhase::Recovering | FencePhase::Recovered) => {
            let plan = call.state.node.commands().plan_recovery(name).ok()?;
            let stays = plan.items.iter().all(|item| item.fate.why_waiting().is_some());
            stays.then_some(plan)
        }
        Some(FencePhase::Over) | None => Some(Plan::default()),
        Some(_) => None,
    };
    let look = |view: &Arc<ClusterView>| left(view).is_some();
    match timeout_at(deadline, views.wait_for(look)).await {
        Ok(Ok(view)) => Ok(left(&view).unwrap_or_default()),
        Ok(Err(_)) => Err(stopping()),
        Err(_) => {
            let message = format!(
                "not all VMs of node {name} were given to other nodes within {} s. The work continues; see 'drover \
                 node fence {name}'",
                RECOVERY_TIMEOUT.as_secs()
            );
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, message))
        }
    }
}
