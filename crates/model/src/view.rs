//! A node's copy of the records, decoded and joined: lists are answered and decisions are made from it.
//!
//! [`ClusterView::apply`] applies one record: it goes on the shelf of its kind ([`crate::shelf`]), and the VM or node
//! that it belongs to is joined again. Indexes are kept for the VMs: by name, by the nodes that they concern, by
//! whether they move, by what only one of them may have; and the allocated resources of each node.
//!
//! Maps and values are shared (`imbl`, `Arc`): copying the whole view is cheap, readers keep their copy while the next
//! one is made, and the time to find the differences between two views depends on the number of changes
//! ([`Table::changes`]), not on the size of the cluster.
//!
//! A record that cannot be decoded is listed in [`ClusterView::broken`], with the reason, and reduces the cluster's
//! health until it is repaired.

mod node;
mod vm;

pub use node::NodeView;
pub use vm::VmView;

use crate::{
    cluster::{ClusterConfig, Fault, Token},
    domain::{Sole, devices::Devices},
    fence::Fence,
    name::{NodeName, VmName},
    node::{CoordinatorState, NodeRecord, NodeSession, NodeStatus},
    path::RecordPath,
    primary::Primary,
    record::{Kept, Unreadable, Version},
    shelf::{Belongs, Shelf, Shelved, Shelves},
    usage::{Tallies, Usage},
    vm::{Arrival, Claim, VmRecord, VmStatus},
};
use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use std::{collections::BTreeSet, fmt, ops::Deref, sync::Arc};
use uuid::Uuid;

/// A map that only the view changes, because its indexes must agree with it.
#[derive(Clone)]
pub struct Table<K, V>(OrdMap<K, V>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table(OrdMap::new())
    }
}

impl<K, V> Deref for Table<K, V> {
    type Target = OrdMap<K, V>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = imbl::ordmap::Iter<'a, K, V, imbl::shared_ptr::DefaultSharedPtr>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Ord + Clone, T: PartialEq> Table<K, Arc<T>> {
    /// The keys that were added, changed or removed since `old`.
    pub fn changes<'a>(&'a self, old: &'a Self) -> impl Iterator<Item = &'a K> {
        old.0.diff(&self.0).map(|item| match item {
            DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
            DiffItem::Update { new: (key, _), .. } => key,
        })
    }
}

/// The known state of the cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// The cluster's configuration.
    pub config: ClusterConfig,
    /// The primary's record; `None` if it has not been read.
    pub primary: Option<Kept<Primary>>,
    /// Nodes by name.
    pub nodes: Table<NodeName, Arc<NodeView>>,
    /// VMs by UUID.
    pub vms: Table<Uuid, Arc<VmView>>,
    /// UUIDs by VM name.
    pub names: Table<VmName, Uuid>,
    /// Records that cannot be decoded, and why.
    pub broken: Table<RecordPath, Arc<Unreadable>>,
    shelves: Shelves,
    /// The VMs that concern a node: assigned to it, held by it, at home there, or coming to it.
    concerns: OrdMap<NodeName, OrdSet<Uuid>>,
    /// The VMs that should move, or may be on their way.
    moving: OrdSet<Uuid>,
    /// The VMs that have something that only one VM may have.
    having: OrdSet<(Sole, Uuid)>,
    tallies: Tallies,
}

impl ClusterView {
    /// The VM with this UUID or name. A UUID always means the UUID, also if another VM has it as its name (which
    /// earlier versions accepted).
    pub fn vm(&self, uuid_or_name: &str) -> Option<&Arc<VmView>> {
        let by_name = || VmName::new(uuid_or_name).ok().and_then(|n| self.names.get(&n)).and_then(|u| self.vms.get(u));
        Uuid::parse_str(uuid_or_name).ok().and_then(|u| self.vms.get(&u)).or_else(by_name)
    }

    /// The records of a kind.
    pub fn shelf<T: Shelved>(&self) -> &Shelf<T> {
        self.shelves.of()
    }

    /// The API's tokens by name.
    pub fn tokens(&self) -> &Shelf<Token> {
        self.shelf()
    }

    /// Faults by id.
    pub fn faults(&self) -> &Shelf<Fault> {
        self.shelf()
    }

    /// Fences by node.
    pub fn fences(&self) -> &Shelf<Fence> {
        self.shelf()
    }

    /// The VMs that concern a node: assigned to it, held by it, at home there, or coming to it; by UUID.
    pub fn vms_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<VmView>> {
        let uuids = self.concerns.get(node).into_iter().flat_map(|uuids| uuids.iter());
        uuids.filter_map(|uuid| self.vms.get(uuid))
    }

    /// The nodes that VMs concern, whether they are in the cluster or not.
    pub fn concerned(&self) -> impl Iterator<Item = &NodeName> {
        self.concerns.keys()
    }

