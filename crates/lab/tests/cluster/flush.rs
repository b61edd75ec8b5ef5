//! Flush and ready of nodes.

use crate::support::{Cluster, Guest, grants};
use drover_lab::{Domain, Lab, Service};
use std::time::Duration;

/// Defines and starts guests on nodes, all at once, and waits until they are up.
fn guests<'a>(cluster: &'a Cluster, names: &[(&str, &str)], arguments: &[&str]) -> Vec<Guest<'a>> {
    for (name, node) in names {
        cluster.define(node, &Domain::new(name), &[&["--node", node, "--start"], arguments].concat());
    }
    names
        .iter()
        .map(|(name, node)| {
            cluster.vm_until(node, name, "runs", |vm| vm["run_state"] == "running");
            Guest::of(cluster, node, name)
        })
        .collect()
}

fn state_until(cluster: &Cluster, at: &str, node: &str, state: &str) {
    cluster.node_until(at, node, &format!("is in state {state}"), |n| n["domain_state"] == state);
}

/// Ends the throttling of a guest's migration, unless it has already arrived.
fn faster(cluster: &Cluster, node: &str, guest: &Guest<'_>) {
    let fast = ["virsh", "-c", "qemu:///system", "migrate-setspeed", &guest.name, "1000"];
    cluster.node(node).output(&fast).unwrap();
}

#[test]
fn guests_keep_running_through_flush_and_ready() {
    let cluster = Cluster::up(3);
    let names = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let names: Vec<_> = names.into_iter().zip(["hv1", "hv2", "hv3"].into_iter().cycle()).collect();
    let mut guests = guests(&cluster, &names, &[]);

    // The plan is shown, and changes nothing.
    cluster.json_until("hv2", &["node", "flush", "hv1", "--plan"], "three VMs would move", |plan| {
        plan.as_array().is_some_and(|plan| plan.len() == 3 && plan.iter().all(|fate| fate["fate"] == "moves"))
    });
    assert_eq!(cluster.json("hv2", &["node", "info", "hv1"])["domain_state"], "ready");
    cluster.drover("hv2", &["node", "flush", "hv1"]);
    state_until(&cluster, "hv1", "hv1", "flushed");
    let left = || cluster.node("hv1").exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all"]).unwrap();
    cluster.until("its hypervisor has no domain left", || left().trim().is_empty().then_some(()));
    for (guest, (name, home)) in guests.iter_mut().zip(&names) {
        let away = *home == "hv1";
        let vm = cluster.vm_until("hv1", name, "is away, or where it was", |vm| {
            vm["last_node"] == if away { "hv1" } else { "" } && (vm["node"] != *home) == away
        });
        guest.wait_alive_on(vm["node"].as_str().unwrap());
    }

    // A flushed node accepts no VM.
    state_until(&cluster, "hv2", "hv1", "flushed");
    let result = cluster.try_drover("hv2", &["vm", "migrate", "two", "--to", "hv1"]);
    assert!(result.code == 1 && result.err.contains("flushed"), "{result:?}");
    cluster.drover("hv2", &["node", "ready", "hv1", "--wait"]);
    for (guest, (name, home)) in guests.iter_mut().zip(&names) {
        cluster.vm_until(home, name, "is back at its home", |vm| vm["node"] == *home && vm["last_node"] == "");
        guest.wait_alive_on(home);
    }

    // Of two nodes that are flushed at once, all VMs go to the third.
    for node in ["hv1", "hv2"] {
        cluster.drover("hv3", &["node", "flush", node]);
    }
    for node in ["hv1", "hv2"] {
        cluster.node_until("hv3", node, "accepts no VMs", |n| n["domain_state"] != "ready");
    }
    for node in ["hv1", "hv2"] {
        let plan = cluster.json("hv3", &["node", "flush", node, "--plan"]);
        let moves = plan.as_array().unwrap().iter().filter(|fate| fate["fate"] == "moves");
        assert!(moves.clone().all(|fate| fate["to"] == "hv3"), "{plan}");
    }
    for node in ["hv1", "hv2"] {
        for at in ["hv3", "hv1"] {
            state_until(&cluster, at, node, "flushed");
        }
        cluster.empty_until(node);
    }
    for (guest, (name, home)) in guests.iter_mut().zip(&names) {
        let away = if *home == "hv3" { "" } else { home };
        cluster.vm_until("hv3", name, "is on hv3", |vm| vm["node"] == "hv3" && vm["last_node"] == away);
        guest.wait_alive_on("hv3");
    }
    // The last node cannot be flushed.
    let result = cluster.try_drover("hv1", &["node", "flush", "hv3", "--yes", "--wait"]);
    assert!(result.code == 1 && result.err.contains("last node"), "{result:?}");
    state_until(&cluster, "hv1", "hv3", "ready");
    for node in ["hv1", "hv2"] {
        cluster.drover("hv3", &["node", "ready", node]);
    }
    for node in ["hv1", "hv2"] {
        state_until(&cluster, "hv3", node, "ready");
    }
    for (guest, (_, home)) in guests.iter_mut().zip(&names) {
        guest.wait_alive_on(home);
    }
}

