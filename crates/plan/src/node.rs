//! Validation of requests about a node, and whether a daemon may act under a node's name.

use crate::{
    capacity::Ledger,
    place::{self, Wanted},
};
use drover_model::{ClusterView, DaemonState, How, NodeName, NodeRecord, NodeSession, TokenName, VmView};

/// Why a request about a node is refused. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its daemon may be running.
    #[error("node {node} is there: its daemon is in state {daemon}; stop it first")]
    Present {
        /// The node.
        node: NodeName,
        /// State of its daemon.
        daemon: DaemonState,
    },
    /// Its record was written by a newer version and cannot be read here.
    #[error("node {node} cannot be removed from here: its record is {why}")]
    Unreadable {
        /// The node.
        node: NodeName,
        /// Why.
        why: String,
    },
    /// VMs are assigned to it, or may even run there.
    #[error(
        "node {node} has VMs that {}: {vms}; move or undefine them first",
        if *held { "may still run there" } else { "are assigned to it" }
    )]
    HasVms {
        /// The node.
        node: NodeName,
        /// Their names.
        vms: String,
        /// Whether it has a claim on them.
        held: bool,
    },
}

/// Whether a node may be removed from the cluster: its daemon is down, and it has no VMs.
pub fn remove(view: &ClusterView, name: &NodeName) -> Result<(), Refusal> {
    let Some(node) = view.nodes.get(name) else { return Ok(()) };
    let daemon = node.daemon_state();
    if !matches!(daemon, DaemonState::Dead | DaemonState::Stop) {
        return Err(Refusal::Present { node: name.clone(), daemon });
    }
    if let Some(why) = &node.unreadable {
        return Err(Refusal::Unreadable { node: name.clone(), why: why.to_string() });
    }
    let names = |concerns: &dyn Fn(&drover_model::VmView) -> bool| {
        let found = view.vms_of(name).filter(|vm| concerns(vm)).map(|vm| vm.record.value.name.to_string());
        Some(found.collect::<Vec<_>>().join(", ")).filter(|names| !names.is_empty())
    };
    let refuse = |vms, held| Err(Refusal::HasVms { node: name.clone(), vms, held });
    let may_run = |vm: &drover_model::VmView| vm.is_held_by(name) || vm.sent_to() == Some(name);
    if let Some(vms) = names(&may_run) {
        return refuse(vms, true);
    }
    let wanted = |vm: &drover_model::VmView| {
        let record = &vm.record.value;
        record.node.as_ref() == Some(name) || record.state.destination() == Some(name)
    };
    if let Some(vms) = names(&wanted) {
        return refuse(vms, false);
    }
    Ok(())
}

/// The VMs at rest whose node is not in the cluster, and that node. What a node may still hold is not at rest.
pub fn orphans(view: &ClusterView) -> impl Iterator<Item = (&VmView, &NodeName)> {
    let gone = view.concerned().filter(|name| !view.nodes.contains_key(*name));
    gone.flat_map(move |name| view.vms_of(name).map(move |vm| (&**vm, name)))
        .filter(|(vm, name)| vm.record.value.node.as_ref() == Some(*name) && is_orphan(view, vm))
}

/// Whether it is one of those.
pub fn is_orphan(view: &ClusterView, vm: &VmView) -> bool {
    let node = vm.record.value.node.as_ref();
    node.is_some_and(|node| !view.nodes.contains_key(node) && !vm.is_held_by(node) && vm.sent_to() != Some(node))
}

/// The node that a VM at rest is assigned to when its own is not there any more: the one that it would be moved to, or
/// else any that runs, as a VM may be defined where it cannot be started now. The one that holds it, if there is one.
pub fn heir(view: &ClusterView, vm: &VmView) -> Option<NodeName> {
    if let Some(holder) = vm.holder().filter(|holder| view.nodes.contains_key(*holder)) {
        return Some(holder.clone());
    }
    let placement = place::choose(view, &Ledger::of(view), &Wanted::moved(vm).by(How::Cold));
    let runs = || view.nodes.iter().find(|(_, node)| node.daemon_state() == DaemonState::Run);
    placement.node().or_else(|| runs().map(|(name, _)| name)).cloned()
}

/// The node whose daemon uses a token, if it does: it would lose its access to the others.
pub fn user_of_token<'a>(view: &'a ClusterView, token: &TokenName) -> Option<&'a NodeName> {
    view.nodes.keys().find(|node| TokenName::of_node(node).is_ok_and(|of| of == *token))
}

/// Whether a daemon may act under its node's name: whether it may create the session of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The name is free.
    Free,
    /// The session is that of this machine's previous daemon, which is dead: replace it.
    Replace,
    /// Another daemon with this machine id uses the name and may be alive: wait until its session has expired.
    Occupied,
    /// The name is free, but this may be a clone of the machine that had it: the boot and the address are different. It
    /// must not continue while the name holds claims, because the original may be cut off, with its guests running.
    Moved,
    /// Another machine uses the name.
    Taken,
}

