//! Listens to the promises of silent nodes with watchdogs, while this node is the primary. What follows from them is
//! decided in `plan::fence::watchdog`.

use crate::{context::Context, records};
use drover_model::{ClusterView, Mono, NodeName, Promise, RecordKind};
use drover_plan::fence::watchdog::{Heard, Silences, silent};
use drover_store::StoreError;
use std::{collections::BTreeMap, time::Duration};

/// A promise is read again after this time.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// What was heard since this node is the primary.
#[derive(Default)]
pub(super) struct Listener {
    silences: Silences,
    read_at: BTreeMap<NodeName, Mono>,
}

impl Listener {
    /// Forgets everything: another node is the primary.
    pub(super) fn forget(&mut self) {
        *self = Listener::default();
    }

    /// Reads the promises of the silent nodes. Returns what is known, and when to read again.
    pub(super) async fn listen(&mut self, ctx: &Context, view: &ClusterView) -> (&Silences, Option<Mono>) {
        let names: Vec<NodeName> = silent(view).cloned().collect();
        self.silences.retain(|name, _| names.contains(name));
        self.read_at.retain(|name, _| names.contains(name));
        let now = ctx.clock.now();
        let is_due = |name: &&NodeName| self.read_at.get(*name).is_none_or(|at| now.since(*at) >= READ_AGAIN);
        let due: Vec<NodeName> = names.iter().filter(is_due).cloned().collect();
        if !due.is_empty()
            && let Err(error) = self.read(ctx, &due).await
        {
            tracing::debug!(%error, "cannot read the promises of silent nodes");
        }
        // A node without a promise may still make one.
        let again = self.read_at.values().min().map(|at| at.after(READ_AGAIN));
        (&self.silences, again)
    }

    async fn read(&mut self, ctx: &Context, names: &[NodeName]) -> Result<(), StoreError> {
        for name in names {
            self.read_at.insert(name.clone(), ctx.clock.now());
        }
        // This server of the store may be behind.
        ctx.store.sync().await?;
        for name in names {
            let path = Promise::path(name);
            let found = ctx.store.get(&path).await?;
            // What a later version promises is not understood: it proves nothing.
            let found = found.and_then(|record| {
                let promise = records::decode::<Promise>(&path, &record.data, record.version).ok()?;
                Some((record, promise.value))
            });
            match found {
                // By the clock after the answer: the renewal was sent before it was seen.
                Some((record, promise)) => {
                    let (before, now) = (self.silences.get(name), ctx.clock.now());
                    let heard = Heard::read(before, record.version, record.revision, promise, now);
                    self.silences.insert(name.clone(), heard);
                }
                None => _ = self.silences.remove(name),
            }
        }
        Ok(())
    }
}
