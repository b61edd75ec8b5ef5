//! The log of a guest's console, as it is found on a node.

use std::time::Duration;
use uuid::Uuid;

/// A console's log on a node, with its rotated files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleLog {
    /// The VM that it is named after.
    pub vm: Uuid,
    /// Time since anything was written to it.
    pub quiet: Duration,
}
