//! What a [`super::Watch`] sees: QEMU processes and addresses, read from the host's `/proc`. No node is asked, so that
//! one that hangs, or whose libvirtd is dead, is seen as well.

use super::judge::{Sample, Seen};
use crate::{lab::Lab, process::Process};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// The unit of CPU time in `/proc` (`USER_HZ`, the same on all machines of Linux today).
const TICK: Duration = Duration::from_millis(10);
/// The flag of a thread that is ending (`PF_EXITING`): it executes nothing any more, but may use time to clean up.
const EXITING: u64 = 4;

/// Everything about these guests (UUIDs) and addresses.
pub(super) fn sample(lab: &Lab, at: Duration, guests: &BTreeSet<String>, addresses: &[IpAddr]) -> Sample {
    let mut sample = Sample { at, ..Sample::default() };
    let nodes = lab.nodes();
    let on: Vec<_> = nodes.iter().filter_map(|node| Some((node.name(), node.init()?))).collect();
    let namespaces: BTreeMap<_, _> =
        on.iter().filter_map(|(name, init)| Some((init.pid_namespace()?, *name))).collect();
    for process in Process::all("qemu-system") {
        let Some(node) = process.pid_namespace().and_then(|namespace| namespaces.get(&namespace)) else { continue };
        let Some((guest, incoming)) = arguments(process) else { continue };
        if let (true, Some(cpu)) = (guests.contains(&guest), vcpus(process)) {
            sample.seen.push(Seen { guest, node: (*node).to_owned(), process, incoming, cpu });
        }
    }
    for (name, init) in on {
        let has = addresses_of(init);
        for address in addresses.iter().filter(|address| has.contains(*address)) {
            sample.holders.entry(*address).or_default().push(name.to_owned());
        }
    }
    for address in addresses {
        sample.holders.entry(*address).or_default();
    }
    sample
}

/// The UUID of a QEMU process' guest, and whether it was started for an incoming migration.
fn arguments(process: Process) -> Option<(String, bool)> {
    let line = fs::read_to_string(format!("/proc/{}/cmdline", process.pid())).ok()?;
    let mut arguments = line.split('\0');
    let incoming = line.split('\0').any(|argument| argument == "-incoming");
    arguments.find(|argument| *argument == "-uuid")?;
    Some((arguments.next()?.to_owned(), incoming))
}

/// CPU time of a QEMU process' vCPU threads, which libvirt has it name `CPU 0/KVM` or `CPU 0/TCG`; `None` if it ends.
fn vcpus(process: Process) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).ok()?;
    let mut total = None;
    for task in tasks.flatten() {
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        // proc_pid_stat(5): `pid (name) state`, and further on the flags (9th), the user time (14th) and the system
        // time (15th).
        let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
        if !head.split_once('(').is_some_and(|(_, name)| name.starts_with("CPU ")) {
            continue;
        }
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        if field(9)? & EXITING != 0 {
            return None;
        }
        let ticks = u32::try_from(field(14)? + field(15)?).unwrap_or(u32::MAX);
        *total.get_or_insert(Duration::ZERO) += TICK * ticks;
    }
    total
}

/// The addresses of a node's own network namespace.
fn addresses_of(init: Process) -> BTreeSet<IpAddr> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/net/{name}", init.pid())).unwrap_or_default();
    let mut found = local_addresses(&read("fib_trie"));
    // `address index prefix scope flags interface`, the address in 32 hexadecimal digits.
    let ipv6 = read("if_inet6");
    let ipv6 = ipv6.lines().filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok());
    found.extend(ipv6.map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))));
    found
}

/// The local addresses in a routing trie: a line `|-- ADDRESS`, and below it `/32 host LOCAL`.
fn local_addresses(trie: &str) -> BTreeSet<IpAddr> {
    let mut address: Option<IpAddr> = None;
    let mut found = BTreeSet::new();
    for line in trie.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("|-- ") {
            address = text.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_found_and_no_others() {
        let trie = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.3
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
        |-- 10.0.0.200
           /32 host LOCAL
";
        let found: Vec<String> = local_addresses(trie).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.3", "10.0.0.200"]);
    }

    #[test]
    fn a_process_without_vcpus_executes_nothing() {
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(vcpus(me), None);
    }
}
