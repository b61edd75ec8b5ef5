//! Whether the nodes' daemons live, as transitions: what each does now, since when, and what that was seen by.
//!
//! The one place where a change is noticed: whoever has to act on one (an election, the log, a fence) is told by the
//! same transition. What a daemon does *now* is read from its records ([`NodeView::daemon_state`]); since when is what
//! this node has seen, for no clock is shared.

use drover_model::{ClusterView, DaemonState, Mono, NodeName, NodeView, WallTime};
use std::{collections::BTreeMap, fmt};

/// What told that a daemon is in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// Its session is there, and its own report says so.
    Report,
    /// Its session is there, and there is no report of this run yet.
    Session,
    /// Its session is gone, and its last report does not say that it stops.
    NoSession,
    /// Its session is gone, and its last report says that it stops.
    Farewell,
    /// Its record is gone: it was removed.
    NoRecord,
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Observation::Report => "its report",
            Observation::Session => "its session",
            Observation::NoSession => "its session is gone",
            Observation::Farewell => "its last report",
            Observation::NoRecord => "its record is gone",
        })
    }
}

/// What is known of one node's daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// What it does.
    pub state: DaemonState,
    /// Since when, as far as this node has seen it.
    pub since: Mono,
    /// The same for people.
    pub since_wall: WallTime,
    /// By what it was seen.
    pub seen_by: Observation,
}

/// A daemon does something else than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The node.
    pub node: NodeName,
    /// What it did before; `None`: it was not known.
    pub from: Option<DaemonState>,
    /// What it does now; `None`: it was removed.
    pub to: Option<DaemonState>,
    /// By what that was seen.
    pub seen_by: Observation,
}

/// What is known of all daemons.
pub type Lives = BTreeMap<NodeName, Life>;

/// By what a daemon's state is known.
fn observation(node: &NodeView, state: DaemonState) -> Observation {
    match (state, &node.session) {
        (DaemonState::Init, Some(_)) => Observation::Session,
        (_, Some(_)) => Observation::Report,
        (DaemonState::Stop, None) => Observation::Farewell,
        (_, None) => Observation::NoSession,
    }
}

/// Takes a view in: what is known then, and what is different from before.
pub fn observe(before: &Lives, view: &ClusterView, now: Mono, wall: WallTime) -> (Lives, Vec<Transition>) {
    let mut transitions = Vec::new();
    let mut lives = Lives::new();
    for (name, node) in &view.nodes {
        let state = node.daemon_state();
        let seen_by = observation(node, state);
        let old = before.get(name);
        let (since, since_wall) =
            old.filter(|old| old.state == state).map_or((now, wall), |old| (old.since, old.since_wall));
        if old.is_none_or(|old| old.state != state) {
            let from = old.map(|old| old.state);
            transitions.push(Transition { node: name.clone(), from, to: Some(state), seen_by });
        }
        lives.insert(name.clone(), Life { state, since, since_wall, seen_by });
    }
    let gone = before.iter().filter(|(name, _)| !view.nodes.contains_key(*name));
    transitions.extend(gone.map(|(name, old)| Transition {
        node: name.clone(),
        from: Some(old.state),
        to: None,
        seen_by: Observation::NoRecord,
    }));
    (lives, transitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::{cluster, name, node, status};

    fn told(transitions: &[Transition]) -> String {
        let word = |state: Option<DaemonState>| state.map_or("-", DaemonState::word);
        let one = |t: &Transition| format!("{} {}>{} ({})", t.node, word(t.from), word(t.to), t.seen_by);
        transitions.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_change_is_told_once_with_what_it_was_seen_by() {
        let mut view = cluster(vec![node("a", 8), node("b", 8)], vec![]);
        let (lives, news) = observe(&Lives::new(), &view, Mono(1), WallTime(0));
        assert_eq!(told(&news), "a ->run (its report), b ->run (its report)");

        view.change_node(&name("a"), |node| node.session = None);
        view.change_node(&name("b"), |node| status(node).daemon = DaemonState::Stop);
        let (lives, news) = observe(&lives, &view, Mono(5), WallTime(0));
        assert_eq!(told(&news), "a run>dead (its session is gone), b run>init (its session)");
        assert_eq!((lives[&name("a")].since, lives[&name("b")].since), (Mono(5), Mono(5)));

        view.change_node(&name("b"), |node| node.session = None);
        let (lives, news) = observe(&lives, &view, Mono(7), WallTime(0));
        assert_eq!(told(&news), "b init>stop (its last report)");
        let (lives, news) = observe(&lives, &view, Mono(9), WallTime(0));
        assert_eq!((told(&news).as_str(), lives[&name("a")].since), ("", Mono(5)), "nothing is told twice");

        let (lives, news) = observe(&lives, &cluster(vec![node("b", 8)], vec![]), Mono(11), WallTime(0));
        assert_eq!(told(&news), "b stop>run (its report), a dead>- (its record is gone)");
        assert_eq!(lives.len(), 1);
    }
}
