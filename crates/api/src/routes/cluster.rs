//! The cluster as a whole.

use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
};
use axum::{http::StatusCode, response::IntoResponse};
use drover_agent::{ConfigChange, Maintenance};
use drover_model::{
    ClusterView, CoordinatorState, DaemonState, WallTime,
    wire::{self, Config, FaultInfo, FaultKey, PrimaryNode, Resource, Resources, Status, VERSION},
};
use drover_plan::{
    capacity::{Ledger, Usage},
    health,
};
use std::{collections::BTreeMap, time::Duration};

pub(crate) async fn root(call: Call) -> Answer {
    let message = format!("Drover API version 1, Drover {VERSION}");
    answer::json(&wire::Root { message, node: call.state.node.me().to_string() })
}

/// The floating address on the upstream network, by the primary's own word.
fn upstream(view: &ClusterView) -> Option<String> {
    let status = view.nodes.get(view.primary_node()?)?.status.as_ref()?;
    status.floating.iter().find(|(network, _)| network == "upstream").map(|(_, address)| address.clone())
}

pub(crate) async fn primary_node(call: Call) -> Answer {
    match call.state.node.view().primary_node() {
        Some(name) => {
            let (name, state) = (name.to_string(), CoordinatorState::Primary.word().to_owned());
            answer::json(&PrimaryNode { primary_node: name.clone(), name, state })
        }
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

pub(crate) async fn faults(call: Call) -> Answer {
    let view = call.state.node.view();
    let mut faults: Vec<FaultInfo> = view.faults().values().map(|fault| FaultInfo::from(&fault.value)).collect();
    if let Some(key) = call.args.parsed::<FaultKey>("sort_key")? {
        key.sort(&mut faults);
    }
    answer::json(&faults)
}

pub(crate) async fn config(call: Call) -> Answer {
    answer::json(&Config::of(&call.state.node.view().config, call.state.node.wall()))
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
        maintenance: None,
    };
    let config = call.state.node.commands().set_config(&change).await?;
    answer::json(&Config::of(&config, call.state.node.wall()))
}

pub(crate) async fn set_maintenance(call: Call) -> Answer {
    let (args, now) = (&call.args, call.state.node.wall());
    let until = args.number("until").map(WallTime);
    let lasts = args.number("duration").map(|seconds| now.after(Duration::from_secs(seconds)));
    let order = match (args.flag("state"), until, lasts) {
        (true, Some(until), Some(_)) => {
            return Err(ApiError::parameter("until", &until.0.to_string(), "none beside duration"));
        }
        (true, until, lasts) => Maintenance::On(until.or(lasts)),
        (false, Some(until), _) => {
            return Err(ApiError::parameter("until", &until.0.to_string(), "none with state=false"));
        }
        (false, None, Some(_)) => {
            return Err(ApiError::parameter("duration", args.required("duration"), "none with state=false"));
        }
        (false, None, None) => Maintenance::Off,
    };
    let change = ConfigChange { maintenance: Some(order), ..ConfigChange::default() };
    let config = Config::of(&call.state.node.commands().set_config(&change).await?, now);
    let message = match (config.maintenance, config.maintenance_until) {
        (false, _) => "The cluster is not in maintenance.".to_owned(),
        (true, None) => "The cluster is in maintenance until somebody ends it.".to_owned(),
        (true, Some(until)) => format!("The cluster is in maintenance until {}.", WallTime(until)),
    };
    let Config { maintenance, maintenance_until, .. } = config;
    answer::json(&wire::Maintenance { message, maintenance, maintenance_until })
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
    let config = Config::of(&view.config, call.state.node.wall());
    answer::json(&Status {
        cluster_name: view.config.cluster_name.clone(),
        cluster_health: health::cluster(&view),
        node_health: view.nodes.iter().map(|(name, node)| (name.to_string(), health::node(node))).collect(),
        maintenance: config.maintenance.to_string(),
        maintenance_until: config.maintenance_until,
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
