//! VMs that move between nodes, and faults during a move.

use crate::support::{Cluster, CommandResult, Guest, grants};
use drover_lab::{Cut, Domain, Net, Service};

/// Waits until the node `at` shows a VM with this node, home and number of grants.
fn placed_until(cluster: &Cluster, at: &str, vm: &str, (node, home, epoch): (&str, &str, u64)) {
    cluster.vm_until(at, vm, &format!("is placed: {node:?}, {home:?}, {epoch}"), |vm| {
        vm["node"] == node && vm["last_node"] == home && grants(vm) == epoch
    });
}

/// The same at a node on which a VM has stayed: each send that was called back is two grants. Returns their number.
fn stayed_until(cluster: &Cluster, at: &str, vm: &str, node: &str, before: u64) -> u64 {
    let shown = cluster.vm_until(at, vm, &format!("has stayed on {node} since {before} grants"), |vm| {
        vm["node"] == node && vm["last_node"] == "" && grants(vm) > before && (grants(vm) - before).is_multiple_of(2)
    });
    grants(&shown)
}

fn assert_refused(result: &CommandResult, why: &str) {
    assert!(result.code == 1 && result.err.contains(why), "{result:?}");
}

fn disk(file: &str, cache: &str) -> String {
    format!(
        "<devices><disk type='file' device='disk'><driver name='qemu' type='raw'{cache}/><source \
         file='{file}'/><target dev='vda' bus='virtio'/></disk>"
    )
}

#[test]
fn a_guest_keeps_running_through_migrate_unmigrate_and_move() {
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    placed_until(&cluster, "hv1", "web", ("hv1", "", 1));
    let result = cluster.try_drover("hv3", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    assert!(result.code == 0 && result.err.contains("web is running on hv2"), "{result:?}");
    web.wait_alive_on("hv2");
    placed_until(&cluster, "hv3", "web", ("hv2", "hv1", 2));
    assert!(cluster.drover("hv3", &["vm", "info", "web"]).contains("hv1"), "its home is shown");
    // Its console is read from its current node.
    cluster.console_until("hv3", "web", "HB");

    // A VM away from its home is migrated further only by force.
    assert_refused(&cluster.try_drover("hv3", &["vm", "migrate", "web", "--to", "hv3"]), "away from its home hv1");
    cluster.drover("hv3", &["vm", "migrate", "web", "--to", "hv3", "--force", "--wait"]);
    web.wait_alive_on("hv3");
    placed_until(&cluster, "hv3", "web", ("hv3", "hv1", 3));
    cluster.drover("hv2", &["vm", "unmigrate", "web", "--wait"]);
    web.wait_alive_on("hv1");
    placed_until(&cluster, "hv2", "web", ("hv1", "", 4));
    assert_refused(&cluster.try_drover("hv2", &["vm", "unmigrate", "web"]), "at home");

    // A move makes the chosen node its home.
    let explained = cluster.drover("hv1", &["vm", "explain", "web"]);
    let chosen = explained.lines().find(|line| line.contains("chosen")).unwrap();
    let chosen = chosen.split_whitespace().next().unwrap();
    cluster.drover("hv1", &["vm", "move", "web", "--wait"]);
    web.wait_alive_on(chosen);
    placed_until(&cluster, chosen, "web", (chosen, "", 5));
    cluster.drover(chosen, &["vm", "shutdown", "web", "--wait"]);
    web.wait_only_on(&[]);
}

#[test]
fn a_move_to_an_unsuitable_target_is_refused_with_the_reason() {
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    let to = |node: &str| cluster.try_drover("hv1", &["vm", "migrate", "web", "--to", node, "--wait"]);
    assert_refused(&to("hv9"), "hv1, hv2, hv3");
    assert_refused(&to("hv1"), "the VM is there");
    cluster.drover("hv3", &["node", "flush", "hv3", "--wait"]);
    cluster.node_until("hv1", "hv3", "is flushed", |n| n["domain_state"] == "flushed");
    assert_refused(&to("hv3"), "it is in state flushed");
    cluster.drover("hv3", &["node", "ready", "hv3", "--wait"]);
    cluster.node_until("hv1", "hv3", "is ready", |n| n["domain_state"] == "ready");
    cluster.drover("hv1", &["vm", "meta", "web", "--limit", "hv1,hv2"]);
    assert_refused(&to("hv3"), "the VM is limited to hv1, hv2");
    let big = Domain { memory: 3400, ..Domain::new("big") };
    cluster.define("hv1", &big, &["--node", "hv2", "--start", "--wait"]);
    assert_refused(&to("hv2"), "are free");
    let nowhere = cluster.try_drover("hv1", &["vm", "move", "web"]);
    assert!(["hv2: ", "are free", "hv3: ", "limited to"].iter().all(|part| nowhere.err.contains(part)), "{nowhere:?}");
    assert_eq!(nowhere.code, 1);
    cluster.node("hv3").kill(Service::Drover).unwrap();
    cluster.drover("hv1", &["vm", "meta", "web", "--limit", ""]);
    cluster.daemon_until("hv1", "hv3", "dead");
    assert_refused(&to("hv3"), "its daemon is in state dead");
    web.wait_alive_on("hv1");
    placed_until(&cluster, "hv1", "web", ("hv1", "", 1));
}

#[test]
fn a_vm_that_is_off_moves_without_being_started() {
    let cluster = Cluster::up(2);
    cluster.define("hv1", &Domain::new("web"), &["--node", "hv1"]);
    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    placed_until(&cluster, "hv2", "web", ("hv2", "hv1", 0));
    assert_eq!(cluster.vm("hv2", "web")["state"], "stop");
    cluster.drover("hv2", &["vm", "unmigrate", "web", "--wait"]);
    placed_until(&cluster, "hv2", "web", ("hv1", "", 0));
    cluster.drover("hv2", &["vm", "move", "web", "--to", "hv2"]);
    cluster.drover("hv2", &["vm", "start", "web", "--wait"]);
    Guest::of(&cluster, "hv2", "web").wait_alive_on("hv2");
    placed_until(&cluster, "hv2", "web", ("hv2", "", 1));
}

#[test]
fn a_cold_move_shuts_the_guest_down_and_boots_it_on_the_target() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "shutdown"]);
    assert_refused(&cluster.try_drover("hv2", &["vm", "migrate", "web", "--live"]), "migration method shutdown");
    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    web.wait_rebooted_on("hv2");
    // One epoch for the handover of the VM that is off, and one for its start.
    placed_until(&cluster, "hv2", "web", ("hv2", "hv1", 3));
    // The move of a guest that ignores the power button is cancelled before the deadline.
    let mut deaf = Guest::up(&cluster, "hv1", &Domain::new("deaf").with("noacpi_off"), &["--method", "shutdown"]);
    cluster.drover("hv1", &["vm", "move", "deaf", "--to", "hv2"]);
    cluster.vm_until("hv1", "deaf", "is being shut down", |vm| {
        vm["doing"].as_str().is_some_and(|doing| doing.contains("waiting for the guest"))
    });
    cluster.drover("hv1", &["vm", "migrate", "deaf", "--cancel"]);
    deaf.wait_alive_on("hv1");
    placed_until(&cluster, "hv1", "deaf", ("hv1", "", 1));
}

