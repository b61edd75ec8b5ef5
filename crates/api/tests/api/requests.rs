//! Valid requests.

use crate::support::{TestNode, xml};
use drover_model::OffReason;
use serde_json::{Value, json};
use uuid::Uuid;

const UUID: &str = "11111111-2222-4333-8444-555555555555";

async fn started(node: &TestNode) {
    assert_eq!(node.define("web", UUID).await.status, 200);
    let told = node.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
}

#[tokio::test]
async fn query_form_and_json_are_alike() {
    let node = TestNode::start().await;
    let of = |n: u128| xml(&format!("vm{n}"), &Uuid::from_u128(n).to_string());
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("xml", &of(1)).finish();
    let answers = [
        node.raw("POST", &format!("/vm?{query}"), "", "").await,
        node.form("POST", "/vm", &[("xml", &of(2))]).await,
        node.raw("POST", "/vm", "application/json", json!({"xml": of(3)}).to_string()).await,
    ];
    for (told, n) in answers.into_iter().zip(1..) {
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(told.json()["name"], format!("vm{n}"));
    }
    let list = node.get("/vm").await.json();
    let names: Vec<&str> = list.as_array().unwrap().iter().filter_map(|vm| vm["name"].as_str()).collect();
    assert_eq!(names, ["vm1", "vm2", "vm3"]);
}

