//! Guests that are in memory and do not execute: why, who must do something, and what lets them run on.

use crate::support::{Cluster, Guest, TIMEOUT};
use drover_lab::{Domain, Lab, Service};
use serde_json::Value;

impl Cluster {
    fn paused_until(&self, vm: &str, by: &str) -> Value {
        self.vm_until("hv1", vm, &format!("is paused by {by}"), |vm| vm["paused_by"] == by)
    }

    fn faults(&self) -> Vec<String> {
        let faults = self.json("hv1", &["fault", "list"]);
        let each = faults.as_array().unwrap().iter();
        each.map(|fault| fault["message"].as_str().unwrap().to_owned()).collect()
    }

    fn faults_until(&self, what: &str, is: impl Fn(&[String]) -> bool) {
        Lab::until(&format!("the faults: {what}"), TIMEOUT, || is(&self.faults()).then_some(()))
            .unwrap_or_else(|e| panic!("{e}: {:?}\n{}", self.faults(), self.logs()));
    }

    /// An order that is refused at once, for this reason.
    fn refused(&self, order: &[&str], why: &str) {
        let result = self.try_drover("hv1", order);
        assert!(result.code != 0 && result.err.contains(why), "{order:?}: {result:?}");
    }
}

/// A domain with more in its definition.
fn with(cluster: &Cluster, name: &str, anchor: &str, more: &str) -> String {
    Domain::new(name).xml(&cluster.lab.guest()).replacen(anchor, &format!("{more}{anchor}"), 1)
}

#[test]
fn a_guest_that_is_paused_says_why_and_runs_on_when_it_is_told() {
    let cluster = Cluster::up(1);
    let drover = |arguments: &[&str]| cluster.drover("hv1", arguments);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);

    // By somebody on the node.
    cluster.virsh("hv1", &["suspend", "web"]);
    let seen = cluster.paused_until("web", "administrator");
    assert!(seen["doing"].as_str().unwrap().contains("'drover vm resume web'"), "{seen}");
    assert!(drover(&["vm", "list"]).contains("paused by an administrator"));
    cluster.refused(&["vm", "shutdown", "web"], "is paused by an administrator. 'drover vm resume web'");
    cluster.refused(&["vm", "restart", "web"], "is paused by an administrator");
    let plan = cluster.json("hv1", &["node", "flush", "hv1", "--plan"]);
    assert!(plan.to_string().contains("its guest is paused by an administrator"), "{plan}");
    assert_eq!(cluster.faults(), Vec::<String>::new(), "somebody wanted it so");
    drover(&["vm", "resume", "web", "--wait"]);
    web.wait_alive_on("hv1");

    // By Drover; it survives its daemon.
    drover(&["vm", "pause", "web", "--wait"]);
    assert!(cluster.virsh("hv1", &["domstate", "web"]).contains("paused"));
    drover(&["vm", "pause", "web", "--wait"]);
    cluster.node("hv1").kill(Service::Drover).unwrap();
    cluster.node("hv1").start_drover().unwrap();
    cluster.paused_until("web", "administrator");
    assert!(cluster.virsh("hv1", &["domstate", "web"]).contains("paused"));
    drover(&["vm", "start", "web", "--wait"]);
    web.wait_alive_on("hv1");
    let result = cluster.try_drover("hv1", &["vm", "resume", "web", "--wait"]);
    assert_eq!(result.code, 0, "it runs already: {result:?}");

    drover(&["vm", "stop", "web", "--yes", "--wait"]);
    cluster.refused(&["vm", "resume", "web"], "needs it to be running");
    cluster.refused(&["vm", "pause", "web"], "needs it to be running");
}

#[test]
fn a_guest_that_is_asleep_is_woken_by_a_start() {
    let cluster = Cluster::up(1);
    let s3 = "<pm><suspend-to-mem enabled='yes'/></pm>\n  ";
    cluster.define_xml(
        "hv1",
        &with(&cluster, "nap", "<devices>", s3).replace("hn=nap", "hn=nap sleep_after=3"),
        &["--start", "--wait"],
    );
    cluster.paused_until("nap", "asleep");
    cluster.refused(&["vm", "shutdown", "nap"], "is asleep (suspended to memory). 'drover vm start nap' wakes it");
    cluster.refused(&["vm", "pause", "nap"], "is asleep");
    cluster.drover("hv1", &["vm", "start", "nap", "--wait"]);
    cluster.console_until("hv1", "nap", "AWAKE");
    assert_eq!(cluster.vm("hv1", "nap")["run_state"], "running");
}

