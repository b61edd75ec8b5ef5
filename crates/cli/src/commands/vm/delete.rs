//! Deleting VMs, with or without their disks.

use crate::{
    args::{Confirmation, OneVm},
    commands::{Context, Run, confirm},
    failure::Failure,
    output::Output,
};
use clap::Args;
use drover_client::Client;
use drover_model::wire::DeleteVm;

/// Delete a VM but keep its disks; if it runs, its power is cut
#[derive(Debug, Args)]
pub(crate) struct Undefine {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    confirm: Confirmation,
}

/// Delete a VM and its disks; if it runs, its power is cut
///
/// Only disks in Drover's own folder are deleted; files elsewhere are kept, and so is what another VM, another image or
/// a running QEMU needs.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    confirm: Confirmation,
}

impl Run for Undefine {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, vm) = (context.client()?, self.vm.vm);
        confirm(&format!("Delete VM {vm}? Its disks are kept. If it runs, its power is cut."), self.confirm.yes)?;
        delete(&client, &vm, DeleteVm { delete_disks: false }, context.output).await
    }
}

impl Run for Remove {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, vm) = (context.client()?, self.vm.vm);
        confirm(&format!("Delete VM {vm} and its disks? If it runs, its power is cut."), self.confirm.yes)?;
        delete(&client, &vm, DeleteVm { delete_disks: true }, context.output).await
    }
}

async fn delete(client: &Client, vm: &str, order: DeleteVm, output: Output) -> Result<(), Failure> {
    let done = client.delete_vm(vm, order).await?;
    output.done(&done.message, &done)
}
