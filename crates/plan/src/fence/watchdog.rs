//! What others conclude from the promise of a node with a watchdog ([`crate::selffence`]): when it has not been renewed
//! for as long as it says, this boot of the machine has ended.
//!
//! The time counts from when the last renewal was *seen*, by this node's own clock. It was sent before, and the node
//! counts from the sending; so no clocks are compared. The proof is written in a transaction that deletes the promise
//! in the version that was seen: a renewal that came meanwhile makes it fail, and one that comes later finds no
//! promise.

use super::{Outlook, Step};
use drover_model::{ClusterView, DaemonState, Fence, FencePhase, Mono, NodeName, Promise, Version};
use std::{collections::BTreeMap, time::Duration};

/// A promise as seen by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The version seen last, by which it is deleted.
    pub version: Version,
    /// The store's revision of its last change: a promise that was deleted and made again may have the same version,
    /// but never the same revision.
    pub revision: i64,
    /// When this revision was first seen.
    pub since: Mono,
    /// What it says.
    pub promise: Promise,
}

impl Heard {
    /// After a read of the promise at `now`. Only an unchanged revision counts as silence since it was first seen.
    #[must_use]
    pub fn read(before: Option<&Heard>, version: Version, revision: i64, promise: Promise, now: Mono) -> Heard {
        let since = before.filter(|before| before.revision == revision).map_or(now, |before| before.since);
        Heard { version, revision, since, promise }
    }

    /// When this boot has ended, if it is the boot that is meant, and it has promised anything.
    fn over(&self, boot: &str) -> Option<(Mono, Duration)> {
        let after = self.promise.gone_after().filter(|_| !boot.is_empty() && self.promise.boot == boot)?;
        Some((self.since.after(after), after))
    }
}

/// The promises, by node.
pub type Silences = BTreeMap<NodeName, Heard>;

/// The silent nodes, whose promises are worth reading.
pub fn silent(view: &ClusterView) -> impl Iterator<Item = &NodeName> {
    let unproved = |name: &NodeName| {
        let fence = view.fences().get(name).filter(|fence| fence.value.phase.is_proved());
        fence.is_none_or(|fence| view.nodes.get(name).is_some_and(|node| !fence.value.is_of(&node.record.value)))
    };
    view.nodes
        .iter()
        .filter(|(_, node)| node.daemon_state() == DaemonState::Dead)
        .map(|(name, _)| name)
        .filter(move |name| unproved(name))
}

/// Adds what the promises prove to what was decided without them. `quiet`: nothing is proved by itself now.
#[must_use]
pub fn prove(mut outlook: Outlook, view: &ClusterView, silences: &Silences, quiet: bool, now: Mono) -> Outlook {
    for name in silent(view) {
        let (Some(node), Some(fence)) = (view.nodes.get(name), view.fences().get(name)) else { continue };
        let open = fence.value.phase != FencePhase::Over && fence.value.is_of(&node.record.value);
        if quiet || !open || node.unreadable.is_some() || view.fences().problem(name).is_some() {
            continue;
        }
        let Some(heard) = silences.get(name) else { continue };
        let Some((over, after)) = heard.over(&node.record.value.boot) else { continue };
        if now < over {
            outlook.look_again(over);
            outlook.explain(name, &fence.value, after);
            continue;
        }
        let what = format!(
            "its watchdog (timeout {} s) has reset it: it has not renewed its promise for {} s",
            heard.promise.timeout_ms / 1000,
            after.as_secs()
        );
        outlook.steps.retain(|(of, _)| of != name);
        outlook.steps.push((name.clone(), Step::RanOut(what, heard.version)));
        outlook.ask.retain(|of| of != name);
    }
    outlook
}

impl Outlook {
    /// Adds to the reasons against a proof that there will be one; drops them if they are on record already.
    fn explain(&mut self, name: &NodeName, fence: &Fence, after: Duration) {
        let soon = format!(
            "it has an armed watchdog, which proves it when it has not renewed its promise for {} s",
            after.as_secs()
        );
        self.steps.retain_mut(|(of, step)| match step {
            Step::Unproved(problems) if of == name => {
                problems.push(soon.clone());
                fence.phase != FencePhase::Unproved || fence.problems != *problems
            }
            _ => true,
        });
    }
}

#[cfg(test)]
mod tests;
