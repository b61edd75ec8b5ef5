//! The queue of calls, with libvirt's own test driver: it is in the library and needs no daemon.

use super::*;
use std::sync::mpsc;

#[tokio::test]
async fn a_change_that_never_ran_does_not_hide_its_domain() {
    let options = Options { change: Duration::from_millis(200), ..Options::new("test:///default") };
    let hypervisor = Arc::new(LibvirtHypervisor::start(options).unwrap());
    hypervisor.connection().wait_for(|connection| *connection == Connection::Up).await.unwrap();
    // All threads for changes hang, each on a domain of its own.
    let (begun, mut all_begun) = tokio::sync::mpsc::channel(CHANGES);
    let releases: Vec<mpsc::Sender<()>> = (0..CHANGES as u128)
        .map(|n| {
            let (release, released) = mpsc::channel();
            let (hypervisor, begun) = (hypervisor.clone(), begun.clone());
            tokio::spawn(async move {
                let hang = move |_: &Connect, _: &Shared| {
                    begun.blocking_send(()).ok();
                    released.recv().ok();
                    Ok(())
                };
                hypervisor.change(Uuid::from_u128(n), lanes::START, hang).await
            });
            release
        })
        .collect();
    for _ in 0..CHANGES {
        all_begun.recv().await.unwrap();
    }
    let (late, busy) = (Uuid::from_u128(100), Uuid::from_u128(0));
    let outcome = hypervisor.change(late, lanes::START, |_, _| panic!("it must not run later")).await;
    assert!(matches!(outcome, Err(HypervisorError::Unknown { .. })), "{outcome:?}");
    let under_way = |uuid| lock(&hypervisor.shared.lanes).change(uuid);
    assert_eq!((under_way(late), under_way(busy)), (None, Some(lanes::START)));
    drop(releases);
}

#[tokio::test]
async fn a_start_that_is_not_allowed_any_more_defines_nothing() {
    let hypervisor = LibvirtHypervisor::start(Options::new("test:///default")).unwrap();
    hypervisor.connection().wait_for(|connection| *connection == Connection::Up).await.unwrap();
    let uuid = Uuid::from_u128(9);
    let xml = format!(
        "<domain type='test'><name>n</name><uuid>{uuid}</uuid><memory>1024</memory><os><type>hvm</type></os></domain>"
    );
    let outcome = hypervisor.create(uuid, xml.clone(), Arc::new(|| false)).await;
    assert!(matches!(outcome, Err(HypervisorError::Withdrawn { .. })), "{outcome:?}");
    // It is not Drover's, so it is unknown when it is there.
    assert_eq!(hypervisor.domain(uuid).await, Obs::Absent);
    hypervisor.create(uuid, xml, Arc::new(|| true)).await.unwrap();
    assert!(matches!(hypervisor.domain(uuid).await, Obs::Unknown(_)));
}

#[tokio::test]
async fn a_call_that_panics_fails_alone_and_its_domain_can_be_changed_again() {
    let hypervisor = LibvirtHypervisor::start(Options::new("test:///default")).unwrap();
    hypervisor.connection().wait_for(|connection| *connection == Connection::Up).await.unwrap();
    let uuid = Uuid::from_u128(7);
    // More often than there are threads: none of them ends.
    for _ in 0..=CHANGES {
        let outcome = hypervisor.change(uuid, lanes::START, |_, _| panic!("an impossible answer")).await;
        assert!(matches!(outcome, Err(HypervisorError::Unknown { .. })), "{outcome:?}");
        assert_eq!(lock(&hypervisor.shared.lanes).change(uuid), None);
    }
    assert_eq!(hypervisor.domain(uuid).await, Obs::Absent);
    assert_eq!(hypervisor.change(uuid, lanes::START, |_, _| Ok(())).await, Ok(()));
}

#[tokio::test]
async fn a_driver_that_cannot_check_says_nothing_of_the_definition() {
    let hypervisor = LibvirtHypervisor::start(Options::new("test:///default")).unwrap();
    hypervisor.connection().wait_for(|connection| *connection == Connection::Up).await.unwrap();
    let outcome = hypervisor.check("<domain/>".to_owned()).await;
    assert!(matches!(outcome, Err(HypervisorError::Unknown { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_guest_whose_process_has_not_ended_is_not_gone() {
    let uuid = Uuid::new_v4();
    let mut process = processes::tests::process(uuid);
    let hypervisor = LibvirtHypervisor::start(Options::new("test:///default")).unwrap();
    hypervisor.connection().wait_for(|connection| *connection == Connection::Up).await.unwrap();
    let seen = hypervisor.domain(uuid).await;
    assert!(matches!(&seen, Obs::Unknown(why) if why.contains(&process.id().to_string())), "{seen:?}");
    let all = hypervisor.domains().await.unwrap();
    assert!(all.ours.iter().any(|(of, seen)| *of == uuid && matches!(seen, Obs::Unknown(_))), "{all:?}");
    drop(process.stdin.take());
    process.wait().unwrap();
    assert_eq!(hypervisor.domain(uuid).await, Obs::Absent);
    assert!(hypervisor.domains().await.unwrap().ours.iter().all(|(of, _)| *of != uuid));
}
