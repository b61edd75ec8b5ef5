//! Which node a VM goes to, and why not the others.
//!
//! Hard filters first, each with its reason; then the score of the nodes that are left, as if the VM were placed there, by the VM's selector.
//! Ties go to the first by name. The whole judgement is kept, so that people can ask why a VM went where it did.

use crate::capacity::{Ledger, OVERHEAD};
use drover_model::{
    Bytes, ClusterView, DaemonState, Demand, DomainState, DomainType, How, NodeName, NodeStatus, NodeView, Selector,
    VmMeta, VmRecord, VmView, domain::devices::Devices,
};
use std::path::{Component, Path};

/// Why a node was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The VM is there already.
    #[error("the VM is there")]
    Here,
    /// Its records were written by a newer version, or are damaged.
    #[error("what it says of itself is {0}")]
    Unreadable(String),
    /// Its daemon does not run.
    #[error("its daemon is in state {0}")]
    NotRunning(DaemonState),
    /// It takes no VMs now.
    #[error("it is in state {0}")]
    NotReady(DomainState),
    /// The VM may not run there.
    #[error("the VM is limited to {0}")]
    OutsideLimit(String),
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
    /// It executes guests in another way, so that a running one cannot come to it.
    #[error("it runs guests by {there}, and the VM's node by {here}")]
    Execution {
        /// There.
        there: &'static str,
        /// Where the VM runs.
        here: &'static str,
    },
    /// The guest sees its node's processor, and this is another one.
    #[error("the guest's processor is its node's own ({here:?}), and this is {there:?}")]
    Processor {
        /// There.
        there: String,
        /// Where the VM runs.
        here: String,
    },
    /// A file of the VM's is not to be had there.
    #[error("{0} is a file of the VM's node only: it is in no folder that both nodes share (paths.shared)")]
    Storage(String),
    /// A bridge is missing.
    #[error("it has no bridge {0}")]
    Network(String),
}

/// What became of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can take the VM; its score, of which the highest wins, and the memory that it would have left.
    Fits {
        /// By the selector: MiB left, or the negative of what should be small (load in thousandths).
        score: i64,
        /// What it could still promise afterwards.
        left: Bytes,
    },
    /// It cannot.
    Rejected(Rejection),
}

/// A decision with everything that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The chosen node; `None`: no node can take the VM.
    pub node: Option<NodeName>,
    /// What the scores are made by.
    pub selector: Selector,
    /// Every node and what became of it, by name.
    pub verdicts: Vec<(NodeName, Verdict)>,
}

impl Placement {
    /// The reasons of all rejections, for an error message.
    pub fn reasons(&self) -> String {
        let said = self.verdicts.iter().filter_map(|(node, verdict)| match verdict {
            Verdict::Rejected(Rejection::Here) | Verdict::Fits { .. } => None,
            Verdict::Rejected(why) => Some(format!("{node}: {why}")),
        });
        let said: Vec<String> = said.collect();
        if said.is_empty() { "there is no other node".to_owned() } else { said.join("; ") }
    }
}

/// What is looked for: room for a VM, new or moved.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its memory and vCPUs.
    pub demand: Demand,
    /// What its administrator says.
    pub meta: &'a VmMeta,
    /// What its definition has.
    pub devices: &'a Devices,
    /// The node that it leaves; `None`: it is new, or off and can be started anywhere.
    pub from: Option<&'a NodeName>,
    /// Whether it is to go while it runs.
    pub live: bool,
}

