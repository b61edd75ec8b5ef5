//! Nodes.

use super::{limit, logs, stopping};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
};
use axum::http::StatusCode;
use drover_agent::NodeHandle;
use drover_model::{
    ClusterView, DaemonState, DomainState, How, NodeName, NodeView, Version,
    wire::{self, Node, NodeChanged, NodeNumbers, StateOf},
};
use drover_plan::{
    capacity::{Ledger, Usage},
    drain::{self, Fate, Plan},
    health,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a flush, or VMs that come home, are waited for: a day.
const PATIENCE: Duration = Duration::from_secs(86_400);
/// For how long of it the node's daemon, which does it, may be away.
const AWAY: Duration = Duration::from_secs(120);

fn shown(handle: &NodeHandle, view: &ClusterView, ledger: &Ledger, name: &NodeName, node: &NodeView) -> Node {
    let Usage { allocated, provisioned, .. } = ledger.usage(name);
    let daemon_state_since = handle.in_state_since(name).unwrap_or_default();
    Node::of(view, node, NodeNumbers { allocated, provisioned, health: health::node(node).health, daemon_state_since })
}

pub(crate) async fn list(call: Call) -> Answer {
    let view = call.state.node.view();
    let ledger = Ledger::of(&view);
    let limit = limit(call.args.text("limit"))?;
    let all = view.nodes.iter().filter(|(name, _)| limit.as_ref().is_none_or(|l| l.is_match(name.as_str())));
    let wanted = |field: &str, is: &str| call.args.text(field).is_none_or(|wanted| wanted == is);
    let nodes: Vec<Node> = all
        .map(|(name, node)| shown(&call.state.node, &view, &ledger, name, node))
        .filter(|n| {
            wanted("daemon_state", &n.daemon_state)
                && wanted("coordinator_state", &n.coordinator_state)
                && wanted("domain_state", &n.domain_state)
        })
        .collect();
    answer::json(&nodes)
}

/// The node that a request is about.
fn subject(view: &ClusterView, call: &Call) -> Result<(NodeName, Arc<NodeView>), ApiError> {
    let found = NodeName::new(&call.subject).ok().and_then(|name| view.nodes.get(&name).map(|n| (name, n.clone())));
    found.ok_or_else(|| {
        let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
        let given = answer::shortened(&call.subject);
        ApiError::not_found(format!("there is no node {given:?}; there are {}", known.join(", ")))
    })
}

pub(crate) async fn one(call: Call) -> Answer {
    let view = call.state.node.view();
    let (name, node) = subject(&view, &call)?;
    answer::json(&shown(&call.state.node, &view, &Ledger::of(&view), &name, &node))
}

fn state_of(call: &Call, read: fn(&Node) -> &String) -> Answer {
    let view = call.state.node.view();
    let (name, node) = subject(&view, call)?;
    let shown = shown(&call.state.node, &view, &Ledger::of(&view), &name, &node);
    answer::json(&StateOf { name: name.to_string(), state: read(&shown).clone() })
}

pub(crate) async fn daemon_state(call: Call) -> Answer {
    state_of(&call, |n| &n.daemon_state)
}

pub(crate) async fn coordinator_state(call: Call) -> Answer {
    state_of(&call, |n| &n.coordinator_state)
}

pub(crate) async fn set_coordinator_state(call: Call) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    let primary = call.args.required("state") == "primary";
    let changed = call.state.node.commands().set_coordinator_state(&name, primary).await?;
    let view = call.state.node.view();
    let state = view.nodes.get(&name).map(|node| view.coordinator_state(node)).unwrap_or_default();
    let version = view.primary.as_ref().map_or(Version::NEW, |primary| primary.version);
    let message = match (primary, changed) {
        (true, true) => format!("Node {name} is becoming the primary."),
        (false, true) => format!("Node {name} is handing over the role of the primary."),
        (_, false) => format!("Node {name} is {state} already."),
    };
    answer::json(&NodeChanged { message, name: name.to_string(), state: state.word().to_owned(), version: version.0 })
}

pub(crate) async fn domain_state(call: Call) -> Answer {
    state_of(&call, |n| &n.domain_state)
}

pub(crate) async fn set_domain_state(call: Call) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    let ready = call.args.required("state") == "ready";
    let force = call.args.flag("force");
    let state = call.state.node.commands().set_domain_state(name.clone(), ready, force).await?;
    let view = call.state.node.view();
    let version = view.nodes.get(&name).map_or(Version::NEW, |node| node.record.version);
    let (message, state, version) = match state {
        DomainState::Flush | DomainState::Unflush if call.args.flag("wait") => {
            let (node, message) = finished(&call, &name, ready, version).await?;
            (message, node.record.value.domain_state, node.record.version)
        }
        DomainState::Flush => (format!("Node {name} is being flushed."), state, version),
        DomainState::Unflush => (format!("Node {name} is being made ready."), state, version),
        DomainState::Ready | DomainState::Flushed => (format!("Node {name} is {state}."), state, version),
    };
    answer::json(&NodeChanged { message, name: name.to_string(), state: state.word().to_owned(), version: version.0 })
}

/// How far a node is with being emptied or filled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Drained {
    /// Something is left to be done.
    UnderWay,
    /// It is as it was ordered.
    Done,
    /// Nothing is left to be done, and it is not empty: the VMs that stay, and why.
    Blocked(Vec<String>),
    /// Somebody gave it another order.
    Overtaken(DomainState),
    /// It was removed.
    Gone,
}

