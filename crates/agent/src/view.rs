//! Keeps a decoded view of the cluster current, and shares it.
//!
//! To wait for changes of one thing, keep the last view and compare it with the new one
//! ([`drover_model::view::Table::changes`]).

use drover_model::{ClusterView, NodeName, RecordPath, Version, shelf};
use drover_store::{Record, Store, mirror};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

/// Access to the view.
#[derive(Debug, Clone)]
pub(crate) struct Views {
    views: watch::Receiver<Arc<ClusterView>>,
    freshness: watch::Receiver<mirror::Freshness>,
}

impl Views {
    /// The newest view.
    pub(crate) fn latest(&self) -> Arc<ClusterView> {
        self.views.borrow().clone()
    }

    /// Notifies of changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.views.clone()
    }

    /// Whether the view is complete and current.
    pub(crate) fn freshness(&self) -> watch::Receiver<mirror::Freshness> {
        self.freshness.clone()
    }
}

/// Waits until the view differs from `seen` in what is of interest. Cancel-safe.
///
/// Each view is compared with the one before it: comparing each with the same old one would cost more, the more of no
/// interest has changed since.
pub(crate) async fn differs(
    views: &mut watch::Receiver<Arc<ClusterView>>,
    seen: &ClusterView,
    of_interest: impl Fn(&ClusterView, &ClusterView) -> bool,
) -> Result<(), watch::error::RecvError> {
    let mut last: Option<Arc<ClusterView>> = None;
    loop {
        let now = views.borrow_and_update().clone();
        if of_interest(last.as_deref().unwrap_or(seen), &now) {
            return Ok(());
        }
        last = Some(now);
        views.changed().await?;
    }
}

/// Whether the view shows, within that time, later records of these VMs than of those versions. So the next pass counts
/// what this one has written.
pub(crate) async fn shows(views: &Views, written: &[(Uuid, Version)], within: Duration) -> bool {
    let later = |view: &Arc<ClusterView>| {
        written.iter().all(|(uuid, version)| view.vms.get(uuid).is_none_or(|vm| vm.record.version > *version))
    };
    timeout(within, views.subscribe().wait_for(later)).await.is_ok()
}

/// Builds the view from the records.
pub(crate) struct Keeper {
    mirror: mirror::Mirror<Decoder>,
}

impl Keeper {
    /// Of the store's records, as node `me` looks at them.
    pub(crate) fn new(store: Arc<dyn Store>, me: &NodeName) -> (Keeper, Views) {
        let (sender, views) = watch::channel(Arc::new(ClusterView::default()));
        let mirror = mirror::Mirror::new(store, RecordPath::root(), Decoder { sender });
        // Who needs these reads them himself; leases are rewritten all the time.
        let mirror = shelf::unshelved().into_iter().fold(mirror, mirror::Mirror::without);
        let mirror = mirror.with_leaves(shelf::is_leaf).in_turn(me.as_str());
        let freshness = mirror.freshness();
        (Keeper { mirror }, Views { views, freshness })
    }

    pub(crate) async fn run(self) {
        self.mirror.run().await;
    }
}

/// Applies record changes to a copy of the view; readers keep the old one.
struct Decoder {
    sender: watch::Sender<Arc<ClusterView>>,
}

impl mirror::Sink for Decoder {
    fn replace_all(&mut self, records: Vec<(RecordPath, Record)>) {
        let mut view = ClusterView::default();
        for (path, record) in &records {
            view.apply(path, Some((&record.data, record.version)));
        }
        self.sender.send_replace(Arc::new(view));
    }

    fn apply(&mut self, changes: Vec<(RecordPath, Option<Record>)>) {
        let mut view = ClusterView::clone(&self.sender.borrow());
        for (path, record) in &changes {
            view.apply(path, record.as_ref().map(|r| (r.data.as_slice(), r.version)));
        }
        self.sender.send_replace(Arc::new(view));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[tokio::test]
    async fn each_view_is_compared_with_the_one_before_it() {
        let view = |n: u32| {
            let mut view = ClusterView::default();
            view.config.limits.cluster = n;
            Arc::new(view)
        };
        let mark = |view: &ClusterView| view.config.limits.cluster;
        let seen = view(0);
        let (sender, mut views) = watch::channel(seen.clone());
        let compared = RefCell::new(Vec::new());
        let interest = |old: &ClusterView, new: &ClusterView| {
            compared.borrow_mut().push((mark(old), mark(new)));
            mark(new) == 3
        };
        let changes = async {
            for n in 1..=3 {
                tokio::task::yield_now().await;
                sender.send_replace(view(n));
                tokio::task::yield_now().await;
            }
        };
        let (differs, ()) = tokio::join!(differs(&mut views, &seen, interest), changes);
        assert!(differs.is_ok());
        assert_eq!(*compared.borrow(), [(0, 0), (0, 1), (1, 2), (2, 3)]);
    }
}
