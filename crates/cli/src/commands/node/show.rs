//! Showing a node.

use super::set::said;
use crate::{
    args::OneNode,
    commands::{Context, Run},
    failure::Failure,
    output::{Facts, Format, Output, Tone},
    wait,
};
use clap::Args;
use drover_model::{
    WallTime,
    wire::{FailedDuty, ListVms, Node, Watchdog},
};

/// Show a node
#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    node: OneNode,
}

impl Run for Info {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        let node = client.node(&self.node.node).await?;
        match output.format {
            Format::Json => output.json(&node),
            Format::Raw => output.print(&node.name),
            Format::Pretty => {
                let mut names = Vec::new();
                for vm in client.listed_vms(&ListVms::default()).await? {
                    if node.running_domains.contains(&vm.uuid) {
                        names.push(vm.name);
                    }
                }
                let vms = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                output.print(&render(&node, &vms, &output))
            }
        }
    }
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
    for FailedDuty { name, failures, reason } in &node.failed_duties {
        facts.toned("Failed duty", format!("{name}, {failures} in the last hour: {reason}"), Tone::Bad);
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
    if let Some(bmc) = &node.bmc {
        facts.fact("Power control", &*bmc.what);
        facts.toned("Power problem", &*bmc.problem, Tone::Bad);
    }
    let watchdog = match &node.watchdog {
        None => "off: none is configured".to_owned(),
        Some(Watchdog { what, armed: true, timeout, .. }) => format!("armed ({timeout} s), {what}"),
        Some(Watchdog { why_not, .. }) => format!("off: {why_not}"),
    };
    let failed = node.watchdog.as_ref().is_some_and(|watchdog| watchdog.failed);
    facts.toned("Watchdog", watchdog, if failed { Tone::Bad } else { Tone::Plain });
    facts.fact("When it is off", node.policies.as_ref().map(said).unwrap_or_default());
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
    facts.fact("Bridges", node.bridges.join(", "));
    facts.fact("VMs", vms);
    facts.render(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_ails_a_node_is_shown() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let healthy = json!({"coordinator_state": "secondary"});
        let shown = |fields: serde_json::Value| render(&wait::tests::node(fields), "none", &output);
        assert!(!shown(healthy).contains("roblem") && !shown(json!({})).contains("Takeover"));
        let failing = json!({
            "takeover_problem": "no link",
            "network_problems": ["upstream: no link", "cluster: no route"],
            "failed_duties": [{"name": "drain", "failures": 2, "reason": "index out of bounds"}],
        });
        let text = shown(failing);
        for line in [
            "Takeover failed: no link",
            "Network problem: upstream: no link",
            "Network problem: cluster: no route",
            "Failed duty:     drain, 2 in the last hour: index out of bounds",
        ] {
            assert_eq!(text.lines().filter(|shown| *shown == line).count(), 1, "{line}: {text}");
        }
    }
}
