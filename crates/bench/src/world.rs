//! A lab to measure in: bringing it up, filling it with VMs, running probes in its nodes.

use crate::{
    definitions,
    probe::{Define, Probe},
};
use drover_lab::{Lab, LabError, Node, Progress, Result, Spec};
use drover_model::wire;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Timeout for a probe, in seconds.
const PROBE_SECONDS: &str = "600";
/// Timeout for the nodes of a new lab to be ready for guests.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The kind of cluster to measure in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Cluster {
    /// One node without configuration: the embedded store, the host's network, the host's KVM.
    One,
    /// Three nodes with ZooKeeper.
    Three,
}

impl Cluster {
    /// All kinds, in the order in which they are measured.
    pub(crate) const ALL: [Cluster; 2] = [Cluster::One, Cluster::Three];

    fn spec(self) -> Spec {
        match self {
            Cluster::One => Spec::alone(),
            Cluster::Three => Spec::cluster(3),
        }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cluster::One => "one node",
            Cluster::Three => "three nodes",
        })
    }
}

/// A lab with a number of defined VMs.
pub(crate) struct World<'a> {
    lab: Lab,
    cluster: Cluster,
    /// Number of defined VMs.
    vms: usize,
    progress: Progress<'a>,
}

impl<'a> World<'a> {
    /// Brings a lab up in a folder. It is taken down when this value is dropped.
    pub(crate) fn up(cluster: Cluster, folder: &Path, program: &Path, progress: Progress<'a>) -> Result<World<'a>> {
        progress(&format!("{cluster}: bringing the lab up"));
        let lab = Lab::up(folder, cluster.spec(), program, progress)?;
        let world = World { lab, cluster, vms: 0, progress };
        // Until the domain type is known, guests wait, and the KVM probe uses CPU time.
        world.report("waiting for the KVM probe");
        let known = || {
            let nodes = world.nodes().ok()?;
            nodes.iter().all(|node| !node.domain_type.is_empty() && node.hypervisor_problem.is_empty()).then_some(())
        };
        Lab::until("the KVM probe has not finished on all nodes", TIMEOUT, known)?;
        Ok(world)
    }

    /// Reports progress.
    pub(crate) fn report(&self, what: &str) {
        (self.progress)(&format!("{}, {} VMs: {what}", self.cluster, self.vms));
    }

    /// The kind of cluster.
    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster
    }

    /// Number of defined VMs.
    pub(crate) fn vms(&self) -> usize {
        self.vms
    }

    /// The lab itself, for fault injection.
    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A command on the client in the upstream network.
    pub(crate) fn client(&self, argv: &[&str]) -> Command {
        self.lab.client(argv)
    }

    /// The whole log of a node's daemon.
    pub(crate) fn log(&self, node: &str) -> Result<String> {
        let file = self.node(node)?.folder().join("var/log/droverd.out");
        fs::read_to_string(&file).map_err(|e| LabError::new(format!("cannot read {}", file.display()), e))
    }

    /// A node by name.
    pub(crate) fn node(&self, name: &str) -> Result<Node<'_>> {
        self.lab.node(name)
    }

    /// The node to measure where the choice does not matter.
    pub(crate) fn first(&self) -> Result<Node<'_>> {
        self.node("hv1")
    }

    /// The nodes as shown by the API.
    pub(crate) fn nodes(&self) -> Result<Vec<wire::Node>> {
        let text = self.first()?.exec(&["drover", "-f", "json", "node", "list"])?;
        serde_json::from_str(&text).map_err(|e| LabError::new("drover node list", e))
    }

    /// Defines VMs up to the given number.
    pub(crate) fn fill(&mut self, vms: usize) -> Result<()> {
        if vms > self.vms {
            self.report(&format!("defining VMs, up to {vms}"));
            // A node alone uses the network of this machine, which is left as it is.
            let bridges = self.cluster != Cluster::One;
            for bridge in definitions::BRIDGES.iter().filter(|_| bridges && self.vms == 0) {
                let create = format!("ip link add {bridge} type bridge && ip link set {bridge} up");
                let names: Vec<String> = self.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
                self.bridge(bridge, &create, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            self.probe(&self.first()?, Define { from: self.vms, to: vms, bridges })?;
            self.vms = vms;
        }
        Ok(())
    }

    /// Creates a bridge in nodes by a shell command, and waits until they report it: before, they refuse VMs with it.
    pub(crate) fn bridge(&self, bridge: &str, create: &str, nodes: &[&str]) -> Result<()> {
        for name in nodes {
            self.node(name)?.exec(&["sh", "-c", create])?;
        }
        let reported = || {
            let all = self.nodes().ok()?;
            let has = |name: &&str| all.iter().any(|n| n.name == **name && n.bridges.iter().any(|b| b == bridge));
            nodes.iter().all(has).then_some(())
        };
        Lab::until(&format!("not all nodes report the bridge {bridge}"), TIMEOUT, reported)
    }

    /// Runs a probe inside a node.
    pub(crate) fn probe<P: Probe>(&self, node: &Node<'_>, probe: P) -> Result<P::Answer> {
        let failed = |why: String| LabError::new(format!("{}: the probe {} failed", node.name(), P::NAME), why);
        let parameters = serde_json::to_string(&probe).map_err(|e| failed(e.to_string()))?;
        let argv = ["timeout", "-k", "1", PROBE_SECONDS, "drover-bench", "probe", P::NAME, &parameters];
        let output = node.command(&argv)?.stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}\n{}", stderr.trim(), node.drover_log(5).trim_end())));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| failed(e.to_string()))
    }
}
