//! The commands for virtual machines.

mod define;
mod delete;
mod explain;
mod import;
mod list;
mod log;
mod meta;
mod modify;
mod moves;
mod power;
mod rename;
mod show;
mod tag;

use super::commands;
use crate::{failure::Failure, output::Output, wait};
use drover_client::{Client, ClientError};
use drover_model::wire::{Changed, ListVms};
use std::{
    io::{self, Read},
    path::Path,
};

commands! {
    /// Manage virtual machines
    Vm {
        List(list::List),
        Info(show::Info),
        Dump(show::Dump),
        Define(define::Define),
        Import(import::Import),
        Modify(modify::Modify),
        Rename(rename::Rename),
        Meta(meta::Meta),
        #[command(subcommand)]
        Tag(tag::Tag),
        Migrate(moves::Migrate),
        Move(moves::Move),
        Unmigrate(moves::Unmigrate),
        Explain(explain::Explain),
        Start(power::Start),
        Shutdown(power::Shutdown),
        Stop(power::Stop),
        Restart(power::Restart),
        Disable(power::Disable),
        Pause(power::Pause),
        Resume(power::Resume),
        Undefine(delete::Undefine),
        Remove(delete::Remove),
        Log(log::Log),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))
}

/// Reports a change, after waiting for it if `wait`.
async fn done(client: &Client, changed: &Changed, wait: bool, output: Output) -> Result<(), Failure> {
    output.warn(&changed.warnings);
    if wait {
        let settled = wait::settled(client, changed, output).await?;
        return output.done(&settled.message, &settled);
    }
    output.done(&changed.message, changed)
}

/// A failure; if the VM does not exist, with similar names as a hint.
async fn with_hint(client: &Client, name: &str, error: ClientError) -> Failure {
    let missing = drover_client::is_not_found(&error);
    let mut failure = Failure::from(error);
    if missing && let Ok(vms) = client.listed_vms(&ListVms::default()).await {
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

/// Converts the result of a request about a VM; if the VM does not exist, the failure suggests similar names.
async fn found<T>(client: &Client, name: &str, answer: drover_client::Result<T>) -> Result<T, Failure> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(error) => Err(with_hint(client, name, error).await),
    }
}
