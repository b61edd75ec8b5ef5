//! Waiting until a node has, or no longer has, the primary role.

use super::{
    follow,
    progress::{Line, Progress},
};
use crate::{failure::Failure, output::Output};
use drover_client::Client;
use drover_model::wire::{ListNodes, Node, NodeChanged, StateOf};
use std::{ops::ControlFlow, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a node may show no sign of the order: the view of the answering node may lag behind.
const LAG_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the reason, or another attempt, may take after a handoff is cancelled.
const REASON_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for a whole handoff.
const HANDOFF_TIMEOUT: Duration = Duration::from_secs(60);

/// Outcome of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The order is done.
    Done,
    /// It failed, for this reason.
    Failed(String),
    /// The node shows no sign of the order any more: the node's state.
    Idle(String),
    /// It takes too long: the node's state.
    Late(String),
}

/// A handoff to or from a node.
struct Handoff {
    /// Whether it is a handoff to the node.
    to: bool,
    /// The node's takeover problem before this handoff was ordered.
    earlier: String,
    /// Whether a sign of the handoff was seen.
    begun: bool,
    /// Since when there is no sign of it.
    idle: Option<Instant>,
    start: Instant,
}

impl Handoff {
    fn new(to: bool, earlier: &str) -> Handoff {
        Handoff { to, earlier: earlier.to_owned(), begun: false, idle: None, start: Instant::now() }
    }

    fn look(&mut self, node: &Node) -> ControlFlow<Outcome, Option<Line>> {
        let (state, problem) = (node.coordinator_state.as_str(), &node.takeover_problem);
        let line = match (self.to, state) {
            (true, "primary") | (false, "secondary" | "client") => return ControlFlow::Break(Outcome::Done),
            (true, "takeover") => self.in_progress("taking over the primary role"),
            (false, "relinquish") => self.in_progress("handing over the primary role"),
            // The same problem as before may be that of an earlier handoff, from a view that lags behind.
            (true, _) if !problem.is_empty() && (self.begun || *problem != self.earlier) => {
                return ControlFlow::Break(Outcome::Failed(problem.clone()));
            }
            _ => {
                let idle = self.idle.get_or_insert_with(Instant::now).elapsed();
                // While a handoff to the node is being cancelled, there is no sign of it for a moment. For a handoff
                // from the node, the caller asks the other nodes.
                if idle >= if self.begun && self.to { REASON_TIMEOUT } else { LAG_TIMEOUT } {
                    let failed = self.to && !problem.is_empty();
                    let outcome =
                        if failed { Outcome::Failed(problem.clone()) } else { Outcome::Idle(state.to_owned()) };
                    return ControlFlow::Break(outcome);
                }
                Line::of(&format!("{state}, waiting for the handoff"))
            }
        };
        if self.start.elapsed() >= HANDOFF_TIMEOUT {
            return ControlFlow::Break(Outcome::Late(state.to_owned()));
        }
        ControlFlow::Continue(Some(line))
    }

    fn in_progress(&mut self, what: &str) -> Line {
        (self.begun, self.idle) = (true, None);
        Line::of(what)
    }

    async fn done(&mut self, client: &Client, name: &str, progress: &mut Progress) -> Result<Outcome, Failure> {
        let outcome = follow(progress, || client.watch_node(name), |node| self.look(node)).await?;
        outcome.ok_or_else(|| gone(name))
    }
}

fn gone(name: &str) -> Failure {
    Failure { code: 3, message: format!("{name} was removed meanwhile.") }
}

/// Waits until a node is the primary after an order. `earlier`: its takeover problem before that order.
pub(crate) async fn primary(
    client: &Client,
    order: &NodeChanged,
    earlier: &str,
    output: Output,
) -> Result<NodeChanged, Failure> {
    let name = &order.name;
    let mut progress = Progress::new(name, output);
    let outcome = match order.state.as_str() {
        "primary" => Outcome::Done,
        _ => Handoff::new(true, earlier).done(client, name, &mut progress).await?,
    };
    match outcome {
        Outcome::Done => {
            let message = format!("{name} is the primary ({:.1} s).", progress.seconds());
            Ok(NodeChanged { message, state: "primary".to_owned(), ..order.clone() })
        }
        Outcome::Failed(why) => {
            let now = now(client).await;
            Err(Failure::new(format!("{name} did not become the primary: {why}\n{now}")))
        }
        Outcome::Idle(state) => {
            let now = now(client).await;
            Err(Failure {
                code: 4,
                message: format!(
                    "{name} did not become the primary: it is in state {state}, and somebody gave another order \
                     meanwhile.\n{now}"
                ),
            })
        }
        Outcome::Late(state) => Err(late(name, "the primary", &state)),
    }
}

