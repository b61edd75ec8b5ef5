//! Flush and ready of nodes.

use crate::support::{TestNode, Told, xml};
use drover_drivers::hypervisor::fake::Weather;
use serde_json::{Value, json};

/// Two nodes, and VMs on the first one: `(name, MiB, migration method)`.
async fn two(vms: &[(&str, u64, &str)]) -> (TestNode, TestNode) {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 2048).await;
    for (name, mib, method) in vms {
        let xml = xml(name, "").replace(">128<", &format!(">{mib}<"));
        let told = first.form("POST", "/vm", &[("xml", &xml), ("node", "hv1"), ("migration_method", method)]).await;
        assert_eq!(told.status, 200, "{told:?}");
        let told = first.form("POST", &format!("/vm/{name}/state"), &[("state", "start"), ("wait", "true")]).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
    (first, second)
}

async fn order(node: &TestNode, state: &str, more: &[(&str, &str)]) -> Told {
    let mut fields = vec![("state", state)];
    fields.extend_from_slice(more);
    node.form("POST", "/node/hv1/domain-state", &fields).await
}

const WAIT: &[(&str, &str)] = &[("wait", "true")];

#[tokio::test(start_paused = true)]
async fn a_node_is_flushed_as_planned_and_filled_again() {
    let (first, second) = two(&[("big", 4096, "none"), ("db", 512, "live"), ("web", 128, "shutdown")]).await;
    let records = first.records();
    let plan = first.get("/node/hv1/flush-plan").await.json();
    let fates: Vec<Value> = ["vm", "fate", "to", "how"]
        .iter()
        .map(|key| plan.as_array().unwrap().iter().map(|fate| fate[*key].clone()).collect())
        .collect();
    assert_eq!(fates[0], json!(["big", "db", "web"]), "the largest first: {plan}");
    assert_eq!(fates[1], json!(["shutdown", "moves", "moves"]), "{plan}");
    assert_eq!(fates[2], json!(["", "hv2", "hv2"]), "{plan}");
    assert_eq!(fates[3], json!(["", "live", "cold"]), "{plan}");
    assert!(plan[0]["reason"].as_str().unwrap().contains("hv2: 4192 MiB are needed"), "{plan}");
    assert_eq!(first.records(), records, "a plan changes nothing");

    let told = order(&second, "flush", WAIT).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!((&told.json()["name"], &told.json()["state"]), (&json!("hv1"), &json!("flushed")), "{told:?}");
    // A cold-moved VM has left when the node is flushed, but may still be starting.
    first.vm_until("web", |vm| vm["run_state"] == "running").await;
    assert_eq!([first.machine.running().len(), second.machine.running().len()], [0, 2]);
    assert_eq!(first.get("/vm/big").await.json()["node_autostart"], true);
    let node = first.get("/node/hv1").await.json();
    assert_eq!((&node["domain_state"], &node["drain"]), (&json!("flushed"), &Value::Null), "{node}");
    assert_eq!(first.get("/node/hv1/flush-plan").await.json(), json!([]));

    let told = order(&second, "ready", WAIT).await;
    assert_eq!((told.status.as_u16(), &told.json()["state"]), (200, &json!("ready")), "{told:?}");
    first.vm_until("big", |vm| vm["run_state"] == "running" && vm["node_autostart"] == false).await;
    assert_eq!([first.machine.running().len(), second.machine.running().len()], [3, 0]);
    // Repeating the order changes nothing.
    let told = order(&first, "ready", &[]).await;
    assert_eq!((told.status.as_u16(), &told.json()["message"]), (200, &json!("Node hv1 is ready.")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_flush_reports_the_vms_and_why() {
    let (first, second) = two(&[("db", 128, "live"), ("web", 128, "none")]).await;
    first.machine.set_weather(Weather { astray_per_mille: 1000, ..Weather::default() });
    let told = order(&first, "flush", WAIT).await;
    assert_eq!(told.status, 504, "{told:?}");
    let message = told.json()["message"].as_str().unwrap().to_owned();
    for part in
        ["node hv1 is not flushed", "db: its move to hv2 failed 3 times: the connection broke", "shut them down"]
    {
        assert!(message.contains(part), "{part:?} is told: {message}");
    }
    assert!(!message.contains("web"), "that one went cold: {message}");
    assert_eq!([first.machine.running().len(), second.machine.running().len()], [1, 1]);
    let plan = first.get("/node/hv1/flush-plan").await.json();
    assert_eq!(
        (&plan[0]["vm"], &plan[0]["fate"], plan.as_array().unwrap().len()),
        (&json!("db"), &json!("blocked"), 1)
    );
    let mut views = first.handle.views();
    let reported = |view: &drover_model::ClusterView| {
        let mut nodes = view.nodes.values().filter_map(|node| node.status.as_ref()?.drain.clone());
        nodes.any(|drain| !drain.blocked.is_empty())
    };
    views.wait_for(|view| reported(view)).await.unwrap();
    let node = first.get("/node/hv1").await.json();
    assert_eq!((&node["domain_state"], &node["drain"]["left"]), (&json!("flush"), &json!(0)), "{node}");
    assert_eq!(node["drain"]["blocked"][0]["vm"], "db", "{node}");
    // When the VM is off, as the message suggests, the flush completes.
    let told = first.form("POST", "/vm/db/state", &[("state", "stop"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(order(&first, "flush", WAIT).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn another_order_ends_the_wait_for_the_first() {
    let (first, second) = two(&[("web", 128, "live")]).await;
    first.machine.set_weather(Weather { transfer_ms: 80_000..80_001, ..Weather::default() });
    let waits = order(&first, "flush", WAIT);
    let overtakes = async {
        second.vm_until("web", |vm| vm["migration"]["sent"].as_u64() >= Some(16)).await;
        let node = second.get("/node/hv1").await.json();
        assert_eq!((&node["domain_state"], &node["drain"]["moving"]), (&json!("flush"), &json!(1)), "{node}");
        order(&second, "ready", &[]).await
    };
    let (waited, overtook) = tokio::join!(waits, overtakes);
    assert_eq!(overtook.status, 200, "{overtook:?}");
    assert_eq!(waited.status, 409, "{waited:?}");
    assert!(waited.text.contains("another order"), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_node_is_flushed_by_force_only() {
    let first = TestNode::start().await;
    assert_eq!(first.define("web", "").await.status, 200);
    first.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
    let told = order(&first, "flush", WAIT).await;
    assert_eq!(told.status, 400, "{told:?}");
    assert!(told.text.contains("use force"), "{told:?}");
    assert_eq!(first.machine.running().len(), 1);
    let told = order(&first, "flush", &[("wait", "true"), ("force", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(first.machine.running().len(), 0);
}

#[tokio::test]
async fn nodes_and_vms_are_watched() {
    let first = TestNode::start().await;
    assert_eq!(first.define("web", "").await.status, 200);
    let node = first.first_line("/node/hv1/watch").await;
    assert_eq!((&node["name"], &node["domain_state"]), (&json!("hv1"), &json!("ready")), "{node}");
    assert!(node["version"].is_i64(), "{node}");
    assert_eq!(first.first_line("/vm/web/watch").await["name"], "web");
    assert_eq!(first.get("/node/hv9/watch").await.status, 404);
}
