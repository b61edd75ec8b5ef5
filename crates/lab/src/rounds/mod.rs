//! Rounds of random faults on a running cluster, with invariants that are checked from outside.
//!
//! Each round begins with a healthy cluster. Something may be under way; one or two faults come, and last for a while.
//! Then everything is healed, and the round ends when the cluster is as it was. A [`Watch`] looks on all the time.

mod choice;
mod fault;

use crate::{
    domain::Domain,
    lab::{Lab, Progress},
    node::{Node, Service},
    tools::{Attempt, LabError, Result},
    watch::Watch,
};
use choice::{Operation, Round};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long the cluster may take to be as it was, after everything was healed. A daemon that finds an order to cut its
/// power waits for 45 s, and a node that takes its guests back takes its time on a small machine.
const HEALTHY_MAX: Duration = Duration::from_secs(240);

/// Bandwidth of a move, in MiB/s: it takes some seconds, so that faults come in the middle.
const MOVE_SPEED: &str = "12";

/// Which rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// Decides what happens.
    pub seed: u64,
    /// The number of the first round, from 1.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// How many guests there are.
    pub guests: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// From the healing to a healthy cluster, for each round.
    pub recovery: Vec<Duration>,
    /// The longest time that a floating address was on two nodes.
    pub longest_shared: Duration,
}

impl Lab {
    /// Runs rounds of random faults. Gives the nodes BMCs and defines the guests, where they are not there yet. `say`
    /// gets a line for each fault and round.
    ///
    /// # Errors
    /// If something was seen that must not be, or the cluster does not become as it was; with the command that repeats
    /// the round. Then everything stays as it is, to be looked at.
    pub fn rounds(&self, rounds: Rounds, say: Progress<'_>) -> Result<Report> {
        let say = |line: &str| say(&format!("{} {line}", time_of_day()));
        let guests = prepare(self, rounds.guests, &say)?;
        let watch = Watch::start(self, &guests)?;
        healthy(self, &watch, &guests, &say)?;
        let mut recovery = Vec::new();
        for number in rounds.first..rounds.first + rounds.count {
            let round = choice::round(rounds.seed, number, self.spec().nodes, rounds.guests);
            let done = one(self, &watch, &guests, number, &round, &say);
            recovery.push(done.map_err(|error| {
                let (seed, nodes) = (rounds.seed, self.spec().nodes);
                LabError::new(
                    format!("round {number}: {error}"),
                    format!("repeat it: drover-lab rounds --nodes {nodes} --seed {seed} --first {number} --rounds 1"),
                )
            })?);
        }
        Ok(Report { recovery, longest_shared: watch.longest_shared() })
    }

    /// Runs `drover` on a node, with output in JSON.
    fn ask(node: &Node<'_>, arguments: &[&str]) -> Result<Value> {
        let text = node.exec(&[&["drover", "-f", "json"], arguments].concat())?;
        serde_json::from_str(&text).attempt(|| format!("{}: the answer of drover is not JSON", node.name()))
    }
}

/// The time of day, UTC, as the daemons' logs have it.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, ms) = (now.as_secs() % 86400, now.subsec_millis());
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Gives the nodes BMCs, and defines the guests; returns their UUIDs by name.
fn prepare(lab: &Lab, count: usize, say: &dyn Fn(&str)) -> Result<BTreeMap<String, String>> {
    let nodes = lab.nodes();
    let first = nodes.first().ok_or_else(|| LabError::new("there is no lab", "it has no nodes"))?;
    if !nodes.iter().all(Node::bmc_runs) {
        say("the nodes get BMCs");
        lab.give_bmcs(fault::bmc_of)?;
    }
    let mut guests = BTreeMap::new();
    for number in 1..=count {
        let name = format!("guest{number}");
        let uuid = match Lab::ask(first, &["vm", "info", &name]) {
            Ok(vm) => vm["uuid"].as_str().unwrap_or_default().to_owned(),
            Err(_) => {
                let uuid = uuid::Uuid::new_v4().to_string();
                let domain = Domain { uuid: Some(uuid.clone()), ..Domain::new(&name) };
                let file = format!("{name}.xml");
                let failed = || format!("cannot write {file}");
                fs::write(lab.shared().join(&file), domain.xml(&lab.guest())).attempt(failed)?;
                let node = format!("hv{}", 1 + (number - 1) % nodes.len());
                let path = format!("/srv/shared/{file}");
                // Never cold: a move costs a guest nothing.
                first.exec(&["drover", "vm", "define", &path, "--node", &node, "--method", "live", "--start"])?;
                uuid
            }
        };
        guests.insert(name, uuid);
    }
    Ok(guests)
}

