//! Nodes.

use super::{confirm, followable, print_log, print_stream};
use crate::{
    args::{self, Waiting},
    failure::Failure,
    output::{Cell, Facts, Format, Output, Table, Tone},
    wait,
};
use drover_client::Client;
use drover_model::{
    WallTime,
    wire::{Fate, Node, NodeChanged},
};
use std::io::{self, IsTerminal};

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
    if node.daemon_state_since > 0 {
        facts.fact("In that state since", WallTime(node.daemon_state_since).to_string());
    }
    facts.state("Role", &node.coordinator_state);
    facts.toned("Takeover failed", &*node.takeover_problem, Tone::Bad);
    for problem in &node.network_problems {
        facts.toned("Network problem", &**problem, Tone::Bad);
    }
    facts.state("State", &node.domain_state);
    if let Some(drain) = &node.drain {
        facts.toned("Progress", wait::drain_figures(drain), Tone::Busy);
        for blocked in &drain.blocked {
            facts.toned("Blocked", format!("{}: {}", blocked.vm, blocked.reason), Tone::Bad);
        }
    }
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
        args::Node::Info(one) => {
            let node = client.node(&one.node).await?;
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
        args::Node::Flush { node, plan: true, .. } => {
            let plan = client.flush_plan(&node.node).await?;
            let nothing = format!("There is nothing to do: no VM is on {}.", node.node);
            output.list(&plan, |fate| &fate.vm, plan_table, &nothing)
        }
        args::Node::Flush { node, plan: false, wait, force, confirm: sure } => {
            let plan = client.flush_plan(&node.node).await?;
            if let Some(question) = question(&plan, &node.node) {
                confirm(&question, sure.yes)?;
            }
            let changed = client.set_domain_state(&node.node, "flush", &[("force", force.to_string())]).await?;
            told(&if wait.wait { wait::flushed(client, &changed, output).await? } else { changed }, output)
        }
        args::Node::Ready { node, wait: Waiting { wait } } => {
            let changed = client.set_domain_state(&node.node, "ready", &[]).await?;
            told(&if wait { wait::ready(client, &changed, output).await? } else { changed }, output)
        }
        args::Node::Primary { node, wait: Waiting { wait: true } } => {
            let earlier = client.node(&node.node).await?.takeover_problem;
            let changed = client.set_coordinator_state(&node.node, "primary").await?;
            told(&wait::primary(client, &changed, &earlier, output).await?, output)
        }
        args::Node::Primary { node, wait: Waiting { wait: false } } => {
            told(&client.set_coordinator_state(&node.node, "primary").await?, output)
        }
        args::Node::Secondary { node, wait: Waiting { wait } } => {
            let changed = client.set_coordinator_state(&node.node, "secondary").await?;
            told(&if wait { wait::secondary(client, &changed, output).await? } else { changed }, output)
        }
        args::Node::IsPrimary { node, wait } => is_primary(client, node.as_deref(), wait, output).await,
        args::Node::Remove { node, confirm: sure } => {
            confirm(&format!("Remove node {} from the cluster?", node.node), sure.yes)?;
            let done = client.remove_node(&node.node).await?;
            output.done(&done.message, &done)
        }
        args::Node::Log { node, log } if log.follow => {
            followable(output)?;
            print_stream(client.follow_node_log(&node.node, log.lines).await?).await
        }
        args::Node::Log { node, log } => print_log(&client.node_log(&node.node, log.lines).await?, output),
    }
}

/// A no has nothing to say, which tells it from an error (see [`undecided`]).
async fn is_primary(client: &Client, name: Option<&str>, wait: bool, output: Output) -> Result<(), Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => client.root().await?.node,
    };
    if name.is_empty() {
        return Err(Failure::usage("the node that answers is too old to say its name; name the node"));
    }
    let state = if wait {
        // A script's log is no place for it.
        let quiet = output.quiet || !io::stderr().is_terminal();
        wait::until_primary(client, &name, Output { quiet, ..output }).await?
    } else {
        client.coordinator_state(&name).await?
    };
    if output.format == Format::Json {
        match output.json(&state) {
            // A reader that went away changes nothing about the answer.
            Err(failure) if failure.code == 0 => {}
            printed => printed?,
        }
    }
    if state.state == "primary" { Ok(()) } else { Err(Failure::new("")) }
}

/// A failure of a question whose exit code 1 is a no: an error has another one.
pub(super) fn undecided(failure: Failure) -> Failure {
    let code = if failure.code == 1 && !failure.message.is_empty() { 5 } else { failure.code };
    Failure { code, ..failure }
}

fn told(changed: &NodeChanged, output: Output) -> Result<(), Failure> {
    output.done(&changed.message, changed)
}

