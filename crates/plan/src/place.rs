//! Placement: the node of a VM, how it gets there, and the reasons against the other nodes. [`choose`] is used by
//! everything that brings a VM to a node, and by everything that shows where it would go.
//!
//! Hard filters first, each with its reason; then the score of the remaining nodes by the VM's selector, as if the VM
//! were placed there. Ties go to the first by name. All verdicts are kept, so that users can ask why a VM was placed
//! where it is.

mod guests;
mod reasons;

use crate::{
    capacity::{Ledger, OVERHEAD},
    condemned,
};
use drover_model::{
    Bytes, ClusterView, DaemonState, Demand, DomainType, How, MigrationMethod, MoveFailure, MoveKind, NodeName,
    NodeState, NodeStatus, NodeView, Replaced, Selector, StartRefused, VmMeta, VmRecord, VmView,
    domain::{KeptState, devices::Devices},
};
use std::path::{Component, Path};

/// Why a node was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The VM is already there.
    #[error("the VM is there")]
    Here,
    /// The plan is for the time after its loss.
    #[error("it is off, or counts as off")]
    Lost,
    /// Its records were written by a newer version, or are damaged.
    #[error("its records are {0}")]
    Unreadable(String),
    /// Its daemon does not run.
    #[error("its daemon is in state {0}")]
    NotRunning(DaemonState),
    /// Its daemon is back, and the order to cut its power may still be carried out.
    #[error("its power may be cut at any moment")]
    Condemned,
    /// It does not accept VMs now.
    #[error("it is in state {0}")]
    NotReady(NodeState),
    /// The VM may not run there.
    #[error("the VM is limited to {0}")]
    OutsideLimit(String),
    /// Its hypervisor cannot be used.
    #[error("its hypervisor cannot be used: {0}")]
    NoHypervisor(String),
    /// It has not reported its resources.
    #[error("it has not reported its resources yet")]
    NotReported,
    /// Not enough free memory.
    #[error("{needed} are needed (with {overhead} for QEMU itself), {free} are free", overhead = OVERHEAD)]
    Memory {
        /// Memory that the VM needs, overhead included.
        needed: Bytes,
        /// Free memory.
        free: Bytes,
    },
    /// It has fewer CPU threads than the VM has vCPUs.
    #[error("{needed} vCPUs are needed, it has {has} processor threads")]
    Vcpus {
        /// The VM's vCPUs.
        needed: u32,
        /// The node's threads.
        has: u32,
    },
    /// It executes guests in another way (KVM or emulation), so that a running one cannot be migrated to it.
    #[error("it runs guests by {there}, and the VM's node by {here}")]
    Execution {
        /// On the node.
        there: &'static str,
        /// On the VM's node.
        here: &'static str,
    },
    /// The guest uses its node's CPU model, and this one is different.
    #[error("the guest's processor is its node's own ({here:?}), and this is {there:?}")]
    Processor {
        /// On the node.
        there: String,
        /// On the VM's node.
        here: String,
    },
    /// A file of the VM is not available there.
    #[error("{0} is a file of the VM's node only: it is in no folder that both nodes share (paths.shared)")]
    Storage(String),
    /// It is unknown whether a file of the VM is available there.
    #[error("{0} is not known to be there: the VM's node does not say which folders it shares")]
    StorageUnknown(String),
    /// A file of a new VM is in a folder that other nodes share and this one does not: the file of that path here is a
    /// different one.
    #[error("it does not share {folder} (paths.shared), where {file} is")]
    NotShared {
        /// The file.
        file: String,
        /// The folder.
        folder: String,
    },
    /// It is unknown how the guest is executed now, so that it is unknown whether it could run there.
    #[error("the VM's node does not say how it runs guests, so that a running one cannot be sent")]
    SourceUnknown,
    /// The last move there has just failed, and there is another node.
    #[error("it could not be brought there just now: {0}")]
    JustFailed(String),
    /// libvirt keeps state of it on its node.
    #[error(
        "libvirt keeps {0} on the VM's node only: it is transferred in a live migration, but not while the VM is off"
    )]
    Kept(KeptState),
    /// The emulator of its definition is missing.
    #[error("it has no emulator {0}")]
    Emulator(String),
    /// Its hypervisor runs no guests of this architecture.
    #[error("it has no emulator for the architecture {0}")]
    Architecture(String),
    /// Its emulator does not know the machine type.
    #[error("its emulator for {arch} has no machine type {machine}")]
    Machine {
        /// The machine type.
        machine: String,
        /// The architecture.
        arch: String,
    },
    /// It uses what its node has, and no other is known to have.
    #[error(
        "it uses {0} of the VM's node, which this one is not known to have (if it has, say so by the VM's limit: \
        'drover vm meta --limit')"
    )]
    Bound(String),
    /// It is not migrated while it runs.
    #[error("it cannot be moved live: {0}")]
    NotLive(String),
    /// Its next start would use older data than its guest has.
    #[error("it would have to be started there, and {0}")]
    OlderDisks(String),
    /// It was moved there, and could not be started.
    #[error("it could not be started there: {0} (an order to move it that names the node tries it again)")]
    CouldNotStart(String),
    /// A bridge is missing.
    #[error("it has no bridge {0}")]
    Network(String),
}

