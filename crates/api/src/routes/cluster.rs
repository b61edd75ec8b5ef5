//! Endpoints of the cluster as a whole.

use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, delete, field, get, post, put},
};
use axum::{http::StatusCode, response::IntoResponse};
use drover_agent::{ConfigChange, Maintenance};
use drover_model::{
    ClusterView, CoordinatorState, DaemonState, WallTime,
    wire::{
        self, ChangeConfig, Config, FaultInfo, ListFaults, Message, Nothing, PrimaryNode, Resource, Resources,
        SetMaintenance, Status, VERSION,
    },
};
use drover_plan::{
    capacity::{Ledger, Usage},
    health,
};
use std::{collections::BTreeMap, time::Duration};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/", "The version of the API, and the node that answers.", root).answers::<wire::Root>().open(),
        get("/status", "The state of the cluster.", status).answers::<Status>(),
        post("/status", "Switch maintenance on or off.", set_maintenance).answers::<wire::Maintenance>(),
        get("/status/primary_node", "The primary coordinator; 204 when there is none.", primary_node)
            .answers::<PrimaryNode>()
            .open(),
        get("/faults", "Faults: problems that need an administrator's attention.", faults).answers::<Vec<FaultInfo>>(),
        delete("/faults/{fault}", "Delete a fault; it is reported again if its cause is still there.", delete_fault)
            .answers::<Message>(),
        get("/config", "The cluster's configuration.", config).answers::<Config>(),
        put("/config", "Change the configuration; settings that are not given stay as they are.", set_config)
            .answers::<Config>(),
    ]
}

async fn root(call: Call, _: Nothing) -> Answer {
    let message = format!("Drover API version 1, Drover {VERSION}");
    answer::json(&wire::Root { message, node: call.state.node.me().to_string() })
}

/// The floating address on the upstream network, as reported by the primary.
fn upstream(view: &ClusterView) -> Option<String> {
    let status = view.nodes.get(view.primary_node()?)?.status.as_ref()?;
    status.floating.iter().find(|(network, _)| network == "upstream").map(|(_, address)| address.clone())
}

async fn primary_node(call: Call, _: Nothing) -> Answer {
    match call.state.node.view().primary_node() {
        Some(name) => {
            let (name, state) = (name.to_string(), CoordinatorState::Primary.word().to_owned());
            answer::json(&PrimaryNode { primary_node: name.clone(), name, state })
        }
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

async fn delete_fault(call: Call, _: Nothing) -> Answer {
    let id = call.subject.clone();
    call.state.node.commands().delete_fault(&id).await?;
    answer::message(format!("Deleted fault {id}."))
}

async fn faults(call: Call, request: ListFaults) -> Answer {
    let view = call.state.node.view();
    let mut faults: Vec<FaultInfo> = view.faults().values().map(|fault| FaultInfo::from(&fault.value)).collect();
    if let Some(key) = request.sort_key {
        key.sort(&mut faults);
    }
    answer::json(&faults)
}

async fn config(call: Call, _: Nothing) -> Answer {
    answer::json(&Config::of(&call.state.node.view().config, call.state.node.wall()))
}

async fn set_config(call: Call, request: ChangeConfig) -> Answer {
    let change = ConfigChange {
        selector: request.selector,
        moves_per_source: request.moves_per_source,
        moves_per_target: request.moves_per_target,
        moves: request.moves,
        stall: request.stall,
        migration_deadline_s: request.migration_deadline,
        tolerate: request.tolerate,
        after_proof: request.after_proof,
        power_on: request.power_on,
        on_return: request.on_return,
        maintenance: None,
    };
    let config = call.state.node.commands().set_config(&change).await?;
    answer::json(&Config::of(&config, call.state.node.wall()))
}

async fn set_maintenance(call: Call, request: SetMaintenance) -> Answer {
    let SetMaintenance { state, until, duration } = request;
    let now = call.state.node.wall();
    let refused = |field, given: u64, accepted| Err(ApiError::parameter(field, &given.to_string(), accepted));
    let order = match (state, until, duration) {
        (true, Some(until), Some(_)) => return refused(field!(SetMaintenance.until), until, "none beside duration"),
        (true, Some(until), None) => Maintenance::On(Some(WallTime(until))),
        (true, None, Some(seconds)) => Maintenance::On(Some(now.after(Duration::from_secs(seconds)))),
        (true, None, None) => Maintenance::On(None),
        (false, Some(until), _) => return refused(field!(SetMaintenance.until), until, "none with state=false"),
        (false, None, Some(seconds)) => {
            return refused(field!(SetMaintenance.duration), seconds, "none with state=false");
        }
        (false, None, None) => Maintenance::Off,
    };
    let change = ConfigChange { maintenance: Some(order), ..ConfigChange::default() };
    let config = Config::of(&call.state.node.commands().set_config(&change).await?, now);
    let message = match (config.maintenance, config.maintenance_until) {
        (false, _) => "The cluster is not in maintenance.".to_owned(),
        (true, None) => "The cluster is in maintenance until it is switched off.".to_owned(),
        (true, Some(until)) => format!("The cluster is in maintenance until {}.", WallTime(until)),
    };
    let Config { maintenance, maintenance_until, .. } = config;
    answer::json(&wire::Maintenance { message, maintenance, maintenance_until })
}

async fn status(call: Call, _: Nothing) -> Answer {
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
