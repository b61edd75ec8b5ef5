//! Nodes that lose power or whose link is cut.

use crate::support::{Cluster, Guest, grants};
use drover_lab::{Cut, Domain, Net, Service};

/// Nothing proves that a node without a BMC is off: its VM waits for it, and runs nowhere else.
#[test]
fn a_node_without_power_counts_as_dead_and_starts_its_vms_when_it_is_back() {
    let cluster = Cluster::up(3);
    cluster.define("hv1", &Domain::new("web"), &["--node", "hv3", "--start", "--wait"]);
    cluster.node("hv3").power_off().unwrap();
    for at in ["hv1", "hv2"] {
        cluster.daemon_until(at, "hv3", "dead");
    }
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
    let vm = cluster.vm("hv2", "web");
    assert_eq!((&vm["state"], &vm["claim"]["node"]), (&"start".into(), &"hv3".into()), "{vm}");
    // The other nodes keep working.
    cluster.define("hv2", &Domain::new("other"), &["--start", "--wait"]);
    assert_ne!(cluster.node_of("other"), "hv3");
    let result = cluster.try_drover("hv1", &["vm", "log", "web"]);
    assert!(result.code != 0 && result.err.contains("hv3"), "the message names the node: {result:?}");

    cluster.node("hv3").power_on().unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.vm_until("hv1", "web", "runs again", |vm| vm["run_state"] == "running" && grants(vm) == 2);
    // Its node's last word, from before, is that it runs.
    cluster.running_on_until("web", &["hv3"]);
}

/// A node that is cut off from the others keeps its guests: afterwards it is the same guest under the same epoch.
#[test]
fn guests_survive_a_cut_link() {
    for how in [Cut::Silent, Cut::Carrier, Cut::In, Cut::Out] {
        let cluster = Cluster::up(3);
        cluster.define("hv1", &Domain::new("web"), &["--node", "hv3", "--start", "--wait"]);
        let qemu = cluster.qemu("hv3", "web");
        cluster.lab.cut("hv3", Net::Cluster, how).unwrap();
        cluster.daemon_until("hv1", "hv3", "dead");
        assert_eq!(cluster.running("hv3").len(), 1, "{how:?}");
        // The node itself reports that its view may be stale.
        cluster.json_until("hv3", &["status"], "the node reports a stale view", |status| {
            status["stale"].as_str().is_some_and(|stale| !stale.is_empty())
        });
        cluster.lab.heal("hv3", Net::Cluster).unwrap();
        cluster.daemon_until("hv1", "hv3", "run");
        cluster.vm_until("hv2", "web", "runs", |vm| vm["run_state"] == "running" && grants(vm) == 1);
        assert_eq!(cluster.qemu("hv3", "web"), qemu, "{how:?}");
        cluster.drover("hv1", &["vm", "shutdown", "web", "--wait"]);
        assert_eq!(cluster.running_on("web"), Vec::<String>::new(), "{how:?}: its node carries out commands again");
    }
}

/// A machine that was cloned has another one's name and machine id. As long as that one lives, it does nothing.
#[test]
fn a_cloned_machine_touches_nothing_of_the_original() {
    let cluster = Cluster::up(3);
    let mut guest = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    let clone = cluster.node("hv2");
    clone.stop(Service::Drover).unwrap();
    cluster.daemon_until("hv3", "hv2", "stop");
    let id = cluster.node("hv1").exec(&["cat", "/etc/machine-id"]).unwrap();
    let script = format!(
        "sed -i 's/^name = .*/name = \"hv1\"/' /etc/drover/drover.toml && grep -q 'name = \"hv1\"' \
         /etc/drover/drover.toml && echo {} >/etc/machine-id",
        id.trim()
    );
    clone.exec(&["sh", "-c", &script]).unwrap();
    let _starting = clone.launch_drover().unwrap();
    let warned = || Some(clone.drover_log(50)).filter(|log| log.contains("another daemon has the name hv1"));
    let log = cluster.until("the clone notices", warned);
    assert!(!log.contains("is a member of the cluster node=hv1"), "{log}");

    // Orders to the VM are carried out by its node alone.
    guest.wait_alive_on("hv1");
    cluster.drover("hv3", &["vm", "restart", "web", "--wait"]);
    guest.wait_rebooted_on("hv1");
    // The others still find the original under its name.
    cluster.console_until("hv3", "web", "BOOTED");
    cluster.daemon_until("hv3", "hv1", "run");
    clone.kill(Service::Drover).unwrap();
}

/// It does not act, ends, and says how it joins again.
#[test]
fn a_node_that_was_removed_while_it_was_cut_off_ends_and_says_how_it_joins_again() {
    let cluster = Cluster::up(3);
    let gone = cluster.node("hv3");
    cluster.lab.cut("hv3", Net::Cluster, Cut::Silent).unwrap();
    cluster.daemon_until("hv1", "hv3", "dead");
    cluster.drover("hv1", &["node", "remove", "hv3", "--yes"]);
    cluster.lab.heal("hv3", Net::Cluster).unwrap();
    let ended = || gone.pid(Service::Drover).is_none().then_some(());
    cluster.until("the removed node's daemon ends", ended);
    let log = gone.drover_log(20);
    assert!(log.contains("node hv3 was removed from the cluster") && log.contains("--join-again"), "{log}");
    let nodes = cluster.json("hv1", &["node", "list"]);
    assert_eq!(nodes.as_array().map(Vec::len), Some(2), "{nodes}");
    let tokens = cluster.drover("hv1", &["token", "list"]);
    assert!(!tokens.contains("node-hv3"), "{tokens}");
}