#[test]
fn ready_cancels_a_flush_at_once_and_flush_a_ready() {
    let cluster = Cluster::up(2);
    cluster.drover("hv1", &["config", "set", "--moves-per-source", "1"]);
    let mut guests = guests(&cluster, &[("one", "hv1"), ("two", "hv1"), ("three", "hv1")], &["--method", "live"]);
    for guest in &guests {
        guest.throttle("hv1");
    }
    cluster.drover("hv2", &["node", "flush", "hv1"]);
    let moving = |vm: &Guest<'_>| !cluster.vm("hv1", &vm.name)["migration"].is_null();
    cluster.node_until("hv1", "hv1", "moves a VM", |n| n["drain"]["moving"] == 1);
    // The node says so before the VM does.
    let mover = cluster.until("a VM is sent", || guests.iter().position(moving));
    guests[mover].wait_sending("hv1");
    assert_eq!(guests.iter().filter(|vm| moving(vm)).count(), 1, "one at a time, as configured");

    cluster.drover("hv2", &["node", "ready", "hv1"]);
    // The state changes at once, without waiting for migrations under way.
    state_until(&cluster, "hv2", "hv1", "unflush");
    assert!(moving(&guests[mover]), "a migration under way is completed");
    cluster.set_migration_speed("hv1", &guests[mover].name, 1000);
    state_until(&cluster, "hv2", "hv1", "ready");
    for (i, guest) in guests.iter_mut().enumerate() {
        guest.wait_alive_on("hv1");
        // No other has moved.
        let grants_of_it = if i == mover { 3 } else { 1 };
        cluster.vm_until("hv2", &guest.name, "is back at its home", |vm| {
            vm["node"] == "hv1" && vm["last_node"] == "" && grants(vm) == grants_of_it
        });
    }

    // In the other direction: a flush cancels a ready.
    for guest in &guests {
        cluster.set_migration_speed("hv1", &guest.name, 1000);
    }
    cluster.drover("hv1", &["node", "flush", "hv1", "--wait"]);
    for guest in &guests {
        guest.throttle("hv2");
    }
    cluster.drover("hv1", &["node", "ready", "hv1"]);
    cluster.node_until("hv1", "hv1", "moves a VM", |n| n["drain"]["moving"].as_u64() > Some(0));
    cluster.drover("hv1", &["node", "flush", "hv1"]);
    state_until(&cluster, "hv1", "hv1", "flush");
    for guest in &guests {
        faster(&cluster, "hv2", guest);
    }
    state_until(&cluster, "hv2", "hv1", "flushed");
    for guest in &mut guests {
        guest.wait_alive_on("hv2");
    }
}

