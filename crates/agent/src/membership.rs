//! The node as a member of its cluster: the tree's skeleton, its record, its session, its report.
//!
//! A node's name belongs to one machine, for claims are held by it: another machine may not join under it until the
//! node was removed.
//!
//! The session (an ephemeral record) is made anew in every session of the store. If one of this node's name is there
//! already, it is our dead predecessor's (the same machine) and is replaced at once, for a lock on the state folder
//! keeps two daemons of one machine apart.

use crate::{context::Context, records};
use drover_drivers::hypervisor::Connection;
use drover_model::{
    ClusterConfig, DaemonState, DomainState, Mono, NodeName, NodeRecord, NodeSession, NodeStatus, Obs, Only, Primary,
    RecordKind, RunState,
    cluster::{CLUSTER_SCHEMA, Layout},
    node::NODE_SCHEMA,
};
use drover_plan::capacity::HOST_RESERVE;
use drover_store::{CreateMode, SessionState, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// How often a node looks whether it has something to report.
const REPORT: Duration = Duration::from_secs(5);
/// A report that says nothing new is written so often all the same, so that what is shown of a node is never older.
/// (Whether its daemon lives is told by its session.)
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// Reports that events cause are at least so far apart; what changes meanwhile is folded into one.
const REPORT_GAP: Duration = Duration::from_millis(500);
/// How soon a step that the store did not do is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a node may not join its cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The name is in use.
    #[error(
        "node {name} of this cluster is another machine (id {machine}); give this one a name of its own (node.name in the configuration file), or, if it takes that one's place, remove the old node first ('drover node remove {name}' on another node)"
    )]
    NameTaken {
        /// The name.
        name: NodeName,
        /// The other machine's id.
        machine: String,
    },
    /// The records were written by a later version.
    #[error("the cluster's records have layout {found}, and this version knows {known}: upgrade this node")]
    TooOld {
        /// What is there.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// A part of the daemon failed that cannot be begun again.
    #[error("the daemon's duty {0:?} failed, which is a defect of Drover; the daemon must be started again")]
    Failed(String),
    /// The store holds something else.
    #[error("the cluster's records cannot be read: {0}")]
    Broken(String),
}

/// What a step towards membership may end with.
enum Trouble {
    /// For good.
    Join(JoinError),
    /// Try again.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        match error {
            StoreError::Broken(why) => Trouble::Join(JoinError::Broken(why)),
            error => Trouble::Store(error),
        }
    }
}

/// Joins, stays a member, and reports, until dropped. Ends only when the node may not join.
pub(crate) async fn run(ctx: Arc<Context>, ready: watch::Sender<bool>) -> Result<(), JoinError> {
    retrying(&ctx, Step::Prepare).await?;
    let mut freshness = ctx.views.freshness();
    tokio::join!(
        async {
            let mut session = ctx.store.session();
            loop {
                retrying(&ctx, Step::Enter).await?;
                lost(&ctx, &mut session).await;
            }
        },
        async {
            // It fails when the keeper of the view is gone; then the daemon ends.
            freshness.wait_for(|f| f.is_loaded()).await.ok();
            report(&ctx, &ready).await;
        }
    )
    .0
}

/// A step towards membership.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The records must be there.
    Prepare,
    /// The session must be ours.
    Enter,
}

/// Does a step until the store has done it.
async fn retrying(ctx: &Context, step: Step) -> Result<(), JoinError> {
    let mut told = false;
    loop {
        let done = match step {
            Step::Prepare => prepare(ctx).await,
            Step::Enter => enter(ctx).await,
        };
        match done {
            Ok(()) => return Ok(()),
            Err(Trouble::Join(error)) => return Err(error),
            Err(Trouble::Store(error)) => {
                if !told {
                    tracing::warn!(%error, ?step, "the store did not answer; trying until it does");
                    told = true;
                }
                ctx.clock.until(Some(ctx.clock.now().after(RETRY))).await;
            }
        }
    }
}

