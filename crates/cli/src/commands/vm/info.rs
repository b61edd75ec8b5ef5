//! How VMs are shown.

use super::meta;
use crate::output::{Cell, Facts, Output, Table, Tone, runs};
use crate::wait;
use drover_model::wire::{Meta, Vm};

/// What there is to say of a VM beside its states, in a list.
fn note(vm: &Vm<'_>) -> String {
    if let Some(migration) = &vm.migration
        && let Some(percent) = migration.percent()
    {
        return format!("to {}: {percent} %", migration.to);
    }
    let move_failed = if vm.move_failed.is_empty() { String::new() } else { format!("not moved {}", vm.move_failed) };
    let pending = if vm.pending_changes { "changed; restart to apply" } else { "" };
    let said = [vm.failed_reason.as_str(), vm.doing.as_str(), move_failed.as_str(), pending];
    said.into_iter().find(|said| !said.is_empty()).unwrap_or_default().to_owned()
}

pub(super) fn table(vms: &[Vm<'_>]) -> Table {
    let away = vms.iter().any(|vm| !vm.last_node.is_empty());
    let tagged = vms.iter().any(|vm| !vm.tags.is_empty());
    let mut names = vec!["NAME", "STATE", "RUNS", "NODE"];
    names.extend(away.then_some("HOME"));
    names.extend(["VCPUS", "MEMORY"]);
    names.extend(tagged.then_some("TAGS"));
    names.extend(["UUID", "NOTE"]);
    let mut table = Table::new(&names).sparing("UUID");
    for vm in vms {
        let mut row = vec![Cell::text(&*vm.name), Cell::state(&vm.state), Cell::state(runs(vm)), Cell::text(&*vm.node)];
        row.extend(away.then(|| Cell::text(&*vm.last_node)));
        row.extend([Cell::number(vm.vcpu), Cell::number(vm.memory)]);
        row.extend(tagged.then(|| {
            let tags: Vec<&str> = vm.tags.iter().map(|tag| tag.name.as_str()).collect();
            Cell::text(tags.join(","))
        }));
        row.extend([Cell::text(&*vm.uuid), Cell::text(note(vm))]);
        table.row(row);
    }
    table
}

pub(super) fn render(vm: &Vm<'_>, output: &Output) -> String {
    let mut facts = Facts::default();
    facts.fact("Name", &*vm.name);
    facts.fact("UUID", &*vm.uuid);
    facts.fact("Description", &*vm.description);
    facts.state("State", &vm.state);
    facts.toned("Reason", &*vm.failed_reason, Tone::Bad);
    facts.state("Runs", runs(vm));
    facts.toned("Doing", &*vm.doing, Tone::Busy);
    facts.fact("Node", if vm.node.is_empty() { "none" } else { &*vm.node });
    if vm.claim.node != vm.node {
        facts.fact("Held by", &*vm.claim.node);
    }
    facts.fact("Home", &*vm.last_node);
    if let Some(migration) = &vm.migration {
        let figures = wait::migration_figures(migration).map(|figures| format!(": {figures}")).unwrap_or_default();
        facts.toned("Moving", format!("to {}{figures}", migration.to), Tone::Busy);
    }
    if !vm.move_failed.is_empty() {
        let times =
            if vm.move_failures > 1 { format!(" ({} times in a row)", vm.move_failures) } else { String::new() };
        facts.toned("Not moved", format!("{}{times}", vm.move_failed), Tone::Bad);
    }
    if vm.crashes > 0 {
        facts.toned("Crashes", format!("{} in a row", vm.crashes), Tone::Bad);
    }
    meta::facts(&mut facts, &said_of(vm));
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

/// A VM's metadata, as they are part of it.
fn said_of(vm: &Vm<'_>) -> Meta {
    Meta {
        name: vm.name.clone(),
        node_limit: vm.node_limit.clone(),
        node_selector: vm.node_selector.clone(),
        node_autostart: vm.node_autostart,
        migration_method: vm.migration_method.clone(),
        migration_max_downtime: vm.migration_max_downtime,
        profile: vm.profile.clone(),
        priority: vm.priority,
        tags: vm.tags.clone(),
        version: vm.version,
    }
}
