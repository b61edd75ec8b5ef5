//! Control loops of a node: wait for a change or a deadline, build a snapshot, ask `plan` what to do, do one step,
//! repeat.
//!
//! ```text
//!              store (watch)          hypervisor (events)
//!                 │                       │
//!           view keeper ──────┐           │
//!                 │           ▼           ▼
//!                 │       supervisor ── one task per VM ──► plan::vm ──► store, hypervisor
//!                 │
//!                 ├────── membership: node record, session, status
//!                 │
//!                 ├────── primary: the role of the primary, its addresses and services ──► plan::primary
//!                 │
//!                 ├────── drain: empties the node, or brings its VMs home ──► plan::drain
//!                 │
//!                 └────── handle: what the API sees (view, commands)
//! ```
//!
//! [`Agent::run`] looks after every task that it starts (`duty`): dropping it stops them all wherever they are, as a
//! crash would. Nothing here needs to run to its end to be right: a new agent looks at the store and at the hypervisor
//! and goes on from there.

mod arrivals;
mod belongings;
mod clock;
mod commands;
mod context;
mod drain;
mod duty;
mod faults;
mod handle;
mod liveness;
mod membership;
mod primary;
pub mod records;
mod supervisor;
pub mod tokens;
mod view;
mod vm;

pub use commands::{
    Change, CommandError, Commands, ConfigChange, DEADLINE_MAX_S, Define, LIMIT_MAX, Maintenance, Modified, Modify,
};
pub use context::{Drivers, HostFacts, HostSource, Options};
pub use handle::NodeHandle;
pub use membership::JoinError;
pub use primary::{Grant, Handover, PrimaryLoop, PrimaryOptions, PrimaryService, WatchedNetwork};

use context::Context;
use drover_store::Store;
use duty::{Duties, Duty};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long a daemon that is told to end waits for another to take over the role of the primary.
const HAND_OVER: Duration = Duration::from_secs(6);

/// The agent of one node.
pub struct Agent {
    context: Arc<Context>,
    keeper: view::Keeper,
    ready: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl Agent {
    /// Puts an agent together. Nothing happens until [`Agent::run`].
    pub fn new(options: Options, store: Arc<dyn Store>, drivers: Drivers) -> Agent {
        let (keeper, views) = view::Keeper::new(store.clone(), &options.name);
        let context = Arc::new(Context::new(options, store, drivers, views));
        Agent { context, keeper, ready: watch::channel(false).0, stop: watch::channel(false).0 }
    }

    /// What the API may see and do. Usable before, during and after [`Agent::run`].
    pub fn handle(&self) -> NodeHandle {
        NodeHandle::new(self.context.clone(), self.ready.subscribe(), self.stop.clone())
    }

    /// The node's part in the role of the primary. To be run beside [`Agent::run`], and on a thread of its own, so that
    /// nothing else holds it up. `services`: what moves with it beside the addresses.
    pub fn primary(&self, services: Vec<Arc<dyn PrimaryService>>) -> PrimaryLoop {
        PrimaryLoop::new(self.context.clone(), services)
    }

    /// Runs the node until [`NodeHandle::stop`] is called (then guests keep running, and the others are told that this
    /// was on purpose), or until it turns out that the node may not join the cluster.
    pub async fn run(self) -> Result<(), JoinError> {
        let Agent { context, keeper, ready, stop } = self;
        let mut stopping = stop.subscribe();
        let member = membership::run(context.clone(), ready);
        let mut duties = Duties::begin(duties(&context, keeper), context.failures.clone());
        let outcome = tokio::select! {
            biased;
            () = stopped(&mut stopping) => {
                hand_over(&context).await;
                Ok(())
            }
            outcome = member => outcome,
            failed = duties.look_after() => Err(JoinError::Failed(failed.to_owned())),
        };
        duties.end().await;
        if outcome.is_ok() {
            membership::leave(&context).await;
        }
        context.store.close().await;
        outcome
    }
}

/// The control loops of a node.
fn duties(context: &Arc<Context>, keeper: view::Keeper) -> Vec<Duty> {
    let of = |run: fn(Arc<Context>) -> BoxFuture<'static, ()>| {
        let context = context.clone();
        move || run(context.clone())
    };
    vec![
        Duty::once("view", keeper.run()),
        Duty::again("vms", of(|context| Box::pin(supervisor::run(context)))),
        Duty::again("drain", of(|context| Box::pin(drain::run(context)))),
        Duty::again("liveness", of(|context| Box::pin(liveness::run(context)))),
        Duty::again("faults", of(|context| Box::pin(faults::of_primary(context)))),
    ]
}

/// Completes when the daemon is told to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // It fails when the sender is gone, which ends as this does.
    stop.wait_for(|stop| *stop).await.ok();
}

/// Lets the role of the primary pass to another node, if this one has it and there is another. What is not passed on in
/// time is left to the lease.
async fn hand_over(ctx: &Context) {
    ctx.stopping.send_replace(true);
    let mut must = ctx.must_hand_over.subscribe();
    if tokio::time::timeout(HAND_OVER, must.wait_for(|must| !*must)).await.is_err() {
        tracing::warn!(
            "the role of the primary was not handed over in time; another coordinator takes it when the lease is over"
        );
    }
}
