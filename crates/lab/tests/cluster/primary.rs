//! The role of the primary passes on: by order, and when its holder dies, is stopped, or is cut off.

use crate::support::{Cluster, PATIENCE};
use drover_lab::{Cut, Lab, Net, Service};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// The floating addresses that users see, one of each kind.
const UPSTREAM: [&str; 2] = ["203.0.113.200", "2001:db8:5::200"];
/// All of them, without IPv6.
const ALL: [&str; 4] = ["203.0.113.200", "10.0.0.200", "10.0.1.200", "169.254.169.254"];
const NODES: [&str; 3] = ["hv1", "hv2", "hv3"];

impl Cluster {
    /// The node that every daemon takes for the primary, when no handoff is under way.
    fn primary(&self) -> String {
        let look = || {
            let on = self.lab.nodes().into_iter().filter(|node| node.is_on());
            let names: BTreeSet<Option<String>> = on.map(|node| self.primary_by(node.name())).collect();
            names.first().cloned().flatten().filter(|_| names.len() == 1)
        };
        Lab::until("all agree on a primary", PATIENCE, look).unwrap_or_else(|e| panic!("{e}\n{}", self.logs()))
    }

    /// The same, by one node's word.
    fn primary_by(&self, node: &str) -> Option<String> {
        let said = self.say(node, &["-f", "json", "node", "list"]);
        let nodes: Value = serde_json::from_str(&said.out).ok()?;
        let named = |state: &str| {
            let all = nodes.as_array()?.iter();
            all.filter(|n| n["coordinator_state"] == state).map(|n| n["name"].as_str().map(str::to_owned)).next()?
        };
        if named("takeover").or(named("relinquish")).is_some() { None } else { named("primary") }
    }

    /// Waits until another node than this one is the primary, and has all addresses.
    fn primary_other_than(&self, old: &str) -> String {
        let asked = NODES.into_iter().find(|node| *node != old).unwrap();
        let look = || self.primary_by(asked).filter(|new| new != old);
        let new = Lab::until(&format!("another than {old} is the primary"), PATIENCE, look);
        let new = new.unwrap_or_else(|e| panic!("{e}\n{}", self.logs()));
        self.has_all(&new);
        new
    }

    /// Waits until a node has every floating address, and no other has any.
    fn has_all(&self, node: &str) {
        let look = || {
            let all = ALL.iter().chain(&UPSTREAM);
            let whose = |address: &str| self.owners(address) == [node];
            all.copied().all(whose).then_some(())
        };
        let failed = |e| panic!("{e}: {:?}\n{}", ALL.map(|a| (a, self.owners(a))), self.logs());
        Lab::until(&format!("{node} has all addresses, and nobody else has any"), PATIENCE, look)
            .unwrap_or_else(failed);
    }

    /// The nodes that have an address, by their kernels' word.
    fn owners(&self, address: &str) -> Vec<String> {
        let on = self.lab.nodes().into_iter().filter(|node| node.is_on());
        on.filter(|node| has(&node.exec(&["ip", "-o", "addr"]).unwrap_or_default(), address))
            .map(|node| node.name().to_owned())
            .collect()
    }

    /// Has the role pass to a node, and waits for that.
    fn make_primary(&self, at: &str, node: &str) {
        self.drover(at, &["node", "primary", node, "--wait"]);
        self.has_all(node);
    }

