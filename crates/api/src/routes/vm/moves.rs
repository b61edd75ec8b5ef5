//! Moves of VMs between nodes.

use super::{PATIENCE, changed, subject, until};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
};
use axum::http::StatusCode;
use drover_agent::Change;
use drover_model::{
    MoveKind, VmState,
    vm::SHUTDOWN_TIMEOUT_S,
    wire::{Changed, Explained, Judged, MoveOrder, MoveOutcome, Vm, VmNode},
};
use drover_plan::{
    admit::Command,
    moves::Request,
    place::{Placement, Verdict},
};
use std::time::Duration;

/// How long a node may take to say why a move ended, after it did.
const SAY_WHY: Duration = Duration::from_secs(5);

pub(crate) async fn node(call: Call) -> Answer {
    let Vm { name, node, last_node, .. } = Vm::of(&call.state.node.view(), &*subject(&call).await?);
    answer::json(&VmNode { name, node, last_node })
}

pub(crate) async fn relocate(call: Call) -> Answer {
    let kind = match call.args.required("action") {
        "cancel" => return cancel(call).await,
        "migrate" => MoveKind::Migrate,
        "unmigrate" => MoveKind::Unmigrate,
        _ => MoveKind::Move,
    };
    if kind == MoveKind::Unmigrate {
        without_node(&call, "none with action unmigrate: it goes home")?;
    }
    let to = call.args.parsed("node")?;
    let request = Request { kind, to, force: call.args.flag("force"), live_only: call.args.flag("force_live") };
    let vm = subject(&call).await?;
    let before = call.state.node.view();
    let before = Vm::of(&before, &vm);
    let change = call.state.node.commands().relocate(vm.record.value.uuid, &request).await?;
    let (name, state) = (&change.record.name, &change.record.state);
    match (state.destination(), &change.record.node, state) {
        (Some(to), ..) if call.args.flag("wait") => arrival(&call, &change, &before, to.as_str()).await,
        (Some(to), ..) => changed(format!("VM {name} goes to {to}."), &change),
        // It waits to be started, and is started there.
        (None, Some(to), VmState::Start) if call.args.flag("wait") => {
            arrival(&call, &change, &before, to.as_str()).await
        }
        (None, node, _) => {
            let node = node.as_ref().map(ToString::to_string).unwrap_or_default();
            changed(format!("VM {name} is assigned to {node} now; it did not run, so nothing had to be sent."), &change)
        }
    }
}

fn without_node(call: &Call, accepted: &str) -> Result<(), ApiError> {
    match call.args.text("node") {
        Some(given) => Err(ApiError::parameter("node", given, accepted)),
        None => Ok(()),
    }
}

/// Waits until a VM has arrived, and tells otherwise why it did not, and where it is.
async fn arrival(call: &Call, change: &Change, before: &Vm<'_>, to: &str) -> Answer {
    let (uuid, name) = (change.record.uuid, &change.record.name);
    let deadline = call.state.node.view().config.migration_deadline_s;
    let patience = Duration::from_secs(u64::from(deadline) + u64::from(SHUTDOWN_TIMEOUT_S)) + PATIENCE;
    let order = MoveOrder::new(before, to, change.version.0);
    let ended = |vm: &Vm<'_>| order.outcome(vm).filter(|outcome| *outcome != MoveOutcome::UnderWay);
    let (mut outcome, mut vm) = until(call, uuid, change.version, patience, ended).await?;
    if outcome == Some(MoveOutcome::Ended) {
        let told = |vm: &Vm<'_>| ended(vm).filter(|outcome| *outcome != MoveOutcome::Ended);
        if let Ok(more) = until(call, uuid, change.version, SAY_WHY, told).await {
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
            })
        }
        Some(MoveOutcome::Failed(why)) => {
            let message = format!("VM {name} was not brought to {to}: {why}. Now {where_it_is}");
            Err(ApiError::new(StatusCode::BAD_REQUEST, message))
        }
        _ => {
            let message = format!(
                "VM {name} was not brought to {to}: somebody else wants something else of it. Now {where_it_is}"
            );
            Err(ApiError::new(StatusCode::CONFLICT, message))
        }
    }
}

/// Takes back a move that is under way.
async fn cancel(call: Call) -> Answer {
    without_node(&call, "none with action cancel")?;
    let uuid = subject(&call).await?.record.value.uuid;
    let change = call.state.node.commands().set_state(uuid, Command::CancelMove).await?;
    let name = &change.record.name;
    if !call.args.flag("wait") {
        return changed(format!("The move of VM {name} is taken back."), &change);
    }
    let Some(vm) = super::settle(&call, uuid, change.version, PATIENCE).await? else {
        return answer::message(format!("VM {name} was deleted meanwhile."));
    };
    let where_it_is = Vm::of(&call.state.node.view(), &vm).whereabouts();
    let now = Change { record: vm.record.value.clone(), version: vm.record.version };
    changed(format!("The move of VM {name} is taken back; {where_it_is}."), &now)
}

pub(crate) async fn explain(call: Call) -> Answer {
    let vm = subject(&call).await?;
    let Placement { chosen, selector, verdicts } = call.state.node.commands().explain(&vm);
    let nodes = verdicts.into_iter().map(|(node, verdict)| {
        let node = node.to_string();
        match verdict {
            Verdict::Fits { score, left } => {
                let (score, memory_left) = (Some(score), Some(left.as_mib()));
                Judged { node, fits: true, score, memory_left, reason: String::new() }
            }
            Verdict::Rejected(why) => {
                Judged { node, fits: false, score: None, memory_left: None, reason: why.to_string() }
            }
        }
    });
    let record = &vm.record.value;
    let text = |node: &Option<drover_model::NodeName>| node.as_ref().map(ToString::to_string).unwrap_or_default();
    answer::json(&Explained {
        name: record.name.to_string(),
        node: text(&record.node),
        selector: selector.word().to_owned(),
        chosen: text(&chosen.map(|(node, _)| node)),
        nodes: nodes.collect(),
    })
}