/// Result for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can take the VM.
    Fits {
        /// Score by the selector, the highest wins: MiB left, or the negative of what should be small (load in
        /// thousandths).
        score: i64,
        /// Memory that it could still promise afterwards.
        left: Bytes,
    },
    /// It cannot, for this reason.
    Rejected(Rejection),
}

/// A decision with all its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The chosen node, and how the VM gets there; `None`: no node can take it.
    pub chosen: Option<(NodeName, How)>,
    /// Selector of the scores.
    pub selector: Selector,
    /// Whether all nodes were considered; otherwise one was given.
    pub any: bool,
    /// Verdict for each node that was considered, by name.
    pub verdicts: Vec<(NodeName, Verdict)>,
    /// Verdicts for a live move, if the VM is moved cold only because no node can take it live.
    pub not_live: Vec<(NodeName, Verdict)>,
}

impl Placement {
    /// The chosen node.
    pub fn node(&self) -> Option<&NodeName> {
        self.chosen.as_ref().map(|(node, _)| node)
    }

    /// Whether it is memory that is missing: no node can take the VM, and one could if it had more.
    pub fn lacks_memory(&self) -> bool {
        let lacks = |(_, verdict): &(NodeName, Verdict)| matches!(verdict, Verdict::Rejected(Rejection::Memory { .. }));
        self.chosen.is_none() && self.verdicts.iter().any(lacks)
    }

    /// Reasons of all rejections, for an error message.
    pub fn reasons(&self) -> String {
        let said = self.verdicts.iter().filter_map(|(node, verdict)| match verdict {
            Verdict::Rejected(Rejection::Here | Rejection::Lost) | Verdict::Fits { .. } => None,
            Verdict::Rejected(why) => Some(format!("{node}: {why}")),
        });
        let said: Vec<String> = said.collect();
        if said.is_empty() { "there is no other node".to_owned() } else { said.join("; ") }
    }
}

