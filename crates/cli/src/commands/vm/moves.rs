//! Moving VMs to other nodes.

use super::{done, found};
use crate::{
    args::{OneVm, Waiting},
    commands::{Context, Run},
    complete,
    failure::Failure,
    wait,
};
use clap::Args;
use clap_complete::ArgValueCompleter;
use drover_model::{
    NodeName,
    wire::{MoveAction, MoveVm},
};

/// Move a VM to another node temporarily; it keeps its home node
///
/// A running VM is migrated live where its migration method allows it; one that is off is only reassigned. 'drover vm
/// unmigrate' moves it back.
///
/// Examples: drover vm migrate web --to hv2 --wait; drover vm migrate web --cancel
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    how: MoveOptions,
    /// Move it even if it is away from its home node already
    #[arg(long)]
    force: bool,
    /// Cancel the VM's move that is in progress; it stays where it is
    #[arg(long, conflicts_with_all = ["to", "live", "force"])]
    cancel: bool,
    #[command(flatten)]
    wait: Waiting,
}

/// Move a VM to another node permanently, which becomes its home node
///
/// Example: drover vm move web --to hv2 --wait
#[derive(Debug, Args)]
pub(crate) struct Move {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    how: MoveOptions,
    #[command(flatten)]
    wait: Waiting,
}

/// Move a migrated VM back to its home node
#[derive(Debug, Args)]
pub(crate) struct Unmigrate {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    wait: Waiting,
}

// Where a VM moves, and how.
#[derive(Debug, Args)]
struct MoveOptions {
    /// The target node; if not given, the best one (see 'drover vm explain')
    #[arg(short, long, alias = "target", value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    to: Option<NodeName>,
    #[command(flatten)]
    live: Live,
}

#[derive(Debug, Args)]
struct Live {
    /// Only migrate live, whatever its migration method is
    #[arg(long, alias = "force-live")]
    live: bool,
}

impl Run for Migrate {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.cancel {
            return cancel(&self.vm.vm, self.wait.wait, context).await;
        }
        let MoveOptions { to, live } = self.how;
        let order = MoveVm { node: to, force: self.force, force_live: live.live, ..advised(MoveAction::Migrate) };
        relocate(&self.vm.vm, &order, self.wait.wait, context).await
    }
}

impl Run for Move {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let MoveOptions { to, live } = self.how;
        let order = MoveVm { node: to, force_live: live.live, ..advised(MoveAction::Move) };
        relocate(&self.vm.vm, &order, self.wait.wait, context).await
    }
}

impl Run for Unmigrate {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let order = MoveVm { force_live: self.live.live, ..advised(MoveAction::Unmigrate) };
        relocate(&self.vm.vm, &order, self.wait.wait, context).await
    }
}

/// An order whose answer also says which losses of nodes could not be absorbed then.
fn advised(action: MoveAction) -> MoveVm {
    MoveVm { advise: true, ..MoveVm::by(action) }
}

/// Moves a VM to another node.
async fn relocate(vm: &str, order: &MoveVm, wait: bool, context: &Context) -> Result<(), Failure> {
    let (client, output) = (context.client()?, context.output);
    // Needed before the order: a failed move shows as an increased failure count.
    let before = found(&client, vm, client.vm(vm).await).await?;
    let ordered = client.move_vm(&before.uuid, order).await?;
    match &ordered.to {
        Some(to) if wait => {
            output.warn(&ordered.warnings);
            let arrived = wait::moved(&client, &before, &ordered, to, output).await?;
            output.done(&arrived.message, &arrived)
        }
        // The VM was off, so it is assigned there already.
        _ if wait => {
            output.note(&ordered.message);
            done(&client, &ordered, true, output).await
        }
        _ => done(&client, &ordered, false, output).await,
    }
}

/// Cancels a move that is in progress.
async fn cancel(vm: &str, wait: bool, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let cancelled = found(&client, vm, client.move_vm(vm, &MoveVm::by(MoveAction::Cancel)).await).await?;
    done(&client, &cancelled, wait, context.output).await
}
