//! The history of the cluster, as an administrator reads it.

use crate::{
    proof::with_bmcs,
    support::{Cluster, Guest},
};
use drover_lab::{Domain, Service};
use serde_json::Value;

/// The kinds of the events, in order.
fn kinds(shown: &Value) -> Vec<&str> {
    shown["events"].as_array().unwrap().iter().filter_map(|event| event["kind"].as_str()).collect()
}

/// Where this happens for the first time.
fn first(kinds: &[&str], kind: &str) -> usize {
    kinds.iter().position(|is| *is == kind).unwrap_or_else(|| panic!("{kind} is missing: {kinds:?}"))
}

/// From the power cord to the guest on another node, with the evidence; and after the daemons were restarted too.
#[test]
fn the_loss_of_a_node_is_a_readable_story() {
    let cluster = with_bmcs();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let before = cluster.json("hv2", &["cluster", "events"]);
    assert_eq!(before["unanswered"], serde_json::json!({}), "all nodes answer: {before}");
    let asked = |event: &&Value| event["vm"] == "web" && event["kind"] == "request";
    let asked = before["events"].as_array().unwrap().iter().find(asked).unwrap();
    assert_eq!(asked["by"], format!("node-{}", asked["node"].as_str().unwrap()), "by that node's own token: {asked}");

    let hv3 = cluster.node("hv3");
    hv3.power_off().unwrap();
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", |vm| vm["run_state"] == "running" && vm["node"] != "hv3");
    let there = vm["node"].as_str().unwrap().to_owned();
    web.wait_rebooted_on(&there);
    cluster.fence_until("hv1", "hv3", "recovered");

    let told = cluster.json("hv2", &["cluster", "events", "--limit", "200"]);
    assert!(told["unanswered"]["hv3"].is_string(), "it says whose events are missing: {told}");
    let all = kinds(&told);
    let story = ["node-silent", "fence-proved", "fence-recovering", "recovery", "fence-recovered"];
    let places: Vec<usize> = story.iter().map(|kind| first(&all, kind)).collect();
    assert!(places.is_sorted(), "in this order: {all:?}");
    assert_eq!(all.iter().filter(|kind| **kind == "node-silent").count(), 1, "one node tells it: {all:?}");
    let text = cluster.drover("hv2", &["cluster", "events", "--limit", "200"]);
    let proved = format!("Node hv3 is proved to be off. (IPMI {} reads off", hv3.bmc_address());
    for line in ["Node hv3 is silent.", &proved, &format!("VM web was started on {there}.")] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.contains(&format!("VM web of node hv3, which is off, is given to {there}")), "{text}");

    // A daemon that is killed has lost nothing of it.
    let told = cluster.json("hv1", &["cluster", "events", "--node", "hv3", "--limit", "200"]);
    cluster.node("hv1").kill(Service::Drover).unwrap();
    cluster.node("hv1").start_drover().unwrap();
    cluster.daemon_until("hv2", "hv1", "run");
    let again =
        cluster.json_until("hv2", &["cluster", "events", "--node", "hv3", "--limit", "200"], "hv1 answers", |it| {
            it["unanswered"]["hv1"].is_null() && it["events"].is_array()
        });
    let events = |shown: &Value| shown["events"].as_array().unwrap().clone();
    assert!(events(&again).starts_with(&events(&told)), "{told}\n{again}");
}

/// What one command began is found by its id, in the events and the log of every node that did a part of it.
#[test]
fn a_flush_is_one_operation_on_all_nodes() {
    let cluster = Cluster::up(2);
    let mut guests = ["one", "two"].map(|name| Guest::up(&cluster, "hv1", &Domain::new(name), &[]));
    let flushed = cluster.try_drover("hv2", &["node", "flush", "hv1", "--wait"]);
    let id = flushed.err.lines().find_map(|line| line.strip_prefix("Operation "));
    let id = id.filter(|_| flushed.code == 0).unwrap_or_else(|| panic!("{flushed:?}"));
    for guest in &mut guests {
        guest.wait_alive_on("hv2");
    }
    let query = ["cluster", "events", "--operation", id];
    let all_of = |told: &Value, node: &str, kind: &str| {
        let is = |event: &&Value| event["node"] == node && event["kind"] == kind;
        told["events"].as_array().map_or(0, |events| events.iter().filter(is).count())
    };
    // The daemon on hv2 tells that they execute a moment after they do.
    let told =
        cluster.json_until("hv2", &query, "both guests are resumed", |told| all_of(told, "hv2", "guest-resumed") == 2);
    let parts = [("planned", 2), ("vm-moved", 2), ("node-state", 1)];
    for (kind, times) in parts {
        assert_eq!(all_of(&told, "hv1", kind), times, "{kind}: {told}");
    }
    assert_eq!(kinds(&told).iter().filter(|kind| **kind == "request").count(), 1, "{told}");
    assert!(told["events"].as_array().unwrap().iter().all(|event| event["operation"] == id), "{told}");
    for (node, what) in [("hv1", "handed a VM over"), ("hv2", "a VM executes again after its migration")] {
        let log = cluster.drover(node, &["node", "log", node, "--lines", "2000"]);
        let said = log.lines().filter(|line| line.contains(&format!("op={id}")) && line.contains(what)).count();
        assert_eq!(said, 2, "{node}: {log}");
    }
}
