//! Requests to a node whose server of the store is behind the others.

use crate::support::{TestNode, Told, xml};
use drover_model::{ClusterView, DaemonState};
use std::sync::Arc;

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

#[tokio::test(start_paused = true)]
async fn a_node_is_not_removed_under_a_vm_that_was_just_assigned_to_it() {
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
    second.session.fall_behind();
    let told = first.form("POST", "/vm", &[("xml", &xml("web", UUID)), ("node", "hv3"), ("no_check", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = late(&second, second.raw("DELETE", "/node/hv3", "", "")).await;
    assert!(told.status == 400 && told.text.contains("web"), "{told:?}");
}
