//! Nodes without BMCs that are reset by their watchdogs when they are cut off.

use crate::support::{Cluster, Guest, grants};
use drover_lab::{Cut, Domain, Net, Service, WATCHDOG};
use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// Timeout of the watchdogs; a node that is cut off is proved to have been reset after 28 s.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster of three nodes, of which hv3 has an armed watchdog. hv1 is the primary.
fn with_watchdog() -> Cluster {
    let cluster = Cluster::up(3);
    let hv3 = cluster.node("hv3");
    hv3.start_watchdog().unwrap();
    let file = hv3.folder().join("etc/drover/drover.toml");
    let old = fs::read_to_string(&file).unwrap();
    let section = format!("\n[watchdog]\ndevice = \"{WATCHDOG}\"\ntimeout = \"{}s\"\n", TIMEOUT.as_secs());
    fs::write(&file, old + &section).unwrap();
    hv3.stop(Service::Drover).unwrap();
    hv3.start_drover().unwrap();
    cluster.wait_healthy();
    cluster.node_until("hv1", "hv3", "its watchdog is armed", |info| info["watchdog"]["armed"] == true);
    cluster.drover("hv1", &["node", "primary", "hv1", "--wait"]);
    cluster
}

/// Nobody can cut its power, and nobody can ask it.
#[test]
fn a_node_that_is_cut_off_is_reset_before_its_vms_run_elsewhere() {
    let cluster = with_watchdog();
    assert!(cluster.drover("hv1", &["node", "info", "hv3"]).contains("armed (5 s)"));
    let unguarded = cluster.drover("hv3", &["node", "info", "hv1"]);
    assert!(unguarded.contains("off: none is configured"), "{unguarded}");
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    let cut = Instant::now();
    cluster.lab.cut("hv3", Net::Cluster, Cut::Silent).unwrap();
    cluster.until("its guest is ended", || cluster.running("hv3").is_empty().then_some(()));
    println!("cut off to the end of its guest: {:?}, while it is on: {}", cut.elapsed(), hv3.is_on());
    let vm = cluster.vm_until("hv1", "web", "is given away", |vm| vm["node"] != "hv3");
    assert!(!hv3.is_on(), "it is given away before hv3 is reset: {vm}\n{}", cluster.logs());
    assert!(hv3.watchdog_log().contains("ran out"), "{}", hv3.watchdog_log());
    let running = |vm: &serde_json::Value| vm["run_state"] == "running" && vm["node"] != "hv3";
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", running);
    println!("cut off to running: {:?}", cut.elapsed());
    web.wait_rebooted_on(vm["node"].as_str().unwrap());
    let fence = cluster.json("hv2", &["node", "fence", "hv3"]);
    assert_eq!(fence["proof"][0]["kind"], "watchdog", "{fence}");
    assert!(cluster.drover("hv2", &["node", "fence", "hv3"]).contains("its watchdog (timeout 5 s) has reset it"));

    // It can be reached again as soon as it has links.
    std::thread::scope(|scope| {
        let booted = scope.spawn(|| hv3.power_on());
        cluster.until("its link is there", || cluster.lab.heal("hv3", Net::Cluster).ok());
        booted.join().unwrap().unwrap();
    });
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.fence_until("hv1", "hv3", "over");
    cluster.node_until("hv1", "hv3", "its watchdog is armed again", |info| info["watchdog"]["armed"] == true);
}

/// Nobody ends its guests, as nothing runs on it: the watchdog does.
#[test]
fn a_node_that_is_frozen_is_reset_before_its_vms_run_elsewhere() {
    let cluster = with_watchdog();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    cluster.freeze("hv3", true);
    let vm = cluster.vm_until("hv1", "web", "is given away", |vm| vm["node"] != "hv3");
    assert!(!hv3.is_on(), "it is given away before hv3 is reset: {vm}\n{}", cluster.logs());
    assert!(hv3.watchdog_log().contains("ran out"), "{}", hv3.watchdog_log());
    let running = |vm: &serde_json::Value| vm["run_state"] == "running" && vm["node"] != "hv3";
    let vm = cluster.vm_until("hv2", "web", "runs elsewhere", running);
    web.wait_rebooted_on(vm["node"].as_str().unwrap());
    hv3.power_on().unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    assert!(cluster.running("hv3").is_empty(), "{}", cluster.logs());
    web.wait_alive_on(vm["node"].as_str().unwrap());
}

/// The watchdog goes on counting when its daemon is killed, and the next one is back in time. One that is stopped in
/// good order, and maintenance, disarm it.
#[test]
fn a_daemon_that_crashes_or_is_stopped_costs_its_guests_nothing() {
    let cluster = with_watchdog();
    let mut web = Guest::up(&cluster, "hv3", &Domain::new("web"), &[]);
    let hv3 = cluster.node("hv3");
    let longer = TIMEOUT * 2;
    hv3.kill(Service::Drover).unwrap();
    hv3.start_drover().unwrap();
    sleep(longer);
    web.wait_alive_on("hv3");

    hv3.stop(Service::Drover).unwrap();
    assert!(hv3.watchdog_log().ends_with("stop\n"), "{}", hv3.watchdog_log());
    sleep(longer);
    web.wait_alive_on("hv3");
    hv3.start_drover().unwrap();
    cluster.node_until("hv1", "hv3", "its watchdog is armed", |info| info["watchdog"]["armed"] == true);

    cluster.drover("hv1", &["cluster", "maintenance", "on"]);
    let disarmed = |info: &serde_json::Value| info["watchdog"]["why_not"] == "the cluster is in maintenance";
    cluster.node_until("hv1", "hv3", "its watchdog is disarmed", disarmed);
    assert!(hv3.watchdog_log().ends_with("stop\n"), "{}", hv3.watchdog_log());
    cluster.lab.cut("hv3", Net::Cluster, Cut::Silent).unwrap();
    sleep(longer * 2);
    assert!(hv3.is_on());
    cluster.lab.heal("hv3", Net::Cluster).unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    cluster.drover("hv1", &["cluster", "maintenance", "off"]);
    cluster.node_until("hv1", "hv3", "its watchdog is armed", |info| info["watchdog"]["armed"] == true);
    web.wait_alive_on("hv3");
    assert_eq!(grants(&cluster.vm("hv1", "web")), 1);
}
