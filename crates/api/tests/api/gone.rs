//! What is deleted or removed leaves nothing behind, and does not come again.

use crate::support::{TestNode, xml};
use drover_drivers::hypervisor::fake::Weather;
use drover_model::{ClusterView, NodeName};
use drover_store::{CreateMode, Store, memory};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// A fault, as a daemon writes it.
fn fault(id: &str) -> Vec<u8> {
    let fault = json!({
        "schema": 1, "id": id, "message": "m", "health_delta": 10, "first_reported": 1, "last_reported": 1,
    });
    fault.to_string().into_bytes()
}

#[tokio::test(start_paused = true)]
async fn no_fault_of_a_vm_outlives_it() {
    let node = TestNode::start().await;
    // Faults that are there although their VM is not, at any moment.
    let orphans = Arc::new(Mutex::new(Vec::new()));
    let (seen, cluster) = (orphans.clone(), node.cluster.clone());
    let watcher = node.cluster.session(Duration::from_secs(4));
    let mut changes = watcher.watch(&"/".parse().unwrap()).await.unwrap();
    tokio::spawn(async move {
        while changes.next().await.is_some() {
            let records = cluster.dump();
            let vm = |path: &String| path.strip_prefix("/faults/vm-failed-").map(|uuid| format!("/vms/{uuid}"));
            let orphans = records.keys().filter_map(vm).filter(|vm| !records.contains_key(vm));
            seen.lock().unwrap().extend(orphans);
        }
    });
    node.machine.set_weather(Weather { refuse_per_mille: 1000, ..Weather::default() });
    node.cluster.set_weather(memory::Weather { latency_ms: 1..30, ..memory::Weather::default() });
    let mut deleted = 0;
    for n in 0..40 {
        let name = format!("vm{n}");
        let told = node.form("POST", "/vm", &[("xml", &xml(&name, "")), ("node", "hv1")]).await;
        assert_eq!(told.status, 200, "{told:?}");
        node.form("POST", &format!("/vm/{name}/state"), &[("state", "start")]).await;
        node.vm_until(&name, |vm| vm["state"] == "fail").await;
        tokio::time::sleep(Duration::from_millis(n)).await;
        let told = node.raw("DELETE", &format!("/vm/{name}"), "", "").await;
        deleted += usize::from(told.status == 200);
    }
    assert_eq!(deleted, 40);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(*orphans.lock().unwrap(), Vec::<String>::new());
    assert_eq!(node.get("/faults").await.json(), json!([]));
}

