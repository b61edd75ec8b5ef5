//! Endpoints of moves between nodes.

use super::{WAIT_TIMEOUT, changed, subject, until, warned, warnings};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, field, get, post},
};
use axum::http::StatusCode;
use drover_agent::Change;
use drover_model::{
    MoveKind, NodeName, VmState,
    vm::SHUTDOWN_TIMEOUT_S,
    wire::{Changed, Explained, Judged, MoveOrder, MoveOutcome, MoveVm, Nothing, Placed, Vm, VmNode},
};
use drover_plan::{
    admit::Command,
    moves::Request,
    place::{Placement, Verdict},
};
use std::time::Duration;

/// How long a node may take to report why a move ended.
const REASON_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/vm/{vm}/node", "The node that it is assigned to, and its home node.", node).answers::<VmNode>(),
        post("/vm/{vm}/node", "Move it to another node, or cancel a move.", relocate).answers::<Changed>().waits(),
        get("/vm/{vm}/explain", "Where it would go if it were moved now, and why.", explain).answers::<Explained>(),
    ]
}

async fn node(call: Call, _: Nothing) -> Answer {
    let Vm { name, node, last_node, .. } = Vm::of(&call.state.node.view(), &*subject(&call).await?);
    answer::json(&VmNode { name, node, last_node })
}

async fn relocate(call: Call, request: MoveVm) -> Answer {
    let MoveVm { action, node: to, force, force_live: live_only, advise, wait } = request;
    let Some(kind) = action.kind() else {
        without_node(to, "none with action cancel")?;
        return cancel(call, wait).await;
    };
    if kind == MoveKind::Unmigrate {
        without_node(to.clone(), "none with action unmigrate: it goes home")?;
    }
    let request = Request { kind, to, force, live_only };
    let vm = subject(&call).await?;
    let before = call.state.node.view();
    let before = Vm::of(&before, &vm);
    let change = call.state.node.commands().relocate(vm.record.value.uuid, &request).await?;
    let (name, state) = (&change.record.name, &change.record.state);
    let warnings = warnings(&call, &change, advise).await;
    match (state.destination(), &change.record.node, state) {
        (Some(to), ..) if wait => arrival(&call, (&change, warnings), &before, to.as_str()).await,
        (Some(to), ..) => warned(format!("VM {name} is being moved to {to}."), &change, warnings),
        // It is waiting to be started, and is started on the new node.
        (None, Some(to), VmState::Start) if wait => arrival(&call, (&change, warnings), &before, to.as_str()).await,
        (None, node, _) => {
            let node = node.as_ref().map(ToString::to_string).unwrap_or_default();
            warned(
                format!("VM {name} is now assigned to {node}; it was not running, so no migration was needed."),
                &change,
                warnings,
            )
        }
    }
}

fn without_node(node: Option<NodeName>, accepted: &str) -> Result<(), ApiError> {
    match node {
        Some(given) => Err(ApiError::parameter(field!(MoveVm.node), given.as_str(), accepted)),
        None => Ok(()),
    }
}

/// Waits until a VM has arrived; otherwise reports why not, and where it is.
async fn arrival(call: &Call, (change, warnings): (&Change, Vec<String>), before: &Vm<'_>, to: &str) -> Answer {
    let (uuid, name) = (change.record.uuid, &change.record.name);
    let deadline = call.state.node.view().config.migration_deadline_s;
    let timeout = Duration::from_secs(u64::from(deadline) + u64::from(SHUTDOWN_TIMEOUT_S)) + WAIT_TIMEOUT;
    let order = MoveOrder::new(before, to, change.version.0);
    let ended = |vm: &Vm<'_>| order.outcome(vm).filter(|outcome| *outcome != MoveOutcome::UnderWay);
    let (mut outcome, mut vm) = until(call, uuid, change.version, timeout, ended).await?;
    if outcome == Some(MoveOutcome::Ended) {
        let reason = |vm: &Vm<'_>| ended(vm).filter(|outcome| *outcome != MoveOutcome::Ended);
        if let Ok(more) = until(call, uuid, change.version, REASON_TIMEOUT, reason).await {
            (outcome, vm) = more;
        }
    }
    let Some(vm) = vm else { return answer::message(format!("VM {name} was deleted meanwhile.")) };
    let (view, version) = (call.state.node.view(), vm.record.version);
    let shown = Vm::of(&view, &vm);
    let where_it_is = shown.whereabouts();
    match outcome {
        Some(MoveOutcome::Arrived) => {
            let (message, to) = (format!("VM {name} runs on {to}."), Some(to.to_owned()));
            answer::json(&Changed {
                message,
                name: name.to_string(),
                uuid: uuid.to_string(),
                version: version.0,
                to,
                diff: None,
                warnings,
            })
        }
        Some(MoveOutcome::Failed(why)) => {
            let message = format!("VM {name} was not moved to {to}: {why}. Now {where_it_is}");
            Err(ApiError::new(StatusCode::BAD_REQUEST, message))
        }
        _ => {
            let message =
                format!("VM {name} was not moved to {to}: somebody gave another order meanwhile. Now {where_it_is}");
            Err(ApiError::new(StatusCode::CONFLICT, message))
        }
    }
}

/// Cancels a move that is in progress.
async fn cancel(call: Call, wait: bool) -> Answer {
    let uuid = subject(&call).await?.record.value.uuid;
    let change = call.state.node.commands().set_state(uuid, Command::CancelMove).await?;
    let name = &change.record.name;
    if !wait {
        return changed(format!("The move of VM {name} is cancelled."), &change);
    }
    let Some(vm) = super::settle(&call, uuid, change.version, WAIT_TIMEOUT).await? else {
        return answer::message(format!("VM {name} was deleted meanwhile."));
    };
    let where_it_is = Vm::of(&call.state.node.view(), &vm).whereabouts();
    let now = Change { record: vm.record.value.clone(), version: vm.record.version };
    changed(format!("The move of VM {name} is cancelled; {where_it_is}."), &now)
}

/// A node's verdict.
pub(super) fn judged((node, verdict): (NodeName, Verdict)) -> Judged {
    let node = node.to_string();
    match verdict {
        Verdict::Fits { score, left } => {
            let (score, memory_left) = (Some(score), Some(left.as_mib()));
            Judged { node, fits: true, score, memory_left, reason: String::new() }
        }
        Verdict::Rejected(why) => Judged { node, fits: false, score: None, memory_left: None, reason: why.to_string() },
    }
}

async fn explain(call: Call, _: Nothing) -> Answer {
    let vm = subject(&call).await?;
    let Placement { chosen, selector, verdicts, .. } = call.state.node.commands().explain(&vm);
    let record = &vm.record.value;
    let view = call.state.node.view();
    let Vm { paused_reason, older_disks, .. } = Vm::of(&view, &vm);
    let text = |node: &Option<drover_model::NodeName>| node.as_ref().map(ToString::to_string).unwrap_or_default();
    answer::json(&Explained {
        name: record.name.to_string(),
        node: text(&record.node),
        selector: selector.word().to_owned(),
        paused_reason,
        older_disks,
        chosen: text(&chosen.map(|(node, _)| node)),
        nodes: verdicts.into_iter().map(judged).collect(),
        placed: record.placed.as_deref().map(Placed::of),
    })
}
