//! Nodes whose machines are off for good, or seem to be.

use crate::support::{Cluster, Guest, TIMEOUT, grants};
use drover_lab::{Domain, Lab, Service};
use std::time::Instant;

impl Cluster {
    /// Waits until a node's fence, as shown by the node `at`, is in a phase; empty: there is none.
    pub(crate) fn fence_until(&self, at: &str, node: &str, phase: &str) {
        let look = || self.try_drover(at, &["-f", "json", "node", "fence", node]).out;
        let is =
            |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok_and(|fence| fence["phase"] == phase);
        Lab::until(&format!("the fence of {node} is {phase:?}"), TIMEOUT, || is(&look()).then_some(()))
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", look(), self.logs()));
    }

    /// Waits until there is a fault with this id and text, or, without a text, none.
    pub(crate) fn named_fault_until(&self, at: &str, id: &str, text: Option<&str>) {
        let look = || self.json(at, &["fault", "list"]);
        let check = || {
            let faults = look();
            let found = faults.as_array()?.iter().find(|fault| fault["id"] == id).map(|fault| fault["message"].clone());
            match (found, text) {
                (Some(message), Some(text)) => message.as_str()?.contains(text).then_some(()),
                (None, None) => Some(()),
                _ => None,
            }
        };
        Lab::until(&format!("fault {id} with {text:?}"), TIMEOUT, check)
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", look(), self.logs()));
    }
}

/// The daemon is killed, and then the machine loses its power. Only the latter, once it is confirmed, moves anything.
#[test]
fn vms_of_a_node_that_is_confirmed_to_be_off_run_elsewhere_and_it_comes_back_without_them() {
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    cluster.define("hv1", &Domain::new("bound"), &["--node", "hv3", "--limit", "hv3", "--start", "--wait"]);
    cluster.define("hv1", &Domain::new("idle"), &["--node", "hv3"]);
    let hv3 = cluster.node("hv3");
    cluster.json_until("hv1", &["cluster", "plan", "hv3"], "one goes on, one is bound", |loss| {
        loss["go_on"] == 1 && loss["bound"] == serde_json::json!(["bound"]) && loss["short"] == serde_json::json!([])
    });

    // A daemon that is away proves nothing, and costs its guests nothing.
    hv3.kill(Service::Drover).unwrap();
    cluster.fence_until("hv1", "hv3", "unproved");
    cluster.named_fault_until("hv2", "node-dead-hv3", Some("not proved that its machine is off"));
    web.wait_alive_on("hv3");
    hv3.start_drover().unwrap();
    cluster.fence_until("hv1", "hv3", "");
    cluster.named_fault_until("hv1", "node-dead-hv3", None);
    assert_eq!(grants(&cluster.vm("hv1", "web")), 1);
    let refused = cluster.try_drover("hv1", &["node", "fence", "hv3", "--confirm-off", "--yes"]);
    assert!(refused.code != 0 && refused.err.contains("its daemon is in state run"), "{refused:?}");

    hv3.power_off().unwrap();
    cluster.fence_until("hv1", "hv3", "unproved");
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
    let asked = cluster.try_drover("hv1", &["node", "fence", "hv3", "--confirm-off"]);
    assert!(asked.code != 0 && asked.err.contains("web: starts"), "it says what happens: {asked:?}");
    assert!(asked.err.contains("bound: waits") && asked.err.contains("its VMs will run twice"), "{asked:?}");
    cluster.fence_until("hv1", "hv3", "unproved");

    let confirmed = Instant::now();
    let done = cluster.try_drover("hv1", &["node", "fence", "hv3", "--confirm-off", "--yes", "--wait"]);
    assert!(done.code == 0 && done.err.contains("bound"), "it names the VM that no node can take: {done:?}");
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", |vm| vm["run_state"] == "running" && vm["node"] != "hv3");
    println!("confirmed to running: {:?}", confirmed.elapsed());
    assert_eq!((&vm["last_node"], &vm["state"]), (&"hv3".into(), &"start".into()), "{vm}");
    let there = vm["node"].as_str().unwrap().to_owned();
    web.wait_rebooted_on(&there);
    cluster.named_fault_until("hv1", "fence-waiting-hv3", Some("bound"));
    cluster.named_fault_until("hv1", "node-dead-hv3", Some("an administrator confirmed"));
    let idle = cluster.vm("hv1", "idle");
    assert_eq!((&idle["node"], &idle["state"]), (&"hv3".into(), &"stop".into()), "{idle}");

    // It starts only what is still its own, and removes what libvirt has kept of the others.
    hv3.power_on().unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.vm_until("hv1", "bound", "runs again", |vm| vm["run_state"] == "running" && vm["node"] == "hv3");
    web.wait_alive_on(&there);
    cluster.node_until("hv1", "hv3", "is flushed", |node| node["domain_state"] == "flushed");
    cluster.fence_until("hv1", "hv3", "over");
    cluster.named_fault_until("hv1", "node-dead-hv3", None);
    cluster.named_fault_until("hv1", "fence-waiting-hv3", None);

    cluster.drover("hv1", &["node", "ready", "hv3", "--wait"]);
    web.wait_alive_on("hv3");
}

/// Its VMs and its name are given back, and a machine that comes back under it does nothing.
#[test]
fn a_node_that_is_gone_for_good_is_removed_and_leaves_its_vms() {
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    cluster.define("hv1", &Domain::new("idle"), &["--node", "hv3"]);
    cluster.node("hv3").power_off().unwrap();
    cluster.daemon_until("hv1", "hv3", "dead");
    let refused = cluster.try_drover("hv1", &["node", "remove", "hv3", "--yes"]);
    assert!(refused.code != 0 && refused.err.contains("web"), "{refused:?}");
    cluster.drover("hv1", &["node", "remove", "hv3", "--confirm-off", "--yes"]);
    let nodes = cluster.json("hv1", &["node", "list"]);
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", |vm| vm["run_state"] == "running");
    assert!(vm["last_node"].as_str().is_none_or(str::is_empty), "its home is not a node that is gone: {vm}");
    let there = vm["node"].as_str().unwrap().to_owned();
    web.wait_rebooted_on(&there);
    let idle = cluster.vm("hv2", "idle");
    assert!(idle["node"] != "hv3" && idle["state"] == "stop", "{idle}");
    cluster.named_fault_until("hv1", "node-dead-hv3", None);
    cluster.drover("hv1", &["vm", "start", "idle", "--wait"]);
}