#[test]
fn a_vm_with_a_disk_moves_only_if_the_disk_is_shared() {
    let cluster = Cluster::up(2);
    let guest = cluster.lab.guest();
    let file = |name: &str| {
        cluster.node("hv1").exec(&["truncate", "-s", "1M", name]).unwrap();
        name.to_owned()
    };
    let up = |name: &str, disk: &str| {
        let xml = Domain::new(name).xml(&guest).replace("<devices>", disk);
        cluster.define_xml("hv1", &xml, &["--node", "hv1", "--start", "--wait"]);
        Guest::of(&cluster, "hv1", name)
    };
    let mut own = up("own", &disk(&file("/var/lib/drover/own.img"), " cache='none'"));
    let mut cached = up("cached", &disk(&file("/srv/shared/cached.img"), ""));
    let mut shared = up("shared", &disk(&file("/srv/shared/shared.img"), " cache='none'"));

    assert_refused(&cluster.try_drover("hv1", &["vm", "migrate", "own", "--wait"]), "paths.shared");
    own.wait_alive_on("hv1");
    // libvirt refuses, because the target might read stale data.
    let result = cluster.try_drover("hv1", &["vm", "migrate", "cached", "--live", "--wait"]);
    assert_refused(&result, "cache");
    cached.wait_alive_on("hv1");
    stayed_until(&cluster, "hv1", "cached", "hv1", 1);

    cluster.drover("hv1", &["vm", "migrate", "shared", "--live", "--wait"]);
    shared.wait_alive_on("hv2");
    let log = cluster.drover("hv1", &["vm", "log", "shared", "-n", "100000"]);
    assert!(!log.contains("disk=error"), "{log}");
    // The guest writes to the disk on its new node, which the other node can see.
    let written = || cluster.node("hv1").exec(&["head", "-c", "30", "/srv/shared/shared.img"]).unwrap();
    let before = written();
    cluster.until("the guest writes to its disk", || (written() != before).then_some(()));
}

