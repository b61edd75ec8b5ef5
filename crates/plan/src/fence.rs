//! Which nodes are suspected to be off, and what becomes of their fences. The primary decides it. [`crate::recover`]
//! says what becomes of the VMs once there is proof.
//!
//! * A node's session that is gone raises a suspicion, and no more: its daemon may have crashed, it may be cut off, or
//!   its machine may be off. Nothing is started elsewhere before it is proved that this boot has ended. So a daemon
//!   that is restarted, upgraded or killed costs its guests nothing; when it is back, the suspicion is over.
//! * A machine that does not answer is asked about while its session lives: if its BMC reads off, nothing is waited for
//!   when the session ends. Nothing else is done about a node with a session.
//! * Proof is looked for with the node's BMC ([`proof`]). Before its power is cut, the fence says so: a daemon that
//!   comes back in that boot does nothing until that is over ([`returned`]).
//! * A node with an armed watchdog promises to be reset when it is cut off, which proves as much ([`watchdog`]).
//! * A daemon that was stopped on purpose is not suspected at all.
//! * The **governor**: if more than half of the nodes are silent, or many have fallen silent within a short time, this
//!   node, the network or the store is more probably to blame than they are. Then no new suspicion is raised.
//! * Maintenance raises none either. In both cases nothing is proved by itself meanwhile, and no power is cut. What an
//!   administrator confirms is done in any case.

pub mod proof;
pub mod report;
pub mod watchdog;

use crate::{
    condemned::{fence_of, is_condemned},
    liveness::{Life, Lives},
    recover::Plan,
};
use drover_model::{
    AfterProof, ClusterView, DaemonState, Evidence, EvidenceKind, Fence, FencePhase, Mono, NodeName, NodeRecord,
    NodeView, Stored, Version, WallTime,
};
use proof::{
    Next::{Ask, Await, Cut, Proved, Unproved},
    Tries,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a node is silent before it is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// How long a node is silent before its BMC is asked, so that the answer is there when it is suspected.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// Interval at which the nodes are listened to; longer if they are many, so that these are no more in a second.
const PULSE: Duration = Duration::from_secs(1);
/// See [`PULSE`].
const HEARD_IN_A_SECOND: u32 = 50;
/// The time in which only so many nodes may fall silent (`at_once`).
pub const WINDOW: Duration = Duration::from_secs(60);
/// How many of so many nodes may fall silent within [`WINDOW`].
fn at_once(nodes: usize) -> usize {
    nodes.div_ceil(3)
}

/// A change of a node's fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new suspicion against its present boot.
    Suspect,
    /// The node is back, or was stopped on purpose: the suspicion is withdrawn.
    Withdraw,
    /// Proof is being looked for.
    Proving,
    /// Its power is about to be cut, which is written before it is ordered.
    Cut,
    /// Nothing proves that it is off, for these reasons.
    Unproved(Vec<String>),
    /// It is off, as this proves.
    Proved(String),
    /// Its watchdog has reset it, as this says; the proof uses up its promise of this version.
    RanOut(String, Version),
    /// Its VMs are to be recovered; it takes no VMs until it is made ready.
    Recover,
    /// Nothing of it is left.
    Recovered,
    /// Its machine is about to be switched on, which is written before it is ordered.
    PowerOn,
    /// It is back: the proof is not used any more.
    End,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outlook {
    /// The changes of fences.
    pub steps: Vec<(NodeName, Step)>,
    /// The nodes about which an attempt to find proof is to begin.
    pub ask: Vec<NodeName>,
    /// Why the governor raises no new suspicion, if it does not.
    pub held: Option<String>,
    /// When to decide again without a change.
    pub look_again: Option<Mono>,
}

/// The nodes that should answer if the network of `me` works, when `name` is silent.
pub fn witnesses<'a>(
    view: &'a ClusterView,
    me: &'a NodeName,
    name: &'a NodeName,
) -> impl Iterator<Item = (&'a NodeName, &'a NodeRecord)> {
    let alive = view.nodes.iter().filter(move |(other, node)| {
        *other != name && *other != me && node.daemon_state() == DaemonState::Run && !is_condemned(view, other, node)
    });
    alive.map(|(other, node)| (other, &node.record.value))
}

/// The nodes that are off, whose VMs are to be recovered; the value: whether the node is gone for good.
pub fn recovering(view: &ClusterView) -> BTreeMap<NodeName, bool> {
    let off = view.nodes.iter().filter_map(|(name, node)| {
        let fence = fence_of(view, name, node)?;
        let begun = matches!(fence.phase, FencePhase::Recovering | FencePhase::Recovered);
        (begun && node.session.is_none() && node.unreadable.is_none()).then(|| (name.clone(), fence.for_good))
    });
    off.collect()
}

