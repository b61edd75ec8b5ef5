//! How other nodes cut this node's power: its daemon writes that to the node's record, sealed with the cluster's key,
//! and checks now and again that it would work. The result is in the node's report, and in its health.
//!
//! The data must be in the store, because it is needed when the node does not answer.

mod seal;

pub use seal::{BadKey, ClusterKey};

use crate::{context::Context, records, view::differs};
use drover_model::{Bmc, BmcRecord, BmcReport, ClusterView, Dice, Mono, RecordKind};
use drover_plan::bmc;
use drover_store::StoreError;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Time between two checks.
const CHECK: Duration = Duration::from_secs(300);
/// Time until the next check while there is a problem.
const CHECK_AGAIN: Duration = Duration::from_secs(30);
/// How much later a check may be, in milliseconds: the nodes of a cluster that was switched on do not go on in step.
const LATE_MS: std::ops::Range<u64> = 0..15_000;
/// Pause before a write is retried after a store error.
const RETRY: Duration = Duration::from_secs(1);

/// The configuration of a node's BMC.
#[derive(Debug, Clone, Default)]
pub struct BmcOptions {
    /// This node's BMC; `None`: it has none.
    pub bmc: Option<Bmc>,
    /// The cluster's key. Without it, a BMC is neither published nor can those of others be used.
    pub key: Option<ClusterKey>,
}

/// Where it is published what is known about the BMC; `None`: there is none.
type Report = watch::Sender<Option<BmcReport>>;

/// Publishes this node's BMC, and checks it. Runs until dropped.
pub(crate) async fn run(ctx: Arc<Context>, report: Report) {
    let mut views = ctx.views.subscribe();
    let mut dice = Dice::new(ctx.options.instance.as_u64_pair().0);
    let mut due = Mono::default();
    let shown = |bmc: &Bmc| BmcReport { shown: bmc.to_string(), ..BmcReport::default() };
    report.send_replace(ctx.options.bmc.bmc.as_ref().map(shown));
    loop {
        ctx.membership().await;
        let view = views.borrow_and_update().clone();
        let published = publish(&ctx, &view).await;
        if let Err(error) = &published {
            tracing::debug!(%error, "cannot publish this node's BMC yet; retrying");
        }
        if let Some(bmc) = ctx.options.bmc.bmc.as_ref().filter(|_| ctx.clock.now() >= due) {
            let pause = if check(&ctx, bmc, &report).await { CHECK } else { CHECK_AGAIN };
            due = ctx.clock.now().after(pause + dice.millis(&LATE_MS));
        }
        let retry = published.is_err().then(|| ctx.clock.now().after(RETRY));
        let check = ctx.options.bmc.bmc.is_some().then_some(due);
        let mine = |view: &ClusterView| view.shelf::<BmcRecord>().get(ctx.me()).map(|record| record.version);
        tokio::select! {
            biased;
            changed = differs(&mut views, &view, |old, new| mine(old) != mine(new)) => if changed.is_err() { return },
            () = ctx.clock.until(retry) => {}
            () = ctx.clock.until(check) => {}
        }
    }
}

/// Makes the node's BMC record say what is configured.
async fn publish(ctx: &Context, view: &ClusterView) -> Result<(), StoreError> {
    let BmcOptions { bmc: Some(bmc), key: Some(key) } = &ctx.options.bmc else {
        // It had one once.
        return match view.shelf::<BmcRecord>().contains_key(ctx.me()) {
            true => match ctx.store.delete(&BmcRecord::path(ctx.me()), None).await {
                Ok(()) | Err(StoreError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            },
            false => Ok(()),
        };
    };
    let old = match records::read::<BmcRecord>(&*ctx.store, ctx.me()).await {
        // It is only our own, of a newer version or not, and is written anew.
        Err(StoreError::Unreadable { .. }) => None,
        old => old?,
    };
    if old.is_some_and(|old| key.open(ctx.me(), &old.value).as_ref() == Ok(bmc)) {
        return Ok(());
    }
    let record =
        key.seal(ctx.me(), bmc).map_err(|error| StoreError::Broken(format!("cannot seal BMC data: {error}")))?;
    records::put(&*ctx.store, ctx.me(), &record).await?;
    tracing::info!(%bmc, key = record.key, "this node's BMC is known to the cluster");
    Ok(())
}

/// Asks the BMC for the power state, and reports what is wrong. Returns whether nothing is.
async fn check(ctx: &Context, bmc: &Bmc, report: &Report) -> bool {
    let answer = ctx.power.state(bmc).await.map_err(|error| error.to_string());
    let before = report.borrow().clone();
    let (problem, wrong) = bmc::problem(answer, before.as_ref().is_some_and(|before| before.wrong));
    let before = before.map(|report| (report.problem, report.checked.0 > 0));
    match (&problem, before) {
        (now, Some((then, true))) if *now == then => {}
        (now, _) if now.is_empty() => tracing::info!(%bmc, "this node's BMC answers"),
        (now, _) => tracing::warn!(%bmc, problem = now, "this node's power could not be cut by its BMC"),
    }
    let good = problem.is_empty();
    report.send_replace(Some(BmcReport { shown: bmc.to_string(), problem, wrong, checked: ctx.wall() }));
    good
}
