//! Clones of machines: the same name and the same machine id, another address, other boots, and guests of their own.

use drover_model::NodeName;

/// What a clone's name in the log has after its node's.
const SUFFIX: &str = "-clone";
/// What the ids of its boots begin with.
const BOOT: &str = "clone";

/// The name of a node's clone, for the log and for what it runs. (Its daemon has the node's name.)
pub(crate) fn name_of(node: &NodeName) -> Option<NodeName> {
    NodeName::new(&format!("{node}{SUFFIX}")).ok()
}

/// The node whose name a machine's daemon has, and whether the machine is a clone.
pub(crate) fn node_of(machine: &NodeName) -> (NodeName, bool) {
    let node = machine.as_str().strip_suffix(SUFFIX).and_then(|node| NodeName::new(node).ok());
    let is_clone = node.is_some();
    (node.unwrap_or_else(|| machine.clone()), is_clone)
}

/// The id of a clone's boot.
pub(crate) fn boot(boots: u32) -> String {
    format!("{BOOT}-{boots}")
}

/// Whether a boot is a clone's.
pub(crate) fn is_boot(boot: &str) -> bool {
    boot.starts_with(BOOT)
}