impl<'a> Wanted<'a> {
    /// Room for a VM that leaves where it is.
    pub fn moved(vm: &'a VmView, how: How) -> Wanted<'a> {
        let VmRecord { node, meta, .. } = &vm.record.value;
        // One that nobody holds runs nowhere yet.
        let held = vm.holder().is_some();
        Wanted { demand: vm.demand, meta, devices: &vm.devices, from: node.as_ref(), live: held && how != How::Cold }
    }
}

/// Whether one node can take a VM, and how good that would be.
pub fn judge(view: &ClusterView, ledger: &Ledger, name: &NodeName, node: &NodeView, wanted: &Wanted<'_>) -> Verdict {
    let selector = wanted.meta.selector.unwrap_or(view.config.selector);
    match fits(view, ledger, name, node, wanted) {
        Ok(left) => Verdict::Fits { score: score(ledger, name, node, wanted.demand, selector, left), left },
        Err(why) => Verdict::Rejected(why),
    }
}

fn fits(
    view: &ClusterView,
    ledger: &Ledger,
    name: &NodeName,
    node: &NodeView,
    wanted: &Wanted<'_>,
) -> Result<Bytes, Rejection> {
    use Rejection::*;
    if wanted.from == Some(name) {
        return Err(Here);
    }
    if let Some(problem) = &node.unreadable {
        return Err(Unreadable(problem.to_string()));
    }
    let daemon = node.daemon_state();
    if daemon != DaemonState::Run {
        return Err(NotRunning(daemon));
    }
    let domain = node.record.value.domain_state;
    if domain != DomainState::Ready {
        return Err(NotReady(domain));
    }
    if !wanted.meta.allows(name) {
        let nodes: Vec<&str> = wanted.meta.node_limit.iter().map(NodeName::as_str).collect();
        return Err(OutsideLimit(nodes.join(", ")));
    }
    let (Some(status), Some(free)) = (&node.status, ledger.free_memory(view, name)) else {
        return Err(NotReported);
    };
    if !status.hypervisor_problem.is_empty() {
        return Err(NoHypervisor(status.hypervisor_problem.clone()));
    }
    has_what_it_needs(view, status, wanted)?;
    if wanted.demand.vcpus > status.cpus {
        return Err(Vcpus { needed: wanted.demand.vcpus, has: status.cpus });
    }
    let needed = wanted.demand.memory.saturating_add(OVERHEAD);
    if needed > free { Err(Memory { needed, free }) } else { Ok(free.saturating_sub(needed)) }
}

/// Whether the node has what the definition names, and what a running guest is used to.
fn has_what_it_needs(view: &ClusterView, status: &NodeStatus, wanted: &Wanted<'_>) -> Result<(), Rejection> {
    let source = wanted.from.and_then(|name| view.nodes.get(name)).and_then(|node| node.status.as_ref());
    let Some(source) = source else { return Ok(()) };
    let bridges = wanted.devices.networks.iter().filter(|n| n.kind == "bridge" && !n.source.is_empty());
    if let Some(missing) = bridges.map(|n| &n.source).find(|bridge| !status.bridges.contains(bridge)) {
        return Err(Rejection::Network(missing.clone()));
    }
    let shared = |file: &String| {
        if Path::new(file).components().any(|part| part == Component::ParentDir) {
            return false;
        }
        let folders = source.shared.iter().filter(|folder| status.shared.contains(folder));
        folders.into_iter().any(|folder| Path::new(file).starts_with(folder))
    };
    if let Some(own) = wanted.devices.files.iter().find(|file| !shared(file)) {
        return Err(Rejection::Storage(own.clone()));
    }
    if !wanted.live {
        return Ok(());
    }
    if let (Some(there), Some(here)) = (status.domain_type, source.domain_type)
        && there != here
    {
        return Err(Rejection::Execution { there: there.word(), here: here.word() });
    }
    let sees_host = matches!(wanted.devices.cpu_mode.as_str(), "host-passthrough" | "host-model" | "maximum");
    if sees_host && source.domain_type == Some(DomainType::Kvm) && source.cpu_model != status.cpu_model {
        return Err(Rejection::Processor { there: status.cpu_model.clone(), here: source.cpu_model.clone() });
    }
    Ok(())
}

/// How good a node would be with the VM on it.
fn score(ledger: &Ledger, name: &NodeName, node: &NodeView, demand: Demand, selector: Selector, left: Bytes) -> i64 {
    let usage = ledger.usage(name);
    let mib = |bytes: Bytes| i64::try_from(bytes.as_mib()).unwrap_or(i64::MAX);
    match selector {
        Selector::Mem => mib(left),
        Selector::Memprov => {
            let offered = node.status.as_ref().map_or(0, |s| mib(s.memory_total));
            offered - mib(usage.provisioned.memory) - mib(demand.memory)
        }
        Selector::Load => {
            let load = node.status.as_ref().map_or(0.0, |s| s.load).clamp(0.0, 1e6);
            // What is on its way does not show in the load yet: one vCPU may be one unit of it.
            let expected = i64::from(usage.arriving_vcpus) + i64::from(demand.vcpus);
            -((f64::from(load) * 1000.0) as i64 + 1000 * expected)
        }
        Selector::Vcpus => -(i64::from(usage.promised_vcpus) + i64::from(demand.vcpus)),
        Selector::Vms => -(i64::from(usage.promised_vms) + 1),
    }
}

/// The best node for a VM but the one to be avoided, without the whole judgement.
pub fn best<'a>(
    view: &'a ClusterView,
    ledger: &Ledger,
    wanted: &Wanted<'_>,
    avoided: Option<&NodeName>,
) -> Option<&'a NodeName> {
    let mut best: Option<(i64, &NodeName)> = None;
    for (name, node) in view.nodes.iter().filter(|(name, _)| avoided != Some(name)) {
        if let Verdict::Fits { score, .. } = judge(view, ledger, name, node, wanted)
            && best.is_none_or(|(most, _)| score > most)
        {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name)
}

/// The best node for a VM, and what became of every node.
pub fn choose(view: &ClusterView, ledger: &Ledger, wanted: &Wanted<'_>) -> Placement {
    let selector = wanted.meta.selector.unwrap_or(view.config.selector);
    let verdicts: Vec<(NodeName, Verdict)> =
        view.nodes.iter().map(|(name, node)| (name.clone(), judge(view, ledger, name, node, wanted))).collect();
    Placement { node: best(view, ledger, wanted, None).cloned(), selector, verdicts }
}

#[cfg(test)]
pub(crate) mod tests;
