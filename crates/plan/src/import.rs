//! Whether a domain that is in a node's hypervisor already can become a VM (`drover vm import`), and what that changes.

use drover_model::{
    BadName, ClusterView, Definition, NodeName, RunState, VmName, VmState,
    domain::{BadXml, Candidate, Mark, devices::Devices},
    vm::Epoch,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Why a domain cannot become a VM. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is one.
    #[error("it is VM {0} of this cluster already")]
    Known(VmName),
    /// A VM that is not in this domain has its UUID.
    #[error(
        "VM {name} of this cluster has the UUID {uuid} too, and this domain of node {node} is not its: undefine the \
         domain ('virsh undefine', which leaves its disks)"
    )]
    UuidTaken {
        /// The VM.
        name: VmName,
        /// The UUID.
        uuid: Uuid,
        /// Where.
        node: NodeName,
    },
    /// Another VM has its name.
    #[error(
        "another VM (UUID {by}) is named {name}, and a cluster has each name once: rename that VM ('drover vm \
         rename'), or the domain while it is off ('virsh domrename')"
    )]
    NameTaken {
        /// The name.
        name: VmName,
        /// The VM that has it.
        by: Uuid,
    },
    /// Its name is not accepted.
    #[error("{0}. Rename the domain first, while it is off ('virsh domrename')")]
    BadName(BadName),
    /// Its name is a UUID.
    #[error(
        "the domain's name {0} has the form of a UUID, which means a VM's UUID everywhere: rename the domain first, \
         while it is off ('virsh domrename')"
    )]
    NameIsUuid(VmName),
    /// Another node has the same domain too.
    #[error(
        "node {other} has a domain with the same UUID {uuid}: make sure which of the two is the right one, and \
         undefine the other ('virsh undefine', which leaves its disks)"
    )]
    Twice {
        /// The other node.
        other: NodeName,
        /// The UUID.
        uuid: Uuid,
    },
    /// Its memory is saved in a file, which would be deleted with the definition.
    #[error(
        "the memory of domain {0} is saved on its node, and would be lost: start it there first ('virsh start'), or \
         give the saved memory up ('virsh managedsave-remove')"
    )]
    Saved(String),
    /// The hypervisor has notes of snapshots, which would be deleted with the definition.
    #[error(
        "the hypervisor has notes of {number} snapshot{s} of domain {domain}, which would be lost when it is off, \
         and it could not be migrated: delete them first ('virsh snapshot-delete'; with --metadata their data stay \
         in the images)",
        s = plural(*number)
    )]
    Snapshots {
        /// The domain.
        domain: String,
        /// How many.
        number: u32,
    },
    /// The same with checkpoints.
    #[error(
        "the hypervisor has notes of {number} checkpoint{s} of domain {domain}, which would be lost when it is off, \
         and it could not be migrated: delete them first ('virsh checkpoint-delete'; with --metadata their bitmaps \
         stay in the images)",
        s = plural(*number)
    )]
    Checkpoints {
        /// The domain.
        domain: String,
        /// How many.
        number: u32,
    },
    /// It is being migrated.
    #[error("domain {0} is being migrated to another machine: try again when that has ended")]
    Migrating(String),
    /// Its definition is not accepted.
    #[error("the definition of domain {domain} is not accepted: {why}. Change it first ('virsh edit')")]
    Definition {
        /// The domain.
        domain: String,
        /// Why.
        why: BadXml,
    },
}

fn plural(number: u32) -> &'static str {
    if number == 1 { "" } else { "s" }
}

/// What becomes of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The VM's definition.
    pub definition: Definition,
    /// Its wanted state: `start` if it is in memory, else `stop`.
    pub state: VmState,
    /// The domain's mark; that of [`Mark::IMPORTED`] if it has none.
    pub mark: Epoch,
    /// What Drover changes, in sentences.
    pub changes: Vec<String>,
    /// What an administrator should know, in sentences.
    pub notes: Vec<String>,
}

