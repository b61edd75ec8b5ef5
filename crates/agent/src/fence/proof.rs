//! Attempts to prove that silent nodes' machines are off: asks their BMCs, and the machines themselves. Each attempt is
//! a task, so that a slow BMC delays nothing; there is one at most for each node. What they find is forgotten when this
//! node gets the primary role anew: then it is found out again. The decisions are `plan::fence::proof`'s.

use crate::{clock::Clock, context::Context, operation::scope};
use drover_drivers::{power::PowerError, presence::Answer};
use drover_model::{Bmc, BmcRecord, ClusterView, Epoch, Mono, NodeName, NodeView, Operation, PowerState};
use drover_plan::{
    bmc,
    fence::{
        self,
        proof::{Attempts, Found, Presence, Reading, Tries},
    },
    liveness::Lives,
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// An order is sent within this time after the fence that announces it was sent to the store, or not at all: a process
/// that was stopped in between does not cut the power of a node that is back.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// How long an accepted order may take until the BMC reads off.
const OFF_WITHIN: Duration = Duration::from_secs(30);
/// The same for an order that failed, which may have been carried out all the same.
const FAILED_OFF_WITHIN: Duration = Duration::from_secs(5);
/// Poll interval of a BMC that was ordered to cut the power.
const READ_AGAIN: Duration = Duration::from_millis(500);
/// How many other nodes are asked whether this node's own network works.
const PEERS: usize = 3;

/// The attempts of this node while it is the primary.
pub(super) struct Seeker {
    /// Who is alive, for a last look before power is cut.
    lives: watch::Receiver<Lives>,
    epoch: Epoch,
    tries: Tries,
    tasks: JoinSet<Found>,
    handles: BTreeMap<NodeName, AbortHandle>,
    /// Orders to switch nodes on.
    orders: JoinSet<()>,
}

impl Seeker {
    /// One that has asked nobody yet.
    pub(super) fn new(lives: watch::Receiver<Lives>) -> Seeker {
        let (epoch, tries, handles) = Default::default();
        Seeker { lives, epoch, tries, tasks: JoinSet::new(), handles, orders: JoinSet::new() }
    }

    /// What was found out in this epoch of the primary role. `unheard`: nodes with a session that do not answer.
    pub(super) fn tries(&mut self, view: &ClusterView, unheard: &BTreeSet<NodeName>) -> &Tries {
        let epoch = view.primary.as_ref().map_or(Epoch(0), |primary| primary.value.epoch);
        if epoch != self.epoch {
            self.forget();
            self.epoch = epoch;
        }
        // A node that is back, or was booted since, is asked about anew.
        let concerns = |name: &NodeName, boot: &str| {
            let is_silent = |node: &NodeView| node.session.is_none() || unheard.contains(name);
            view.nodes.get(name).is_some_and(|node| is_silent(node) && node.record.value.boot == boot)
        };
        self.tries.retain(|name, attempts| concerns(name, &attempts.boot));
        self.handles.retain(|name, handle| {
            let needed = self.tries.get(name).is_some_and(|attempts| attempts.last.is_none());
            if !needed {
                handle.abort();
            }
            needed
        });
        &self.tries
    }

    /// Ends all attempts.
    pub(super) fn forget(&mut self) {
        self.tries.clear();
        self.handles.clear();
        self.tasks.abort_all();
        self.orders.abort_all();
    }

    /// Begins to look at a node.
    pub(super) fn look(&mut self, ctx: &Arc<Context>, view: &ClusterView, name: &NodeName) {
        let (Some(target), ctx) = (Target::of(ctx, view, name), ctx.clone()) else { return };
        if view.nodes.get(name).is_some_and(|node| node.session.is_some()) {
            // Attempts while its session lives make no later one wait.
            self.tries.remove(name);
        }
        let boot = target.boot.clone();
        let look = async move { scope(target.operation.clone(), target.look(&ctx)).await };
        self.begin(name.clone(), boot, look);
    }

    /// Begins to cut the power of a node, which was announced in its fence by a request that was sent at `announced`.
    pub(super) fn cut(&mut self, ctx: &Arc<Context>, view: &ClusterView, name: &NodeName, announced: Mono) {
        let (Some(target), ctx) = (Target::of(ctx, view, name), ctx.clone()) else { return };
        let lives = self.lives.clone();
        self.begin(name.clone(), target.boot.clone(), async move {
            scope(target.operation.clone(), target.cut(&ctx, &lives, announced)).await
        });
    }

    /// Orders to switch a node on, which was announced in its fence by a request that was sent at `announced`. Once: if
    /// it fails, an administrator finds the node off, as without the order.
    pub(super) fn power_on(&mut self, ctx: &Arc<Context>, view: &ClusterView, name: &NodeName, announced: Mono) {
        let (Some(target), ctx) = (Target::of(ctx, view, name), ctx.clone()) else { return };
        self.orders.spawn(async move { scope(target.operation.clone(), target.power_on(&ctx, announced)).await });
        while self.orders.try_join_next().is_some() {}
    }

    fn begin(&mut self, name: NodeName, boot: String, attempt: impl Future<Output = Found> + Send + 'static) {
        let failed = self.tries.get(&name).map_or(0, |attempts| attempts.failed);
        self.tries.insert(name.clone(), Attempts { boot, last: None, failed });
        if let Some(earlier) = self.handles.insert(name, self.tasks.spawn(attempt)) {
            earlier.abort();
        }
    }

    /// Completes when an attempt has ended.
    pub(super) async fn ended(&mut self, clock: Clock) {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
            let (id, found) = match ended {
                Ok((id, found)) => (id, found),
                Err(error) if error.is_cancelled() => continue,
                Err(error) => {
                    tracing::error!(%error, "an attempt to prove that a node is off failed; this is a bug in Drover");
                    let why = "the attempt to ask its BMC failed, which is a bug in Drover".to_owned();
                    (
                        error.id(),
                        Found { reading: Reading::None(why.clone()), presence: Presence::Unknown(why), order: None },
                    )
                }
            };
            let Some(name) = self.handles.iter().find(|(_, handle)| handle.id() == id).map(|(name, _)| name.clone())
            else {
                continue;
            };
            self.handles.remove(&name);
            if let Some(attempts) = self.tries.remove(&name) {
                tracing::info!(node = %name, %found, "a silent node was asked whether it is off");
                self.tries.insert(name, attempts.ended(clock.now(), found));
                return;
            }
        }
    }
}

