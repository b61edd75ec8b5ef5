//! Endpoints of nodes.

use super::{fence, limit, logs, stopping};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, delete, field, get, post, put},
};
use axum::http::StatusCode;
use drover_agent::NodeHandle;
use drover_model::{
    ClusterView, DaemonState, How, NodeName, NodeState, NodeView, Version,
    wire::{
        self, Blocked, DomainOrder, DrainOutcome, DrainWait, ListNodes, Message, Node, NodeChanged, NodeNumbers,
        NodePolicies, Nothing, ReadLog, RemoveNode, RoleOrder, SetCoordinatorState, SetDomainState, SetNodePolicies,
        StateOf,
    },
};
use drover_plan::{
    capacity::{Ledger, Usage},
    drain::{self, Fate, Plan},
    health,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// Timeout for a flush, and for the return of a node's VMs: a day.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(86_400);
/// How long the node's daemon, which does the work, may be away meanwhile.
const AWAY_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/node", "Nodes.", list).answers::<Vec<Node>>(),
        get("/node/{node}", "One node.", one).answers::<Node>(),
        delete("/node/{node}", "Remove a node that is gone for good.", remove).answers::<Message>().waits(),
        get("/node/{node}/daemon-state", "The state of its daemon.", daemon_state).answers::<StateOf>(),
        get("/node/{node}/coordinator-state", "Its role: whether it is the primary.", coordinator_state)
            .answers::<StateOf>(),
        post(
            "/node/{node}/coordinator-state",
            "Make it the primary, or have it hand the primary role over.",
            set_coordinator_state,
        )
        .answers::<NodeChanged>(),
        get("/node/{node}/domain-state", "Whether it takes VMs.", domain_state).answers::<StateOf>(),
        post("/node/{node}/domain-state", "Take it out of service, or put it back.", set_domain_state)
            .answers::<NodeChanged>()
            .waits(),
        put(
            "/node/{node}/policies",
            "Change its own policies of what happens when it is off; those that are not given stay as they are.",
            set_policies,
        )
        .answers::<NodePolicies>(),
        get("/node/{node}/flush-plan", "What a flush would do with each of its VMs.", flush_plan)
            .answers::<Vec<wire::Fate>>(),
        get(
            "/node/{node}/ready-plan",
            "What becomes of each VM that should come home when it is made ready.",
            ready_plan,
        )
        .answers::<Vec<wire::Fate>>(),
        get(
            "/node/{node}/watch",
            "Stream the node: one JSON object per line at each change, until it is removed.",
            watch,
        ),
        get("/node/{node}/log", "Its daemon's log.", log).answers::<wire::Log>().follows(),
    ]
}

fn shown(handle: &NodeHandle, view: &ClusterView, ledger: &Ledger, name: &NodeName, node: &NodeView) -> Node {
    let Usage { allocated, provisioned, .. } = ledger.usage(name);
    let daemon_state_since = handle.in_state_since(name).unwrap_or_default();
    Node::of(view, node, NodeNumbers { allocated, provisioned, health: health::node(node).health, daemon_state_since })
}

async fn list(call: Call, request: ListNodes) -> Answer {
    let view = call.state.node.view();
    let ledger = Ledger::of(&view);
    let limit = limit(field!(ListNodes.limit), request.limit.as_deref())?;
    let all = view.nodes.iter().filter(|(name, _)| limit.as_ref().is_none_or(|l| l.is_match(name.as_str())));
    let wanted = |node: &NodeView| {
        request.daemon_state.is_none_or(|wanted| wanted == node.daemon_state())
            && request.coordinator_state.is_none_or(|wanted| wanted == view.coordinator_state(node))
            && request.domain_state.is_none_or(|wanted| wanted == node.record.value.domain_state)
    };
    let nodes = all.filter(|(_, node)| wanted(node));
    let nodes: Vec<Node> = nodes.map(|(name, node)| shown(&call.state.node, &view, &ledger, name, node)).collect();
    answer::json(&nodes)
}

/// The node that a request is about.
pub(super) fn subject(view: &ClusterView, call: &Call) -> Result<(NodeName, Arc<NodeView>), ApiError> {
    let found = NodeName::new(&call.subject).ok().and_then(|name| view.nodes.get(&name).map(|n| (name, n.clone())));
    found.ok_or_else(|| {
        let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
        let given = answer::shortened(&call.subject);
        ApiError::not_found(format!("there is no node {given:?}; there are {}", known.join(", ")))
    })
}