    /// The VMs that should move, or whose guest may be on its way; by UUID.
    pub fn moving(&self) -> impl Iterator<Item = &Arc<VmView>> {
        self.moving.iter().filter_map(|uuid| self.vms.get(uuid))
    }

    /// The VMs whose definitions have this; by UUID.
    pub fn having(&self, what: &Sole) -> impl Iterator<Item = &Arc<VmView>> {
        let pairs = self.having.range((what.clone(), Uuid::nil())..=(what.clone(), Uuid::max()));
        pairs.filter_map(|(_, uuid)| self.vms.get(uuid))
    }

    /// Allocated resources of all nodes.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Allocated resources of one node.
    pub fn usage(&self, node: &NodeName) -> Usage {
        self.tallies.usage(node)
    }

    /// The state of a node as a coordinator.
    pub fn coordinator_state(&self, node: &NodeView) -> CoordinatorState {
        match &self.primary {
            Some(primary) => node.coordinator_state(&primary.value),
            None => node.coordinator_state(&Primary::vacant()),
        }
    }

    /// Why the last requested handoff to the node failed.
    pub fn takeover_problem(&self, node: &NodeName) -> Option<&str> {
        let failed = self.primary.as_ref()?.value.failed.as_ref()?;
        (failed.to == *node).then_some(&*failed.why)
    }

    /// The node with the primary's role.
    pub fn primary_node(&self) -> Option<&NodeName> {
        self.primary.as_ref().and_then(|primary| primary.value.holder.as_ref())
    }

    /// Applies the present state of a record; `None`: it does not exist.
    pub fn apply(&mut self, path: &RecordPath, data: Option<(&[u8], Version)>) {
        let Some((belongs, problem)) = self.shelves.put(path, data) else { return };
        match problem {
            Some(problem) => self.broken.0.insert(path.clone(), problem),
            None => self.broken.0.remove(path),
        };
        match belongs {
            Belongs::Vm(uuid) => self.join_vm(uuid),
            Belongs::Node(name) => self.join_node(name),
            Belongs::Alone => {
                let config = self.shelf::<ClusterConfig>().only();
                self.config = config.map(|config| config.value.clone()).unwrap_or_default();
                self.primary = self.shelf::<Primary>().only().cloned();
            }
        }
    }

    /// Replaces the records of one VM: with a hypothetical state, or with newer ones.
    pub fn put_vm(&mut self, vm: &VmView) {
        let uuid = vm.record.value.uuid;
        VmRecord::shelf_mut(&mut self.shelves).set(uuid, Some(vm.record.clone()));
        Claim::shelf_mut(&mut self.shelves).set(uuid, vm.claim.clone());
        VmStatus::shelf_mut(&mut self.shelves).set(uuid, vm.status.clone());
        Arrival::shelf_mut(&mut self.shelves).set(uuid, vm.arrival.clone());
        self.enter_vm(uuid, Some(Arc::new(vm.clone())));
    }

    /// The same for a node.
    pub fn put_node(&mut self, node: &NodeView) {
        let name = node.record.value.name.clone();
        NodeRecord::shelf_mut(&mut self.shelves).set(name.clone(), Some(node.record.clone()));
        NodeStatus::shelf_mut(&mut self.shelves).set(name.clone(), node.status.clone());
        NodeSession::shelf_mut(&mut self.shelves).set(name.clone(), node.session.clone());
        self.nodes.0.insert(name, Arc::new(node.clone()));
    }

    /// Changes a VM's records in the view. Returns whether the VM exists.
    pub fn change_vm(&mut self, uuid: &Uuid, change: impl FnOnce(&mut VmView)) -> bool {
        let Some(mut vm) = self.vms.get(uuid).map(|vm| VmView::clone(vm)) else { return false };
        change(&mut vm);
        self.put_vm(&vm);
        true
    }

    /// The same for a node.
    pub fn change_node(&mut self, name: &NodeName, change: impl FnOnce(&mut NodeView)) -> bool {
        let Some(mut node) = self.nodes.get(name).map(|node| NodeView::clone(node)) else { return false };
        change(&mut node);
        self.put_node(&node);
        true
    }

    fn join_node(&mut self, name: NodeName) {
        match NodeView::join(&self.shelves, &name) {
            Some(node) => self.nodes.0.insert(name, Arc::new(node)),
            None => self.nodes.0.remove(&name),
        };
    }

    fn join_vm(&mut self, uuid: Uuid) {
        let old = self.vms.get(&uuid).map(|vm| &**vm);
        let new = VmView::join(&self.shelves, &uuid, old).map(Arc::new);
        self.enter_vm(uuid, new);
    }

