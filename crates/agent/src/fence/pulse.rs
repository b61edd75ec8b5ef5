//! Listens whether the other nodes' machines answer, while this node is the primary. A machine that loses its power
//! falls silent at once, and its session lives on for as long as the store waits. What is found out in that time need
//! not be found out after it (`plan::fence::next`).

use crate::context::Context;
use drover_drivers::presence::Answer;
use drover_model::NodeName;
use drover_plan::fence;
use futures_util::future::{BoxFuture, join_all};
use std::{collections::BTreeSet, sync::Arc};

/// The rounds of this node while it is the primary.
#[derive(Default)]
pub(super) struct Pulse {
    round: Option<BoxFuture<'static, BTreeSet<NodeName>>>,
    unheard: BTreeSet<NodeName>,
}

impl Pulse {
    /// Another node is the primary: it listens.
    pub(super) fn forget(&mut self) {
        *self = Pulse::default();
    }

    /// The nodes with a session that did not answer in the last round.
    pub(super) fn unheard(&self) -> &BTreeSet<NodeName> {
        &self.unheard
    }

    /// Completes when other nodes than before do not answer. What was heard until then is kept if it is dropped.
    pub(super) async fn changed(&mut self, ctx: &Arc<Context>) {
        loop {
            let next = || -> BoxFuture<'static, _> { Box::pin(round(ctx.clone())) };
            let unheard = self.round.get_or_insert_with(next).await;
            self.round = None;
            if unheard != self.unheard {
                tracing::debug!(?unheard, "nodes with a session do not answer");
                self.unheard = unheard;
                return;
            }
        }
    }
}

/// Asks each node once, after a pause.
async fn round(ctx: Arc<Context>) -> BTreeSet<NodeName> {
    let nodes = ctx.views.latest().nodes.len();
    ctx.clock.until(Some(ctx.clock.now().after(fence::pulse(nodes)))).await;
    let view = ctx.views.latest();
    let asked = fence::listened_to(&view, ctx.me()).map(async |(name, record)| {
        let answer = ctx.presence.answers_at_its_api(&record.api).await;
        (answer == Answer::Silent).then(|| name.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}
