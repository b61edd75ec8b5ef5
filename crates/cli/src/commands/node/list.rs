//! Listing nodes.

use crate::{
    args::word,
    commands::{Context, Run},
    failure::Failure,
    output::{Cell, Table},
};
use clap::Args;
use drover_model::{
    CoordinatorState, DaemonState, NodeState,
    wire::{ListNodes, Node},
};

/// List nodes
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only nodes whose name matches this regular expression
    limit: Option<String>,
    /// Only nodes whose daemon is in this state
    #[arg(long, value_name = "STATE", value_parser = word::<DaemonState>(DaemonState::WORDS.iter().copied()))]
    daemon_state: Option<DaemonState>,
    /// Only nodes with this role
    #[arg(long, value_name = "STATE", value_parser = word::<CoordinatorState>(CoordinatorState::WORDS.iter().copied()))]
    coordinator_state: Option<CoordinatorState>,
    /// Only nodes in this state
    #[arg(long, value_name = "STATE", value_parser = word::<NodeState>(NodeState::WORDS.iter().copied()))]
    domain_state: Option<NodeState>,
}

impl Run for List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let List { limit, daemon_state, coordinator_state, domain_state } = self;
        let filters = ListNodes { limit, daemon_state, coordinator_state, domain_state };
        let nodes = context.client()?.nodes(&filters).await?;
        context.output.list(&nodes, |n| &n.name, table, "No node matches.")
    }
}

fn table(nodes: &[Node]) -> Table<'_> {
    let mut table =
        Table::new(&["NAME", "DAEMON", "ROLE", "STATE", "VMS", "CPUS", "LOAD", "MEM TOTAL", "FREE", "ALLOC", "PROV"]);
    for node in nodes {
        table.row(vec![
            Cell::text(&*node.name),
            Cell::state(&node.daemon_state),
            Cell::state(&node.coordinator_state),
            Cell::state(&node.domain_state),
            Cell::number(node.domains_count),
            Cell::number(node.cpu_count),
            Cell::number(format!("{:.2}", node.load)),
            Cell::number(node.memory.total),
            Cell::number(node.memory.free),
            Cell::number(node.memory.allocated),
            Cell::number(node.memory.provisioned),
        ]);
    }
    table
}
