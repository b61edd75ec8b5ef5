//! Setting a node's own policies.

use crate::{
    args::{OneNode, word},
    commands::{Context, Run},
    failure::Failure,
};
use clap::Args;
use drover_model::wire::{NodePolicies, OwnAfterProof, OwnPowerOn, SetNodePolicies};

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
}

impl Run for Set {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Policies { after_proof, power_on } = self.policies;
        let node = self.node.node;
        let change = SetNodePolicies { after_proof, power_on };
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
    let NodePolicies { own_after_proof, own_power_on, .. } = *policies;
    format!("{vms} ({}); {power} after its power was cut ({})", whose(own_after_proof), whose(own_power_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_said_with_whose_they_are() {
        let policies =
            NodePolicies { after_proof: "none".to_owned(), own_after_proof: true, ..NodePolicies::default() };
        let wanted = "its VMs wait until you confirm it (its own policy); it stays off after its power was cut (the \
                      cluster's policy)";
        assert_eq!(said(&policies), wanted);
    }
}