#[test]
fn a_vm_that_cannot_move_is_shut_down_by_flush_and_started_by_ready() {
    let cluster = Cluster::up(2);
    let mut bound = Guest::up(&cluster, "hv1", &Domain::new("bound"), &["--limit", "hv1"]);
    let mut free = Guest::up(&cluster, "hv1", &Domain::new("free"), &[]);
    cluster.define("hv1", &Domain::new("idle"), &["--limit", "hv1"]);
    let plan = cluster.drover("hv1", &["node", "flush", "hv1", "--plan"]);
    assert!(plan.contains("limited to hv1"), "the plan says why it cannot move: {plan}");
    // Without --yes, nothing is shut down.
    let result = cluster.try_drover("hv1", &["node", "flush", "hv1", "--wait"]);
    assert!(result.code != 0 && result.err.contains("--yes"), "{result:?}");
    assert_eq!(cluster.json("hv1", &["node", "info", "hv1"])["domain_state"], "ready");

    cluster.drover("hv1", &["node", "flush", "hv1", "--yes", "--wait"]);
    bound.wait_only_on(&[]);
    free.wait_alive_on("hv2");
    let off = |vm: &serde_json::Value| vm["state"] == "stop" && vm["node"] == "hv1" && vm["node_autostart"] == true;
    cluster.vm_until("hv2", "bound", "is off, and starts again with its node", off);
    cluster.console_until("hv1", "bound", "ACPI POWER BUTTON");
    cluster.drover("hv2", &["node", "ready", "hv1", "--wait"]);
    bound.wait_rebooted_on("hv1");
    free.wait_alive_on("hv1");
    let once = cluster.vm("hv1", "bound");
    assert_eq!((&once["state"], &once["node_autostart"]), (&"start".into(), &false.into()), "{once}");
    let idle = cluster.vm("hv1", "idle");
    assert_eq!((&idle["state"], grants(&idle)), (&"stop".into(), 0), "what was off stays off: {idle}");
}

#[test]
fn a_flush_completes_although_a_target_fails() {
    let cluster = Cluster::up(3);
    let mut guests = guests(&cluster, &[("one", "hv1"), ("two", "hv1"), ("three", "hv1")], &["--method", "live"]);
    for guest in &guests {
        guest.throttle("hv1");
    }
    cluster.drover("hv1", &["node", "flush", "hv1"]);
    let first = cluster.vm_until("hv1", "one", "is migrating", |vm| vm["migration"]["sent"].as_u64() > Some(0));
    let target = first["migration"]["to"].as_str().unwrap();
    cluster.node(target).kill(Service::Libvirt).unwrap();
    // VMs on their way to the failed target go to the other node instead.
    let other = if target == "hv2" { "hv3" } else { "hv2" };
    for guest in &guests {
        let elsewhere = |vm: &serde_json::Value| vm["migration"]["to"] != target;
        cluster.vm_until("hv1", &guest.name, "has another target, or none", elsewhere);
        faster(&cluster, "hv1", guest);
    }
    state_until(&cluster, "hv1", "hv1", "flushed");
    cluster.empty_until("hv1");
    cluster.node(target).start_if_down(Service::Libvirt).unwrap();
    cluster.wait_healthy();
    for guest in &mut guests {
        cluster.vm_until("hv1", &guest.name, "is on the other node", |vm| vm["node"] == other);
        guest.wait_alive_on(other);
    }
    cluster.drover("hv1", &["node", "ready", "hv1", "--wait"]);
    for guest in &mut guests {
        guest.wait_alive_on("hv1");
    }
}

/// The VM stays where its node has died, and says so; its home is ready, and can be flushed, without it.
#[test]
fn a_dead_node_holds_up_no_other_that_waits_for_its_vms() {
    let cluster = Cluster::up(3);
    cluster.define("hv1", &Domain::new("web"), &["--node", "hv1", "--start", "--wait"]);
    cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    cluster.drover("hv1", &["node", "flush", "hv1", "--wait"]);
    // It is on its way home, too slowly to arrive, when its node dies.
    cluster.set_migration_speed("hv2", "web", 1);
    cluster.drover("hv3", &["node", "ready", "hv1"]);
    cluster.vm_until("hv1", "web", "is sent", |vm| !vm["migration"].is_null());
    cluster.node("hv2").power_off().unwrap();
    cluster.daemon_until("hv1", "hv2", "dead");
    let ready = cluster.try_drover("hv1", &["node", "ready", "hv1", "--wait"]);
    assert_eq!(ready.code, 0, "{ready:?}");
    state_until(&cluster, "hv1", "hv1", "ready");
    // libvirtd ends the half of the guest that has come when its connection from hv2 has been silent for a while.
    cluster.json_until("hv1", &["node", "flush", "hv1", "--plan"], "web does not come", |plan| {
        plan[0]["vm"] == "web" && plan[0]["fate"] == "away"
    });
    cluster.drover("hv1", &["node", "flush", "hv1", "--wait"]);

    // A node that is made ready meanwhile names what does not come home, and why.
    let ready = cluster.try_drover("hv1", &["node", "ready", "hv1", "--wait"]);
    assert_eq!(ready.code, 0, "{ready:?}");
    assert!(ready.err.contains("web does not return: it is held by hv2, whose daemon is in state dead"), "{ready:?}");

    cluster.node("hv2").power_on().unwrap();
    cluster.vm_until("hv1", "web", "is at home", |vm| vm["node"] == "hv1" && vm["run_state"] == "running");
}

