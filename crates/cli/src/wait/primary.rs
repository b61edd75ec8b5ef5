//! Waits until the role of the primary has passed to a node, or from it.

use super::{
    follow,
    progress::{Line, Progress},
};
use crate::{failure::Failure, output::Output};
use drover_client::Client;
use drover_model::wire::{Node, NodeChanged, StateOf};
use std::{ops::ControlFlow, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a node may be shown as if nobody had asked anything of it: whoever is asked may be a moment behind.
const BEHIND: Duration = Duration::from_secs(3);
/// How long the reason may take, or another try, once a handoff is being taken back.
const SAY_WHY: Duration = Duration::from_secs(10);
/// How long a handoff may take in all.
const LONGEST: Duration = Duration::from_secs(60);

/// How it came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It is as it was ordered.
    Done,
    /// It failed: why.
    Failed(String),
    /// The node shows no sign of the order any more: the state that it is in.
    Idle(String),
    /// It takes too long: the state that the node is in.
    Late(String),
}

/// A handoff to a node, or from it.
struct Handoff {
    /// To it.
    to: bool,
    /// What it said of an earlier handoff, before this one was asked for.
    earlier: String,
    /// It has begun to show.
    begun: bool,
    /// Since when it does not show.
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
            (true, "takeover") => self.goes_on("taking the role of the primary over"),
            (false, "relinquish") => self.goes_on("handing the role of the primary over"),
            // Shown by a node that is behind, it may be the end of an earlier handoff.
            (true, _) if !problem.is_empty() && (self.begun || *problem != self.earlier) => {
                return ControlFlow::Break(Outcome::Failed(problem.clone()));
            }
            _ => {
                let idle = self.idle.get_or_insert_with(Instant::now).elapsed();
                // A handoff to it that is taken back shows for a moment as if there had been none. How one from it
                // goes, the others are asked.
                if idle >= if self.begun && self.to { SAY_WHY } else { BEHIND } {
                    let failed = self.to && !problem.is_empty();
                    let outcome =
                        if failed { Outcome::Failed(problem.clone()) } else { Outcome::Idle(state.to_owned()) };
                    return ControlFlow::Break(outcome);
                }
                Line::of(&format!("{state}, waiting for the handoff"))
            }
        };
        if self.start.elapsed() >= LONGEST {
            return ControlFlow::Break(Outcome::Late(state.to_owned()));
        }
        ControlFlow::Continue(Some(line))
    }

    fn goes_on(&mut self, what: &str) -> Line {
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

/// Waits until a node is the primary, as an order asked for. `earlier`: its takeover problem before that order.
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
                    "{name} did not become the primary: it is in state {state}, and somebody gave another order meanwhile.\n{now}"
                ),
            })
        }
        Outcome::Late(state) => Err(late(name, "the primary", &state)),
    }
}

/// Waits until a node is not the primary any more, as an order asked for.
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
        // It has the role still. Whoever was to take it over says how that goes.
        let others = client.nodes(&[]).await?;
        if others.iter().any(|node| node.coordinator_state == "takeover") {
            handoff.idle = None;
        } else if let Some(heir) = others.iter().find(|node| node.name != *name && !node.takeover_problem.is_empty()) {
            let (heir, why) = (&heir.name, &heir.takeover_problem);
            return Err(Failure::new(format!("{name} is the primary still: {heir} did not take over: {why}")));
        } else if handoff.idle.is_none_or(|idle| idle.elapsed() >= SAY_WHY) {
            let message = format!("{name} is the primary still: somebody gave another order meanwhile.");
            return Err(Failure { code: 4, message });
        }
        sleep(Duration::from_secs(1)).await;
    }
    let now = now(client).await;
    let message = format!("{name} is secondary ({:.1} s). {now}", progress.seconds());
    let state = if order.state == "client" { "client" } else { "secondary" }.to_owned();
    Ok(NodeChanged { message, state, ..order.clone() })
}

/// Waits until a node is the primary, however it comes to that.
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
            Err(Failure::usage(format!("{name} is no coordinator and never becomes the primary.")))
        }
        Some(state) => Ok(StateOf { name: name.to_owned(), state }),
        None => Err(gone(name)),
    }
}

/// Who is the primary, in a sentence.
async fn now(client: &Client) -> String {
    match client.primary_node().await {
        Ok(Some(primary)) => format!("The primary is {}.", primary.name),
        Ok(None) => "There is no primary at this moment.".to_owned(),
        Err(error) => format!("Who is the primary is not known: {error}"),
    }
}

