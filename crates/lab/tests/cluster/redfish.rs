//! Nodes whose BMCs speak Redfish over HTTPS, and misbehave.

use crate::{
    proof::with_bmcs_of,
    support::{Cluster, Guest},
};
use drover_lab::{BmcKind, Cut, Domain, Net, Node, Quirk};

/// hv3's BMC is recognised by its certificate, the others' by the authority that signed theirs.
fn with_redfish() -> Cluster {
    with_bmcs_of(|node: &Node<'_>| match node.name() {
        "hv3" => BmcKind::RedfishPinned,
        _ => BmcKind::RedfishSigned,
    })
}

fn wait_problem(cluster: &Cluster, text: &str) {
    let is = |info: &serde_json::Value| info["bmc"]["problem"].as_str().is_some_and(|problem| problem.contains(text));
    cluster.node_until("hv1", "hv3", &format!("the problem of its BMC is {text:?}"), is);
}

/// Its network is gone and its guests run. Only what its BMC reads is believed, whatever that says to orders.
#[test]
fn a_node_with_redfish_that_is_cut_off_runs_its_vms_until_its_power_is_really_off() {
    let cluster = with_redfish();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    assert!(cluster.drover("hv1", &["node", "info", "hv3"]).contains(&format!("https://{}", hv3.bmc_address())));

    // Accepted, and nothing happens.
    hv3.set_quirk(Quirk::Deaf).unwrap();
    cluster.lab.cut("hv3", Net::Cluster, Cut::Silent).unwrap();
    cluster.fence_until("hv1", "hv3", "unproved");
    cluster.named_fault_until("hv2", "node-dead-hv3", Some("reads on"));
    assert_eq!(cluster.json("hv1", &["node", "fence", "hv3"])["off_ordered"], true);
    // "Already off", and it is on.
    hv3.set_quirk(Quirk::Conflict).unwrap();
    cluster.named_fault_until("hv2", "node-dead-hv3", Some("host power is off already"));
    assert_eq!(cluster.vm("hv1", "web")["claim"]["node"], "hv3");
    assert_eq!(cluster.running_on("web"), ["hv3"]);
    // It does its work, slowly.
    hv3.set_quirk(Quirk::Slow(1)).unwrap();
    let vm = cluster.vm_until("hv1", "web", "is given away", |vm| vm["node"] != "hv3");
    assert!(!hv3.is_on(), "it is given away before hv3 is off: {vm}\n{}", cluster.logs());
    let running = |vm: &serde_json::Value| vm["run_state"] == "running" && vm["node"] != "hv3";
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", running);
    web.wait_rebooted_on(vm["node"].as_str().unwrap());
    let fence = cluster.json("hv2", &["node", "fence", "hv3"]);
    let what = fence["proof"][0]["what"].as_str().unwrap();
    assert!(what.contains("Redfish") && what.ends_with("reads off, after it was ordered to cut the power"), "{fence}");
}

/// BMC and machine have one power cable.
#[test]
fn a_redfish_bmc_that_refuses_or_died_with_its_node_proves_nothing() {
    let cluster = with_redfish();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    // Its own node notices while it runs.
    hv3.set_quirk(Quirk::Locked).unwrap();
    restart(&cluster, "hv3");
    wait_problem(&cluster, "refuses the user or the password");
    hv3.set_quirk(Quirk::Dies).unwrap();
    restart(&cluster, "hv3");
    cluster.node_until("hv1", "hv3", "its BMC answers", |info| info["bmc"]["problem"] == "");

    hv3.power_off().unwrap();
    cluster.fence_until("hv1", "hv3", "unproved");
    let why = "a BMC that lost its power with its machine proves nothing";
    cluster.named_fault_until("hv2", "node-dead-hv3", Some(why));
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
    let vm = cluster.vm("hv1", "web");
    assert_eq!((&vm["node"], &vm["claim"]["node"]), (&"hv3".into(), &"hv3".into()), "{vm}");

    // Its power is back, also that of its BMC.
    hv3.power_on().unwrap();
    cluster.fence_until("hv1", "hv3", "");
    cluster.named_fault_until("hv1", "node-dead-hv3", None);
    web.wait_rebooted_on("hv3");
    cluster.node_until("hv1", "hv3", "its BMC answers", |info| info["bmc"]["problem"] == "");
}

fn restart(cluster: &Cluster, node: &str) {
    cluster.node(node).stop(drover_lab::Service::Drover).unwrap();
    cluster.node(node).start_drover().unwrap();
}
