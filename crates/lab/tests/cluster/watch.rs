//! The watcher sees what somebody does by hand that must not be, and nothing else.

use crate::support::TIMEOUT;
use drover_lab::{Domain, Lab, Spec, Watch};
use std::{fs, path::Path, time::Duration};

const UUID: &str = "6d1f3a52-7c0e-4f4b-9a55-1f0d8c2b7e11";
/// Longer than an idle guest needs to be seen.
const A_WHILE: Duration = Duration::from_secs(4);

/// Two nodes without droverd: what happens to the guest is done by hand. It has a definition at each node.
struct Bench {
    lab: Lab,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn up() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_drover-lab"));
        let spec = Spec { daemon: false, ..Spec::cluster(2) };
        let lab = Lab::up(folder.path(), spec, program, &|_| ()).unwrap();
        let domain = Domain { uuid: Some(UUID.to_owned()), ..Domain::new("web") };
        let xml = domain.xml(&lab.guest()).replace("type='kvm'", "type='qemu'");
        fs::write(lab.shared().join("web.xml"), xml).unwrap();
        Bench { lab, _folder: folder }
    }

    fn virsh(&self, node: &str, arguments: &[&str]) {
        let all = [&["virsh", "-q", "-c", "qemu:///system"], arguments].concat();
        self.lab.node(node).unwrap().exec(&all).unwrap();
    }

    fn create(&self, node: &str, arguments: &[&str]) {
        self.virsh(node, &[&["create", "/srv/shared/web.xml"], arguments].concat());
    }

    fn migrate(&self, from: &str, to: &str) {
        self.virsh(from, &["migrate", "--live", "--p2p", "web", &format!("qemu+tcp://{to}/system")]);
    }

    fn watch(&self) -> Watch {
        Watch::start(&self.lab, &[("web".to_owned(), UUID.to_owned())].into()).unwrap()
    }
}

fn executes_on(watch: &Watch, node: &str) {
    let check = || (watch.executed_on("web") == [node]).then_some(());
    Lab::until(&format!("it executes on {node} only"), TIMEOUT, check).unwrap();
}

fn violation(watch: &Watch, text: &str) {
    watch.wait(TIMEOUT);
    let found = watch.violations();
    assert!(found.len() == 1 && found[0].contains(text), "{text}: {found:?}");
}

#[test]
fn a_second_copy_of_a_guest_is_seen_and_a_migration_or_a_paused_copy_is_none() {
    let bench = Bench::up();
    let watch = bench.watch();
    bench.create("hv1", &[]);
    executes_on(&watch, "hv1");
    bench.migrate("hv1", "10.0.0.2");
    executes_on(&watch, "hv2");
    bench.migrate("hv2", "10.0.0.1");
    executes_on(&watch, "hv1");
    // A copy that cannot write.
    bench.create("hv2", &["--paused"]);
    watch.wait(A_WHILE);
    assert_eq!(watch.violations(), [""; 0]);
    // It is let go: by then it is one too many, and one that was started anew.
    watch.spare(["hv1", "hv2"], []);
    bench.virsh("hv2", &["resume", "web"]);
    violation(&watch, "web runs twice");

    // Also one that was there before the watcher.
    let late = bench.watch();
    violation(&late, "web runs twice");
}

#[test]
fn a_guest_that_stops_or_is_started_anew_is_seen_where_nothing_happened() {
    let bench = Bench::up();
    bench.create("hv1", &[]);
    let (stopped, restarted, spared) = (bench.watch(), bench.watch(), bench.watch());
    for watch in [&stopped, &restarted, &spared] {
        executes_on(watch, "hv1");
    }
    spared.spare(["hv1"], []);
    bench.virsh("hv1", &["suspend", "web"]);
    violation(&stopped, "web has not executed for 20 s; it was on hv1");
    restarted.spare([], ["web"]);
    bench.virsh("hv1", &["destroy", "web"]);
    bench.create("hv2", &[]);
    executes_on(&restarted, "hv2");
    let found = restarted.violations();
    assert!(found.iter().any(|found| found == "web was started anew on hv2; it was on hv1"), "{found:?}");
    assert_eq!(spared.violations(), [""; 0]);
}

#[test]
fn an_address_on_two_nodes_is_seen() {
    let bench = Bench::up();
    let watch = bench.watch();
    let set = |node: &str, action: &str, address: &str, device: &str| {
        bench.lab.node(node).unwrap().exec(&["ip", "address", action, address, "dev", device]).unwrap();
    };
    for (address, device) in [("203.0.113.200/32", "eth1"), ("2001:db8:5::200/128", "eth1")] {
        set("hv1", "add", address, device);
        set("hv2", "add", address, device);
        watch.wait(Duration::from_secs(1));
        set("hv1", "delete", address, device);
        watch.wait(A_WHILE);
    }
    // A handoff is not so long.
    assert_eq!(watch.violations(), [""; 0]);
    assert!(watch.longest_shared() > Duration::from_millis(500), "{:?}", watch.longest_shared());
    set("hv1", "add", "2001:db8:5::200/128", "eth1");
    violation(&watch, "2001:db8:5::200 is on hv1 and hv2");
}