/// One round; returns how long it took from the healing to a healthy cluster.
fn one(
    lab: &Lab,
    watch: &Watch,
    guests: &BTreeMap<String, String>,
    number: u64,
    round: &Round,
    say: &dyn Fn(&str),
) -> Result<Duration> {
    let spared: Vec<String> = round.spared().iter().map(|index| format!("hv{index}")).collect();
    let moved: BTreeSet<&str> = match round.operation {
        None | Some(Operation::Primary(_)) => BTreeSet::new(),
        Some(Operation::Move { guest, .. }) => {
            let wanted = format!("guest{guest}");
            guests.keys().filter(|name| **name == wanted).map(String::as_str).collect()
        }
        Some(Operation::Flush(_)) => guests.keys().map(String::as_str).collect(),
    };
    watch.spare(spared.iter().map(String::as_str), moved);
    if let Some(operation) = round.operation {
        say(&format!("round {number}: {}", begin(lab, watch, operation)?));
    }
    for (index, fault) in round.faults.iter().enumerate() {
        if index > 0 {
            watch.wait(round.pause);
        }
        let more = fault::inject(lab, *fault)?;
        say(&format!("round {number}: {fault}{}{more}", if more.is_empty() { "" } else { " " }));
    }
    watch.wait(round.lasts);
    let healed = Instant::now();
    if watch.violations().is_empty() {
        let off: Vec<String> = lab.nodes().iter().filter(|n| !n.is_on()).map(|n| n.name().to_owned()).collect();
        say(&format!("round {number}: healing after {} s; off: {off:?}", round.lasts.as_secs()));
        fault::heal(lab)?;
        healthy(lab, watch, guests, say)?;
    }
    let violations = watch.violations();
    if !violations.is_empty() {
        say(&format!("round {number}: {}", violations.join("; ")));
        return Err(LabError::new("something was seen that must not be", violations.join("; ")));
    }
    watch.spare([], []);
    let took = healed.elapsed();
    say(&format!("round {number}: all is as it was, {:.1} s after it was healed", took.as_secs_f32()));
    Ok(took)
}

/// Begins an operation; returns what it is. It need not be possible, and then it says why not.
fn begin(lab: &Lab, watch: &Watch, operation: Operation) -> Result<String> {
    let nodes = lab.nodes();
    let Some(first) = nodes.first() else { return Ok(String::new()) };
    let (what, order) = match operation {
        Operation::Move { guest, to } => {
            let guest = format!("guest{guest}");
            let at = watch.executed_on(&guest).first().cloned().unwrap_or_default();
            // Not to where it is.
            let to = if at == format!("hv{to}") { 1 + to % nodes.len() } else { to };
            let speed = ["virsh", "-q", "-c", "qemu:///system", "migrate-setspeed", &guest, MOVE_SPEED];
            lab.node(&at)?.exec(&speed)?;
            (format!("{guest} moves from {at} to hv{to}"), format!("vm move {guest} --to hv{to}"))
        }
        Operation::Flush(node) => (format!("hv{node} is flushed"), format!("node flush hv{node}")),
        Operation::Primary(node) => (format!("hv{node} becomes the primary"), format!("node primary hv{node}")),
    };
    let argv: Vec<&str> = std::iter::once("drover").chain(order.split(' ')).collect();
    let result = first.output(&argv)?;
    let refusal = String::from_utf8_lossy(&result.stderr).lines().next().unwrap_or_default().to_owned();
    Ok(if result.status.success() { what } else { format!("{what}: {refusal}") })
}

