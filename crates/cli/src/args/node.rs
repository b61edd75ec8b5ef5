//! The commands for nodes.

use super::{Asking, LogLines, OneNode, Waiting};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List nodes
    List {
        /// Only nodes whose name matches this regular expression
        limit: Option<String>,
        /// Only nodes whose daemon is in this state
        #[arg(long)]
        daemon_state: Option<String>,
        /// Only nodes that play this part
        #[arg(long)]
        coordinator_state: Option<String>,
        /// Only nodes in this state
        #[arg(long)]
        domain_state: Option<String>,
    },
    /// Show a node
    Info(OneNode),
    /// Take a node out of service: its VMs move to where they fit
    ///
    /// VMs go live where their method allows it, the most important and largest first, several at once (see 'drover config'). One with nowhere to go
    /// is shut down, after asking, and starts again when the node is ready. The node is flushed when its hypervisor has no VM left.
    ///
    /// Examples: drover node flush hv1 --plan; drover node flush hv1 --wait
    Flush {
        #[command(flatten)]
        node: OneNode,
        /// Show what would become of each VM, and change nothing
        #[arg(long, conflicts_with_all = ["wait", "force", "yes"])]
        plan: bool,
        #[command(flatten)]
        wait: Waiting,
        /// Also if no other node takes VMs, so that they are all shut down
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        confirm: Asking,
    },
    /// Put a node back into service: its VMs come home
    ///
    /// Takes back a flush that is under way. VMs that the flush shut down are started, VMs that it moved away come home.
    ///
    /// Example: drover node ready hv1 --wait
    Ready {
        #[command(flatten)]
        node: OneNode,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Remove a node that is gone for good, so that another machine may take its name
    ///
    /// Its daemon must be stopped or dead, and no VM may be assigned to it or held by it.
    Remove {
        #[command(flatten)]
        node: OneNode,
        #[command(flatten)]
        confirm: Asking,
    },
    /// Show the log of a node's daemon
    Log {
        #[command(flatten)]
        node: OneNode,
        #[command(flatten)]
        log: LogLines,
    },
}
