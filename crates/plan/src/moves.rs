//! Moves of VMs between nodes: which are allowed, whose turn it is, and what becomes of one that does not come to its
//! end.

use crate::{
    capacity::Ledger,
    place::{self, Rejection, Verdict, Wanted},
};
use drover_model::{
    Arrival, ClusterConfig, ClusterView, DaemonState, How, MigrationMethod, MoveKind, NodeName, Stall, VmName,
    VmRecord, VmState, VmView,
};
use std::{cmp::Reverse, collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// A request to bring a VM to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What becomes of its home.
    pub kind: MoveKind,
    /// Where to; `None`: the best node is chosen (for [`MoveKind::Unmigrate`], its home).
    pub to: Option<NodeName>,
    /// Also if it is away from its home already.
    pub force: bool,
    /// Live or not at all, whatever its method says.
    pub live_only: bool,
}

/// Why a move is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The VM is being worked on.
    #[error("VM {name} is in state {state}; a VM is moved while it runs (state start) or is off")]
    State {
        /// The VM.
        name: VmName,
        /// Its state.
        state: &'static str,
    },
    /// Nobody here knows what is wanted of it, or who may run it.
    #[error("VM {name} cannot be moved: {why}")]
    Unreadable {
        /// The VM.
        name: VmName,
        /// What is wrong.
        why: &'static str,
    },
    /// It is away from home already.
    #[error(
        "VM {name} is away from its home {home} already; bring it home (unmigrate), move it for good (move), or use force"
    )]
    Away {
        /// The VM.
        name: VmName,
        /// Its home.
        home: NodeName,
    },
    /// It has no home to go back to.
    #[error("VM {0} is at home: it was not migrated")]
    AtHome(VmName),
    /// There is no such node.
    #[error("there is no node {given}; accepted are {known}")]
    NoSuchNode {
        /// What was given.
        given: NodeName,
        /// The nodes that there are.
        known: String,
    },
    /// The node that was named cannot take it.
    #[error("node {node} cannot take VM {name}: {why}")]
    Unfit {
        /// The VM.
        name: VmName,
        /// The node.
        node: NodeName,
        /// Why not.
        why: Rejection,
    },
    /// No node can take it.
    #[error("no node can take VM {name}: {why}")]
    Nowhere {
        /// The VM.
        name: VmName,
        /// Each node's reason.
        why: String,
    },
    /// It may only be moved cold.
    #[error(
        "VM {0} has the migration method shutdown, so it cannot be moved live; change its method, or leave live out"
    )]
    OnlyCold(VmName),
    /// The daemon is away that would have to send it.
    #[error("VM {name} is held by node {holder}, whose daemon is in state {daemon}: it cannot be sent from there now")]
    HolderAway {
        /// The VM.
        name: VmName,
        /// Who holds it.
        holder: NodeName,
        /// What its daemon does.
        daemon: DaemonState,
    },
    /// Another node holds it still.
    #[error("VM {name} is still held by node {holder}; wait until it is released")]
    Held {
        /// The VM.
        name: VmName,
        /// Who holds it.
        holder: NodeName,
    },
}

/// What a request to move a VM makes of its record. A running VM is sent; one that is off is only assigned elsewhere.
///
/// # Errors
/// Why not; nothing is changed then.
pub fn relocate(view: &ClusterView, vm: &VmView, request: &Request) -> Result<VmRecord, Refusal> {
    let record = &vm.record.value;
    let name = || record.name.clone();
    if let Some(why) = vm.unreadable() {
        return Err(Refusal::Unreadable { name: name(), why });
    }
    let running = match &record.state {
        VmState::Start => true,
        VmState::Stop | VmState::Disable | VmState::Fail { .. } => false,
        state => return Err(Refusal::State { name: name(), state: state.word() }),
    };
    let holder = vm.holder();
    if !running && let Some(holder) = holder {
        return Err(Refusal::Held { name: name(), holder: holder.clone() });
    }
    if let Some(holder) = holder {
        let daemon = view.nodes.get(holder).map_or(DaemonState::Dead, |node| node.daemon_state());
        if daemon != DaemonState::Run {
            return Err(Refusal::HolderAway { name: name(), holder: holder.clone(), daemon });
        }
    }
    let to = match (request.kind, &record.last_node) {
        (MoveKind::Unmigrate, None) => return Err(Refusal::AtHome(name())),
        (MoveKind::Unmigrate, Some(home)) => Some(home),
        (MoveKind::Migrate, Some(home)) if !request.force && request.to.as_ref() != Some(home) => {
            return Err(Refusal::Away { name: name(), home: home.clone() });
        }
        _ => request.to.as_ref(),
    };
    let method = if request.live_only {
        match record.meta.method {
            MigrationMethod::Shutdown => return Err(Refusal::OnlyCold(name())),
            MigrationMethod::None | MigrationMethod::Live => How::Live,
        }
    } else {
        place::how(record.meta.method)
    };
    let wanted = Wanted::moved(vm).by(method);
    let wanted = match to {
        Some(to) if !view.nodes.contains_key(to) => {
            let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
            return Err(Refusal::NoSuchNode { given: to.clone(), known: known.join(", ") });
        }
        Some(to) => wanted.coming_to(view, to, request.kind),
        None => wanted,
    };
    let placement = place::choose(view, &Ledger::of(view), &wanted);
    let why = placement.reasons();
    let Some((to, how)) = placement.chosen else {
        return Err(match placement.verdicts.into_iter().next() {
            Some((node, Verdict::Rejected(why))) if to.is_some() => Refusal::Unfit { name: name(), node, why },
            _ => Refusal::Nowhere { name: name(), why },
        });
    };
    if running {
        let state = VmState::Migrate { to, kind: request.kind, how };
        return Ok(VmRecord { state, ..record.clone() });
    }
    Ok(record.arrived(&to, request.kind))
}

