//! Liveness of the nodes' daemons as transitions: the state of each daemon, since when, and how that was observed.
//!
//! The only place where a change is detected: everything that acts on one (an election, the log, fencing) uses the same
//! transition. A daemon's *present* state is computed from its records ([`NodeView::daemon_state`]); the time is when
//! this node observed it, because clocks are not synchronised.

use drover_model::{ClusterView, DaemonState, Mono, NodeName, NodeView, WallTime};
use std::{collections::BTreeMap, fmt};

/// How a daemon's state was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It has a session, and its own report has the state.
    Report,
    /// It has a session, but no report of this run yet.
    Session,
    /// Its session is gone, and its last report does not announce a stop.
    NoSession,
    /// Its session is gone, and its last report announces a stop.
    Farewell,
    /// Its record is gone: the node was removed.
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

/// State of one node's daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its state.
    pub state: DaemonState,
    /// When this node first observed it.
    pub since: Mono,
    /// The same in wall-clock time, for users.
    pub since_wall: WallTime,
    /// How it was observed.
    pub seen_by: Observation,
}

/// A change of a daemon's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The node.
    pub node: NodeName,
    /// Its previous state; `None` if unknown.
    pub from: Option<DaemonState>,
    /// Its new state; `None` if the node was removed.
    pub to: Option<DaemonState>,
    /// How it was observed.
    pub seen_by: Observation,
}

/// State of all daemons.
pub type Lives = BTreeMap<NodeName, Life>;

/// How a daemon's state is observed.
fn observation(node: &NodeView, state: DaemonState) -> Observation {
    match (state, &node.session) {
        (DaemonState::Init, Some(_)) => Observation::Session,
        (_, Some(_)) => Observation::Report,
        (DaemonState::Stop, None) => Observation::Farewell,
        (_, None) => Observation::NoSession,
    }
}

/// Compares a view with the previous state; returns the new state and the transitions.
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
    use drover_model::testing::*;

    fn shown(transitions: &[Transition]) -> String {
        let word = |state: Option<DaemonState>| state.map_or("-", DaemonState::word);
        let one = |t: &Transition| format!("{} {}>{} ({})", t.node, word(t.from), word(t.to), t.seen_by);
        transitions.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_change_is_reported_once_with_its_observation() {
        let mut view = cluster(vec![node("a", 8), node("b", 8)], vec![]);
        let (lives, news) = observe(&Lives::new(), &view, Mono(1), WallTime(0));
        assert_eq!(shown(&news), "a ->run (its report), b ->run (its report)");

        view.change_node(&name("a"), |node| node.session = None);
        view.change_node(&name("b"), |node| node.report().daemon = DaemonState::Stop);
        let (lives, news) = observe(&lives, &view, Mono(5), WallTime(0));
        assert_eq!(shown(&news), "a run>dead (its session is gone), b run>init (its session)");
        assert_eq!((lives[&name("a")].since, lives[&name("b")].since), (Mono(5), Mono(5)));

        view.change_node(&name("b"), |node| node.session = None);
        let (lives, news) = observe(&lives, &view, Mono(7), WallTime(0));
        assert_eq!(shown(&news), "b init>stop (its last report)");
        let (lives, news) = observe(&lives, &view, Mono(9), WallTime(0));
        assert_eq!((shown(&news).as_str(), lives[&name("a")].since), ("", Mono(5)), "nothing is reported twice");

        let (lives, news) = observe(&lives, &cluster(vec![node("b", 8)], vec![]), Mono(11), WallTime(0));
        assert_eq!(shown(&news), "b stop>run (its report), a dead>- (its record is gone)");
        assert_eq!(lives.len(), 1);
    }
}