async fn one(call: Call, _: Nothing) -> Answer {
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

async fn daemon_state(call: Call, _: Nothing) -> Answer {
    state_of(&call, |n| &n.daemon_state)
}

async fn coordinator_state(call: Call, _: Nothing) -> Answer {
    state_of(&call, |n| &n.coordinator_state)
}

async fn set_coordinator_state(call: Call, request: SetCoordinatorState) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    let primary = request.state == RoleOrder::Primary;
    let changed = call.state.node.commands().set_coordinator_state(&name, primary).await?;
    let view = call.state.node.view();
    let state = view.nodes.get(&name).map(|node| view.coordinator_state(node)).unwrap_or_default();
    let version = view.primary.as_ref().map_or(Version::NEW, |primary| primary.version);
    let message = match (primary, changed) {
        (true, true) => format!("Node {name} is becoming the primary."),
        (false, true) => format!("Node {name} is handing over the primary role."),
        (_, false) => format!("Node {name} is {state} already."),
    };
    answer::json(&NodeChanged { message, name: name.to_string(), state: state.word().to_owned(), version: version.0 })
}

async fn set_policies(call: Call, request: SetNodePolicies) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    answer::json(&call.state.node.commands().set_node_policies(name, request).await?)
}

async fn domain_state(call: Call, _: Nothing) -> Answer {
    state_of(&call, |n| &n.domain_state)
}

async fn set_domain_state(call: Call, request: SetDomainState) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    let ready = request.state == DomainOrder::Ready;
    let state = call.state.node.commands().set_domain_state(name.clone(), ready, request.force).await?;
    let view = call.state.node.view();
    let version = view.nodes.get(&name).map_or(Version::NEW, |node| node.record.version);
    let (message, state, version) = match state {
        NodeState::Flush | NodeState::Unflush if request.wait => {
            let (node, message) = finished(&call, &name, DrainWait::new(request.state, version.0)).await?;
            (message, node.record.value.domain_state, node.record.version)
        }
        NodeState::Flush => (format!("Node {name} is being flushed."), state, version),
        NodeState::Unflush => (format!("Node {name} is being made ready."), state, version),
        NodeState::Ready | NodeState::Flushed => (format!("Node {name} is {state}."), state, version),
    };
    answer::json(&NodeChanged { message, name: name.to_string(), state: state.word().to_owned(), version: version.0 })
}

/// The outcome of a flush or ready order; `None`: the node was removed.
fn drained(view: &ClusterView, name: &NodeName, order: DrainWait) -> Option<DrainOutcome> {
    let node = &view.nodes.get(name)?.record;
    let stay = || {
        let plan = drain::evacuate(view, name);
        if plan.is_done() { Blocked::of(&plan.report()) } else { Vec::new() }
    };
    let outcome = order.outcome(node.version.0, node.value.domain_state.word(), stay);
    Some(outcome.unwrap_or(DrainOutcome::UnderWay))
}

/// Lists blocked VMs with their reasons.
fn listed(vms: &[Blocked]) -> String {
    vms.iter().map(Blocked::to_string).collect::<Vec<_>>().join("; ")
}

/// Waits until a node is flushed or ready.
async fn finished(call: &Call, name: &NodeName, order: DrainWait) -> Result<(Arc<NodeView>, String), ApiError> {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let mut views = call.state.node.views();
    let ended = |view: &ClusterView| drained(view, name, order) != Some(DrainOutcome::UnderWay);
    let daemon = |view: &ClusterView| view.nodes.get(name).map_or(DaemonState::Dead, |node| node.daemon_state());
    let late = |why: String| {
        let message =
            format!("node {name} is not {} yet: {why}. The work continues; see 'drover node info {name}'", order.aim());
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, message)
    };
    loop {
        let look = |view: &Arc<ClusterView>| ended(view) || daemon(view) != DaemonState::Run;
        let view = match timeout_at(deadline, views.wait_for(look)).await {
            Ok(Ok(view)) => view.clone(),
            Ok(Err(_)) => return Err(stopping()),
            Err(_) => return Err(late(format!("it took longer than {} s", DRAIN_TIMEOUT.as_secs()))),
        };
        let refused = |status, why: String| Err(ApiError::new(status, format!("node {name} {why}")));
        match drained(&view, name, order) {
            Some(DrainOutcome::UnderWay) => {}
            Some(DrainOutcome::Done) => {
                let gone = || ApiError::not_found(format!("node {name} no longer exists"));
                let node = view.nodes.get(name).cloned().ok_or_else(gone)?;
                let state = node.record.value.domain_state;
                let away = match state {
                    NodeState::Ready => Blocked::of(&drain::bring_home(&view, name).report()),
                    _ => Vec::new(),
                };
                let message = match away.as_slice() {
                    [] => format!("Node {name} is {state}."),
                    vms => format!("Node {name} is {state}. Not all of its VMs returned: {}.", listed(vms)),
                };
                return Ok((node, message));
            }
            Some(DrainOutcome::Blocked(vms)) => {
                let why = "is not flushed: these VMs are still on it, and cannot be moved";
                let todo = "shut them down, move them yourself, or make the node ready again";
                return refused(StatusCode::GATEWAY_TIMEOUT, format!("{why}: {}; {todo}", listed(&vms)));
            }
            Some(DrainOutcome::Overtaken(state)) => {
                return refused(
                    StatusCode::CONFLICT,
                    format!("was given another order meanwhile: it is in state {state}"),
                );
            }
            None => return refused(StatusCode::NOT_FOUND, "was removed meanwhile".to_owned()),
        }
        let back = views.wait_for(|view| ended(view) || daemon(view) == DaemonState::Run);
        if timeout(AWAY_TIMEOUT, back).await.is_err() {
            return Err(late(format!(
                "its daemon, which does the work, is in state {}",
                daemon(&call.state.node.view())
            )));
        }
    }
}

