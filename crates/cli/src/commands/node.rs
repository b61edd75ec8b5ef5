//! Nodes.

use super::{confirm, print_stream};
use crate::{
    args,
    failure::Failure,
    output::{Cell, Facts, Format, Output, Table, Tone},
};
use drover_client::Client;
use drover_model::wire::Node;

fn table(nodes: &[Node]) -> Table {
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

fn render(node: &Node, vms: &str, output: &Output) -> String {
    let mut facts = Facts::default();
    facts.fact("Name", &*node.name);
    facts.state("Daemon", &node.daemon_state);
    facts.state("Role", &node.coordinator_state);
    facts.state("State", &node.domain_state);
    facts.fact("Health", format!("{} %", node.health));
    facts.fact("Version", format!("Drover {}", node.pvc_version));
    facts.fact("Hypervisor", &*node.hypervisor);
    facts.toned("Problem", &*node.hypervisor_problem, Tone::Bad);
    facts.fact("Guests run by", &*node.domain_type);
    facts.fact("Kernel", format!("{} {}", node.kernel, node.arch));
    facts.fact("System", &*node.os);
    facts.fact(
        "CPU",
        format!("{} threads, {} vCPUs allocated, load {:.2}", node.vcpu.total, node.vcpu.allocated, node.load),
    );
    let memory = &node.memory;
    facts.fact(
        "Memory",
        format!(
            "{} MiB, {} used, {} free, {} allocated, {} provisioned",
            memory.total, memory.used, memory.free, memory.allocated, memory.provisioned
        ),
    );
    facts.fact("VMs", vms);
    facts.render(output)
}

pub(crate) async fn run(command: args::Node, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        args::Node::List { limit, daemon_state, coordinator_state, domain_state } => {
            let filters: Vec<(&str, String)> = [
                ("limit", limit),
                ("daemon_state", daemon_state),
                ("coordinator_state", coordinator_state),
                ("domain_state", domain_state),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
            let nodes = client.nodes(&filters).await?;
            output.list(&nodes, |n| &n.name, table, "No node matches.")
        }
        args::Node::Info { node } => {
            let node = client.node(&node).await?;
            match output.format {
                Format::Json => output.json(&node),
                Format::Raw => output.print(&node.name),
                Format::Pretty => {
                    let mut names = Vec::new();
                    for vm in client.vms(&[]).await? {
                        if node.running_domains.contains(&vm.uuid) {
                            names.push(vm.name);
                        }
                    }
                    let vms = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    output.print(&render(&node, &vms, &output))
                }
            }
        }
        args::Node::Remove { node, confirm: sure } => {
            confirm(&format!("Remove node {node} from the cluster?"), sure.yes)?;
            output.note(&client.remove_node(&node).await?.message);
            Ok(())
        }
        args::Node::Log { node, log } if log.follow => {
            print_stream(client.follow_node_log(&node, log.lines).await?).await
        }
        args::Node::Log { node, log } => output.print(&client.node_log(&node, log.lines).await?.data),
    }
}
