//! Validation of requests to move a VM, and the new record.

use super::sender;
use crate::{
    capacity::Ledger,
    place::{self, Rejection, Verdict, Wanted},
};
use drover_model::{
    ClusterView, DaemonState, How, MigrationMethod, MoveKind, NodeName, Placed, PlacedBy, VmName, VmRecord, VmState,
    VmView, WallTime,
};

/// A request to move a VM to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Kind of move: what happens to its home.
    pub kind: MoveKind,
    /// The target; `None`: the best node is chosen (for [`MoveKind::Unmigrate`], its home).
    pub to: Option<NodeName>,
    /// Allow it although the VM is away from its home already.
    pub force: bool,
    /// Live or not at all, whatever its migration method is.
    pub live_only: bool,
}

/// Why a move is refused. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The VM's state does not allow it.
    #[error("VM {name} is in state {state}; a VM is moved while it runs (state start) or is off")]
    State {
        /// The VM.
        name: VmName,
        /// Its state.
        state: &'static str,
    },
    /// Its record or its claim cannot be read.
    #[error("VM {name} cannot be moved: {why}")]
    Unreadable {
        /// The VM.
        name: VmName,
        /// What is wrong.
        why: &'static str,
    },
    /// It is already away from its home.
    #[error(
        "VM {name} is away from its home {home} already; bring it home (unmigrate), move it for good (move), or use \
         force"
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
    /// Unknown node.
    #[error("there is no node {given}; accepted are {known}")]
    NoSuchNode {
        /// The given name.
        given: NodeName,
        /// The existing nodes.
        known: String,
    },
    /// The given node cannot take it.
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
        /// Reason of each node.
        why: String,
    },
    /// It may only be moved cold.
    #[error(
        "VM {0} has the migration method shutdown, so it cannot be moved live; change its method, or leave live out"
    )]
    OnlyCold(VmName),
    /// The daemon of its holder, which would have to send it, does not run.
    #[error("VM {name} is held by node {holder}, whose daemon is in state {daemon}: it cannot be sent from there now")]
    HolderAway {
        /// The VM.
        name: VmName,
        /// Its holder.
        holder: NodeName,
        /// State of its daemon.
        daemon: DaemonState,
    },
    /// Its node has not taken the domain over yet that it was imported from.
    #[error("VM {name} was just imported, and node {node} has not taken its domain over yet; wait until it has")]
    Imported {
        /// The VM.
        name: VmName,
        /// The node.
        node: NodeName,
    },
    /// A node still holds it.
    #[error("VM {name} is still held by node {holder}; wait until it is released")]
    Held {
        /// The VM.
        name: VmName,
        /// Its holder.
        holder: NodeName,
    },
}

/// Computes the record after a request to move a VM. A running VM is sent; one that is off is only assigned to another
/// node. The placement is stored in the record; `now` is its time for users.
///
/// # Errors
/// The reason for the refusal.
pub fn relocate(view: &ClusterView, vm: &VmView, request: &Request, now: WallTime) -> Result<VmRecord, Refusal> {
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
    if let Some((holder, daemon)) = sender::holder_away(view, vm) {
        return Err(Refusal::HolderAway { name: name(), holder: holder.clone(), daemon });
    }
    if let Some(node) = record.node.as_ref().filter(|_| vm.claim.as_ref().is_some_and(|c| c.value.is_for_unmarked())) {
        return Err(Refusal::Imported { name: name(), node: node.clone() });
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
    // An order that names the node tries it again, whatever happened there before.
    let record = &to.map_or_else(|| record.clone(), |to| record.accepted_at(to));
    let wanted = Wanted { refused: &record.refused, returns: None, ..wanted };
    let wanted = match to {
        Some(to) if !view.nodes.contains_key(to) => {
            let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
            return Err(Refusal::NoSuchNode { given: to.clone(), known: known.join(", ") });
        }
        Some(to) => wanted.coming_to(view, to, request.kind),
        None => wanted,
    };
    let placement = place::choose(view, &Ledger::of(view), &wanted);
    let (why, reasons) = (placement.reasons(), placement.kept());
    let Some((to, how)) = placement.chosen else {
        return Err(match placement.verdicts.into_iter().next() {
            Some((node, Verdict::Rejected(why))) if to.is_some() => Refusal::Unfit { name: name(), node, why },
            _ => Refusal::Nowhere { name: name(), why },
        });
    };
    let by = match request.kind {
        MoveKind::Move => PlacedBy::Move,
        MoveKind::Migrate => PlacedBy::Migrate,
        MoveKind::Unmigrate => PlacedBy::Unmigrate,
    };
    if running {
        let going = Some(Box::new(Placed { by, at: now, to: to.clone(), how: Some(how), reasons }));
        let state = VmState::Migrate { to, kind: request.kind, how };
        return Ok(VmRecord { state, going, ..record.clone() });
    }
    let arrived = record.arrived(&to, request.kind);
    let placed = Some(Box::new(Placed { by, at: now, to, how: None, reasons }));
    Ok(VmRecord { placed, ..arrived })
}
