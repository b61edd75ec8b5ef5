//! Which node a VM goes to, and why not the others.
//!
//! Hard filters first, each with its reason; then the score of the nodes that are left. The whole judgement is kept, so that people can
//! ask why a VM went where it did.

use crate::capacity::{self, OVERHEAD};
use drover_model::{Bytes, ClusterView, DaemonState, Demand, DomainState, NodeName, NodeView};

/// Why a node was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Its daemon does not run.
    #[error("its daemon is in state {0}")]
    NotRunning(DaemonState),
    /// It takes no VMs now.
    #[error("it is in state {0}")]
    NotReady(DomainState),
    /// Its hypervisor cannot be used.
    #[error("its hypervisor cannot be used: {0}")]
    NoHypervisor(String),
    /// It has not said what it offers.
    #[error("it has not reported its resources yet")]
    NotReported,
    /// Too little memory is left.
    #[error("{needed} are needed (with {overhead} for QEMU itself), {free} are free", overhead = OVERHEAD)]
    Memory {
        /// What the VM needs, overhead included.
        needed: Bytes,
        /// What is left.
        free: Bytes,
    },
    /// It has fewer processor threads than the VM has vCPUs.
    #[error("{needed} vCPUs are needed, it has {has} processor threads")]
    Vcpus {
        /// The VM's vCPUs.
        needed: u32,
        /// The node's threads.
        has: u32,
    },
}

/// What became of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can take the VM; it would have this much memory left afterwards.
    Fits(Bytes),
    /// It cannot.
    Rejected(Rejection),
}

/// A decision with everything that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The chosen node; `None`: no node can take the VM.
    pub node: Option<NodeName>,
    /// Every node and what became of it, by name.
    pub verdicts: Vec<(NodeName, Verdict)>,
}

impl Placement {
    /// The reasons of all rejections, for an error message.
    pub fn reasons(&self) -> String {
        let said = self.verdicts.iter().filter_map(|(node, verdict)| match verdict {
            Verdict::Rejected(why) => Some(format!("{node}: {why}")),
            Verdict::Fits(_) => None,
        });
        let said: Vec<String> = said.collect();
        if said.is_empty() { "the cluster has no nodes".to_owned() } else { said.join("; ") }
    }
}

/// Whether one node can take a VM.
pub fn judge(view: &ClusterView, name: &NodeName, node: &NodeView, demand: Demand) -> Verdict {
    use Rejection::*;
    let reject = Verdict::Rejected;
    let daemon = node.daemon_state();
    if daemon != DaemonState::Run {
        return reject(NotRunning(daemon));
    }
    let domain = node.record.value.domain_state;
    if domain != DomainState::Ready {
        return reject(NotReady(domain));
    }
    let (Some(status), Some(free)) = (&node.status, capacity::free_memory(view, name, node)) else {
        return reject(NotReported);
    };
    if !status.hypervisor_problem.is_empty() {
        return reject(NoHypervisor(status.hypervisor_problem.clone()));
    }
    if demand.vcpus > status.cpus {
        return reject(Vcpus { needed: demand.vcpus, has: status.cpus });
    }
    let needed = demand.memory.saturating_add(OVERHEAD);
    if needed > free {
        return reject(Memory { needed, free });
    }
    Verdict::Fits(free.saturating_sub(needed))
}

