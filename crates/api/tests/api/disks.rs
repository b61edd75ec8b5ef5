//! Deleting VMs: what happens to their disks, and what is remembered of them.

use crate::support::{TestNode, Told, xml};
use drover_model::{NameEntry, RecordKind, RecordPath, VmName, VmRecord, VmState};
use drover_store::{CreateMode, Op, memory::Weather};
use serde_json::json;
use std::{
    future::poll_fn,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};
use tokio::time::sleep;

const FIRST: &str = "11111111-2222-4333-8444-555555555555";
const SECOND: &str = "22222222-2222-4333-8444-555555555555";

fn with_disk(name: &str, uuid: &str, file: &str) -> String {
    let disk = format!("<devices><disk type='file'><source file='{file}'/><target dev='vda'/></disk>");
    xml(name, uuid).replace("<devices>", &disk)
}

async fn define(node: &TestNode, xml: &str) -> Told {
    // By force: that two VMs have one disk is what the tests are about.
    node.form("POST", "/vm", &[("xml", xml), ("node", "hv1"), ("force", "true")]).await
}

async fn remove(node: &TestNode, vm: &str) -> Told {
    node.raw("DELETE", &format!("/vm/{vm}?delete_disks=true"), "", "").await
}

#[tokio::test(start_paused = true)]
async fn a_definition_through_another_node_a_moment_before_keeps_the_disk() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    assert_eq!(define(&first, &with_disk("web", FIRST, "/d/a")).await.status, 200);
    assert_eq!(define(&second, &with_disk("db", SECOND, "/d//x/../a")).await.status, 200);
    let told = remove(&first, "web").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(first.disks.removed(), Vec::<PathBuf>::new());
    let told = remove(&first, "db").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(first.disks.removed(), [PathBuf::from("/d//x/../a")]);
}