#[test]
fn a_migration_under_way_can_be_cancelled() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    web.throttle("hv1");
    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2"]);
    web.wait_sending("hv2");
    let shown = cluster.drover("hv2", &["vm", "info", "web"]);
    assert!(shown.contains("to hv2") && shown.contains("MiB/s"), "its progress is shown: {shown}");
    assert_refused(&cluster.try_drover("hv2", &["vm", "migrate", "web", "--to", "hv2"]), "in state migrate");
    // Cancel, order again, and cancel again, without a pause.
    for order in [&["--cancel"][..], &["--to", "hv2"], &["--cancel"]] {
        cluster.drover("hv2", &[&["vm", "migrate", "web"], order].concat());
    }
    cluster.vm_until("hv2", "web", "has stayed", |vm| vm["state"] == "start" && vm["migration"].is_null());
    web.wait_alive_on("hv1");
    let epoch = stayed_until(&cluster, "hv2", "web", "hv1", 1);
    cluster.set_migration_speed("hv1", "web", 1000);
    cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    web.wait_alive_on("hv2");
    placed_until(&cluster, "hv1", "web", ("hv2", "hv1", epoch + 1));
}

/// A command during a migration is carried out at the end where the guest is.
#[test]
fn a_guest_can_be_shut_down_or_stopped_during_a_migration() {
    let cluster = Cluster::up(2);
    for order in [&["shutdown"][..], &["stop", "--yes"]] {
        let web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
        web.throttle("hv1");
        cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2"]);
        web.wait_sending("hv1");
        cluster.drover("hv2", &[&["vm", order[0], "web", "--wait"], &order[1..]].concat());
        web.wait_only_on(&[]);
        cluster.drover("hv2", &["vm", "undefine", "web", "--yes"]);
    }
}

/// A refused connection is a definite answer, so the move fails at once and the VM stays.
#[test]
fn a_move_fails_if_the_targets_libvirtd_refuses_connections() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "live"]);
    let target = cluster.node("hv2");
    let restarted = |start: &dyn Fn()| {
        target.kill(Service::Libvirt).unwrap();
        cluster.node_until("hv1", "hv2", "has a hypervisor problem", |n| n["hypervisor_problem"] != "");
        start();
        cluster.node_until("hv1", "hv2", "has no hypervisor problem", |n| n["hypervisor_problem"] == "");
    };
    restarted(&|| drop(target.exec(&["libvirtd", "-d"]).unwrap()));
    let result = cluster.try_drover("hv1", &["vm", "move", "web", "--to", "hv2", "--wait"]);
    // The message names the target's address, so it is not about this node's own libvirtd.
    assert_refused(&result, &format!("{}:16509", Net::Cluster.address(2)));
    web.wait_alive_on("hv1");
    stayed_until(&cluster, "hv1", "web", "hv1", 1);
    restarted(&|| target.start_if_down(Service::Libvirt).unwrap());
    cluster.drover("hv1", &["vm", "move", "web", "--to", "hv2", "--wait"]);
    web.wait_alive_on("hv2");
}

/// libvirtd itself would wait for two minutes, and the VM could not be shut down meanwhile.
#[test]
fn a_move_fails_soon_if_nothing_answers_at_the_target() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "live"]);
    let target = cluster.node("hv2");
    let filter = "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; \
        add rule inet deaf in tcp dport 16509 drop";
    target.exec(&["nft", filter]).unwrap();
    let result = cluster.try_drover("hv1", &["vm", "move", "web", "--to", "hv2", "--wait"]);
    assert_refused(&result, &format!("{}:16509 has not answered", Net::Cluster.address(2)));
    web.wait_alive_on("hv1");
    stayed_until(&cluster, "hv1", "web", "hv1", 1);
    target.exec(&["nft", "delete table inet deaf"]).unwrap();
    cluster.drover("hv1", &["vm", "move", "web", "--to", "hv2", "--wait"]);
    web.wait_alive_on("hv2");
}

