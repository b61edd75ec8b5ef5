//! Starting and stopping VMs.

use super::{done, found};
use crate::{
    args::{Confirmation, OneVm, Waiting},
    commands::{Context, Run, confirm},
    failure::Failure,
    output::Output,
    wait,
};
use clap::Args;
use drover_client::Client;
use drover_model::wire::{PowerOrder, SetVmState};

/// Start a VM; cancels a shutdown or a move that is in progress
///
/// A guest that is paused runs on, one that is asleep is woken.
///
/// If disks of the running guest were replaced, as by an external snapshot, its definition may still have the older
/// ones. Then it is not started, unless it is forced: the guest boots with the older data then, and what it has written
/// to the newer disks since is of no use any more.
#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    vm: OneVm,
    /// Boot the disks of the definition, even if they have older data than the guest had
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Waiting,
}

/// Shut a VM down by asking its guest to power off
///
/// Presses the guest's power button (ACPI). If it has not powered off within the timeout, its power is cut.
#[derive(Debug, Args)]
pub(crate) struct Shutdown {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    deadline: Deadline,
    #[command(flatten)]
    wait: Waiting,
}

/// Cut a VM's power now; data that its guest has not written is lost
#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    wait: Waiting,
    #[command(flatten)]
    confirm: Confirmation,
}

/// Shut a VM down, and start it again
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    deadline: Deadline,
    #[command(flatten)]
    wait: Waiting,
}

/// Keep a VM off; a running one is shut down first
#[derive(Debug, Args)]
pub(crate) struct Disable {
    #[command(flatten)]
    vm: OneVm,
    /// Cut its power instead of asking its guest to power off
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Waiting,
}

/// Pause a VM's guest: it stays in memory, and does not execute until it is resumed
///
/// It stays paused when its node's daemon is restarted. A paused guest cannot be shut down or moved, and keeps its node
/// from being flushed. An HTTP or database client sees it as a machine that does not answer.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    wait: Waiting,
}

/// Let a VM's guest run on that is paused, whoever or whatever paused it; wake one that is asleep
///
/// 'drover vm info' shows why it is paused. After an I/O error, remove the cause first: otherwise it is paused again.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    wait: Waiting,
}

#[derive(Debug, Args)]
struct Deadline {
    /// Time for the guest to power off, in seconds (default 180)
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u32>,
}

impl Run for Start {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let state = SetVmState { force: self.force, advise: true, ..SetVmState::to(PowerOrder::Start) };
        order(&context.client()?, &self.vm.vm, state, self.wait.wait, context.output).await
    }
}

impl Run for Shutdown {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let state = SetVmState { timeout: self.deadline.timeout, ..SetVmState::to(PowerOrder::Shutdown) };
        order(&context.client()?, &self.vm.vm, state, self.wait.wait, context.output).await
    }
}

impl Run for Stop {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        confirm(
            &format!("Cut the power of VM {}? Data that its guest has not written is lost.", self.vm.vm),
            self.confirm.yes,
        )?;
        order(&client, &self.vm.vm, SetVmState::to(PowerOrder::Stop), self.wait.wait, context.output).await
    }
}

impl Run for Restart {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let state = SetVmState { timeout: self.deadline.timeout, ..SetVmState::to(PowerOrder::Restart) };
        order(&context.client()?, &self.vm.vm, state, self.wait.wait, context.output).await
    }
}

impl Run for Disable {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let state = SetVmState { force: self.force, ..SetVmState::to(PowerOrder::Disable) };
        order(&context.client()?, &self.vm.vm, state, self.wait.wait, context.output).await
    }
}

impl Run for Pause {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        order(&context.client()?, &self.vm.vm, SetVmState::to(PowerOrder::Pause), self.wait.wait, context.output).await
    }
}

impl Run for Resume {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        order(&context.client()?, &self.vm.vm, SetVmState::to(PowerOrder::Resume), self.wait.wait, context.output).await
    }
}

async fn order(client: &Client, vm: &str, state: SetVmState, wait: bool, output: Output) -> Result<(), Failure> {
    let ordered = found(client, vm, client.set_vm_state(vm, state).await).await?;
    if wait && state.state == PowerOrder::Pause {
        let paused = wait::paused(client, &ordered, output).await?;
        return output.done(&paused.message, &paused);
    }
    done(client, &ordered, wait, output).await
}