#[tokio::test(start_paused = true)]
async fn faults_of_what_is_not_there_are_cleared_by_the_primary_and_any_by_hand() {
    let node = TestNode::start().await;
    let store = node.cluster.session(Duration::from_secs(4));
    let old = "vm-failed-00000000-0000-0000-0000-000000000007";
    // Of a guest on a node that was removed; and on this one, where it ended while no daemon was there.
    let strays = ["hv9", "hv1"].map(|node| format!("vm-stray-00000000-0000-0000-0000-000000000007-{node}"));
    for id in ["later-kind", old, &strays[0], &strays[1]] {
        store.create(&format!("/faults/{id}").parse().unwrap(), fault(id), CreateMode::Persistent).await.unwrap();
    }
    let cleared = |view: &Arc<drover_model::ClusterView>| view.faults().keys().eq(["later-kind"]);
    tokio::time::timeout(Duration::from_secs(60), node.handle.views().wait_for(cleared)).await.unwrap().unwrap();

    let told = node.raw("DELETE", "/faults/nothing", "", "").await;
    assert_eq!(told.status, 404, "{told:?}");
    let told = node.raw("DELETE", "/faults/later-kind", "", "").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(node.get("/faults").await.json(), json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_does_not_come_again_unasked_and_its_token_ends() {
    let node = TestNode::start().await;
    let other = node.beside("hv2", 1024).await;
    let name = drover_model::TokenName::new("node-hv2").unwrap();
    let commands = other.handle.commands();
    commands.install_token(name, "drover_secret", drover_model::TokenRole::Node).await.unwrap();
    let told = node.raw("DELETE", "/token/node-hv2", "", "").await;
    assert!(told.status == 400 && told.text.contains("daemon of node hv2"), "{told:?}");

    // It is cut off for longer than its session lives, and removed meanwhile.
    let server = node.cluster.clone();
    tokio::spawn(async move { server.run().await });
    other.session.cut();
    let dead = |view: &Arc<drover_model::ClusterView>| {
        view.nodes.values().any(|node| node.daemon_state() == drover_model::DaemonState::Dead)
    };
    node.handle.views().wait_for(dead).await.unwrap();
    let told = node.raw("DELETE", "/node/hv2", "", "").await;
    assert_eq!(told.status, 200, "{told:?}");
    other.session.heal();
    let ended = tokio::time::timeout(Duration::from_secs(60), other.ended).await.unwrap().unwrap();
    let why = ended.unwrap_err().to_string();
    assert!(why.contains("node hv2 was removed") && why.contains("--join-again"), "{why}");
    // Its part in the primary's role ends with it, without a failure that would be taken for the reason: one that runs,
    // and one that has not begun.
    for role in [other.role_ended, tokio::spawn(other.late_role.run())] {
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), role).await.unwrap().unwrap(), Ok(()));
    }
    let left: Vec<String> = node.cluster.dump().into_keys().filter(|path| path.contains("hv2")).collect();
    assert_eq!(left, ["/removed/hv2"]);

    // A daemon that starts on that machine does not join either, unless it is told to.
    let again = |join_again| TestNode::begin(node.cluster.clone(), node.network.clone(), "hv2", 1024, join_again);
    let ended = tokio::time::timeout(Duration::from_secs(60), again(false).ended).await.unwrap().unwrap();
    assert!(ended.unwrap_err().to_string().contains("node hv2 was removed"));
    let mut again = again(true);
    again.handle.wait_ready().await.unwrap();
    assert_eq!(node.cluster.dump().into_keys().filter(|path| path.starts_with("/removed/")).count(), 0);
}

/// Whichever comes first: the definition finds that the node is gone, the removal that it has a VM; or the removal was
/// decided before the definition and done after it, and gives the VM another node.
#[tokio::test(start_paused = true)]
async fn no_vm_is_left_on_a_node_that_is_removed_while_it_is_defined_there() {
    let (defined, removed, given) = defined_and_removed(None).await;
    assert!(defined > 20 && removed > 20 && given > 0, "{defined} {removed} {given}");
}

/// A guest that runs there is not given to another node: that would start a second one.
#[tokio::test(start_paused = true)]
async fn no_guest_is_adopted_on_a_node_that_is_removed_meanwhile() {
    let (defined, removed, given) = defined_and_removed(Some("11111111-2222-4333-8444-555555555555")).await;
    assert!(defined > 20 && removed > 20 && given == 0, "{defined} {removed} {given}");
}

