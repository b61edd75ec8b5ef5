//! VMs that move between nodes, and what happens to them on their way.

use crate::support::{Cluster, Guest, PATIENCE, Said};
use drover_lab::{Cut, Domain, Lab, Net, Service};

/// Where a VM is, where its home is, and how often it was granted.
fn whereabouts(cluster: &Cluster, at: &str, vm: &str) -> (String, String, u64) {
    let vm = cluster.vm(at, vm);
    let text = |of: &str| vm[of].as_str().unwrap().to_owned();
    (text("node"), text("last_node"), vm["claim"]["epoch"].as_u64().unwrap())
}

fn is_at(node: &str, home: &str, epoch: u64) -> (String, String, u64) {
    (node.to_owned(), home.to_owned(), epoch)
}

fn refused(said: &Said, why: &str) {
    assert!(said.code == 1 && said.err.contains(why), "{said:?}");
}

fn disk(file: &str, cache: &str) -> String {
    format!(
        "<devices><disk type='file' device='disk'><driver name='qemu' type='raw'{cache}/><source file='{file}'/><target dev='vda' bus='virtio'/></disk>"
    )
}

#[test]
fn a_running_vm_goes_there_and_back_and_does_not_notice() {
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    assert_eq!(whereabouts(&cluster, "hv1", "web"), is_at("hv1", "", 1));
    let said = cluster.say("hv3", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    assert!(said.code == 0 && said.err.contains("web is running on hv2"), "{said:?}");
    web.lives_on("hv2");
    assert_eq!(whereabouts(&cluster, "hv3", "web"), is_at("hv2", "hv1", 2));
    assert!(cluster.drover("hv3", &["vm", "info", "web"]).contains("hv1"), "its home is shown");
    // Its console is where it is now.
    cluster.console_until("hv3", "web", "HB");

    // It has gone away for a while already.
    refused(&cluster.say("hv3", &["vm", "migrate", "web", "--to", "hv3"]), "away from its home hv1");
    cluster.drover("hv3", &["vm", "migrate", "web", "--to", "hv3", "--force", "--wait"]);
    web.lives_on("hv3");
    assert_eq!(whereabouts(&cluster, "hv3", "web"), is_at("hv3", "hv1", 3));
    cluster.drover("hv2", &["vm", "unmigrate", "web", "--wait"]);
    web.lives_on("hv1");
    assert_eq!(whereabouts(&cluster, "hv2", "web"), is_at("hv1", "", 4));
    refused(&cluster.say("hv2", &["vm", "unmigrate", "web"]), "at home");

    // For good, to where it would go.
    let explained = cluster.drover("hv1", &["vm", "explain", "web"]);
    let chosen = explained.lines().find(|line| line.contains("chosen")).unwrap();
    let chosen = chosen.split_whitespace().next().unwrap();
    cluster.drover("hv1", &["vm", "move", "web", "--wait"]);
    web.lives_on(chosen);
    assert_eq!(whereabouts(&cluster, chosen, "web"), is_at(chosen, "", 5));
    cluster.drover(chosen, &["vm", "shutdown", "web", "--wait"]);
    web.is_only_on(&[]);
}

#[test]
fn a_target_that_cannot_take_it_is_refused_with_the_reason() {
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    let to = |node: &str| cluster.say("hv1", &["vm", "migrate", "web", "--to", node, "--wait"]);
    refused(&to("hv9"), "hv1, hv2, hv3");
    refused(&to("hv1"), "the VM is there");
    cluster.drover("hv3", &["node", "flush", "hv3", "--wait"]);
    cluster.node_until("hv1", "hv3", "is flushed", |n| n["domain_state"] == "flushed");
    refused(&to("hv3"), "it is in state flushed");
    cluster.drover("hv3", &["node", "ready", "hv3", "--wait"]);
    cluster.node_until("hv1", "hv3", "is ready", |n| n["domain_state"] == "ready");
    cluster.drover("hv1", &["vm", "meta", "web", "--limit", "hv1,hv2"]);
    refused(&to("hv3"), "the VM is limited to hv1, hv2");
    let big = Domain { memory: 3400, ..Domain::new("big") };
    cluster.define("hv1", &big, &["--node", "hv2", "--start", "--wait"]);
    refused(&to("hv2"), "are free");
    let nowhere = cluster.say("hv1", &["vm", "move", "web"]);
    assert!(["hv2: ", "are free", "hv3: ", "limited to"].iter().all(|part| nowhere.err.contains(part)), "{nowhere:?}");
    assert_eq!(nowhere.code, 1);
    cluster.node("hv3").kill(Service::Drover).unwrap();
    cluster.drover("hv1", &["vm", "meta", "web", "--limit", ""]);
    cluster.daemon_until("hv1", "hv3", "dead");
    refused(&to("hv3"), "its daemon is in state dead");
    web.lives_on("hv1");
    assert_eq!(whereabouts(&cluster, "hv1", "web"), is_at("hv1", "", 1), "nothing has happened");
}

#[test]
fn a_vm_that_is_off_only_gets_another_node() {
    let cluster = Cluster::up(2);
    cluster.define("hv1", &Domain::new("web"), &["--node", "hv1"]);
    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    assert_eq!(whereabouts(&cluster, "hv2", "web"), is_at("hv2", "hv1", 0));
    assert_eq!(cluster.vm("hv2", "web")["state"], "stop");
    cluster.drover("hv2", &["vm", "unmigrate", "web", "--wait"]);
    assert_eq!(whereabouts(&cluster, "hv2", "web"), is_at("hv1", "", 0));
    cluster.drover("hv2", &["vm", "move", "web", "--to", "hv2"]);
    cluster.drover("hv2", &["vm", "start", "web", "--wait"]);
    Guest::of(&cluster, "hv2", "web").lives_on("hv2");
    assert_eq!(whereabouts(&cluster, "hv2", "web"), is_at("hv2", "", 1));
}

#[test]
fn a_cold_move_shuts_it_down_and_boots_it_at_the_target() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "shutdown"]);
    refused(&cluster.say("hv2", &["vm", "migrate", "web", "--live"]), "migration method shutdown");
    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    web.has_rebooted_on("hv2");
    // One grant for the VM that is handed over while it is off, and one for the guest that starts.
    assert_eq!(whereabouts(&cluster, "hv2", "web"), is_at("hv2", "hv1", 3));
    // One that ignores the button is taken back in time, and runs on.
    let mut deaf = Guest::up(&cluster, "hv1", &Domain::new("deaf").with("noacpi_off"), &["--method", "shutdown"]);
    cluster.drover("hv1", &["vm", "move", "deaf", "--to", "hv2"]);
    cluster.vm_until("hv1", "deaf", "is asked to power off", |vm| {
        vm["doing"].as_str().is_some_and(|doing| doing.contains("waiting for the guest"))
    });
    cluster.drover("hv1", &["vm", "migrate", "deaf", "--cancel"]);
    deaf.lives_on("hv1");
    assert_eq!(whereabouts(&cluster, "hv1", "deaf"), is_at("hv1", "", 1));
}