/// Whether a domain of that node can become a VM, and what that changes.
///
/// # Errors
/// Why not, and what to do.
pub fn import(view: &ClusterView, node: &NodeName, candidate: &Candidate) -> Result<Import, Refusal> {
    let domain = || candidate.name.clone();
    let mark = Mark::read(candidate.live.as_ref().unwrap_or(&candidate.xml));
    if let Some(vm) = view.vms.get(&candidate.uuid) {
        let coming = vm.claim.as_ref().is_some_and(|claim| claim.value.is_for_unmarked());
        let (name, uuid, node) = (vm.record.value.name.clone(), candidate.uuid, node.clone());
        let ours = mark.is_some() || coming && vm.matters_to(&node);
        return Err(if ours { Refusal::Known(name) } else { Refusal::UuidTaken { name, uuid, node } });
    }
    let xml = candidate.definition();
    let parsed = xml.and_then(|xml| Definition::parse(&xml, candidate.uuid));
    let definition = parsed.map_err(|why| match why {
        BadXml::Name(bad) => Refusal::BadName(bad),
        why => Refusal::Definition { domain: domain(), why },
    })?;
    let name = definition.name.clone();
    if crate::admit::new_name(&name).is_err() {
        return Err(Refusal::NameIsUuid(name));
    }
    if let Some(by) = view.names.get(&name) {
        return Err(Refusal::NameTaken { name, by: *by });
    }
    if let Some(other) = other_node_with(view, node, &candidate.uuid) {
        return Err(Refusal::Twice { other: other.clone(), uuid: candidate.uuid });
    }
    if candidate.sending {
        return Err(Refusal::Migrating(domain()));
    }
    if candidate.saved {
        return Err(Refusal::Saved(domain()));
    }
    if candidate.snapshots > 0 {
        return Err(Refusal::Snapshots { domain: domain(), number: candidate.snapshots });
    }
    if candidate.checkpoints > 0 {
        return Err(Refusal::Checkpoints { domain: domain(), number: candidate.checkpoints });
    }
    let running = candidate.run != RunState::Off;
    let mark = mark.unwrap_or(Mark::IMPORTED).epoch;
    let state = if running { VmState::Start } else { VmState::Stop };
    Ok(Import { state, mark, changes: changes(candidate, running), notes: notes(candidate, &definition), definition })
}

/// Another node that has a domain with the UUID, whoever made it.
fn other_node_with<'a>(view: &'a ClusterView, node: &NodeName, uuid: &Uuid) -> Option<&'a NodeName> {
    let others = view.nodes.iter().filter(|(name, _)| *name != node);
    let has = |status: &drover_model::NodeStatus| {
        status.foreign.iter().any(|domain| domain.uuid == *uuid)
            || status.strays.iter().any(|stray| stray.uuid == *uuid)
    };
    others
        .filter(|(_, node)| node.status.as_ref().is_some_and(|status| has(&status.value)))
        .map(|(name, _)| name)
        .next()
}

fn changes(candidate: &Candidate, running: bool) -> Vec<String> {
    let mut changes = Vec::new();
    if running {
        changes.push("its guest runs on; Drover's mark is written into the metadata of the domain".to_owned());
        if !candidate.persistent {
            changes.push("it has no definition in libvirt and gets one, so that its end is seen".to_owned());
        }
    } else {
        changes.push(
            "its definition is kept in Drover's record and removed from libvirt until its next start; its disks, and \
             the state of its TPM and of its firmware, stay where they are"
                .to_owned(),
        );
    }
    if candidate.autostart {
        changes.push(
            "libvirt does not start it any more when the machine boots (autostart is switched off): Drover does, if \
             it is in state start"
                .to_owned(),
        );
    }
    changes
}

