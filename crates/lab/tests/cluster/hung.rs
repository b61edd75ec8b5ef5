//! Guests whose QEMU does not answer.

use crate::support::{Cluster, TIMEOUT};
use drover_lab::{Domain, Lab, Service};
use serde_json::Value;
use std::time::{Duration, Instant};

/// libvirt kills a process that does not hear SIGTERM ten seconds later (9.0.0, `virProcessKillPainfullyDelay`).
const KILLED_BY_THEN: Duration = Duration::from_secs(45);
/// What takes a second, on a busy machine. With four guests that hung it took 24 s on an idle one.
const NOT_HELD_UP: Duration = Duration::from_secs(15);

impl Cluster {
    fn hang(&self, vm: &str) {
        let qemu = self.qemu("hv1", vm);
        self.node("hv1").exec(&["kill", "-STOP", &qemu]).unwrap();
    }

    /// Whether something took no longer than it may.
    fn within<T>(&self, most: Duration, what: &str, act: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = act();
        let took = start.elapsed();
        eprintln!("{what}: {took:?}");
        assert!(took < most, "{what} took {took:?}\n{}", self.logs());
        done
    }
}

#[test]
fn guests_that_hang_are_cut_off_and_hold_nobody_else_up() {
    let cluster = Cluster::up(1);
    let drover = |arguments: &[&str]| cluster.drover("hv1", arguments);
    let hanging = ["a", "b", "c", "d", "e", "f"];
    for vm in hanging.iter().chain(&["well"]) {
        cluster.define("hv1", &Domain::new(vm), &["--start", "--wait"]);
    }
    for vm in hanging {
        cluster.console_until("hv1", vm, "BOOTED");
        cluster.hang(vm);
        // Whoever asks it for something is not answered.
        drover(&["vm", "shutdown", vm, "--timeout", "600"]);
    }
    let is_asked = |vm: &str| {
        cluster.vm_until("hv1", vm, "is asked", |vm| vm["doing"].as_str().is_some_and(|d| d.contains("waiting for")));
    };
    hanging.into_iter().for_each(is_asked);
    // They are seen as they are, and nobody else notices.
    for vm in hanging {
        assert_eq!(cluster.vm("hv1", vm)["run_state"], "running", "{vm}\n{}", cluster.logs());
    }
    cluster.define("hv1", &Domain::new("new"), &[]);
    cluster.within(NOT_HELD_UP, "a start", || drover(&["vm", "start", "new", "--wait"]));
    cluster.within(NOT_HELD_UP, "a stop", || drover(&["vm", "stop", "well", "--yes", "--wait"]));
    cluster.within(NOT_HELD_UP, "a start", || drover(&["vm", "start", "well", "--wait"]));
    assert!(!cluster.node("hv1").drover_log(1000).contains("lost the connection to libvirt"), "{}", cluster.logs());

    cluster.within(KILLED_BY_THEN, "a stop", || drover(&["vm", "stop", "a", "--yes", "--wait"]));
    // By its deadline, too.
    cluster.within(KILLED_BY_THEN, "a deadline", || drover(&["vm", "shutdown", "b", "--timeout", "1", "--wait"]));
    // And by another daemon, which knows nothing of what hangs.
    cluster.node("hv1").kill(Service::Drover).unwrap();
    cluster.node("hv1").start_drover().unwrap();
    cluster.within(KILLED_BY_THEN, "a stop after a restart", || drover(&["vm", "stop", "c", "--yes", "--wait"]));
    for vm in ["d", "e", "f"] {
        drover(&["vm", "stop", vm, "--yes"]);
    }
    let gone = || (["d", "e", "f"].iter().all(|vm| cluster.running_on(vm).is_empty())).then_some(());
    cluster.within(KILLED_BY_THEN * 2, "three stops at once", || Lab::until("they are off", TIMEOUT, gone).unwrap());
    assert_eq!(cluster.running_on("well"), ["hv1"]);
}

/// A cgroup of hv1 whose processes end by no signal until they are let go on: as those that wait for a storage.
struct Frozen<'a>(&'a Cluster);

impl<'a> Frozen<'a> {
    const AT: &'static str = "/run/freezer";

    fn guest(cluster: &'a Cluster, vm: &str) -> Frozen<'a> {
        let (at, qemu) = (Frozen::AT, cluster.qemu("hv1", vm));
        let freeze = format!(
            "mkdir -p {at} && mount -t cgroup -o freezer none {at} &&
             ln -s {at}/$(cat /proc/sys/kernel/random/uuid) {at}.of && mkdir $(readlink {at}.of) &&
             echo {qemu} >{at}.of/cgroup.procs && echo FROZEN >{at}.of/freezer.state"
        );
        cluster.node("hv1").exec(&["sh", "-c", &freeze]).unwrap();
        Frozen(cluster)
    }

    fn goes_on(&self) {
        self.0.node("hv1").exec(&["sh", "-c", &format!("echo THAWED >{}.of/freezer.state", Frozen::AT)]).unwrap();
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.goes_on();
        let at = Frozen::AT;
        let clean = format!(
            "for process in $(cat {at}.of/cgroup.procs); do echo $process >{at}/cgroup.procs; done
             rmdir $(readlink {at}.of); umount {at}"
        );
        self.0.node("hv1").exec(&["sh", "-c", &clean]).ok();
    }
}

#[test]
fn a_guest_that_cannot_be_killed_keeps_its_claim_and_is_a_fault_until_it_has_ended() {
    let cluster = Cluster::up(2);
    cluster.define("hv1", &Domain::new("web"), &["--node", "hv1", "--start", "--wait"]);
    cluster.console_until("hv1", "web", "BOOTED");
    let epoch = cluster.vm("hv1", "web")["claim"]["epoch"].clone();
    let frozen = Frozen::guest(&cluster, "web");
    cluster.drover("hv2", &["vm", "stop", "web", "--yes"]);
    let says = |vm: &Value| vm["doing"].as_str().is_some_and(|doing| doing.contains("has not ended"));
    cluster.vm_until("hv2", "web", "libvirt has given it up", says);
    let held = |vm: &Value| vm["claim"]["node"] == "hv1" && vm["claim"]["epoch"] == epoch;
    let is_fault =
        |text: &str| text.contains("The power of VM web cannot be cut on hv1") && text.contains("has not ended");
    let fault = |cluster: &Cluster| is_fault(&cluster.drover("hv2", &["-f", "json", "fault", "list"]));
    cluster.until("it is a fault", || fault(&cluster).then_some(()));
    assert!(held(&cluster.vm("hv2", "web")));
    // Nobody starts a second one, here or elsewhere; nor does the next daemon, which has not seen any of this.
    cluster.drover("hv2", &["vm", "start", "web"]);
    cluster.node("hv1").kill(Service::Drover).unwrap();
    cluster.node("hv1").start_drover().unwrap();
    cluster.vm_until("hv2", "web", "the next daemon sees it", |vm| vm["state"] == "start" && says(vm) && held(vm));
    assert!(fault(&cluster), "it stays");
    cluster.drover("hv2", &["vm", "stop", "web", "--yes"]);
    let log = cluster.node("hv1").drover_log(10_000);
    let about = log.lines().filter(|line| line.contains("web") || line.contains("has not ended")).count();
    assert!(about < 30, "{about} lines: {log}");
    frozen.goes_on();
    cluster.vm_until("hv2", "web", "is off", |vm| vm["state"] == "stop" && vm["claim"]["node"] == "");
    cluster.until("the fault is gone", || (!fault(&cluster)).then_some(()));
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
}
