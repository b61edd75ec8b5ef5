//! Eligibility and ranking of the coordinators for the primary's role.

use drover_model::{ClusterView, DaemonState, NodeName, NodeView, Role};

/// A coordinator's position in an election; see [`standing`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// It may have the role.
    pub eligible: bool,
    /// Number of other coordinators that should claim before it.
    pub rank: u32,
    /// Why it should give the role away, if it has it.
    pub leave: Option<String>,
    /// It is urgent, because the node will be gone soon.
    pub urgent: bool,
    /// The coordinator that should get it then.
    pub heir: Option<NodeName>,
    /// It gives the role up even if nobody takes it over.
    pub quit: bool,
}

/// Whether a node can have the role now, according to the records.
pub fn is_candidate(node: &NodeView) -> bool {
    node.record.value.role == Role::Coordinator && node.daemon_state() == DaemonState::Run
}

/// Number of network problems of a node that matter for floating addresses.
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

/// The best coordinator other than `me`.
pub fn heir(view: &ClusterView, me: &NodeName) -> Option<NodeName> {
    others(view, me).first().map(|(_, name)| (*name).clone())
}

/// Standing of a node. `my_problems`: problems of its own networks now; `stopping`: its daemon is shutting down.
pub fn standing(view: &ClusterView, me: &NodeName, role: Role, my_problems: &[String], stopping: bool) -> Standing {
    let others = others(view, me);
    let best = others.first().copied();
    let before_me = others.iter().filter(|other| **other < (my_problems.len(), me)).count();
    let (leave, urgent) = if stopping {
        (Some(format!("{me} stops")), true)
    } else if role != Role::Coordinator {
        (Some(format!("{me} is not a coordinator any more")), true)
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
