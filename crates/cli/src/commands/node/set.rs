//! Setting a node's own policies.

use crate::{
    args::{OneNode, word},
    commands::{Context, Run},
    failure::Failure,
};
use clap::Args;
use drover_model::{
    OnReturn,
    wire::{NodePolicies, OwnAfterProof, OwnOnReturn, OwnPowerOn, SetNodePolicies},
};

/// Set a node's own policies of what happens when it is off
///
/// Without its own, those of the cluster are in force ('drover config show'); settings that are not given stay as they
/// are. 'drover node info NODE' shows what is in force.
///
/// Example: drover node set hv3 --after-proof none --power-on inherit
#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    node: OneNode,
    #[command(flatten)]
    policies: Policies,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Policies {
    /// What follows when a BMC or a watchdog proves that the node is off
    ///
    /// recover: its VMs start on other nodes. none: they wait, until you confirm it ('drover node fence NODE
    /// --confirm-off'). inherit: as the cluster's configuration says.
    #[arg(long, value_name = "POLICY", value_parser = word::<OwnAfterProof>(OwnAfterProof::WORDS.iter().copied()))]
    after_proof: Option<OwnAfterProof>,
    /// Whether the node is switched on again when its power was cut and its VMs are recovered
    ///
    /// inherit: as the cluster's configuration says.
    #[arg(long, value_name = "POLICY", value_parser = word::<OwnPowerOn>(OwnPowerOn::WORDS.iter().copied()))]
    power_on: Option<OwnPowerOn>,
    /// What the node is when it is back after its VMs were given to others
    ///
    /// flushed: it takes no VMs until you make it ready ('drover node ready NODE'). ready: it becomes ready by itself,
    /// if it was ready before, and its VMs come home. inherit: as the cluster's configuration says.
    #[arg(long, value_name = "POLICY", value_parser = word::<OwnOnReturn>(OwnOnReturn::WORDS.iter().copied()))]
    on_return: Option<OwnOnReturn>,
}

impl Run for Set {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Policies { after_proof, power_on, on_return } = self.policies;
        let node = self.node.node;
        let change = SetNodePolicies { after_proof, power_on, on_return };
        let now = context.client()?.set_node_policies(&node, change).await?;
        context.output.done(&format!("Node {node}, when it is off: {}.", said(&now)), &now)
    }
}

/// The policies in force, in words.
pub(super) fn said(policies: &NodePolicies) -> String {
    let whose = |own: bool| if own { "its own policy" } else { "the cluster's policy" };
    let vms = match policies.after_proof.as_str() {
        "none" => "its VMs wait until you confirm it",
        _ => "its VMs start on other nodes",
    };
    let power = if policies.power_on { "it is switched on again" } else { "it stays off" };
    let NodePolicies { own_after_proof, own_power_on, own_on_return, .. } = *policies;
    let (of_vms, of_power, of_return) = (whose(own_after_proof), whose(own_power_on), whose(own_on_return));
    // A daemon of an older version does not tell it: a node that is back is always flushed there.
    let back = if policies.on_return == OnReturn::Ready.word() { "ready" } else { "flushed" };
    format!(
        "{vms} ({of_vms}); {power} after its power was cut ({of_power}); when it is back without its VMs it is {back} \
         ({of_return})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_said_with_whose_they_are() {
        let policies = NodePolicies {
            after_proof: "none".to_owned(),
            on_return: "ready".to_owned(),
            own_after_proof: true,
            ..NodePolicies::default()
        };
        let wanted = "its VMs wait until you confirm it (its own policy); it stays off after its power was cut (the \
                      cluster's policy); when it is back without its VMs it is ready (the cluster's policy)";
        assert_eq!(said(&policies), wanted);
    }
}
