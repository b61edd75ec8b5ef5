//! The faults of all fences: silent nodes, VMs that wait, proofs that were false, a governor that holds back.

use super::{Outlook, waits};
use crate::{condemned::fence_of, faults, recover::Plan, returning};
use drover_model::{ClusterView, Fence, FencePhase, NodeName};
use std::collections::BTreeMap;

/// How many VMs a fault names.
const NAMED: usize = 10;
/// Percentage of the cluster's health that VMs without a node cost.
const WAITING_DELTA: u8 = 10;
/// Percentage that a governor which holds back costs: it is told beside the silent nodes.
const HELD_DELTA: u8 = 10;

/// What the ids of faults begin with; a node's name follows.
const DEAD: &str = "node-dead-";
/// See [`DEAD`].
const WAITING: &str = "fence-waiting-";
/// See [`DEAD`].
const FALSE: &str = "fence-false-";
/// Percentage that a false proof costs: VMs may have run twice.
const FALSE_DELTA: u8 = 30;
/// The fault of the governor.
const HELD: &str = "fence-held";

/// The faults of all fences, each with its message and its deduction from the health; all others of these kinds are
/// over.
pub fn faults(view: &ClusterView, outlook: &Outlook, plan: &Plan) -> BTreeMap<String, (String, u8)> {
    let mut faults = BTreeMap::new();
    for (name, node) in &view.nodes {
        let Some(fence) = fence_of(view, name, node) else { continue };
        // By its session: while it joins, its record still has the boot that has ended.
        let present = node.session.as_ref().is_some_and(|session| session.value.boot == fence.boot);
        if fence.phase == FencePhase::Over && present {
            faults.insert(format!("{FALSE}{name}"), (false_proof(name, fence), FALSE_DELTA));
        }
        if fence.phase == FencePhase::Over || node.session.is_some() {
            continue;
        }
        let message = if fence.phase == FencePhase::Proved && waits(view, &node.record.value, fence) {
            let change = match node.record.value.after_proof {
                Some(_) => format!("drover node set {name} --after-proof recover"),
                None => "drover config set --after-proof recover".to_owned(),
            };
            format!(
                "Node {name} is off ({}), and its VMs wait, because they are not to be recovered by themselves \
                ('{change}' changes that). To start them on other nodes, confirm it: \
                'drover node fence {name} --confirm-off'.",
                fence.proof()
            )
        } else if fence.phase.is_proved() {
            let back = match returning::will_be_ready(&node.record.value, &view.config, fence) {
                true => "becomes ready by itself once nothing of these is left on it, and they come home".to_owned(),
                false => format!("takes VMs again after 'drover node ready {name}'"),
            };
            format!(
                "Node {name} is off ({}), and its VMs were given to other nodes. When it is back, it {back}; if it is \
                gone for good, remove it ('drover node remove {name} --confirm-off').",
                fence.proof()
            )
        } else {
            let why = if fence.problems.is_empty() { "" } else { ": " };
            let why = format!("{why}{}", fence.problems.join("; "));
            format!(
                "Node {name} is silent, and it is not proved that its machine is off{why}. Its VMs are started on no \
                other node before that. If the machine is off, confirm it: 'drover node fence {name} --confirm-off'."
            )
        };
        faults.insert(format!("{DEAD}{name}"), (message, crate::health::DEAD_NODE));
        let waiting: Vec<String> = plan.waiting(name).map(|(vm, why)| format!("{vm} ({why})")).collect();
        if !waiting.is_empty() {
            let named = faults::named(&waiting, NAMED);
            let message = format!(
                "No other node can take these VMs of node {name}, which is off: {named}. They are tried again until \
                one can, or {name} is back."
            );
            faults.insert(format!("{WAITING}{name}"), (message, WAITING_DELTA));
        }
    }
    if let Some(why) = &outlook.held {
        let message = format!(
            "{why}, which is more probably a problem of the network or of this cluster's store than the end of all of \
            them: no further node is fenced by itself until it is over."
        );
        faults.insert(HELD.to_owned(), (message, HELD_DELTA));
    }
    faults
}

/// What is said of a node that joined in the boot whose end was proved.
fn false_proof(name: &NodeName, fence: &Fence) -> String {
    format!(
        "Node {name} is back in the boot of its machine that was proved to have ended ({}). So the proof was false, \
        and its VMs may have run on two nodes at once: check their disks. Correct [fence] or [watchdog] in the \
        configuration of {name}. This is reported while its daemon runs in that boot.",
        fence.proof()
    )
}

/// The ids of the reported faults of these kinds.
pub fn reported(view: &ClusterView) -> impl Iterator<Item = &String> {
    let kinds = [DEAD, WAITING, FALSE];
    let of_fences = move |id: &&String| **id == HELD || kinds.iter().any(|kind| id.starts_with(kind));
    view.faults().keys().filter(of_fences)
}