/// A fault during a live migration.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    SourceDaemon,
    TargetDaemon,
    SourceLibvirt,
    TargetLibvirt,
    TargetLink,
    TargetPower,
}

impl Fault {
    /// Injects the fault, waits for its effect, and repairs it. `at` is the node that takes no part in the migration.
    fn inject(self, cluster: &Cluster, vm: &str, (from, to, at): (&str, &str, &str)) {
        let (source, target) = (cluster.node(from), cluster.node(to));
        let settled = || cluster.vm_until(at, vm, "runs where it was", |vm| vm["state"] == "start");
        match self {
            Fault::SourceDaemon => {
                source.kill(Service::Drover).unwrap();
                cluster.daemon_until(at, from, "dead");
                cluster.vm_until(at, vm, "is unknown", |vm| vm["run_state"] == "unknown");
                source.start_drover().unwrap();
                cluster.set_migration_speed(from, vm, 1000);
            }
            Fault::TargetDaemon => {
                target.kill(Service::Drover).unwrap();
                cluster.daemon_until(at, to, "dead");
                cluster.set_migration_speed(from, vm, 1000);
                cluster.vm_until(at, vm, "is handed over", |vm| vm["claim"]["node"] == to);
                target.start_drover().unwrap();
            }
            Fault::SourceLibvirt => {
                source.kill(Service::Libvirt).unwrap();
                cluster.node_until(at, from, "has a hypervisor problem", |n| n["hypervisor_problem"] != "");
                source.start_if_down(Service::Libvirt).unwrap();
            }
            Fault::TargetLibvirt => {
                target.kill(Service::Libvirt).unwrap();
                settled();
                target.start_if_down(Service::Libvirt).unwrap();
            }
            Fault::TargetLink => {
                cluster.lab.cut(to, Net::Cluster, Cut::Silent).unwrap();
                settled();
                cluster.lab.heal(to, Net::Cluster).unwrap();
            }
            Fault::TargetPower => {
                target.power_off().unwrap();
                settled();
                target.power_on().unwrap();
            }
        }
    }
}

/// After any fault during a live migration, the VM runs on exactly one node, it is the same guest, its record says
/// where it is and why the move failed, and it can be moved again.
#[test]
fn a_guest_survives_any_fault_during_its_migration() {
    use Fault::*;
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "live"]);
    let mut epoch = 1;
    let others = |node: &str| ["hv1", "hv2", "hv3"].into_iter().filter(|n| *n != node).collect::<Vec<_>>();
    let mut from = "hv1";
    for fault in [SourceDaemon, TargetDaemon, SourceLibvirt, TargetLibvirt, TargetLink, TargetPower] {
        eprintln!("{fault:?}");
        let &[to, at] = others(from).as_slice() else { unreachable!() };
        web.throttle(from);
        cluster.drover(at, &["vm", "move", "web", "--to", to]);
        web.wait_sending(at);
        fault.inject(&cluster, "web", (from, to, at));
        cluster.wait_healthy();
        // The reason is shown if it has not arrived, which may be a moment later.
        let vm = cluster.vm_until(at, "web", "has settled", |vm| {
            let why = vm["move_failed"].as_str().unwrap_or_default();
            vm["state"] == "start"
                && vm["run_state"] == "running"
                && vm["migration"].is_null()
                && why.contains(&format!("to {to}: ")) == (vm["node"] == from)
        });
        let now = if vm["node"] == to { to } else { from };
        eprintln!("{fault:?}: on {}, {}", vm["node"], vm["move_failed"]);
        // It may have been called back first, and sent again.
        let stayed = now == from || grants(&vm) > epoch + 1;
        let before = epoch + u64::from(now == to);
        epoch = if stayed { stayed_until(&cluster, at, "web", now, before) } else { before };
        placed_until(&cluster, at, "web", (now, "", epoch));
        web.wait_alive_on(now);

        // Move it again: to the same target, or back from there.
        cluster.set_migration_speed(now, "web", 1000);
        let again = if now == to { from } else { to };
        cluster.drover(at, &["vm", "move", "web", "--to", again, "--wait"]);
        epoch += 1;
        web.wait_alive_on(again);
        placed_until(&cluster, at, "web", (again, "", epoch));
        from = again;
    }
}