#[tokio::test]
async fn a_vm_goes_through_its_life() {
    let node = TestNode::start().await;
    started(&node).await;
    let vm = node.get("/vm/web").await.json();
    assert_eq!((&vm["state"], &vm["run_state"], &vm["node"]), (&json!("start"), &json!("running"), &json!("hv1")));
    assert_eq!(node.get(&format!("/vm/{UUID}")).await.json()["name"], "web", "by its UUID too");
    assert_eq!(node.machine.running().len(), 1);
    for (state, expected, running) in [
        ("restart", "start", 1),
        ("shutdown", "stop", 0),
        ("start", "start", 1),
        ("stop", "stop", 0),
        ("disable", "disable", 0),
    ] {
        let told = node.form("POST", "/vm/web/state", &[("state", state), ("wait", "true")]).await;
        assert_eq!(told.status, 200, "{state}: {told:?}");
        assert_eq!(node.get("/vm/web/state").await.json()["state"], expected, "after {state}");
        assert_eq!(node.machine.running().len(), running, "after {state}");
    }
    let told = node.form("POST", "/vm/web/rename", &[("new_name", "shop")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(node.get("/vm/web").await.status, 404);
    assert!(node.get("/vm/shop").await.json()["xml"].as_str().unwrap().contains("<name>shop</name>"));
    assert_eq!(node.form("DELETE", "/vm/shop", &[]).await.status, 200);
    assert_eq!(node.get("/vm").await.json(), json!([]));
    let left: Vec<String> =
        node.records().into_keys().filter(|path| path.contains(UUID) || path.contains("shop")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_second_of_two_changes_is_a_conflict_and_loses_nothing() {
    let node = TestNode::start().await;
    started(&node).await;
    let version = node.get("/vm/web").await.json()["version"].to_string();
    let bigger = |mib: &str| xml("web", UUID).replace(">128<", &format!(">{mib}<"));
    let first = node.form("PUT", "/vm/web", &[("xml", &bigger("256")), ("version", &version)]).await;
    assert_eq!(first.status, 200, "{first:?}");
    let diff = first.json()["diff"].as_str().unwrap().to_owned();
    assert!(diff.contains("-") && diff.contains("256"), "{diff}");
    let second = node.form("PUT", "/vm/web", &[("xml", &bigger("512")), ("version", &version)]).await;
    assert_eq!(second.status, 409, "{second:?}");
    let vm = node.get("/vm/web").await.json();
    assert_eq!((&vm["memory"], &vm["pending_changes"]), (&json!(256), &json!(true)));
    assert_eq!(node.machine.running().len(), 1, "a running guest is left alone");
    // A dry run changes nothing.
    let before = node.records();
    let dry = node.form("PUT", "/vm/web", &[("xml", &bigger("512")), ("dry_run", "true")]).await;
    assert!(dry.json()["message"].as_str().unwrap().contains("would"), "{dry:?}");
    assert_eq!(node.records(), before);
}

#[tokio::test]
async fn unknown_elements_are_kept_unchanged() {
    let node = TestNode::start().await;
    let odd = xml("web", UUID).replace("<devices>", "<!-- kept --><x:own xmlns:x='urn:x'  a = \"1\"/>\n<devices>");
    assert_eq!(node.form("POST", "/vm", &[("xml", &odd)]).await.status, 200);
    assert_eq!(node.get("/vm/web").await.json()["xml"], odd);
}

#[tokio::test]
async fn lists_are_filtered() {
    let node = TestNode::start().await;
    for n in 1..=3 {
        assert_eq!(node.define(&format!("web{n}"), &Uuid::from_u128(n).to_string()).await.status, 200);
    }
    node.form("POST", "/vm/web2/state", &[("state", "start"), ("wait", "true")]).await;
    let names = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("limit=web", vec!["web1", "web2", "web3"]),
        ("limit=%5Eweb2%24", vec!["web2"]),
        ("limit=b%5B13%5D", vec!["web1", "web3"]),
        ("state=start", vec!["web2"]),
        ("state=start&negate=true", vec!["web1", "web3"]),
        ("node=hv1", vec!["web1", "web2", "web3"]),
        ("tag=none", vec![]),
    ] {
        assert_eq!(names(node.get(&format!("/vm?{query}")).await.json()), expected, "{query}");
    }
    assert_eq!(names(node.get("/node?limit=hv&domain_state=ready").await.json()), ["hv1"]);
    assert_eq!(node.get("/node?domain_state=flushed").await.json(), json!([]));
}

#[tokio::test]
async fn lists_can_omit_the_definitions() {
    let node = TestNode::start().await;
    assert_eq!(node.define("web", UUID).await.status, 200);
    let whole = node.get("/vm").await.json();
    assert_eq!(whole[0]["xml"], xml("web", UUID), "existing clients expect it");
    assert_eq!(node.get("/vm?xml=true").await.json(), whole);
    let mut without = whole;
    without[0].as_object_mut().unwrap().remove("xml");
    assert_eq!(node.get("/vm?xml=false").await.json(), without, "all else is the same");
}

/// A guest that powers itself off is stopped; one that crashes is started again.
#[tokio::test(start_paused = true)]
async fn guest_power_offs_and_crashes_are_shown() {
    let node = TestNode::start().await;
    started(&node).await;
    let uuid = Uuid::parse_str(UUID).unwrap();
    node.machine.guest_goes_down(uuid, OffReason::Crashed);
    let mut views = node.handle.views();
    views.wait_for(|v| v.vms[&uuid].status.as_ref().is_some_and(|s| s.crashes == 1 && s.run.is_some())).await.unwrap();
    while node.machine.running().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    node.machine.guest_goes_down(uuid, OffReason::Shutdown);
    views.wait_for(|v| v.vms[&uuid].record.value.state.word() == "stop").await.unwrap();
    assert_eq!(node.machine.running(), vec![]);
}

#[tokio::test]
async fn tokens_are_created_and_revoked() {
    let node = TestNode::start().await;
    let made = node.form("POST", "/token", &[("name", "script")]).await.json();
    let token = made["token"].as_str().unwrap();
    let list = node.get("/token").await;
    assert!(list.text.contains("script") && !list.text.contains(token));
    assert_eq!(node.form("POST", "/token", &[("name", "script")]).await.status, 409);
    assert_eq!(node.form("DELETE", "/token/script", &[]).await.status, 200);
    assert_eq!(node.form("DELETE", "/token/script", &[]).await.status, 404);
}

#[tokio::test]
async fn the_cluster_and_its_nodes_are_shown() {
    let node = TestNode::start().await;
    started(&node).await;
    let status = node.get("/status").await.json();
    assert_eq!((&status["nodes"]["total"], &status["vms"]["total"]), (&json!(1), &json!(1)), "{status}");
    let mut views = node.handle.views();
    views
        .wait_for(|v| v.nodes.values().any(|n| n.status.as_ref().is_some_and(|s| !s.domains.is_empty())))
        .await
        .unwrap();
    let shown = node.get("/node/hv1").await.json();
    for (key, value) in [
        ("name", json!("hv1")),
        ("daemon_state", json!("run")),
        ("domain_state", json!("ready")),
        ("domains_count", json!(1)),
    ] {
        assert_eq!(shown[key], value, "{key}: {shown}");
    }
    assert_eq!(node.get("/").await.json()["node"], "hv1", "the node that answers");
    let primary = json!({"primary_node": "hv1", "name": "hv1", "state": "primary"});
    assert_eq!(node.get("/status/primary_node").await.json(), primary);
    assert_eq!(node.get("/node/hv1/daemon-state").await.json()["state"], "run");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let node = TestNode::start().await;
    started(&node).await;
    for path in ["/", "/vm", "/vm/web", "/vm/nobody", "/vm?colour=red", "/vm/web/console"] {
        let (get, head) = (node.get(path).await, node.raw("HEAD", path, "", "").await);
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), "application/json", "{path}");
        assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
    }
    // An endless stream has no length, and is not waited for.
    let watch = node.raw("HEAD", "/vm/web/watch", "", "").await;
    assert_eq!((watch.status.as_u16(), watch.text.as_str(), watch.header("content-length")), (200, "", ""));
}

#[tokio::test]
async fn a_refused_method_gets_the_accepted_ones() {
    let node = TestNode::start().await;
    for (method, path, allow) in [
        ("PATCH", "/vm", "GET, POST, HEAD"),
        ("DELETE", "/vm/web/rename", "POST"),
        ("HEAD", "/vm/web/rename", "POST"),
        ("POST", "/faults", "GET, HEAD"),
    ] {
        let told = node.raw(method, path, "", "").await;
        assert_eq!((told.status.as_u16(), told.header("allow")), (405, allow), "{method} {path}");
    }
    assert_eq!(node.get("/vm").await.header("allow"), "");
}
