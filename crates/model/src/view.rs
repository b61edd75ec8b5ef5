//! A node's copy of the records, decoded: what lists are answered from and decisions are made from.
//!
//! [`ClusterView::apply`] folds one record in. Values are shared (`Arc`), so that a copy of the whole view costs little and
//! readers keep the one they have while the next is being made. A record that cannot be decoded is not in the lists; it is named in
//! [`ClusterView::broken`], with the reason, and costs health until somebody mends it.

use crate::{
    cluster::{ClusterConfig, Fault, Token},
    domain::{self, devices::Devices},
    name::{NodeName, TokenName, VmName},
    node::{CoordinatorState, DaemonState, NodeRecord, NodeSession, NodeStatus, Role},
    path::RecordPath,
    primary::{Phase, Primary},
    vm::{Arrival, Claim, Demand, VmRecord, VmStatus},
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// A decoded record and the version to name when replacing it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// What it says.
    pub value: T,
    /// Its version in the store.
    pub version: i64,
}

/// A VM's records.
#[derive(Debug, Clone, PartialEq)]
pub struct VmView {
    /// What is wanted.
    pub record: Stored<VmRecord>,
    /// Who may run it. (`None` only for a moment: the records come one by one.)
    pub claim: Option<Stored<Claim>>,
    /// What its node reports.
    pub status: Option<VmStatus>,
    /// What the node says to which it is to go.
    pub arrival: Option<Stored<Arrival>>,
    /// Read from the definition once.
    pub demand: Demand,
    /// Read from the definition once, for people.
    pub devices: Arc<Devices>,
}

/// A node's three records.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// What it is meant to be.
    pub record: Stored<NodeRecord>,
    /// What it reports.
    pub status: Option<NodeStatus>,
    /// Its daemon's sign of life.
    pub session: Option<NodeSession>,
}

impl NodeView {
    /// What its daemon does, as the others see it: a report counts while its session lives.
    pub fn daemon_state(&self) -> DaemonState {
        match (&self.session, self.status.as_ref().map(|s| s.daemon)) {
            (Some(_), Some(state)) if state != DaemonState::Stop => state,
            (Some(_), _) => DaemonState::Init,
            (None, Some(DaemonState::Stop)) => DaemonState::Stop,
            (None, _) => DaemonState::Dead,
        }
    }

    /// The part that it plays.
    pub fn coordinator_state(&self, primary: &Primary) -> CoordinatorState {
        let me = &self.record.value.name;
        let passing = primary.phase().is_some_and(|phase| !matches!(phase, Phase::Lock | Phase::Back));
        if primary.is_held_by(me) {
            if passing { CoordinatorState::Relinquish } else { CoordinatorState::Primary }
        } else if primary.candidate() == Some(me) && primary.phase() != Some(Phase::Back) {
            CoordinatorState::Takeover
        } else {
            match self.record.value.role {
                Role::Hypervisor => CoordinatorState::Client,
                Role::Coordinator => CoordinatorState::Secondary,
            }
        }
    }
}

/// Parts of a VM or node whose main record has not come (or has gone).
#[derive(Debug, Clone, Default)]
struct Early {
    claim: Option<Stored<Claim>>,
    vm_status: Option<VmStatus>,
    arrival: Option<Stored<Arrival>>,
    node_status: Option<NodeStatus>,
    session: Option<NodeSession>,
}

/// Everything that is known of the cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// What holds for the whole cluster.
    pub config: ClusterConfig,
    /// Who is the primary, and the version of that record; `None`: it has not been read.
    pub primary: Option<Stored<Primary>>,
    /// Nodes by name.
    pub nodes: BTreeMap<NodeName, Arc<NodeView>>,
    /// VMs by UUID.
    pub vms: BTreeMap<Uuid, Arc<VmView>>,
    /// The UUIDs of the VMs' names.
    pub names: BTreeMap<VmName, Uuid>,
    /// The API's tokens by name.
    pub tokens: BTreeMap<TokenName, Arc<Token>>,
    /// Faults by id.
    pub faults: BTreeMap<String, Arc<Fault>>,
    /// Records that could not be decoded, and why.
    pub broken: BTreeMap<RecordPath, String>,
    early: BTreeMap<RecordPath, Early>,
}

