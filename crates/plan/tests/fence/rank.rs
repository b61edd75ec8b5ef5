//! Versions in short: only which are the same, and which are later, counts. So states that differ in how often a record
//! was written before are one.

use crate::{
    host::{Daemon, End, Host},
    store::{FenceIs, Store, Write},
    worker::Worker,
    world::{HOSTS, VMS},
};

/// Replaces the versions of each record by their ranks.
pub(crate) fn versions(
    store: &mut Store,
    workers: &mut [Worker],
    late: &mut [Write],
    hosts: &mut [Host; HOSTS],
    word: Option<&mut Write>,
) {
    let mut primary: Vec<&mut u8> = vec![];
    let mut recs: [Vec<&mut u8>; HOSTS] = Default::default();
    let mut fences: [Vec<&mut u8>; HOSTS] = Default::default();
    let mut vms: [Vec<&mut u8>; VMS] = Default::default();
    let mut claims: [Vec<&mut u8>; VMS] = Default::default();
    let mut writes: Vec<&mut Write> = late.iter_mut().chain(word).collect();
    let mut stores = vec![store];
    for worker in workers {
        stores.extend(worker.sight.as_mut().map(|sight| &mut sight.store));
        writes.extend(worker.write.as_mut());
    }
    for store in stores {
        primary.push(&mut store.primary);
        for (n, node) in store.nodes.iter_mut().enumerate() {
            recs[n].push(&mut node.rec.v);
            fences[n].extend(node.fence.as_mut().map(|fence| &mut fence.v));
        }
        for (v, vm) in store.vms.iter_mut().enumerate() {
            vms[v].push(&mut vm.rec.v);
            claims[v].push(&mut vm.claim.v);
        }
    }
    for write in writes {
        let n = usize::from(write.node);
        primary.extend(write.primary.as_mut());
        recs[n].extend(write.rec.as_mut());
        if let FenceIs::At(v) = &mut write.fence {
            fences[n].push(v);
        }
        if let Some(order) = &mut write.order {
            vms[usize::from(order.vm)].push(&mut order.rec.v);
            claims[usize::from(order.vm)].push(&mut order.claim);
        }
    }
    for (n, host) in hosts.iter_mut().enumerate() {
        for (v, seen) in host.seen.iter_mut().enumerate() {
            if let Some(seen) = seen {
                vms[v].push(&mut seen.recs.rec.v);
                claims[v].push(&mut seen.recs.claim.v);
            }
        }
        if let Daemon::Joins { end, waits } = &mut host.daemon {
            fences[n].extend(waits.as_mut().map(|wait| &mut wait.version));
            if let Some((end, rec)) = end {
                recs[n].push(rec);
                if let End::Delete(v) | End::Replace(v, _) = end {
                    fences[n].push(v);
                }
            }
        }
    }
    for same in std::iter::once(primary).chain(recs).chain(fences).chain(vms).chain(claims) {
        rank(same);
    }
}

/// The lowest becomes 1, unless it is 0, which a record has that was made anew.
fn rank(mut versions: Vec<&mut u8>) {
    versions.sort_unstable();
    let (mut last, mut rank) = (0, 0);
    for version in versions {
        if *version != last {
            (last, rank) = (*version, rank + 1);
        }
        *version = rank;
    }
}
