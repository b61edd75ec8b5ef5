//! Control loops of a node: each waits for a change or a deadline, takes a snapshot, asks `plan` what to do, does one
//! step, and repeats.
//!
//! ```text
//!              store (watch)          hypervisor (events)
//!                 │                       │
//!           view keeper ──────┐           │
//!                 │           ▼           ▼
//!                 │       supervisor ── one task per VM ──► plan::vm ──► store, hypervisor
//!                 │
//!                 ├────── membership, report: node record, session, status
//!                 │
//!                 ├────── primary: the primary role, its addresses and services ──► plan::primary
//!                 │
//!                 ├────── drain: drains the node, or brings its VMs home ──► plan::drain, plan::returning
//!                 │
//!                 ├────── consoles: deletes console logs of deleted VMs ──► plan::consoles
//!                 │
//!                 ├────── bmc: how others cut this node's power, and whether they could ──► plan::bmc
//!                 │
//!                 ├────── fence: while this node is the primary: what becomes of nodes that are off ──► plan::fence
//!                 │
//!                 ├────── standing: while this node is the primary: losses too great to bear ──► plan::standing
//!                 │
//!                 ├────── selffence: ends this node's guests, and lets its machine be reset, when it is cut off ──►
//!                 │       plan::selffence
//!                 │
//!                 └────── handle: what the API sees (view, commands)
//! ```
//!
//! [`Agent::run`] supervises every task that it starts (`duty`). Dropping it stops them all wherever they are, as a
//! crash would: no task has to finish for the state to be correct. A new agent reads the store and the hypervisor, and
//! resumes.

mod arrivals;
mod belongings;
mod bmc;
mod clock;
mod commands;
mod consoles;
mod context;
mod departed;
mod drain;
mod duty;
pub mod events;
mod faults;
mod fence;
mod handle;
mod liveness;
mod membership;
pub mod operation;
mod orphans;
mod primary;
mod published;
pub mod records;
mod report;
mod returning;
mod selffence;
mod standing;
mod starts;
mod supervisor;
pub mod tokens;
mod view;
mod vm;

pub use bmc::{BadKey, BmcOptions, ClusterKey};
pub use commands::{Change, CommandError, Commands, ConfigChange, Define, Defined, Maintenance, Modified, Modify};
pub use commands::{Import, Imported};
pub use context::{Drivers, GoingDown, HostFacts, HostSource, Options};
pub use events::Events;
pub use handle::NodeHandle;
pub use membership::{JoinError, Twin};
pub use primary::{Grant, Handover, PrimaryLoop, PrimaryOptions, PrimaryService, WatchedLink};
pub use selffence::SelfFence;

use context::Context;
use drover_drivers::console;
use drover_store::Store;
use duty::{Duties, Duty};
use published::Published;
use report::Reporter;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long a stopping daemon waits for another node to take over the primary role.
const HAND_OVER: Duration = Duration::from_secs(6);
/// How long a stopping daemon waits for the end of its promise of a watchdog.
const DISARM: Duration = Duration::from_secs(3);