/// The nodes that the primary listens to: their daemons have sessions, and their machines should answer.
pub fn listened_to<'a>(
    view: &'a ClusterView,
    me: &'a NodeName,
) -> impl Iterator<Item = (&'a NodeName, &'a NodeRecord)> {
    let expected = view.nodes.iter().filter(move |(name, node)| *name != me && is_expected(node));
    expected.map(|(name, node)| (name, &node.record.value))
}

/// Whether a node's machine should answer: its daemon counts as alive.
fn is_expected(node: &NodeView) -> bool {
    matches!(node.daemon_state(), DaemonState::Init | DaemonState::Run) && node.unreadable.is_none()
}

/// The interval at which so many nodes are listened to.
pub fn pulse(nodes: usize) -> Duration {
    let all = Duration::from_secs(1).saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX));
    PULSE.max(all / HEARD_IN_A_SECOND)
}

/// Whether nothing follows from a proof until an administrator confirms it.
fn waits(view: &ClusterView, node: &NodeRecord, fence: &Fence) -> bool {
    node.effective_after_proof(&view.config) == AfterProof::None && !fence.is_confirmed()
}

/// Whether a machine is to be switched on again: its power was cut under that policy, and nobody has tried to switch it
/// on. Whoever has said that it is off may be at work in it.
fn is_to_be_on(fence: &Fence) -> bool {
    let cut = fence.evidence.iter().all(|evidence| evidence.kind == EvidenceKind::Power);
    fence.then_on && cut && !fence.on_ordered && !fence.for_good
}

/// Whether nothing is done by itself, and why.
fn quiet(view: &ClusterView, held: Option<&String>, wall: WallTime) -> Option<String> {
    if view.config.is_in_maintenance(wall) {
        return Some("the cluster is in maintenance, in which nothing is fenced by itself".to_owned());
    }
    held.map(|why| format!("{why}, so that nothing is fenced by itself"))
}

/// Decides on all fences. `unheard`: nodes with a session that did not answer last. `plan`: the recovery as planned on
/// the same view. `tries`: what this node found out since it is the primary.
pub fn next(
    view: &ClusterView,
    (lives, unheard): (&Lives, &BTreeSet<NodeName>),
    plan: &Plan,
    tries: &Tries,
    now: Mono,
    wall: WallTime,
) -> Outlook {
    let mut outlook = Outlook { held: held(view, (lives, unheard), now), ..Outlook::default() };
    let quiet = quiet(view, outlook.held.as_ref(), wall);
    if quiet.is_some() {
        outlook.look_again(now.after(WINDOW / 10));
    }
    for (name, node) in &view.nodes {
        // What a later version wrote is its own.
        if node.unreadable.is_some() || view.fences().problem(name).is_some() {
            continue;
        }
        let fence = view.fences().get(name).map(|fence| &fence.value);
        let ours = fence.filter(|fence| fence.is_of(&node.record.value) && fence.phase != FencePhase::Over);
        let step = match (ours, node.daemon_state()) {
            (Some(fence), DaemonState::Dead | DaemonState::Stop) if fence.phase.is_proved() => {
                let left = plan.items.iter().any(|item| item.node == *name);
                // What no other node can take may be what needs it.
                let busy = plan.items.iter().any(|item| item.node == *name && item.fate.why_waiting().is_none());
                let on = !busy && quiet.is_none() && is_to_be_on(fence);
                match fence.phase {
                    FencePhase::Proved if waits(view, &node.record.value, fence) => None,
                    FencePhase::Proved => Some(Step::Recover),
                    FencePhase::Recovering if !left => Some(Step::Recovered),
                    FencePhase::Recovering | FencePhase::Recovered if on => Some(Step::PowerOn),
                    _ => None,
                }
            }
            (Some(fence), DaemonState::Dead) => {
                outlook.prove(name, &node.record.value, fence, tries, quiet.as_ref(), now)
            }
            // Its power may be cut at any time: the node itself says when that is over.
            (Some(fence), _) if fence.off_ordered => None,
            (Some(fence), _) => Some(if fence.phase.is_proved() { Step::End } else { Step::Withdraw }),
            (None, DaemonState::Dead) if !node.record.value.boot.is_empty() => {
                outlook.suspect(name, &node.record.value, lives, tries, quiet.is_some(), now)
            }
            (None, _) => {
                if unheard.contains(name) && is_expected(node) && !node.record.value.boot.is_empty() {
                    outlook.look_ahead(name, &node.record.value, tries, quiet.is_some(), now);
                }
                None
            }
        };
        outlook.steps.extend(step.map(|step| (name.clone(), step)));
    }
    outlook
}

impl Outlook {
    fn look_again(&mut self, at: Mono) {
        self.look_again = Some(self.look_again.map_or(at, |other| other.min(at)));
    }

