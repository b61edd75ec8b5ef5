//! Showing a VM.

use super::{found, meta};
use crate::{
    args::OneVm,
    commands::{Context, Run},
    failure::Failure,
    output::{Cell, Facts, Format, Output, Table, Tone, runs},
    wait,
};
use clap::Args;
use drover_model::{
    WallTime,
    wire::{Meta, Vm},
};
use serde_json::json;

/// Show a VM
#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    vm: OneVm,
}

/// Print a VM's libvirt domain XML
#[derive(Debug, Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    vm: OneVm,
}

impl Run for Info {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output, name) = (context.client()?, context.output, self.vm.vm);
        let vm = found(&client, &name, client.vm(&name).await).await?;
        match output.format {
            Format::Json => output.json(&vm),
            Format::Raw => output.print(&vm.name),
            Format::Pretty => output.print(&render(&vm, &output)),
        }
    }
}

impl Run for Dump {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Vm { name, xml, .. } = context.client()?.vm(&self.vm.vm).await?;
        let output = context.output;
        match output.format {
            Format::Json => output.json(&json!({"name": name, "xml": xml})),
            Format::Pretty | Format::Raw => output.print(&xml),
        }
    }
}

fn render(vm: &Vm<'_>, output: &Output) -> String {
    let mut facts = Facts::default();
    facts.fact("Name", &*vm.name);
    facts.fact("UUID", &*vm.uuid);
    facts.fact("Description", &*vm.description);
    facts.state("State", &vm.state);
    facts.toned("Reason", &*vm.failed_reason, Tone::Bad);
    facts.state("Runs", runs(&vm.run_state));
    facts.toned("Paused", vm.paused_reason.strip_prefix("is ").unwrap_or(&vm.paused_reason), Tone::Bad);
    facts.toned("Disks", &*vm.older_disks, Tone::Bad);
    facts.toned("Doing", &*vm.doing, Tone::Busy);
    facts.fact("Node", if vm.node.is_empty() { "none" } else { &*vm.node });
    if vm.claim.node != vm.node {
        facts.fact("Held by", &*vm.claim.node);
    }
    facts.fact("Home", &*vm.last_node);
    if let Some(placed) = &vm.placed {
        facts.fact("Placed", format!("{} {placed}", WallTime(placed.at)));
    }
    if let Some(migration) = &vm.migration {
        let figures = wait::migration_figures(migration).map(|figures| format!(": {figures}")).unwrap_or_default();
        facts.toned("Moving", format!("to {}{figures}", migration.to), Tone::Busy);
        if let Some(going) = &vm.going {
            facts.fact("Ordered", format!("{} {going}", WallTime(going.at)));
        }
    }
    if !vm.move_failed.is_empty() {
        let times =
            if vm.move_failures > 1 { format!(" ({} times in a row)", vm.move_failures) } else { String::new() };
        facts.toned("Not moved", format!("{}{times}", vm.move_failed), Tone::Bad);
    }
    if vm.crashes > 0 {
        facts.toned("Crashes", format!("{} in a row", vm.crashes), Tone::Bad);
    }
    meta::facts(&mut facts, &meta_of(vm));
    facts.fact("Memory", format!("{} MiB", vm.memory));
    let topology =
        if vm.devices.vcpu_topology.is_empty() { String::new() } else { format!(" ({})", vm.devices.vcpu_topology) };
    facts.fact("vCPUs", format!("{}{topology}", vm.vcpu));
    facts.fact("Machine", format!("{} {}", vm.devices.machine, vm.devices.arch).trim().to_owned());
    facts.fact("Features", vm.devices.features.join(", "));
    facts.fact("Console", if vm.devices.console.is_empty() { "none" } else { &*vm.devices.console });
    if let (Some(listen), Some(port)) = (vm.vnc.get("listen"), vm.vnc.get("port")) {
        facts.fact("VNC", format!("{listen}:{port}"));
    }
    if vm.pending_changes {
        facts.toned("Pending", "the definition was changed; restart the VM to apply it", Tone::Busy);
    }
    let mut out = facts.render(output);
    if !vm.devices.networks.is_empty() {
        let mut table = Table::new(&["NETWORK", "SOURCE", "MAC", "MODEL"]);
        for net in &vm.devices.networks {
            let cells = [&net.kind, &net.source, &net.mac, &net.model];
            table.row(cells.map(|c| Cell::text(&**c)).to_vec());
        }
        out.push_str(&format!("\n{}", table.render(output)));
    }
    if !vm.devices.disks.is_empty() {
        let mut table = Table::new(&["DISK", "TYPE", "BUS", "NAME"]);
        for disk in &vm.devices.disks {
            let cells = [&disk.dev, &disk.kind, &disk.bus, &disk.name];
            table.row(cells.map(|c| Cell::text(&**c)).to_vec());
        }
        out.push_str(&format!("\n{}", table.render(output)));
    }
    out
}

/// The metadata in a VM's representation.
fn meta_of(vm: &Vm<'_>) -> Meta {
    Meta {
        name: vm.name.clone(),
        node_limit: vm.node_limit.clone(),
        node_selector: vm.node_selector.clone(),
        node_autostart: vm.node_autostart,
        migration_method: vm.migration_method.clone(),
        migration_max_downtime: vm.migration_max_downtime,
        profile: vm.profile.clone(),
        priority: vm.priority,
        resume_after_io_error: vm.resume_after_io_error,
        tags: vm.tags.clone(),
        version: vm.version,
    }
}