    fn ip_in_client(&self, arguments: &[&str]) -> String {
        let output = self.lab.client(&[&["ip"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "ip {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn has(listing: &str, address: &str) -> bool {
    listing.split_whitespace().any(|word| word.split('/').next() == Some(address))
}

/// Pings of the floating addresses from the client, 40 in a second.
struct Pings(Vec<Option<Child>>);

impl Pings {
    fn start(cluster: &Cluster) -> Pings {
        let ping = |address: &str| {
            let mut command = cluster.lab.client(&["ping", "-n", "-i", "0.025", address]);
            Some(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
        };
        Pings(UPSTREAM.map(ping).into_iter().collect())
    }

    /// Ends them, and gives the numbers of those without an answer, up to the last that has one; of each address.
    fn lost(mut self) -> Vec<Vec<u32>> {
        self.0.iter_mut().filter_map(Option::take).map(lost).collect()
    }
}

fn interrupt(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may be gone already.
        kill_process(pid, Signal::INT).ok();
    }
}

fn lost(child: Child) -> Vec<u32> {
    interrupt(&child);
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse::<u32>().ok();
    let answered: BTreeSet<u32> = said.lines().filter(|l| l.contains(" bytes from ")).filter_map(number).collect();
    let (Some(first), Some(last)) = (answered.first(), answered.last()) else { panic!("nothing was answered: {said}") };
    (*first..=*last).filter(|n| !answered.contains(n)).collect()
}

impl Drop for Pings {
    fn drop(&mut self) {
        for mut child in self.0.iter_mut().filter_map(Option::take) {
            interrupt(&child);
            // How it ended does not matter.
            child.wait().ok();
        }
    }
}

/// Looks all the time whether two nodes have the upstream address at once.
struct Watchdog {
    stop: Arc<AtomicBool>,
    twice: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(cluster: &Cluster) -> Watchdog {
        let (stop, twice) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let folder = cluster.lab.folder().to_owned();
        let (stopping, found) = (stop.clone(), twice.clone());
        let thread = thread::spawn(move || {
            let lab = Lab::open(&folder).unwrap();
            let owners = || {
                let on = lab.nodes().into_iter().filter(|node| node.is_on());
                let listing = |node: &drover_lab::Node<'_>| node.exec(&["ip", "-o", "addr"]).unwrap_or_default();
                on.filter(|node| has(&listing(node), UPSTREAM[0])).map(|n| n.name().to_owned()).collect::<Vec<_>>()
            };
            while !stopping.load(Ordering::Relaxed) {
                // The nodes are looked at one after the other. What two looks in a row see was so in between.
                let (first, second) = (owners(), owners());
                if first.len() > 1 && first == second {
                    found.lock().unwrap().push(first.join(" and "));
                }
            }
        });
        Watchdog { stop, twice, thread: Some(thread) }
    }

    fn saw_nothing(mut self, cluster: &Cluster) {
        self.end();
        let twice = self.twice.lock().unwrap().clone();
        assert_eq!(twice, Vec::<String>::new(), "two nodes had the address at once\n{}", cluster.logs());
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of its has been told already.
            thread.join().ok();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn the_role_is_handed_around_and_no_packet_is_lost() {
    let cluster = Cluster::up(3);
    for node in NODES {
        // A node that forwards would hide that nobody was told of the address's new place.
        assert_eq!(cluster.node(node).exec(&["cat", "/proc/sys/net/ipv4/ip_forward"]).unwrap().trim(), "0");
    }
    let first = cluster.primary();
    cluster.has_all(&first);
    assert_eq!(cluster.say("hv1", &["node", "is-primary", &first]).code, 0);
    let status = cluster.json("hv2", &["status"]);
    assert_eq!((&status["primary_node"], &status["upstream_ip"]), (&first.as_str().into(), &"203.0.113.200/24".into()));

    let pings = Pings::start(&cluster);
    let mut holders = BTreeMap::new();
    for round in 0..20 {
        let old = cluster.primary();
        let at = NODES[round % 3];
        if round % 5 == 4 {
            cluster.drover(at, &["node", "secondary", &old, "--wait"]);
            let new = cluster.primary();
            assert_ne!(new, old);
            cluster.has_all(&new);
            *holders.entry(new).or_insert(0) += 1;
        } else {
            let new = NODES.into_iter().cycle().skip_while(|n| *n != old).nth(1).unwrap();
            cluster.make_primary(at, new);
            *holders.entry(new.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(pings.lost(), vec![Vec::<u32>::new(); 2], "{holders:?}\n{}", cluster.logs());
    assert_eq!(holders.len(), 3, "each had it: {holders:?}");

    // One machine answers for the address, and it is the primary's.
    let holder = cluster.primary();
    cluster.ip_in_client(&["neigh", "flush", "all"]);
    cluster.lab.client(&["ping", "-c1", "-W5", UPSTREAM[0]]).output().unwrap();
    let mac = cluster.node(&holder).exec(&["cat", "/sys/class/net/eth1/address"]).unwrap();
    let neighbours = cluster.ip_in_client(&["neigh", "show", UPSTREAM[0]]);
    assert!(neighbours.contains(mac.trim()), "{neighbours} is not {holder}'s {mac}");

    // Over the floating address, a new token's owner hears of the next handoff by nothing but its success.
    let token = cluster.json(&holder, &["token", "create", "client"]);
    let token = token["token"].as_str().unwrap().to_owned();
    let program = cluster.lab.folder().join("programs/drover");
    let say = |arguments: &[&str]| {
        let mut command = cluster.lab.client(&[&[program.to_str().unwrap()], arguments].concat());
        command.env("DROVER_API", "http://203.0.113.200:7370").env("DROVER_TOKEN", &token);
        crate::support::Said::from(command.output().unwrap())
    };
    let (stop, passing) = (AtomicBool::new(false), &cluster);
    thread::scope(|scope| {
        let rounds = scope.spawn(|| {
            let mut said = 0;
            while !stop.load(Ordering::Relaxed) {
                let (name, mut unsure) = (format!("t{said}"), false);
                for arguments in
                    [&["token", "create", &name][..], &["node", "list"], &["token", "revoke", &name, "--yes"]]
                {
                    let answer = say(arguments);
                    // What was perhaps not made need not be there.
                    let gone = unsure && answer.code == 3;
                    unsure |= answer.err.contains("not known whether it was done");
                    assert!(
                        answer.code == 0 || gone || answer.err.contains("not known whether it was done"),
                        "{arguments:?} during a handoff: {answer:?}"
                    );
                }
                said += 1;
            }
            said
        });
        for node in ["hv1", "hv2", "hv3", "hv1", "hv2", "hv3"] {
            passing.make_primary(node, node);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(rounds.join().unwrap() > 3);
    });
}

#[test]
fn a_daemon_that_dies_is_stopped_or_ends_loses_the_role_and_nobody_has_it_twice() {
    let cluster = Cluster::up(3);
    let old = cluster.primary();
    cluster.has_all(&old);

    // At once there again: it goes on where its predecessor was.
    let pings = Pings::start(&cluster);
    let epoch = || cluster.primary();
    cluster.node(&old).kill(Service::Drover).unwrap();
    cluster.node(&old).start_drover().unwrap();
    cluster.has_all(&old);
    assert_eq!((pings.lost(), epoch()), (vec![Vec::new(); 2], old.clone()), "{}", cluster.logs());

    // Told to end: it hands over before it does.
    let pings = Pings::start(&cluster);
    cluster.node(&old).stop(Service::Drover).unwrap();
    let new = cluster.primary_other_than(&old);
    assert_eq!(pings.lost(), vec![Vec::<u32>::new(); 2], "{}", cluster.logs());
    cluster.node(&old).start_drover().unwrap();

    // Killed: its kernel takes the addresses away, then another has them.
    let watchdog = Watchdog::start(&cluster);
    cluster.node(&new).kill(Service::Drover).unwrap();
    let third = cluster.primary_other_than(&new);
    cluster.node(&new).start_drover().unwrap();
    cluster.has_all(&third);

    // Stopped, and continued when another is the primary.
    cluster.node(&third).signal(Service::Drover, Signal::STOP).unwrap();
    let fourth = cluster.primary_other_than(&third);
    cluster.node(&third).signal(Service::Drover, Signal::CONT).unwrap();
    cluster.daemon_until(&fourth, &third, "run");
    cluster.has_all(&fourth);
    watchdog.saw_nothing(&cluster);
    // It may have it again.
    cluster.make_primary(&fourth, &third);

    // All of them at once.
    for node in NODES {
        cluster.node(node).kill(Service::Drover).unwrap();
    }
    for node in NODES {
        cluster.node(node).start_drover().unwrap();
    }
    let holder = cluster.primary();
    cluster.has_all(&holder);
}

#[test]
fn a_node_that_is_cut_off_or_has_no_power_loses_the_role_and_nobody_has_it_twice() {
    let cluster = Cluster::up(3);
    let old = cluster.primary();
    cluster.has_all(&old);
    let watchdog = Watchdog::start(&cluster);
    // From the store: it lets go by its own clock.
    cluster.lab.cut(&old, Net::Cluster, Cut::Silent).unwrap();
    let new = cluster.primary_other_than(&old);
    cluster.lab.heal(&old, Net::Cluster).unwrap();
    cluster.all_well();
    cluster.has_all(&new);
    cluster.lab.node(&new).unwrap().power_off().unwrap();
    let third = cluster.primary_other_than(&new);
    cluster.node(&new).power_on().unwrap();
    cluster.all_well();
    cluster.has_all(&third);
    watchdog.saw_nothing(&cluster);

    // From its users: it is asked for nothing, and hands over to one that they reach.
    for how in [Cut::Silent, Cut::Carrier] {
        let old = cluster.primary();
        cluster.lab.cut(&old, Net::Upstream, how).unwrap();
        let info = cluster.node_until(&old, &old, "says what ails it", |n| n["network_problems"][0].is_string());
        assert!(info["network_problems"][0].as_str().unwrap().contains("upstream network"), "{info}");
        let new = cluster.primary_other_than(&old);
        cluster.lab.heal(&old, Net::Upstream).unwrap();
        cluster.node_until(&new, &old, "is well", |n| n["network_problems"].as_array().is_some_and(Vec::is_empty));
        cluster.has_all(&new);
    }
}

#[test]
fn an_address_that_a_stranger_has_is_left_to_him_and_said() {
    let cluster = Cluster::up(3);
    cluster.primary();
    for node in NODES {
        cluster.node(node).kill(Service::Drover).unwrap();
    }
    let gone = || cluster.owners(UPSTREAM[0]).is_empty().then_some(());
    Lab::until("the kernels have taken the address away", PATIENCE, gone).unwrap();
    cluster.ip_in_client(&["address", "add", "203.0.113.200/24", "dev", "eth0"]);
    for node in NODES {
        cluster.node(node).start_drover().unwrap();
    }
    let holder = cluster.primary();
    let faults = || cluster.drover("hv1", &["status"]);
    let told = || Some(faults()).filter(|said| said.contains("no node of this cluster, has this address"));
    Lab::until("it is said that a stranger has the address", PATIENCE, told)
        .unwrap_or_else(|e| panic!("{e}\n{}\n{}", faults(), cluster.logs()));
    assert_eq!(cluster.owners(UPSTREAM[0]), Vec::<String>::new());
    assert_eq!(cluster.owners(ALL[1]), [holder.as_str()], "the others are there");
    cluster.ip_in_client(&["address", "delete", "203.0.113.200/24", "dev", "eth0"]);
    cluster.has_all(&holder);
    let well = || (!faults().contains("lacks")).then_some(());
    Lab::until("nothing is said any more", PATIENCE, well).unwrap_or_else(|e| panic!("{e}\n{}", faults()));
}
