//! The protocol between the benchmark and its helpers: one JSON object per line, over the helper's standard input and
//! output.

use drover_model::NodeName;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The agents that a helper runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Crew {
    /// The members of the ensemble: `address:port`.
    pub(crate) servers: Vec<String>,
    /// Its nodes.
    pub(crate) names: Vec<NodeName>,
    /// How many of the first nodes are coordinators.
    pub(crate) coordinators: usize,
    /// The nodes of the cluster that have a BMC.
    pub(crate) bmcs: Vec<NodeName>,
    /// Memory of each node, in MiB.
    pub(crate) memory: u64,
    /// The token for the API of the first node; `None`: no API.
    pub(crate) token: Option<String>,
}

/// A question to a helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Its resource usage so far.
    Usage,
    /// When each of its agents sees that this is the description of a VM.
    Seen(Uuid, String),
    /// When its first agent sees that all these VMs run.
    Running(Vec<Uuid>),
    /// When its first agent sees that a node is flushed.
    Flushed(NodeName),
    /// When the power of these nodes, of another helper, was cut, for its BMCs and its network.
    Cut(Vec<NodeName>),
    /// When its first agent sees that the first of these VMs runs on none of these nodes; and that all do.
    Recovered(Vec<Uuid>, Vec<NodeName>),
}

/// The first message of a helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Address of the first agent's API.
    pub(crate) api: Option<String>,
    /// Time from the start until all agents had read everything.
    pub(crate) loaded: Duration,
    /// Resource usage until then.
    pub(crate) usage: Usage,
}

/// An answer of a helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Question::Usage`].
    Usage(Usage),
    /// To the others: in microseconds since 1970.
    At(Vec<u64>),
}

/// Resource usage of a process.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Processor time, user and system.
    pub(crate) processor: Duration,
    /// Resident memory, in bytes.
    pub(crate) resident: u64,
}