impl ClusterView {
    /// The VM of this name or UUID.
    pub fn vm(&self, name_or_uuid: &str) -> Option<&Arc<VmView>> {
        let by_uuid = || Uuid::parse_str(name_or_uuid).ok().and_then(|u| self.vms.get(&u));
        VmName::new(name_or_uuid).ok().and_then(|n| self.names.get(&n)).and_then(|u| self.vms.get(u)).or_else(by_uuid)
    }

    /// The part that a node plays.
    pub fn coordinator_state(&self, node: &NodeView) -> CoordinatorState {
        match &self.primary {
            Some(primary) => node.coordinator_state(&primary.value),
            None => node.coordinator_state(&Primary::vacant()),
        }
    }

    /// Why a node did not become the primary when that was asked for last.
    pub fn takeover_problem(&self, node: &NodeName) -> Option<&str> {
        let failed = self.primary.as_ref()?.value.failed.as_ref()?;
        (failed.to == *node).then_some(&*failed.why)
    }

    /// The node that has the role of the primary.
    pub fn primary_node(&self) -> Option<&NodeName> {
        self.primary.as_ref().and_then(|primary| primary.value.holder.as_ref())
    }

    /// Folds in what a record is now; `None`: it does not exist.
    pub fn apply(&mut self, path: &RecordPath, data: Option<(&[u8], i64)>) {
        self.broken.remove(path);
        let parts: Vec<&str> = path.parts().collect();
        match parts.as_slice() {
            ["config"] => self.config = self.decode(path, data).map(|s| s.value).unwrap_or_default(),
            ["primary"] => self.primary = self.decode(path, data),
            ["nodes", name] => {
                let record = self.decode(path, data);
                if let Ok(name) = NodeName::new(name) {
                    self.put_node(path, name, record);
                }
            }
            ["nodes", name, part @ ("status" | "session")] => {
                let (Ok(name), Some(owner)) = (NodeName::new(name), path.parent()) else { return };
                let (mut status, mut session) = (None, None);
                match *part {
                    "status" => status = Some(self.decode(path, data).map(|s| s.value)),
                    _ => session = Some(self.decode(path, data).map(|s| s.value)),
                }
                let (early, node) = (&mut self.early, self.nodes.get_mut(&name).map(Arc::make_mut));
                let (to_status, to_session) = match node {
                    Some(node) => (&mut node.status, &mut node.session),
                    None => {
                        let early = early.entry(owner).or_default();
                        (&mut early.node_status, &mut early.session)
                    }
                };
                if let Some(status) = status {
                    *to_status = status;
                }
                if let Some(session) = session {
                    *to_session = session;
                }
            }
            ["vms", uuid] => {
                let record = self.decode(path, data);
                if let Ok(uuid) = Uuid::parse_str(uuid) {
                    self.put_vm(path, uuid, record);
                }
            }
            ["vms", uuid, part @ ("status" | "claim" | "arrival")] => {
                let (Ok(uuid), Some(owner)) = (Uuid::parse_str(uuid), path.parent()) else { return };
                let (mut status, mut claim, mut arrival) = (None, None, None);
                match *part {
                    "status" => status = Some(self.decode(path, data).map(|s| s.value)),
                    "claim" => claim = Some(self.decode(path, data)),
                    _ => arrival = Some(self.decode(path, data)),
                }
                let (early, vm) = (&mut self.early, self.vms.get_mut(&uuid).map(Arc::make_mut));
                let (to_status, to_claim, to_arrival) = match vm {
                    Some(vm) => (&mut vm.status, &mut vm.claim, &mut vm.arrival),
                    None => {
                        let early = early.entry(owner).or_default();
                        (&mut early.vm_status, &mut early.claim, &mut early.arrival)
                    }
                };
                if let Some(status) = status {
                    *to_status = status;
                }
                if let Some(claim) = claim {
                    *to_claim = claim;
                }
                if let Some(arrival) = arrival {
                    *to_arrival = arrival;
                }
            }
            ["tokens", name] => {
                let token: Option<Stored<Token>> = self.decode(path, data);
                if let Ok(name) = TokenName::new(name) {
                    match token {
                        Some(token) => self.tokens.insert(name, Arc::new(token.value)),
                        None => self.tokens.remove(&name),
                    };
                }
            }
            ["faults", id] => {
                let fault: Option<Stored<Fault>> = self.decode(path, data);
                match fault {
                    Some(fault) => self.faults.insert((*id).to_owned(), Arc::new(fault.value)),
                    None => self.faults.remove(*id),
                };
            }
            _ => {}
        }
    }

