//! Fences: what is shown, refused and done.

use crate::support::{Fencing, TestNode, Told, xml};
use async_trait::async_trait;
use drover_agent::{ConfigChange, Maintenance, NodeHandle, records};
use drover_drivers::{
    hypervisor::fake::FakeNetwork,
    power::fake::{FakeBmc, FakePower},
    presence::{Answer, Presence},
};
use drover_model::{
    ClusterView, Epoch, Evidence, EvidenceKind, Fence, FencePhase, NodeName, PowerState, RecordPath, Version, WallTime,
};
use drover_plan::{capacity::OVERHEAD, fence::proof::ORDER_IN_FORCE};
use drover_store::{
    Op, Store,
    memory::{MemoryCluster, Weather},
};
use serde_json::json;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_node_that_is_confirmed_to_be_off_loses_its_vms_and_then_its_name() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 2048).await;
    for (name, state) in [("web", "start"), ("idle", "stop")] {
        let told = first.form("POST", "/vm", &[("xml", &xml(name, "")), ("node", "hv2")]).await;
        assert_eq!(told.status, 200, "{told:?}");
        let told = first.form("POST", &format!("/vm/{name}/state"), &[("state", state), ("wait", "true")]).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
    let fence = first.get("/node/hv2/fence").await.json();
    assert_eq!((&fence["phase"], &fence["proof"]), (&json!(""), &json!([])), "{fence}");
    let web = fence["vms"].as_array().unwrap().iter().find(|vm| vm["vm"] == "web").unwrap();
    assert_eq!((&web["fate"], &web["to"]), (&json!("starts"), &json!("hv1")), "what would become of it: {fence}");

    // It is there.
    let records = first.records();
    let told = first.form("POST", "/node/hv2/fence", &[("confirm_off", "true")]).await;
    assert!(told.status == 400 && told.text.contains("its daemon is in state run"), "{told:?}");
    let told = first.raw("DELETE", "/node/hv2?confirm_off=true", "", "").await;
    assert!(told.status == 400 && told.text.contains("its daemon is in state run"), "{told:?}");
    let told = first.form("POST", "/node/hv2/fence", &[("confirm_off", "false")]).await;
    assert!(told.status == 400 && told.text.contains("confirm_off"), "{told:?}");
    let told = first.form("POST", "/node/hv9/fence", &[("confirm_off", "true")]).await;
    assert_eq!(told.status, 404, "{told:?}");
    assert_eq!(first.records().get("/fences/hv2"), records.get("/fences/hv2"));

    second.ended.abort();
    second.role_ended.abort();
    second.machine.power_off();
    // As if it had expired.
    let store = first.cluster.session(Duration::from_secs(4));
    store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
    let mut views = first.handle.views();
    let dead = |view: &std::sync::Arc<ClusterView>| {
        view.nodes.iter().any(|(name, node)| name.as_str() == "hv2" && node.session.is_none())
    };
    views.wait_for(dead).await.unwrap();
    let told = first.form("POST", "/node/hv2/fence", &[("confirm_off", "true"), ("boot", "another")]).await;
    assert!(told.status == 400 && told.text.contains("node hv2 was booted since"), "{told:?}");
    let boot = fence["boot"].as_str().unwrap();
    let order = [("confirm_off", "true"), ("boot", boot), ("wait", "true")];
    let told = first.form("POST", "/node/hv2/fence", &order).await;
    assert_eq!((told.status.as_u16(), &told.json()["state"]), (200, &json!("recovered")), "{told:?}");
    let web = first.vm_until("web", |vm| vm["run_state"] == "running").await;
    assert_eq!((&web["node"], &web["last_node"]), (&json!("hv1"), &json!("hv2")), "{web}");
    let fence = first.get("/node/hv2/fence").await.json();
    assert_eq!(fence["proof"][0]["kind"], "administrator", "{fence}");
    let told = first.form("POST", "/node/hv2/fence", &order).await;
    assert_eq!(told.status, 200, "again is not an error: {told:?}");

    // What is off stays, until the node is gone for good.
    let told = first.raw("DELETE", "/node/hv2", "", "").await;
    assert!(told.status == 400 && told.text.contains("idle"), "{told:?}");
    let told = first.raw("DELETE", "/node/hv2?confirm_off=true", "", "").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(first.get("/vm/idle").await.json()["node"], "hv1");
    assert!(!first.records().contains_key("/fences/hv2"));
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_could_not_be_absorbed_is_planned_and_a_fault_unless_it_need_not_be_tolerated() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 600).await;
    let told = first.form("POST", "/vm", &[("xml", &xml("web", "")), ("node", "hv1"), ("advise", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let warns = |told: &Told| told.json()["warnings"].as_array().map(|warnings| warnings[0].to_string());
    let says = "If node hv1 were lost, the other nodes would have no memory for 1 of its VMs (web)";
    assert!(warns(&told).is_some_and(|warning| warning.contains(says)), "what its start would mean: {told:?}");
    let told = first.form("POST", "/vm/web/state", &[("state", "start")]).await;
    assert!(told.status == 200 && warns(&told).is_none(), "nobody asked for it: {told:?}");
    let start = [("state", "start"), ("wait", "true"), ("advise", "true")];
    let told = first.form("POST", "/vm/web/state", &start).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert!(warns(&told).is_some_and(|warning| warning.contains(says)), "{told:?}");

    let plan = first.get("/plan?memory=128").await.json();
    let missing = 128 + OVERHEAD.as_mib();
    let wanted = json!([
        {"node": "hv1", "go_on": 0, "bound": [], "short": ["web"], "missing": missing, "further": 0},
        {"node": "hv2", "go_on": 0, "bound": [], "short": [], "missing": 0, "further": plan["further"]},
    ]);
    assert_eq!((&plan["nodes"], &plan["tolerate"]), (&wanted, &json!(1)), "{plan}");
    assert_eq!(second.get("/plan").await.json()["further"], json!(null), "no size was given");

    let short = |view: &ClusterView| view.faults().keys().any(|id| id == "recovery-short-hv1");
    let mut views = second.handle.views();
    views.wait_for(|view| short(view)).await.unwrap();
    let told = first.form("POST", "/vm/web/state", &[("state", "start"), ("advise", "true")]).await;
    assert!(told.status == 200 && warns(&told).is_none(), "it is a fault by now: {told:?}");
    let told = second.form("PUT", "/config", &[("tolerate", "0")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    views.wait_for(|view| !short(view)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_two_nodes_at_once_is_planned_and_a_fault_if_it_must_be_tolerated() {
    let first = TestNode::start().await;
    let _second = first.beside("hv2", 2048).await;
    let _third = first.beside("hv3", 900).await;
    for (name, node) in [("web", "hv1"), ("db", "hv2")] {
        let told = first.form("POST", "/vm", &[("xml", &xml(name, "")), ("node", node)]).await;
        assert_eq!(told.status, 200, "{told:?}");
        let told = first.form("POST", &format!("/vm/{name}/state"), &[("state", "start")]).await;
        assert_eq!(told.status, 200, "{told:?}");
        first.vm_until(name, |vm| vm["run_state"] == "running").await;
    }
    let plan = first.get("/plan").await.json();
    assert_eq!((&plan["together"], &plan["nodes"][2]["node"]), (&json!(null), &json!("hv3")), "one is: {plan}");

    let told = first.form("PUT", "/config", &[("tolerate", "2")]).await;
    assert_eq!((told.status.as_u16(), &told.json()["tolerate"]), (200, &json!(2)), "{told:?}");
    let short = |view: &ClusterView| view.faults().contains_key(&"recovery-together-short".to_owned());
    let mut views = first.handle.views();
    let view = views.wait_for(|view| short(view)).await.unwrap().clone();
    let says = "If 2 nodes were lost at once (hv1, hv2), the others would have no memory for 1 of their VMs";
    assert!(view.faults()[&"recovery-together-short".to_owned()].message.contains(says), "{:?}", view.faults());
    assert!(!view.faults().keys().any(|id| id.starts_with("recovery-short")), "each alone can be lost");
    let plan = first.get("/plan?memory=128").await.json();
    let worst = &plan["together"];
    let missing = 128 + OVERHEAD.as_mib();
    assert_eq!((&worst["nodes"], &worst["go_on"]), (&json!(["hv1", "hv2"]), &json!(1)), "{plan}");
    assert_eq!((&worst["missing"], &worst["further"]), (&json!(missing), &json!(0)), "{plan}");
    assert_eq!(
        (worst["short"].as_array().map(Vec::len), &worst["planned"], &worst["all"]),
        (Some(1), &json!(3), &json!(3))
    );

    // Who starts one more is told what is not reported yet.
    let told = first.form("PUT", "/config", &[("tolerate", "1")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    views.wait_for(|view| !short(view)).await.unwrap();
    let told = first.form("POST", "/vm/db/state", &[("state", "stop"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = first.form("PUT", "/config", &[("tolerate", "2")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let start = [("state", "start"), ("wait", "true"), ("advise", "true")];
    let told = first.form("POST", "/vm/db/state", &start).await;
    assert!(told.status == 200 && told.json()["warnings"][0].as_str().is_some_and(|w| w.contains(says)), "{told:?}");
}

/// Its power may be cut at any moment, so it begins nothing until that is over, by its own clock.
#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_while_its_power_is_being_cut_does_nothing_before_that_is_over() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 2048).await;
    let told = first.form("POST", "/vm", &[("xml", &xml("web", "")), ("node", "hv2")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let (store, name) = (first.cluster.session(Duration::from_secs(4)), NodeName::new("hv2").unwrap());
    let record = first.handle.view().nodes.get(&name).unwrap().record.value.clone();
    let suspicion = Fence::suspicion(&record, &name, Epoch(1), WallTime(1));
    let ordered = Fence { off_ordered: true, ..suspicion.to(FencePhase::Proving, WallTime(2)) };
    store.multi(vec![records::create_op(&name, &ordered).unwrap()]).await.unwrap();
    let shown = first.get("/node/hv2/fence").await.json();
    second.ended.abort();
    second.role_ended.abort();
    // As if it had expired.
    store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
    let told = first.form("POST", "/vm/web/state", &[("state", "start")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let began = Instant::now();
    let _third = TestNode::begin(first.cluster.clone(), first.network.clone(), "hv2", 2048, false);
    first.vm_until("web", |vm| vm["run_state"] == "running").await;
    assert!(began.elapsed() >= ORDER_IN_FORCE, "it began something after {:?}; {shown}", began.elapsed());
    assert!(!first.records().contains_key("/fences/hv2"));
}

/// The order of an earlier primary may still be under way. Meanwhile its VMs are recovered.
#[tokio::test(start_paused = true)]
async fn a_node_whose_end_is_proved_waits_for_orders_too_and_holds_up_no_recovery() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 2048).await;
    let told = first.form("POST", "/vm", &[("xml", &xml("web", "")), ("node", "hv2")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = first.form("POST", "/vm/web/state", &[("state", "start")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    first.vm_until("web", |vm| vm["run_state"] == "running").await;
    let (store, name) = (first.cluster.session(Duration::from_secs(4)), NodeName::new("hv2").unwrap());
    let record = first.handle.view().nodes.get(&name).unwrap().record.value.clone();
    let evidence =
        Evidence { kind: EvidenceKind::Power, at: WallTime(2), by: name.clone(), what: "its BMC says so".to_owned() };
    let suspicion = Fence::suspicion(&record, &name, Epoch(1), WallTime(1));
    let proved = Fence { off_ordered: true, ..suspicion.proved(evidence) };
    second.ended.abort();
    second.role_ended.abort();
    // As if it had expired.
    store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
    store.multi(vec![records::create_op(&name, &proved).unwrap()]).await.unwrap();
    let began = Instant::now();
    let mut third = TestNode::begin(first.cluster.clone(), first.network.clone(), "hv2", 2048, false);
    first.vm_until("web", |vm| vm["run_state"] == "running" && vm["node"] == "hv1").await;
    assert!(began.elapsed() < ORDER_IN_FORCE, "the VM was recovered after {:?}", began.elapsed());
    assert!(!first.records().contains_key("/nodes/hv2/session"));
    third.handle.wait_ready().await.unwrap();
    assert!(began.elapsed() >= ORDER_IN_FORCE, "it joined after {:?}", began.elapsed());
    assert!(began.elapsed() < 2 * ORDER_IN_FORCE, "it waited once more: {:?}", began.elapsed());
}

/// Between its look at the fence and the end of it, the session may end, the fence be withdrawn, and another one be
/// made that has the same version.
#[tokio::test(start_paused = true)]
async fn a_node_whose_session_is_over_ends_no_fence() {
    let (cluster, network, name) = (MemoryCluster::new(1), FakeNetwork::default(), NodeName::new("hv2").unwrap());
    let begin = || TestNode::begin(cluster.clone(), network.clone(), "hv2", 2048, false);
    let (fence, session): (RecordPath, RecordPath) =
        ("/fences/hv2".parse().unwrap(), "/nodes/hv2/session".parse().unwrap());
    let mut node = begin();
    node.handle.wait_ready().await.unwrap();
    let record = node.handle.view().nodes.get(&name).unwrap().record.value.clone();
    let suspicion = Fence::suspicion(&record, &name, Epoch(1), WallTime(1));
    let ordered = Fence { off_ordered: true, ..suspicion.to(FencePhase::Proving, WallTime(2)) };
    cluster.set_weather(Weather { latency_ms: 10..11, ..Weather::default() });
    for later in 0_u64.. {
        node.ended.abort();
        node.role_ended.abort();
        cluster.apply(vec![Op::Delete(session.clone(), None)]).unwrap();
        cluster.apply(vec![records::create_op(&name, &suspicion).unwrap()]).unwrap();
        node = begin();
        while cluster.peek(&session).is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(later)).await;
        let (ended, gone) = (Op::Delete(session.clone(), None), Op::Delete(fence.clone(), Some(Version(0))));
        if cluster.apply(vec![ended, gone, records::create_op(&name, &ordered).unwrap()]).is_err() {
            assert!(later > 20, "it takes some requests: {later} ms");
            return;
        }
        sleep(Duration::from_secs(30)).await;
        assert!(cluster.peek(&fence).is_some(), "it ended another fence, {later} ms after its session began");
        cluster.apply(vec![Op::Delete(fence.clone(), None)]).unwrap();
    }
}

/// Its own fence may say that its power is about to be cut.
#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_read_its_own_fence_does_nothing() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 2048).await;
    let told = first.form("POST", "/vm", &[("xml", &xml("web", "")), ("node", "hv2")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let store = first.cluster.session(Duration::from_secs(4));
    second.ended.abort();
    second.role_ended.abort();
    store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
    let newer = br#"{"schema": 99}"#.to_vec();
    store.create(&"/fences/hv2".parse().unwrap(), newer, drover_store::CreateMode::Persistent).await.unwrap();
    let told = first.form("POST", "/vm/web/state", &[("state", "start")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let _third = TestNode::begin(first.cluster.clone(), first.network.clone(), "hv2", 2048, false);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_ne!(first.get("/vm/web").await.json()["run_state"], "running");
    store.delete(&"/fences/hv2".parse().unwrap(), None).await.unwrap();
    first.vm_until("web", |vm| vm["run_state"] == "running").await;
}

/// Nobody answers. When that is asked for the second time, right before power is cut, maintenance begins.
#[derive(Default)]
struct Meanwhile {
    asked: AtomicU32,
    node: OnceLock<NodeHandle>,
}

#[async_trait]
impl Presence for Meanwhile {
    async fn answers(&self, _: &str) -> Answer {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 1
            && let Some(node) = self.node.get()
        {
            let change = ConfigChange { maintenance: Some(Maintenance::On(None)), ..ConfigChange::default() };
            node.commands().set_config(&change).await.unwrap();
        }
        Answer::Silent
    }

    async fn answers_at_its_api(&self, _: &str) -> Answer {
        Answer::Some("it takes connections".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn power_is_not_cut_if_something_speaks_against_it_by_then() {
    for maintenance in [false, true] {
        let (power, meanwhile) = (FakePower::default(), Arc::new(Meanwhile::default()));
        power.put("hv2", FakeBmc { machine: "hv2".to_owned(), ..FakeBmc::default() });
        let fencing = Fencing { power: Some(power.clone()), presence: Some(meanwhile.clone()) };
        let first = TestNode::fenced(fencing).await;
        let second = first.beside("hv2", 2048).await;
        if maintenance {
            assert!(meanwhile.node.set(first.handle.clone()).is_ok());
        }
        second.ended.abort();
        second.role_ended.abort();
        let store = first.cluster.session(Duration::from_secs(4));
        store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
        sleep(Duration::from_secs(600)).await;
        assert!(meanwhile.asked.load(Ordering::Relaxed) > 1, "it has come to the order");
        let wanted = if maintenance { PowerState::On } else { PowerState::Off };
        assert_eq!(power.machine("hv2"), wanted, "maintenance: {maintenance}");
    }
}

/// Switched on again once, and only if its power was cut.
#[tokio::test(start_paused = true)]
async fn a_node_whose_power_was_cut_is_switched_on_again_if_the_configuration_says_so() {
    for (power_on, was_off) in [(false, false), (true, false), (true, true)] {
        let (power, silent) = (FakePower::default(), Arc::new(Meanwhile::default()));
        power.put("hv2", FakeBmc { machine: "hv2".to_owned(), ..FakeBmc::default() });
        let first = TestNode::fenced(Fencing { power: Some(power.clone()), presence: Some(silent) }).await;
        let second = first.beside("hv2", 2048).await;
        let told = first.json("PUT", "/config", json!({"power_on": power_on})).await;
        assert_eq!(told.status, 200, "{told:?}");
        second.ended.abort();
        second.role_ended.abort();
        if was_off {
            power.set_machine("hv2", PowerState::Off);
        }
        let store = first.cluster.session(Duration::from_secs(4));
        store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        let fence = first.get("/node/hv2/fence").await.json();
        let on = power_on && !was_off;
        let shown = (&fence["phase"], &fence["off_ordered"], &fence["on_ordered"]);
        assert_eq!(shown, (&json!("recovered"), &json!(!was_off), &json!(on)), "{fence}");
        assert_eq!(power.machine("hv2"), if on { PowerState::On } else { PowerState::Off });
        // Somebody switches it off.
        power.set_machine("hv2", PowerState::Off);
        sleep(Duration::from_secs(600)).await;
        assert_eq!(power.machine("hv2"), PowerState::Off, "it is left as it is");
    }
}

#[tokio::test(start_paused = true)]
async fn vms_of_a_node_that_is_off_wait_for_an_administrator_if_the_configuration_says_so() {
    let (power, silent) = (FakePower::default(), Arc::new(Meanwhile::default()));
    power.put("hv2", FakeBmc { machine: "hv2".to_owned(), ..FakeBmc::default() });
    let first = TestNode::fenced(Fencing { power: Some(power.clone()), presence: Some(silent) }).await;
    let second = first.beside("hv2", 2048).await;
    let told = first.json("PUT", "/config", json!({"after_proof": "none"})).await;
    assert_eq!(told.status, 200, "{told:?}");
    for (path, fields) in [
        ("/vm", vec![("xml", xml("web", "")), ("node", "hv2".to_owned())]),
        ("/vm/web/state", vec![("state", "start".to_owned()), ("wait", "true".to_owned())]),
    ] {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let told = first.form("POST", path, &fields).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
    second.ended.abort();
    second.role_ended.abort();
    second.machine.power_off();
    power.set_machine("hv2", PowerState::Off);
    let store = first.cluster.session(Duration::from_secs(4));
    store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    let fence = first.get("/node/hv2/fence").await.json();
    assert_eq!((&fence["phase"], &fence["proof"][0]["kind"]), (&json!("proved"), &json!("power")), "{fence}");
    assert_eq!(first.get("/vm/web").await.json()["claim"]["node"], "hv2");
    let faults = first.get("/faults").await.json();
    let fault = faults.as_array().unwrap().iter().find(|fault| fault["id"] == "node-dead-hv2").unwrap();
    assert!(fault["message"].as_str().unwrap().contains("its VMs wait"), "{fault}");

    let told = first.form("POST", "/node/hv2/fence", &[("confirm_off", "true"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let web = first.vm_until("web", |vm| vm["run_state"] == "running").await;
    assert_eq!(web["node"], "hv1", "{web}");
    let proof = first.get("/node/hv2/fence").await.json()["proof"].clone();
    assert_eq!((&proof[0]["kind"], &proof[1]["kind"]), (&json!("power"), &json!("administrator")), "{proof}");
}

#[tokio::test(start_paused = true)]
async fn a_node_may_have_policies_of_its_own() {
    let (power, silent) = (FakePower::default(), Arc::new(Meanwhile::default()));
    power.put("hv2", FakeBmc { machine: "hv2".to_owned(), ..FakeBmc::default() });
    let first = TestNode::fenced(Fencing { power: Some(power.clone()), presence: Some(silent) }).await;
    let second = first.beside("hv2", 2048).await;
    let policies = async || first.get("/node/hv2").await.json()["policies"].clone();
    let shown = |after_proof: &str, power_on: bool, on_return: &str, own: [bool; 3]| {
        json!({
            "after_proof": after_proof, "power_on": power_on, "on_return": on_return,
            "own_after_proof": own[0], "own_power_on": own[1], "own_on_return": own[2],
        })
    };
    let cluster = shown("recover", false, "flushed", [false; 3]);
    assert_eq!(policies().await, cluster, "the cluster's");
    for (change, wanted) in [
        (json!({"power_on": "true"}), shown("recover", true, "flushed", [false, true, false])),
        (json!({"after_proof": "none"}), shown("none", true, "flushed", [true, true, false])),
        (json!({"power_on": "inherit"}), shown("none", false, "flushed", [true, false, false])),
        (json!({"on_return": "ready"}), shown("none", false, "ready", [true, false, true])),
    ] {
        let told = first.json("PUT", "/node/hv2/policies", change.clone()).await;
        assert_eq!((told.status.as_u16(), told.json()), (200, wanted.clone()), "{change}");
        assert_eq!(policies().await, wanted, "{change}");
    }
    let record = first.cluster.dump()["/nodes/hv2"].clone();
    let told = first.json("PUT", "/node/hv2/policies", json!({})).await;
    assert_eq!((told.status.as_u16(), &first.cluster.dump()["/nodes/hv2"]), (200, &record), "nothing is changed");
    let other = first.get("/node/hv1").await.json()["policies"].clone();
    assert_eq!(other, cluster, "another's are not changed");

    for (path, fields) in [
        ("/vm", vec![("xml", xml("web", "")), ("node", "hv2".to_owned())]),
        ("/vm/web/state", vec![("state", "start".to_owned()), ("wait", "true".to_owned())]),
    ] {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let told = first.form("POST", path, &fields).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
    second.ended.abort();
    second.role_ended.abort();
    second.machine.power_off();
    power.set_machine("hv2", PowerState::Off);
    let store = first.cluster.session(Duration::from_secs(4));
    store.delete(&"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(first.get("/node/hv2/fence").await.json()["phase"], "proved");
    let faults = first.get("/faults").await.json();
    let fault = faults.as_array().unwrap().iter().find(|fault| fault["id"] == "node-dead-hv2").unwrap();
    let fault = fault["message"].as_str().unwrap();
    assert!(fault.contains("its VMs wait") && fault.contains("drover node set hv2"), "{fault}");

    let told = first.json("PUT", "/node/hv2/policies", json!({"after_proof": "inherit"})).await;
    assert_eq!((told.status.as_u16(), told.json()), (200, shown("recover", false, "ready", [false, false, true])));
    let web = first.vm_until("web", |vm| vm["run_state"] == "running").await;
    assert_eq!(web["node"], "hv1", "{web}");
}