#[test]
fn a_disk_goes_along_only_if_the_target_has_it_too() {
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

    refused(&cluster.say("hv1", &["vm", "migrate", "own", "--wait"]), "paths.shared");
    own.lives_on("hv1");
    // libvirt knows that the target might read what is old.
    let said = cluster.say("hv1", &["vm", "migrate", "cached", "--live", "--wait"]);
    refused(&said, "cache");
    cached.lives_on("hv1");
    assert_eq!(whereabouts(&cluster, "hv1", "cached"), is_at("hv1", "", 1));

    cluster.drover("hv1", &["vm", "migrate", "shared", "--live", "--wait"]);
    shared.lives_on("hv2");
    let log = cluster.drover("hv1", &["vm", "log", "shared", "-n", "100000"]);
    assert!(!log.contains("disk=error"), "{log}");
    // It writes there, and the other node sees it.
    let written = || cluster.node("hv1").exec(&["head", "-c", "30", "/srv/shared/shared.img"]).unwrap();
    let before = written();
    Lab::until("the guest writes", PATIENCE, || (written() != before).then_some(())).unwrap();
}

#[test]
fn a_move_under_way_is_taken_back() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    web.slowly("hv1");
    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2"]);
    web.is_being_sent("hv2");
    let shown = cluster.drover("hv2", &["vm", "info", "web"]);
    assert!(shown.contains("to hv2") && shown.contains("MiB/s"), "how far it is: {shown}");
    refused(&cluster.say("hv2", &["vm", "migrate", "web", "--to", "hv2"]), "in state migrate");
    // Ordered again at once, and taken back again.
    for order in [&["--cancel"][..], &["--to", "hv2"], &["--cancel"]] {
        cluster.drover("hv2", &[&["vm", "migrate", "web"], order].concat());
    }
    cluster.vm_until("hv2", "web", "has stayed", |vm| vm["state"] == "start" && vm["migration"].is_null());
    web.lives_on("hv1");
    assert_eq!(whereabouts(&cluster, "hv2", "web"), is_at("hv1", "", 1));
    cluster.speed("hv1", "web", 1000);
    cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    web.lives_on("hv2");
    assert_eq!(whereabouts(&cluster, "hv1", "web"), is_at("hv2", "hv1", 2));
}