    /// A silent node that is not suspected yet.
    fn suspect(
        &mut self,
        name: &NodeName,
        record: &NodeRecord,
        lives: &Lives,
        tries: &Tries,
        quiet: bool,
        now: Mono,
    ) -> Option<Step> {
        let life = lives.get(name).filter(|life| life.state == DaemonState::Dead)?;
        let silent = now.since(life.since);
        let attempts = tries.get(name).filter(|attempts| !attempts.had_failed_before(life.since));
        let next = proof::next(name, &record.boot, attempts, false, now);
        if silent < ASK_AFTER {
            self.look_again(life.since.after(ASK_AFTER));
        } else if !quiet && next == Ask {
            self.ask.push(name.clone());
        }
        let proved = matches!(next, Proved(_));
        if silent < SUSPECT_AFTER && !proved {
            self.look_again(life.since.after(SUSPECT_AFTER));
            return None;
        }
        (!quiet).then_some(Step::Suspect)
    }

    /// A node with a session whose machine does not answer.
    fn look_ahead(&mut self, name: &NodeName, record: &NodeRecord, tries: &Tries, quiet: bool, now: Mono) {
        // What is found is used while it is new.
        self.look_again(now.after(PULSE));
        if tries.get(name).is_some_and(|attempts| attempts.boot == record.boot && attempts.had_no_proof(now)) {
            return;
        }
        if !quiet && proof::next(name, &record.boot, tries.get(name), false, now) == Ask {
            self.ask.push(name.clone());
        }
    }

    /// The next step towards proof about a silent node.
    fn prove(
        &mut self,
        name: &NodeName,
        record: &NodeRecord,
        fence: &Fence,
        tries: &Tries,
        quiet: Option<&String>,
        now: Mono,
    ) -> Option<Step> {
        let unproved = |problems: Vec<String>| {
            let news = fence.phase != FencePhase::Unproved || fence.problems != problems;
            news.then_some(Step::Unproved(problems))
        };
        if let Some(why) = quiet {
            return unproved(vec![why.clone()]);
        }
        let next = proof::next(name, &record.boot, tries.get(name), fence.off_ordered, now);
        if next == Ask {
            self.ask.push(name.clone());
        }
        match next {
            // One that is unproved stays so, with its reasons, until there is something new.
            Ask | Await => (fence.phase == FencePhase::Suspect).then_some(Step::Proving),
            Proved(what) => Some(Step::Proved(what)),
            Cut => Some(Step::Cut),
            Unproved(problems, again) => {
                self.look_again(again);
                unproved(problems)
            }
        }
    }
}

/// Whether the power of no node is cut now, whatever its BMC and its machine say. Asked again right before the order:
/// more nodes may have fallen silent since that was written.
pub fn is_quiet(
    view: &ClusterView,
    (lives, unheard): (&Lives, &BTreeSet<NodeName>),
    now: Mono,
    wall: WallTime,
) -> bool {
    view.config.is_in_maintenance(wall) || held(view, (lives, unheard), now).is_some()
}

/// Why no new suspicion is raised, if there is a reason: see the module's documentation. Nodes that were stopped on
/// purpose are not counted, nor those that are proved to be off, but for those whose own BMCs or watchdogs proved it
/// within the window: else one fault of the network would have one node after the other cut.
fn held(view: &ClusterView, (lives, unheard): (&Lives, &BTreeSet<NodeName>), now: Mono) -> Option<String> {
    let (mut all, mut silent, mut lately) = (0, Vec::new(), 0);
    for (name, node) in view.nodes.iter().filter(|(_, node)| node.daemon_state() != DaemonState::Stop) {
        let recent = |life: &&Life| life.state == DaemonState::Dead && now.since(life.since) < WINDOW;
        let recent = lives.get(name).filter(recent).is_some();
        let fence = fence_of(view, name, node).filter(|fence| fence.phase.is_proved() && node.session.is_none());
        match fence {
            Some(fence) => {
                let by_itself = |kind| matches!(kind, EvidenceKind::Power | EvidenceKind::Watchdog);
                let cut = fence.evidence.iter().any(|evidence| by_itself(evidence.kind));
                if cut && recent {
                    (all, lately) = (all + 1, lately + 1);
                }
            }
            None => {
                all += 1;
                // Sessions of machines that were lost together end one after the other.
                let unheard = node.session.is_some() && unheard.contains(name);
                if unheard || node.daemon_state() == DaemonState::Dead {
                    silent.push(name.as_str());
                    lately += usize::from(recent || unheard);
                }
            }
        }
    }
    let which = || silent.join(", ");
    if 2 * silent.len() > all {
        return Some(format!("{} of {all} nodes are silent ({})", silent.len(), which()));
    }
    (lately > at_once(all))
        .then(|| format!("{lately} of {all} nodes fell silent within {} s (silent are {})", WINDOW.as_secs(), which()))
}