/// What is asked before a flush that shuts VMs down.
fn question(plan: &[Fate], node: &str) -> Option<String> {
    let down = plan.iter().filter(|fate| fate.fate == "shutdown");
    let down: Vec<String> = down.map(|fate| format!("  {}: {}", fate.vm, fate.reason)).collect();
    (!down.is_empty()).then(|| {
        format!(
            "These VMs can move nowhere; they are shut down, and start again when {node} is ready:\n{}\nFlush {node}?",
            down.join("\n")
        )
    })
}

fn plan_table(plan: &[Fate]) -> Table {
    let mut table = Table::new(&["VM", "FATE", "TO", "HOW", "REASON"]);
    for fate in plan {
        let how = if fate.how == "live-else-cold" { "live, else cold" } else { &*fate.how };
        let cells = [
            Cell::text(&*fate.vm),
            Cell::state(&fate.fate),
            Cell::text(&*fate.to),
            Cell::text(how),
            Cell::text(&*fate.reason),
        ];
        table.row(cells.to_vec());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fate(vm: &str, fate: &str, to: &str, how: &str, reason: &str) -> Fate {
        let [vm, fate, to, how, reason] = [vm, fate, to, how, reason].map(str::to_owned);
        Fate { vm, uuid: String::new(), fate, to, how, reason }
    }

    #[test]
    fn what_keeps_a_node_from_being_primary_is_shown() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let well = json!({"coordinator_state": "secondary"});
        let shown = |fields: serde_json::Value| render(&wait::tests::node(fields), "none", &output);
        assert!(!shown(well).contains("roblem") && !shown(json!({})).contains("Takeover"));
        let ill =
            json!({"takeover_problem": "no link", "network_problems": ["upstream: no link", "cluster: no route"]});
        let text = shown(ill);
        for line in
            ["Takeover failed: no link", "Network problem: upstream: no link", "Network problem: cluster: no route"]
        {
            assert_eq!(text.lines().filter(|shown| *shown == line).count(), 1, "{line}: {text}");
        }
    }

    #[tokio::test]
    async fn a_no_is_no_error() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: true };
        let ask = async |state: Option<&str>| {
            let answer = state.map(|state| ("/node/hv1/coordinator-state", state.to_owned()));
            let client = wait::tests::routes(&Vec::from_iter(answer)).await;
            is_primary(&client, Some("hv1"), false, output).await.map_err(undecided)
        };
        let state = |state: &str| json!({"name": "hv1", "state": state}).to_string();
        assert_eq!(ask(Some(&state("primary"))).await, Ok(()));
        for other in ["secondary", "takeover", "relinquish", "client"] {
            assert_eq!(ask(Some(&state(other))).await, Err(Failure { code: 1, message: String::new() }));
        }
        assert_eq!(ask(None).await.unwrap_err().code, 3, "there is no such node");
        assert_eq!(ask(Some("something else")).await.unwrap_err().code, 5, "this is no answer");
    }

    #[tokio::test]
    async fn a_node_that_is_not_named_is_the_one_that_answers() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: true };
        let (primary, root) = (json!({"name": "hv2", "state": "primary"}), json!({"message": "", "node": "hv2"}));
        let state = ("/node/hv2/coordinator-state", primary.to_string());
        let client = wait::tests::routes(&[("/", root.to_string()), state.clone()]).await;
        assert_eq!(is_primary(&client, None, false, output).await, Ok(()));
        let old = wait::tests::routes(&[("/", json!({"message": ""}).to_string()), state]).await;
        assert_eq!(is_primary(&old, None, false, output).await.map_err(undecided).unwrap_err().code, 2);
    }

    #[test]
    fn a_plan_is_shown_and_what_it_shuts_down_is_asked_for() {
        let mut plan = vec![
            fate("db", "moves", "hv2", "live-else-cold", ""),
            fate("old", "blocked", "", "", "its move to hv2 failed 3 times: no"),
            fate("web", "waits", "hv3", "", "it is in state migrate"),
        ];
        assert_eq!(question(&plan, "hv1"), None, "nothing is lost by it");
        plan.push(fate("big", "shutdown", "", "", "hv2: no room; hv3: no room"));
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        assert_eq!(
            plan_table(&plan).render(&output),
            "VM   FATE      TO   HOW              REASON\n\
             db   moves     hv2  live, else cold  -\n\
             old  blocked   -    -                its move to hv2 failed 3 times: no\n\
             web  waits     hv3  -                it is in state migrate\n\
             big  shutdown  -    -                hv2: no room; hv3: no room\n"
        );
        let question = question(&plan, "hv1").unwrap();
        assert!(question.contains("\n  big: hv2: no room; hv3: no room\n") && !question.contains("db"), "{question}");
    }
}