/// Whether a VM that is to be moved may go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Go,
    /// Not yet; why, for people.
    Wait(String),
    /// Its target cannot take it (any more).
    Unfit(String),
}

/// One move of the cluster, in the order in which they get their turn: what is under way first, then by priority and
/// name.
type Place<'a> = (Reverse<bool>, Reverse<i32>, &'a VmName);

/// Whether it is a VM's turn. Its target must have said that it can come: the target alone knows what it has promised
/// (`plan::arrivals`). Among those that may come the limits are given out in one order, which every node works out
/// alike from its view. (Views may differ for a moment, so that a limit may be exceeded for a moment; nothing depends
/// on it but load.) Others have no turn yet, or moves could wait for each other in a ring: each for the target's
/// consent, or for the turn of one that has none.
pub fn turn(view: &ClusterView, uuid: &Uuid) -> Turn {
    let Some(vm) = view.vms.get(uuid) else { return Turn::Wait("the VM is not in the view yet".to_owned()) };
    let VmState::Migrate { to, kind, how } = &vm.record.value.state else { return Turn::Go };
    if let Some(why) = never(view, vm, to, *kind, *how) {
        return Turn::Unfit(why);
    }
    match answer(vm) {
        None => return Turn::Wait(format!("waiting until {to} is ready for it")),
        Some(Arrival { refused: Some(why), .. }) => return Turn::Unfit(format!("{to} cannot take it: {why}")),
        Some(Arrival { refused: None, .. }) => {}
    }
    let limits = view.config.limits;
    let mut moves: Vec<(Place<'_>, &NodeName, Uuid)> = Vec::new();
    for other in view.moving() {
        let record = &other.record.value;
        let under_way = other.sent_to().is_some();
        let may_come = under_way || answer(other).is_some_and(|a| a.refused.is_none());
        if let (Some(from), Some(_), true) = (&record.node, record.state.destination(), may_come) {
            moves.push(((Reverse(under_way), Reverse(record.meta.priority), &record.name), from, record.uuid));
        }
    }
    moves.sort();
    let (mut sources, mut all) = (BTreeMap::new(), 0);
    for (_, from, which) in moves {
        let source = sources.entry(from).or_insert(0u32);
        let free = *source < limits.per_source && all < limits.cluster;
        if which == *uuid && !free {
            let limits = format!("{} from a node, {} in all", limits.per_source, limits.cluster);
            return Turn::Wait(format!("waiting for its turn to move to {to} (at most {limits})"));
        }
        if free {
            (*source, all) = (*source + 1, all + 1);
        }
    }
    Turn::Go
}

/// What its target says of the move.
fn answer(vm: &VmView) -> Option<&Arrival> {
    let said = vm.arrival.as_ref().map(|a| &a.value)?;
    let of_this_move = Some(&said.node) == vm.record.value.state.destination() && said.of == vm.record.version;
    of_this_move.then_some(said)
}

/// Why a VM cannot go to its target at all. Whether there is room is for the target to say.
fn never(view: &ClusterView, vm: &VmView, to: &NodeName, kind: MoveKind, how: How) -> Option<String> {
    let Some(node) = view.nodes.get(to) else { return Some(format!("there is no node {to}")) };
    let wanted = Wanted::moved(vm).by(how).coming_to(view, to, kind);
    match place::judge(view, &Ledger::default(), to, node, &wanted) {
        Verdict::Fits { .. } | Verdict::Rejected(Rejection::Memory { .. }) => None,
        Verdict::Rejected(why) => Some(format!("{to} cannot take it: {why}")),
    }
}

/// What is done about a live migration that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// It goes on.
    GoOn,
    /// Let the guest go on at the target.
    PostCopy,
    /// Give it up.
    GiveUp,
}

/// What is done about a live migration that has been under way for so long.
pub fn supervise(config: &ClusterConfig, elapsed: Duration, post_copy_begun: bool) -> Supervision {
    if elapsed < Duration::from_secs(config.migration_deadline_s.into()) || post_copy_begun {
        return Supervision::GoOn;
    }
    match config.stall {
        Stall::PostCopy => Supervision::PostCopy,
        Stall::Abort => Supervision::GiveUp,
    }
}

#[cfg(test)]
mod tests;