fn late(name: &str, aim: &str, state: &str) -> Failure {
    Failure::new(format!(
        "{name} is not {aim} yet after {} s: it is in state {state}. It goes on; look with 'drover node info {name}'.",
        LONGEST.as_secs()
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
    async fn a_handoff_is_waited_for() {
        let mut to = Handoff::new(true, "");
        assert!(to.look(&role("secondary", "")).is_continue(), "a view that is behind");
        assert!(to.look(&role("takeover", "")).is_continue());
        assert_eq!(to.look(&role("primary", "")), ends(Outcome::Done));

        let mut from = Handoff::new(false, "");
        assert!(from.look(&role("primary", "")).is_continue(), "the candidate is not ready");
        assert!(from.look(&role("relinquish", "")).is_continue());
        assert_eq!(from.look(&role("secondary", "")), ends(Outcome::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handoff_that_is_taken_back_says_why() {
        let mut to = Handoff::new(true, "no link");
        assert!(to.look(&role("secondary", "no link")).is_continue(), "that was the last time");
        assert!(to.look(&role("takeover", "")).is_continue());
        assert!(to.look(&role("secondary", "")).is_continue(), "it takes down what it brought up");
        pass(BEHIND).await;
        assert!(to.look(&role("secondary", "")).is_continue());
        assert_eq!(to.look(&role("secondary", "no link")), ends(Outcome::Failed("no link".to_owned())));

        // One that was over before it was seen.
        let failed = ends(Outcome::Failed("no link".to_owned()));
        assert_eq!(Handoff::new(true, "").look(&role("secondary", "no link")), failed);
        let mut same = Handoff::new(true, "no link");
        assert!(same.look(&role("secondary", "no link")).is_continue());
        pass(BEHIND).await;
        assert_eq!(same.look(&role("secondary", "no link")), failed);
    }

    #[tokio::test(start_paused = true)]
    async fn another_order_ends_the_wait() {
        for (begun, patience) in [(false, BEHIND), (true, SAY_WHY)] {
            let mut to = Handoff::new(true, "");
            if begun {
                assert!(to.look(&role("takeover", "")).is_continue());
            }
            assert!(to.look(&role("secondary", "")).is_continue());
            pass(patience).await;
            assert_eq!(to.look(&role("secondary", "")), ends(Outcome::Idle("secondary".to_owned())));
        }
        let mut to = Handoff::new(true, "");
        assert!(to.look(&role("takeover", "")).is_continue());
        pass(LONGEST).await;
        assert_eq!(to.look(&role("takeover", "")), ends(Outcome::Late("takeover".to_owned())));
    }

    fn order(state: &str) -> NodeChanged {
        NodeChanged { message: String::new(), name: "hv1".to_owned(), state: state.to_owned(), version: 1 }
    }

    fn lines(nodes: &[Node]) -> String {
        nodes.iter().map(|node| serde_json::to_string(node).unwrap() + "\n").collect()
    }

    #[tokio::test]
    async fn who_is_the_primary_now_is_told() {
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
    async fn a_node_that_stays_primary_says_whose_fault_it_is() {
        let mut heir = role("secondary", "no link");
        heir.name = "hv2".to_owned();
        let watched = lines(&[role("primary", "")]);
        let nodes = serde_json::to_string(&[role("primary", ""), heir]).unwrap();
        let client = routes(&[("/node/hv1/watch", watched), ("/node", nodes)]).await;
        let failed = secondary(&client, &order("primary"), QUIET).await.unwrap_err();
        assert_eq!(failed.message, "hv1 is the primary still: hv2 did not take over: no link");
        assert!(secondary(&client, &order("secondary"), QUIET).await.is_ok(), "it was already");
    }

    #[tokio::test]
    async fn a_node_that_cannot_become_primary_is_not_waited_for() {
        let watch = |state: &str| [("/node/hv1/watch", lines(&[role("takeover", ""), role(state, "")]))];
        let client = routes(&watch("primary")).await;
        assert_eq!(until_primary(&client, "hv1", QUIET).await.unwrap().state, "primary");
        let client = routes(&watch("client")).await;
        assert_eq!(until_primary(&client, "hv1", QUIET).await.unwrap_err().code, 2);
    }
}