/// Requirements of a VM, new or moved.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its memory and vCPUs.
    pub demand: Demand,
    /// Metadata set by its administrator.
    pub meta: &'a VmMeta,
    /// Devices in its definition.
    pub devices: &'a Devices,
    /// The node that it is assigned to, where its files are; `None` for a new VM.
    pub at: Option<&'a NodeName>,
    /// Whether that node is allowed as well: the VM is off and can be started there.
    pub may_stay: bool,
    /// Whether it has never run and was not imported, so that nothing of it exists but its definition and its files.
    pub fresh: bool,
    /// Whether a node may be running it, so that it is moved live unless it is moved cold.
    pub held: bool,
    /// Whether its node reports that it does not run: it is sent live only if it runs again by then.
    pub off: bool,
    /// How it should be moved. *Live, else cold*: cold only if no node can take it live.
    pub how: How,
    /// The only node that is considered; `None`: all.
    pub only: Option<&'a NodeName>,
    /// A node that is treated as if it were ready: while it is made ready it accepts its own VMs only.
    pub as_ready: Option<&'a NodeName>,
    /// Its record and its replaced disks, if it has such: its newest data are there.
    pub replaced: Option<(&'a VmRecord, &'a Replaced)>,
    /// Its last move, if that failed: that target is chosen again only if there is no other.
    pub failed: Option<&'a MoveFailure>,
    /// Nodes at which it could not be started.
    pub refused: &'a [StartRefused],
    /// The node that it came from and goes back to, because it could not be started elsewhere: it may also while that
    /// is flushed.
    pub returns: Option<&'a NodeName>,
}