/// An order that comes in the middle of a migration is done at the end where the guest is.
#[test]
fn a_guest_on_its_way_is_shut_down_and_cut() {
    let cluster = Cluster::up(2);
    for order in [&["shutdown"][..], &["stop", "--yes"]] {
        let web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
        web.slowly("hv1");
        cluster.drover("hv1", &["vm", "migrate", "web", "--to", "hv2"]);
        web.is_being_sent("hv1");
        cluster.drover("hv2", &[&["vm", order[0], "web", "--wait"], &order[1..]].concat());
        web.is_only_on(&[]);
        cluster.drover("hv2", &["vm", "undefine", "web", "--yes"]);
    }
}

/// A libvirtd that takes no connections from others is an answer, not a doubt: the move ends with it.
#[test]
fn a_target_whose_libvirt_refuses_the_guest_ends_the_move() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "live"]);
    let target = cluster.node("hv2");
    let restarted = |start: &dyn Fn()| {
        target.kill(Service::Libvirt).unwrap();
        cluster.node_until("hv1", "hv2", "says that its hypervisor is gone", |n| n["hypervisor_problem"] != "");
        start();
        cluster.node_until("hv1", "hv2", "has its hypervisor again", |n| n["hypervisor_problem"] == "");
    };
    restarted(&|| drop(target.exec(&["libvirtd", "-d"]).unwrap()));
    let said = cluster.say("hv1", &["vm", "move", "web", "--to", "hv2", "--wait"]);
    // Where it could not connect to, and so not what this node says of its own libvirtd.
    refused(&said, &format!("{}:16509", Net::Cluster.address(2)));
    web.lives_on("hv1");
    assert_eq!(whereabouts(&cluster, "hv1", "web"), is_at("hv1", "", 1));
    restarted(&|| target.start_if_down(Service::Libvirt).unwrap());
    cluster.drover("hv1", &["vm", "move", "web", "--to", "hv2", "--wait"]);
    web.lives_on("hv2");
}

/// What goes wrong in the middle of a live migration.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    SendersDaemon,
    TargetsDaemon,
    SendersLibvirt,
    TargetsLibvirt,
    TargetsLink,
    TargetsPower,
}

