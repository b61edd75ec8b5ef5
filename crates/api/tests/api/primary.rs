//! The primary role.

use crate::support::TestNode;
use drover_model::ClusterView;
use serde_json::json;
use std::sync::Arc;

async fn holds(node: &TestNode, name: &str) {
    let is = |view: &Arc<ClusterView>| {
        let record = view.primary.as_ref().map(|p| &p.value);
        record.is_some_and(|p| p.holder.as_ref().is_some_and(|h| h.as_str() == name) && p.handoff.is_none())
    };
    node.handle.views().wait_for(is).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_role_is_handed_over_on_request() {
    let first = TestNode::start().await;
    let told = first.form("POST", "/node/hv1/coordinator-state", &[("state", "secondary")]).await;
    assert!(told.status == 400 && told.text.contains("no other coordinator runs"), "{told:?}");
    let second = first.beside("hv2", 2048).await;
    assert_eq!(first.get("/node/hv1/coordinator-state").await.json(), json!({"name": "hv1", "state": "primary"}));
    assert_eq!(first.get("/status").await.json()["primary_node"], "hv1");

    let told = second.form("POST", "/node/hv2/coordinator-state", &[("state", "primary")]).await;
    assert_eq!((told.status.as_u16(), &told.json()["name"]), (200, &json!("hv2")), "{told:?}");
    for node in [&first, &second] {
        holds(node, "hv2").await;
        assert_eq!(node.get("/status/primary_node").await.json()["name"], "hv2");
    }
    assert_eq!(first.get("/node/hv1/coordinator-state").await.json()["state"], "secondary");
    let told = first.form("POST", "/node/hv2/coordinator-state", &[("state", "primary")]).await;
    assert_eq!(told.json()["message"], "Node hv2 is primary already.");
    let told = first.form("POST", "/node/hv2/coordinator-state", &[("state", "secondary")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    holds(&first, "hv1").await;
}

#[tokio::test(start_paused = true)]
async fn refused_role_changes_have_no_effect() {
    let node = TestNode::start().await;
    let records = |node: &TestNode| node.records().remove("/primary");
    let before = records(&node);
    for (path, fields, status, says) in [
        ("/node/hv1/coordinator-state", &[("state", "client")][..], 400, "accepted is one of primary, secondary"),
        ("/node/hv1/coordinator-state", &[], 400, "state"),
        ("/node/hv9/coordinator-state", &[("state", "primary")], 404, "there is no node"),
    ] {
        let told = node.form("POST", path, fields).await;
        assert!(told.status == status && told.text.contains(says), "{path} {fields:?}: {told:?}");
    }
    assert_eq!(records(&node), before);
}
