//! Waiting until a node is flushed or ready.

use super::{
    follow,
    progress::{Line, Progress},
};
use crate::{failure::Failure, output::Output};
use drover_client::Client;
use drover_model::{
    NodeState,
    wire::{Blocked, DomainOrder, Drain, DrainOutcome, DrainWait, Node, NodeChanged},
};
use std::{ops::ControlFlow, time::Duration};
use tokio::time::{Instant, sleep};

/// How long the node's daemon, which does the work, may be away.
const AWAY_TIMEOUT: Duration = Duration::from_secs(120);

/// Outcome of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The order is done.
    Done,
    /// The node reports that all remaining VMs are blocked.
    Stuck,
    /// Somebody gave another order: the node's state.
    Overtaken(String),
    /// The daemon is away: its state.
    Away(String),
}

/// Progress of one wait.
struct Wait {
    order: DrainWait,
    /// The last seen version.
    seen: i64,
    /// The blocked VMs, as last reported by the node.
    blocked: Vec<Blocked>,
    away: Option<Instant>,
    /// The first reported number of remaining VMs, and when it was reported.
    first: Option<(u32, Instant)>,
}

impl Wait {
    fn new(order: DomainOrder, version: i64) -> Wait {
        Wait { order: DrainWait::new(order, version), seen: version, blocked: Vec::new(), away: None, first: None }
    }

    /// The remaining time, estimated from the pace so far; empty if nothing has moved yet.
    fn estimate(&mut self, left: u32) -> String {
        let (begin, since) = *self.first.get_or_insert_with(|| (left, Instant::now()));
        match begin.saturating_sub(left) {
            0 => String::new(),
            done if left > 0 => format!(", about {} s to go", (since.elapsed() * left / done).as_secs()),
            _ => String::new(),
        }
    }

    fn look(&mut self, node: &Node) -> ControlFlow<Outcome, Option<Line>> {
        let drain = node.drain.as_ref();
        let stay = || drain.filter(|drain| drain.left == 0).map(|drain| drain.blocked.clone()).unwrap_or_default();
        let Some(outcome) = self.order.outcome(node.version, &node.domain_state, stay) else {
            // The view of the answering daemon may lag behind.
            return ControlFlow::Continue(None);
        };
        self.seen = node.version;
        match outcome {
            DrainOutcome::Done => return ControlFlow::Break(Outcome::Done),
            DrainOutcome::Overtaken(state) => return ControlFlow::Break(Outcome::Overtaken(state)),
            // Only believed while the node's daemon runs, see below.
            DrainOutcome::Blocked(_) | DrainOutcome::UnderWay => {}
        }
        if node.daemon_state != "run" {
            if self.away.get_or_insert_with(Instant::now).elapsed() >= AWAY_TIMEOUT {
                return ControlFlow::Break(Outcome::Away(node.daemon_state.clone()));
            }
            return ControlFlow::Continue(Some(Line::of(&format!("its daemon is in state {}", node.daemon_state))));
        }
        self.away = None;
        let what = if self.order.aim() == NodeState::Ready { "being made ready" } else { "being flushed" };
        let Some(drain) = drain else { return ControlFlow::Continue(Some(Line::of(what))) };
        self.blocked.clone_from(&drain.blocked);
        if let DrainOutcome::Blocked(_) = outcome {
            return ControlFlow::Break(Outcome::Stuck);
        }
        let figures = format!("{}{}", figures(drain), self.estimate(drain.left));
        ControlFlow::Continue(Some(Line { what: what.to_owned(), figures }))
    }

    async fn done(&mut self, client: &Client, name: &str, progress: &mut Progress) -> Result<Outcome, Failure> {
        let outcome = follow(progress, || client.watch_node(name), |node| self.look(node)).await?;
        outcome.ok_or_else(|| Failure { code: 3, message: format!("{name} was removed meanwhile.") })
    }
}

