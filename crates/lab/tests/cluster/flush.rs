//! Nodes that are taken out of service and put back, with what runs on them.

use crate::support::{Cluster, Guest};
use drover_lab::{Domain, Service};

/// So many guests on each node, all of them up.
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

fn node_of(cluster: &Cluster, at: &str, guest: &Guest<'_>) -> String {
    cluster.vm(at, &guest.name)["node"].as_str().unwrap().to_owned()
}

#[test]
fn a_node_is_emptied_and_filled_again_and_no_guest_notices() {
    let cluster = Cluster::up(3);
    let names = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let names: Vec<_> = names.into_iter().zip(["hv1", "hv2", "hv3"].into_iter().cycle()).collect();
    let mut guests = guests(&cluster, &names, &[]);

    // What would become of them is told first, and is what becomes of them.
    let plan = cluster.json("hv2", &["node", "flush", "hv1", "--plan"]);
    assert_eq!(plan.as_array().map(Vec::len), Some(3), "{plan}");
    assert!(plan.as_array().unwrap().iter().all(|fate| fate["fate"] == "moves"), "{plan}");
    assert_eq!(cluster.json("hv2", &["node", "info", "hv1"])["domain_state"], "ready");
    cluster.drover("hv2", &["node", "flush", "hv1"]);
    state_until(&cluster, "hv1", "hv1", "flushed");
    let left = cluster.node("hv1").exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all"]).unwrap();
    assert_eq!(left.trim(), "", "it is flushed when its hypervisor says so");
    for (guest, (name, home)) in guests.iter_mut().zip(&names) {
        let vm = cluster.vm("hv1", name);
        let away = *home == "hv1";
        assert_eq!(vm["last_node"], if away { "hv1" } else { "" }, "{vm}");
        assert_eq!(vm["node"] != *home, away, "{vm}");
        guest.lives_on(vm["node"].as_str().unwrap());
    }

    // Nothing comes to it; it is no target and gets no new VM.
    let said = cluster.say("hv2", &["vm", "migrate", "two", "--to", "hv1"]);
    assert!(said.code == 1 && said.err.contains("flushed"), "{said:?}");
    cluster.drover("hv2", &["node", "ready", "hv1", "--wait"]);
    for (guest, (name, home)) in guests.iter_mut().zip(&names) {
        cluster.vm_until(home, name, "is at home", |vm| vm["node"] == *home && vm["last_node"] == "");
        guest.lives_on(home);
    }

    // Two at once go to the one that is left, not to each other.
    for node in ["hv1", "hv2"] {
        cluster.drover("hv3", &["node", "flush", node]);
    }
    for node in ["hv1", "hv2"] {
        cluster.node_until("hv3", node, "takes no VMs", |n| n["domain_state"] != "ready");
    }
    for node in ["hv1", "hv2"] {
        let plan = cluster.json("hv3", &["node", "flush", node, "--plan"]);
        let moves = plan.as_array().unwrap().iter().filter(|fate| fate["fate"] == "moves");
        assert!(moves.clone().all(|fate| fate["to"] == "hv3"), "{plan}");
    }
    for node in ["hv1", "hv2"] {
        state_until(&cluster, "hv3", node, "flushed");
        assert_eq!(cluster.running(node), Vec::<String>::new());
    }
    for (guest, (name, home)) in guests.iter_mut().zip(&names) {
        let vm = cluster.vm("hv3", name);
        let away = if *home == "hv3" { "" } else { home };
        assert_eq!((&vm["node"], &vm["last_node"]), (&"hv3".into(), &away.into()), "{vm}");
        guest.lives_on("hv3");
    }
    // Nobody would be left.
    let said = cluster.say("hv1", &["node", "flush", "hv3", "--yes", "--wait"]);
    assert!(said.code == 1 && said.err.contains("last node"), "{said:?}");
    state_until(&cluster, "hv1", "hv3", "ready");
    for node in ["hv1", "hv2"] {
        cluster.drover("hv3", &["node", "ready", node]);
    }
    for node in ["hv1", "hv2"] {
        state_until(&cluster, "hv3", node, "ready");
    }
    for (guest, (_, home)) in guests.iter_mut().zip(&names) {
        guest.lives_on(home);
    }
}