/// The node with the most memory left after placing, among those that fit; ties go to the first by name.
pub fn choose(view: &ClusterView, demand: Demand) -> Placement {
    let verdicts: Vec<(NodeName, Verdict)> =
        view.nodes.iter().map(|(name, node)| (name.clone(), judge(view, name, node, demand))).collect();
    let mut best: Option<(Bytes, &NodeName)> = None;
    for (name, verdict) in &verdicts {
        if let Verdict::Fits(left) = verdict
            && best.is_none_or(|(most, _)| *left > most)
        {
            best = Some((*left, name));
        }
    }
    Placement { node: best.map(|(_, name)| name.clone()), verdicts }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use drover_model::{
        Claim, NodeRecord, NodeSession, NodeStatus, Role, Stored, VmName, VmRecord, VmState, VmView, WallTime,
        node::NODE_SCHEMA,
        vm::{Epoch, Generation, VM_SCHEMA},
    };
    use std::sync::Arc;
    use uuid::Uuid;

    pub(crate) fn name(n: &str) -> NodeName {
        NodeName::new(n).unwrap()
    }

    pub(crate) fn node(n: &str, gib: u64) -> NodeView {
        NodeView {
            record: Stored {
                version: 0,
                value: NodeRecord {
                    schema: NODE_SCHEMA,
                    name: name(n),
                    machine: String::new(),
                    role: Role::Coordinator,
                    api: String::new(),
                    domain_state: DomainState::Ready,
                },
            },
            status: Some(NodeStatus {
                schema: NODE_SCHEMA,
                daemon: DaemonState::Run,
                version: String::new(),
                kernel: String::new(),
                os: String::new(),
                arch: String::new(),
                hypervisor: String::new(),
                hypervisor_problem: String::new(),
                domain_type: None,
                cpus: 4,
                memory_total: Bytes::mib(gib * 1024),
                memory_free: Bytes::mib(gib * 1024),
                load: 0.0,
                domains: vec![],
                updated: WallTime(0),
            }),
            session: Some(NodeSession {
                schema: NODE_SCHEMA,
                instance: Uuid::nil(),
                machine: String::new(),
                boot: String::new(),
                started: WallTime(0),
            }),
        }
    }

    pub(crate) fn vm(n: u128, state: VmState, on: &str, held: Option<&str>, mib: u64) -> VmView {
        VmView {
            record: Stored {
                version: 0,
                value: VmRecord {
                    schema: VM_SCHEMA,
                    uuid: Uuid::from_u128(n),
                    name: VmName::new(&format!("vm{n}")).unwrap(),
                    state,
                    node: Some(name(on)),
                    last_node: None,
                    xml: String::new(),
                    generation: Generation(1),
                    description: String::new(),
                    profile: String::new(),
                },
            },
            claim: Some(Stored {
                version: 0,
                value: Claim { schema: VM_SCHEMA, node: held.map(name), epoch: Epoch(1) },
            }),
            status: None,
            demand: Demand { memory: Bytes::mib(mib), vcpus: 1 },
            devices: Arc::default(),
        }
    }

    pub(crate) fn cluster(nodes: Vec<NodeView>, vms: Vec<VmView>) -> ClusterView {
        let mut view = ClusterView::default();
        view.nodes.extend(nodes.into_iter().map(|n| (n.record.value.name.clone(), Arc::new(n))));
        view.vms.extend(vms.into_iter().map(|v| (v.record.value.uuid, Arc::new(v))));
        view
    }

    const SMALL: Demand = Demand { memory: Bytes::mib(512), vcpus: 1 };

    #[test]
    fn the_most_free_memory_wins_and_ties_go_to_the_first_name() {
        let equal = cluster(vec![node("b", 4), node("a", 4)], vec![]);
        assert_eq!(choose(&equal, SMALL).node, Some(name("a")));
        let one_bigger = cluster(vec![node("a", 4), node("b", 8)], vec![]);
        assert_eq!(choose(&one_bigger, SMALL).node, Some(name("b")));
    }

    #[test]
    fn what_runs_and_what_is_about_to_run_counts_what_is_off_does_not() {
        let starting = vm(1, VmState::Start, "a", None, 1024);
        assert_eq!(choose(&cluster(vec![node("a", 4), node("b", 4)], vec![starting]), SMALL).node, Some(name("b")));
        let held = vm(1, VmState::Stop, "b", Some("a"), 1024);
        assert_eq!(choose(&cluster(vec![node("a", 4), node("b", 4)], vec![held]), SMALL).node, Some(name("b")));
        let off = vm(1, VmState::Stop, "a", None, 1024);
        assert_eq!(choose(&cluster(vec![node("a", 4), node("b", 4)], vec![off]), SMALL).node, Some(name("a")));
    }

    #[test]
    fn every_rejection_has_its_reason() {
        let mut dead = node("a", 8);
        dead.session = None;
        let mut flushed = node("b", 8);
        flushed.record.value.domain_state = DomainState::Flushed;
        let mut silent = node("c", 8);
        silent.status = None;
        let mut broken = node("d", 8);
        if let Some(status) = &mut broken.status {
            status.hypervisor_problem = "no libvirtd".to_owned();
        }
        let placement = choose(&cluster(vec![dead, flushed, silent, broken, node("e", 1)], vec![]), SMALL);
        assert_eq!(placement.node, None);
        assert_eq!(
            placement.reasons(),
            "a: its daemon is in state dead; b: it is in state flushed; c: its daemon is in state init; \
             d: its hypervisor cannot be used: no libvirtd; \
             e: 608 MiB are needed (with 96 MiB for QEMU itself), 512 MiB are free"
        );
        let wide = Demand { vcpus: 5, ..SMALL };
        let placement = choose(&cluster(vec![node("a", 8)], vec![]), wide);
        assert_eq!(placement.reasons(), "a: 5 vCPUs are needed, it has 4 processor threads");
    }
}
