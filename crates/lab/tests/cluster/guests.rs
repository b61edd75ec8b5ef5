//! Guests that power off, ignore the power button, crash, or cannot be started.

use crate::support::{Cluster, grants};
use drover_lab::Domain;

#[test]
fn a_guest_that_powers_itself_off_is_stopped() {
    let cluster = Cluster::up(1);
    cluster.define("hv1", &Domain::new("web").with("poweroff_after=1"), &["--start", "--wait"]);
    let vm = cluster.vm_until("hv1", "web", "is stopped", |vm| vm["state"] == "stop" && vm["claim"]["node"] == "");
    assert_eq!(vm["crashes"], 0, "a power-off is not a crash");
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
}

#[test]
fn a_guest_that_ignores_the_power_button_is_stopped_at_the_deadline() {
    let cluster = Cluster::up(1);
    cluster.define("hv1", &Domain::new("web").with("noacpi_off"), &["--start", "--wait"]);
    cluster.console_until("hv1", "web", "BOOTED");
    cluster.drover("hv1", &["vm", "shutdown", "web", "--timeout", "3", "--wait"]);
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
    // A start before the deadline cancels the shutdown.
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    let qemu = cluster.qemu("hv1", "web");
    cluster.drover("hv1", &["vm", "shutdown", "web"]);
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    assert_eq!(cluster.qemu("hv1", "web"), qemu);
}

#[test]
fn a_crashed_guest_is_started_again_until_it_has_crashed_5_times() {
    let cluster = Cluster::up(1);
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    for crash in 1..=4 {
        let qemu = cluster.qemu("hv1", "web");
        cluster.node("hv1").exec(&["kill", "-9", &qemu]).unwrap();
        cluster.vm_until("hv1", "web", "is started again", |vm| vm["crashes"] == crash && vm["run_state"] == "running");
    }
    let qemu = cluster.qemu("hv1", "web");
    cluster.node("hv1").exec(&["kill", "-9", &qemu]).unwrap();
    let vm = cluster.vm_until("hv1", "web", "has failed", |vm| vm["state"] == "fail");
    assert!(vm["failed_reason"].as_str().unwrap().contains("crashed 5 times"), "{vm}");
    let is_fault = |reported: bool| {
        let listed = || cluster.drover("hv1", &["fault", "list"]).contains("web");
        cluster.until(&format!("it is a fault: {reported}"), || (listed() == reported).then_some(()));
    };
    is_fault(true);
    let health = cluster.json("hv1", &["status"])["cluster_health"]["health"].as_i64().unwrap();
    assert!(health < 100, "{health}");
    // A start by an administrator resets the counter and ends the fault.
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    let vm = cluster.vm("hv1", "web");
    assert_eq!((&vm["state"], vm["crashes"].as_u64()), (&"start".into(), Some(0)), "{vm}");
    is_fault(false);
}

#[test]
fn a_start_that_libvirt_refuses_fails_with_its_message() {
    let cluster = Cluster::up(1);
    let xml = Domain::new("web").xml(&cluster.lab.guest()).replace("pc-i440fx-7.2", "pc-nowhere-7.2");
    // Named, or the node would be unfit: its report has the machine types.
    cluster.define_xml("hv1", &xml, &["--no-check", "--node", "hv1"]);
    let result = cluster.try_drover("hv1", &["vm", "start", "web", "--wait"]);
    assert!(result.code == 1 && result.err.contains("pc-nowhere-7.2"), "{result:?}");
    assert_eq!(cluster.vm("hv1", "web")["state"], "fail");
}

/// What the machine lacks may come: the start is tried again, later each time, and says why it waits.
#[test]
fn a_start_that_lacks_something_is_tried_again_when_it_may_have_come() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    let cannot = |vm: &str, why: &str| {
        cluster.vm_until("hv1", vm, "is tried again", |vm| {
            vm["doing"].as_str().is_some_and(|doing| doing.contains("tried again") && doing.contains(why))
        })
    };
    let late = "<devices><interface type='bridge'><source bridge='late0'/></interface>";
    let xml = Domain::new("web").xml(&cluster.lab.guest()).replace("<devices>", late);
    // A node that lacks the bridge is refused by the definition, so it is there at first.
    node.exec(&["ip", "link", "add", "late0", "type", "bridge"]).unwrap();
    std::fs::write(cluster.lab.shared().join("new.xml"), xml).unwrap();
    let define = ["vm", "define", "/srv/shared/new.xml", "--node", "hv1"];
    cluster.until("the node reports its bridge", || (cluster.try_drover("hv1", &define).code == 0).then_some(()));
    node.exec(&["ip", "link", "del", "late0"]).unwrap();
    cluster.drover("hv1", &["vm", "start", "web"]);
    cannot("web", "late0");
    node.exec(&["ip", "link", "add", "late0", "type", "bridge"]).unwrap();
    cluster.vm_until("hv1", "web", "is started", |vm| vm["run_state"] == "running");

    // libvirtd cannot reach its own log daemon, and says so in the words of a lost connection.
    node.exec(&["sh", "-c", "kill $(cat /run/virtlogd.pid) && rm -f /run/libvirt/virtlogd-sock"]).unwrap();
    let began = std::time::Instant::now();
    cluster.define("hv1", &Domain::new("shop"), &["--start"]);
    cannot("shop", "virtlogd");
    let vm = cannot("shop", "(4×)");
    assert!(began.elapsed().as_secs() >= 1 + 2 + 4, "it is tried again later each time");
    // The next grant is seen before what came of it.
    assert!((4..=5).contains(&grants(&vm)), "{vm}");
    node.exec(&["sh", "-c", "rm -f /run/virtlogd.pid; virtlogd -d"]).unwrap();
    cluster.vm_until("hv1", "shop", "is started", |vm| vm["run_state"] == "running");
    assert!(cluster.drover("hv1", &["fault", "list"]).lines().count() <= 1);
}
