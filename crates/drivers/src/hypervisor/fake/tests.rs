//! The fake does what it says.

use super::*;
use crate::hypervisor::{Hypervisor, HypervisorError};
use drover_model::{Epoch, Obs, vm::Generation};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::{sleep, timeout};

const MARK: Mark = Mark { epoch: Epoch(3), generation: Generation(1) };
const XML: &str =
    "<domain><metadata><d:vm xmlns:d='urn:drover:domain:1' epoch='3' generation='1'/></metadata></domain>";

#[tokio::test(start_paused = true)]
async fn a_hanging_call_is_unknown_until_it_is_done() {
    let machine = FakeMachine::new(1);
    let hypervisor = machine.connect();
    let uuid = Uuid::from_u128(1);
    machine.set_weather(Weather { hang_per_mille: 1000, ..Weather::default() });
    assert!(matches!(
        hypervisor.create(uuid, XML.to_owned(), Arc::new(|| true)).await,
        Err(HypervisorError::Unknown { .. })
    ));
    assert!(matches!(hypervisor.domain(uuid).await, Obs::Unknown(_)));
    assert!(matches!(hypervisor.undefine(uuid, MARK).await, Err(HypervisorError::Unknown { .. })));
    sleep(DEADLINE * 10).await;
    assert_eq!(hypervisor.domain(uuid).await.known().map(|d| d.run), Some(RunState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_not_allowed_any_more_does_nothing() {
    let (machine, uuid) = (FakeMachine::new(1), Uuid::from_u128(1));
    machine.set_weather(Weather { latency_ms: 100..101, ..Weather::default() });
    let (hypervisor, allowed) = (machine.connect(), Arc::new(AtomicBool::new(true)));
    let asked = allowed.clone();
    let call = hypervisor.create(uuid, XML.to_owned(), Arc::new(move || asked.load(Ordering::Relaxed)));
    let (outcome, ()) = tokio::join!(call, async { allowed.store(false, Ordering::Relaxed) });
    assert!(matches!(outcome, Err(HypervisorError::Withdrawn { .. })), "{outcome:?}");
    assert_eq!((machine.defined(), machine.running()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_about_a_guest_does_nothing_to_another() {
    let (machine, uuid) = (FakeMachine::new(1), Uuid::from_u128(1));
    let hypervisor = machine.connect();
    hypervisor.create(uuid, XML.to_owned(), Arc::new(|| true)).await.unwrap();
    let earlier = Mark { epoch: Epoch(2), ..MARK };
    assert!(matches!(hypervisor.destroy(uuid, earlier).await, Err(HypervisorError::Refused { .. })));
    assert_eq!(machine.running(), vec![(uuid, MARK)]);
    hypervisor.destroy(uuid, MARK).await.unwrap();
    assert!(matches!(hypervisor.undefine(uuid, earlier).await, Err(HypervisorError::Refused { .. })));
    assert_eq!((machine.defined(), machine.running()), (vec![uuid], vec![]));
    hypervisor.undefine(uuid, MARK).await.unwrap();
    assert!(machine.defined().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_hangs_holds_who_asks_it_until_its_power_is_cut() {
    for overtaking in [true, false] {
        let (machine, uuid) = (FakeMachine::new(1), Uuid::from_u128(1));
        let hypervisor = machine.connect();
        let hypervisor = if overtaking { hypervisor } else { hypervisor.without_overtaking() };
        hypervisor.create(uuid, XML.to_owned(), Arc::new(|| true)).await.unwrap();
        machine.set_weather(Weather { hung_per_mille: 1000, ..Weather::default() });
        assert!(matches!(hypervisor.shutdown(uuid).await, Err(HypervisorError::Unknown { .. })));
        sleep(DEADLINE * 100).await;
        assert!(matches!(hypervisor.shutdown(uuid).await, Err(HypervisorError::Unknown { .. })));
        assert_eq!(hypervisor.domain(uuid).await.known().is_some(), overtaking);
        assert_eq!(hypervisor.destroy(uuid, MARK).await.is_ok(), overtaking);
        assert_eq!(machine.running().is_empty(), overtaking);
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_crash_the_phase_under_way_is_done_and_no_later_one() {
    let machine = FakeMachine::new(1);
    machine.set_weather(Weather { latency_ms: 100..101, ..Weather::default() });
    let (hypervisor, uuid) = (machine.connect(), Uuid::from_u128(1));
    let call = timeout(Duration::from_millis(50), hypervisor.create(uuid, XML.to_owned(), Arc::new(|| true))).await;
    assert!(call.is_err());
    hypervisor.crash();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((machine.defined(), machine.running()), (vec![uuid], vec![]));
}
