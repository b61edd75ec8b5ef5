//! Virtual machines.

mod info;
mod meta;
mod moves;

use super::{confirm, followable, print_log, print_stream};
use crate::{
    args::{self, Waiting},
    failure::Failure,
    output::{Format, Output, Tone},
    wait,
};
use drover_client::{Client, ClientError};
use drover_model::wire::{Changed, Vm};
use serde_json::json;
use std::{
    env,
    io::{self, Read, Write},
    path::Path,
    process::Command,
};

fn read(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))
}

/// Says what was done, and waits for it if asked to.
async fn done(client: &Client, changed: &Changed, wait: &Waiting, output: Output) -> Result<(), Failure> {
    if wait.wait {
        let settled = wait::settled(client, changed, output).await?;
        return output.done(&settled.message, &settled);
    }
    output.done(&changed.message, changed)
}

/// A VM that is not there: the names that are near.
async fn with_hint(client: &Client, name: &str, error: ClientError) -> Failure {
    let missing = drover_client::is_not_found(&error);
    let mut failure = Failure::from(error);
    if missing && let Ok(vms) = client.vms(&[]).await {
        let mut near: Vec<(usize, String)> = vms
            .into_iter()
            .map(|vm| (strsim::osa_distance(name, &vm.name), vm.name))
            .filter(|(d, _)| *d <= 3.min(name.chars().count() / 2))
            .collect();
        near.sort();
        let names: Vec<String> = near.into_iter().take(3).map(|(_, name)| name).collect();
        if !names.is_empty() {
            failure.message.push_str(&format!("\nDid you mean {}?", names.join(", ")));
        }
    }
    failure
}

pub(crate) async fn run(command: args::Vm, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        args::Vm::List { limit, node, state, tag, negate } => {
            let mut filters: Vec<(&str, String)> = [("limit", limit), ("node", node), ("state", state), ("tag", tag)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            if negate {
                filters.push(("negate", "true".to_owned()));
            }
            let vms = client.vms(&filters).await?;
            let nothing = if filters.is_empty() {
                "There are no VMs yet; define one with 'drover vm define FILE'."
            } else {
                "No VM matches."
            };
            output.list(&vms, |vm| &vm.name, info::table, nothing)
        }
        args::Vm::Info(one) => {
            let vm = match client.vm(&one.vm).await {
                Ok(vm) => vm,
                Err(error) => return Err(with_hint(client, &one.vm, error).await),
            };
            match output.format {
                Format::Json => output.json(&vm),
                Format::Raw => output.print(&vm.name),
                Format::Pretty => output.print(&info::render(&vm, &output)),
            }
        }
        args::Vm::Dump(one) => {
            let Vm { name, xml, .. } = client.vm(&one.vm).await?;
            match output.format {
                Format::Json => output.json(&json!({"name": name, "xml": xml})),
                Format::Pretty | Format::Raw => output.print(&xml),
            }
        }
        args::Vm::Define { file, node, meta, start, wait } => {
            let mut params = meta::params(&meta);
            params.extend(node.map(|node| ("node", node)));
            let made = client.define_vm_with(&read(&file)?, &params).await?;
            if !start {
                return done(client, &made, &Waiting { wait: false }, output).await;
            }
            output.note(&made.message);
            state(client, &made.uuid, "start", &[], &Waiting { wait }, output).await
        }
        args::Vm::Modify { vm, file, restart, confirm: sure } => {
            modify(client, &vm.vm, file.as_deref(), restart, sure.yes, output).await
        }
        args::Vm::Rename { vm, new_name } => {
            let changed = client.rename_vm(&vm.vm, &new_name).await?;
            done(client, &changed, &Waiting { wait: false }, output).await
        }
        args::Vm::Meta { vm, change } => meta::run(&vm.vm, &change, client, output).await,
        args::Vm::Tag(command) => meta::tag(command, client, output).await,
        args::Vm::Migrate { vm, cancel: true, wait, .. } => moves::cancel(&vm.vm, &wait, client, output).await,
        args::Vm::Migrate { vm, how, force, cancel: false, wait } => {
            let order = moves::Order { vm: &vm.vm, action: "migrate", to: how.to, force, live: how.live };
            moves::relocate(order, &wait, client, output).await
        }
        args::Vm::Move { vm, how, wait } => {
            let order = moves::Order { vm: &vm.vm, action: "move", to: how.to, force: false, live: how.live };
            moves::relocate(order, &wait, client, output).await
        }
        args::Vm::Unmigrate { vm, live, wait } => {
            let order = moves::Order { vm: &vm.vm, action: "unmigrate", to: None, force: false, live };
            moves::relocate(order, &wait, client, output).await
        }
        args::Vm::Explain(one) => moves::explain(&one.vm, client, output).await,
        args::Vm::Start { vm, wait } => state(client, &vm.vm, "start", &[], &wait, output).await,
        args::Vm::Shutdown { vm, timeout, wait } => {
            state(client, &vm.vm, "shutdown", &seconds(timeout), &wait, output).await
        }
        args::Vm::Restart { vm, timeout, wait } => {
            state(client, &vm.vm, "restart", &seconds(timeout), &wait, output).await
        }
        args::Vm::Stop { vm, wait, confirm: sure } => {
            confirm(&format!("Cut the power of VM {}? Its guest is not asked.", vm.vm), sure.yes)?;
            state(client, &vm.vm, "stop", &[], &wait, output).await
        }
        args::Vm::Disable { vm, force, wait } => {
            state(client, &vm.vm, "disable", &[("force", force.to_string())], &wait, output).await
        }
        args::Vm::Undefine { vm, confirm: sure } => {
            confirm(&format!("Forget VM {}? Its disks stay. If it runs, its power is cut.", vm.vm), sure.yes)?;
            delete(client, &vm.vm, false, output).await
        }
        args::Vm::Remove { vm, confirm: sure } => {
            confirm(&format!("Delete VM {} and its disks? If it runs, its power is cut.", vm.vm), sure.yes)?;
            delete(client, &vm.vm, true, output).await
        }
        args::Vm::Log { vm, log } if log.follow => {
            followable(output)?;
            print_stream(client.follow_console(&vm.vm, log.lines).await?).await
        }
        args::Vm::Log { vm, log } => print_log(&client.console(&vm.vm, log.lines).await?, output),
    }
}

