//! Guests that are not where the claim says: taken elsewhere by hand, or of a store that was lost.

use crate::support::{TestNode, xml};
use drover_drivers::hypervisor::Hypervisor;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

const UUID: &str = "11111111-2222-4333-8444-555555555555";

fn uuid() -> Uuid {
    UUID.parse().unwrap()
}

impl TestNode {
    /// A guest of an earlier store runs on the node, under that grant.
    async fn has_guest(&self, epoch: u64) {
        let mark = format!("<drover:vm xmlns:drover='urn:drover:domain:1' epoch='{epoch}' generation='1'/>");
        let xml = xml("web", UUID).replace("<memory", &format!("<metadata>{mark}</metadata><memory"));
        self.machine.connect().create(uuid(), xml, std::sync::Arc::new(|| true)).await.unwrap();
    }

    /// The only guest that runs on the node, by the grant in its mark.
    fn guest(&self) -> Option<u64> {
        match self.machine.running()[..] {
            [] => None,
            [(_, mark)] => Some(mark.epoch.0),
            ref more => panic!("{more:?}"),
        }
    }

    /// Waits for something that no record shows.
    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(waited.await.is_ok(), "it does not come to it that {what}");
    }

    async fn start_vm(&self) -> u64 {
        let told = self.form("POST", "/vm", &[("xml", &xml("web", UUID)), ("node", "hv1")]).await;
        assert_eq!(told.status, 200, "{told:?}");
        let told = self.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
        assert_eq!(told.status, 200, "{told:?}");
        self.get("/vm/web").await.json()["claim"]["epoch"].as_u64().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_taken_elsewhere_by_hand_is_handed_over_and_none_is_started_beside_it() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    let epoch = first.start_vm().await;
    first.machine.guest_is_taken(&second.machine, uuid());
    let there = |vm: &Value| vm["claim"]["node"] == "hv2" && vm["node"] == "hv2" && vm["run_state"] == "running";
    let shown = first.vm_until("web", there).await;
    assert_eq!((&shown["state"], &shown["last_node"]), (&json!("start"), &json!("hv1")), "{shown}");
    second.until("it has the new grant", || second.guest() == Some(epoch + 2)).await;
    assert!(second.machine.has_definition(uuid()), "so that its end is seen");
    assert_eq!((first.guest(), first.machine.defined()), (None, vec![]));
    assert_eq!(first.get("/vm/web").await.json()["claim"]["epoch"], epoch + 2, "none was started");
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_definition_is_removed_gets_it_back_and_its_end_is_seen() {
    let node = TestNode::start().await;
    let epoch = node.start_vm().await;
    node.machine.guest_is_undefined(uuid());
    node.until("its definition is back", || node.machine.has_definition(uuid())).await;
    assert_eq!(node.guest(), Some(epoch));
    node.machine.guest_goes_down(uuid(), drover_model::OffReason::Shutdown);
    node.vm_until("web", |vm| vm["state"] == "stop").await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_of_a_lost_store_is_adopted_as_it_runs() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    second.has_guest(3).await;
    let reported = |view: &std::sync::Arc<drover_model::ClusterView>| {
        view.nodes.values().any(|node| node.status.as_ref().is_some_and(|report| !report.strays.is_empty()))
    };
    first.handle.views().wait_for(reported).await.unwrap();
    let define = |more: Vec<(&'static str, &'static str)>| {
        let definition = xml("web", UUID);
        let first = &first;
        async move { first.form("POST", "/vm", &[vec![("xml", &*definition)], more].concat()).await }
    };
    for (more, why) in [
        (vec![], "runs on node hv2 already, under grant 3"),
        (vec![("node", "hv2")], "--adopt"),
        (vec![("node", "hv1"), ("adopt", "true")], "can be adopted on that node only"),
    ] {
        let told = define(more).await;
        assert!(told.status == 400 && told.text.contains(why), "{why}: {told:?}");
    }
    let told = define(vec![("adopt", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let shown = first.vm_until("web", |vm| vm["run_state"] == "running").await;
    assert_eq!((&shown["state"], &shown["node"]), (&json!("start"), &json!("hv2")), "{shown}");
    let epoch = shown["claim"]["epoch"].as_u64();
    second.until("it has the new grant", || second.guest() == epoch).await;
    assert!(epoch > Some(1_700_000_000), "above all that the store knows: {epoch:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_of_a_lost_store_beside_the_vms_present_one_is_a_fault_until_it_is_ended() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    let epoch = first.start_vm().await;
    // Its node was away when the VM was defined again.
    second.has_guest(3).await;
    let id = format!("vm-stray-{UUID}-hv2");
    let faulty = |is: bool| {
        let (views, id) = (first.handle.views(), id.clone());
        async move {
            let mut views = views;
            let seen = views.wait_for(|view| view.faults().contains_key(&id) == is);
            tokio::time::timeout(Duration::from_secs(300), seen).await.unwrap().unwrap();
        }
    };
    faulty(true).await;
    let faults = first.get("/faults").await;
    assert!(faults.text.contains("end one of them"), "{faults:?}");
    assert_eq!((first.guest(), second.guest()), (Some(epoch), Some(3)), "neither is killed");
    // None is started beside it either.
    first.form("POST", "/vm/web/state", &[("state", "stop"), ("wait", "true")]).await;
    first.form("POST", "/vm/web/state", &[("state", "start")]).await;
    first.vm_until("web", |vm| vm["doing"].as_str().is_some_and(|doing| doing.contains("hv2 reports"))).await;
    assert_eq!((first.guest(), second.guest()), (None, Some(3)));
    second.machine.guest_goes_down(uuid(), drover_model::OffReason::Destroyed);
    first.vm_until("web", |vm| vm["run_state"] == "running").await;
    faulty(false).await;
    assert_eq!((first.guest(), second.guest()), (Some(epoch + 1), None));
}