/// Waits until a node is no longer the primary after an order.
pub(crate) async fn secondary(client: &Client, order: &NodeChanged, output: Output) -> Result<NodeChanged, Failure> {
    let name = &order.name;
    let mut progress = Progress::new(name, output);
    let mut handoff = Handoff::new(false, "");
    loop {
        let outcome = match order.state.as_str() {
            "secondary" | "client" => Outcome::Done,
            _ => handoff.done(client, name, &mut progress).await?,
        };
        match outcome {
            Outcome::Done => break,
            Outcome::Late(state) => return Err(late(name, "secondary", &state)),
            Outcome::Failed(_) | Outcome::Idle(_) => {}
        }
        // It still has the role. The node that was to take over reports how that went.
        let others = client.nodes(&ListNodes::default()).await?;
        if others.iter().any(|node| node.coordinator_state == "takeover") {
            handoff.idle = None;
        } else if let Some(candidate) =
            others.iter().find(|node| node.name != *name && !node.takeover_problem.is_empty())
        {
            let (candidate, why) = (&candidate.name, &candidate.takeover_problem);
            return Err(Failure::new(format!("{name} is still the primary: {candidate} did not take over: {why}")));
        } else if handoff.idle.is_none_or(|idle| idle.elapsed() >= REASON_TIMEOUT) {
            let message = format!("{name} is still the primary: somebody gave another order meanwhile.");
            return Err(Failure { code: 4, message });
        }
        sleep(Duration::from_secs(1)).await;
    }
    let now = now(client).await;
    let message = format!("{name} is secondary ({:.1} s). {now}", progress.seconds());
    let state = if order.state == "client" { "client" } else { "secondary" }.to_owned();
    Ok(NodeChanged { message, state, ..order.clone() })
}

/// Waits until a node is the primary, for whatever reason.
pub(crate) async fn until_primary(client: &Client, name: &str, output: Output) -> Result<StateOf, Failure> {
    let mut progress = Progress::new(name, output);
    let outcome = follow(
        &mut progress,
        || client.watch_node(name),
        |node: &Node| match node.coordinator_state.as_str() {
            state @ ("primary" | "client") => ControlFlow::Break(state.to_owned()),
            state => ControlFlow::Continue(Some(Line::of(state))),
        },
    );
    match outcome.await? {
        Some(state) if state == "client" => {
            Err(Failure::usage(format!("{name} is not a coordinator and never becomes the primary.")))
        }
        Some(state) => Ok(StateOf { name: name.to_owned(), state }),
        None => Err(gone(name)),
    }
}

/// A sentence about which node is the primary.
async fn now(client: &Client) -> String {
    match client.primary_node().await {
        Ok(Some(primary)) => format!("The primary is {}.", primary.name),
        Ok(None) => "There is no primary at the moment.".to_owned(),
        Err(error) => format!("Which node is the primary is not known: {error}"),
    }
}

