//! Waits until a node is flushed, or ready.

use super::{
    follow,
    progress::{Line, Progress},
};
use crate::{failure::Failure, output::Output};
use drover_client::Client;
use drover_model::wire::{Blocked, Drain, Node, NodeChanged};
use std::{ops::ControlFlow, time::Duration};
use tokio::time::{Instant, sleep};

/// For how long the node's daemon, which does it, may be away.
const AWAY: Duration = Duration::from_secs(120);

/// How it came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It is as it was ordered.
    Done,
    /// Nothing more can be done about what is left, its node says.
    Stuck,
    /// Somebody gave another order: the state that the node is in.
    Overtaken(String),
    /// The daemon is away: its state.
    Away(String),
}

/// What is waited for: the state that the node is in meanwhile, the aim, and the order's version of the node's record.
struct Wait {
    doing: &'static str,
    aim: &'static str,
    version: i64,
    /// The version that was seen last.
    seen: i64,
    /// The VMs that nothing can be done about, as the node said last.
    blocked: Vec<Blocked>,
    away: Option<Instant>,
    /// How many VMs were left when that was told first, and when.
    first: Option<(u32, Instant)>,
}

impl Wait {
    fn new(doing: &'static str, aim: &'static str, version: i64) -> Wait {
        Wait { doing, aim, version, seen: version, blocked: Vec::new(), away: None, first: None }
    }

    /// How long it may take still, from the pace so far; empty: nothing has moved yet.
    fn estimate(&mut self, left: u32) -> String {
        let (begin, since) = *self.first.get_or_insert_with(|| (left, Instant::now()));
        match begin.saturating_sub(left) {
            0 => String::new(),
            done if left > 0 => format!(", about {} s to go", (since.elapsed() * left / done).as_secs()),
            _ => String::new(),
        }
    }

    fn look(&mut self, node: &Node) -> ControlFlow<Outcome, Option<Line>> {
        let state = node.domain_state.as_str();
        // A daemon whose view lags behind tells old news first.
        if node.version < self.version {
            return ControlFlow::Continue(None);
        }
        self.seen = node.version;
        if state == self.aim {
            return ControlFlow::Break(Outcome::Done);
        }
        if state != self.doing {
            return ControlFlow::Break(Outcome::Overtaken(state.to_owned()));
        }
        if node.daemon_state != "run" {
            if self.away.get_or_insert_with(Instant::now).elapsed() >= AWAY {
                return ControlFlow::Break(Outcome::Away(node.daemon_state.clone()));
            }
            return ControlFlow::Continue(Some(Line::of(&format!("its daemon is in state {}", node.daemon_state))));
        }
        self.away = None;
        let what = if self.aim == "ready" { "being made ready" } else { "being flushed" };
        let Some(drain) = &node.drain else { return ControlFlow::Continue(Some(Line::of(what))) };
        self.blocked.clone_from(&drain.blocked);
        // VMs that cannot come home do not keep a node from being ready.
        if self.aim == "flushed" && drain.left == 0 && !drain.blocked.is_empty() {
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

/// Waits until a node is flushed, as an order asked for, and gives the order as it came out.
pub(crate) async fn flushed(client: &Client, order: &NodeChanged, output: Output) -> Result<NodeChanged, Failure> {
    let (name, version) = (&order.name, order.version);
    let mut wait = Wait::new("flush", "flushed", version);
    let mut progress = Progress::new(name, output);
    loop {
        let outcome = wait.done(client, name, &mut progress).await?;
        if outcome != Outcome::Stuck {
            return told(name, &outcome, &wait, &progress);
        }
        // What the node said may be a moment old; its plan is made now.
        let plan = client.flush_plan(name).await?;
        if !plan.is_empty() && plan.iter().all(|fate| fate.fate == "blocked") {
            let vms = plan.into_iter().map(|fate| Blocked { vm: fate.vm, reason: fate.reason });
            return Err(Failure::new(stuck(name, &vms.collect::<Vec<_>>())));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until a node is ready, as an order asked for, and gives the order as it came out.
pub(crate) async fn ready(client: &Client, order: &NodeChanged, output: Output) -> Result<NodeChanged, Failure> {
    let (name, version) = (&order.name, order.version);
    let mut wait = Wait::new("unflush", "ready", version);
    let mut progress = Progress::new(name, output);
    let outcome = wait.done(client, name, &mut progress).await?;
    let done = told(name, &outcome, &wait, &progress)?;
    for Blocked { vm, reason } in &wait.blocked {
        output.note(&format!("{vm} does not come home: {reason}"));
    }
    Ok(done)
}

fn told(name: &str, outcome: &Outcome, wait: &Wait, progress: &Progress) -> Result<NodeChanged, Failure> {
    let message = match outcome {
        Outcome::Done => {
            let message = format!("{name} is {} ({:.1} s).", wait.aim, progress.seconds());
            let (name, state) = (name.to_owned(), wait.aim.to_owned());
            return Ok(NodeChanged { message, name, state, version: wait.seen });
        }
        Outcome::Stuck => stuck(name, &wait.blocked),
        Outcome::Overtaken(state) => {
            let message = format!("Somebody gave {name} another order meanwhile: it is in state {state}.");
            return Err(Failure { code: 4, message });
        }
        Outcome::Away(state) => format!(
            "The daemon of {name}, which does this, has been in state {state} for {} s. It goes on when the daemon is back.",
            AWAY.as_secs()
        ),
    };
    Err(Failure::new(message))
}

/// What is told of VMs that cannot leave a node.
fn stuck(name: &str, vms: &[Blocked]) -> String {
    let list: Vec<String> = vms.iter().map(|b| format!("  {}: {}", b.vm, b.reason)).collect();
    let first = vms.first().map_or("VM", |b| &b.vm);
    format!(
        "{name} is not flushed: nothing more can be done about these VMs, which are on it still:\n{}\n\
         Shut them down ('drover vm shutdown {first}') or move them by hand ('drover vm move {first} --to NODE'), and the flush goes on;\n\
         or take it back ('drover node ready {name}').",
        list.join("\n")
    )
}

/// How far a node is, in figures.
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
    async fn a_flush_is_waited_for_until_nothing_more_can_be_done() {
        let mut wait = Wait::new("flush", "flushed", 5);
        let stuck = json!([{"vm": "db", "reason": "no"}]);
        let line = |figures: &str| {
            ControlFlow::Continue(Some(Line { what: "being flushed".to_owned(), figures: figures.to_owned() }))
        };
        let mut look = |node: &Node| wait.look(node);
        assert_eq!(look(&node(4, "ready", "run", json!(null))), ControlFlow::Continue(None), "old news");
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
        tokio::time::advance(AWAY).await;
        assert_eq!(look(&node(5, "flush", "dead", none())), ControlFlow::Break(Outcome::Away("dead".to_owned())));
    }

    #[tokio::test]
    async fn vms_that_stay_away_do_not_keep_a_node_from_being_ready() {
        let mut wait = Wait::new("unflush", "ready", 5);
        let blocked = json!({"left": 0, "moving": 0, "blocked": [{"vm": "db", "reason": "no"}]});
        assert!(wait.look(&node(5, "unflush", "run", blocked)).is_continue());
        assert_eq!(wait.look(&node(6, "ready", "run", json!(null))), ControlFlow::Break(Outcome::Done));
        assert_eq!(wait.blocked.len(), 1, "they are told in the end");
    }
}