/// Where nothing shows beforehand that a node cannot start a VM: its definition names a network of libvirt's that only
/// the other node has.
#[test]
fn a_vm_that_cannot_be_started_where_it_was_moved_goes_back_and_blocks_the_flush() {
    let cluster = Cluster::up(2);
    let network = "<network><name>here</name><forward mode='bridge'/><bridge name='here0'/></network>";
    std::fs::write(cluster.lab.shared().join("network.xml"), network).unwrap();
    let offer = |node: &str| {
        let virsh = |arguments: &[&str]| {
            cluster.node(node).exec(&[&["virsh", "-q", "-c", "qemu:///system"], arguments].concat()).unwrap()
        };
        cluster.node(node).exec(&["ip", "link", "add", "here0", "type", "bridge"]).unwrap();
        virsh(&["net-define", "/srv/shared/network.xml"]);
        virsh(&["net-start", "here"]);
    };
    offer("hv1");
    let card = "<devices><interface type='network'><source network='here'/><model type='virtio'/></interface>";
    let xml = Domain::new("web").xml(&cluster.lab.guest()).replace("<devices>", card);
    cluster.define_xml("hv1", &xml, &["--node", "hv1", "--method", "shutdown", "--start", "--wait"]);
    let mut web = Guest::of(&cluster, "hv1", "web");

    cluster.drover("hv1", &["node", "flush", "hv1"]);
    cluster
        .vm_until("hv1", "web", "is refused by hv2", |vm| vm["doing"].as_str().is_some_and(|d| d.contains("'here'")));
    assert_eq!(
        cluster.json("hv1", &["node", "info", "hv1"])["domain_state"],
        "flush",
        "it is not over before the VM runs"
    );
    // It is tried for about two minutes.
    let back = || {
        let vm = cluster.vm("hv1", "web");
        (vm["node"] == "hv1" && vm["run_state"] == "running").then_some(vm)
    };
    let vm = Lab::until("web is back on hv1", Duration::from_secs(240), back)
        .unwrap_or_else(|e| panic!("{e}: {}\n{}", cluster.vm("hv1", "web"), cluster.logs()));
    web.wait_rebooted_on("hv1");
    let words =
        |text: &serde_json::Value| text.as_str().is_some_and(|text| text.contains("hv2") && text.contains("'here'"));
    assert!(words(&vm["move_failed"]), "{vm}");
    let blocked = |node: &serde_json::Value| node["drain"]["blocked"].as_array().is_some_and(|all| !all.is_empty());
    let node = cluster.json_until("hv1", &["node", "info", "hv1"], "its flush is blocked", blocked);
    assert!(node["drain"].to_string().contains("its move to hv2 failed"), "{node}");
    let faults = || cluster.json("hv1", &["fault", "list"]);
    let is_fault = || faults().as_array()?.iter().any(|fault| words(&fault["message"])).then_some(());
    Lab::until("a fault tells it", Duration::from_secs(60), is_fault).unwrap_or_else(|e| panic!("{e}: {}", faults()));
    let explained = cluster.drover("hv1", &["vm", "explain", "web"]);
    assert!(explained.contains("it could not be started there"), "{explained}");

    // The cause is repaired: an order that names the node brings it there.
    cluster.drover("hv1", &["node", "ready", "hv1", "--wait"]);
    web.wait_only_on(&["hv1"]);
    offer("hv2");
    cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    web.wait_rebooted_on("hv2");
    let none = || faults().as_array()?.iter().all(|fault| !words(&fault["message"])).then_some(());
    Lab::until("the fault is over", Duration::from_secs(60), none).unwrap_or_else(|e| panic!("{e}: {}", faults()));
}