/// A guest that came waits, paused and whole, until what it needs is there: its last node has it no more. (QEMU takes
/// the locks of its disks when it lets the guest execute.)
#[test]
fn a_guest_whose_disk_is_locked_at_the_target_waits_there() {
    let cluster = Cluster::up(2);
    let (sender, target) = (cluster.node("hv1"), cluster.node("hv2"));
    let file = "/srv/shared/web.img";
    sender.exec(&["truncate", "-s", "1M", file]).unwrap();
    let xml = Domain::new("web").xml(&cluster.lab.guest()).replace("<devices>", &disk(file, " cache='none'"));
    cluster.define_xml("hv1", &xml, &["--node", "hv1", "--method", "live", "--start", "--wait"]);
    let mut web = Guest::of(&cluster, "hv1", "web");
    // At the target somebody else writes to what has this name there; QEMU finds out when the guest is to go on.
    target.exec(&["truncate", "-s", "1M", "/var/tmp/other.img"]).unwrap();
    target.exec(&["mount", "--bind", "/var/tmp/other.img", file]).unwrap();
    let holder =
        ["qemu-nbd", "--fork", "-t", "-f", "raw", "-k", "/run/holder.sock", "--pid-file=/run/holder.pid", file];
    target.exec(&holder).unwrap();
    cluster.drover("hv1", &["vm", "move", "web", "--to", "hv2"]);
    cluster.vm_until("hv1", "web", "waits at the target", |vm| vm["node"] == "hv2" && vm["run_state"] == "paused");
    let why = "is shown as one that waits for its disk";
    cluster.vm_until("hv1", "web", why, |vm| vm["doing"].as_str().is_some_and(|doing| doing.contains("lock")));
    assert_ne!(cluster.vm("hv1", "web")["paused"]["by"], "administrator");
    web.wait_only_on(&["hv2"]);
    placed_until(&cluster, "hv2", "web", ("hv2", "", 2));
    target.exec(&["sh", "-c", "kill $(cat /run/holder.pid)"]).unwrap();
    cluster.vm_until("hv1", "web", "goes on", |vm| vm["run_state"] == "running");
    web.wait_alive_on("hv2");
}

/// A guest that has arrived executes only when its last node has handed it over.
#[test]
fn a_guest_that_has_arrived_is_paused_until_it_is_handed_over() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "live"]);
    web.throttle("hv1");
    cluster.drover("hv2", &["vm", "move", "web", "--to", "hv2"]);
    web.wait_sending("hv2");
    cluster.node("hv1").kill(Service::Drover).unwrap();
    cluster.set_migration_speed("hv1", "web", 1000);
    cluster.until("it is at the target", || state_of(&cluster, "hv2", "web").contains("paused (user)").then_some(()));
    cluster.daemon_until("hv2", "hv1", "dead");
    web.wait_only_on(&["hv2"]);
    assert_eq!(state_of(&cluster, "hv2", "web").trim(), "paused (user)", "nobody has handed it over");
    placed_until(&cluster, "hv2", "web", ("hv1", "", 1));
    cluster.node("hv1").start_drover().unwrap();
    cluster.vm_until("hv2", "web", "has moved", |vm| vm["state"] == "start" && vm["node"] == "hv2");
    web.wait_alive_on("hv2");
    placed_until(&cluster, "hv2", "web", ("hv2", "", 2));
}

/// The target's answer is lost at the very end: libvirt lets the guest go on at the sender, although it has arrived. If
/// the sender's libvirtd is killed while it waits for the answer, it leaves the guest paused at both ends.
#[test]
fn a_guest_whose_arrival_its_last_node_does_not_hear_of_goes_on_there_only() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "live"]);
    let (sender, target) = (cluster.node("hv1"), cluster.node("hv2"));
    let mut epoch = 1;
    for killed in [false, true] {
        eprintln!("the sender's libvirtd is killed: {killed}");
        web.throttle("hv1");
        cluster.drover("hv1", &["vm", "move", "web", "--to", "hv2"]);
        web.wait_sending("hv1");
        target.kill(Service::Drover).unwrap();
        // What the target's libvirtd says from now on is lost. The guest itself goes by another connection.
        let deaf = "add table inet deaf; add chain inet deaf out { type filter hook output priority 0; }; \
                    add rule inet deaf out tcp sport 16509 drop";
        target.exec(&["nft", deaf]).unwrap();
        cluster.set_migration_speed("hv1", "web", 1000);
        let arrived = || state_of(&cluster, "hv2", "web").contains("paused (user)").then_some(());
        cluster.until("it is at the target", arrived);
        if killed {
            sender.kill(Service::Libvirt).unwrap();
            sender.start_if_down(Service::Libvirt).unwrap();
        }
        let runs = || state_of(&cluster, "hv1", "web").starts_with("running").then_some(());
        cluster.until("it runs where it was", runs);
        web.wait_heartbeat("hv1");
        let states = ["hv1", "hv2"].map(|node| state_of(&cluster, node, "web"));
        assert!(states[0].starts_with("running") && states[1].starts_with("paused (user)"), "{states:?}");
        // The sender tries again if it has not heard yet that the target's daemon is gone; its call then waits for an
        // answer until the target's libvirtd is heard again.
        cluster.drover("hv1", &["vm", "start", "web"]);
        target.exec(&["nft", "delete", "table", "inet", "deaf"]).unwrap();
        cluster.vm_until("hv1", "web", "is not moved", |vm| vm["state"] == "start" && vm["run_state"] == "running");
        target.start_drover().unwrap();
        web.wait_alive_on("hv1");
        epoch = stayed_until(&cluster, "hv1", "web", "hv1", epoch);
        cluster.wait_healthy();
    }
}

