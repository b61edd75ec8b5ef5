//! Changing a VM's definition.

use super::{done, found, read};
use crate::{
    args::{Confirmation, OneVm},
    commands::{Context, Run, confirm},
    failure::Failure,
    output::Tone,
};
use clap::Args;
use drover_model::wire::{ModifyVm, Vm};
use std::{env, io::Write, path::PathBuf, process::Command};

/// Change a VM's definition, in an editor or from a file
///
/// Shows the difference and asks for confirmation before it is applied. Changes made by somebody else meanwhile are
/// never overwritten.
///
/// Examples: drover vm modify web; drover vm modify web new.xml --restart --yes
#[derive(Debug, Args)]
pub(crate) struct Modify {
    #[command(flatten)]
    vm: OneVm,
    /// The file with the new XML; - for standard input; if not given, $VISUAL or $EDITOR
    file: Option<PathBuf>,
    /// Restart a running VM, so that the new definition takes effect now
    #[arg(short, long)]
    restart: bool,
    /// Do not ask the hypervisor whether it accepts the definition
    #[arg(long)]
    no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirm: Confirmation,
}

impl Run for Modify {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Modify { vm: OneVm { vm: name }, file, restart, no_check, force, confirm: sure } = self;
        let (client, output) = (context.client()?, context.output);
        let vm = found(&client, &name, client.vm(&name).await).await?;
        let xml = match file {
            Some(file) => read(&file)?,
            None => edit(&vm)?,
        };
        let mut change = ModifyVm { xml, restart, version: Some(vm.version), dry_run: true, no_check, force };
        let trial = client.modify_vm(&name, &change).await?;
        let diff = trial.diff.as_deref().unwrap_or_default();
        if diff.is_empty() && !restart {
            return output.done(&trial.message, &trial);
        }
        for line in diff.lines() {
            let tone = match line.as_bytes().first() {
                Some(b'+') => Tone::Good,
                Some(b'-') => Tone::Bad,
                _ => Tone::Plain,
            };
            output.note(&output.paint(tone, line));
        }
        let then = match (restart, vm.state.as_str()) {
            (true, "start") => " It is restarted now.",
            (false, "start") => " The change takes effect at the next start (--restart applies it now).",
            _ => "",
        };
        confirm(&format!("Apply this change to VM {name}?{then}"), sure.yes)?;
        change.dry_run = false;
        let changed = client.modify_vm(&name, &change).await?;
        done(&client, &changed, false, output).await
    }
}

/// Opens the definition in an editor.
fn edit(vm: &Vm<'_>) -> Result<String, Failure> {
    let editor = env::var("VISUAL").or_else(|_| env::var("EDITOR")).map_err(|_| {
        Failure::usage(
            "neither VISUAL nor EDITOR is set: set one to the editor to use, or give a file with the new XML",
        )
    })?;
    let mut file = tempfile::Builder::new().prefix("drover-").suffix(".xml").tempfile()?;
    file.write_all(vm.xml.as_bytes())?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let ended = Command::new(program).args(words).arg(file.path()).status();
    let ended = ended.map_err(|e| Failure::new(format!("cannot run the editor {editor}: {e}")))?;
    if !ended.success() {
        return Err(Failure::new("The editor failed; nothing was changed."));
    }
    Ok(std::fs::read_to_string(file.path())?)
}
