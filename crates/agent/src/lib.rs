//! Control loops of a node: wait for a change or a deadline, build a snapshot, ask `plan` what to do, do one step, repeat.
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
//!                 ├────── drain: empties the node, or brings its VMs home ──► plan::drain
//!                 │
//!                 └────── handle: what the API sees (view, commands)
//! ```
//!
//! [`Agent::run`] owns every task that it starts: dropping it stops them all wherever they are, as a crash would. Nothing here
//! needs to run to its end to be right: a new agent looks at the store and at the hypervisor and goes on from there.

mod arrivals;
mod clock;
mod commands;
mod context;
mod drain;
mod faults;
mod handle;
mod membership;
pub mod records;
mod supervisor;
pub mod tokens;
mod view;
mod vm;

pub use commands::{Change, CommandError, Commands, ConfigChange, DEADLINE_MAX_S, Define, LIMIT_MAX, Modified, Modify};
pub use context::{Drivers, HostFacts, HostSource, Options};
pub use handle::NodeHandle;
pub use membership::JoinError;

use context::Context;
use drover_store::Store;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinSet};

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
        let (keeper, views) = view::Keeper::new(store.clone());
        let context = Arc::new(Context::new(options, store, drivers, views));
        Agent { context, keeper, ready: watch::channel(false).0, stop: watch::channel(false).0 }
    }

    /// What the API may see and do. Usable before, during and after [`Agent::run`].
    pub fn handle(&self) -> NodeHandle {
        NodeHandle::new(self.context.clone(), self.ready.subscribe(), self.stop.clone())
    }

    /// Runs the node until [`NodeHandle::stop`] is called (then guests keep running, and the others are told that this was on purpose),
    /// or until it turns out that the node may not join the cluster.
    pub async fn run(self) -> Result<(), JoinError> {
        let Agent { context, keeper, ready, stop } = self;
        let mut stopping = stop.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        tasks.spawn(supervisor::run(context.clone()));
        tasks.spawn(drain::run(context.clone()));
        let member = membership::run(context.clone(), ready);
        let outcome = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => Ok(()),
            outcome = member => outcome,
        };
        tasks.shutdown().await;
        if outcome.is_ok() {
            membership::leave(&context).await;
        }
        context.store.close().await;
        outcome
    }
}
