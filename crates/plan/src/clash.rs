//! Two VMs with something that only one may have: a MAC address, a VNC port, a disk.
//!
//! | what | clashes with |
//! |---|---|
//! | a MAC address, a disk on the network | that of any other VM |
//! | a VNC port | that of a VM of the same node |
//! | a disk by its path | that of a VM of the same node, or in a folder that both nodes share |
//!
//! The view has an index of these things, so the cost does not grow with the number of VMs.

use drover_model::{
    ClusterView, NodeName, VmName, VmRecord, VmState, VmView,
    domain::{Sole, devices::Devices},
};
use std::{fmt, path::Path};
use uuid::Uuid;

/// What another VM has too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// What.
    pub what: Sole,
    /// The other VM.
    pub with: VmName,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM {} has {} too", self.with, self.what)
    }
}

/// The first thing of a VM on this node that another VM has too. What it has in its present definition, `before`, does
/// not count.
pub fn of_definition(
    view: &ClusterView,
    (uuid, node): (&Uuid, Option<&NodeName>),
    devices: &Devices,
    before: &Devices,
) -> Option<Clash> {
    devices
        .soles
        .iter()
        .filter(|what| !before.soles.contains(what))
        .find_map(|what| clash(view, (uuid, node), what, |_| true))
}

/// The first thing of a VM that this order starts which another VM has that runs, or is to run; `None` also if it does
/// not start it.
pub fn of_order(view: &ClusterView, old: &VmRecord, new: &VmState) -> Option<Clash> {
    let starts = *new == VmState::Start && old.state.at_rest() && old.state != VmState::Start;
    starts.then(|| of_start(view, (&old.uuid, old.node.as_ref()), &Devices::read(&old.xml)))?
}

/// The first thing of a VM that is to be started which another VM has that runs, or is to run.
fn of_start(view: &ClusterView, (uuid, node): (&Uuid, Option<&NodeName>), devices: &Devices) -> Option<Clash> {
    devices.soles.iter().find_map(|what| clash(view, (uuid, node), what, is_on))
}

fn is_on(vm: &VmView) -> bool {
    let state = &vm.record.value.state;
    vm.holder().is_some() || !state.at_rest() || *state == VmState::Start
}

fn clash(
    view: &ClusterView,
    (uuid, node): (&Uuid, Option<&NodeName>),
    what: &Sole,
    counts: impl Fn(&VmView) -> bool,
) -> Option<Clash> {
    let others = view.having(what).filter(|vm| vm.record.value.uuid != *uuid && counts(vm));
    let meets = |vm: &VmView| {
        let theirs = vm.holder().or(vm.record.value.node.as_ref());
        match what {
            Sole::Mac(_) | Sole::Remote(_) => true,
            Sole::Vnc(_) => theirs == node,
            Sole::Path(path) => theirs == node || is_shared(view, node, theirs, path),
        }
    };
    let mut others = others.filter(|vm| meets(vm));
    others.next().map(|vm| Clash { what: what.clone(), with: vm.record.value.name.clone() })
}

/// Whether a path is in a folder that both nodes share.
fn is_shared(view: &ClusterView, one: Option<&NodeName>, other: Option<&NodeName>, path: &str) -> bool {
    let status = |node: Option<&NodeName>| view.nodes.get(node?)?.status.as_ref().map(|status| &status.value);
    let (Some(one), Some(other)) = (status(one), status(other)) else { return false };
    let mut both = one.shared.iter().filter(|folder| other.shared.contains(folder));
    both.any(|folder| Path::new(path).starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{
        NodeStatus, NodeView,
        testing::{VmWords, cluster, kept, name, node, running, vm, waiting},
    };

    #[test]
    fn one_thing_for_one_vm() {
        let shared = |n: &str| NodeView {
            status: Some(kept(NodeStatus {
                shared: vec!["/s".to_owned()],
                ..node(n, 8).status.unwrap().value.clone()
            })),
            ..node(n, 8)
        };
        let mac = |last: &str| format!("<interface type='user'><mac address='52:54:0:0:0:{last}'/></interface>");
        let disk = |path: &str| format!("<disk type='file'><source file='{path}'/></disk>");
        let vnc = "<graphics type='vnc' port='5901'/>".to_owned();
        let rbd = "<disk type='network'><source protocol='rbd' name='p/a'/></disk>".to_owned();
        let all = |last| format!("<devices>{}{}{}{vnc}{rbd}</devices>", mac(last), disk("/l/a"), disk("/s/a"));
        let off = vm(1, 64).on("a").defined(&all("1"));
        let on = running(2, "a", 64).defined(&format!("<devices>{}</devices>", mac("2")));
        let going = waiting(3, "b", 64).defined(&format!("<devices>{}</devices>", mac("3")));
        let view = cluster(vec![shared("a"), shared("b"), node("c", 8)], vec![off, on, going]);
        let read = |xml: &str| Devices::read(&format!("<domain><devices>{xml}</devices></domain>"));
        for (xml, on, defined, started) in [
            (mac("01"), "a", Some("vm1"), None),
            (mac("01"), "c", Some("vm1"), None),
            (mac("2"), "b", Some("vm2"), Some("vm2")),
            (mac("3"), "a", Some("vm3"), Some("vm3")),
            (mac("4"), "a", None, None),
            (vnc.clone(), "a", Some("vm1"), None),
            (vnc.clone(), "b", None, None),
            (disk("/l/../l//a"), "a", Some("vm1"), None),
            (disk("/l/a"), "b", None, None),
            (disk("/s/a"), "b", Some("vm1"), None),
            (disk("/s/a"), "c", None, None),
            (rbd, "c", Some("vm1"), None),
        ] {
            let (uuid, on) = (Uuid::from_u128(9), name(on));
            let with = |clash: Option<Clash>| clash.map(|clash| clash.with.to_string());
            let devices = read(&xml);
            let found = of_definition(&view, (&uuid, Some(&on)), &devices, &Devices::default());
            assert_eq!(with(found).as_deref(), defined, "{xml} on {on}");
            assert_eq!(of_definition(&view, (&uuid, Some(&on)), &devices, &devices), None, "it has it already");
            let found = of_start(&view, (&uuid, Some(&on)), &devices);
            assert_eq!(with(found).as_deref(), started, "start of {xml} on {on}");
            let itself = of_definition(&view, (&Uuid::from_u128(1), Some(&on)), &devices, &Devices::default());
            assert_ne!(with(itself).as_deref(), Some("vm1"), "{xml}");
        }
    }
}
