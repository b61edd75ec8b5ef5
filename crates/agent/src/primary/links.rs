//! Monitors the networks of the floating addresses on this node: is there a carrier, and does the gateway answer?
//!
//! Problems go into the node's report. A primary with a network that does not work hands its role to a coordinator
//! whose networks do; among the nodes that could claim the role, the one with the fewest problems does first
//! (`plan::primary::election`).

use crate::context::Context;
use drover_drivers::host_network::HostNetwork;
use drover_model::Mono;
use futures_util::future::join_all;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Poll interval: a neighbour that falls silent causes no event.
const EVERY: Duration = Duration::from_millis(500);
/// Timeout for a gateway's answer.
const ANSWER: Duration = Duration::from_millis(400);
/// After this many probes in a row without an answer a gateway is unreachable, and after as many with one it is
/// reachable again.
const IN_A_ROW: u32 = 4;

/// A network on which this node would have a floating address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedLink {
    /// Its name in the configuration: `upstream`.
    pub name: String,
    /// The interface on it.
    pub interface: String,
    /// The address that must answer; `None`: only the carrier is checked.
    pub gateway: Option<IpAddr>,
}

/// State of a gateway.
#[derive(Default)]
struct State {
    in_a_row: u32,
    answers: bool,
    silent: bool,
}

impl State {
    /// Records the result of a probe; returns whether the gateway counts as unreachable.
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
pub(super) async fn watch(ctx: Arc<Context>, published: watch::Sender<Vec<String>>) {
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
        published.send_if_modified(|old| {
            let changed = *old != problems;
            if changed {
                tracing::info!(?problems, "the problems of the floating addresses' networks changed");
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

async fn look(driver: &dyn HostNetwork, network: &WatchedLink, state: &mut State) -> Option<String> {
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
            tracing::debug!(%error, "cannot probe a gateway");
            false
        }
    };
    state.take(answers).then(|| format!("the {name} network's gateway {gateway} does not answer on {interface}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_probe_results_do_not_change_the_state() {
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
