//! Domains that a node's hypervisor has already, and that become VMs.

use crate::support::{TestNode, Told, xml};
use drover_drivers::hypervisor::fake::Weather;
use drover_model::domain::Candidate;
use serde_json::{Value, json};
use uuid::Uuid;

const UUID: &str = "11111111-2222-4333-8444-555555555555";

fn uuid() -> Uuid {
    UUID.parse().unwrap()
}

fn off(name: &str) -> Candidate {
    Candidate::off(uuid(), name, xml(name, UUID))
}

fn running(name: &str) -> Candidate {
    off(name).running()
}

impl TestNode {
    async fn import(&self, more: &[(&str, &str)]) -> Told {
        self.form("POST", "/node/hv1/import", &[&[("domain", "web")], more].concat()).await
    }

    /// A node whose hypervisor has that domain, and each call of it takes a while.
    async fn with(domain: Candidate) -> TestNode {
        let node = TestNode::start().await;
        node.machine.set_foreign(domain);
        node.machine.set_weather(Weather { latency_ms: 2000..2001, ..Weather::default() });
        node
    }

    /// Epochs of the guests that run on the node.
    fn guests(&self) -> Vec<u64> {
        self.machine.running().into_iter().map(|(_, mark)| mark.epoch.0).collect()
    }

    /// Waits until the only guest is the VM's under its claim.
    async fn taken_over(&self) -> Value {
        let is = |vm: &Value| {
            vm["run_state"] == "running"
                && vm["claim"]["epoch"].as_u64().map(|epoch| vec![epoch]) == Some(self.guests())
        };
        self.vm_until("web", is).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_runs_is_taken_over_as_it_runs() {
    let node = TestNode::with(Candidate { persistent: false, autostart: true, ..running("web") }).await;
    let plan = node.import(&[("dry_run", "true")]).await;
    assert_eq!(plan.status, 200, "{plan:?}");
    let told = plan.json();
    assert_eq!(
        (&told["state"], &told["name"], &told["node"]),
        (&json!("start"), &json!("web"), &json!("hv1")),
        "{told}"
    );
    assert_eq!((told["changes"].as_array().unwrap().len(), &told["dry_run"]), (3, &json!(true)), "{told}");
    let vms = node.records().into_keys().filter(|path| path.starts_with("/vms/") || path.starts_with("/names/vms/"));
    assert_eq!((vms.count(), node.machine.foreign().len()), (0, 1), "nothing was changed");

    let told = node.import(&[]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let shown = node.taken_over().await;
    assert_eq!((&shown["state"], &shown["node"]), (&json!("start"), &json!("hv1")), "{shown}");
    assert!(node.machine.has_definition(uuid()), "so that its end is seen");
    let again = node.import(&[]).await;
    assert!(again.status == 200 && again.text.contains("is VM web already"), "{again:?}");
    // It is a VM as any.
    let told = node.form("POST", "/vm/web/state", &[("state", "stop"), ("wait", "true")]).await;
    assert_eq!((told.status.as_u16(), node.guests()), (200, vec![]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_off_becomes_a_vm_that_is_off_and_starts_under_drover() {
    let node = TestNode::with(off("web")).await;
    let told = node.import(&[]).await;
    assert_eq!((told.status.as_u16(), &told.json()["state"]), (200, &json!("stop")), "{told:?}");
    let gone = |vm: &Value| vm["state"] == "stop" && vm["claim"]["node"] == "" && node.machine.defined().is_empty();
    // The claim is another one when the definition is gone from the hypervisor.
    let shown = node.vm_until("web", |vm| gone(vm) && vm["claim"]["epoch"] != vm["claim"]["born"]).await;
    assert_eq!((node.machine.foreign(), &shown["run_state"]), (vec![], &json!("absent")), "{shown}");
    let again = node.import(&[]).await;
    assert!(again.status == 200 && again.text.contains("is VM web already"), "{again:?}");
    // Another domain with its UUID is somebody else's.
    node.machine.set_foreign(off("web"));
    let other = node.import(&[]).await;
    assert!(other.status == 400 && other.text.contains("has the UUID"), "{other:?}");
    node.form("POST", "/vm/web/state", &[("state", "start")]).await;
    let refused = |vm: &Value| vm["doing"].as_str().is_some_and(|doing| doing.contains("is not Drover's"));
    node.vm_until("web", refused).await;
    assert_eq!(node.machine.foreign().len(), 1, "it is left alone");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_the_domain_meanwhile_is_seen() {
    // It is started after it was seen off.
    let node = TestNode::with(off("web")).await;
    assert_eq!(node.import(&[]).await.json()["state"], "stop");
    node.machine.set_foreign(running("web"));
    let shown = node.taken_over().await;
    assert_eq!(shown["state"], "start", "its power is not cut: {shown}");

    // It ends after it was seen running.
    let node = TestNode::with(running("web")).await;
    assert_eq!(node.import(&[]).await.json()["state"], "start");
    node.machine.set_foreign(off("web"));
    let off = |vm: &Value| vm["state"] == "stop" && vm["claim"]["node"] == "" && node.machine.defined().is_empty();
    node.vm_until("web", off).await;
    assert_eq!(node.guests(), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn of_an_import_and_a_definition_with_the_same_name_or_uuid_one_is_refused_and_does_nothing() {
    for other in [UUID, "11111111-2222-4333-8444-000000000001"] {
        let node = TestNode::with(running("web")).await;
        let definition = xml("web", other);
        let define = [("xml", &*definition), ("node", "hv1"), ("no_check", "true")];
        let (imported, defined) = tokio::join!(node.import(&[("no_check", "true")]), node.form("POST", "/vm", &define));
        let won = [imported.status == 200, defined.status == 200];
        assert!(won == [true, false] || won == [false, true], "{imported:?} {defined:?}");
        if won[0] {
            node.taken_over().await;
        } else {
            assert_eq!((node.machine.foreign().len(), node.guests()), (1, vec![]), "the domain is as it was");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_taken_over_is_refused_and_nothing_is_changed() {
    let node = TestNode::start().await;
    assert_eq!(node.define("taken", "").await.status, 200);
    let before = node.records();
    let rows = [
        (Candidate { saved: true, ..off("web") }, "web", 400, "virsh managedsave-remove"),
        (Candidate { snapshots: 2, ..off("web") }, "web", 400, "virsh snapshot-delete"),
        (off("taken"), "taken", 400, "'virsh domrename'"),
        (off("not/a/name"), "not/a/name", 400, "'virsh domrename'"),
        (off("web"), "wbe", 404, "not Drover's are web"),
        (off("web"), "", 404, "no domain"),
    ];
    for (candidate, asked, status, why) in rows {
        node.machine.set_foreign(candidate.clone());
        for more in [vec![], vec![("dry_run", "true")]] {
            let told = node.form("POST", "/node/hv1/import", &[vec![("domain", asked)], more].concat()).await;
            assert_eq!(told.status, status, "{candidate:?}: {told:?}");
            assert!(told.text.contains(why), "{why}: {told:?}");
            assert_eq!((node.records(), node.machine.foreign().len()), (before.clone(), 1));
        }
    }
    let nobody = node.form("POST", "/node/hv9/import", &[("domain", "web")]).await;
    assert!(nobody.status == 404 && nobody.text.contains("no node"), "{nobody:?}");
    let bad = xml("web", UUID).replace("<os>", "<os><!-- machine='none-such' -->");
    node.machine.set_foreign(Candidate { xml: bad, ..off("web") });
    assert!(node.import(&[]).await.text.contains("unsupported machine type"));
    assert_eq!(node.import(&[("no_check", "true")]).await.status, 200);
}