/// The agent of one node.
pub struct Agent {
    context: Arc<Context>,
    published: Published,
    /// Followers of this node's logs.
    logs: console::Watcher,
    keeper: view::Keeper,
    ready: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl Agent {
    /// Creates an agent. It does nothing until [`Agent::run`].
    pub fn new(options: Options, store: Arc<dyn Store>, drivers: Drivers) -> Agent {
        let (keeper, views) = view::Keeper::new(store.clone(), &options.name);
        let context = Arc::new(Context::new(options, store, drivers, views));
        let published = Published::new(context.clock);
        let logs = console::Watcher::default();
        Agent { context, published, logs, keeper, ready: watch::channel(false).0, stop: watch::channel(false).0 }
    }

    /// Access for the API. Usable before, during and after [`Agent::run`].
    pub fn handle(&self) -> NodeHandle {
        let (lives, logs) = (self.published.lives.subscribe(), self.logs.clone());
        NodeHandle::new(self.context.clone(), lives, logs, self.ready.subscribe(), self.stop.clone())
    }

    /// The node's part in the primary role. Run it next to [`Agent::run`], on a thread of its own, so that nothing else
    /// delays it. `services`: what moves with the role besides the addresses.
    pub fn primary(&self, services: Vec<Arc<dyn PrimaryService>>) -> PrimaryLoop {
        let outlets = primary::Outlets {
            network_problems: self.published.network_problems.clone(),
            service_problems: self.published.service_problems.clone(),
            must_hand_over: self.published.must_hand_over.clone(),
            stopping: self.published.stopping.subscribe(),
        };
        PrimaryLoop::new(self.context.clone(), outlets, services)
    }

    /// The node's self-fence, if it has a watchdog. Run it next to [`Agent::run`], on a thread of its own, so that
    /// nothing else delays it.
    pub fn self_fence(&self) -> SelfFence {
        let Published { watchdog, armed, stopping, .. } = &self.published;
        SelfFence::new(self.context.clone(), watchdog.clone(), armed.clone(), stopping.subscribe())
    }

    /// Runs the node until [`NodeHandle::stop`] is called (guests keep running, and the node's report says that it
    /// stopped on purpose), or until it turns out that the node may not join the cluster.
    pub async fn run(self) -> Result<(), JoinError> {
        let Agent { context, published, keeper, ready, stop, .. } = self;
        let mut stopping = stop.subscribe();
        let reporter = Reporter::new(context.clone(), published.reported());
        let membership = membership::run(&context, &reporter, ready);
        let mut duties = Duties::start(duties(&context, &published, keeper), published.failures.clone());
        let result = tokio::select! {
            biased;
            () = stopped(&mut stopping) => {
                hand_over(&published).await;
                Ok(())
            }
            result = membership => result,
            failed = duties.supervise() => Err(JoinError::Failed(failed.to_owned())),
        };
        duties.stop().await;
        if result.is_ok() {
            reporter.leave().await;
        }
        disarm(&published).await;
        context.store.close().await;
        result
    }
}

/// The duties of a node. Each is given what it publishes, and what it needs of others.
fn duties(context: &Arc<Context>, published: &Published, keeper: view::Keeper) -> Vec<Duty> {
    let Published { lives, strays, drain, bmc, service_problems, failures, .. } = published;
    let ctx = || context.clone();
    vec![
        Duty::once("view", keeper.run()),
        Duty::restartable("vms", {
            let (ctx, strays, failures) = (ctx(), strays.clone(), failures.clone());
            move || supervisor::run(ctx.clone(), strays.clone(), failures.clone())
        }),
        Duty::restartable("drain", {
            let (ctx, report) = (ctx(), drain.clone());
            move || drain::run(ctx.clone(), report.clone())
        }),
        Duty::restartable("consoles", {
            let ctx = ctx();
            move || consoles::run(ctx.clone())
        }),
        Duty::restartable("liveness", {
            let (ctx, lives) = (ctx(), lives.clone());
            move || liveness::run(ctx.clone(), lives.clone())
        }),
        Duty::restartable("bmc", {
            let (ctx, report) = (ctx(), bmc.clone());
            move || bmc::run(ctx.clone(), report.clone())
        }),
        Duty::restartable("fence", {
            let (ctx, lives) = (ctx(), lives.subscribe());
            move || fence::run(ctx.clone(), lives.clone())
        }),
        Duty::restartable("orphans", {
            let ctx = ctx();
            move || orphans::run(ctx.clone())
        }),
        Duty::restartable("standing", {
            let ctx = ctx();
            move || standing::run(ctx.clone())
        }),
        Duty::restartable("faults", {
            let (ctx, problems) = (ctx(), service_problems.subscribe());
            move || faults::of_primary(ctx.clone(), problems.clone())
        }),
    ]
}

/// Completes when the daemon is asked to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which has the same result.
    stop.wait_for(|stop| *stop).await.ok();
}

/// Hands the primary role to another node, if this one has it and there is a candidate. After the timeout the lease
/// decides.
async fn hand_over(published: &Published) {
    published.stopping.send_replace(true);
    let mut must = published.must_hand_over.subscribe();
    if tokio::time::timeout(HAND_OVER, must.wait_for(|must| !*must)).await.is_err() {
        tracing::warn!(
            "the primary role was not handed over in time; another coordinator takes it over when the lease expires"
        );
    }
}

/// Waits until the watchdog is stopped, if there is one. If it is not in time, the machine is reset: the node's promise
/// may still be in the store.
async fn disarm(published: &Published) {
    published.stopping.send_replace(true);
    let mut armed = published.armed.subscribe();
    if tokio::time::timeout(DISARM, armed.wait_for(|armed| !*armed)).await.is_err() {
        tracing::error!("the watchdog could not be disarmed in time, and resets this machine when it runs out");
    }
}
