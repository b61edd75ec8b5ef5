//! The cluster as a whole.

use crate::{
    args::Switch,
    failure::Failure,
    output::{Cell, Facts, Format, Output, Table, Tone},
};
use drover_client::Client;
use drover_model::{
    WallTime,
    wire::{FaultKey, Status},
};
use std::{collections::BTreeMap, time::Duration};

fn counts(counts: &BTreeMap<String, usize>) -> String {
    let total = counts.get("total").copied().unwrap_or(0);
    let parts: Vec<String> =
        counts.iter().filter(|(word, _)| *word != "total").map(|(word, n)| format!("{n} {word}")).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join("; ")) }
}

fn render(status: &Status, output: &Output) -> String {
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

pub(crate) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let status = client.status().await?;
    match output.format {
        Format::Json => output.json(&status),
        Format::Raw => output.print(&status.cluster_health.health.to_string()),
        Format::Pretty => output.print(&render(&status, &output)),
    }
}

pub(crate) async fn maintenance(
    client: &Client,
    switch: Switch,
    lasts: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let on = switch == Switch::On;
    if !on && lasts.is_some() {
        return Err(Failure::usage("--for goes with 'on' only"));
    }
    let done = client.set_maintenance(on, lasts).await?;
    output.done(&done.message, &done)
}

pub(crate) async fn faults(client: &Client, by: Option<FaultKey>, output: Output) -> Result<(), Failure> {
    let faults = client.faults(by).await?;
    let table = |faults: &[drover_model::wire::FaultInfo]| {
        let mut table = Table::new(&["ID", "STATUS", "COSTS", "MESSAGE"]);
        for fault in faults {
            let cost = format!("{} %", fault.health_delta);
            table.row(vec![
                Cell::text(&*fault.id),
                Cell::text(&*fault.status),
                Cell::number(cost),
                Cell::text(&*fault.message),
            ]);
        }
        table
    };
    output.list(&faults, |f| &f.id, table, "There are no faults.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_and_its_address_are_shown() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let shown = |primary: &str, address: &str| {
            let status =
                Status { primary_node: primary.to_owned(), upstream_ip: address.to_owned(), ..Status::default() };
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
            let status = Status { maintenance: on.to_string(), maintenance_until: until, ..Status::default() };
            render(&status, &output)
        };
        assert!(!shown(false, None).contains("Maintenance"));
        assert!(shown(true, None).contains("\nMaintenance: on\n"));
        assert!(shown(true, Some(0)).contains("\nMaintenance: on until 1970-01-01 00:00:00 UTC\n"));
    }
}