/// A node whose machine is asked about.
struct Target {
    name: NodeName,
    boot: String,
    /// The address of its API.
    api: String,
    /// How its power is controlled, or why it cannot be.
    bmc: Result<Bmc, String>,
    /// Addresses of other nodes, which should answer.
    peers: Vec<(NodeName, String)>,
    /// That of its fence.
    operation: Option<Operation>,
}

impl Target {
    fn of(ctx: &Context, view: &ClusterView, name: &NodeName) -> Option<Target> {
        let record = &view.nodes.get(name)?.record.value;
        let peers = fence::witnesses(view, ctx.me(), name).take(PEERS);
        let peers = peers.map(|(other, record)| (other.clone(), record.api.clone())).collect();
        let (boot, api) = (record.boot.clone(), record.api.clone());
        let operation = view.fences().get(name).and_then(|fence| fence.value.operation.clone());
        Some(Target { name: name.clone(), boot, api, bmc: bmc_of(ctx, view, name), peers, operation })
    }

    async fn look(&self, ctx: &Context) -> Found {
        let (reading, presence) = tokio::join!(self.read(ctx), self.presence(ctx));
        Found { reading, presence, order: None }
    }

    async fn cut(&self, ctx: &Context, lives: &watch::Receiver<Lives>, announced: Mono) -> Found {
        // Once more: it was silent before that was written.
        let silent = matches!(self.presence(ctx).await, Presence::Silent(_));
        let late = ctx.clock.now().since(announced) >= SEND_WITHIN;
        let holds = silent && !late && self.still_holds(ctx, &lives.borrow());
        let Some(bmc) = self.bmc.as_ref().ok().filter(|_| holds) else { return self.look(ctx).await };
        tracing::warn!(node = %self.name, %bmc, "cutting the power of a silent node");
        let order = ctx.power.off(bmc).await;
        if let Err(error) = &order {
            tracing::warn!(node = %self.name, %error, "cannot order to cut the power of a silent node");
        }
        let within = if order.is_ok() { OFF_WITHIN } else { FAILED_OFF_WITHIN };
        let end = ctx.clock.now().after(within);
        let off = |reading: &Reading| matches!(reading, Reading::Power(_, PowerState::Off));
        // An accepted order says nothing: BMCs answer before the power is gone.
        let mut reading = self.read(ctx).await;
        while !off(&reading) && ctx.clock.now() < end {
            ctx.clock.until(Some(ctx.clock.now().after(READ_AGAIN))).await;
            reading = self.read(ctx).await;
        }
        let presence = self.presence(ctx).await;
        Found { reading, presence, order: Some(order.map_err(|error| error.to_string())) }
    }

