//! Operations: the id of a request is in its answer, in records, and in the events of every node that it touches.

use crate::support::{Fencing, TestNode, Told, xml};
use drover_drivers::{
    power::fake::{FakeBmc, FakePower},
    presence::{Answer, Presence},
};
use drover_model::{
    OffReason, PowerState,
    wire::{Event, Events},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The machines of nodes that are asked about do not answer.
struct Silent;

#[async_trait::async_trait]
impl Presence for Silent {
    async fn answers(&self, _: &str) -> Answer {
        Answer::Silent
    }
}

const HEADER: &str = "x-drover-operation";

/// What this node itself tells of an operation: the others have no address at which they answer.
async fn told_of(node: &TestNode, operation: &str) -> Vec<Event> {
    let told = node.get(&format!("/events?operation={operation}")).await;
    assert_eq!(told.status, 200, "{told:?}");
    serde_json::from_str::<Events>(&told.text).unwrap().events
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn record(node: &TestNode, path: &str) -> Value {
    serde_json::from_slice(&node.cluster.dump()[path]).unwrap()
}

async fn running(node: &TestNode, name: &str, on: &str) -> String {
    let told = node.form("POST", "/vm", &[("xml", &xml(name, "")), ("node", on)]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = node.form("POST", &format!("/vm/{name}/state"), &[("state", "start"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    node.get(&format!("/vm/{name}")).await.json()["uuid"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_flush_has_one_operation_in_its_answer_its_records_and_the_events_of_all_its_nodes() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 2048).await;
    let vms = [running(&first, "db", "hv1").await, running(&first, "web", "hv1").await];
    let order = json!({"state": "flush", "wait": true});
    let told = second.json("POST", "/node/hv1/domain-state", order).await;
    let id = told.header(HEADER);
    assert!(told.status == 200 && id.len() == 12, "{told:?}");
    for vm in &vms {
        first.vm_until(vm, |vm| vm["node"] == "hv2" && vm["run_state"] == "running").await;
        let record = record(&first, &format!("/vms/{vm}"));
        assert_eq!(record["operation"], json!({"id": id, "by": "test"}), "{record}");
    }
    assert_eq!(record(&first, "/nodes/hv1")["operation"]["id"], id);

    let (here, there) = (told_of(&first, id).await, told_of(&second, id).await);
    for (all, kind, times) in [
        (&there, "request", 1),
        (&here, "planned", 2),
        (&here, "vm-moved", 2),
        (&there, "guest-resumed", 2),
        (&here, "node-state", 1),
    ] {
        let found = all.iter().filter(|event| event.kind == kind).count();
        assert_eq!(found, times, "{kind}: {here:?} {there:?}");
    }
    assert!(here.iter().chain(&there).all(|event| event.by == "test"), "{here:?} {there:?}");
    for event in here.iter().filter(|event| event.kind == "planned") {
        let why = &event.details["why"];
        assert!(event.details["to"] == "hv2" && why.contains(" by mem, the highest"), "{event:?}");
    }
    // What was done before is of other operations.
    assert_eq!(kinds(&here).iter().filter(|kind| **kind == "guest-started").count(), 0, "{here:?}");
}

#[tokio::test(start_paused = true)]
async fn the_clients_id_is_used_and_must_be_valid() {
    let node = TestNode::start().await;
    let mut tolerate = [0, 1].into_iter().cycle();
    let mut change = async |headers: &[(&str, &str)]| {
        let order = json!({"tolerate": tolerate.next().unwrap()});
        let told = node.with_headers("PUT", "/config", headers, order).await;
        assert_eq!(told.status, 200, "{told:?}");
        let id = told.header(HEADER).to_owned();
        assert_eq!(record(&node, "/config")["operation"], json!({"id": id, "by": "test"}));
        assert_eq!(kinds(&told_of(&node, &id).await), ["request"]);
        id
    };
    assert_eq!(change(&[(HEADER, "night-shift-7"), ("x-request-id", "proxy")]).await, "night-shift-7");
    let uuid = "0F6A1D2C-5B7E-4A3F-9C8D-1E2F3A4B5C6D";
    assert_eq!(change(&[("x-request-id", uuid)]).await, uuid.to_lowercase());
    let (one, two) = (change(&[("x-request-id", "no id!")]).await, change(&[]).await);
    assert!(one != two && one.len() == 12 && two.len() == 12, "{one} {two}");

    // Its own header must be right.
    for bad in ["no id!", "abc", "", "a_b_c", "\u{e4}\u{e4}\u{e4}\u{e4}"] {
        let headers = [(HEADER, bad), ("x-request-id", "proxy")];
        let told = node.with_headers("PUT", "/config", &headers, json!({"tolerate": 0})).await;
        assert!(told.status == 400 && told.text.contains("header X-Drover-Operation"), "{told:?}");
        assert!(told.text.contains("4 to 36 lower-case letters"), "{told:?}");
    }
    // Also in what is refused; and nothing begins with what only reads.
    let is_named = |told: &Told| told.header(HEADER) == "mine";
    let told = node.with_headers("PUT", "/config", &[(HEADER, "mine")], json!({"tolerate": 99})).await;
    assert!(told.status == 400 && is_named(&told), "{told:?}");
    let told = node.with_headers("DELETE", "/vm/nothing", &[(HEADER, "mine")], json!({})).await;
    assert!(told.status == 404 && is_named(&told), "{told:?}");
    let told = node.with_headers("GET", "/config", &[(HEADER, "mine")], json!({})).await;
    assert!(told.status == 200 && told.header(HEADER).is_empty(), "{told:?}");
    assert!(told_of(&node, "mine").await.is_empty());
    let told = node.get("/events?operation=No").await;
    assert!(told.status == 400 && told.text.contains("4 to 36 lower-case letters"), "{told:?}");
}

/// The operation that started the guest once has nothing to do with it.
#[tokio::test(start_paused = true)]
async fn a_restart_after_a_crash_is_an_operation_of_its_own() {
    let node = TestNode::start().await;
    let uuid = running(&node, "web", "hv1").await;
    let ordered = record(&node, &format!("/vms/{uuid}"))["operation"]["id"].as_str().unwrap().to_owned();
    let before = told_of(&node, &ordered).await;
    assert_eq!(kinds(&before), ["request", "guest-started"]);
    let mut newest = node.handle.events().newest();
    node.machine.guest_goes_down(uuid.parse().unwrap(), OffReason::Crashed);
    let all = loop {
        timeout(Duration::from_secs(60), newest.changed()).await.unwrap().unwrap();
        let told = node.get("/events?vm=web").await.json();
        let events: Vec<Event> = serde_json::from_value(told["events"].clone()).unwrap();
        let crash = events.iter().position(|event| event.kind == "guest-crashed");
        let after = crash.map(|at| events[at..].to_vec()).unwrap_or_default();
        if kinds(&after).contains(&"guest-started") {
            break after;
        }
    };
    let own = &all[0].operation;
    assert!(!own.is_empty() && *own != ordered, "{all:?}");
    assert!(all.iter().all(|event| event.operation == *own && event.by.is_empty()), "{all:?}");
    assert_eq!(told_of(&node, &ordered).await, before);
    // What is ordered then is of another again.
    let told = node.form("POST", "/vm/web/state", &[("state", "stop"), ("wait", "true")]).await;
    assert_eq!(kinds(&told_of(&node, told.header(HEADER)).await), ["request", "guest-off"]);
}

#[tokio::test(start_paused = true)]
async fn a_fence_and_its_recovery_are_one_operation() {
    let power = FakePower::default();
    power.put("hv2", FakeBmc { machine: "hv2".to_owned(), ..FakeBmc::default() });
    let first = TestNode::fenced(Fencing { power: Some(power.clone()), presence: Some(Arc::new(Silent)) }).await;
    let second = first.beside("hv2", 2048).await;
    let vms = [running(&first, "db", "hv2").await, running(&first, "web", "hv2").await];
    second.ended.abort();
    second.role_ended.abort();
    second.machine.power_off();
    power.set_machine("hv2", PowerState::Off);
    let store = first.cluster.session(Duration::from_secs(4));
    drover_store::Store::delete(&store, &"/nodes/hv2/session".parse().unwrap(), None).await.unwrap();
    for vm in &vms {
        first.vm_until(vm, |vm| vm["node"] == "hv1" && vm["run_state"] == "running").await;
    }
    let fence = record(&first, "/fences/hv2");
    let id = fence["operation"]["id"].as_str().unwrap();
    assert_eq!(fence["operation"], json!({"id": id}), "nobody asked for it");
    for path in [format!("/vms/{}", vms[0]), format!("/vms/{}", vms[1]), "/nodes/hv2".to_owned()] {
        assert_eq!(record(&first, &path)["operation"]["id"], id, "{path}");
    }
    let events = told_of(&first, id).await;
    let all = kinds(&events);
    for (kind, times) in
        [("fence-suspect", 1), ("fence-proved", 1), ("fence-recovering", 1), ("recovery", 2), ("guest-started", 2)]
    {
        assert_eq!(all.iter().filter(|is| **is == kind).count(), times, "{kind}: {all:?}");
    }
    let proof = fence["evidence"][0]["what"].as_str().unwrap();
    for event in &events {
        let rests_on = event.details.get("evidence").map(String::as_str);
        match event.kind.as_str() {
            "fence-proved" | "fence-recovering" => assert_eq!(rests_on, Some(proof), "{event:?}"),
            "recovery" => {
                let why = &event.details["why"];
                assert!(rests_on == Some(proof) && why.contains(" by mem, the highest"), "{event:?}");
            }
            _ => {}
        }
    }
}