/// In post-copy the guest executes at the target with part of its memory still at the source: neither end is destroyed,
/// whichever daemon is killed.
#[test]
fn a_guest_that_never_converges_goes_on_by_post_copy() {
    let cluster = Cluster::up(2);
    cluster.drover("hv1", &["config", "set", "--stall", "post-copy", "--migration-deadline", "2"]);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web").with("busy"), &["--method", "live"]);
    let (mut from, mut to) = ("hv1", "hv2");
    let speed = |node: &str, mib: &str| {
        let set = ["virsh", "-q", "-c", "qemu:///system", "migrate-setspeed", "--postcopy", "web", mib];
        cluster.node(node).exec(&set).unwrap();
    };
    for (round, killed) in [None, Some("source"), Some("target")].into_iter().enumerate() {
        eprintln!("killed: {killed:?}");
        web.throttle(from);
        speed(from, "1");
        cluster.drover(to, &["vm", "move", "web", "--to", to]);
        let torn = |node: &str| state_of(&cluster, node, "web").contains("post-copy");
        cluster.until("it is in post-copy", || (torn(from) && torn(to)).then_some(()));
        if let Some(killed) = killed {
            let node = cluster.node(if killed == "source" { from } else { to });
            node.kill(Service::Drover).unwrap();
            node.start_drover().unwrap();
        }
        cluster.vm_until(to, "web", "is taken over", |vm| vm["claim"]["node"] == to);
        cluster.daemon_until(to, from, "run");
        cluster.daemon_until(from, to, "run");
        assert!(torn(from) && torn(to), "{} and {}", state_of(&cluster, from, "web"), state_of(&cluster, to, "web"));
        speed(from, "1000");
        cluster.vm_until(to, "web", "has moved", |vm| vm["state"] == "start" && vm["run_state"] == "running");
        web.wait_alive_on(to);
        // It was called back, sent by post-copy, and taken over there.
        placed_until(&cluster, to, "web", (to, "", 1 + 3 * (round as u64 + 1)));
        (from, to) = (to, from);
    }
}

/// A domain's state and its reason, as libvirt says it; empty if there is none.
fn state_of(cluster: &Cluster, node: &str, vm: &str) -> String {
    let ask = ["virsh", "-q", "-c", "qemu:///system", "domstate", "--reason", vm];
    cluster.node(node).exec(&ask).unwrap_or_default()
}

#[test]
fn a_guest_that_powers_itself_off_on_its_way_is_stopped() {
    let cluster = Cluster::up(2);
    let web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    web.throttle("hv1");
    cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2"]);
    web.wait_sending("hv2");
    // What somebody at its console would type. QEMU 7.2 looks once a second whether there is anybody (`pty_chr_timer`),
    // so the terminal stays open, and whoever types ends with QEMU.
    let type_it =
        "exec 3>$(virsh -q -c qemu:///system ttyconsole web) && while echo 'poweroff -f'; do sleep 1; done >&3";
    cluster.node("hv1").output(&["sh", "-c", type_it]).unwrap();
    let vm = cluster.vm_until("hv2", "web", "is off", |vm| vm["run_state"] != "running" && vm["claim"]["node"] == "");
    assert_eq!((&vm["state"], &vm["node"]), (&"stop".into(), &"hv1".into()), "{vm}");
    web.wait_only_on(&[]);
}
