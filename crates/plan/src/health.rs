//! How well the cluster is, and what it lacks: one place for every deduction.

use drover_model::{
    ClusterView, DaemonState, NodeView,
    wire::{Health, HealthMessage},
};

/// What a node costs whose daemon is silent, in percent.
const DEAD_NODE: u8 = 50;
/// What a node costs whose hypervisor cannot be used, in percent.
const NO_HYPERVISOR: u8 = 50;
/// What a node costs a part of whose daemon failed lately, in percent.
const FAILED_DUTY: u8 = 10;
/// What a record costs that cannot be read, in percent.
const BROKEN_RECORD: u8 = 10;

fn sum(messages: Vec<HealthMessage>) -> Health {
    let lost: u32 = messages.iter().map(|m| u32::from(m.health_delta)).sum();
    Health { health: u8::try_from(100u32.saturating_sub(lost)).unwrap_or(0), messages }
}

fn message(id: String, health_delta: u8, text: String) -> HealthMessage {
    HealthMessage { id, health_delta, text }
}

/// One node. A daemon that was stopped on purpose costs nothing.
pub fn node(node: &NodeView) -> Health {
    let name = &node.record.value.name;
    let mut messages = Vec::new();
    match node.daemon_state() {
        DaemonState::Dead => {
            let text = format!("node {name} is silent: its daemon, its machine or its network is down");
            messages.push(message(format!("node-dead-{name}"), DEAD_NODE, text));
        }
        DaemonState::Run => {
            for duty in node.status.iter().flat_map(|status| &status.duties) {
                let text = format!(
                    "a part of the daemon of node {name} ({}) failed {} times in the last hour: {}. See its log, and report the defect",
                    duty.name, duty.failures, duty.why
                );
                messages.push(message(format!("duty-{name}-{}", duty.name), FAILED_DUTY, text));
            }
            if let Some(problem) = node.status.as_ref().map(|s| &s.hypervisor_problem).filter(|p| !p.is_empty()) {
                let text = format!("node {name} cannot use its hypervisor: {problem}");
                messages.push(message(format!("hypervisor-{name}"), NO_HYPERVISOR, text));
            }
        }
        DaemonState::Init | DaemonState::Shutdown | DaemonState::Stop => {}
    }
    sum(messages)
}

/// The whole cluster: its nodes, its faults that nobody has acknowledged, and records that cannot be read.
pub fn cluster(view: &ClusterView) -> Health {
    let mut messages: Vec<HealthMessage> = view.nodes.values().flat_map(|n| node(n).messages).collect();
    for fault in view.faults().values() {
        let delta = if fault.acknowledged_at.is_some() { 0 } else { fault.health_delta };
        messages.push(message(fault.id.clone(), delta, fault.message.clone()));
    }
    for (path, why) in view.broken.iter() {
        messages.push(message(format!("record-{path}"), BROKEN_RECORD, format!("record {path} is {why}")));
    }
    sum(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{ClusterConfig, Fault, Only, RecordKind, Version, WallTime, cluster::CLUSTER_SCHEMA};

    fn put(view: &mut ClusterView, fault: &Fault) {
        view.apply(&Fault::path(&fault.id), Some((&serde_json::to_vec(fault).unwrap(), Version(0))));
    }

    #[test]
    fn faults_cost_until_somebody_knows_of_them() {
        let mut view = ClusterView::default();
        assert_eq!(cluster(&view).health, 100);
        let mut fault = Fault {
            schema: CLUSTER_SCHEMA,
            id: "f".to_owned(),
            message: "m".to_owned(),
            health_delta: 25,
            first_reported: WallTime(1),
            last_reported: WallTime(1),
            acknowledged_at: None,
        };
        put(&mut view, &fault);
        view.apply(&ClusterConfig::path(&Only), Some((b"x", Version(0))));
        assert_eq!(cluster(&view).health, 65);
        fault.acknowledged_at = Some(WallTime(2));
        put(&mut view, &fault);
        assert_eq!((cluster(&view).health, cluster(&view).messages.len()), (90, 2));
    }
}