fn late(name: &str, aim: &str, state: &str) -> Failure {
    Failure::new(format!(
        "{name} is not {aim} yet after {} s: it is in state {state}. The handoff continues; see 'drover node info \
         {name}'.",
        HANDOFF_TIMEOUT.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::tests::{QUIET, node, routes};
    use serde_json::json;

    fn role(state: &str, problem: &str) -> Node {
        node(json!({"coordinator_state": state, "takeover_problem": problem}))
    }

    fn ends(outcome: Outcome) -> ControlFlow<Outcome, Option<Line>> {
        ControlFlow::Break(outcome)
    }

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_when_the_handoff_is_done() {
        let mut to = Handoff::new(true, "");
        assert!(to.look(&role("secondary", "")).is_continue(), "the view lags behind");
        assert!(to.look(&role("takeover", "")).is_continue());
        assert_eq!(to.look(&role("primary", "")), ends(Outcome::Done));

        let mut from = Handoff::new(false, "");
        assert!(from.look(&role("primary", "")).is_continue(), "the candidate is not ready");
        assert!(from.look(&role("relinquish", "")).is_continue());
        assert_eq!(from.look(&role("secondary", "")), ends(Outcome::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_handoff_reports_why() {
        let mut to = Handoff::new(true, "no link");
        assert!(to.look(&role("secondary", "no link")).is_continue(), "the problem of an earlier handoff");
        assert!(to.look(&role("takeover", "")).is_continue());
        assert!(to.look(&role("secondary", "")).is_continue(), "it is undoing the takeover");
        pass(LAG_TIMEOUT).await;
        assert!(to.look(&role("secondary", "")).is_continue());
        assert_eq!(to.look(&role("secondary", "no link")), ends(Outcome::Failed("no link".to_owned())));

        // A handoff that ended before it was seen.
        let failed = ends(Outcome::Failed("no link".to_owned()));
        assert_eq!(Handoff::new(true, "").look(&role("secondary", "no link")), failed);
        let mut same = Handoff::new(true, "no link");
        assert!(same.look(&role("secondary", "no link")).is_continue());
        pass(LAG_TIMEOUT).await;
        assert_eq!(same.look(&role("secondary", "no link")), failed);
    }

    #[tokio::test(start_paused = true)]
    async fn another_order_ends_the_wait() {
        for (begun, timeout) in [(false, LAG_TIMEOUT), (true, REASON_TIMEOUT)] {
            let mut to = Handoff::new(true, "");
            if begun {
                assert!(to.look(&role("takeover", "")).is_continue());
            }
            assert!(to.look(&role("secondary", "")).is_continue());
            pass(timeout).await;
            assert_eq!(to.look(&role("secondary", "")), ends(Outcome::Idle("secondary".to_owned())));
        }
        let mut to = Handoff::new(true, "");
        assert!(to.look(&role("takeover", "")).is_continue());
        pass(HANDOFF_TIMEOUT).await;
        assert_eq!(to.look(&role("takeover", "")), ends(Outcome::Late("takeover".to_owned())));
    }

    fn order(state: &str) -> NodeChanged {
        NodeChanged { message: String::new(), name: "hv1".to_owned(), state: state.to_owned(), version: 1 }
    }

    fn lines(nodes: &[Node]) -> String {
        nodes.iter().map(|node| serde_json::to_string(node).unwrap() + "\n").collect()
    }

    #[tokio::test]
    async fn a_failed_handoff_reports_the_current_primary() {
        let watched = lines(&[role("secondary", ""), role("takeover", ""), role("secondary", "no link")]);
        let client = routes(&[
            ("/node/hv1/watch", watched),
            ("/status/primary_node", r#"{"name": "hv2", "state": "primary"}"#.to_owned()),
        ])
        .await;
        let failed = primary(&client, &order("takeover"), "", QUIET).await.unwrap_err();
        assert_eq!(failed.message, "hv1 did not become the primary: no link\nThe primary is hv2.");
        assert_eq!(failed.code, 1);
        let client = routes(&[("/node/hv1/watch", lines(&[role("takeover", ""), role("primary", "")]))]).await;
        assert_eq!(primary(&client, &order("takeover"), "", QUIET).await.unwrap().state, "primary");
        assert!(primary(&routes(&[]).await, &order("primary"), "", QUIET).await.is_ok(), "it was already");
        assert_eq!(primary(&routes(&[]).await, &order("takeover"), "", QUIET).await.unwrap_err().code, 3);
    }

    #[tokio::test]
    async fn a_node_that_stays_primary_reports_why() {
        let mut candidate = role("secondary", "no link");
        candidate.name = "hv2".to_owned();
        let watched = lines(&[role("primary", "")]);
        let nodes = serde_json::to_string(&[role("primary", ""), candidate]).unwrap();
        let client = routes(&[("/node/hv1/watch", watched), ("/node", nodes)]).await;
        let failed = secondary(&client, &order("primary"), QUIET).await.unwrap_err();
        assert_eq!(failed.message, "hv1 is still the primary: hv2 did not take over: no link");
        assert!(secondary(&client, &order("secondary"), QUIET).await.is_ok(), "it was already");
    }

    #[tokio::test]
    async fn there_is_no_wait_for_a_node_that_cannot_become_primary() {
        let watch = |state: &str| [("/node/hv1/watch", lines(&[role("takeover", ""), role(state, "")]))];
        let client = routes(&watch("primary")).await;
        assert_eq!(until_primary(&client, "hv1", QUIET).await.unwrap().state, "primary");
        let client = routes(&watch("client")).await;
        assert_eq!(until_primary(&client, "hv1", QUIET).await.unwrap_err().code, 2);
    }
}
