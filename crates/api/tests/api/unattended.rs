//! Guests that are paused by an I/O error and run on by themselves when its cause is gone.

use crate::support::{TestNode, xml};
use drover_drivers::hypervisor::fake::Weather;
use drover_model::{Paused, PausedBy};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

const UUID: &str = "11111111-2222-4333-8444-555555555555";

impl TestNode {
    /// A VM that runs and then has an I/O error, whose cause stays.
    async fn with_io_error(&self, wished: &str) {
        let definition = xml("db", UUID);
        let told = self.form("POST", "/vm", &[("xml", &*definition), ("resume_after_io_error", wished)]).await;
        assert_eq!(told.status, 200, "{told:?}");
        let told = self.form("POST", "/vm/db/state", &[("state", "start"), ("wait", "true")]).await;
        assert_eq!(told.status, 200, "{told:?}");
        self.fail_again(1000);
        self.machine.guest_pauses(UUID.parse().unwrap(), Paused::from(PausedBy::IoError));
        self.vm_until("db", |vm| vm["paused_by"] == "io-error").await;
        self.handle.views().wait_for(|view| view.faults().contains_key(&fault())).await.unwrap();
    }

    fn fail_again(&self, still_broken_per_mille: u64) {
        self.machine.set_weather(Weather { still_broken_per_mille, ..Weather::default() });
    }
}

fn fault() -> String {
    format!("vm-paused-{}", UUID.parse::<Uuid>().unwrap())
}

#[tokio::test(start_paused = true)]
async fn it_runs_on_by_itself_and_is_a_fault_until_then() {
    let node = TestNode::start().await;
    node.with_io_error("true").await;
    let faults = node.get("/faults").await;
    assert!(faults.text.contains("is resumed now and then"), "{faults:?}");
    // In vain, four times.
    node.vm_until("db", |vm| vm["doing"].as_str().is_some_and(|doing| doing.contains("(4×)"))).await;
    assert!(node.handle.views().borrow().faults().contains_key(&fault()), "it stays");
    node.fail_again(0);
    let begin = Instant::now();
    let shown = node.vm_until("db", |vm| vm["run_state"] == "running" && vm["doing"] == "").await;
    assert_eq!(shown["state"], "start", "{shown}");
    assert!(begin.elapsed() <= Duration::from_secs(170), "at the next attempt: {:?}", begin.elapsed());
    let runs = Instant::now();
    node.handle.views().wait_for(|view| !view.faults().contains_key(&fault())).await.unwrap();
    assert!(runs.elapsed() >= Duration::from_secs(9), "when it has run for a while: {:?}", runs.elapsed());
}

#[tokio::test(start_paused = true)]
async fn it_stays_paused_unless_that_is_wished() {
    let node = TestNode::start().await;
    node.with_io_error("false").await;
    node.fail_again(0);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let shown = node.get("/vm/db").await.json();
    assert_eq!((&shown["paused_by"], &shown["resume_after_io_error"]), (&"io-error".into(), &false.into()), "{shown}");
    // The wish counts from when it comes.
    let told = node.form("POST", "/vm/db/meta", &[("resume_after_io_error", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    node.vm_until("db", |vm| vm["run_state"] == "running").await;
}
