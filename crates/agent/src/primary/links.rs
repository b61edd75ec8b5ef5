//! Whether the networks work here on which this node would have floating addresses: is there a cable, and does the
//! gateway answer?
//!
//! What is found goes into the node's report. A primary with a network that does not work hands its role to a
//! coordinator whose networks do, and among those that could claim the role, the one with the fewest problems does
//! first (`plan::primary::election`).

use crate::context::Context;
use drover_drivers::network::Network;
use drover_model::Mono;
use futures_util::future::join_all;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// How often it is looked. A neighbour that falls silent gives no event.
const EVERY: Duration = Duration::from_millis(500);
/// How long a gateway has for its answer.
const ANSWER: Duration = Duration::from_millis(400);
/// So many looks in a row without an answer make a gateway unreachable, and as many with one make it reachable again.
const IN_A_ROW: u32 = 4;

/// A network on which this node would have a floating address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedNetwork {
    /// What administrators call it: `upstream`.
    pub name: String,
    /// The interface to it.
    pub interface: String,
    /// Who must answer on it; `None`: only the cable is looked at.
    pub gateway: Option<IpAddr>,
}

/// What is known of one.
#[derive(Default)]
struct State {
    in_a_row: u32,
    answers: bool,
    silent: bool,
}

impl State {
    /// Takes in whether the gateway answered; returns whether it counts as silent.
    fn take(&mut self, answers: bool) -> bool {
        self.in_a_row = if answers == self.answers { self.in_a_row.saturating_add(1) } else { 1 };
        self.answers = answers;
        if self.in_a_row >= IN_A_ROW {
            self.silent = !answers;
        }
        self.silent
    }
}

/// Watches until dropped.
pub(super) async fn watch(ctx: Arc<Context>) {
    let networks = ctx.options.primary.networks.clone();
    if networks.is_empty() {
        return std::future::pending().await;
    }
    let mut changes = ctx.network.changes();
    let mut states: Vec<State> = networks.iter().map(|_| State::default()).collect();
    loop {
        changes.mark_unchanged();
        let next: Mono = ctx.clock.now().after(EVERY);
        let looks = networks.iter().zip(&mut states).map(|(network, state)| look(&*ctx.network, network, state));
        let problems: Vec<String> = join_all(looks).await.into_iter().flatten().collect();
        ctx.network_problems.send_if_modified(|old| {
            let changed = *old != problems;
            if changed {
                tracing::info!(?problems, "what ails the networks of the floating addresses");
                *old = problems;
            }
            changed
        });
        tokio::select! {
            biased;
            () = ctx.clock.until(Some(next)) => {}
            Ok(()) = changes.changed() => {}
        }
    }
}

async fn look(driver: &dyn Network, network: &WatchedNetwork, state: &mut State) -> Option<String> {
    let (name, interface) = (&network.name, &network.interface);
    match driver.link(interface).await {
        Ok(Some(link)) if link.up && link.carrier => {}
        Ok(Some(link)) if link.up => return Some(format!("the {name} network has no carrier on {interface}")),
        Ok(Some(_)) => return Some(format!("the {name} network's interface {interface} is down")),
        Ok(None) => return Some(format!("the {name} network's interface {interface} does not exist")),
        Err(error) => return Some(format!("the {name} network: {error}")),
    }
    let gateway = network.gateway?;
    let answers = match driver.reaches(interface, gateway, ANSWER).await {
        Ok(answers) => answers,
        Err(error) => {
            tracing::debug!(%error, "a gateway was not asked");
            false
        }
    };
    state.take(answers).then(|| format!("the {name} network's gateway {gateway} does not answer on {interface}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_answer_is_no_silence_and_one_answer_no_recovery() {
        let mut state = State::default();
        let seen: Vec<bool> = [
            true, false, false, false, true, false, false, false, false, true, true, true, false, true, true, true,
            true,
        ]
        .into_iter()
        .map(|answers| state.take(answers))
        .collect();
        let silent: Vec<usize> = (0..seen.len()).filter(|i| seen[*i]).collect();
        assert_eq!(silent, [8, 9, 10, 11, 12, 13, 14, 15]);
    }
}
