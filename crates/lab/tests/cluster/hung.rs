//! Guests whose QEMU does not answer.

use crate::support::{Cluster, TIMEOUT};
use drover_lab::{Domain, Lab, Service};
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
