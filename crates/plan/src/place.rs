//! Which node a VM goes to, in which way, and why not to the others: [`choose`] is asked by everything that brings a VM
//! to a node, and by everything that tells where it would go.
//!
//! Hard filters first, each with its reason; then the score of the nodes that are left, as if the VM were placed there,
//! by the VM's selector. Ties go to the first by name. The whole judgement is kept, so that people can ask why a VM
//! went where it did.

use crate::capacity::{Ledger, OVERHEAD};
use drover_model::{
    Bytes, ClusterView, DaemonState, Demand, DomainState, DomainType, How, MigrationMethod, MoveFailure, MoveKind,
    NodeName, NodeStatus, NodeView, Selector, VmMeta, VmRecord, VmView, domain::devices::Devices,
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
    /// Whether a file of the VM's is to be had there is not known.
    #[error("{0} is not known to be there: the VM's node does not say which folders it shares")]
    StorageUnknown(String),
    /// How the guest runs now is not known, so that it cannot be said whether it could run there.
    #[error("the VM's node does not say how it runs guests, so that a running one cannot be sent")]
    SourceUnknown,
    /// It has just failed to come there, and there is another node.
    #[error("it could not be brought there just now: {0}")]
    JustFailed(String),
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
    /// The chosen node, and in which way the VM gets there; `None`: no node can take it.
    pub chosen: Option<(NodeName, How)>,
    /// What the scores are made by.
    pub selector: Selector,
    /// Every node that was asked for and what became of it, by name.
    pub verdicts: Vec<(NodeName, Verdict)>,
}

impl Placement {
    /// The chosen node.
    pub fn node(&self) -> Option<&NodeName> {
        self.chosen.as_ref().map(|(node, _)| node)
    }

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
    /// The node that it is assigned to, where its files are; `None`: it is new.
    pub at: Option<&'a NodeName>,
    /// Whether it may be on that node as well as on others: it is off, and only looks where it can be started.
    pub may_stay: bool,
    /// Whether somebody may run it, so that it goes while it runs unless it goes cold.
    pub held: bool,
    /// In which way it is to go. *Live, else cold*: cold only where no node can take it live.
    pub how: How,
    /// The only node that is asked for; `None`: any.
    pub only: Option<&'a NodeName>,
    /// A node that is judged as if it were ready: it takes its own, and nobody else's, while it is made ready.
    pub as_ready: Option<&'a NodeName>,
    /// Its last move, if that failed: where it failed is tried again only if there is no other.
    pub failed: Option<&'a MoveFailure>,
}

