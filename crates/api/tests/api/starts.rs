//! Many starts at once, and starts that wait in the hypervisor's queue.

use crate::support::TestNode;
use drover_drivers::hypervisor::fake::Weather;
use serde_json::Value;
use std::time::Duration;

fn slow(milliseconds: u64) -> Weather {
    Weather { latency_ms: milliseconds..milliseconds + 1, ..Weather::default() }
}

impl TestNode {
    /// VMs that are off, from `a` on, each with a higher priority than the one before.
    async fn has_vms(&self, count: u8) -> Vec<String> {
        let names: Vec<String> = (0..count).map(|n| char::from(b'a' + n).to_string()).collect();
        for (n, name) in names.iter().enumerate() {
            let told = self.define(name, &format!("11111111-2222-4333-8444-5555555555{n:02}")).await;
            assert_eq!(told.status, 200, "{told:?}");
            let told = self.form("POST", &format!("/vm/{name}/meta"), &[("priority", &n.to_string())]).await;
            assert_eq!(told.status, 200, "{told:?}");
        }
        names
    }

    async fn order_start(&self, vm: &str) {
        let told = self.form("POST", &format!("/vm/{vm}/state"), &[("state", "start")]).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_taken_when_its_start_has_its_turn_and_higher_priorities_are_first() {
    let node = TestNode::start().await;
    let names = node.has_vms(12).await;
    node.machine.set_weather(slow(20_000));
    for name in &names {
        node.order_start(name).await;
    }
    let is_granted = |vm: &Value| vm["claim"]["node"] == "hv1";
    let waits = |vm: &Value| vm["doing"].as_str().is_some_and(|doing| doing.contains("other guests that are being"));
    for name in &names[6..] {
        let shown = node.vm_until(name, waits).await;
        assert!(!is_granted(&shown), "it waits without the claim: {shown}");
    }
    for name in &names[..6] {
        assert!(is_granted(&node.get(&format!("/vm/{name}")).await.json()));
    }
    // The highest priorities begin when the first ones are done; by then the lowest of those that wait have not begun.
    node.machine.set_weather(slow(30_000));
    let highest = node.vm_until("l", is_granted).await;
    assert_eq!(highest["claim"]["node"], "hv1");
    for name in &names {
        node.vm_until(name, |vm| vm["run_state"] == "running").await;
    }
    assert_eq!(node.machine.running().len(), names.len());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_waits_while_the_store_is_lost_does_not_happen() {
    let node = TestNode::start().await;
    node.has_vms(1).await;
    node.machine.set_weather(slow(10_000));
    node.order_start("a").await;
    node.vm_until("a", |vm| vm["claim"]["node"] == "hv1").await;
    node.session.cut();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(node.machine.defined().is_empty(), "nobody knows whether it may still be started");
    node.session.heal();
    node.vm_until("a", |vm| vm["run_state"] == "running").await;
}
