//! The cluster as a whole.

use crate::{
    answer::{self, Answer},
    endpoint::Call,
};
use axum::{http::StatusCode, response::IntoResponse};
use drover_agent::ConfigChange;
use drover_model::{
    ClusterView, CoordinatorState, DaemonState,
    wire::{Config, FaultInfo, Resource, Resources, StateOf, Status, VERSION},
};
use drover_plan::{
    capacity::{Ledger, Usage},
    health,
};
use std::collections::BTreeMap;

pub(crate) async fn root(_call: Call) -> Answer {
    answer::message(format!("Drover API version 1, Drover {VERSION}"))
}

/// The floating address on the upstream network, by the primary's own word.
fn upstream(view: &ClusterView) -> Option<String> {
    let status = view.nodes.get(view.primary_node()?)?.status.as_ref()?;
    status.floating.iter().find(|(network, _)| network == "upstream").map(|(_, address)| address.clone())
}

pub(crate) async fn primary_node(call: Call) -> Answer {
    match call.state.node.view().primary_node() {
        Some(name) => {
            answer::json(&StateOf { name: name.to_string(), state: CoordinatorState::Primary.word().to_owned() })
        }
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

pub(crate) async fn faults(call: Call) -> Answer {
    let view = call.state.node.view();
    answer::json(&view.faults().values().map(|fault| FaultInfo::from(&fault.value)).collect::<Vec<_>>())
}

pub(crate) async fn config(call: Call) -> Answer {
    answer::json(&Config::from(&call.state.node.view().config))
}

pub(crate) async fn set_config(call: Call) -> Answer {
    let args = &call.args;
    let change = ConfigChange {
        selector: args.parsed("selector")?,
        moves_per_source: args.number("moves_per_source"),
        moves_per_target: args.number("moves_per_target"),
        moves: args.number("moves"),
        stall: args.parsed("stall")?,
        migration_deadline_s: args.number("migration_deadline"),
    };
    answer::json(&Config::from(&call.state.node.commands().set_config(&change).await?))
}

pub(crate) async fn status(call: Call) -> Answer {
    let view = call.state.node.view();
    let ledger = Ledger::of(&view);
    let mut nodes = BTreeMap::from([("total".to_owned(), view.nodes.len())]);
    let mut vms = BTreeMap::from([("total".to_owned(), view.vms.len())]);
    let mut resources = Resources::default();
    for (name, node) in &view.nodes {
        let states = format!("{},{}", node.daemon_state(), node.record.value.domain_state);
        *nodes.entry(states).or_default() += 1;
        if let Some(status) = node.status.as_ref().filter(|_| node.daemon_state() == DaemonState::Run) {
            let Usage { allocated, provisioned, .. } = ledger.usage(name);
            let memory = &mut resources.memory;
            let mib = |bytes: drover_model::Bytes| bytes.as_mib() as f64;
            memory.total += mib(status.memory_total);
            memory.free += mib(status.memory_free);
            memory.allocated += mib(allocated.memory);
            memory.provisioned += mib(provisioned.memory);
            resources.cpu.total += f64::from(status.cpus);
            resources.cpu.load += f64::from(status.load);
            resources.cpu.allocated += f64::from(allocated.vcpus);
        }
    }
    finish(&mut resources.memory);
    resources.cpu.utilization = percent(resources.cpu.load, resources.cpu.total);
    for vm in view.vms.values() {
        *vms.entry(vm.record.value.state.word().to_owned()).or_default() += 1;
    }
    answer::json(&Status {
        cluster_name: view.config.cluster_name.clone(),
        cluster_health: health::cluster(&view),
        node_health: view.nodes.iter().map(|(name, node)| (name.to_string(), health::node(node))).collect(),
        maintenance: view.config.maintenance.to_string(),
        primary_node: view.primary_node().map(ToString::to_string).unwrap_or_default(),
        upstream_ip: upstream(&view).unwrap_or_default(),
        pvc_version: VERSION.to_owned(),
        nodes,
        vms,
        osds: BTreeMap::from([("total".to_owned(), 0)]),
        resources,
        stale: call.state.node.is_current().err().unwrap_or_default(),
        ..Status::default()
    })
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (1000.0 * part / whole).round() / 10.0 } else { 0.0 }
}

fn finish(memory: &mut Resource) {
    memory.used = memory.total - memory.free;
    memory.utilization = percent(memory.used, memory.total);
}