/// Why a node cannot be confirmed to be off. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its daemon is there.
    #[error(
        "node {node} is not off: its daemon is in state {daemon}. To empty a node that runs, use 'drover node flush \
        {node}'"
    )]
    Present {
        /// The node.
        node: NodeName,
        /// State of its daemon.
        daemon: DaemonState,
    },
    /// Its machine was booted since.
    #[error("node {node} was booted since (the last boot is {last}, and {confirmed} was confirmed to be off)")]
    Booted {
        /// The node.
        node: NodeName,
        /// Its last boot.
        last: String,
        /// The boot that was confirmed to be off.
        confirmed: String,
    },
    /// It is unknown which boot of its machine was the last.
    #[error(
        "it is not known which boot of node {node} was the last: the daemon that wrote its record was of an old version"
    )]
    UnknownBoot {
        /// The node.
        node: NodeName,
    },
}

/// A node's fence after an administrator has said that its machine is off; `None`: that is known already. `present`:
/// its daemon has a session. `boot`: the boot that is confirmed; `None`: the last one. `epoch`: that of the primary's
/// role.
///
/// # Errors
/// See [`Refusal`].
pub fn confirm(
    node: &NodeRecord,
    present: Option<DaemonState>,
    old: Option<&Fence>,
    (boot, for_good): (Option<&str>, bool),
    (by, epoch): (&NodeName, drover_model::Epoch),
    now: WallTime,
) -> Result<Option<Fence>, Refusal> {
    if let Some(daemon) = present {
        return Err(Refusal::Present { node: node.name.clone(), daemon });
    }
    if let Some(boot) = boot.filter(|boot| **boot != *node.boot) {
        let (last, confirmed) = (node.boot.clone(), boot.to_owned());
        return Err(Refusal::Booted { node: node.name.clone(), last, confirmed });
    }
    if node.boot.is_empty() {
        return Err(Refusal::UnknownBoot { node: node.name.clone() });
    }
    let old = old.filter(|old| old.is_of(node) && old.phase != FencePhase::Over);
    let fence = match old {
        // A proof may wait for it.
        Some(old) if old.phase.is_proved() && (old.phase != FencePhase::Proved || old.is_confirmed()) => {
            if old.for_good || !for_good {
                return Ok(None);
            }
            Fence { for_good, ..old.clone() }
        }
        old => {
            let what = "an administrator confirmed that the machine is off".to_owned();
            let fence = old.cloned().unwrap_or_else(|| Fence::suspicion(node, by, epoch, now));
            let evidence = Evidence { kind: EvidenceKind::Administrator, at: now, by: by.clone(), what };
            Fence { for_good: for_good || fence.for_good, ..fence.proved(evidence) }
        }
    };
    Ok(Some(Fence { by: by.clone(), epoch, ..fence }))
}

/// What becomes of a node's fence when its daemon joins the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Return {
    /// It stays as it is.
    Keep,
    /// The machine's power may be cut at any moment. Nothing is done under the node's name until that is over.
    Wait,
    /// It was a suspicion, which is over.
    Delete,
    /// It was proved that an earlier boot had ended: the proof is not used any more.
    Replace(Box<Fence>),
}

/// What becomes of the fence of a node whose daemon joins. `waited`: how long its daemon has known of the same orders
/// ([`same_orders`]), on its own clock. While it has a session, no order to cut its power can be written
/// ([`Step::Cut`]); one that was written before is carried out within [`proof::ORDER_IN_FORCE`], or never. That holds
/// of a proved fence, too: an earlier primary's order may still be under way, or the last one's, if something else was
/// the proof.
pub fn returned(fence: &Stored<Fence>, waited: Duration, now: WallTime) -> Return {
    match fence.value.phase {
        FencePhase::Over => Return::Keep,
        // The order is to the BMC, and hits whatever boot there is by then.
        _ if fence.value.off_ordered && waited < proof::ORDER_IN_FORCE => Return::Wait,
        phase if phase.is_proved() => Return::Replace(Box::new(fence.value.to(FencePhase::Over, now))),
        _ => Return::Delete,
    }
}

/// Whether a node that must wait ([`returned`]) does so without a session. As long as nothing is proved, its session
/// keeps its power from being cut once more. When something is, it would only hold up those who recover its VMs.
pub fn waits_outside(fence: &Fence) -> bool {
    fence.phase != FencePhase::Over && fence.phase.is_proved()
}

/// Whether no order to cut the node's power can have been given between two states of its fence: nobody gives one when
/// something is proved.
pub fn same_orders(old: &Stored<Fence>, new: &Stored<Fence>) -> bool {
    old.version == new.version || old.value.phase.is_proved() && new.value.phase.is_proved()
}

#[cfg(test)]
mod tests;
