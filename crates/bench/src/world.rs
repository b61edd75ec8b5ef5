//! A lab that is measured in: bringing it up, filling it, asking what its nodes find.

use crate::probe::{Define, Probe};
use drover_lab::{Lab, LabError, Node, Progress, Result, Spec};
use drover_model::wire;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// How long a probe may take.
const PROBE_SECONDS: &str = "600";
/// What is waited for comes sooner.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Cluster {
    /// One node without configuration: the embedded store, the host's network, the host's KVM.
    One,
    /// Three nodes with ZooKeeper.
    Three,
}

impl Cluster {
    /// In the order in which they are measured.
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

/// A lab.
pub(crate) struct World<'a> {
    lab: Lab,
    cluster: Cluster,
    /// How many VMs are defined.
    vms: usize,
    progress: Progress<'a>,
}

impl<'a> World<'a> {
    /// Brings a lab up in a folder; it is gone when this value is dropped.
    pub(crate) fn up(cluster: Cluster, folder: &Path, program: &Path, progress: Progress<'a>) -> Result<World<'a>> {
        progress(&format!("{cluster}: bringing the lab up"));
        let lab = Lab::up(folder, cluster.spec(), program, progress)?;
        let world = World { lab, cluster, vms: 0, progress };
        // Until then guests wait, and the trial of KVM takes processor time.
        world.say("waiting until it is known how guests are executed");
        let known = || {
            let nodes = world.nodes().ok()?;
            nodes.iter().all(|node| !node.domain_type.is_empty() && node.hypervisor_problem.is_empty()).then_some(())
        };
        Lab::until("no node knows how guests are executed", PATIENCE, known)?;
        Ok(world)
    }

    /// Tells what is going on.
    pub(crate) fn say(&self, what: &str) {
        (self.progress)(&format!("{}, {} VMs: {what}", self.cluster, self.vms));
    }

    /// What it is.
    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster
    }

    /// How many VMs are defined.
    pub(crate) fn vms(&self) -> usize {
        self.vms
    }

    /// The lab itself, to break something of it.
    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A command on the client of the network where users are.
    pub(crate) fn client(&self, argv: &[&str]) -> Command {
        self.lab.client(argv)
    }

    /// All that the daemon of a node has logged.
    pub(crate) fn log(&self, node: &str) -> Result<String> {
        let file = self.node(node)?.folder().join("var/log/droverd.out");
        fs::read_to_string(&file).map_err(|e| LabError::new(format!("cannot read {}", file.display()), e))
    }

    /// A node by its name.
    pub(crate) fn node(&self, name: &str) -> Result<Node<'_>> {
        self.lab.node(name)
    }

    /// The node that is measured where one is as good as another.
    pub(crate) fn first(&self) -> Result<Node<'_>> {
        self.node("hv1")
    }

    /// The nodes, as their API shows them.
    pub(crate) fn nodes(&self) -> Result<Vec<wire::Node>> {
        let text = self.first()?.exec(&["drover", "-f", "json", "node", "list"])?;
        serde_json::from_str(&text).map_err(|e| LabError::new("drover node list", e))
    }

    /// Defines VMs until there are so many.
    pub(crate) fn fill(&mut self, vms: usize) -> Result<()> {
        if vms > self.vms {
            self.say(&format!("defining VMs until there are {vms}"));
            self.probe(&self.first()?, Define { from: self.vms, to: vms })?;
            self.vms = vms;
        }
        Ok(())
    }

    /// Measures something inside a node.
    pub(crate) fn probe<P: Probe>(&self, node: &Node<'_>, probe: P) -> Result<P::Answer> {
        let failed = |why: String| LabError::new(format!("{}: measuring {}", node.name(), P::NAME), why);
        let question = serde_json::to_string(&probe).map_err(|e| failed(e.to_string()))?;
        let argv = ["timeout", "-k", "1", PROBE_SECONDS, "drover-bench", "probe", P::NAME, &question];
        let output = node.command(&argv)?.stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}\n{}", said.trim(), node.drover_log(5).trim_end())));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| failed(e.to_string()))
    }
}
