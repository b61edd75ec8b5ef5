//! Requests to a node whose server of the store is behind the others.

use crate::support::{TestNode, Told, xml};
use drover_agent::records;
use drover_model::{ClusterView, DaemonState, NodeName, NodeRecord, NodeState};
use drover_store::Store;
use std::{sync::Arc, time::Duration};

const UUID: &str = "11111111-2222-4333-8444-555555555555";

/// Sends a request to a node whose server catches up while the request waits.
async fn late(node: &TestNode, request: impl Future<Output = Told>) -> Told {
    let (told, ()) = tokio::join!(biased; request, async { node.session.catch_up() });
    told
}

#[tokio::test(start_paused = true)]
async fn a_request_decides_on_what_was_written_through_another_node_before() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    assert_eq!(first.define("web", UUID).await.status, 200);
    second.vm_until("web", |vm| vm["state"] == "stop").await;

    second.session.fall_behind();
    let told = first.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    // There it is stopped: the request would change nothing.
    let told = late(&second, second.form("POST", "/vm/web/state", &[("state", "stop")])).await;
    assert_eq!(told.status, 200, "{told:?}");
    first.vm_until("web", |vm| vm["state"] == "stop" && vm["run_state"] == "absent").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_server_cannot_answer_in_time_is_not_called_done() {
    let node = TestNode::start().await;
    assert_eq!(node.define("web", UUID).await.status, 200);
    node.session.fall_behind();
    let told = node.form("POST", "/vm/web/state", &[("state", "start")]).await;
    assert_eq!(told.status, 503, "{told:?}");
    assert!(told.text.contains("the server is behind"), "{told:?}");
}

/// Nodes hv1 and hv2 of three, of which the last is dead.
async fn without_hv3() -> (TestNode, TestNode) {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    let gone = first.beside("hv3", 8192).await;
    let server = first.cluster.clone();
    tokio::spawn(async move { server.run().await });
    gone.session.cut();
    for node in [&first, &second] {
        let is_dead =
            |view: &Arc<ClusterView>| view.nodes.values().any(|node| node.daemon_state() == DaemonState::Dead);
        node.handle.views().wait_for(is_dead).await.unwrap();
    }
    (first, second)
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_removed_under_a_vm_that_was_just_assigned_to_it() {
    let (first, second) = without_hv3().await;
    second.session.fall_behind();
    let told = first.form("POST", "/vm", &[("xml", &xml("web", UUID)), ("node", "hv3"), ("no_check", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = late(&second, second.raw("DELETE", "/node/hv3", "", "")).await;
    assert!(told.status == 400 && told.text.contains("web"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_is_removed_although_its_record_changed_a_moment_before() {
    let (first, second) = without_hv3().await;
    second.session.fall_behind();
    let name = NodeName::new("hv3").unwrap();
    let store = first.cluster.session(Duration::from_secs(4));
    let record = records::read::<NodeRecord>(&store, &name).await.unwrap().unwrap();
    let changed = NodeRecord { domain_state: NodeState::Flushed, ..record.value.clone() };
    store.multi(vec![records::set_op(&name, &record, &changed).unwrap()]).await.unwrap();
    let told = late(&second, second.raw("DELETE", "/node/hv3", "", "")).await;
    assert_eq!(told.status, 200, "{told:?}");
}
