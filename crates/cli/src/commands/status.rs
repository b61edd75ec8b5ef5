//! Showing the state of the cluster.

use super::{Context, Run};
use crate::{
    failure::Failure,
    output::{Facts, Format, Output, Tone},
};
use clap::Args;
use drover_model::{WallTime, wire};
use std::collections::BTreeMap;

/// Show the state of the cluster
#[derive(Debug, Args)]
pub(crate) struct Status {}

impl Run for Status {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (status, output) = (context.client()?.status().await?, context.output);
        match output.format {
            Format::Json => output.json(&status),
            Format::Raw => output.print(&status.cluster_health.health.to_string()),
            Format::Pretty => output.print(&render(&status, &output)),
        }
    }
}

fn counts(counts: &BTreeMap<String, usize>) -> String {
    let total = counts.get("total").copied().unwrap_or(0);
    let parts: Vec<String> =
        counts.iter().filter(|(word, _)| *word != "total").map(|(word, n)| format!("{n} {word}")).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join("; ")) }
}

fn render(status: &wire::Status, output: &Output) -> String {
    let health = status.cluster_health.health;
    let tone = match health {
        91.. => Tone::Good,
        51..=90 => Tone::Busy,
        _ => Tone::Bad,
    };
    let mut facts = Facts::default();
    facts.fact("Cluster", &*status.cluster_name);
    facts.toned("Health", format!("{health} %"), tone);
    if status.maintenance == "true" {
        let until = status.maintenance_until.map(|until| format!(" until {}", WallTime(until))).unwrap_or_default();
        facts.toned("Maintenance", format!("on{until}"), Tone::Busy);
    }
    facts.fact("Primary", if status.primary_node.is_empty() { "none" } else { &*status.primary_node });
    facts.fact("Upstream address", &*status.upstream_ip);
    facts.fact("Nodes", counts(&status.nodes));
    facts.fact("VMs", counts(&status.vms));
    let (memory, cpu) = (&status.resources.memory, &status.resources.cpu);
    facts.fact(
        "Memory",
        format!(
            "{:.0} MiB, {:.0} free, {:.0} allocated, {:.0} provisioned",
            memory.total, memory.free, memory.allocated, memory.provisioned
        ),
    );
    facts.fact("CPU", format!("{:.0} threads, {:.0} vCPUs allocated, load {:.2}", cpu.total, cpu.allocated, cpu.load));
    facts.fact("Version", &*status.pvc_version);
    facts.toned("Warning", &*status.stale, Tone::Bad);
    let mut out = facts.render(output);
    for message in &status.cluster_health.messages {
        let text = format!("-{} %  {}", message.health_delta, message.text);
        out.push_str(&format!("  {}\n", output.paint(Tone::Bad, &text)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_and_its_address_are_shown() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let shown = |primary: &str, address: &str| {
            let status = wire::Status {
                primary_node: primary.to_owned(),
                upstream_ip: address.to_owned(),
                ..wire::Status::default()
            };
            render(&status, &output)
        };
        let text = shown("hv2", "192.0.2.7/24");
        assert!(text.contains("\nPrimary:          hv2\nUpstream address: 192.0.2.7/24\n"), "{text}");
        let text = shown("", "");
        assert!(text.contains("\nPrimary: none\n") && !text.contains("address"), "{text}");
    }

    #[test]
    fn maintenance_is_shown_while_it_is_on() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let shown = |on: bool, until: Option<u64>| {
            let status =
                wire::Status { maintenance: on.to_string(), maintenance_until: until, ..wire::Status::default() };
            render(&status, &output)
        };
        assert!(!shown(false, None).contains("Maintenance"));
        assert!(shown(true, None).contains("\nMaintenance: on\n"));
        assert!(shown(true, Some(0)).contains("\nMaintenance: on until 1970-01-01 00:00:00 UTC\n"));
    }
}