/// A future that stands still for a while after so many turns, as a daemon does that gets no CPU.
async fn stalled<F: Future>(future: F, mut turns: u64, pause: Duration) -> F::Output {
    let mut future = pin!(future);
    let early = poll_fn(|context| match turns {
        0 => Poll::Ready(None),
        _ => {
            turns -= 1;
            future.as_mut().poll(context).map(Some)
        }
    });
    match early.await {
        Some(output) => output,
        None => {
            sleep(pause).await;
            future.await
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_not_deleted_under_a_vm_that_is_defined_or_changed_meanwhile() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 8192).await;
    // The files that were removed while the second VM's record named them.
    let lost = Arc::new(Mutex::new(Vec::<PathBuf>::new()));
    let (cluster, found) = (first.cluster.clone(), lost.clone());
    let other = VmRecord::path(&SECOND.parse().unwrap());
    first.disks.observe(Box::new(move |file| {
        let record = cluster.peek(&other).map(|record| serde_json::from_slice::<VmRecord>(&record.data).unwrap());
        let needs =
            |vm: VmRecord| !matches!(vm.state, VmState::Delete { .. }) && vm.xml.contains(file.to_str().unwrap());
        if record.is_some_and(needs) {
            found.lock().unwrap().push(file.to_owned());
        }
    }));
    first.disks.set_look_takes(Duration::from_millis(100));
    first.cluster.set_weather(Weather { latency_ms: 0..40, lost_per_mille: 0 });
    let (mut kept, mut refused) = ([0; 2], [0; 2]);
    for round in 0..200 {
        let (how, change) = ((round % 2) as usize, round % 2 == 1);
        let file = format!("/d/{round}");
        let told = define(&first, &with_disk("web", FIRST, &file)).await;
        assert_eq!(told.status, 200, "{told:?}");
        if change {
            let told = define(&second, &with_disk("db", SECOND, "/d/before")).await;
            assert_eq!(told.status, 200, "{told:?}");
        }
        let removal = async {
            sleep(Duration::from_millis(round * 13 % 200)).await;
            remove(&first, "web").await
        };
        // At another moment of the deletion in every round.
        let meanwhile = async {
            sleep(Duration::from_millis(round * 7 % 100)).await;
            let xml = with_disk("db", SECOND, &file);
            let order = async {
                match change {
                    true => second.form("PUT", "/vm/db", &[("xml", xml.as_str()), ("force", "true")]).await,
                    false => define(&second, &xml).await,
                }
            };
            stalled(order, round % 13, Duration::from_millis(round * 31 % 500)).await
        };
        let (removed, defined) = tokio::join!(removal, meanwhile);
        assert_eq!(removed.status, 200, "{removed:?}");
        assert_eq!(*lost.lock().unwrap(), Vec::<PathBuf>::new(), "round {round}");
        if defined.status != 200 {
            assert!(defined.text.contains("is being deleted"), "{defined:?}");
            refused[how] += 1;
        } else {
            kept[how] += u32::from(!first.disks.removed().contains(&file.into()));
        }
        if change || defined.status == 200 {
            let told = remove(&second, "db").await;
            assert_eq!(told.status, 200, "{told:?}");
        }
    }
    // Both orders of the two have happened, for definitions and for changes.
    assert!(kept.iter().chain(&refused).all(|count| *count > 5), "{kept:?} kept, {refused:?} refused");
}

#[tokio::test(start_paused = true)]
async fn epochs_do_not_come_again_after_a_vm() {
    let node = TestNode::start().await;
    let mut last = 0;
    for _ in 0..3 {
        assert_eq!(define(&node, &xml("web", FIRST)).await.status, 200);
        node.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
        let epoch = node.get("/vm/web").await.json()["claim"]["epoch"].as_u64().unwrap();
        assert!(epoch > last + 1, "{epoch} after {last}");
        last = epoch;
        assert_eq!(remove(&node, "web").await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_in_the_form_of_a_uuid_is_refused() {
    let node = TestNode::start().await;
    let told = define(&node, &xml(SECOND, FIRST)).await;
    assert!(told.status.is_client_error() && told.text.contains("form of a UUID"), "{told:?}");
    assert_eq!(define(&node, &xml("web", FIRST)).await.status, 200);
    let told = node.json("POST", "/vm/web/rename", json!({ "new_name": SECOND })).await;
    assert!(told.status.is_client_error() && told.text.contains("form of a UUID"), "{told:?}");
}

/// Replaces a record, whatever it is, by one with this data.
fn write(node: &TestNode, path: &RecordPath, data: Vec<u8>) {
    let version = node.cluster.peek(path).unwrap().version;
    node.cluster.apply(vec![Op::Set(path.clone(), data, version)]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_while_a_vm_cannot_be_read() {
    let node = TestNode::start().await;
    assert_eq!(define(&node, &with_disk("web", FIRST, "/d/a")).await.status, 200);
    assert_eq!(define(&node, &with_disk("db", SECOND, "/d/b")).await.status, 200);
    let path = VmRecord::path(&SECOND.parse().unwrap());
    let good = node.cluster.peek(&path).unwrap().data;
    for broken in [
        // As a newer version may write it: what this version can still read of it need not be all.
        String::from_utf8(good.clone()).unwrap().replace("\"stop\"", "\"hibernate\"").into_bytes(),
        b"{".to_vec(),
        String::from_utf8(good.clone()).unwrap().replace("<devices>", "<device>").into_bytes(),
    ] {
        assert_ne!(broken, good);
        write(&node, &path, broken);
        let told = remove(&node, "web").await;
        assert_eq!((told.status.as_u16(), node.disks.removed().len()), (504, 0), "{told:?}");
        assert!(told.text.contains("its disks are not deleted yet") && told.text.contains(SECOND), "{told:?}");
    }
    write(&node, &path, good);
    let mut views = node.handle.views();
    views.wait_for(|view| view.vm("web").is_none()).await.unwrap();
    assert_eq!(node.disks.removed(), [PathBuf::from("/d/a")]);
}

#[tokio::test(start_paused = true)]
async fn an_old_vm_with_a_uuid_as_its_name_can_be_reached() {
    let node = TestNode::start().await;
    assert_eq!(define(&node, &xml("web", FIRST)).await.status, 200);
    // As a version that accepted such names wrote it.
    let path = VmRecord::path(&FIRST.parse().unwrap());
    let record = String::from_utf8(node.cluster.peek(&path).unwrap().data).unwrap();
    let renamed =
        record.replace("\"web\"", &format!("\"{SECOND}\"")).replace("<name>web<", &format!("<name>{SECOND}<"));
    write(&node, &path, renamed.into_bytes());
    let entry = |name: &str| NameEntry::path(&VmName::new(name).unwrap());
    let found = node.cluster.peek(&entry("web")).unwrap().data;
    let ops = vec![Op::Delete(entry("web"), None), Op::Create(entry(SECOND), found, CreateMode::Persistent)];
    node.cluster.apply(ops).unwrap();
    node.handle.views().wait_for(|view| view.vm(SECOND).is_some()).await.unwrap();
    let uuid_of = async |which: &str| node.get(&format!("/vm/{which}")).await.json()["uuid"].clone();
    assert_eq!(uuid_of(SECOND).await, FIRST);
    // The UUID means the VM that has it, from now on.
    assert_eq!(define(&node, &xml("db", SECOND)).await.status, 200);
    assert_eq!((uuid_of(SECOND).await, uuid_of(FIRST).await), (json!(SECOND), json!(FIRST)));
    let told = node.json("POST", &format!("/vm/{FIRST}/rename"), json!({ "new_name": "web" })).await;
    assert_eq!((told.status.as_u16(), uuid_of("web").await), (200, json!(FIRST)), "{told:?}");
}