/// Waits until a node is flushed, and returns the order with its outcome.
pub(crate) async fn flushed(client: &Client, order: &NodeChanged, output: Output) -> Result<NodeChanged, Failure> {
    let (name, version) = (&order.name, order.version);
    let mut wait = Wait::new(DomainOrder::Flush, version);
    let mut progress = Progress::new(name, output);
    loop {
        let outcome = wait.done(client, name, &mut progress).await?;
        if outcome != Outcome::Stuck {
            return result(name, &outcome, &wait, &progress);
        }
        // The node's report may be outdated; a plan is computed now.
        let plan = client.flush_plan(name).await?;
        let (blocked, others): (Vec<_>, Vec<_>) = plan.into_iter().partition(|fate| fate.fate == "blocked");
        if !blocked.is_empty() && others.iter().all(|fate| fate.fate == "away") {
            let vms = blocked.into_iter().map(Blocked::from);
            return Err(Failure::new(stuck(name, &vms.collect::<Vec<_>>())));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until a node is ready, and returns the order with its outcome.
pub(crate) async fn ready(client: &Client, order: &NodeChanged, output: Output) -> Result<NodeChanged, Failure> {
    let (name, version) = (&order.name, order.version);
    let mut wait = Wait::new(DomainOrder::Ready, version);
    let mut progress = Progress::new(name, output);
    let outcome = wait.done(client, name, &mut progress).await?;
    let done = result(name, &outcome, &wait, &progress)?;
    // It may have been over before the node reported anything. (Nodes of an older version have no such plan.)
    let stay = match client.ready_plan(name).await {
        Ok(plan) => plan.into_iter().filter(|fate| fate.fate == "blocked").map(Blocked::from).collect(),
        Err(_) => wait.blocked,
    };
    for Blocked { vm, reason } in stay {
        output.note(&format!("{vm} does not return: {reason}"));
    }
    Ok(done)
}

fn result(name: &str, outcome: &Outcome, wait: &Wait, progress: &Progress) -> Result<NodeChanged, Failure> {
    let message = match outcome {
        Outcome::Done => {
            let message = format!("{name} is {} ({:.1} s).", wait.order.aim(), progress.seconds());
            let (name, state) = (name.to_owned(), wait.order.aim().to_string());
            return Ok(NodeChanged { message, name, state, version: wait.seen });
        }
        Outcome::Stuck => stuck(name, &wait.blocked),
        Outcome::Overtaken(state) => {
            let message = format!("Somebody gave {name} another order meanwhile: it is in state {state}.");
            return Err(Failure { code: 4, message });
        }
        Outcome::Away(state) => format!(
            "The daemon of {name}, which does this, has been in state {state} for {} s. The work continues when the \
             daemon is back.",
            AWAY_TIMEOUT.as_secs()
        ),
    };
    Err(Failure::new(message))
}

/// The message about VMs that cannot leave a node.
fn stuck(name: &str, vms: &[Blocked]) -> String {
    let list: Vec<String> = vms.iter().map(|b| format!("  {b}")).collect();
    let first = vms.first().map_or("VM", |b| &b.vm);
    format!(
        "{name} is not flushed: these VMs are still on it, and cannot be moved:\n{}\n\
         Shut them down ('drover vm shutdown {first}') or move them yourself ('drover vm move {first} --to NODE'), and \
         the flush continues;\nor cancel the flush ('drover node ready {name}').",
        list.join("\n")
    )
}

/// Progress of a node, in figures.
pub(crate) fn figures(drain: &Drain) -> String {
    let blocked = match drain.blocked.as_slice() {
        [] => String::new(),
        vms => {
            let names: Vec<&str> = vms.iter().map(|b| b.vm.as_str()).collect();
            format!(", {} blocked ({})", vms.len(), names.join(", "))
        }
    };
    match drain.left {
        0 => format!("no VM left to move{blocked}"),
        left => format!("{left} {} left, {} moving{blocked}", if left == 1 { "VM" } else { "VMs" }, drain.moving),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(version: i64, state: &str, daemon: &str, drain: serde_json::Value) -> Node {
        let fields = json!({"version": version, "domain_state": state, "daemon_state": daemon, "drain": drain});
        crate::wait::tests::node(fields)
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_flush_ends_when_all_remaining_vms_are_blocked() {
        let mut wait = Wait::new(DomainOrder::Flush, 5);
        let stuck = json!([{"vm": "db", "reason": "no"}]);
        let line = |figures: &str| {
            ControlFlow::Continue(Some(Line { what: "being flushed".to_owned(), figures: figures.to_owned() }))
        };
        let mut look = |node: &Node| wait.look(node);
        assert_eq!(look(&node(4, "ready", "run", json!(null))), ControlFlow::Continue(None), "an older version");
        assert_eq!(
            look(&node(5, "flush", "run", json!({"left": 3, "moving": 2, "blocked": []}))),
            line("3 VMs left, 2 moving")
        );
        let some = json!({"left": 1, "moving": 1, "blocked": stuck});
        assert_eq!(look(&node(5, "flush", "run", some)), line("1 VM left, 1 moving, 1 blocked (db), about 0 s to go"));
        let none = || json!({"left": 0, "moving": 0, "blocked": stuck});
        assert_eq!(look(&node(5, "flush", "run", none())), ControlFlow::Break(Outcome::Stuck));
        assert_eq!(look(&node(6, "flushed", "run", json!(null))), ControlFlow::Break(Outcome::Done));
        assert_eq!(
            look(&node(6, "unflush", "run", json!(null))),
            ControlFlow::Break(Outcome::Overtaken("unflush".to_owned()))
        );
        assert!(look(&node(5, "flush", "dead", none())).is_continue(), "its daemon may come back");
        tokio::time::advance(AWAY_TIMEOUT).await;
        assert_eq!(look(&node(5, "flush", "dead", none())), ControlFlow::Break(Outcome::Away("dead".to_owned())));
    }

    #[tokio::test]
    async fn blocked_vms_do_not_prevent_a_node_from_being_ready() {
        let mut wait = Wait::new(DomainOrder::Ready, 5);
        let blocked = json!({"left": 0, "moving": 0, "blocked": [{"vm": "db", "reason": "no"}]});
        assert!(wait.look(&node(5, "unflush", "run", blocked)).is_continue());
        assert_eq!(wait.look(&node(6, "ready", "run", json!(null))), ControlFlow::Break(Outcome::Done));
        assert_eq!(wait.blocked.len(), 1, "reported at the end");
    }
}