impl<'a> Wanted<'a> {
    /// Room for a VM that is nowhere yet.
    pub fn new(demand: Demand, meta: &'a VmMeta, devices: &'a Devices) -> Wanted<'a> {
        let (at, only, as_ready, failed) = (None, None, None, None);
        let (may_stay, held, how) = (false, false, How::Cold);
        Wanted { demand, meta, devices, at, may_stay, held, how, only, as_ready, failed }
    }

    /// Room for a VM that leaves where it is, by its method.
    pub fn moved(vm: &'a VmView) -> Wanted<'a> {
        let VmRecord { node, meta, .. } = &vm.record.value;
        Wanted {
            at: node.as_ref(),
            // One that nobody holds runs nowhere yet.
            held: vm.holder().is_some(),
            how: how(meta.method),
            failed: vm.status.as_ref().and_then(|status| status.move_failure.as_ref()),
            ..Wanted::new(vm.demand, meta, &vm.devices)
        }
    }

    /// The same in that way.
    #[must_use]
    pub fn by(self, how: How) -> Wanted<'a> {
        Wanted { how, ..self }
    }

    /// The same on one node, if it is named.
    #[must_use]
    pub fn to(self, only: Option<&'a NodeName>) -> Wanted<'a> {
        Wanted { only, ..self }
    }

    /// The same, as if that node were ready.
    #[must_use]
    pub fn as_ready(self, node: Option<&'a NodeName>) -> Wanted<'a> {
        Wanted { as_ready: node, ..self }
    }

    /// The same for a move of that kind to a node: one that is being made ready takes those that come home.
    #[must_use]
    pub(crate) fn coming_to(self, view: &ClusterView, node: &'a NodeName, kind: MoveKind) -> Wanted<'a> {
        let unflush = view.nodes.get(node).is_some_and(|n| n.record.value.domain_state == DomainState::Unflush);
        self.to(Some(node)).as_ready((unflush && kind == MoveKind::Unmigrate).then_some(node))
    }

    /// Whether a guest that executes is sent.
    fn live(&self) -> bool {
        self.held && self.how != How::Cold
    }
}

/// How a VM is moved, by its method.
pub fn how(method: MigrationMethod) -> How {
    match method {
        MigrationMethod::None => How::LiveElseCold,
        MigrationMethod::Live => How::Live,
        MigrationMethod::Shutdown => How::Cold,
    }
}

/// Whether one node can take a VM in just that way, and how good that would be.
pub(crate) fn judge(
    view: &ClusterView,
    ledger: &Ledger,
    name: &NodeName,
    node: &NodeView,
    wanted: &Wanted<'_>,
) -> Verdict {
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
    if wanted.at == Some(name) && !wanted.may_stay {
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
    if domain != DomainState::Ready && wanted.as_ready != Some(name) {
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
    has_what_it_needs(view, name, status, wanted)?;
    if wanted.demand.vcpus > status.cpus {
        return Err(Vcpus { needed: wanted.demand.vcpus, has: status.cpus });
    }
    let needed = wanted.demand.memory.saturating_add(OVERHEAD);
    if needed > free { Err(Memory { needed, free }) } else { Ok(free.saturating_sub(needed)) }
}

/// Whether the node has what the definition names, and what a running guest is used to. What its own node does not say
/// is no permission.
fn has_what_it_needs(
    view: &ClusterView,
    name: &NodeName,
    status: &NodeStatus,
    wanted: &Wanted<'_>,
) -> Result<(), Rejection> {
    let bridges = wanted.devices.networks.iter().filter(|n| n.kind == "bridge" && !n.source.is_empty());
    if let Some(missing) = bridges.map(|n| &n.source).find(|bridge| !status.bridges.contains(bridge)) {
        return Err(Rejection::Network(missing.clone()));
    }
    // The files of a new VM are made where it is defined.
    let Some(at) = wanted.at.filter(|at| *at != name) else { return Ok(()) };
    let source = view.nodes.get(at).and_then(|node| node.status.as_ref());
    let shared = |file: &String| {
        if Path::new(file).components().any(|part| part == Component::ParentDir) {
            return false;
        }
        let folders = source.iter().flat_map(|source| &source.shared).filter(|folder| status.shared.contains(folder));
        folders.into_iter().any(|folder| Path::new(file).starts_with(folder))
    };
    if let Some(own) = wanted.devices.files.iter().find(|file| !shared(file)) {
        let rejection = if source.is_some() { Rejection::Storage } else { Rejection::StorageUnknown };
        return Err(rejection(own.clone()));
    }
    if !wanted.live() {
        return Ok(());
    }
    let Some(source) = source else { return Err(Rejection::SourceUnknown) };
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

/// Where a VM goes, in which way, and what became of every node: where it has just failed to come only if there is no
/// other; and what no node can take while it runs goes cold, if it may.
pub fn choose(view: &ClusterView, ledger: &Ledger, wanted: &Wanted<'_>) -> Placement {
    let asked = in_that_way(view, ledger, wanted);
    if asked.chosen.is_none() && wanted.how == How::LiveElseCold && wanted.held {
        let cold = in_that_way(view, ledger, &wanted.by(How::Cold));
        if cold.chosen.is_some() {
            return cold;
        }
    }
    asked
}

fn in_that_way(view: &ClusterView, ledger: &Ledger, wanted: &Wanted<'_>) -> Placement {
    let selector = wanted.meta.selector.unwrap_or(view.config.selector);
    let asked: Vec<(&NodeName, &NodeView)> = match wanted.only {
        Some(only) => view.nodes.get(only).map(|node| (only, &**node)).into_iter().collect(),
        None => view.nodes.iter().map(|(name, node)| (name, &**node)).collect(),
    };
    let mut verdicts = Vec::with_capacity(asked.len());
    let mut best: Option<(i64, &NodeName)> = None;
    let mut failed = None;
    for (name, node) in asked {
        let verdict = judge(view, ledger, name, node, wanted);
        if let Verdict::Fits { score, .. } = verdict {
            match wanted.failed.filter(|failure| failure.to == *name) {
                Some(failure) => failed = Some((verdicts.len(), name, failure)),
                None if best.is_none_or(|(most, _)| score > most) => best = Some((score, name)),
                None => {}
            }
        }
        verdicts.push((name.clone(), verdict));
    }
    let chosen = match (best, failed) {
        (Some((_, name)), Some((at, _, failure))) => {
            verdicts[at].1 = Verdict::Rejected(Rejection::JustFailed(failure.reason.clone()));
            Some(name)
        }
        (Some((_, name)), None) | (None, Some((_, name, _))) => Some(name),
        (None, None) => None,
    };
    Placement { chosen: chosen.map(|name| (name.clone(), wanted.how)), selector, verdicts }
}

#[cfg(test)]
pub(crate) mod tests;