#[test]
fn another_order_takes_a_flush_back_at_once() {
    let cluster = Cluster::up(2);
    cluster.drover("hv1", &["config", "set", "--moves-per-source", "1"]);
    let mut guests = guests(&cluster, &[("one", "hv1"), ("two", "hv1"), ("three", "hv1")], &["--method", "live"]);
    for guest in &guests {
        guest.slowly("hv1");
    }
    cluster.drover("hv2", &["node", "flush", "hv1"]);
    let moving = |vm: &Guest<'_>| !cluster.vm("hv1", &vm.name)["migration"].is_null();
    cluster.node_until("hv1", "hv1", "has begun", |n| n["drain"]["moving"] == 1);
    let mover = guests.iter().position(moving).unwrap();
    guests[mover].is_being_sent("hv1");
    assert_eq!(guests.iter().filter(|vm| moving(vm)).count(), 1, "one at a time, as configured");

    cluster.drover("hv2", &["node", "ready", "hv1"]);
    // At once: nothing that is under way is waited for.
    state_until(&cluster, "hv2", "hv1", "unflush");
    assert!(moving(&guests[mover]), "what is in flight comes to its end");
    cluster.speed("hv1", &guests[mover].name, 1000);
    state_until(&cluster, "hv2", "hv1", "ready");
    for (i, guest) in guests.iter_mut().enumerate() {
        guest.lives_on("hv1");
        let vm = cluster.vm_until("hv2", &guest.name, "is at home", |vm| vm["node"] == "hv1" && vm["last_node"] == "");
        assert_eq!(vm["claim"]["epoch"], if i == mover { 3 } else { 1 }, "no other has moved: {vm}");
    }

    // And the other way round: a flush takes the way home back.
    for guest in &guests {
        cluster.speed("hv1", &guest.name, 1000);
    }
    cluster.drover("hv1", &["node", "flush", "hv1", "--wait"]);
    for guest in &guests {
        guest.slowly("hv2");
    }
    cluster.drover("hv1", &["node", "ready", "hv1"]);
    cluster.node_until("hv1", "hv1", "has begun", |n| n["drain"]["moving"].as_u64() > Some(0));
    cluster.drover("hv1", &["node", "flush", "hv1"]);
    state_until(&cluster, "hv1", "hv1", "flush");
    for guest in &guests {
        cluster.speed("hv2", &guest.name, 1000);
    }
    state_until(&cluster, "hv2", "hv1", "flushed");
    for guest in &mut guests {
        guest.lives_on("hv2");
    }
}

#[test]
fn a_vm_with_nowhere_to_go_is_off_until_its_node_is_back() {
    let cluster = Cluster::up(2);
    let mut bound = Guest::up(&cluster, "hv1", &Domain::new("bound"), &["--limit", "hv1"]);
    let mut free = Guest::up(&cluster, "hv1", &Domain::new("free"), &[]);
    cluster.define("hv1", &Domain::new("idle"), &["--limit", "hv1"]);
    let plan = cluster.drover("hv1", &["node", "flush", "hv1", "--plan"]);
    assert!(plan.contains("limited to hv1"), "why it cannot move is told: {plan}");
    // Without a word of consent nothing is shut down.
    let said = cluster.say("hv1", &["node", "flush", "hv1", "--wait"]);
    assert!(said.code != 0 && said.err.contains("--yes"), "{said:?}");
    assert_eq!(cluster.json("hv1", &["node", "info", "hv1"])["domain_state"], "ready");

    cluster.drover("hv1", &["node", "flush", "hv1", "--yes", "--wait"]);
    bound.is_only_on(&[]);
    free.lives_on("hv2");
    let off = |vm: &serde_json::Value| vm["state"] == "stop" && vm["node"] == "hv1" && vm["node_autostart"] == true;
    cluster.vm_until("hv2", "bound", "is off, and starts again with its node", off);
    cluster.console_until("hv1", "bound", "ACPI POWER BUTTON");
    cluster.drover("hv2", &["node", "ready", "hv1", "--wait"]);
    bound.has_rebooted_on("hv1");
    free.lives_on("hv1");
    let once = cluster.vm("hv1", "bound");
    assert_eq!((&once["state"], &once["node_autostart"]), (&"start".into(), &false.into()), "{once}");
    let idle = cluster.vm("hv1", "idle");
    assert_eq!(
        (&idle["state"], &idle["claim"]["epoch"]),
        (&"stop".into(), &0.into()),
        "what was off stays off: {idle}"
    );
}

#[test]
fn a_flush_comes_to_its_end_though_a_target_fails() {
    let cluster = Cluster::up(3);
    let mut guests = guests(&cluster, &[("one", "hv1"), ("two", "hv1"), ("three", "hv1")], &["--method", "live"]);
    for guest in &guests {
        guest.slowly("hv1");
    }
    cluster.drover("hv1", &["node", "flush", "hv1"]);
    let first = cluster.vm_until("hv1", "one", "is being sent", |vm| vm["migration"]["sent"].as_u64() > Some(0));
    let target = first["migration"]["to"].as_str().unwrap();
    cluster.node(target).kill(Service::Libvirt).unwrap();
    // Whoever was on the way there goes to the other.
    let other = if target == "hv2" { "hv3" } else { "hv2" };
    for guest in &guests {
        let look = |vm: &serde_json::Value| vm["migration"]["to"] != target;
        cluster.vm_until("hv1", &guest.name, "turns round", look);
        // It may be there already.
        let fast = ["virsh", "-c", "qemu:///system", "migrate-setspeed", &guest.name, "1000"];
        let _done = cluster.node("hv1").output(&fast).unwrap();
    }
    state_until(&cluster, "hv1", "hv1", "flushed");
    assert_eq!(cluster.running("hv1"), Vec::<String>::new());
    cluster.node(target).start_if_down(Service::Libvirt).unwrap();
    cluster.all_well();
    for guest in &mut guests {
        assert_eq!(node_of(&cluster, "hv1", guest), other);
        guest.lives_on(other);
    }
    cluster.drover("hv1", &["node", "ready", "hv1", "--wait"]);
    for guest in &mut guests {
        guest.lives_on("hv1");
    }
}