fn seconds(timeout: Option<u32>) -> Vec<(&'static str, String)> {
    timeout.into_iter().map(|s| ("timeout", s.to_string())).collect()
}

async fn state(
    client: &Client,
    vm: &str,
    word: &str,
    extra: &[(&str, String)],
    wait: &Waiting,
    output: Output,
) -> Result<(), Failure> {
    match client.set_vm_state(vm, word, extra).await {
        Ok(changed) => done(client, &changed, wait, output).await,
        Err(error) => Err(with_hint(client, vm, error).await),
    }
}

async fn delete(client: &Client, vm: &str, disks: bool, output: Output) -> Result<(), Failure> {
    let done = client.delete_vm(vm, disks).await?;
    output.done(&done.message, &done)
}

async fn modify(
    client: &Client,
    name: &str,
    file: Option<&Path>,
    restart: bool,
    yes: bool,
    output: Output,
) -> Result<(), Failure> {
    let vm = match client.vm(name).await {
        Ok(vm) => vm,
        Err(error) => return Err(with_hint(client, name, error).await),
    };
    let xml = match file {
        Some(file) => read(file)?,
        None => edit(&vm)?,
    };
    let trial = client.modify_vm(name, &xml, Some(vm.version), restart, true).await?;
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
        (false, "start") => " It holds from the next start (--restart applies it now).",
        _ => "",
    };
    confirm(&format!("Change VM {name} so?{then}"), yes)?;
    let changed = client.modify_vm(name, &xml, Some(vm.version), restart, false).await?;
    done(client, &changed, &Waiting { wait: false }, output).await
}

/// Lets a person edit the definition.
fn edit(vm: &Vm<'_>) -> Result<String, Failure> {
    let editor = env::var("VISUAL").or_else(|_| env::var("EDITOR")).map_err(|_| {
        Failure::usage(
            "neither VISUAL nor EDITOR is set, so there is no editor to use; or name a file with the new XML",
        )
    })?;
    let mut file = tempfile::Builder::new().prefix("drover-").suffix(".xml").tempfile()?;
    file.write_all(vm.xml.as_bytes())?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let ended = Command::new(program).args(words).arg(file.path()).status();
    let ended = ended.map_err(|e| Failure::new(format!("cannot run the editor {editor}: {e}")))?;
    if !ended.success() {
        return Err(Failure::new("The editor did not end well; nothing was changed."));
    }
    Ok(std::fs::read_to_string(file.path())?)
}
