//! Health of the cluster and its problems: the only place for deductions.

use crate::bmc;
use drover_model::{
    ClusterView, DaemonState, NodeName, NodeView,
    wire::{Health, HealthMessage},
};

/// Deduction for a node whose daemon is dead, in percent.
pub(crate) const DEAD_NODE: u8 = 50;
/// Deduction for a node whose hypervisor cannot be used, in percent.
const NO_HYPERVISOR: u8 = 50;
/// Deduction for a node of which a part of the daemon failed lately, in percent.
const FAILED_DUTY: u8 = 10;
/// Deduction for a node whose BMC would not cut its power, and for a coordinator that cannot read BMC data, in percent.
const NO_POWER_CONTROL: u8 = 10;
/// Deduction for a record that cannot be read, in percent.
const BROKEN_RECORD: u8 = 10;

fn sum(messages: Vec<HealthMessage>) -> Health {
    let lost: u32 = messages.iter().map(|m| u32::from(m.health_delta)).sum();
    Health { health: u8::try_from(100u32.saturating_sub(lost)).unwrap_or(0), messages }
}

fn message(id: String, health_delta: u8, text: String) -> HealthMessage {
    HealthMessage { id, health_delta, text }
}

/// Health of one node. No deduction for a daemon that was stopped on purpose.
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
                    "a part of the daemon of node {name} ({}) failed {} times in the last hour: {}. See its log, and \
                     report the defect",
                    duty.name, duty.failures, duty.why
                );
                messages.push(message(format!("duty-{name}-{}", duty.name), FAILED_DUTY, text));
            }
            if let Some(problem) = node.status.as_ref().map(|s| &s.hypervisor_problem).filter(|p| !p.is_empty()) {
                let text = format!("node {name} cannot use its hypervisor: {problem}");
                messages.push(message(format!("hypervisor-{name}"), NO_HYPERVISOR, text));
            }
            if let Some(bmc) = node.status.as_ref().and_then(|s| s.bmc.as_ref()).filter(|bmc| !bmc.problem.is_empty()) {
                let text = format!("the power of node {name} could not be cut if it fell silent: {}", bmc.problem);
                messages.push(message(format!("bmc-{name}"), NO_POWER_CONTROL, text));
            }
            let watchdog = node.status.as_ref().and_then(|s| s.watchdog.as_ref());
            if let Some(watchdog) = watchdog.filter(|watchdog| watchdog.failed) {
                let text = format!("the watchdog of node {name} is not armed: {}", watchdog.why_not);
                messages.push(message(format!("watchdog-{name}"), NO_POWER_CONTROL, text));
            }
        }
        DaemonState::Init | DaemonState::Shutdown | DaemonState::Stop => {}
    }
    sum(messages)
}

/// Health of the cluster: its nodes, its unacknowledged faults, and records that cannot be read.
pub fn cluster(view: &ClusterView) -> Health {
    let of_nodes = view.nodes.values().flat_map(|n| node(n).messages);
    // What there is a fault of, with the same id, counts once.
    let mut messages: Vec<HealthMessage> = of_nodes.filter(|m| !view.faults().contains_key(&m.id)).collect();
    for (name, of) in bmc::unreadable(view) {
        let of: Vec<&str> = of.iter().map(NodeName::as_str).collect();
        let text = format!(
            "coordinator {name} cannot read the BMC data of {}, so it could not prove that they are off: it has \
             another cluster key, or none. Copy the key file of the other nodes to it (fence.key_file), and restart \
             its daemon",
            of.join(", ")
        );
        messages.push(message(format!("cluster-key-{name}"), NO_POWER_CONTROL, text));
    }
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
    use drover_model::{BmcReport, NodeStatus, WatchdogReport, testing};
    use drover_model::{ClusterConfig, Fault, Only, RecordKind, Version, WallTime, cluster::CLUSTER_SCHEMA};

    fn put(view: &mut ClusterView, fault: &Fault) {
        view.apply(&Fault::path(&fault.id), Some((&serde_json::to_vec(fault).unwrap(), Version(0))));
    }

    #[test]
    fn faults_count_until_they_are_acknowledged() {
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

    #[test]
    fn a_bmc_that_would_not_cut_the_power_counts() {
        let with = |problem: &str| {
            let bmc = BmcReport { problem: problem.to_owned(), ..BmcReport::default() };
            let mut of = testing::node("a", 1);
            let status = of.status.as_ref().unwrap().value.clone();
            of.status = Some(testing::kept(NodeStatus { bmc: Some(bmc), ..status }));
            of
        };
        assert_eq!(node(&with("")).health, 100);
        let health = node(&with("IPMI 10.0.0.9 refuses the user or the password"));
        assert_eq!((health.health, health.messages[0].id.as_str()), (90, "bmc-a"));
        assert!(health.messages[0].text.contains("refuses the user or the password"));
    }

    #[test]
    fn a_watchdog_that_does_not_work_counts_and_one_that_is_off_does_not() {
        let with = |failed: bool| {
            let why_not = "it is busy".to_owned();
            let watchdog = WatchdogReport { why_not, failed, ..WatchdogReport::default() };
            let mut of = testing::node("a", 1);
            let status = of.status.as_ref().unwrap().value.clone();
            of.status = Some(testing::kept(NodeStatus { watchdog: Some(watchdog), ..status }));
            of
        };
        assert_eq!(node(&with(false)).health, 100);
        let health = node(&with(true));
        assert_eq!((health.health, health.messages[0].id.as_str()), (90, "watchdog-a"));
        assert!(health.messages[0].text.contains("it is busy"));
    }
}