/// How often a VM was defined on a node, this was removed at the same time, and both. `stray`: the UUID of a guest that
/// the node reports, and that is adopted.
async fn defined_and_removed(stray: Option<&str>) -> (usize, usize, usize) {
    let node = TestNode::start().await;
    let store = node.cluster.session(Duration::from_secs(4));
    let path = "/nodes/hv2".parse().unwrap();
    let dead = json!({"schema": 1, "name": "hv2", "role": "hypervisor", "api": "", "domain_state": "ready"});
    node.cluster.set_weather(memory::Weather { latency_ms: 1..30, ..memory::Weather::default() });
    let (mut defined, mut removed, mut given) = (0, 0, 0);
    for n in 0..150 {
        let mut views = node.handle.views();
        if !views.borrow_and_update().nodes.contains_key(&NodeName::new("hv2").unwrap()) {
            store.create(&path, dead.to_string().into_bytes(), CreateMode::Persistent).await.unwrap();
            let there = |view: &Arc<ClusterView>| view.nodes.contains_key(&NodeName::new("hv2").unwrap());
            views.wait_for(there).await.unwrap();
        }
        if let Some(uuid) = stray {
            let report = json!({
                "schema": 1, "daemon": "run", "version": "", "kernel": "", "os": "", "arch": "x86_64", "cpus": 1,
                "memory_total": 1, "memory_free": 1, "load": 0.0, "domains": [uuid], "updated": 1,
                "strays": [{"uuid": uuid, "epoch": 3}],
            });
            let report = report.to_string().into_bytes();
            let _ = store.create(&"/nodes/hv2/status".parse().unwrap(), report, CreateMode::Persistent).await;
            let strays = |view: &Arc<ClusterView>| {
                let reports = view.nodes.values().filter_map(|node| node.status.as_ref());
                reports.flat_map(|report| &report.strays).count() == 1
            };
            tokio::time::timeout(Duration::from_secs(60), views.wait_for(strays)).await.unwrap().unwrap();
        }
        let name = format!("vm{n}");
        let xml = xml(&name, stray.unwrap_or_default());
        // To adopt always wins, unless it begins later.
        let later = [Duration::from_millis(n % 50), Duration::from_millis(2 * n)];
        let (later, first) = if stray.is_some() { (Duration::ZERO, later[1]) } else { (later[0], Duration::ZERO) };
        let adopt = if stray.is_some() { "true" } else { "false" };
        let fields = [("xml", xml.as_str()), ("node", "hv2"), ("no_check", "true"), ("adopt", adopt)];
        let define = async {
            tokio::time::sleep(first).await;
            node.form("POST", "/vm", &fields).await
        };
        let remove = async {
            tokio::time::sleep(later).await;
            node.raw("DELETE", "/node/hv2", "", "").await
        };
        let (define, remove) = tokio::join!(define, remove);
        let there = node.cluster.dump().contains_key("/nodes/hv2");
        (defined, removed) = (defined + usize::from(define.status == 200), removed + usize::from(remove.status == 200));
        if define.status == 200 {
            if !there {
                // Whatever was decided first, and if the daemon that removed the node has ended since.
                let on = |view: &Arc<ClusterView>| Some(view.vm(&name)?.record.value.node.as_ref()?.to_string());
                let given = views.wait_for(|view| on(view).as_deref() == Some("hv1"));
                tokio::time::timeout(Duration::from_secs(60), given).await.unwrap().unwrap();
            }
            given += usize::from(!there);
            if stray.is_some() {
                // Its node alone could delete it.
                assert!(there, "{n}: a guest is adopted on a node that is gone; {define:?} {remove:?}");
                for path in node.cluster.dump().into_keys().rev().filter(|path| path.contains("/vms/")) {
                    store.delete(&path.parse().unwrap(), None).await.unwrap();
                }
            } else {
                assert_eq!(node.raw("DELETE", &format!("/vm/{name}"), "", "").await.status, 200);
            }
            let mut views = node.handle.views();
            let none = views.wait_for(|view| view.vms.is_empty());
            tokio::time::timeout(Duration::from_secs(60), none).await.unwrap().unwrap();
        }
    }
    (defined, removed, given)
}

#[tokio::test(start_paused = true)]
async fn without_the_memory_of_deleted_vms_none_is_defined_or_deleted_and_it_is_said_why() {
    let node = TestNode::start().await;
    for vm in ["one", "two"] {
        assert_eq!(node.form("POST", "/vm", &[("xml", &xml(vm, "")), ("node", "hv1")]).await.status, 200);
    }
    node.form("POST", "/vm/two/state", &[("state", "start")]).await;
    node.vm_until("two", |vm| vm["run_state"] == "running").await;
    let path = "/departed".parse().unwrap();
    let good = node.session.get(&path).await.unwrap().unwrap();
    let version = node.session.set(&path, b"{".to_vec(), good.version).await.unwrap();
    let requests = [
        node.form("POST", "/vm", &[("xml", &xml("three", "")), ("node", "hv1")]).await,
        node.raw("DELETE", "/vm/one?delete_disks=true", "", "").await,
        node.raw("DELETE", "/vm/one", "", "").await,
    ];
    for told in requests {
        assert_eq!(told.status, 503, "{told:?}");
        assert!(told.text.contains("record /departed is unreadable"), "{told:?}");
        assert!(told.text.contains("restart a node's daemon"), "{told:?}");
    }
    // One that runs is deleted by its node, and shows why that takes its time.
    let told = node.raw("DELETE", "/vm/two", "", "").await;
    assert_eq!(told.status, 504, "{told:?}");
    assert!(told.text.contains("its records are not deleted yet: record /departed is unreadable"), "{told:?}");
    node.session.set(&path, good.data, version).await.unwrap();
    let mut views = node.handle.views();
    let gone = views.wait_for(|view| view.vm("two").is_none());
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap().unwrap();
}
