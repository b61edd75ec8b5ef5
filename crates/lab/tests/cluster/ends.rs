//! Who ended a guest: the guest, somebody on the node, or the host.

use crate::support::{Cluster, TIMEOUT};
use drover_lab::{Domain, Lab, Service};

/// A systemd that is taking the machine down, as far as the daemon asks it.
const GOING_DOWN: &str = "mkdir -p /run/systemd/system
printf '#!/bin/sh\\necho stopping\\nexit 1\\n' >/run/systemctl
chmod 755 /run/systemctl
mount --bind /run/systemctl /usr/bin/systemctl";

impl Cluster {
    fn terminate(&self, vm: &str) {
        let qemu = self.qemu("hv1", vm);
        self.node("hv1").exec(&["kill", "-TERM", &qemu]).unwrap();
    }

    /// What libvirt-guests does with each guest, and an administrator with one.
    fn virsh_shutdown(&self, vm: &str) {
        self.node("hv1").exec(&["virsh", "-q", "-c", "qemu:///system", "shutdown", vm]).unwrap();
    }

    /// Waits until libvirt has the domain, and it is off.
    fn until_off(&self, vm: &str) {
        let state = || self.node("hv1").exec(&["virsh", "-q", "-c", "qemu:///system", "domstate", "--reason", vm]);
        let off = || state().is_ok_and(|state| state.starts_with("shut off (shutdown)")).then_some(());
        Lab::until(&format!("{vm} is off"), TIMEOUT, off).unwrap_or_else(|e| panic!("{e}: {:?}", state()));
    }

    fn until_stopped(&self, vm: &str) {
        self.vm_until("hv1", vm, "is stopped", |vm| vm["state"] == "stop");
    }
}

#[test]
fn a_guest_that_the_host_ended_is_started_again_and_one_that_powered_off_is_not() {
    let cluster = Cluster::up(1);
    for vm in ["signal", "button", "missed"] {
        cluster.define("hv1", &Domain::new(vm), &["--start", "--wait"]);
        cluster.console_until("hv1", vm, "BOOTED");
    }
    cluster.terminate("signal");
    cluster.vm_until("hv1", "signal", "is started again", |vm| {
        vm["state"] == "start" && vm["run_state"] == "running" && vm["crashes"] == 1
    });
    // The daemon dies before it has started the guest again. (After the third end it waits for 4 s.)
    for end in 2..=3 {
        cluster.terminate("signal");
        cluster.vm_until("hv1", "signal", "ended", |vm| vm["crashes"] == end);
        if end == 3 {
            cluster.node("hv1").kill(Service::Drover).unwrap();
            cluster.until_off("signal");
            cluster.node("hv1").start_drover().unwrap();
        }
        cluster.vm_until("hv1", "signal", "is started again", |vm| {
            vm["state"] == "start" && vm["run_state"] == "running" && vm["crashes"] == end
        });
    }
    cluster.virsh_shutdown("button");
    cluster.until_stopped("button");
    let own = Domain::new("own").with("poweroff_after=1");
    cluster.define("hv1", &own, &["--start"]);
    cluster.until_stopped("own");

    // Nobody listened: in the same boot it counts as the guest's own wish.
    cluster.node("hv1").kill(Service::Drover).unwrap();
    cluster.virsh_shutdown("missed");
    cluster.until_off("missed");
    cluster.node("hv1").start_drover().unwrap();
    cluster.until_stopped("missed");
}

#[test]
fn vms_whose_machine_goes_down_run_again_when_it_is_back() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    for vm in ["asked", "signal", "late"] {
        cluster.define("hv1", &Domain::new(vm), &["--start", "--wait"]);
        cluster.console_until("hv1", vm, "BOOTED");
    }
    node.exec(&["sh", "-ec", GOING_DOWN]).unwrap();
    cluster.virsh_shutdown("asked");
    cluster.terminate("signal");
    for vm in ["asked", "signal"] {
        cluster.until_off(vm);
        cluster.vm_until("hv1", vm, "is off for now", |vm| {
            vm["state"] == "start" && vm["doing"].as_str().is_some_and(|doing| doing.contains("going down"))
        });
    }
    // The daemon is stopped before the last guest.
    node.stop(Service::Drover).unwrap();
    cluster.virsh_shutdown("late");
    cluster.until_off("late");
    node.power_off().unwrap();
    node.power_on().unwrap();
    for vm in ["asked", "signal", "late"] {
        cluster.vm_until("hv1", vm, "runs again", |vm| {
            vm["state"] == "start" && vm["run_state"] == "running" && vm["crashes"] == 0
        });
    }
}
