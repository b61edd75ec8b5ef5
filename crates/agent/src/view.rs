//! Keeps the decoded view of the cluster current and hands it out.
//!
//! Whoever waits for a change of one thing keeps the view that it saw last and asks what differs
//! ([`drover_model::view::Table::changes`]).

use drover_model::{ClusterView, NodeName, RecordPath, shelf};
use drover_store::{Record, Store, mirror};
use std::sync::Arc;
use tokio::sync::watch;

/// Hands out the view.
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

    /// To wait for changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.views.clone()
    }

    /// How far the view can be trusted to be the present state.
    pub(crate) fn freshness(&self) -> watch::Receiver<mirror::Freshness> {
        self.freshness.clone()
    }
}

/// Waits until the view differs from the one that was seen last in what is of interest. Safe to cancel: nothing is
/// lost.
pub(crate) async fn differs(
    views: &mut watch::Receiver<Arc<ClusterView>>,
    seen: &ClusterView,
    of_interest: impl Fn(&ClusterView, &ClusterView) -> bool,
) -> Result<(), watch::error::RecvError> {
    loop {
        if of_interest(seen, &views.borrow_and_update()) {
            return Ok(());
        }
        views.changed().await?;
    }
}

/// Makes the view out of the records.
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

/// Folds records into the view. The old view lives on with whoever reads it.
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
