//! Removing a node.

use super::fence::question;
use crate::{
    args::{Confirmation, OneNode},
    commands::{Context, Run, confirm},
    failure::Failure,
};
use clap::Args;
use drover_model::wire::RemoveNode;

/// Remove a node that is gone for good, so that another machine can use its name
///
/// Its daemon must be stopped or dead, and it must not have or hold any VM. With --confirm-off, you confirm that its
/// machine is off: its VMs are given to other nodes first. A VM whose disks are on that machine only keeps the node
/// from being removed.
///
/// Example: drover node remove hv3 --confirm-off
#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    node: OneNode,
    /// Confirm that the node's machine is off: its VMs are given to other nodes
    #[arg(long)]
    confirm_off: bool,
    #[command(flatten)]
    confirm: Confirmation,
}

impl Run for Remove {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, node) = (context.client()?, self.node.node);
        let mut asked = format!("Remove node {node} from the cluster?");
        let mut boot = None;
        if self.confirm_off {
            let fence = client.fence(&node).await?;
            asked = format!("Node {node} is removed from the cluster.\n{}", question(&fence));
            boot = Some(fence.boot);
        }
        confirm(&asked, self.confirm.yes)?;
        let done = client.remove_node(&node, RemoveNode { confirm_off: self.confirm_off, boot }).await?;
        context.output.done(&done.message, &done)
    }
}