/// Decides by the node's record and the existing session of its name.
///
/// A lock on the state folder keeps two daemons of one machine apart, so a session of this machine, this boot and this
/// address belongs to a dead predecessor. The machine id alone does not prove that: cloned machines have the same one.
/// A session from another boot or with another address is either a leftover, which expires by itself, or the live
/// daemon of a clone, which keeps it.
pub fn enter(record: Option<&NodeRecord>, session: Option<&NodeSession>, own: &NodeSession) -> Entry {
    let is_other = |machine: &str| !machine.is_empty() && machine != own.machine;
    let same_address = |api: &str| api.is_empty() || api == own.api;
    if record.is_some_and(|record| is_other(&record.machine)) || session.is_some_and(|s| is_other(&s.machine)) {
        return Entry::Taken;
    }
    match (record, session) {
        (_, Some(found)) if found.boot == own.boot && same_address(&found.api) => Entry::Replace,
        (_, Some(_)) => Entry::Occupied,
        (Some(record), None) if record.boot != own.boot && !same_address(&record.api) => Entry::Moved,
        (_, None) => Entry::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{WallTime, testing::*};
    use uuid::Uuid;

    #[test]
    fn only_a_dead_predecessor_is_replaced() {
        let session = |machine: &str, boot: &str, api: &str| NodeSession {
            schema: 1,
            instance: Uuid::nil(),
            machine: machine.to_owned(),
            boot: boot.to_owned(),
            api: api.to_owned(),
            started: WallTime(0),
        };
        let own = session("m", "b", "10.0.0.1:7370");
        let entry = |machine, boot, api| enter(None, Some(&session(machine, boot, api)), &own);
        assert_eq!(enter(None, None, &own), Entry::Free);
        assert_eq!(entry("m", "b", "10.0.0.1:7370"), Entry::Replace);
        assert_eq!(entry("m", "b", ""), Entry::Replace, "written by an older daemon");
        assert_eq!(entry("m", "b", "10.0.0.2:7370"), Entry::Occupied, "a clone");
        assert_eq!(entry("m", "c", "10.0.0.1:7370"), Entry::Occupied, "another boot");
        assert_eq!(entry("n", "b", "10.0.0.1:7370"), Entry::Taken);
    }

    #[test]
    fn a_possible_clone_is_not_mistaken_for_its_original() {
        let own = NodeSession {
            schema: 1,
            instance: Uuid::nil(),
            machine: "m".to_owned(),
            boot: "b2".to_owned(),
            api: "10.0.0.2:7370".to_owned(),
            started: WallTime(0),
        };
        let entry = |machine: &str, boot: &str, api: &str| {
            let record = node("a", 8).record.value.clone();
            let (machine, boot, api) = (machine.to_owned(), boot.to_owned(), api.to_owned());
            enter(Some(&NodeRecord { machine, boot, api, ..record }), None, &own)
        };
        assert_eq!(entry("m", "b1", "10.0.0.2:7370"), Entry::Free, "it was rebooted");
        assert_eq!(entry("m", "b2", "10.0.0.1:7370"), Entry::Free, "it was given another address");
        assert_eq!(entry("m", "b1", "10.0.0.1:7370"), Entry::Moved);
        assert_eq!(entry("m", "", ""), Entry::Free, "nothing is known");
        assert_eq!(entry("n", "b2", "10.0.0.2:7370"), Entry::Taken);
    }

    #[test]
    fn a_token_is_used_by_the_node_of_its_name_while_that_is_there() {
        let view = cluster(vec![node("a", 8)], vec![]);
        let user = |token: &str| user_of_token(&view, &TokenName::new(token).unwrap()).map(NodeName::as_str);
        assert_eq!([user("node-a"), user("node-b"), user("a")], [Some("a"), None, None]);
    }

    #[test]
    fn only_a_node_that_is_down_and_has_no_vms_is_removed() {
        let gone = |n| drover_model::NodeView { session: None, ..node(n, 8) };
        assert!(matches!(remove(&cluster(vec![node("a", 8)], vec![]), &name("a")), Err(Refusal::Present { .. })));
        assert_eq!(remove(&cluster(vec![gone("a")], vec![]), &name("a")), Ok(()));
        let why =
            drover_model::Stored::<drover_model::NodeRecord>::decode(b"{}", drover_model::Version(1)).unwrap_err();
        let unreadable = drover_model::NodeView { unreadable: Some(why.into()), ..gone("a") };
        assert!(matches!(remove(&cluster(vec![unreadable], vec![]), &name("a")), Err(Refusal::Unreadable { .. })));
        let held = vm(1, 64).on("b").held_by("a");
        let refusal = remove(&cluster(vec![gone("a")], vec![held]), &name("a")).unwrap_err();
        assert_eq!(refusal.to_string(), "node a has VMs that may still run there: vm1; move or undefine them first");
        let mut coming = running(1, "b", 64);
        if let Some(claim) = &mut coming.claim {
            claim.value.to = Some(name("a"));
        }
        let refusal = remove(&cluster(vec![gone("a")], vec![coming]), &name("a")).unwrap_err();
        assert!(matches!(refusal, Refusal::HasVms { held: true, .. }), "it may be there by now");
        let assigned = vm(1, 64).on("a");
        let refusal = remove(&cluster(vec![gone("a")], vec![assigned]), &name("a")).unwrap_err();
        assert_eq!(refusal.to_string(), "node a has VMs that are assigned to it: vm1; move or undefine them first");
    }
    #[test]
    fn a_vm_whose_node_is_gone_is_given_to_its_holder_or_else_where_it_fits() {
        let mut coming = running(5, "a", 64).on("gone");
        if let Some(claim) = &mut coming.claim {
            claim.value.to = Some(name("gone"));
        }
        let held = vm(4, 64).on("gone").held_by("gone");
        let vms = vec![vm(1, 64).on("a"), vm(2, 64).on("gone"), running(3, "b", 64).on("gone"), held, coming];
        let view = cluster(vec![node("a", 8), node("b", 8)], vms);
        let found: Vec<_> = orphans(&view).map(|(vm, _)| vm.record.value.name.to_string()).collect();
        assert_eq!(found, ["vm2", "vm3"], "what it may run is not given away");
        let heirs: Vec<_> = orphans(&view).map(|(vm, _)| heir(&view, vm)).collect();
        assert!(matches!(&heirs[..], [Some(_), Some(holder)] if *holder == name("b")), "{heirs:?}");
    }
}
