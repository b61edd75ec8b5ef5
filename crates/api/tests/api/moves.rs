//! Moves of VMs between nodes.

use crate::support::{TestNode, xml};
use drover_drivers::hypervisor::fake::Weather;
use drover_store::memory as store;
use serde_json::{Value, json};

const UUID: &str = "11111111-2222-4333-8444-555555555555";

/// Two nodes, and a VM running on the first one.
async fn two() -> (TestNode, TestNode) {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    let told = first.form("POST", "/vm", &[("xml", &xml("web", UUID)), ("node", "hv1")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = first.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    (first, second)
}

fn running(nodes: [&TestNode; 2]) -> [usize; 2] {
    nodes.map(|node| node.machine.running().len())
}

#[tokio::test(start_paused = true)]
async fn a_vm_is_migrated_unmigrated_and_moved() {
    let (first, second) = two().await;
    let place = |node: &str, last: &str| json!({"name": "web", "node": node, "last_node": last});
    assert_eq!(first.get("/vm/web/node").await.json(), place("hv1", ""));
    for (asked, fields, to, last, counts) in [
        (&first, vec![("action", "migrate"), ("node", "hv2")], "hv2", "hv1", [0, 1]),
        (&second, vec![("action", "unmigrate")], "hv1", "", [1, 0]),
        // Without a node, the best one is chosen.
        (&second, vec![("action", "move"), ("force_live", "true")], "hv2", "", [0, 1]),
    ] {
        let mut fields = fields;
        fields.push(("wait", "true"));
        let told = asked.form("POST", "/vm/web/node", &fields).await;
        assert_eq!(told.status, 200, "{fields:?}: {told:?}");
        assert_eq!(told.json()["to"], to, "{told:?}");
        assert_eq!(running([&first, &second]), counts, "{fields:?}");
        assert_eq!(asked.get("/vm/web/node").await.json(), place(to, last), "{fields:?}");
        let shown = asked.get("/vm/web").await.json();
        assert_eq!((&shown["state"], &shown["migration"]), (&json!("start"), &Value::Null), "{shown}");
    }
    // A VM that is off is only reassigned.
    first.form("POST", "/vm/web/state", &[("state", "stop"), ("wait", "true")]).await;
    let told = first.form("POST", "/vm/web/node", &[("action", "move"), ("node", "hv1"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert!(told.json().get("to").is_none() && told.text.contains("assigned to hv1"), "{told:?}");
    assert_eq!(first.get("/vm/web/node").await.json(), place("hv1", ""));
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_placement_is_recorded() {
    let (first, second) = two().await;
    let placed =
        |vm: &Value| (vm["placed"]["by"].clone(), vm["placed"]["to"].clone(), vm["placed"]["selector"].clone());
    let shown = first.get("/vm/web").await.json();
    assert_eq!(placed(&shown), (json!("define"), json!("hv1"), json!("")), "its node was named: {shown}");
    assert!(shown["placed"]["at"].as_u64() > Some(0), "{shown}");
    // A second VM, for which there was a choice: the first node has one VM already.
    let told = first.form("POST", "/vm", &[("xml", &xml("db", ""))]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let shown = second.vm_until("db", |vm| vm["node"] == "hv2").await;
    assert_eq!(placed(&shown), (json!("define"), json!("hv2"), json!("mem")), "{shown}");
    let other = json!([{"node": "hv1", "score": 7232}]);
    assert_eq!((&shown["placed"]["score"], &shown["placed"]["others"]), (&json!(7456), &other), "{shown}");

    first.machine.set_weather(Weather { transfer_ms: 80_000..80_001, ..Weather::default() });
    let told = first.form("POST", "/vm/web/node", &[("action", "migrate")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let shown = first.get("/vm/web").await.json();
    assert_eq!((&shown["placed"]["by"], &shown["going"]["by"]), (&json!("define"), &json!("migrate")), "{shown}");
    let shown = first.vm_until("web", |vm| vm["node"] == "hv2" && vm["run_state"] == "running").await;
    assert_eq!(placed(&shown), (json!("migrate"), json!("hv2"), json!("mem")), "{shown}");
    assert_eq!((&shown["placed"]["how"], shown.get("going")), (&json!("live-else-cold"), None), "{shown}");
    let explained = second.get("/vm/web/explain").await.json();
    assert_eq!(explained["placed"], shown["placed"], "{explained}");

    // A flush records its choice too.
    first.machine.set_weather(Weather::default());
    let told = first.form("POST", "/node/hv2/domain-state", &[("state", "flush"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let shown = first.vm_until("web", |vm| vm["node"] == "hv1").await;
    assert_eq!(placed(&shown), (json!("flush"), json!("hv1"), json!("mem")), "{shown}");
    let list = first.get("/vm").await.json();
    assert!(list.as_array().unwrap().iter().all(|vm| vm.get("placed").is_none()), "{list}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_move_reports_why_and_where_the_vm_runs() {
    let (first, second) = two().await;
    first.machine.set_weather(Weather { astray_per_mille: 1000, ..Weather::default() });
    for failures in 1..=2 {
        let fields = [("action", "migrate"), ("force_live", "true"), ("wait", "true")];
        let told = second.form("POST", "/vm/web/node", &fields).await;
        assert_eq!(told.status, 400, "{told:?}");
        let message = told.json()["message"].as_str().unwrap().to_owned();
        for part in ["VM web was not moved to hv2", "the connection broke", "it runs on hv1"] {
            assert!(message.contains(part), "{part:?} is told: {message}");
        }
        assert_eq!(running([&first, &second]), [1, 0]);
        let shown = first.get("/vm/web").await.json();
        assert_eq!((&shown["state"], &shown["move_failures"]), (&json!("start"), &json!(failures)), "{shown}");
        assert!(shown["move_failed"].as_str().unwrap().starts_with("to hv2: "), "{shown}");
    }
    // Its method allows a cold move if a live one fails.
    let told = first.form("POST", "/vm/web/node", &[("action", "migrate"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(running([&first, &second]), [0, 1]);
    let shown = first.vm_until("web", |vm| vm["move_failed"] == "").await;
    assert_eq!(shown["move_failures"], 0, "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_move_shows_progress_and_can_be_cancelled() {
    let (first, second) = two().await;
    first.machine.set_weather(Weather { transfer_ms: 80_000..80_001, ..Weather::default() });
    let order = [("action", "migrate"), ("node", "hv2")];
    let told = first.form("POST", "/vm/web/node", &order).await;
    assert_eq!((told.status.as_u16(), &told.json()["to"]), (200, &json!("hv2")), "{told:?}");
    let half = |vm: &Value| vm["migration"]["sent"].as_u64() >= Some(64);
    let shown = first.vm_until("web", half).await;
    assert_eq!(shown["state"], "migrate", "{shown}");
    let migration = &shown["migration"];
    assert_eq!((&migration["to"], &migration["total"]), (&json!("hv2"), &json!(128)), "MiB: {migration}");
    let (sent, left) = (migration["sent"].as_u64().unwrap(), migration["left"].as_u64().unwrap());
    assert_eq!(sent + left, 128, "{migration}");
    let elapsed = migration["elapsed"].as_u64().unwrap();
    assert!((35..80).contains(&elapsed), "seconds: {migration}");
    assert!(migration["estimate"].is_u64() && migration["rate"] == 16, "{migration}");
    let names = |list: Value| list.as_array().unwrap().len();
    assert_eq!(names(first.get("/vm?state=migrate").await.json()), 1);

    let told = first.form("POST", "/vm/web/node", &[("action", "cancel"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert!(told.text.contains("it runs on hv1"), "{told:?}");
    assert_eq!(running([&first, &second]), [1, 0]);
    let shown = first.get("/vm/web").await.json();
    assert_eq!((&shown["state"], &shown["migration"]), (&json!("start"), &Value::Null), "{shown}");
    let told = first.form("POST", "/vm/web/node", &[("action", "cancel")]).await;
    assert_eq!(told.status, 400, "{told:?}");
    assert!(told.text.contains("is in state start, and cancel needs a move that is under way"), "{told:?}");
}

/// The wait for a move that somebody else cancels ends with a conflict, whatever happened to earlier moves.
#[tokio::test(start_paused = true)]
async fn a_cancelled_move_is_a_conflict_for_its_waiter() {
    let (first, second) = two().await;
    let order = [("action", "migrate"), ("force_live", "true"), ("wait", "true")];
    first.machine.set_weather(Weather { astray_per_mille: 1000, ..Weather::default() });
    assert_eq!(first.form("POST", "/vm/web/node", &order).await.status, 400);
    first.machine.set_weather(Weather { transfer_ms: 80_000..80_001, ..Weather::default() });
    let waits = first.form("POST", "/vm/web/node", &order);
    let cancels = async {
        second.vm_until("web", |vm| vm["migration"]["sent"].as_u64() >= Some(16)).await;
        second.form("POST", "/vm/web/node", &[("action", "cancel")]).await
    };
    let (waited, cancelled) = tokio::join!(waits, cancels);
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(waited.status, 409, "{waited:?}");
    assert!(waited.text.contains("another order") && waited.text.contains("it runs on hv1"), "{waited:?}");
}

/// A move that waits for its turn, and whose target no longer takes VMs by then. With a store as slow as a real one,
/// the VM's record says that the move is over before its status says why.
#[tokio::test(start_paused = true)]
async fn a_move_whose_target_stops_taking_vms_reports_that() {
    let (first, second) = two().await;
    let told = first.form("POST", "/vm", &[("xml", &xml("db", "")), ("node", "hv1")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    first.form("POST", "/vm/db/state", &[("state", "start"), ("wait", "true")]).await;
    assert_eq!(first.form("PUT", "/config", &[("moves_per_source", "1")]).await.status, 200);
    first.machine.set_weather(Weather { transfer_ms: 80_000..80_001, ..Weather::default() });
    assert_eq!(first.form("POST", "/vm/db/node", &[("action", "move"), ("node", "hv2")]).await.status, 200);
    first.vm_until("db", |vm| vm["migration"]["sent"].as_u64() >= Some(16)).await;
    first.cluster.set_weather(store::Weather { latency_ms: 5..20, ..store::Weather::default() });
    let waits = first.form("POST", "/vm/web/node", &[("action", "migrate"), ("node", "hv2"), ("wait", "true")]);
    let flushes = async {
        second.vm_until("web", |vm| vm["doing"].as_str().unwrap().contains("its turn")).await;
        second.form("POST", "/node/hv2/domain-state", &[("state", "flush")]).await
    };
    let (waited, flushed) = tokio::join!(waits, flushes);
    assert_eq!(flushed.status, 200, "{flushed:?}");
    assert_eq!(waited.status, 400, "{waited:?}");
    assert!(waited.text.contains("it is in state flush") && waited.text.contains("it runs on hv1"), "{waited:?}");
}

/// A move that was never attempted is reported, and is not taken for the failure of the next one.
#[tokio::test(start_paused = true)]
async fn a_cancelled_move_does_not_report_an_earlier_failure() {
    let (first, second) = two().await;
    assert_eq!(first.form("PUT", "/config", &[("moves_per_source", "1")]).await.status, 200);
    assert_eq!(first.form("POST", "/vm", &[("xml", &xml("db", "")), ("node", "hv1")]).await.status, 200);
    first.form("POST", "/vm/db/state", &[("state", "start"), ("wait", "true")]).await;
    first.machine.set_weather(Weather { transfer_ms: 80_000..80_001, ..Weather::default() });
    let order = [("action", "migrate"), ("node", "hv2"), ("wait", "true")];
    assert_eq!(first.form("POST", "/vm/db/node", &order[..2]).await.status, 200);
    first.vm_until("db", |vm| vm["migration"]["sent"].as_u64() >= Some(16)).await;
    let waits = first.form("POST", "/vm/web/node", &order);
    let flushes = async {
        second.vm_until("web", |vm| vm["doing"].as_str().unwrap().contains("its turn")).await;
        second.form("POST", "/node/hv2/domain-state", &[("state", "flush")]).await
    };
    let (waited, _) = tokio::join!(waits, flushes);
    assert_eq!(waited.status, 400, "{waited:?}");
    assert_eq!(first.get("/vm/web").await.json()["move_failures"], 1);
    let told = second.form("POST", "/node/hv2/domain-state", &[("state", "ready"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");

    let waits = first.form("POST", "/vm/web/node", &order);
    let cancels = async {
        second.vm_until("web", |vm| vm["state"] == "migrate").await;
        second.form("POST", "/vm/web/node", &[("action", "cancel")]).await
    };
    let (waited, cancelled) = tokio::join!(waits, cancels);
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(waited.status, 409, "{waited:?}");
}

#[tokio::test]
async fn a_placement_is_explained() {
    let (first, _second) = two().await;
    let _small = first.beside("hv3", 600).await;
    let told = first.get("/vm/web/explain").await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = told.json();
    for (key, value) in [("name", "web"), ("node", "hv1"), ("selector", "mem"), ("chosen", "hv2")] {
        assert_eq!(told[key], value, "{key}: {told}");
    }
    // 8192 MiB, less 512 for the node and 128 + 96 for the VM.
    let [here, chosen, small] = [0, 1, 2].map(|n| told["nodes"][n].clone());
    assert_eq!(
        here,
        json!({"node": "hv1", "fits": false, "score": null, "memory_left": null, "reason": "the VM is there"})
    );
    assert_eq!(chosen, json!({"node": "hv2", "fits": true, "score": 7456, "memory_left": 7456, "reason": ""}));
    assert_eq!((&small["node"], &small["fits"]), (&json!("hv3"), &json!(false)));
    assert!(small["reason"].as_str().unwrap().contains("88 MiB are free"), "{small}");
    // By its own selector and within its limit.
    let told = first.form("POST", "/vm/web/meta", &[("selector", "vms"), ("limit", "hv1")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = first.get("/vm/web/explain").await.json();
    assert_eq!((&told["selector"], &told["chosen"]), (&json!("vms"), &json!("")), "{told}");
    assert_eq!(told["nodes"][1]["reason"], "the VM is limited to hv1", "{told}");
}
