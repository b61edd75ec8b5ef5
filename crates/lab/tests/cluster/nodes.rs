//! Nodes that lose power, and links that are cut.

use crate::support::{Cluster, PATIENCE};
use drover_lab::{Cut, Domain, Lab, Net};

/// Nothing fences yet: a VM of a dead node waits for its node, and is not run anywhere else.
#[test]
fn a_node_that_loses_power_counts_as_dead_and_takes_its_vms_up_again() {
    let cluster = Cluster::up(3);
    cluster.define("hv1", &Domain::new("web"), &["--node", "hv3", "--start", "--wait"]);
    cluster.node("hv3").power_off().unwrap();
    cluster.daemon_until("hv1", "hv3", "dead");
    assert_eq!(cluster.runs_on("web"), Vec::<String>::new());
    let vm = cluster.vm("hv2", "web");
    assert_eq!((&vm["state"], &vm["claim"]["node"]), (&"start".into(), &"hv3".into()), "{vm}");
    // Others go on working.
    cluster.define("hv2", &Domain::new("other"), &["--start", "--wait"]);
    assert_ne!(cluster.home("other"), "hv3");
    let said = cluster.say("hv1", &["vm", "log", "web"]);
    assert!(said.code != 0 && said.err.contains("hv3"), "whose console cannot be had is said: {said:?}");

    cluster.node("hv3").power_on().unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.vm_until("hv1", "web", "runs again", |vm| vm["run_state"] == "running" && vm["claim"]["epoch"] == 2);
    assert_eq!(cluster.runs_on("web"), ["hv3"]);
}

/// A node that is cut off from the others keeps its guests; when it is back it is the same guest under the same grant.
#[test]
fn a_cut_link_costs_no_guest() {
    for how in [Cut::Silent, Cut::Carrier, Cut::In, Cut::Out] {
        let cluster = Cluster::up(3);
        cluster.define("hv1", &Domain::new("web"), &["--node", "hv3", "--start", "--wait"]);
        let qemu = cluster.qemu("hv3", "web");
        cluster.lab.cut("hv3", Net::Cluster, how).unwrap();
        cluster.daemon_until("hv1", "hv3", "dead");
        assert_eq!(cluster.running("hv3").len(), 1, "{how:?}");
        // It says itself that what it shows may be old.
        let shown =
            || Some(cluster.json("hv3", &["status"])).filter(|s| s["stale"].as_str().is_some_and(|s| !s.is_empty()));
        Lab::until("it says that its view is old", PATIENCE, shown).unwrap();
        cluster.lab.heal("hv3", Net::Cluster).unwrap();
        cluster.daemon_until("hv1", "hv3", "run");
        cluster.vm_until("hv2", "web", "runs", |vm| vm["run_state"] == "running" && vm["claim"]["epoch"] == 1);
        assert_eq!(cluster.qemu("hv3", "web"), qemu, "{how:?}");
        cluster.drover("hv1", &["vm", "shutdown", "web", "--wait"]);
        assert_eq!(cluster.runs_on("web"), Vec::<String>::new(), "{how:?}: its node hears orders again");
    }
}
