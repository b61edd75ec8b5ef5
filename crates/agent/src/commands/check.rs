//! The hypervisor's word on a new definition, before it is stored.

use super::{CommandError, Commands, Result};
use drover_drivers::hypervisor::HypervisorError;
use drover_model::{ClusterView, Definition, Epoch, Generation, NodeName, domain, domain::Mark};
use drover_plan::check;

impl Commands {
    /// Has this node's hypervisor check a definition as it would be started on `node`, and refuses what it does not
    /// accept. What cannot be checked now is accepted: a VM can be defined while libvirtd is away. Returns why it was
    /// not checked, if so.
    pub(super) async fn checked(
        &self,
        view: &ClusterView,
        definition: &Definition,
        node: Option<&NodeName>,
    ) -> Result<Option<String>> {
        let me = self.ctx.me();
        let node = node.unwrap_or(me);
        if let Err(why) = check::can_judge(view, me, node) {
            return Ok(Some(why));
        }
        let Some(domain_type) = *self.ctx.options.domain_type.borrow() else {
            return Ok(Some(format!("node {me} is still finding out whether KVM works")));
        };
        // Any grant will do.
        let mark = Mark { epoch: Epoch(1), generation: Generation(1) };
        let xml = self.ctx.effective(&definition.uuid, domain_type, mark, &definition.xml)?;
        match self.ctx.hypervisor.check(domain::without_scripts(&xml)?).await {
            Ok(()) => Ok(None),
            Err(HypervisorError::BadDefinition { why, .. } | HypervisorError::Refused { why, .. }) => {
                Err(CommandError::Refused(format!(
                    "the hypervisor of node {me} does not accept the definition of VM {}: {why}. It would fail at its \
                     start{}; nothing was changed. Correct it, or define it all the same without this check \
                     (--no-check)",
                    definition.name,
                    if node == me { String::new() } else { format!(" on node {node}, which has the same hypervisor") }
                )))
            }
            Err(error) => Ok(Some(error.to_string())),
        }
    }
}
