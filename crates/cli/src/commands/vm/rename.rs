//! Renaming a VM.

use super::done;
use crate::{
    args::OneVm,
    commands::{Context, Run},
    failure::Failure,
};
use clap::Args;
use drover_model::{VmName, wire::RenameVm};

/// Rename a VM; it must be off
#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[command(flatten)]
    vm: OneVm,
    /// The new name
    new_name: VmName,
}

impl Run for Rename {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let renamed = client.rename_vm(&self.vm.vm, &RenameVm { new_name: self.new_name, version: None }).await?;
        done(&client, &renamed, false, context.output).await
    }
}
