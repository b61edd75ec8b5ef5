//! VMs that come and go by the thousand leave nothing behind: in no daemon, not in the store, and not in the ensemble.

use crate::support::{Cluster, TIMEOUT};
use drover_lab::{Domain, Lab, Net, Node, Service};
use std::{collections::BTreeMap, fs, process::Stdio};

/// Connections to each node, each of which defines and deletes VMs one after the other.
const CONNECTIONS: usize = 4;
/// VMs that each connection defines and deletes in a round.
const CYCLES: usize = 70;
/// Rounds that are measured, after a first one.
const ROUNDS: usize = 3;
/// All cycles that are measured.
const MEASURED: u64 = (ROUNDS * 3 * CONNECTIONS * CYCLES) as u64;
/// Maximum growth of a daemon's memory in KiB. It grows by about 1 MiB while the allocator settles, and not more in
/// four times as many cycles; a daemon that kept each VM's decoded definition grew by 6 KiB for each.
const MEMORY: u64 = 4096;
/// Maximum that a node logs for a cycle, in bytes: a line or two for a VM of its own, a third of them all.
const LOG: u64 = 256;
/// Descriptors and threads that come and go.
const SOME: u64 = 8;

/// What a daemon uses.
#[derive(Debug, Clone, Copy)]
struct Used {
    /// Resident memory in KiB.
    memory: u64,
    descriptors: u64,
    threads: u64,
    /// Size of its log in bytes.
    log: u64,
}

impl Used {
    fn by(node: &Node<'_>) -> Used {
        let process = format!("/proc/{}", node.pid(Service::Drover).unwrap());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Used {
            memory: value("VmRSS:"),
            threads: value("Threads:"),
            descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count() as u64,
            log: fs::metadata(node.folder().join("var/log/droverd.out")).unwrap().len(),
        }
    }
}

/// What a member of the ensemble says of itself.
fn member(node: &Node<'_>) -> BTreeMap<String, u64> {
    let address = Net::Cluster.address(node.index());
    let query = format!("exec 3<>/dev/tcp/{address}/2181; echo mntr >&3; cat <&3");
    let answer = node.exec(&["timeout", "30", "bash", "-c", &query]).unwrap();
    let fields = answer.lines().filter_map(|line| line.split_once('\t'));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// What must be as before: records; watches, sessions and other connections of all members.
fn ensemble(cluster: &Cluster) -> [u64; 4] {
    let members: Vec<_> = cluster.lab.nodes().iter().map(member).collect();
    let sum = |field: &str| members.iter().map(|member| member[field]).sum();
    [members[0]["zk_znode_count"], members[0]["zk_ephemerals_count"], sum("zk_watch_count"), sum("zk_global_sessions")]
}

/// Requests of one connection: each VM is defined and deleted. The server does them in their order.
fn requests(cluster: &Cluster, node: &Node<'_>, prefix: &str) -> String {
    let token = node.exec(&["cat", "/var/lib/drover/admin.token"]).unwrap();
    let head = format!("Host: {}\r\nX-Api-Key: {}\r\n", node.name(), token.trim());
    let cycle = |n: usize| {
        let name = format!("{prefix}-{n}");
        let xml = Domain::new(&name).xml(&cluster.lab.guest());
        let body = serde_json::json!({ "xml": xml }).to_string();
        let define = format!(
            "POST /api/v1/vm HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let close = if n + 1 == CYCLES { "Connection: close\r\n" } else { "" };
        format!("{define}DELETE /api/v1/vm/{name} HTTP/1.1\r\n{head}{close}\r\n")
    };
    (0..CYCLES).map(cycle).collect()
}

/// Defines and deletes VMs over all nodes at once.
fn round(cluster: &Cluster, round: usize) {
    let nodes = cluster.lab.nodes();
    let connections = nodes.iter().flat_map(|node| (0..CONNECTIONS).map(move |connection| (node, connection)));
    let started = connections.map(|(node, connection)| {
        let file = format!("churn-{}-{connection}", node.name());
        let requests = requests(cluster, node, &format!("{file}-{round}"));
        fs::write(cluster.lab.shared().join(&file), requests).unwrap();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/7370; cat /srv/shared/{file} >&3 & exec cat <&3");
        let mut command = node.command(&["timeout", "300", "bash", "-c", &script]).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    });
    for connection in started.collect::<Vec<_>>() {
        let answers = connection.wait_with_output().unwrap();
        let answers = String::from_utf8_lossy(&answers.stdout).into_owned();
        let done = answers.matches("HTTP/1.1 200").count();
        let failed = answers.split("HTTP/1.1 ").find(|answer| !answer.is_empty() && !answer.starts_with("200"));
        assert_eq!(done, 2 * CYCLES, "round {round}: {failed:?}\n{}", cluster.logs());
    }
}

#[test]
fn vms_that_come_and_go_leave_nothing_behind() {
    let cluster = Cluster::up(3);
    // The role has records too.
    cluster.primary();
    let records = ensemble(&cluster);
    round(&cluster, 0);
    let first: Vec<Used> = cluster.lab.nodes().iter().map(Used::by).collect();
    (1..=ROUNDS).for_each(|n| round(&cluster, n));

    let settled = || Some(ensemble(&cluster)).filter(|now| *now == records);
    Lab::until("records, sessions and watches are as before", TIMEOUT, settled)
        .unwrap_or_else(|e| panic!("{e}: {records:?}, now {:?}", ensemble(&cluster)));
    for (node, first) in cluster.lab.nodes().iter().zip(first) {
        let within = |now: &Used| {
            let grown = |is: fn(&Used) -> u64| is(now).saturating_sub(is(&first));
            grown(|used| used.memory) <= MEMORY
                && grown(|used| used.descriptors) <= SOME
                && grown(|used| used.threads) <= SOME
                && grown(|used| used.log) <= LOG * MEASURED
        };
        // Threads that wait for more work, and connections to other nodes, are kept for a while.
        let what = format!("{} is as before {MEASURED} cycles", node.name());
        Lab::until(&what, TIMEOUT, || Some(Used::by(node)).filter(within))
            .unwrap_or_else(|e| panic!("{e}: {first:?}, now {:?}", Used::by(node)));
    }
}