/// The records that everything else stands on, and this node's own.
async fn prepare(ctx: &Context) -> Result<(), Trouble> {
    let store = &*ctx.store;
    match records::read::<Layout>(store, &Only).await? {
        Some(found) if found.value.0 > CLUSTER_SCHEMA => {
            return Err(Trouble::Join(JoinError::TooOld { found: found.value.0, known: CLUSTER_SCHEMA }));
        }
        Some(_) => {}
        None => records::ensure(store, &Layout::path(&Only), records::encode(&Layout(CLUSTER_SCHEMA))?).await?,
    }
    records::ensure(store, &ClusterConfig::path(&Only), records::encode(&ClusterConfig::default())?).await?;
    records::ensure(store, &Primary::path(&Only), records::encode(&Primary::vacant())?).await?;
    for path in drover_model::shelf::skeleton() {
        records::ensure(store, &path, Vec::new()).await?;
    }
    let old = records::read::<NodeRecord>(store, ctx.me()).await?;
    let machine = &ctx.options.machine;
    if let Some(other) = old.as_ref().map(|r| &r.value.machine).filter(|m| !m.is_empty() && *m != machine) {
        return Err(Trouble::Join(JoinError::NameTaken { name: ctx.me().clone(), machine: other.clone() }));
    }
    let record = NodeRecord {
        schema: old.as_ref().map_or(NODE_SCHEMA, |old| old.value.schema),
        name: ctx.me().clone(),
        machine: machine.clone(),
        role: ctx.options.role,
        api: ctx.options.api.clone(),
        migration: ctx.options.migration.clone(),
        domain_state: old.as_ref().map_or(DomainState::Ready, |r| r.value.domain_state),
    };
    match old {
        Some(old) if old.value == record => {}
        Some(old) => {
            records::set(store, ctx.me(), &old, &record).await?;
        }
        None => records::create(store, ctx.me(), &record).await?,
    }
    Ok(())
}