    /// Replaces a VM and its index entries.
    fn enter_vm(&mut self, uuid: Uuid, new: Option<Arc<VmView>>) {
        let old = match &new {
            Some(vm) => self.vms.0.insert(uuid, vm.clone()),
            None => self.vms.0.remove(&uuid),
        };
        if let Some(old) = &old {
            self.tallies.remove(old);
        }
        if let Some(new) = &new {
            self.tallies.add(new);
        }
        let name_of = |vm: &Arc<VmView>| vm.record.value.name.clone();
        let (was, is) = (old.as_ref().map(name_of), new.as_ref().map(name_of));
        let given_up = was.filter(|was| is.as_ref() != Some(was) && self.names.get(was) == Some(&uuid));
        if let Some(was) = given_up {
            self.names.0.remove(&was);
        }
        // Also if its name is unchanged: another VM may have had the name in between, as far as this view was notified.
        if let Some(is) = is.filter(|is| self.names.get(is) != Some(&uuid)) {
            self.names.0.insert(is, uuid);
        }
        let was = old.as_ref().map(|vm| vm.nodes()).unwrap_or_default();
        let is = new.as_ref().map(|vm| vm.nodes()).unwrap_or_default();
        index(&mut self.concerns, uuid, &was, &is);
        let devices = |vm: &Option<Arc<VmView>>| vm.as_ref().map(|vm| vm.devices.clone()).unwrap_or_default();
        let (was, is): (Arc<Devices>, Arc<Devices>) = (devices(&old), devices(&new));
        if !Arc::ptr_eq(&was, &is) {
            // Pairs, not a set for each: nearly all of them have one VM, and a set takes 500 bytes.
            was.soles.iter().filter(|gone| !is.soles.contains(gone)).for_each(|gone| {
                self.having.remove(&(gone.clone(), uuid));
            });
            is.soles.iter().filter(|new| !was.soles.contains(new)).for_each(|new| {
                self.having.insert((new.clone(), uuid));
            });
        }
        match new.as_ref().is_some_and(|vm| vm.is_moving()) {
            true => self.moving.insert(uuid),
            false => self.moving.remove(&uuid),
        };
    }
}