async fn flush_plan(call: Call, _: Nothing) -> Answer {
    let view = call.state.node.view();
    let (name, _) = subject(&view, &call)?;
    let plan = call.state.node.commands().plan_flush(&name)?;
    answer::json(&fates(&view, plan))
}

async fn ready_plan(call: Call, _: Nothing) -> Answer {
    let view = call.state.node.view();
    let (name, _) = subject(&view, &call)?;
    let plan = call.state.node.commands().plan_ready(&name)?;
    answer::json(&fates(&view, plan))
}

fn fates(view: &ClusterView, plan: Plan) -> Vec<wire::Fate> {
    let fates = plan.fates.into_iter().map(|(uuid, vm, fate)| {
        let state = || view.vms.get(&uuid).map(|vm| vm.record.value.state.clone());
        let (fate, to, how, reason) = match fate {
            Fate::Moves { to, how, .. } => ("moves", to.to_string(), how_word(how), String::new()),
            Fate::ShutDown(why) => ("shutdown", String::new(), "", why),
            Fate::Starts => ("starts", String::new(), "", String::new()),
            Fate::UnderWay => {
                let to = state().as_ref().and_then(|state| state.destination()).map(ToString::to_string);
                let reason = state().map(|state| format!("it is in state {state}")).unwrap_or_default();
                ("waits", to.unwrap_or_default(), "", reason)
            }
            Fate::Blocked(why) => ("blocked", String::new(), "", why),
            Fate::Away(why) => ("away", String::new(), "", why),
        };
        let (vm, uuid) = (vm.to_string(), uuid.to_string());
        wire::Fate { vm, uuid, fate: fate.to_owned(), to, how: how.to_owned(), reason }
    });
    let strays = plan.strays.iter().map(|uuid| {
        let Blocked { vm, reason } = Blocked::stray(uuid);
        wire::Fate { uuid: vm.clone(), vm, fate: "blocked".to_owned(), to: String::new(), how: String::new(), reason }
    });
    fates.chain(strays).collect()
}

fn how_word(how: How) -> &'static str {
    match how {
        How::Live => "live",
        How::LiveElseCold => "live-else-cold",
        How::Cold => "cold",
    }
}

async fn watch(call: Call, _: Nothing) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    let handle = call.state.node.clone();
    super::watch(&call, move |view| {
        let node = view.nodes.get(&name)?;
        serde_json::to_vec(&shown(&handle, view, &Ledger::of(view), &name, node)).ok()
    })
}

async fn remove(call: Call, request: RemoveNode) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    if request.confirm_off {
        call.state.node.commands().confirm_off(name.clone(), request.boot, true).await?;
        let plan = fence::recovered(&call, &name).await?;
        if let Some(vms) = fence::waiting(&plan, &name) {
            let why = format!(
                "node {name} is off, and is not removed, for no other node can take these of its VMs: {vms}; undefine \
                 them first"
            );
            return Err(ApiError::new(StatusCode::CONFLICT, why));
        }
    }
    call.state.node.commands().remove_node(name.clone()).await?;
    answer::message(format!("Removed node {name}."))
}

async fn log(call: Call, request: ReadLog) -> Answer {
    let (name, _) = subject(&call.state.node.view(), &call)?;
    if name == *call.state.node.me() {
        let file = call.state.node.log_file().to_owned();
        return logs::local(&call, name.as_str(), file, request).await;
    }
    logs::remote(&call, &name, logs::Remote::NodeLog, request).await
}