fn notes(candidate: &Candidate, definition: &Definition) -> Vec<String> {
    let mut notes = Vec::new();
    let devices = Devices::read(&definition.xml);
    // libvirt's own spelling.
    if definition.xml.contains(" passwd='") {
        notes.push(
            "its definition has a password of its display, which becomes part of the VM's record ('drover vm dump' \
             shows it)"
                .to_owned(),
        );
    }
    if let Some(live) = &candidate.live {
        let by_name = |xml: &str| -> BTreeMap<String, String> { drover_model::domain::written(xml) };
        let (runs, defined) = (by_name(live), by_name(&definition.xml));
        let other = runs.iter().find(|(dev, source)| defined.get(*dev).is_some_and(|is| is != *source));
        if let Some((dev, source)) = other {
            notes.push(format!(
                "its guest writes to {source} as {dev}, and its definition has {}: its next start would use older data",
                defined[dev]
            ));
        }
        if !devices.console.is_empty() {
            notes.push("its console is logged from its next start on".to_owned());
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Claim, Foreign, Stray, Version, testing::*};

    const UUID: Uuid = Uuid::from_u128(7);

    fn xml(name: &str, more: &str) -> String {
        format!(
            "<domain type='kvm'><name>{name}</name><uuid>{UUID}</uuid><memory \
             unit='MiB'>64</memory><vcpu>1</vcpu>{more}</domain>"
        )
    }

    fn off(xml: String) -> Candidate {
        Candidate::off(UUID, drover_model::domain::name_of(&xml).unwrap_or_default(), xml)
    }

    fn running(xml: String) -> Candidate {
        off(xml).running()
    }

    fn of(view: &ClusterView, candidate: &Candidate) -> Result<Import, Refusal> {
        import(view, &name("a"), candidate)
    }

    #[test]
    fn what_runs_is_to_run_and_what_is_off_is_to_be_off() {
        let view = cluster(vec![node("a", 4)], vec![]);
        let disks = |file: &str| {
            format!("<devices><disk><source file='{file}'/><target dev='vda'/></disk><serial type='pty'/></devices>")
        };
        let one = of(&view, &running(xml("web", &disks("/d/1")))).unwrap();
        assert_eq!((&one.state, one.mark), (&VmState::Start, Epoch(0)));
        assert_eq!((one.changes.len(), one.notes.len()), (1, 1), "{one:?}");
        let paused = Candidate { run: RunState::Paused, ..running(xml("web", "")) };
        assert_eq!(of(&view, &paused).unwrap().state, VmState::Start);
        let other = of(&view, &off(xml("web", &disks("/d/1")))).unwrap();
        assert_eq!((&other.state, other.notes), (&VmState::Stop, vec![]));
        assert!(other.changes[0].contains("removed from libvirt"), "{:?}", other.changes);
        // Everything that differs is said.
        let changed = Candidate {
            persistent: false,
            autostart: true,
            live: Some(xml("web", &disks("/d/snapshot"))),
            ..running(xml("web", &disks("/d/1")))
        };
        let changed = of(&view, &changed).unwrap();
        assert_eq!(changed.changes.len(), 3, "{:?}", changed.changes);
        assert!(changed.notes[0].contains("/d/snapshot as vda, and its definition has /d/1"), "{:?}", changed.notes);
        let display = "<devices><graphics type='vnc' passwd='secret'/></devices>";
        let display = of(&view, &off(xml("web", display))).unwrap().notes;
        assert!(
            matches!(&display[..], [note] if note.contains("a password") && !note.contains("secret")),
            "{display:?}"
        );
        // A mark that somebody left tells which guest it is.
        let marked = xml("web", "<metadata><d:vm xmlns:d='urn:drover:domain:1' epoch='9' generation='2'/></metadata>");
        let marked = of(&view, &running(marked)).unwrap();
        assert_eq!((marked.mark, Mark::read(&marked.definition.xml)), (Epoch(9), None));
    }

    #[test]
    fn what_would_be_lost_or_mistaken_is_refused_with_a_way_out() {
        let view = cluster(vec![node("a", 4)], vec![]);
        let plain = || off(xml("web", ""));
        let foreign = Foreign { uuid: UUID, name: "web".to_owned(), running: false };
        let stray = Stray { uuid: UUID, epoch: Epoch(3), paused: false };
        let beside = |report: &dyn Fn(&mut drover_model::NodeStatus)| {
            cluster(vec![node("a", 4).reporting(report), node("b", 4).reporting(report)], vec![])
        };
        let marked = xml("db", "<metadata><d:vm xmlns:d='urn:drover:domain:1' epoch='9' generation='2'/></metadata>");
        let mut coming = vm(7, 64).named("web").on("a");
        coming.claim = Some(drover_model::Stored::new(Claim::new(Epoch(4)).for_domain(Epoch(0)), Version(0)).into());
        let rows = [
            (cluster(vec![node("a", 4)], vec![vm(7, 64).named("db")]), plain(), "VM db of this cluster has the UUID"),
            (cluster(vec![node("a", 4)], vec![vm(7, 64).named("db")]), off(marked), "is VM db of this cluster already"),
            (cluster(vec![node("a", 4)], vec![coming]), plain(), "is VM web of this cluster already"),
            (cluster(vec![node("a", 4)], vec![vm(8, 64).named("web")]), plain(), "'drover vm rename'"),
            (beside(&|report| report.foreign = vec![foreign.clone()]), plain(), "node b has a domain with the same"),
            (beside(&|report| report.strays = vec![stray.clone()]), plain(), "node b has a domain with the same"),
            (view.clone(), off(xml("a b/c", "")), "'virsh domrename'"),
            (view.clone(), off(xml(&UUID.to_string(), "")), "has the form of a UUID"),
            (view.clone(), Candidate { saved: true, ..plain() }, "'virsh managedsave-remove'"),
            (view.clone(), Candidate { snapshots: 1, ..plain() }, "notes of 1 snapshot of domain web"),
            (view.clone(), Candidate { checkpoints: 2, ..plain() }, "notes of 2 checkpoints of domain web"),
            (view.clone(), Candidate { sending: true, ..running(xml("web", "")) }, "is being migrated"),
            (view.clone(), off(xml("web", "<vcpu>2</vcpu>")), "'virsh edit'"),
        ];
        for (view, candidate, why) in rows {
            let refusal = of(&view, &candidate).unwrap_err().to_string();
            assert!(refusal.contains(why), "{why}: {refusal}");
        }
        assert!(of(&view, &plain()).is_ok());
    }
}
