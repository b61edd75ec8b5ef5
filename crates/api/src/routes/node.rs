//! Nodes.

use super::{limit, logs};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
};
use drover_model::{
    ClusterView, NodeName, NodeView,
    wire::{Node, NodeNumbers, StateOf},
};
use drover_plan::{capacity, health};
use std::sync::Arc;

fn shown(view: &ClusterView, name: &NodeName, node: &NodeView) -> Node {
    Node::of(
        node,
        NodeNumbers {
            allocated: capacity::allocated(view, name),
            provisioned: capacity::provisioned(view, name),
            health: health::node(node).health,
            alone: view.is_single_node(),
        },
    )
}

pub(crate) async fn list(call: Call) -> Answer {
    let view = call.state.node.view();
    let limit = limit(call.args.text("limit"))?;
    let all = view.nodes.iter().filter(|(name, _)| limit.as_ref().is_none_or(|l| l.is_match(name.as_str())));
    let wanted = |field: &str, is: &str| call.args.text(field).is_none_or(|wanted| wanted == is);
    let nodes: Vec<Node> = all
        .map(|(name, node)| shown(&view, name, node))
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
    answer::json(&shown(&view, &name, &node))
}

fn state_of(call: &Call, read: fn(&Node) -> &String) -> Answer {
    let view = call.state.node.view();
    let (name, node) = subject(&view, call)?;
    let shown = shown(&view, &name, &node);
    answer::json(&StateOf { name: name.to_string(), state: read(&shown).clone() })
}

pub(crate) async fn daemon_state(call: Call) -> Answer {
    state_of(&call, |n| &n.daemon_state)
}

pub(crate) async fn coordinator_state(call: Call) -> Answer {
    state_of(&call, |n| &n.coordinator_state)
}

pub(crate) async fn domain_state(call: Call) -> Answer {
    state_of(&call, |n| &n.domain_state)
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
