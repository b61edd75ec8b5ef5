//! Daemons that die and come back.

use crate::support::{Cluster, PATIENCE};
use drover_lab::{Domain, Lab, Service};

#[test]
fn guests_outlive_droverd_and_are_adopted() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    let (qemu, before) = (cluster.qemu("hv1", "web"), cluster.vm("hv1", "web"));
    node.kill(Service::Drover).unwrap();
    let said = cluster.say("hv1", &["vm", "list"]);
    assert!(said.code == 5 && said.err.contains("droverd"), "what to do is said: {said:?}");
    assert_eq!(cluster.running("hv1").len(), 1);
    node.start_drover().unwrap();
    let after = cluster.vm_until("hv1", "web", "is adopted", |vm| vm["run_state"] == "running");
    assert_eq!(
        (cluster.qemu("hv1", "web"), &after["claim"]),
        (qemu.clone(), &before["claim"]),
        "the same guest, the same grant"
    );

    // In good order too, with orders that come meanwhile.
    node.stop(Service::Drover).unwrap();
    assert_eq!(cluster.qemu("hv1", "web"), qemu);
    node.start_drover().unwrap();
    cluster.drover("hv1", &["vm", "shutdown", "web", "--wait"]);
    assert_eq!(cluster.running("hv1"), Vec::<String>::new());

    // A guest that died while nobody looked.
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    let qemu = cluster.qemu("hv1", "web");
    node.kill(Service::Drover).unwrap();
    node.exec(&["kill", "-9", &qemu]).unwrap();
    node.start_drover().unwrap();
    cluster.vm_until("hv1", "web", "is started again", |vm| vm["run_state"] == "running" && vm["claim"]["epoch"] == 3);
    assert_ne!(cluster.qemu("hv1", "web"), qemu);
}

#[test]
fn libvirtd_may_come_and_go() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    cluster.define("hv1", &Domain::new("late"), &[]);
    let qemu = cluster.qemu("hv1", "web");
    node.kill(Service::Libvirt).unwrap();
    let problem = || Some(cluster.json("hv1", &["node", "info", "hv1"])).filter(|n| n["hypervisor_problem"] != "");
    Lab::until("the node says what is wrong", PATIENCE, problem).unwrap();
    // What is not known is not taken for off: nothing is released, nothing is started.
    assert_eq!(cluster.vm("hv1", "web")["claim"]["node"], "hv1");
    cluster.drover("hv1", &["vm", "start", "late"]);
    node.start_if_down(Service::Libvirt).unwrap();
    cluster.vm_until("hv1", "late", "is started when libvirtd is back", |vm| vm["run_state"] == "running");
    assert_eq!(cluster.qemu("hv1", "web"), qemu, "the other one ran all the time");
    cluster.drover("hv1", &["vm", "shutdown", "web", "--wait"]);
    assert_eq!(cluster.running("hv1").len(), 1);
}

#[test]
fn the_ensembles_leader_may_die() {
    let cluster = Cluster::up(3);
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    let leader = cluster.lab.zookeeper_leader().unwrap();
    cluster.node(&leader).kill(Service::ZooKeeper).unwrap();
    // An order that comes in the middle of it is done, or it is said that it is not known.
    let said = cluster.say("hv2", &["vm", "shutdown", "web", "--wait"]);
    if said.code != 0 {
        assert!(said.err.contains("definite") || said.err.contains("try again"), "{said:?}");
        Lab::until("an order is taken again", PATIENCE, || {
            (cluster.say("hv2", &["vm", "shutdown", "web", "--wait"]).code == 0).then_some(())
        })
        .unwrap();
    }
    assert_eq!(cluster.runs_on("web"), Vec::<String>::new());
    cluster.drover("hv3", &["vm", "start", "web", "--wait"]);
    assert_eq!(cluster.runs_on("web").len(), 1);
    // Back again, everybody is there.
    cluster.node(&leader).start_if_down(Service::ZooKeeper).unwrap();
    let all = || {
        (cluster.json(&leader, &["node", "list"]).as_array()?.iter().all(|n| n["daemon_state"] == "run")).then_some(())
    };
    Lab::until("all daemons run", PATIENCE, all).unwrap();
}