impl Fault {
    /// Lets it happen, and puts it right again. `at` is the node that has nothing to do with it.
    fn strike(self, cluster: &Cluster, vm: &str, (from, to, at): (&str, &str, &str)) {
        let (sender, target) = (cluster.node(from), cluster.node(to));
        let settled = || cluster.vm_until(at, vm, "runs where it was", |vm| vm["state"] == "start");
        match self {
            Fault::SendersDaemon => {
                sender.kill(Service::Drover).unwrap();
                cluster.daemon_until(at, from, "dead");
                assert_eq!(cluster.vm(at, vm)["run_state"], "unknown");
                sender.start_drover().unwrap();
                cluster.speed(from, vm, 1000);
            }
            Fault::TargetsDaemon => {
                target.kill(Service::Drover).unwrap();
                cluster.daemon_until(at, to, "dead");
                cluster.speed(from, vm, 1000);
                cluster.vm_until(at, vm, "is handed over", |vm| vm["claim"]["node"] == to);
                target.start_drover().unwrap();
            }
            Fault::SendersLibvirt => {
                sender.kill(Service::Libvirt).unwrap();
                cluster.node_until(at, from, "says what is wrong", |n| n["hypervisor_problem"] != "");
                sender.start_if_down(Service::Libvirt).unwrap();
            }
            Fault::TargetsLibvirt => {
                target.kill(Service::Libvirt).unwrap();
                settled();
                target.start_if_down(Service::Libvirt).unwrap();
            }
            Fault::TargetsLink => {
                cluster.lab.cut(to, Net::Cluster, Cut::Silent).unwrap();
                settled();
                cluster.lab.heal(to, Net::Cluster).unwrap();
            }
            Fault::TargetsPower => {
                target.power_off().unwrap();
                settled();
                target.power_on().unwrap();
            }
        }
    }
}

/// Whatever happens in the middle of a live migration: the VM runs in one place, it is the same guest, it says where
/// and why, and it can be moved again.
#[test]
fn a_migration_survives_whatever_happens_on_its_way() {
    use Fault::*;
    let cluster = Cluster::up(3);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &["--method", "live"]);
    let mut epoch = 1;
    let others = |node: &str| ["hv1", "hv2", "hv3"].into_iter().filter(|n| *n != node).collect::<Vec<_>>();
    let mut from = "hv1";
    for fault in [SendersDaemon, TargetsDaemon, SendersLibvirt, TargetsLibvirt, TargetsLink, TargetsPower] {
        eprintln!("{fault:?}");
        let &[to, at] = others(from).as_slice() else { unreachable!() };
        web.slowly(from);
        cluster.drover(at, &["vm", "move", "web", "--to", to]);
        web.is_being_sent(at);
        fault.strike(&cluster, "web", (from, to, at));
        cluster.all_well();
        let vm = cluster.vm_until(at, "web", "has come to rest", |vm| {
            vm["state"] == "start" && vm["run_state"] == "running" && vm["migration"].is_null()
        });
        let now = if vm["node"] == to { to } else { from };
        epoch += u64::from(now == to);
        let why = vm["move_failed"].as_str().unwrap();
        eprintln!("{fault:?}: on {}, {why:?}", vm["node"]);
        assert_eq!(whereabouts(&cluster, at, "web"), is_at(now, "", epoch), "{fault:?}: {vm}");
        assert_eq!(why.contains(&format!("to {to}: ")), now == from, "{fault:?}: it says why it stayed: {why:?}");
        web.lives_on(now);

        // Again: to the node that was to have it, or back from there.
        cluster.speed(now, "web", 1000);
        let again = if now == to { from } else { to };
        cluster.drover(at, &["vm", "move", "web", "--to", again, "--wait"]);
        epoch += 1;
        web.lives_on(again);
        assert_eq!(whereabouts(&cluster, at, "web"), is_at(again, "", epoch), "{fault:?}");
        from = again;
    }
}