/// Waits until the cluster is as it was: all nodes on and ready, every guest running once, no fault, the floating
/// addresses at one node. Switches on what was switched off late, and makes ready what was flushed.
fn healthy(lab: &Lab, watch: &Watch, guests: &BTreeMap<String, String>, say: &dyn Fn(&str)) -> Result<()> {
    let mut missing = String::new();
    let done = Lab::until("the cluster has not become as it was", HEALTHY_MAX, || {
        if !watch.violations().is_empty() {
            return Some(());
        }
        let look = settle(lab, say).and_then(|()| look(lab, watch, guests));
        let now = look.unwrap_or_else(|error| Some(error.to_string())).unwrap_or_default();
        if now != missing && !now.is_empty() {
            say(&format!("    waiting: {now}"));
        }
        missing = now;
        missing.is_empty().then_some(())
    });
    done.map_err(|error| LabError::new(error.to_string(), missing))
}

/// Undoes what the faults have led to, as an administrator or a service manager would.
fn settle(lab: &Lab, say: &dyn Fn(&str)) -> Result<()> {
    let nodes = lab.nodes();
    let down = |node: &Node<'_>| {
        let service = [Service::Libvirt, Service::Drover].into_iter().find(|s| node.pid(*s).is_none())?;
        Some(if node.is_on() {
            format!("{service:?} of {} has ended", node.name())
        } else {
            format!("{} is off", node.name())
        })
    };
    let down: Vec<String> = nodes.iter().filter_map(down).collect();
    if !down.is_empty() {
        say(&format!("after the healing: {}", down.join(", ")));
        fault::heal(lab)?;
    }
    let Some(first) = nodes.first() else { return Ok(()) };
    for node in list(&Lab::ask(first, &["node", "list"])?) {
        if node["daemon_state"] == "run" && (node["domain_state"] == "flushed" || node["domain_state"] == "flush") {
            first.exec(&["drover", "node", "ready", node["name"].as_str().unwrap_or_default()])?;
        }
    }
    Ok(())
}

/// What is missing; `None`: nothing.
fn look(lab: &Lab, watch: &Watch, guests: &BTreeMap<String, String>) -> Result<Option<String>> {
    let nodes = lab.nodes();
    // libvirt's own lists: running, and all.
    let mut domains = Vec::new();
    for node in &nodes {
        let virsh =
            |all: &[&str]| node.exec(&[&["virsh", "-q", "-c", "qemu:///system", "list", "--uuid"], all].concat());
        domains.push((node.name(), virsh(&["--state-running"])?, virsh(&["--all"])?));
    }
    for (name, uuid) in guests {
        let running: Vec<&str> = domains.iter().filter(|(_, on, _)| on.contains(uuid)).map(|(n, ..)| *n).collect();
        let known: Vec<&str> = domains.iter().filter(|(.., all)| all.contains(uuid)).map(|(n, ..)| *n).collect();
        let executed = watch.executed_on(name);
        if running.len() != 1 || known != running || executed != running {
            return Ok(Some(format!("{name} runs on {running:?}, is defined on {known:?}, executes on {executed:?}")));
        }
    }
    for node in &nodes {
        for other in list(&Lab::ask(node, &["node", "list"])?) {
            if other["daemon_state"] != "run" || other["domain_state"] != "ready" {
                let at = node.name();
                return Ok(Some(format!(
                    "{at} shows {} as {}, {}",
                    other["name"], other["daemon_state"], other["domain_state"]
                )));
            }
        }
        let health = Lab::ask(node, &["status"])?["cluster_health"].clone();
        if health["health"] != 100 {
            return Ok(Some(format!("{} shows this health: {health}", node.name())));
        }
        let faults = Lab::ask(node, &["fault", "list"])?;
        if !list(&faults).is_empty() {
            return Ok(Some(format!("{} shows these faults: {faults}", node.name())));
        }
    }
    let unheld: Vec<String> = watch.not_on_one_node().iter().map(ToString::to_string).collect();
    Ok((!unheld.is_empty()).then(|| format!("not on one node: {}", unheld.join(", "))))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
