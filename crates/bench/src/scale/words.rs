//! What the program that measures and its helpers say to each other: a line of JSON each, over the helper's standard
//! input and output.

use drover_model::NodeName;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Whose agents a helper runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Crew {
    /// The members of the ensemble: `address:port`.
    pub(crate) servers: Vec<String>,
    /// Its nodes.
    pub(crate) names: Vec<NodeName>,
    /// So many of them, from the first, are coordinators.
    pub(crate) coordinators: usize,
    /// What each node offers, in MiB.
    pub(crate) memory: u64,
    /// The token by which the API of the first is asked; `None`: it has none.
    pub(crate) token: Option<String>,
}

/// What a helper is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// What it has used so far.
    Usage,
    /// When each of its agents sees that this is the description of a VM.
    Seen(Uuid, String),
    /// When its first agent sees that all these VMs run.
    Running(Vec<Uuid>),
    /// When its first agent sees that a node is flushed.
    Flushed(NodeName),
}

/// The first thing that a helper says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Where the first agent's API is.
    pub(crate) api: Option<String>,
    /// From the beginning until all agents had read everything.
    pub(crate) loaded: Duration,
    /// What that took.
    pub(crate) usage: Usage,
}

/// What a helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Question::Usage`].
    Usage(Usage),
    /// To the others: in microseconds since 1970.
    At(Vec<u64>),
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Processor time, its own and the kernel's for it.
    pub(crate) processor: Duration,
    /// Resident memory, in bytes.
    pub(crate) resident: u64,
}
