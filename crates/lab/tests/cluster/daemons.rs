//! Daemons that are killed and started again: droverd, libvirtd, ZooKeeper.

use crate::support::{Cluster, grants};
use drover_lab::{Domain, Service};

#[test]
fn guests_keep_running_without_droverd_and_are_adopted() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    let (qemu, before) = (cluster.qemu("hv1", "web"), cluster.vm("hv1", "web"));
    node.kill(Service::Drover).unwrap();
    let result = cluster.try_drover("hv1", &["vm", "list"]);
    assert!(result.code == 5 && result.err.contains("droverd"), "the message names the daemon: {result:?}");
    assert_eq!(cluster.running("hv1").len(), 1);
    node.start_drover().unwrap();
    let after = cluster.vm_until("hv1", "web", "is adopted", |vm| vm["run_state"] == "running");
    assert_eq!(
        (cluster.qemu("hv1", "web"), &after["claim"]),
        (qemu.clone(), &before["claim"]),
        "the same guest under the same epoch"
    );

    // The same after an orderly stop.
    node.stop(Service::Drover).unwrap();
    assert_eq!(cluster.qemu("hv1", "web"), qemu);
    node.start_drover().unwrap();
    cluster.drover("hv1", &["vm", "shutdown", "web", "--wait"]);
    assert_eq!(cluster.running("hv1"), Vec::<String>::new());

    // A guest that crashed while no daemon ran.
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    let qemu = cluster.qemu("hv1", "web");
    node.kill(Service::Drover).unwrap();
    node.exec(&["kill", "-9", &qemu]).unwrap();
    node.start_drover().unwrap();
    cluster.vm_until("hv1", "web", "is started again", |vm| vm["run_state"] == "running" && grants(vm) == 3);
    // That it runs may be the last word of the daemon before.
    let another = || node.exec(&["cat", "/run/libvirt/qemu/web.pid"]).ok().filter(|now| now.trim() != qemu);
    cluster.until("it is another guest", another);
    cluster.running_on_until("web", &["hv1"]);
}

#[test]
fn guests_keep_running_without_libvirtd() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    cluster.define("hv1", &Domain::new("late"), &[]);
    let qemu = cluster.qemu("hv1", "web");
    node.kill(Service::Libvirt).unwrap();
    cluster.node_until("hv1", "hv1", "reports a hypervisor problem", |n| n["hypervisor_problem"] != "");
    // Unknown is not off: nothing is released, nothing is started.
    assert_eq!(cluster.vm("hv1", "web")["claim"]["node"], "hv1");
    cluster.drover("hv1", &["vm", "start", "late"]);
    node.start_if_down(Service::Libvirt).unwrap();
    cluster.vm_until("hv1", "late", "is started after libvirtd", |vm| vm["run_state"] == "running");
    assert_eq!(cluster.qemu("hv1", "web"), qemu, "the other guest kept running");
    cluster.drover("hv1", &["vm", "shutdown", "web", "--wait"]);
    assert_eq!(cluster.running("hv1").len(), 1);
}

#[test]
fn commands_work_again_after_zookeepers_leader_was_killed() {
    let cluster = Cluster::up(3);
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    cluster.console_until("hv2", "web", "BOOTED");
    let leader = cluster.lab.zookeeper_leader().unwrap();
    cluster.node(&leader).kill(Service::ZooKeeper).unwrap();
    // A command during the election is carried out, or fails with an unknown outcome.
    let result = cluster.try_drover("hv2", &["vm", "shutdown", "web", "--wait"]);
    if result.code != 0 {
        assert!(result.code == 5 || result.err.contains("try again"), "{result:?}");
        cluster.until("a command succeeds again", || {
            (cluster.try_drover("hv2", &["vm", "shutdown", "web", "--wait"]).code == 0).then_some(())
        });
    }
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
    cluster.drover("hv3", &["vm", "start", "web", "--wait"]);
    assert_eq!(cluster.running_on("web").len(), 1);
    // With the member back, all daemons run.
    cluster.node(&leader).start_if_down(Service::ZooKeeper).unwrap();
    cluster.wait_healthy();
}
