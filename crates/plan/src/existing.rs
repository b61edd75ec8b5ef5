//! Domains that hypervisors have already, and that a new VM's definition meets.

use drover_model::{ClusterView, Definition, Epoch, NodeName, VmName};
use uuid::Uuid;

/// Why a VM cannot be defined. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its guest runs.
    #[error(
        "VM {name} runs on node {node} already, under grant {epoch} of an earlier record. Define it with --adopt to \
         take it over as it runs, or end it there first ('virsh destroy')"
    )]
    Runs {
        /// The VM.
        name: VmName,
        /// Where.
        node: NodeName,
        /// The grant in its mark.
        epoch: u64,
    },
    /// A domain that is not Drover's has the UUID.
    #[error(
        "node {node} has a domain with UUID {uuid} that is not Drover's; take it over with 'drover vm import {node} \
         {uuid}', undefine it there first ('virsh undefine', which leaves its disks), or give the VM a UUID of its own"
    )]
    ForeignUuid {
        /// Where.
        node: NodeName,
        /// The UUID.
        uuid: Uuid,
    },
    /// A domain that is not Drover's has the name.
    #[error(
        "node {node} has another domain named {name} (UUID {uuid}) that is not Drover's, and libvirt allows a name \
         once: take it over with 'drover vm import {node} {uuid}', rename it there ('virsh domrename'), undefine it \
         ('virsh undefine', which leaves its disks), or choose another name or node"
    )]
    ForeignName {
        /// Where.
        node: NodeName,
        /// The name.
        name: VmName,
        /// The UUID of the domain.
        uuid: Uuid,
    },
    /// There is nothing to adopt.
    #[error(
        "no node reports that VM {name} ({uuid}) runs there, so there is nothing to adopt; define it without --adopt"
    )]
    NothingToAdopt {
        /// The VM.
        name: VmName,
        /// Its UUID.
        uuid: Uuid,
    },
    /// It is to be adopted on another node than it runs on.
    #[error("VM {name} runs on node {node}, and can be adopted on that node only")]
    Elsewhere {
        /// The VM.
        name: VmName,
        /// Where.
        node: NodeName,
    },
}

/// Checks that a new VM does not run already; with `adopt`, that it does, and where and
/// under which grant.
pub fn check_new(
    view: &ClusterView,
    definition: &Definition,
    node: Option<&NodeName>,
    adopt: bool,
) -> Result<Option<(NodeName, Epoch)>, Refusal> {
    let (name, uuid) = (definition.name.clone(), definition.uuid);
    let reports = || view.nodes.iter().filter_map(|(at, node)| Some((at, node.status.as_ref()?)));
    let stray = reports().find_map(|(at, status)| Some((at, status.strays.iter().find(|stray| stray.uuid == uuid)?)));
    // One that exists is found when its records are created.
    if view.vms.contains_key(&uuid) {
        return Ok(None);
    }
    if let Some((at, _)) = reports().find(|(_, status)| status.foreign.iter().any(|domain| domain.uuid == uuid)) {
        return Err(Refusal::ForeignUuid { node: at.clone(), uuid });
    }
    match (stray, adopt) {
        (None, false) => Ok(None),
        (None, true) => Err(Refusal::NothingToAdopt { name, uuid }),
        (Some((at, stray)), false) => Err(Refusal::Runs { name, node: at.clone(), epoch: stray.epoch.0 }),
        (Some((at, _)), true) if node.is_some_and(|node| node != at) => {
            Err(Refusal::Elsewhere { name, node: at.clone() })
        }
        (Some((at, stray)), true) => Ok(Some((at.clone(), stray.epoch))),
    }
}

/// Checks that no domain of the node which is not Drover's has the VM's name.
pub fn check_name(view: &ClusterView, definition: &Definition, node: &NodeName) -> Result<(), Refusal> {
    let status = view.nodes.get(node).and_then(|node| node.status.as_ref());
    let taken = status.and_then(|status| status.foreign.iter().find(|domain| domain.name == definition.name.as_str()));
    match taken {
        Some(domain) => {
            Err(Refusal::ForeignName { node: node.clone(), name: definition.name.clone(), uuid: domain.uuid })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Foreign, Stray, testing::*};

    const XML: &str = "<domain type='kvm'><name>web</name><uuid>00000000-0000-0000-0000-000000000007</uuid><memory \
    unit='MiB'>64</memory><vcpu>1</vcpu></domain>";

    fn definition() -> Definition {
        Definition::parse(XML, Uuid::nil()).unwrap()
    }

    #[test]
    fn a_vm_that_runs_already_is_defined_only_to_adopt_it_where_it_runs() {
        let stray = Stray { uuid: Uuid::from_u128(7), epoch: Epoch(3), paused: false };
        let runs = node("b", 4).reporting(|report| report.strays = vec![stray]);
        let view = cluster(vec![node("a", 4), runs], vec![]);
        let (a, b) = (name("a"), name("b"));
        let check = |node, adopt| check_new(&view, &definition(), node, adopt);
        let refusal = check(None, false).unwrap_err().to_string();
        assert!(refusal.contains("runs on node b") && refusal.contains("--adopt"), "{refusal}");
        assert_eq!(check(None, true), Ok(Some((b.clone(), Epoch(3)))));
        assert_eq!(check(Some(&b), true), Ok(Some((b.clone(), Epoch(3)))));
        assert!(matches!(check(Some(&a), true), Err(Refusal::Elsewhere { .. })));
        let empty = cluster(vec![node("a", 4)], vec![]);
        assert_eq!(check_new(&empty, &definition(), None, false), Ok(None));
        assert!(matches!(check_new(&empty, &definition(), None, true), Err(Refusal::NothingToAdopt { .. })));
    }

    #[test]
    fn a_domain_that_is_not_drovers_is_named_when_its_uuid_or_its_name_is_taken() {
        let foreign = |n, name: &str| Foreign { uuid: Uuid::from_u128(n), name: name.to_owned(), running: false };
        let having =
            |foreign| cluster(vec![node("a", 4), node("b", 4).reporting(|r| r.foreign = vec![foreign])], vec![]);
        let same_uuid = check_new(&having(foreign(7, "other")), &definition(), None, false).unwrap_err().to_string();
        assert!(
            same_uuid.contains("node b has a domain with UUID 00000000-0000-0000-0000-000000000007"),
            "{same_uuid}"
        );
        let view = having(foreign(8, "web"));
        assert_eq!(check_new(&view, &definition(), None, false), Ok(None));
        assert_eq!(check_name(&view, &definition(), &name("a")), Ok(()), "a name is libvirt's, on one machine");
        let same_name = check_name(&view, &definition(), &name("b")).unwrap_err().to_string();
        assert!(same_name.contains("named web (UUID 00000000-0000-0000-0000-000000000008)"), "{same_name}");
    }
}
