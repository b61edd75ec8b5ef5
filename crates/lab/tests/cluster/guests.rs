//! What guests do by themselves.

use crate::support::Cluster;
use drover_lab::Domain;

#[test]
fn a_guest_that_powers_itself_off_is_stopped() {
    let cluster = Cluster::up(1);
    cluster.define("hv1", &Domain::new("web").with("poweroff_after=1"), &["--start", "--wait"]);
    let vm = cluster.vm_until("hv1", "web", "is stopped", |vm| vm["state"] == "stop" && vm["claim"]["node"] == "");
    assert_eq!(vm["crashes"], 0, "that was no crash");
    assert_eq!(cluster.runs_on("web"), Vec::<String>::new());
}

#[test]
fn a_guest_that_ignores_the_power_button_has_its_power_cut_at_the_deadline() {
    let cluster = Cluster::up(1);
    cluster.define("hv1", &Domain::new("web").with("noacpi_off"), &["--start", "--wait"]);
    cluster.console_until("hv1", "web", "BOOTED");
    cluster.drover("hv1", &["vm", "shutdown", "web", "--timeout", "3", "--wait"]);
    assert_eq!(cluster.runs_on("web"), Vec::<String>::new());
    // Taken back in time, it runs on.
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    let qemu = cluster.qemu("hv1", "web");
    cluster.drover("hv1", &["vm", "shutdown", "web"]);
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    assert_eq!(cluster.qemu("hv1", "web"), qemu);
}

#[test]
fn a_guest_that_crashes_is_started_again_and_in_the_end_given_up() {
    let cluster = Cluster::up(1);
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    for crash in 1..=4 {
        let qemu = cluster.qemu("hv1", "web");
        cluster.node("hv1").exec(&["kill", "-9", &qemu]).unwrap();
        cluster.vm_until("hv1", "web", "is started again", |vm| vm["crashes"] == crash && vm["run_state"] == "running");
    }
    let qemu = cluster.qemu("hv1", "web");
    cluster.node("hv1").exec(&["kill", "-9", &qemu]).unwrap();
    let vm = cluster.vm_until("hv1", "web", "is given up", |vm| vm["state"] == "fail");
    assert!(vm["failed_reason"].as_str().unwrap().contains("crashed 5 times"), "{vm}");
    let faults = cluster.drover("hv1", &["fault", "list"]);
    assert!(faults.contains("web"), "{faults}");
    let health = cluster.json("hv1", &["status"])["cluster_health"]["health"].as_i64().unwrap();
    assert!(health < 100, "{health}");
    // An administrator's start is a new beginning, and ends the fault.
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    let vm = cluster.vm("hv1", "web");
    assert_eq!((&vm["state"], vm["crashes"].as_u64()), (&"start".into(), Some(0)), "{vm}");
    assert!(!cluster.drover("hv1", &["fault", "list"]).contains("web"));
}

#[test]
fn a_definition_that_libvirt_refuses_fails_with_its_words() {
    let cluster = Cluster::up(1);
    let xml = Domain::new("web").xml(&cluster.lab.guest()).replace("/srv/shared/guest/vmlinuz", "/nowhere/vmlinuz");
    cluster.define_xml("hv1", &xml, &[]);
    let said = cluster.say("hv1", &["vm", "start", "web", "--wait"]);
    assert!(said.code == 1 && said.err.contains("/nowhere/vmlinuz"), "{said:?}");
    assert_eq!(cluster.vm("hv1", "web")["state"], "fail");
}
