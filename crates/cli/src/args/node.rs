//! The commands for nodes.

use super::{Asking, LogLines, OneNode, Waiting};
use crate::complete;
use clap::Subcommand;
use clap_complete::ArgValueCompleter;

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
    /// VMs go live where their method allows it, the most important and largest first, several at once (see 'drover
    /// config'). One with nowhere to go is shut down, after asking, and starts again when the node is ready. The node
    /// is flushed when its hypervisor has no VM left.
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
    /// Takes back a flush that is under way. VMs that the flush shut down are started, VMs that it moved away come
    /// home.
    ///
    /// Example: drover node ready hv1 --wait
    Ready {
        #[command(flatten)]
        node: OneNode,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Make a coordinator the primary
    ///
    /// One coordinator at a time is the primary: it has the addresses that float, by which the API is reached whichever
    /// node that is, and the services of which there may be only one. The role passes from the node that has it in well
    /// below a second, and no packet is lost. If the node cannot take it over, the role stays where it is, and 'drover
    /// node info NODE' says why. When the primary dies, another coordinator takes the role by itself.
    ///
    /// Example: drover node primary hv2 --wait
    Primary {
        #[command(flatten)]
        node: OneNode,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Have a node hand the role of the primary over: the best other coordinator takes it
    ///
    /// It passes in well below a second, and no packet is lost. To choose the node that takes it, use 'drover node
    /// primary' with that one. A node that is about to become the primary stays secondary; of any other nothing is
    /// changed.
    ///
    /// Example: drover node secondary hv1 --wait
    Secondary {
        #[command(flatten)]
        node: OneNode,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Tell by the exit code whether a node is the primary, for scripts
    ///
    /// 0: it is. 1: it is not, or is just handing the role over or taking it over. Anything else is an error, never a
    /// no: 2 wrong usage, 3 no such node, 5 no answer (or another failure), 6 not authorised. A yes or a no prints
    /// nothing, but with --format json the node's state. Whether there is a primary, and which, 'drover status' shows.
    ///
    /// Examples: drover node is-primary && backup; drover node is-primary hv1 --wait
    IsPrimary {
        /// The node's name; if not given, the node that answers
        #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
        node: Option<String>,
        /// Wait until it is, however long that takes
        #[arg(short, long)]
        wait: bool,
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

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Command, Node};
    use clap::Parser;

    fn parsed(line: &str) -> Option<Node> {
        match Arguments::try_parse_from(line.split(' ')).ok()?.command {
            Command::Node(node) => Some(node),
            _ => None,
        }
    }

    #[test]
    fn the_role_of_the_primary_has_its_commands() {
        let named = |line: &str| match parsed(line) {
            Some(Node::Primary { node, wait }) => ("primary", node.node, wait.wait),
            Some(Node::Secondary { node, wait }) => ("secondary", node.node, wait.wait),
            Some(Node::IsPrimary { node, wait }) => ("is-primary", node.unwrap_or_default(), wait),
            _ => ("", String::new(), false),
        };
        for command in ["primary", "secondary", "is-primary"] {
            let line = format!("drover node {command} hv1");
            assert_eq!(named(&line), (command, "hv1".to_owned(), false));
            for wait in ["-w", "--wait"] {
                assert_eq!(named(&format!("{line} {wait}")), (command, "hv1".to_owned(), true));
            }
        }
        for command in ["primary", "secondary"] {
            assert!(parsed(&format!("drover node {command}")).is_none(), "the node must be named");
        }
        assert_eq!(named("drover node is-primary -w"), ("is-primary", String::new(), true), "the node that answers");
    }
}