    async fn power_on(&self, ctx: &Context, announced: Mono) {
        let node = &self.name;
        let bmc = match &self.bmc {
            Ok(bmc) if ctx.clock.now().since(announced) < SEND_WITHIN => bmc,
            Ok(_) => return tracing::warn!(%node, "a node is not switched on again: this daemon was stopped meanwhile"),
            Err(why) => return tracing::warn!(%node, why, "a node cannot be switched on again"),
        };
        match ctx.power.on(bmc).await {
            Ok(()) => tracing::info!(%node, %bmc, "a node was ordered to be switched on again"),
            Err(error) => tracing::warn!(%node, %error, "a node cannot be switched on again"),
        }
    }

    /// Whether this node is still the primary, and nothing that it knows by now speaks against the order.
    fn still_holds(&self, ctx: &Context, lives: &Lives) -> bool {
        let view = ctx.views.latest();
        let same = |node: &Arc<NodeView>| node.session.is_none() && node.record.value.boot == self.boot;
        ctx.views.freshness().borrow().is_current()
            && view.primary_node() == Some(ctx.me())
            && view.nodes.get(&self.name).is_some_and(same)
            && !fence::is_quiet(&view, (lives, &BTreeSet::new()), ctx.clock.now(), ctx.wall())
    }

    async fn read(&self, ctx: &Context) -> Reading {
        match &self.bmc {
            Err(why) => Reading::None(why.clone()),
            Ok(bmc) => match ctx.power.state(bmc).await {
                Ok(state) => Reading::Power(bmc.to_string(), state),
                Err(error) => Reading::None(unread(&self.name, &error)),
            },
        }
    }

    /// Whether the machine answers. That nobody answers may also be this node's own fault.
    async fn presence(&self, ctx: &Context) -> Presence {
        match ctx.presence.answers(&self.api).await {
            Answer::Some(how) => return Presence::Answers(self.api.clone(), how),
            Answer::Unknown(why) => return Presence::Unknown(why),
            Answer::Silent => {}
        }
        let answers = join_all(self.peers.iter().map(|(_, api)| ctx.presence.answers(api))).await;
        if self.peers.is_empty() || answers.iter().any(|answer| matches!(answer, Answer::Some(_))) {
            return Presence::Silent(self.api.clone());
        }
        let names: Vec<&str> = self.peers.iter().map(|(name, _)| name.as_str()).collect();
        Presence::Unknown(format!("node {} reaches none of the others either ({})", ctx.me(), names.join(", ")))
    }
}

/// The BMC of a node.
fn bmc_of(ctx: &Context, view: &ClusterView, name: &NodeName) -> Result<Bmc, String> {
    let shelf = view.shelf::<BmcRecord>();
    if let Some(problem) = shelf.problem(name) {
        return Err(format!("the BMC data of {name} cannot be read: {}", problem.why));
    }
    let Some(record) = shelf.get(name) else {
        return Err(format!("no BMC is configured for {name} ([fence] in its configuration file)"));
    };
    if let Some(why) = bmc::disowned(view, name) {
        return Err(why);
    }
    let Some(key) = &ctx.options.bmc.key else {
        let me = ctx.me();
        return Err(format!("the primary, {me}, has no cluster key to read the BMC data of {name}: copy it to {me}"));
    };
    key.open(name, &record.value).map_err(|why| format!("the primary cannot read the BMC data of {name}: {why}"))
}

/// Why a BMC could not be read, and what to do.
fn unread(name: &NodeName, error: &PowerError) -> String {
    match error {
        PowerError::Unreachable { .. } | PowerError::Timeout { .. } => {
            format!("{error}; a BMC that lost its power with its machine proves nothing")
        }
        PowerError::Credentials { .. } | PowerError::Untrusted { .. } => {
            format!("{error}: correct [fence] in the configuration of {name}")
        }
        error => error.to_string(),
    }
}
