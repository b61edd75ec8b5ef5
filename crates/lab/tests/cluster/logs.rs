//! Logs of guests' consoles: in files that virtlogd rotates, and on an administrator's terminal.

use crate::support::{Cluster, Guest, TIMEOUT};
use drover_lab::{Domain, Lab, Node};
use std::{fs, process::Stdio};

/// The heartbeats in a console's log. The guest's shell may have written its prompt before one.
fn heartbeats(log: &str) -> Vec<u64> {
    log.lines().filter_map(|line| line.split_once("HB ")?.1.split(' ').next()?.parse().ok()).collect()
}

/// inotify instances of a node's daemon.
fn instances(node: &Node<'_>) -> usize {
    let script = "for fd in /proc/$(cat /run/droverd.pid)/fd/*; do readlink $fd; done | grep -c inotify";
    node.output(&["sh", "-c", script]).unwrap().stdout.trim_ascii().escape_ascii().to_string().parse().unwrap()
}

/// inotify watches of a node's daemon.
fn watches(node: &Node<'_>) -> usize {
    let script = "cat /proc/$(cat /run/droverd.pid)/fdinfo/* 2>/dev/null | grep -c ^inotify";
    node.output(&["sh", "-c", script]).unwrap().stdout.trim_ascii().escape_ascii().to_string().parse().unwrap()
}

#[test]
fn nothing_of_a_console_is_lost_when_its_file_is_rotated() {
    let cluster = Cluster::up(2);
    let node = cluster.node("hv1");
    // Room for a few heartbeats in a file, and for as many files as libvirt allows: the first is read at the end.
    let restart = "kill $(cat /run/virtlogd.pid) && while test -e /run/virtlogd.pid; do sleep 0.1; done; \
                   printf 'max_size = 100\\nmax_backups = 32\\n' >/etc/libvirt/virtlogd.conf && virtlogd -d";
    node.exec(&["sh", "-c", restart]).unwrap();
    let guest = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    // Through the other node, as many do it.
    let follow = |file: &str| {
        let script = format!("echo $$ >/run/{file}; exec drover vm log web -n 1000 --follow >/srv/shared/{file}");
        let mut command = cluster.node("hv2").command(&["sh", "-c", &script]).unwrap();
        command.stdin(Stdio::null()).spawn().unwrap()
    };
    let before = instances(&node);
    let mut followers: Vec<_> = (0..5).map(|n| follow(&format!("followed-{n}"))).collect();
    let rotated = || node.exec(&["sh", "-c", "ls /var/log/drover/consoles/*.log.5"]).ok();
    cluster.until("the console's log is rotated", rotated);

    let followed = |n: usize| fs::read_to_string(cluster.lab.shared().join(format!("followed-{n}"))).unwrap();
    for n in 0..followers.len() {
        let enough = || Some(heartbeats(&followed(n))).filter(|beats| beats.len() > 12);
        let beats = cluster.until("heartbeats of several files are followed", enough);
        assert!(beats.is_sorted_by(|a, b| a + 1 == *b), "{beats:?}");
        assert_eq!(beats[0], 1, "from the first file on: {beats:?}");
    }
    assert_eq!(instances(&node), before + 1);
    let beats = heartbeats(&cluster.drover("hv2", &["vm", "log", &guest.name, "-n", "1000"]));
    assert!(beats[0] == 1 && beats.is_sorted_by(|a, b| a + 1 == *b), "{beats:?}");
    let last = cluster.drover("hv2", &["vm", "log", &guest.name, "-n", "12"]);
    assert_eq!(last.lines().count(), 12, "more lines than a file has: {last}");

    // Clients that vanish give their places back.
    let watching = watches(&node);
    cluster.node("hv2").exec(&["sh", "-c", "kill -9 $(cat /run/followed-*)"]).unwrap();
    for follower in &mut followers {
        follower.wait().unwrap();
    }
    Lab::until("the folder is watched no longer", TIMEOUT, || (watches(&node) + 1 == watching).then_some(()))
        .unwrap_or_else(|e| panic!("{e}: {watching} watches, now {}", watches(&node)));
}

#[test]
fn a_guest_does_not_steer_the_terminal() {
    let cluster = Cluster::up(1);
    let domain = Domain::new("web");
    let guest = Guest::up(&cluster, "hv1", &domain, &[]);
    let node = cluster.node("hv1");
    // As if the guest had written it.
    let write =
        r"printf '\033]0;pwned\007\033[31mred\033[6n\r\033[2J\033[>4;2mEND\n' >>$(ls /var/log/drover/consoles/*.log)";
    node.exec(&["sh", "-c", write]).unwrap();
    // On a terminal of its own.
    let on_terminal = |command: &str| node.exec(&["script", "-qec", command, "/dev/null"]).unwrap();
    let shown = on_terminal(&format!("drover vm log {}", guest.name));
    assert!(shown.contains("\x1b[31mred\r\nEND"), "{shown:?}");
    assert!(shown.trim_end().ends_with("\x1b[0m"), "colours are reset: {shown:?}");
    let without = shown.replace("\x1b[31m", "").replace("\x1b[0m", "");
    assert!(!without.contains(['\x1b', '\x07']) && !without.contains("pwned"), "{without:?}");
    let raw = on_terminal(&format!("drover vm log {} --raw", guest.name));
    let piped = cluster.drover("hv1", &["vm", "log", &guest.name]);
    for unchanged in [raw, piped] {
        assert!(unchanged.contains("\x1b]0;pwned\x07\x1b[31mred\x1b[6n\r\x1b[2J\x1b[>4;2mEND"), "{unchanged:?}");
    }
}
