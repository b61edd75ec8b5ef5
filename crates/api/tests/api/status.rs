//! The state of the cluster, and faults.

use crate::support::TestNode;
use drover_store::{CreateMode, Store};
use serde_json::{Value, json};
use std::{sync::atomic::Ordering, time::Duration};

/// Two faults: the first by id was seen later.
async fn with_faults() -> TestNode {
    let node = TestNode::start().await;
    let store = node.cluster.session(Duration::from_secs(4));
    for (id, first, delta) in [("a", 2, 5), ("b", 1, 10)] {
        let fault = json!({
            "schema": 1, "id": id, "message": "m", "health_delta": delta, "first_reported": first, "last_reported": 3,
        });
        let path = format!("/faults/{id}").parse().unwrap();
        store.create(&path, fault.to_string().into_bytes(), CreateMode::Persistent).await.unwrap();
    }
    node.handle.views().wait_for(|view| view.faults().len() == 2).await.unwrap();
    node
}

#[tokio::test]
async fn faults_are_sorted_by_a_given_field() {
    let node = with_faults().await;
    let ids = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|fault| fault["id"].as_str().unwrap().to_owned()).collect()
    };
    for (query, order) in [
        ("", ["a", "b"]),
        ("?sort_key=first_reported", ["b", "a"]),
        ("?sort_key=last_reported", ["a", "b"]),
        ("?sort_key=health_delta", ["a", "b"]),
        ("?sort_key=status", ["a", "b"]),
    ] {
        assert_eq!(ids(node.get(&format!("/faults{query}")).await.json()), order, "{query}");
    }
    let told = node.get("/faults?sort_key=colour").await;
    assert_eq!((told.status.as_u16(), &told.json()["field"]), (400, &json!("sort_key")), "{told:?}");
    assert!(told.text.contains("first_reported, last_reported, acknowledged_at, status, health_delta, message"));
}

#[tokio::test]
async fn maintenance_is_switched_on_and_off_and_ends_by_itself() {
    let node = TestNode::start().await;
    let now = node.clock.load(Ordering::Relaxed);
    let shown = async || {
        let (status, config) = (node.get("/status").await.json(), node.get("/config").await.json());
        assert_eq!(status["maintenance"], config["maintenance"].to_string(), "{status} {config}");
        assert_eq!(status["maintenance_until"], config["maintenance_until"]);
        (status["maintenance"].clone(), status["maintenance_until"].clone())
    };
    assert_eq!(shown().await, (json!("false"), Value::Null));
    let told = node.form("POST", "/status", &[("state", "true")]).await;
    assert_eq!((told.status.as_u16(), &told.json()["maintenance"]), (200, &json!(true)), "{told:?}");
    assert_eq!(shown().await, (json!("true"), Value::Null));
    let told = node.form("POST", "/status", &[("state", "false")]).await;
    assert_eq!(told.json(), json!({"message": "The cluster is not in maintenance.", "maintenance": false}));
    assert_eq!(shown().await, (json!("false"), Value::Null));

    let end = now + 60_000;
    for (name, value) in [("until", end.to_string()), ("duration", "60".to_owned())] {
        node.clock.store(now, Ordering::Relaxed);
        let told = node.form("POST", "/status", &[("state", "true"), (name, &value)]).await;
        assert!(told.text.contains("in maintenance until 2023-11-14 22:14:20 UTC"), "{name}: {told:?}");
        assert_eq!(shown().await, (json!("true"), json!(end)), "{name}");
        node.clock.store(end, Ordering::Relaxed);
        assert_eq!(shown().await, (json!("false"), Value::Null), "{name}");
    }
}