/// Makes this session's sign of life, in place of a dead predecessor's.
async fn enter(ctx: &Context) -> Result<(), Trouble> {
    let path = NodeSession::path(ctx.me());
    let mine = NodeSession {
        schema: NODE_SCHEMA,
        instance: ctx.options.instance,
        machine: ctx.options.machine.clone(),
        boot: ctx.options.boot.clone(),
        started: ctx.wall(),
    };
    if let Some(old) = records::read_report::<NodeSession>(&*ctx.store, ctx.me()).await? {
        if old.value.machine != mine.machine {
            let (name, machine) = (ctx.me().clone(), old.value.machine);
            return Err(Trouble::Join(JoinError::NameTaken { name, machine }));
        }
        match ctx.store.delete(&path, Some(old.version)).await {
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match ctx.store.create(&path, records::encode(&mine)?, CreateMode::Ephemeral).await {
        Ok(_) => {}
        Err(StoreError::NoParent(_)) => {
            // The node was removed while it was cut off, and comes back.
            prepare(ctx).await?;
            ctx.store.create(&path, records::encode(&mine)?, CreateMode::Ephemeral).await?;
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(node = %ctx.me(), instance = %mine.instance, "this node is a member of the cluster");
    Ok(())
}

/// Completes when the sign of life must be made anew: there is a new session, or the record is gone (or another's) in
/// the view.
async fn lost(ctx: &Context, session: &mut watch::Receiver<drover_store::Session>) {
    let generation = session.borrow_and_update().generation;
    let mut views = ctx.views.subscribe();
    let mut seen = false;
    loop {
        let mine = {
            let view = views.borrow_and_update();
            let node = view.nodes.get(ctx.me());
            node.and_then(|n| n.session.as_ref()).is_some_and(|s| s.instance == ctx.options.instance)
        };
        // The view may not have caught up with our own write yet: gone is only what was there.
        if seen && !mine {
            return;
        }
        seen |= mine;
        tokio::select! {
            biased;
            Ok(()) = session.changed() => {
                let now = *session.borrow_and_update();
                if now.generation != generation && now.state == SessionState::Connected {
                    return;
                }
            }
            Ok(()) = views.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Looks every few seconds, and soon after a domain changed, and reports what is new.
async fn report(ctx: &Context, ready: &watch::Sender<bool>) {
    let mut events = ctx.hypervisor.events();
    let mut connection = ctx.hypervisor.connection();
    let mut domain_type = ctx.options.domain_type.clone();
    let mut drain = ctx.drain.subscribe();
    let mut networks = ctx.network_problems.subscribe();
    let mut failures = ctx.failures.changes();
    let mut told: Option<(Mono, NodeStatus)> = None;
    loop {
        drain.mark_unchanged();
        networks.mark_unchanged();
        failures.mark_unchanged();
        let status = observe(ctx, DaemonState::Run).await;
        let now = ctx.clock.now();
        // Somebody may have removed the node and with it its report, and it came back.
        let shown = ctx.views.latest().nodes.get(ctx.me()).is_some_and(|node| node.status.is_some());
        let is_old = |(at, told): &(Mono, NodeStatus)| now.since(*at) >= REPORT_AGAIN || status.is_news_after(told);
        if shown && !told.as_ref().is_none_or(is_old) {
            tracing::trace!("nothing to report");
        } else {
            told = write_report(ctx, ready, status).await.map(|status| (now, status));
        }
        let earliest = ctx.clock.now().after(REPORT_GAP);
        let latest = ctx.clock.now().after(REPORT);
        tokio::select! {
            biased;
            _ = events.recv() => {}
            Ok(()) = connection.changed() => {}
            Ok(()) = domain_type.changed() => {}
            Ok(()) = drain.changed() => {}
            Ok(()) = networks.changed() => {}
            Ok(()) = failures.changed() => {}
            () = ctx.clock.until(Some(latest)) => {}
        }
        ctx.clock.until(Some(earliest)).await;
        while events.try_recv().is_ok() {}
    }
}

/// Writes a report, and returns it if it is known to be written.
async fn write_report(ctx: &Context, ready: &watch::Sender<bool>, status: NodeStatus) -> Option<NodeStatus> {
    match records::put(&*ctx.store, ctx.me(), &status).await {
        Ok(()) => {
            if !ready.send_replace(true) {
                tracing::info!(node = %ctx.me(), "ready for work");
            }
            Some(status)
        }
        Err(error) => {
            tracing::debug!(%error, "this node's report was not taken");
            None
        }
    }
}

/// Looks at the machine and its domains.
async fn observe(ctx: &Context, daemon: DaemonState) -> NodeStatus {
    let facts = (ctx.options.host)().unwrap_or_else(|error| {
        tracing::warn!(error, "the machine's facts cannot be read");
        Default::default()
    });
    let connection = ctx.hypervisor.connection().borrow().clone();
    let (hypervisor, domains, problem) = match connection {
        Connection::Down(why) => (String::new(), Vec::new(), why),
        Connection::Up => match tokio::join!(ctx.hypervisor.host(), ctx.hypervisor.domains()) {
            (Ok(host), Ok(domains)) => (host.version, domains, String::new()),
            (Err(error), _) | (_, Err(error)) => (String::new(), Vec::new(), error.to_string()),
        },
    };
    let in_memory = |domain: &Obs<drover_drivers::hypervisor::Domain>| match domain {
        Obs::Known(domain) => domain.run != RunState::Off,
        Obs::Unknown(_) => true,
        Obs::Absent => false,
    };
    let total = ctx.options.capacity.unwrap_or(facts.memory_total);
    let mut domains: Vec<Uuid> = domains.into_iter().filter(|(_, d)| in_memory(d)).map(|(uuid, _)| uuid).collect();
    // However the hypervisor lists them: another order is no news.
    domains.sort_unstable();
    NodeStatus {
        schema: NODE_SCHEMA,
        daemon,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: facts.kernel,
        os: facts.os,
        arch: facts.arch,
        hypervisor,
        hypervisor_problem: problem,
        domain_type: *ctx.options.domain_type.borrow(),
        cpus: facts.cpus,
        cpu_model: facts.cpu_model,
        bridges: facts.bridges,
        shared: ctx.options.shared.clone(),
        network_problems: ctx.network_problems.borrow().clone(),
        floating: ctx.options.primary.addresses.iter().map(|a| (a.network.clone(), a.address.to_string())).collect(),
        drain: ctx.drain.borrow().clone(),
        duties: ctx.failures.lately(),
        memory_total: total,
        memory_free: facts.memory_available.min(total.saturating_sub(HOST_RESERVE)),
        load: facts.load,
        domains,
        updated: ctx.wall(),
    }
}

/// Tells the others that this daemon stops on purpose. Guests keep running.
pub(crate) async fn leave(ctx: &Context) {
    let status = observe(ctx, DaemonState::Stop).await;
    if let Err(error) = records::put(&*ctx.store, ctx.me(), &status).await {
        tracing::warn!(%error, "could not tell the cluster that this node's daemon stops on purpose");
    }
}