/// Updates an index of VMs by what they were and are filed under.
fn index<K: Ord + Clone>(index: &mut OrdMap<K, OrdSet<Uuid>>, uuid: Uuid, was: &BTreeSet<&K>, is: &BTreeSet<&K>) {
    for gone in was.difference(is) {
        if let Some(uuids) = index.get_mut(*gone) {
            uuids.remove(&uuid);
            if uuids.is_empty() {
                index.remove(*gone);
            }
        }
    }
    for new in is.difference(was) {
        index.entry((*new).clone()).or_default().insert(uuid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::RecordKind,
        testing::{VmWords, vm},
        vm::VmState,
    };

    fn record(name: &str) -> VmRecord {
        let xml = "<domain><memory>1024</memory><vcpu>1</vcpu></domain>".to_owned();
        VmRecord { xml, ..vm(1, 1).named(name).record.value.clone() }
    }

    #[test]
    fn records_may_be_applied_and_removed_in_any_order() {
        let uuid = Uuid::from_u128(1);
        let claim = serde_json::to_vec(&Claim::new(crate::Epoch(0))).unwrap();
        let (a, b) = (serde_json::to_vec(&record("a")).unwrap(), serde_json::to_vec(&record("b")).unwrap());
        let mut view = ClusterView::default();
        view.apply(&Claim::path(&uuid), Some((&claim, Version(4))));
        assert!(view.vms.is_empty());
        view.apply(&VmRecord::path(&uuid), Some((&a, Version(7))));
        let vm = view.vm("a").unwrap();
        assert_eq!(
            (vm.record.version, vm.claim.as_ref().unwrap().version, vm.demand.vcpus),
            (Version(7), Version(4), 1)
        );
        assert_eq!(view.vm(&uuid.to_string()).unwrap().record.value.name.as_str(), "a");

        view.apply(&VmRecord::path(&uuid), Some((&b, Version(8))));
        assert!(view.vm("a").is_none() && view.vm("b").is_some(), "a rename frees the old name");
        // Nothing remains, whichever is removed first.
        view.apply(&VmRecord::path(&uuid), None);
        view.apply(&Claim::path(&uuid), None);
        assert!(view.vms.is_empty() && view.names.is_empty());
        assert!(view.shelf::<Claim>().is_empty() && view.concerns.is_empty() && view.tallies == Tallies::default());
    }

    #[test]
    fn an_unreadable_vm_keeps_its_name_its_node_and_its_resources() {
        let uuid = Uuid::from_u128(1);
        let newer = r#"{"schema":7,"uuid":"x","name":"a","state":{"is":"hibernate"},"node":"n1","generation":{},
            "xml":"<domain><memory>1024</memory><vcpu>2</vcpu></domain>"}"#;
        let mut view = ClusterView::default();
        view.apply(&VmRecord::path(&uuid), Some((newer.as_bytes(), Version(1))));
        let vm = view.vm("a").unwrap();
        let n1 = NodeName::new("n1").unwrap();
        assert_eq!((&vm.record.value.state, vm.record.value.node.as_ref()), (&VmState::Unreadable, Some(&n1)));
        assert!(vm.unreadable().is_some() && view.broken.len() == 1);
        assert_eq!((view.usage(&n1).promised_vms, view.usage(&n1).promised_vcpus), (1, 2));
        assert_eq!(view.vms_of(&n1).count(), 1);
    }

    #[test]
    fn a_claim_that_cannot_be_read_is_not_the_same_as_none() {
        let uuid = Uuid::from_u128(1);
        let n1 = NodeName::new("n1").unwrap();
        let record = VmRecord { node: Some(n1.clone()), ..record("a") };
        let mut view = ClusterView::default();
        view.apply(&VmRecord::path(&uuid), Some((&serde_json::to_vec(&record).unwrap(), Version(1))));
        assert!(!view.vm("a").unwrap().is_held_by(&n1));
        view.apply(&Claim::path(&uuid), Some((br#"{"schema":7,"node":["n1","n2"]}"#, Version(1))));
        let vm = view.vm("a").unwrap();
        assert!(vm.is_held_by(&n1) && !vm.is_free() && vm.unreadable().is_some());
        assert_eq!(view.usage(&n1).promised_vms, 1);
    }

    /// The incremental indexes equal those computed from scratch.
    #[test]
    fn indexes_agree_with_the_records() {
        let name = |n: usize| NodeName::new(&format!("n{n}")).unwrap();
        let mut dice = crate::Dice::new(7);
        let mut view = ClusterView::default();
        for step in 0..4000 {
            let uuid = Uuid::from_u128(dice.roll(12) as u128);
            let mut some = |n| (dice.roll(3) > 0).then(|| name(dice.roll(n as u64) as usize));
            let (on, home, held, to) = (some(4), some(4), some(4), some(4));
            let (path, data) = match dice.roll(4) {
                0 => (VmRecord::path(&uuid), None),
                1 => {
                    let state = match (dice.roll(3), &to) {
                        (0, Some(to)) => {
                            VmState::Migrate { to: to.clone(), kind: crate::MoveKind::Migrate, how: crate::How::Live }
                        }
                        (1, _) => VmState::Stop,
                        _ => VmState::Start,
                    };
                    let mac =
                        format!("<interface type='user'><mac address='52:54:0:0:0:{}'/></interface>", dice.roll(9));
                    let memory = dice.roll(9);
                    let xml =
                        format!("<domain><memory>{memory}</memory><vcpu>2</vcpu><devices>{mac}</devices></domain>");
                    let name = format!("v{}", uuid.as_u128());
                    let record = VmRecord { uuid, state, node: on, last_node: home, xml, ..record(&name) };
                    (VmRecord::path(&uuid), serde_json::to_vec(&record).ok())
                }
                2 => {
                    let claim = Claim { node: held, to, ..Claim::new(crate::Epoch(0)) };
                    (Claim::path(&uuid), serde_json::to_vec(&claim).ok())
                }
                _ => (Claim::path(&uuid), None),
            };
            let before = view.clone();
            view.apply(&path, data.as_deref().map(|data| (data, Version(step))));
            let changed: Vec<&Uuid> = view.vms.changes(&before.vms).collect();
            assert!(changed.iter().all(|changed| **changed == uuid), "{changed:?}");
            let mut fresh = ClusterView::default();
            for vm in view.vms.values() {
                fresh.put_vm(vm);
            }
            assert_eq!(view.tallies, fresh.tallies);
            assert_eq!((&view.concerns, &view.moving), (&fresh.concerns, &fresh.moving));
            assert_eq!(view.having, fresh.having);
            assert!(view.vms.values().all(|vm| view.vm(vm.record.value.name.as_str()) == Some(vm)));
            assert_eq!(view.names.len(), view.vms.len());
        }
    }

    #[test]
    fn an_undecodable_record_is_listed_until_it_is_repaired() {
        let path = VmRecord::path(&Uuid::from_u128(1));
        let mut view = ClusterView::default();
        view.apply(&path, Some((b"{", Version(1))));
        assert!(view.broken.contains_key(&path));
        view.apply(&path, Some((&serde_json::to_vec(&record("a")).unwrap(), Version(2))));
        assert!(view.broken.is_empty() && view.vms.len() == 1);
    }
}