#[test]
fn a_guest_that_has_crashed_is_kept_for_inspection_until_it_is_stopped() {
    let cluster = Cluster::up(1);
    let panic = "<panic model='isa'/>\n  ";
    let xml = with(&cluster, "bad", "</devices>", panic).replace("hn=bad", "hn=bad panic_after=3").replacen(
        "<devices>",
        "<on_crash>preserve</on_crash>\n  <devices>",
        1,
    );
    cluster.define_xml("hv1", &xml, &["--start", "--wait"]);
    cluster.paused_until("bad", "crashed");
    cluster.faults_until("it has crashed", |faults| faults.iter().any(|f| f.contains("VM bad has crashed")));
    cluster.refused(&["vm", "start", "bad"], "has crashed, and is kept for inspection");
    cluster.refused(&["vm", "shutdown", "bad"], "has crashed");
    cluster.drover("hv1", &["vm", "stop", "bad", "--yes", "--wait"]);
    cluster.faults_until("there are none", <[_]>::is_empty);
}

/// A storage on hv1 that is full, and a guest whose heartbeat writes one sector of its disk there.
struct FullStorage<'a> {
    cluster: &'a Cluster,
}

impl<'a> FullStorage<'a> {
    const AT: &'static str = "/var/lib/drover/small";

    fn with_guest(cluster: &'a Cluster, arguments: &[&str]) -> FullStorage<'a> {
        let (node, full) = (cluster.node("hv1"), FullStorage::AT);
        node.exec(&["mkdir", "-p", full]).unwrap();
        // The disk is larger than its storage.
        node.exec(&["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", full]).unwrap();
        node.exec(&["truncate", "-s", "8M", &format!("{full}/disk.img")]).unwrap();
        node.exec(&["sh", "-c", &format!("cat /dev/zero >{full}/filler 2>/dev/null || true")]).unwrap();
        let disk = format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{full}/disk.img'/>\
             <target dev='vda' bus='virtio'/></disk>"
        );
        cluster.define_xml("hv1", &with(cluster, "db", "<serial", &disk), &[&["--start"], arguments].concat());
        FullStorage { cluster }
    }

    fn has_space(&self) {
        self.cluster.node("hv1").exec(&["rm", &format!("{}/filler", FullStorage::AT)]).unwrap();
    }

    fn end(&self) {
        self.cluster.drover("hv1", &["vm", "stop", "db", "--yes", "--wait"]);
        self.cluster.node("hv1").exec(&["umount", FullStorage::AT]).unwrap();
    }
}

#[test]
fn a_guest_whose_storage_is_full_is_a_fault_until_it_runs_on() {
    let cluster = Cluster::up(1);
    let storage = FullStorage::with_guest(&cluster, &[]);
    let seen = cluster.paused_until("db", "io-error");
    assert_eq!(seen["paused_reason"], "is paused by an I/O error: disk vda has no space left", "{seen}");
    cluster.faults_until("it names the disk", |faults| {
        faults.iter().any(|f| f.contains("VM db is paused by an I/O error: disk vda has no space left"))
    });
    // The cause is there: it is paused again. Whether it is seen running in between is a matter of speed.
    cluster.try_drover("hv1", &["vm", "resume", "db", "--wait"]);
    cluster.vm_until("hv1", "db", "is paused again", |vm| vm["state"] == "start" && vm["paused_by"] == "io-error");
    cluster.faults_until("it names the disk again", |faults| faults.iter().any(|f| f.contains("VM db is paused")));
    storage.has_space();
    cluster.drover("hv1", &["vm", "resume", "db"]);
    cluster.console_until("hv1", "db", "disk=2");
    cluster.faults_until("there are none", <[_]>::is_empty);
    storage.end();
}

#[test]
fn a_guest_whose_storage_has_space_again_runs_on_by_itself_if_that_is_wished() {
    let cluster = Cluster::up(1);
    let storage = FullStorage::with_guest(&cluster, &["--resume-after-io-error"]);
    cluster.paused_until("db", "io-error");
    // It is tried while the cause is there, in vain.
    let tried = |vm: &Value| vm["doing"].as_str().is_some_and(|doing| doing.contains("(1×)"));
    cluster.vm_until("hv1", "db", "was resumed in vain", |vm| tried(vm) && vm["paused_by"] == "io-error");
    cluster.faults_until("it says what is done", |faults| {
        faults.iter().any(|f| f.contains("disk vda has no space left") && f.contains("resumed now and then"))
    });
    assert!(!cluster.try_drover("hv1", &["vm", "log", "db"]).out.contains("disk=2"));
    storage.has_space();
    cluster.console_until("hv1", "db", "disk=2");
    cluster.faults_until("there are none", <[_]>::is_empty);
    // An administrator's pause stays.
    cluster.drover("hv1", &["vm", "pause", "db", "--wait"]);
    cluster.paused_until("db", "administrator");
    storage.end();
}