fn drained(view: &ClusterView, name: &NodeName, ready: bool, version: Version) -> Drained {
    use DomainState::*;
    let Some(node) = view.nodes.get(name) else { return Drained::Gone };
    let state = node.record.value.domain_state;
    match (ready, state) {
        _ if node.record.version < version => Drained::UnderWay,
        (true, Ready) | (false, Flushed) => Drained::Done,
        (true, Unflush) => Drained::UnderWay,
        (false, Flush) => {
            let plan = drain::evacuate(view, name);
            if plan.fates.is_empty() || !plan.is_done() {
                return Drained::UnderWay;
            }
            Drained::Blocked(blocked(&plan))
        }
        (true, Flush | Flushed) | (false, Ready | Unflush) => Drained::Overtaken(state),
    }
}

/// The VMs that a plan can do nothing about, and why.
fn blocked(plan: &Plan) -> Vec<String> {
    plan.report().blocked.into_iter().map(|(vm, why)| format!("{vm}: {why}")).collect()
}

/// Waits until a node is flushed or ready, as it was ordered with that version of its record.
async fn finished(
    call: &Call,
    name: &NodeName,
    ready: bool,
    version: Version,
) -> Result<(Arc<NodeView>, String), ApiError> {
    let deadline = Instant::now() + PATIENCE;
    let mut views = call.state.node.views();
    let ended = |view: &ClusterView| drained(view, name, ready, version) != Drained::UnderWay;
    let daemon = |view: &ClusterView| view.nodes.get(name).map_or(DaemonState::Dead, |node| node.daemon_state());
    let late = |why: String| {
        let what = if ready { "ready" } else { "flushed" };
        let message = format!("node {name} is not {what} yet: {why}. It goes on; look with 'drover node info {name}'");
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, message)
    };
    loop {
        let look = |view: &Arc<ClusterView>| ended(view) || daemon(view) != DaemonState::Run;
        let view = match timeout_at(deadline, views.wait_for(look)).await {
            Ok(Ok(view)) => view.clone(),
            Ok(Err(_)) => return Err(stopping()),
            Err(_) => return Err(late(format!("it took longer than {} s", PATIENCE.as_secs()))),
        };
        let refused = |status, why: String| Err(ApiError::new(status, format!("node {name} {why}")));
        match drained(&view, name, ready, version) {
            Drained::UnderWay => {}
            Drained::Done => {
                let gone = || ApiError::not_found(format!("there is no node {name} any more"));
                let node = view.nodes.get(name).cloned().ok_or_else(gone)?;
                let away = if ready { blocked(&drain::bring_home(&view, name)) } else { Vec::new() };
                let state = node.record.value.domain_state;
                let message = match away.as_slice() {
                    [] => format!("Node {name} is {state}."),
                    vms => format!("Node {name} is {state}. Not all of its VMs came home: {}.", vms.join("; ")),
                };
                return Ok((node, message));
            }
            Drained::Blocked(vms) => {
                let why = "is not flushed: nothing more can be done about these VMs, which are on it still";
                let todo = "shut them down, move them by hand, or make the node ready again";
                return refused(StatusCode::GATEWAY_TIMEOUT, format!("{why}: {}; {todo}", vms.join("; ")));
            }
            Drained::Overtaken(state) => {
                return refused(
                    StatusCode::CONFLICT,
                    format!("was given another order meanwhile: it is in state {state}"),
                );
            }
            Drained::Gone => return refused(StatusCode::NOT_FOUND, "was removed meanwhile".to_owned()),
        }
        let back = views.wait_for(|view| ended(view) || daemon(view) == DaemonState::Run);
        if timeout(AWAY, back).await.is_err() {
            return Err(late(format!("its daemon, which does it, is in state {}", daemon(&call.state.node.view()))));
        }
    }
}

pub(crate) async fn flush_plan(call: Call) -> Answer {
    let view = call.state.node.view();
    let (name, _) = subject(&view, &call)?;
    let plan = call.state.node.commands().plan_flush(&name)?;
    let fates = plan.fates.into_iter().map(|(uuid, vm, fate)| {
        let state = || view.vms.get(&uuid).map(|vm| vm.record.value.state.clone());
        let (fate, to, how, reason) = match fate {
            Fate::Moves { to, how } => ("moves", to.to_string(), how_word(how), String::new()),
            Fate::ShutDown(why) => ("shutdown", String::new(), "", why),
            Fate::Starts => ("starts", String::new(), "", String::new()),
            Fate::UnderWay => {
                let to = state().as_ref().and_then(|state| state.destination()).map(ToString::to_string);
                let reason = state().map(|state| format!("it is in state {state}")).unwrap_or_default();
                ("waits", to.unwrap_or_default(), "", reason)
            }
            Fate::Blocked(why) => ("blocked", String::new(), "", why),
        };
        let (vm, uuid) = (vm.to_string(), uuid.to_string());
        wire::Fate { vm, uuid, fate: fate.to_owned(), to, how: how.to_owned(), reason }
    });
    answer::json(&fates.collect::<Vec<_>>())
}

fn how_word(how: How) -> &'static str {
    match how {
        How::Live => "live",
        How::LiveElseCold => "live-else-cold",
        How::Cold => "cold",
    }
}

pub(crate) async fn watch(call: Call) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    let handle = call.state.node.clone();
    super::watch(&call, move |view| {
        let node = view.nodes.get(&name)?;
        serde_json::to_vec(&shown(&handle, view, &Ledger::of(view), &name, node)).ok()
    })
}

pub(crate) async fn remove(call: Call) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    call.state.node.commands().remove_node(name.clone()).await?;
    answer::message(format!("Removed node {name}."))
}

pub(crate) async fn log(call: Call) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    if name == *call.state.node.me() {
        let file = call.state.node.log_file().to_owned();
        return logs::local(name.as_str(), file, &call.args).await;
    }
    logs::remote(&call, &name, logs::Remote::NodeLog).await
}