    fn decode<T: DeserializeOwned>(&mut self, path: &RecordPath, data: Option<(&[u8], i64)>) -> Option<Stored<T>> {
        let (bytes, version) = data?;
        match serde_json::from_slice(bytes) {
            Ok(value) => Some(Stored { value, version }),
            Err(error) => {
                self.broken.insert(path.clone(), error.to_string());
                None
            }
        }
    }

    fn put_node(&mut self, path: &RecordPath, name: NodeName, record: Option<Stored<NodeRecord>>) {
        let Some(record) = record else {
            self.nodes.remove(&name);
            self.early.remove(path);
            return;
        };
        match self.nodes.get_mut(&name) {
            Some(node) => Arc::make_mut(node).record = record,
            None => {
                let early = self.early.remove(path).unwrap_or_default();
                let node = NodeView { record, status: early.node_status, session: early.session };
                self.nodes.insert(name, Arc::new(node));
            }
        }
    }

    fn put_vm(&mut self, path: &RecordPath, uuid: Uuid, record: Option<Stored<VmRecord>>) {
        if let Some(old) = self.vms.get(&uuid)
            && self.names.get(&old.record.value.name) == Some(&uuid)
        {
            self.names.remove(&old.record.value.name);
        }
        let Some(record) = record else {
            self.vms.remove(&uuid);
            self.early.remove(path);
            return;
        };
        self.names.insert(record.value.name.clone(), uuid);
        match self.vms.get_mut(&uuid) {
            Some(vm) => {
                let vm = Arc::make_mut(vm);
                if vm.record.value.xml != record.value.xml {
                    vm.demand = domain::demand(&record.value.xml);
                    vm.devices = Arc::new(Devices::read(&record.value.xml));
                }
                vm.record = record;
            }
            None => {
                let early = self.early.remove(path).unwrap_or_default();
                let demand = domain::demand(&record.value.xml);
                let devices = Arc::new(Devices::read(&record.value.xml));
                let (claim, status, arrival) = (early.claim, early.vm_status, early.arrival);
                let vm = VmView { record, claim, status, arrival, demand, devices };
                self.vms.insert(uuid, Arc::new(vm));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        path::layout,
        vm::{Generation, VM_SCHEMA, VmState},
    };

    fn record(name: &str) -> VmRecord {
        VmRecord {
            schema: VM_SCHEMA,
            uuid: Uuid::from_u128(1),
            name: VmName::new(name).unwrap(),
            state: VmState::Stop,
            node: None,
            last_node: None,
            xml: "<domain><memory>1024</memory><vcpu>1</vcpu></domain>".to_owned(),
            generation: Generation(1),
            description: String::new(),
            profile: String::new(),
            meta: Default::default(),
        }
    }

    #[test]
    fn records_may_come_in_any_order_and_go() {
        let uuid = Uuid::from_u128(1);
        let claim = serde_json::to_vec(&Claim::never()).unwrap();
        let (a, b) = (serde_json::to_vec(&record("a")).unwrap(), serde_json::to_vec(&record("b")).unwrap());
        let mut view = ClusterView::default();
        view.apply(&layout::vm_claim(&uuid), Some((&claim, 4)));
        assert!(view.vms.is_empty());
        view.apply(&layout::vm(&uuid), Some((&a, 7)));
        let vm = view.vm("a").unwrap();
        assert_eq!((vm.record.version, vm.claim.as_ref().unwrap().version, vm.demand.vcpus), (7, 4, 1));
        assert_eq!(view.vm(&uuid.to_string()).unwrap().record.value.name.as_str(), "a");

        view.apply(&layout::vm(&uuid), Some((&b, 8)));
        assert!(view.vm("a").is_none() && view.vm("b").is_some(), "a rename frees the old name");
        view.apply(&layout::vm_claim(&uuid), None);
        view.apply(&layout::vm(&uuid), None);
        assert!(view.vms.is_empty() && view.names.is_empty());
    }

    #[test]
    fn what_cannot_be_decoded_is_shown_until_it_can() {
        let path = layout::vm(&Uuid::from_u128(1));
        let mut view = ClusterView::default();
        view.apply(&path, Some((b"{", 1)));
        assert!(view.broken.contains_key(&path));
        view.apply(&path, Some((&serde_json::to_vec(&record("a")).unwrap(), 2)));
        assert!(view.broken.is_empty() && view.vms.len() == 1);
    }
}