impl<'a> Wanted<'a> {
    /// Requirements of a new VM.
    pub fn new(demand: Demand, meta: &'a VmMeta, devices: &'a Devices) -> Wanted<'a> {
        let (at, only, as_ready, replaced, failed, returns) = (None, None, None, None, None, None);
        let (may_stay, fresh, held, off, how) = (false, true, false, false, How::Cold);
        Wanted {
            demand,
            meta,
            devices,
            at,
            may_stay,
            fresh,
            held,
            off,
            how,
            only,
            as_ready,
            replaced,
            failed,
            returns,
            refused: &[],
        }
    }

    /// Requirements of a VM that leaves its node, by its migration method.
    pub fn moved(vm: &'a VmView) -> Wanted<'a> {
        let VmRecord { node, meta, refused, .. } = &vm.record.value;
        let refused = refused.iter().any(|refused| Some(&refused.node) == node.as_ref());
        Wanted {
            at: node.as_ref(),
            fresh: vm.claim.as_ref().is_some_and(|claim| claim.value.is_fresh()),
            // A VM without a holder runs nowhere yet.
            held: vm.holder().is_some(),
            off: vm.is_reported_off(),
            how: how(meta.method),
            replaced: vm.status.as_ref().and_then(|report| Some((&vm.record.value, report.replaced.as_ref()?))),
            failed: vm.status.as_ref().and_then(|status| status.move_failure.as_ref()),
            refused: &vm.record.value.refused,
            returns: vm.claim.as_ref().and_then(|claim| claim.value.from.as_ref()).filter(|_| refused),
            ..Wanted::new(vm.demand, meta, &vm.devices)
        }
    }

    /// Sets how it should be moved.
    #[must_use]
    pub fn by(self, how: How) -> Wanted<'a> {
        Wanted { how, ..self }
    }

    /// Restricts it to one node, if given.
    #[must_use]
    pub fn to(self, only: Option<&'a NodeName>) -> Wanted<'a> {
        Wanted { only, ..self }
    }

    /// Treats that node as ready.
    #[must_use]
    pub fn as_ready(self, node: Option<&'a NodeName>) -> Wanted<'a> {
        Wanted { as_ready: node, ..self }
    }

    /// Restricts it to the target of a move of that kind: a node that is being made ready accepts VMs that come home.
    #[must_use]
    pub(crate) fn coming_to(self, view: &ClusterView, node: &'a NodeName, kind: MoveKind) -> Wanted<'a> {
        let unflush = view.nodes.get(node).is_some_and(|n| n.record.value.domain_state == NodeState::Unflush);
        self.to(Some(node)).as_ready((unflush && kind == MoveKind::Unmigrate).then_some(node))
    }

    /// Whether a running guest is migrated.
    fn live(&self) -> bool {
        self.held && self.how != How::Cold
    }
}

/// How a VM is moved, by its migration method.
pub fn how(method: MigrationMethod) -> How {
    match method {
        MigrationMethod::None => How::LiveElseCold,
        MigrationMethod::Live => How::Live,
        MigrationMethod::Shutdown => How::Cold,
    }
}

/// Whether one node can take a VM in just that way, with the score.
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
    if ledger.is_lost(name) {
        return Err(Lost);
    }
    if let Some(problem) = &node.unreadable {
        return Err(Unreadable(problem.to_string()));
    }
    let daemon = node.daemon_state();
    if daemon != DaemonState::Run {
        return Err(NotRunning(daemon));
    }
    if condemned::is_condemned(view, name, node) {
        return Err(Condemned);
    }
    let domain = node.record.value.domain_state;
    let returns = domain == NodeState::Flush && wanted.returns == Some(name);
    if domain != NodeState::Ready && wanted.as_ready != Some(name) && !returns {
        return Err(NotReady(domain));
    }
    if let Some(refused) = wanted.refused.iter().find(|refused| refused.node == *name) {
        return Err(CouldNotStart(refused.why.clone()));
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
    if let Some(lack) = guests::lacks(status, wanted.devices) {
        return Err(lack);
    }
    has_what_it_needs(view, name, status, wanted)?;
    if wanted.demand.vcpus > status.cpus {
        return Err(Vcpus { needed: wanted.demand.vcpus, has: status.cpus });
    }
    let needed = wanted.demand.memory.saturating_add(OVERHEAD);
    if needed > free { Err(Memory { needed, free }) } else { Ok(free.saturating_sub(needed)) }
}

/// Whether the node has what the definition names, and what a running guest depends on. Facts that the VM's own node
/// does not report count against the move.
fn has_what_it_needs(
    view: &ClusterView,
    name: &NodeName,
    status: &NodeStatus,
    wanted: &Wanted<'_>,
) -> Result<(), Rejection> {
    let Some(at) = wanted.at else { return lacks(view, Some(status), wanted.devices).map_or(Ok(()), Err) };
    if let Some(missing) = missing_bridge(Some(status), wanted.devices) {
        return Err(missing);
    }
    if at == name {
        return Ok(());
    }
    let source = view.nodes.get(at).and_then(|node| node.status.as_ref());
    let shared = |file: &String| {
        if Path::new(file).components().any(|part| part == Component::ParentDir) {
            return false;
        }
        let folders = source.iter().flat_map(|source| &source.shared).filter(|folder| status.shared.contains(folder));
        folders.into_iter().any(|folder| Path::new(file).starts_with(folder))
    };
    let replaced = wanted.replaced.into_iter().flat_map(|(record, replaced)| replaced.older(record));
    // Devices of a host, and images on the network, are no paths in folders.
    let newest: Vec<&String> = replaced.map(|disk| &disk.live).filter(|live| live.starts_with('/')).collect();
    if let Some(own) = wanted.devices.files.iter().chain(newest).find(|file| !shared(file)) {
        let rejection = if source.is_some() { Rejection::Storage } else { Rejection::StorageUnknown };
        return Err(rejection(own.clone()));
    }
    if let Some(what) = wanted.devices.bound.first() {
        // The limit is an administrator's word that it can run there. What is bound is not migrated, though.
        if !wanted.meta.node_limit.contains(name) {
            return Err(Rejection::Bound(what.clone()));
        }
        if wanted.live() {
            return Err(Rejection::NotLive(format!("it uses {what}")));
        }
    }
    if let Some(why) = wanted.devices.not_live.as_ref().filter(|_| wanted.live()) {
        return Err(Rejection::NotLive(why.clone()));
    }
    if let Some((record, replaced)) = wanted.replaced.filter(|_| wanted.held && !wanted.live())
        && let Some(why) = replaced.would_boot_older(record)
    {
        return Err(Rejection::OlderDisks(why));
    }
    let kept = stays_behind(wanted.devices).filter(|_| !wanted.fresh && (wanted.off || !wanted.live()));
    if let Some(kept) = kept {
        return Err(Rejection::Kept(kept));
    }
    if !wanted.live() {
        return match wanted.devices.nvram.as_ref().filter(|file| !wanted.fresh && !shared(file)) {
            Some(own) => Err(Rejection::Storage(own.clone())),
            None => Ok(()),
        };
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

/// The first bridge of a definition that a node does not report.
fn missing_bridge(status: Option<&NodeStatus>, devices: &Devices) -> Option<Rejection> {
    let bridges = devices.networks.iter().filter(|n| n.kind == "bridge" && !n.source.is_empty()).map(|n| &n.source);
    let has = |bridge: &str| status.is_some_and(|status| status.bridges.iter().any(|other| other == bridge));
    bridges.into_iter().find(|bridge| !has(bridge)).map(|missing| Rejection::Network(missing.to_string()))
}

/// The first thing named by a new VM's definition that a node does not report: its bridges, and the shared folders of
/// its files. (A file in a folder that is not shared by any node is local, and is created there.)
fn lacks(view: &ClusterView, status: Option<&NodeStatus>, devices: &Devices) -> Option<Rejection> {
    if let Some(missing) = missing_bridge(status, devices) {
        return Some(missing);
    }
    let has = |folder: &String| status.is_some_and(|status| status.shared.contains(folder));
    devices.files.iter().find_map(|file| {
        let of_others = view.nodes.values().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.shared);
        let mut folders = of_others.filter(|folder| Path::new(file).starts_with(folder)).peekable();
        let folder = folders.peek().map(ToString::to_string)?;
        (!folders.any(has)).then(|| Rejection::NotShared { file: file.clone(), folder })
    })
}

/// Whether a node has what a new VM's definition names, regardless of free resources: a VM may be defined where it
/// cannot be started now. What a node does not report, or reports in a later version's format, counts as missing.
///
/// # Errors
/// What is missing.
pub fn has_for_new(view: &ClusterView, name: &NodeName, devices: &Devices) -> Result<(), Rejection> {
    let node = view.nodes.get(name);
    let status = node.and_then(|node| node.status.as_deref()).map(|status| &status.value);
    match (status, node.and_then(|node| node.unreadable.as_ref())) {
        // Relevant at all?
        _ if lacks(view, None, devices).is_none() => Ok(()),
        (_, Some(problem)) => Err(Rejection::Unreadable(problem.to_string())),
        (None, None) => Err(Rejection::NotReported),
        (Some(status), None) => lacks(view, Some(status), devices).map_or(Ok(()), Err),
    }
}

/// State of a VM that has run that stays on its node when it is moved while it is off.
pub fn stays_behind(devices: &Devices) -> Option<KeptState> {
    devices.kept.first().copied()
}

/// Score of a node with the VM on it.
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
            // VMs on their way are not in the load yet: each vCPU may add 1 to it.
            let expected = i64::from(usage.arriving_vcpus) + i64::from(demand.vcpus);
            -((f64::from(load) * 1000.0) as i64 + 1000 * expected)
        }
        Selector::Vcpus => -(i64::from(usage.promised_vcpus) + i64::from(demand.vcpus)),
        Selector::Vms => -(i64::from(usage.promised_vms) + 1),
    }
}

/// Chooses a node for a VM, with the verdicts for all nodes. The target of the last failed move is chosen only if there
/// is no other; a VM that no node can take live is moved cold, if allowed.
pub fn choose(view: &ClusterView, ledger: &Ledger, wanted: &Wanted<'_>) -> Placement {
    let asked = in_that_way(view, ledger, wanted);
    if asked.chosen.is_none() && wanted.how == How::LiveElseCold && wanted.held {
        let cold = in_that_way(view, ledger, &wanted.by(How::Cold));
        if cold.chosen.is_some() {
            return Placement { not_live: asked.verdicts, ..cold };
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
    let chosen = chosen.map(|name| (name.clone(), wanted.how));
    Placement { chosen, selector, any: wanted.only.is_none(), verdicts, not_live: Vec::new() }
}

#[cfg(test)]
pub(crate) mod tests;
