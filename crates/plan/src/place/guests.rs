//! Whether a node's hypervisor can run a definition's guest at all: its architecture, emulator and machine type.

use super::Rejection;
use drover_model::{NodeStatus, domain::devices::Devices};

/// What the node lacks. Daemons of older versions do not report what their hypervisors can run. That is no reason to
/// refuse them everything while a cluster is upgraded: they are judged as before, by all else. A daemon of this version
/// reports it whenever its hypervisor can be used; and when it cannot, or the report cannot be read, the node gets no
/// VMs.
pub(super) fn lacks(status: &NodeStatus, devices: &Devices) -> Option<Rejection> {
    let guests = status.guests.as_ref()?;
    let emulator = &devices.emulator;
    if !emulator.is_empty() && guests.has_emulator(emulator) == Some(false) {
        return Some(Rejection::Emulator(emulator.to_string()));
    }
    // libvirt (9.0.0) takes the machine's own if the definition names none.
    let arch = if devices.arch.is_empty() { status.arch.as_str() } else { devices.arch.as_str() };
    let offer = match guests.of_arch(arch) {
        Some(offer) => offer,
        // Another emulator may have it; libvirt asks that one at the start.
        None if !emulator.is_empty() => return None,
        None => return Some(Rejection::Architecture(arch.to_owned())),
    };
    let asks_offered = emulator.is_empty() || *emulator == offer.emulator;
    let has = devices.machine.is_empty() || offer.machines.iter().any(|machine| *machine == devices.machine);
    (asks_offered && !has).then(|| Rejection::Machine { machine: devices.machine.to_string(), arch: arch.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::{Wanted, choose};
    use super::*;
    use crate::capacity::Ledger;
    use drover_model::{Demand, Guests, NodeView, VmMeta, guests::Offer, testing::*};

    fn guests(machines: &[&str]) -> Option<Guests> {
        let offer = Offer {
            archs: vec!["i686".to_owned(), "x86_64".to_owned()],
            emulator: "/usr/bin/qemu-system-x86_64".to_owned(),
            machines: machines.iter().map(ToString::to_string).collect(),
        };
        Some(Guests { offers: vec![offer], emulators: vec!["/usr/bin/kvm".to_owned()] })
    }

    #[test]
    fn a_node_that_cannot_run_the_guest_is_not_chosen() {
        // In order of their memory: `large` would be chosen first.
        let nodes = vec![
            node("large", 64).reporting(|r| (r.arch, r.guests) = ("x86_64".to_owned(), guests(&["pc-q35-6.0", "q35"]))),
            node("new", 8).reporting(|r| (r.arch, r.guests) = ("x86_64".to_owned(), guests(&["pc-q35-7.2", "q35"]))),
        ];
        let chosen = |nodes: &[NodeView], os: &str, emulator: &str| {
            let view = cluster(nodes.to_vec(), Vec::new());
            let devices = Devices::read(&format!("<domain><os>{os}</os><devices>{emulator}</devices></domain>"));
            let meta = VmMeta::default();
            let placement = choose(&view, &Ledger::of(&view), &Wanted::new(Demand::default(), &meta, &devices));
            (placement.node().map(ToString::to_string).unwrap_or_default(), placement.reasons())
        };
        let q35 = "<type arch='x86_64' machine='pc-q35-7.2'>hvm</type>";
        let any = "<type>hvm</type>";
        let emulator = |path: &str| format!("<emulator>{path}</emulator>");
        let rows = [
            (any, String::new(), "large", ""),
            ("<type machine='q35'>hvm</type>", String::new(), "large", ""),
            (q35, String::new(), "new", "large: its emulator for x86_64 has no machine type pc-q35-7.2"),
            (q35, emulator("/usr/bin/qemu-system-x86_64"), "new", "no machine type pc-q35-7.2"),
            ("<type machine='pc-q35-7.2'>hvm</type>", String::new(), "new", "large: its emulator for x86_64 has no"),
            (
                "<type arch='aarch64'>hvm</type>",
                String::new(),
                "",
                "new: it has no emulator for the architecture aarch64",
            ),
            (any, emulator("/usr/bin/qemu-kvm"), "", "new: it has no emulator /usr/bin/qemu-kvm"),
            // Its own machine types are not known.
            (q35, emulator("/usr/bin/kvm"), "large", ""),
            // Nobody has looked there.
            (q35, emulator("/opt/bin/qemu-system-x86_64"), "large", ""),
            ("<type arch='aarch64'>hvm</type>", emulator("/opt/bin/qemu-system-aarch64"), "large", ""),
        ];
        for (os, emulator, expected, why) in rows {
            let (node, reasons) = chosen(&nodes, os, &emulator);
            assert_eq!(node, expected, "{os} {emulator}: {reasons}");
            assert!(reasons.contains(why), "{os} {emulator}: {reasons}");
        }
        // A daemon of an older version does not say: it is judged by all else.
        let mut mixed = nodes.clone();
        mixed.push(node("old", 32));
        assert_eq!(chosen(&mixed, q35, "").0, "old");
        // One that could say, but whose hypervisor cannot be used, is not chosen.
        mixed.push(node("down", 99).reporting(|r| r.hypervisor_problem = "no connection".to_owned()));
        assert_eq!(chosen(&mixed, q35, "").0, "old");
    }
}
