//! Which coordinators may be the primary, and in which order they should be.

use super::Standing;
use drover_model::{ClusterView, DaemonState, NodeName, NodeView, Role};

/// Whether a node can have the role now, as far as the records tell.
pub fn is_candidate(node: &NodeView) -> bool {
    node.record.value.role == Role::Coordinator && node.daemon_state() == DaemonState::Run
}

/// What ails the networks of a node on which there are floating addresses.
fn problems(node: &NodeView) -> usize {
    node.status.as_ref().map_or(0, |status| status.network_problems.len())
}

/// The other coordinators that can have the role now, best first: fewest problems, then by name.
fn others<'a>(view: &'a ClusterView, me: &NodeName) -> Vec<(usize, &'a NodeName)> {
    let able = view.nodes.iter().filter(|(name, node)| *name != me && is_candidate(node));
    let mut all: Vec<(usize, &NodeName)> = able.map(|(name, node)| (problems(node), name)).collect();
    all.sort();
    all
}

/// The best coordinator beside `me`.
pub fn heir(view: &ClusterView, me: &NodeName) -> Option<NodeName> {
    others(view, me).first().map(|(_, name)| (*name).clone())
}

/// Where a node stands. `my_problems` is what it knows of its own networks now; `stopping`: it has been told to end.
pub fn standing(view: &ClusterView, me: &NodeName, role: Role, my_problems: &[String], stopping: bool) -> Standing {
    let others = others(view, me);
    let best = others.first().copied();
    let before_me = others.iter().filter(|other| **other < (my_problems.len(), me)).count();
    let (leave, urgent) = if stopping {
        (Some(format!("{me} stops")), true)
    } else if role != Role::Coordinator {
        (Some(format!("{me} is no coordinator any more")), true)
    } else if best.is_some_and(|(problems, _)| problems < my_problems.len()) {
        (Some(my_problems.join("; ")), false)
    } else {
        (None, false)
    };
    Standing {
        eligible: role == Role::Coordinator && !stopping,
        rank: u32::try_from(before_me).unwrap_or(u32::MAX),
        leave,
        urgent,
        heir: best.map(|(_, name)| name.clone()),
        quit: role != Role::Coordinator,
    }
}
