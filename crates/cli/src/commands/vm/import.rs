//! Bringing a domain that libvirt has already under Drover.

use crate::{
    commands::{Context, Run},
    complete,
    failure::Failure,
    output::{Cell, Format, Table},
    wait,
};
use clap::Args;
use clap_complete::ArgValueCompleter;
use drover_model::wire::{ImportVm, ImportedVm};

/// Bring a domain that a node's libvirt has already under Drover, as it is
///
/// A guest that runs goes on without interruption, and its VM is in state start; a domain that is off becomes a VM in
/// state
/// stop. What Drover would not keep (snapshots, saved memory) makes it refused, with what to do first.
///
/// Examples: drover vm import hv1 web --dry-run; drover vm import hv1 web --wait
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The node whose libvirt has it
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    node: String,
    /// The domain's name in libvirt, or its UUID
    #[arg(value_name = "NAME")]
    domain: String,
    /// Only show what would become of it
    #[arg(long)]
    dry_run: bool,
    /// Do not ask the hypervisor whether it accepts the definition
    #[arg(long)]
    no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk
    #[arg(long)]
    force: bool,
    /// Wait until its guest is Drover's
    #[arg(short, long, conflicts_with = "dry_run")]
    wait: bool,
}

impl Run for Import {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        let Import { node, domain, dry_run, no_check, force, wait } = self;
        let imported = client.import_vm(&node, &ImportVm { domain, dry_run, no_check, force }).await?;
        let settled = match wait {
            true => Some(wait::settled(&client, &imported.changed(), output).await?.message),
            false => None,
        };
        match output.format {
            Format::Json => output.json(&imported),
            Format::Raw => output.print(&imported.name),
            Format::Pretty => {
                output.print(&table(&imported).render(&output))?;
                output.note(&imported.message);
                settled.iter().for_each(|settled| output.note(settled));
                Ok(())
            }
        }
    }
}

fn table(imported: &ImportedVm) -> Table<'_> {
    let mut table = Table::new(&["ABOUT", "WHAT"]);
    let mut row = |about: &'static str, what: String| table.row(vec![Cell::text(about), Cell::text(what)]);
    row("vm", format!("{}, UUID {}, on {}", imported.name, imported.uuid, imported.node));
    row("state", imported.state.clone());
    for (dev, source) in &imported.disks {
        row("disk", format!("{dev}: {}", if source.is_empty() { "nothing" } else { source }));
    }
    imported.changes.iter().for_each(|change| row("change", change.clone()));
    imported.notes.iter().for_each(|note| row("note", note.clone()));
    let how = if imported.state == "start" { "live" } else { "while it is off" };
    for node in &imported.nodes {
        row(
            "move",
            match node.fits {
                true => format!("it could move to {} {how}", node.node),
                false => format!("it could not move to {} {how}: {}", node.node, node.reason),
            },
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use drover_model::wire::Judged;

    #[test]
    fn all_that_becomes_of_a_domain_is_shown() {
        let judged = |node: &str, reason: &str| Judged {
            node: node.to_owned(),
            fits: reason.is_empty(),
            score: None,
            memory_left: None,
            reason: reason.to_owned(),
        };
        let imported = ImportedVm {
            message: String::new(),
            dry_run: true,
            name: "web".to_owned(),
            uuid: "u".to_owned(),
            version: 0,
            node: "hv1".to_owned(),
            state: "start".to_owned(),
            disks: [("vda".to_owned(), "/d/1".to_owned())].into(),
            changes: vec!["it is marked".to_owned()],
            notes: vec!["mind this".to_owned()],
            nodes: vec![judged("hv2", ""), judged("hv3", "no room")],
        };
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        assert_eq!(
            table(&imported).render(&output),
            "ABOUT   WHAT\n\
             vm      web, UUID u, on hv1\n\
             state   start\n\
             disk    vda: /d/1\n\
             change  it is marked\n\
             note    mind this\n\
             move    it could move to hv2 live\n\
             move    it could not move to hv3 live: no room\n"
        );
    }
}
