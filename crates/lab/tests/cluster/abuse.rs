//! Clients that hold connections and bodies open, without a token.

use crate::support::Cluster;
use drover_lab::Service;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

/// Where the client finds the API of the primary.
const API: &str = "203.0.113.200";

/// Opens 1,500 connections and holds them until its input ends: of every three one is idle, one has half a request's
/// head, and one has a large body that does not end. Then it goes on with the oldest, which the daemon may have closed
/// by now.
const HOLD: &str = r#"
    ulimit -n 4096
    trap '' PIPE
    hold() {
        exec {fd}<>/dev/tcp/203.0.113.200/7370 || exit 1
        held[$1]=$fd
        case $(($1 % 3)) in
            1) printf 'POST /api/v1/vm HTTP/1.1\r\nhost:' ;;
            2) printf 'GET /api/v1/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n%65536d' 0 ;;
        esac >&$fd 2>/dev/null
    }
    for ((n = 0; n < 1500; n++)); do hold $n; done
    echo held
    for ((n = 0; ; n = (n + 1) % 1500)); do
        # More than 128: there is no input yet.
        read -r -t 0.01
        [ $? -gt 128 ] || exit 0
        fd=${held[n]}
        exec {fd}>&-
        hold $n
    done
"#;

struct Abuser(Child);

impl Abuser {
    fn start(cluster: &Cluster) -> Abuser {
        let mut command = cluster.lab.client(&["bash", "-c", HOLD]);
        let mut abuser = Abuser(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(abuser.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        abuser
    }
}

impl Drop for Abuser {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Its exit status does not matter.
        self.0.wait().ok();
    }
}

#[test]
fn clients_without_a_token_take_nothing_from_others() {
    let cluster = Cluster::up(3);
    let primary = cluster.primary();
    let pid = cluster.node(&primary).pid(Service::Drover).unwrap();
    let status = |key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let row = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key}: {text}"));
        row.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let (memory, before) = (status("VmRSS:"), descriptors());
    let cpus = cluster.json("hv1", &["node", "info", &primary])["cpu_count"].clone();
    let ask = || {
        let url = format!("http://{API}:7370/api/v1/");
        let output = cluster.lab.client(&["curl", "-sS", "-m", "20", &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(ask().contains("version"), "{}", ask());

    let abuser = Abuser::start(&cluster);
    assert!(descriptors() <= before + 300, "{} descriptors, {before} before", descriptors());
    assert!(status("VmRSS:") <= memory + (64 << 10), "{} KiB are resident, {memory} before", status("VmRSS:"));
    // Between two of the abuser's connections there may be room for one.
    cluster.until("one more is refused", || ask().contains("too many connections").then_some(()));
    // Others are served, here and through the addresses of all nodes, and changes are made.
    for node in ["hv1", "hv2", "hv3"] {
        assert_eq!(cluster.json(node, &["status"])["primary_node"], primary.as_str());
        cluster.drover(node, &["token", "create", &format!("of-{node}")]);
    }
    let report = cluster.json("hv1", &["node", "info", &primary]);
    assert_eq!(report["cpu_count"], cpus, "{report}");
    drop(abuser);
    cluster.until("the client is served again", || ask().contains("version").then_some(()));
    assert_eq!(cluster.primary(), primary);
}
