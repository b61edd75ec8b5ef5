//! Nodes that are fenced by themselves: their BMCs prove that they are off, or cut their power; and nodes that are not.

use crate::support::{Cluster, Guest, grants};
use drover_lab::{BmcKind, Cut, Domain, Net, Node, Service};
use serde_json::json;
use std::time::Instant;

/// A cluster of three nodes with BMCs for IPMI.
pub(crate) fn with_bmcs() -> Cluster {
    with_bmcs_of(|_| BmcKind::Ipmi)
}

/// A cluster of three nodes with BMCs.
pub(crate) fn with_bmcs_of(kind: impl Fn(&Node<'_>) -> BmcKind) -> Cluster {
    nodes_with_bmcs(3, kind)
}

/// A cluster of nodes with BMCs.
fn nodes_with_bmcs(nodes: usize, kind: impl Fn(&Node<'_>) -> BmcKind) -> Cluster {
    let cluster = Cluster::up(nodes);
    cluster.lab.give_bmcs(kind).unwrap();
    cluster.wait_healthy();
    for node in cluster.lab.nodes() {
        let good = |info: &serde_json::Value| info["bmc"]["checked"].as_u64() > Some(0) && info["bmc"]["problem"] == "";
        cluster.node_until("hv1", node.name(), "its BMC answers", good);
    }
    // Whoever leads now fences the others.
    cluster.drover("hv1", &["node", "primary", "hv1", "--wait"]);
    cluster
}

/// The lines of a node's log about fences, with their times.
fn time_line(cluster: &Cluster, node: &str) -> String {
    let log = cluster.node(node).drover_log(400);
    let about = ["a node is dead", "suspected", "proof", "proved", "power", "is off", "was given away"];
    let lines = log.lines().filter(|line| line.contains("hv3") && about.iter().any(|words| line.contains(words)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Nobody does anything but pull the plug.
#[test]
fn vms_of_a_node_that_lost_its_power_run_elsewhere_by_themselves() {
    let cluster = with_bmcs();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    let cut = Instant::now();
    hv3.power_off().unwrap();
    cluster.fence_until("hv1", "hv3", "recovered");
    println!("power cut to all given away: {:?}", cut.elapsed());
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", |vm| vm["run_state"] == "running" && vm["node"] != "hv3");
    println!("power cut to running: {:?}\n{}", cut.elapsed(), time_line(&cluster, "hv1"));
    let there = vm["node"].as_str().unwrap().to_owned();
    web.wait_rebooted_on(&there);
    println!("power cut to a heartbeat of the guest: {:?}", cut.elapsed());
    let fence = cluster.json("hv2", &["node", "fence", "hv3"]);
    let proof = format!("IPMI {} reads off", hv3.bmc_address());
    assert_eq!((&fence["proof"][0]["kind"], &fence["proof"][0]["what"]), (&"power".into(), &proof.into()), "{fence}");
    assert_eq!(fence["off_ordered"], false, "{fence}");
    cluster.named_fault_until("hv1", "node-dead-hv3", Some("reads off"));

    hv3.power_on().unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.fence_until("hv1", "hv3", "over");
    web.wait_alive_on(&there);
}

/// Two of five at the same moment. The three that are left are still the majority of the store's servers.
#[test]
fn vms_of_two_nodes_that_lost_their_power_at_once_run_elsewhere_once_each() {
    let cluster = nodes_with_bmcs(5, |_| BmcKind::Ipmi);
    cluster.drover("hv1", &["config", "set", "--tolerate", "2"]);
    let mut lost: Vec<Guest<'_>> = [("web", "hv4"), ("db", "hv4"), ("mail", "hv5"), ("cache", "hv5")]
        .map(|(name, node)| Guest::up(&cluster, node, &Domain::new(name), &[]))
        .into();
    let mut other = Guest::up(&cluster, "hv2", &Domain::new("other"), &[]);
    let worst = &cluster.json("hv3", &["cluster", "plan"])["together"];
    assert_eq!((&worst["planned"], &worst["all"], &worst["short"]), (&10.into(), &10.into(), &json!([])), "{worst}");

    let nodes = ["hv4", "hv5"];
    std::thread::scope(|scope| {
        for node in nodes {
            scope.spawn(|| cluster.node(node).power_off().unwrap());
        }
    });
    for node in nodes {
        cluster.fence_until("hv1", node, "recovered");
        let fence = cluster.json("hv2", &["node", "fence", node]);
        let proof = format!("IPMI {} reads off", cluster.node(node).bmc_address());
        assert_eq!(
            (&fence["proof"][0]["kind"], &fence["proof"][0]["what"]),
            (&json!("power"), &json!(proof)),
            "{fence}"
        );
        assert_eq!(fence["off_ordered"], false, "{fence}");
        cluster.named_fault_until("hv1", &format!("node-dead-{node}"), Some("reads off"));
    }
    let mut there = Vec::new();
    for guest in &mut lost {
        let runs =
            |vm: &serde_json::Value| vm["run_state"] == "running" && !nodes.iter().any(|node| vm["node"] == *node);
        let vm = cluster.vm_until("hv3", &guest.name, "runs elsewhere", runs);
        let node = vm["node"].as_str().unwrap().to_owned();
        guest.wait_rebooted_on(&node);
        guest.wait_only_on(&[&node]);
        there.push((node, grants(&vm)));
    }
    other.wait_alive_on("hv2");
    assert_eq!(grants(&cluster.vm("hv1", "other")), 1);
    let told = cluster.json("hv1", &["cluster", "events"]).to_string();
    for (guest, (node, _)) in lost.iter().zip(&there) {
        let given = format!("VM {} of node ", guest.name);
        assert_eq!(told.matches(&given).count(), 1, "{} was given away once: {told}", guest.name);
        assert!(told.contains(&format!("which is off, is given to {node}")), "{told}");
    }

    for node in nodes {
        cluster.node(node).power_on().unwrap();
    }
    for node in nodes {
        cluster.daemon_until("hv1", node, "run");
        cluster.fence_until("hv1", node, "over");
    }
    for (guest, (node, granted)) in lost.iter_mut().zip(&there) {
        guest.wait_alive_on(node);
        assert_eq!(grants(&cluster.vm("hv1", &guest.name)), *granted, "nobody has had it since");
    }
}

/// It cannot be told from one that runs.
#[test]
fn a_bmc_that_died_with_its_node_proves_nothing_and_an_administrator_does() {
    let cluster = with_bmcs();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    hv3.stop_bmc().unwrap();
    hv3.power_off().unwrap();
    cluster.fence_until("hv1", "hv3", "unproved");
    cluster.named_fault_until(
        "hv2",
        "node-dead-hv3",
        Some("a BMC that lost its power with its machine proves nothing"),
    );
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
    let asked = cluster.try_drover("hv1", &["node", "fence", "hv3", "--confirm-off"]);
    assert!(asked.code != 0 && asked.err.contains("proves nothing"), "it says what was found: {asked:?}");
    let confirmed = Instant::now();
    cluster.drover("hv1", &["node", "fence", "hv3", "--confirm-off", "--yes", "--wait"]);
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", |vm| vm["run_state"] == "running" && vm["node"] != "hv3");
    println!("confirmed to running: {:?}", confirmed.elapsed());
    web.wait_rebooted_on(vm["node"].as_str().unwrap());
}

/// Its machine answers, so its power stays.
#[test]
fn a_daemon_that_is_down_costs_its_guests_nothing_however_long_it_lasts() {
    let cluster = with_bmcs();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    hv3.kill(Service::Drover).unwrap();
    hv3.start_drover().unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    web.wait_alive_on("hv3");

    hv3.kill(Service::Drover).unwrap();
    cluster.fence_until("hv1", "hv3", "unproved");
    cluster.named_fault_until("hv1", "node-dead-hv3", Some("its machine answers at 10.0.0.3:7370"));
    // It is asked again and again.
    let attempts = || cluster.node("hv1").drover_log(2000).matches("a silent node was asked").count();
    let before = attempts();
    cluster.until("two further attempts", || (attempts() >= before + 2).then_some(()));
    assert_eq!(hv3.bmc("status").unwrap(), "Chassis Power is on");
    assert_eq!(cluster.json("hv1", &["node", "fence", "hv3"])["off_ordered"], false);
    web.wait_alive_on("hv3");
    hv3.start_drover().unwrap();
    cluster.fence_until("hv1", "hv3", "");
    web.wait_alive_on("hv3");
    assert_eq!(grants(&cluster.vm("hv1", "web")), 1);
}

/// Its kernel answers, so nothing proves that it is off, and it goes on where it was.
#[test]
fn a_node_that_freezes_and_thaws_has_its_guests_and_nobody_else_has_them() {
    let cluster = with_bmcs();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    cluster.freeze("hv3", true);
    cluster.fence_until("hv1", "hv3", "unproved");
    cluster.named_fault_until("hv1", "node-dead-hv3", Some("its machine answers at 10.0.0.3:7370"));
    let (elsewhere, vm) = (["hv1", "hv2"].map(|node| cluster.running(node)), cluster.vm("hv1", "web"));
    assert_eq!((elsewhere, &vm["node"]), ([vec![], vec![]], &json!("hv3")), "{}", cluster.logs());
    cluster.freeze("hv3", false);
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.fence_until("hv1", "hv3", "");
    web.wait_alive_on("hv3");
    assert_eq!(grants(&cluster.vm("hv1", "web")), 1);
}

/// It runs its guests, and nobody can ask it. Its power is cut before they start elsewhere.
#[test]
fn a_node_that_is_cut_off_loses_its_power_before_its_vms_run_elsewhere() {
    let cluster = with_bmcs();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    let cut = Instant::now();
    cluster.lab.cut("hv3", Net::Cluster, Cut::Silent).unwrap();
    let given = |vm: &serde_json::Value| vm["node"] != "hv3";
    let vm = cluster.vm_until("hv1", "web", "is given away", given);
    assert!(!hv3.is_on(), "it is given away before hv3 is off: {vm}\n{}", cluster.logs());
    let running = |vm: &serde_json::Value| vm["run_state"] == "running" && vm["node"] != "hv3";
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", running);
    println!("cut off to running: {:?}\n{}", cut.elapsed(), time_line(&cluster, "hv1"));
    web.wait_rebooted_on(vm["node"].as_str().unwrap());
    let fence = cluster.json("hv2", &["node", "fence", "hv3"]);
    let what = fence["proof"][0]["what"].as_str().unwrap();
    assert!(what.ends_with("reads off, after it was ordered to cut the power"), "{fence}");
    assert_eq!(fence["off_ordered"], true, "{fence}");
    assert!(cluster.drover("hv2", &["node", "fence", "hv3"]).contains("reads off, after it was ordered"));
}

/// Its power was cut, and nobody has to drive to it.
#[test]
fn a_node_whose_power_was_cut_is_switched_on_again_and_takes_no_vms() {
    let cluster = with_bmcs();
    cluster.drover("hv1", &["config", "set", "--power-on", "true"]);
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    cluster.lab.cut("hv3", Net::Cluster, Cut::Silent).unwrap();
    let running = |vm: &serde_json::Value| vm["run_state"] == "running" && vm["node"] != "hv3";
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", running);
    cluster.until("the order is on record", || {
        (cluster.json("hv2", &["node", "fence", "hv3"])["on_ordered"] == true).then_some(())
    });
    cluster.until("hv3 is switched on again", || hv3.is_on().then_some(()));
    cluster.lab.heal("hv3", Net::Cluster).unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.fence_until("hv1", "hv3", "over");
    web.wait_rebooted_on(vm["node"].as_str().unwrap());
    assert_eq!(cluster.json("hv1", &["node", "info", "hv3"])["domain_state"], "flushed");
}

/// What has come at its target is no guest.
#[test]
fn a_guest_that_was_on_its_way_when_its_node_died_is_started_anew() {
    let cluster = with_bmcs();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    web.throttle("hv3");
    cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2"]);
    web.wait_sending("hv1");
    cluster.node("hv3").power_off().unwrap();
    let running = |vm: &serde_json::Value| vm["run_state"] == "running" && vm["claim"]["node"] == "hv2";
    cluster.vm_until("hv1", "web", "runs on its target", running);
    web.wait_rebooted_on("hv2");
}
