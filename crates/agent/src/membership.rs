//! A node's membership of its cluster: the basic records, the node's record, its session, its report.
//!
//! A node's name belongs to one machine, because claims are held by name: another machine may not join under the name
//! until the node was removed.
//!
//! The session is an ephemeral record, created again in every session of the store. An existing one is replaced only if
//! it belongs to our dead predecessor (`plan::node::enter`). Until the session is ours, this daemon writes nothing
//! about the node and does nothing under its name: it may run on a clone of the machine that has the name.

use crate::{bmc::ClusterKey, context::Context, fence, records};
use drover_drivers::hypervisor::{Connection, Listing};
use drover_model::{
    Claim, ClusterConfig, DaemonState, Departed, Mono, NodeName, NodeRecord, NodeSession, NodeState, NodeStatus, Obs,
    Only, Primary, RecordKind, RemovedNode, RunState, Stored, Stray, VmRecord,
    cluster::{CLUSTER_SCHEMA, Layout},
    node::{FOREIGN_MAX, NODE_SCHEMA},
};
use drover_plan::{
    capacity::HOST_RESERVE,
    node::{self, Entry},
};
use drover_store::{CreateMode, Op, SessionState, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// Poll interval for changes to report.
const REPORT: Duration = Duration::from_secs(5);
/// An unchanged report is rewritten after this time, which bounds the age of what is shown of a node. (Whether its
/// daemon is alive is reported by its session.)
const REPORT_AGAIN: Duration = Duration::from_secs(300);
/// Minimum time between reports; changes in between are combined into one report.
const REPORT_GAP: Duration = Duration::from_millis(500);
/// Pause before a step is retried after a store error.
const RETRY: Duration = Duration::from_secs(1);
/// A session that is older than this belongs to a live daemon: longer than any session timeout that can be configured
/// (120 s).
const EXPIRED: Duration = Duration::from_secs(130);

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
    /// A daemon with the same name and machine id is alive elsewhere.
    #[error("{0}")]
    NotUnique(Twin),
    /// This machine may be a clone of the one that has the name, which holds VMs.
    #[error(
        "node {name} holds {held} VMs and was last seen at {last}; this machine has its name and its machine id, but another address, {api}, and was booted since: it may be a clone. If it is a clone, give it a name (node.name in the configuration file) and a machine id of its own ('rm /etc/machine-id && systemd-machine-id-setup'). If it is the same machine with a new address, start it once with 'droverd --same-machine'"
    )]
    MaybeClone {
        /// The node's name.
        name: NodeName,
        /// The address in its record.
        last: String,
        /// This machine's address.
        api: String,
        /// How many VMs it holds, or is sent.
        held: usize,
    },
    /// This machine's node was removed from the cluster.
    #[error(
        "node {0} was removed from the cluster ('drover node remove') while this daemon was away, so it does nothing; guests that still run here are left alone. If it is to be a node of the cluster again, start it once with 'droverd --join-again'"
    )]
    Removed(NodeName),
    /// The records were written by a later version.
    #[error("the cluster's records have layout {found}, and this version knows {known}: upgrade this node")]
    TooOld {
        /// What is there.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// A part of the daemon failed that cannot be restarted.
    #[error("the daemon's duty {0:?} failed, which is a bug in Drover; restart the daemon")]
    Failed(String),
    /// The store holds something else.
    #[error("the cluster's records cannot be read: {0}")]
    Broken(String),
}

/// Another daemon that has this node's name and machine id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another daemon has the name {name} and the machine id {machine} (its address is {api}): two machines must not share these, as a cloned one does. Give one of them a name of its own (node.name in the configuration file) and a machine id of its own ('rm /etc/machine-id && systemd-machine-id-setup')"
)]
pub struct Twin {
    /// The node's name.
    pub name: NodeName,
    /// The machine id of both.
    pub machine: String,
    /// The other daemon's address.
    pub api: String,
}

/// Why a step towards membership failed.
enum StepError {
    /// Permanently.
    Join(JoinError),
    /// Another daemon has the name; its session may still expire.
    Occupied(Twin),
    /// Try again.
    Store(StoreError),
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> StepError {
        match error {
            StoreError::Broken(why) => StepError::Join(JoinError::Broken(why)),
            // A record in a newer layout may become readable, so the node need not give up.
            StoreError::Unreadable { ref why, .. } if why.newer.is_none() => {
                StepError::Join(JoinError::Broken(error.to_string()))
            }
            error => StepError::Store(error),
        }
    }
}

/// Joins, stays a member, and reports, until dropped. Ends only when the node may not join.
pub(crate) async fn run(ctx: Arc<Context>, ready: watch::Sender<bool>) -> Result<(), JoinError> {
    with_retries(&ctx, Step::Prepare).await?;
    let mut freshness = ctx.views.freshness();
    let stay = async {
        let mut session = ctx.store.session();
        loop {
            let generation = session.borrow_and_update().generation;
            with_retries(&ctx, Step::Enter).await?;
            with_retries(&ctx, Step::Register).await?;
            ctx.member.send_replace(generation);
            lost(&ctx, &mut session, generation).await;
            ctx.member.send_replace(0);
        }
    };
    let reports = async {
        // It fails when the keeper of the view is gone; then the daemon ends.
        freshness.wait_for(|f| f.is_loaded()).await.ok();
        report(&ctx, &ready).await;
        std::future::pending::<()>().await;
    };
    // Whoever may not stay ends, although the reports never do.
    tokio::select! {
        biased;
        ended = stay => ended,
        () = reports => Ok(()),
    }
}

/// A step towards membership.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The records must be there.
    Prepare,
    /// The session must be ours.
    Enter,
    /// The node's record must say what this daemon is.
    Register,
}

/// Does a step, with retries while the store fails.
async fn with_retries(ctx: &Context, step: Step) -> Result<(), JoinError> {
    let mut reported = false;
    let mut occupied: Option<Mono> = None;
    loop {
        let done = match step {
            Step::Prepare => prepare(ctx, ctx.options.join_again).await,
            Step::Enter => enter(ctx).await,
            Step::Register => register(ctx).await,
        };
        match done {
            Ok(()) => return Ok(()),
            Err(StepError::Join(error)) => return Err(error),
            Err(StepError::Occupied(twin)) => {
                let now = ctx.clock.now();
                if occupied.is_none() {
                    tracing::warn!(%twin, "waiting for the other daemon's session to expire; nothing is done until then");
                }
                if now.since(*occupied.get_or_insert(now)) >= EXPIRED {
                    return Err(JoinError::NotUnique(twin));
                }
                ctx.clock.until(Some(now.after(RETRY))).await;
            }
            Err(StepError::Store(error)) => {
                // Without a leader no session expires: the time counts from the next answer.
                occupied = None;
                if !reported {
                    tracing::warn!(%error, ?step, "this node cannot become a member of the cluster yet; trying until it can");
                    reported = true;
                }
                ctx.clock.until(Some(ctx.clock.now().after(RETRY))).await;
            }
        }
    }
}

/// Creates the basic records of the cluster, and this node's own, if they are missing. `again`: also if this machine was
/// removed from the cluster.
async fn prepare(ctx: &Context, again: bool) -> Result<(), StepError> {
    let store = &*ctx.store;
    match records::read::<Layout>(store, &Only).await? {
        Some(found) if found.value.0 > CLUSTER_SCHEMA => {
            return Err(StepError::Join(JoinError::TooOld { found: found.value.0, known: CLUSTER_SCHEMA }));
        }
        Some(_) => {}
        None => records::ensure(store, &Layout::path(&Only), records::encode(&Layout(CLUSTER_SCHEMA))?).await?,
    }
    records::ensure(store, &ClusterConfig::path(&Only), records::encode(&ClusterConfig::default())?).await?;
    records::ensure(store, &Departed::path(&Only), records::encode(&Departed::new(ctx.wall()))?).await?;
    records::ensure(store, &Primary::path(&Only), records::encode(&Primary::vacant())?).await?;
    for path in drover_model::shelf::skeleton() {
        records::ensure(store, &path, Vec::new()).await?;
    }
    if find_record(ctx).await?.is_some() {
        return Ok(());
    }
    // This server of the store may be behind, and show neither the record nor that it was made again.
    store.sync().await?;
    if find_record(ctx).await?.is_some() {
        return Ok(());
    }
    let mut ops = vec![records::create_op(ctx.me(), &own_record(ctx, None))?];
    if let Some(removed) = records::read::<RemovedNode>(store, ctx.me()).await? {
        if removed.value.machine == ctx.options.machine && !again {
            return Err(StepError::Join(JoinError::Removed(ctx.me().clone())));
        }
        ops.push(records::delete_op::<RemovedNode>(ctx.me(), Some(removed.version)));
    }
    Ok(store.multi(ops).await?)
}

/// Reads this node's record, if there is one.
async fn find_record(ctx: &Context) -> Result<Option<Stored<NodeRecord>>, StepError> {
    let found = records::read::<NodeRecord>(&*ctx.store, ctx.me()).await?;
    match found.as_ref().map(|r| &r.value.machine).filter(|m| !m.is_empty() && **m != ctx.options.machine) {
        Some(machine) => {
            let (name, machine) = (ctx.me().clone(), machine.clone());
            Err(StepError::Join(JoinError::NameTaken { name, machine }))
        }
        None => Ok(found),
    }
}

/// This node's record, as this daemon is configured.
fn own_record(ctx: &Context, old: Option<&NodeRecord>) -> NodeRecord {
    NodeRecord {
        schema: old.map_or(NODE_SCHEMA, |old| old.schema),
        name: ctx.me().clone(),
        machine: ctx.options.machine.clone(),
        role: ctx.options.role,
        api: ctx.options.api.clone(),
        migration: ctx.options.migration.clone(),
        domain_state: old.map_or(NodeState::Ready, |old| old.domain_state),
        boot: ctx.options.boot.clone(),
    }
}

/// Updates the node's record to this daemon's configuration. Only once the session is ours: the record may belong to
/// another machine whose name this one has by mistake. What is recorded of an earlier end of the node is over with it.
async fn register(ctx: &Context) -> Result<(), StepError> {
    let Some(old) = find_record(ctx).await? else { return prepare(ctx, false).await };
    let record = own_record(ctx, Some(&old.value));
    let mut ops: Vec<Op> = fence::returned(ctx, &record).await?.into_iter().collect();
    if old.value != record {
        ops.push(records::set_op(ctx.me(), &old, &record)?);
    }
    if !ops.is_empty() {
        ctx.store.multi(ops).await?;
    }
    Ok(())
}

/// How many VMs are held by this node's name, or are being sent to it.
async fn held(ctx: &Context) -> Result<usize, StepError> {
    let store = &*ctx.store;
    store.sync().await?;
    let Some(folder) = VmRecord::path(&Uuid::nil()).parent() else { return Ok(0) };
    let vms = store.children(&folder).await?;
    let claims: Vec<_> =
        vms.iter().filter_map(|uuid| uuid.parse().ok()).map(|uuid| (Claim::path(&uuid), false)).collect();
    let mut held = 0;
    // In pieces: one request for all claims of a large cluster would exceed the store's limit.
    for claims in claims.chunks(64) {
        for found in store.read_many(claims).await?.into_iter().filter_map(|(record, _)| record) {
            // One that cannot be read may be ours.
            let concerns = |claim: &Claim| [&claim.node, &claim.to].into_iter().flatten().any(|node| node == ctx.me());
            held += usize::from(Stored::<Claim>::decode(&found.data, found.version).map_or(true, |c| concerns(&c)));
        }
    }
    Ok(held)
}

/// Creates the node's session record, in place of a dead predecessor's.
async fn enter(ctx: &Context) -> Result<(), StepError> {
    let path = NodeSession::path(ctx.me());
    let mine = NodeSession {
        schema: NODE_SCHEMA,
        instance: ctx.options.instance,
        machine: ctx.options.machine.clone(),
        boot: ctx.options.boot.clone(),
        api: ctx.options.api.clone(),
        started: ctx.wall(),
    };
    let record = find_record(ctx).await?.map(|record| record.value);
    let old = records::read_report::<NodeSession>(&*ctx.store, ctx.me()).await?;
    match (node::enter(record.as_ref(), old.as_ref().map(|old| &old.value), &mine), old) {
        (Entry::Moved, _) if !ctx.options.same_machine => {
            let held = held(ctx).await?;
            if held > 0 {
                let last = record.map(|record| record.api).unwrap_or_default();
                let (name, api) = (ctx.me().clone(), ctx.options.api.clone());
                return Err(StepError::Join(JoinError::MaybeClone { name, last, api, held }));
            }
        }
        (Entry::Taken, Some(old)) => {
            let (name, machine) = (ctx.me().clone(), old.value.machine);
            return Err(StepError::Join(JoinError::NameTaken { name, machine }));
        }
        (Entry::Occupied, Some(old)) => {
            let NodeSession { machine, api, .. } = old.value;
            return Err(StepError::Occupied(Twin { name: ctx.me().clone(), machine, api }));
        }
        (Entry::Replace, Some(old)) => match ctx.store.delete(&path, Some(old.version)).await {
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        },
        (Entry::Free | Entry::Moved, _) | (_, None) => {}
    }
    match ctx.store.create(&path, records::encode(&mine)?, CreateMode::Ephemeral).await {
        Ok(_) => {}
        Err(StoreError::NoParent(_)) => {
            // The node was removed while it was disconnected.
            prepare(ctx, false).await?;
            ctx.store.create(&path, records::encode(&mine)?, CreateMode::Ephemeral).await?;
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(node = %ctx.me(), instance = %mine.instance, "this node is a member of the cluster");
    Ok(())
}

/// Completes when the session record must be created again: there is a new store session, or the record is missing (or
/// another daemon's) in the view.
async fn lost(ctx: &Context, session: &mut watch::Receiver<drover_store::Session>, generation: u64) {
    let mut views = ctx.views.subscribe();
    let mut seen = false;
    loop {
        let mine = {
            let view = views.borrow_and_update();
            let node = view.nodes.get(ctx.me());
            node.and_then(|n| n.session.as_ref()).is_some_and(|s| s.instance == ctx.options.instance)
        };
        // The view may be older than our own write: only a record that was seen there can be missing.
        if seen && !mine {
            return;
        }
        seen |= mine;
        let now = *session.borrow_and_update();
        if now.generation != generation && now.state == SessionState::Connected {
            return;
        }
        tokio::select! {
            biased;
            Ok(()) = session.changed() => {}
            Ok(()) = views.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Writes the node's report: polls every few seconds, and soon after an event.
async fn report(ctx: &Context, ready: &watch::Sender<bool>) {
    let mut events = ctx.hypervisor.events();
    let mut connection = ctx.hypervisor.connection();
    let mut domain_type = ctx.options.domain_type.clone();
    let mut drain = ctx.drain.subscribe();
    let mut networks = ctx.network_problems.subscribe();
    let mut failures = ctx.failures.changes();
    let mut strays = ctx.strays.subscribe();
    let mut bmc = ctx.bmc.subscribe();
    let mut reported: Option<(Mono, NodeStatus)> = None;
    loop {
        ctx.membership().await;
        drain.mark_unchanged();
        networks.mark_unchanged();
        failures.mark_unchanged();
        strays.mark_unchanged();
        bmc.mark_unchanged();
        let observed = observe(ctx, DaemonState::Run).await;
        let now = ctx.clock.now();
        // The node, and its report with it, may have been removed and have come back.
        let shown = ctx.views.latest().nodes.get(ctx.me()).is_some_and(|node| node.status.is_some());
        let is_old = |(at, before): &(Mono, NodeStatus), status: &NodeStatus| {
            now.since(*at) >= REPORT_AGAIN || status.is_news_after(before)
        };
        match observed {
            Err(error) => {
                tracing::warn!(error, "this node's report is not renewed: cannot read the facts about the machine")
            }
            Ok(status) if shown && !reported.as_ref().is_none_or(|before| is_old(before, &status)) => {
                tracing::trace!("nothing to report");
            }
            Ok(status) => reported = write_report(ctx, ready, status).await.map(|status| (now, status)),
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
            Ok(()) = strays.changed() => {}
            Ok(()) = bmc.changed() => {}
            () = ctx.clock.until(Some(latest)) => {}
        }
        ctx.clock.until(Some(earliest)).await;
        while events.try_recv().is_ok() {}
    }
}

/// Writes a report, and returns it if that is known to have succeeded.
async fn write_report(ctx: &Context, ready: &watch::Sender<bool>, status: NodeStatus) -> Option<NodeStatus> {
    match records::put(&*ctx.store, ctx.me(), &status).await {
        Ok(()) => {
            if !ready.send_replace(true) {
                tracing::info!(node = %ctx.me(), "ready for work");
            }
            Some(status)
        }
        Err(error) => {
            tracing::debug!(%error, "cannot write this node's report");
            None
        }
    }
}

/// Collects the node's status.
///
/// # Errors
/// If the facts about the machine cannot be read: a report without them would say that the node has no memory.
async fn observe(ctx: &Context, daemon: DaemonState) -> Result<NodeStatus, String> {
    let facts = (ctx.options.host)()?;
    let connection = ctx.hypervisor.connection().borrow().clone();
    let (hypervisor, guests, domains, problem) = match connection {
        Connection::Down(why) => (String::new(), None, Listing::default(), why),
        Connection::Up => match tokio::join!(ctx.hypervisor.host(), ctx.hypervisor.domains()) {
            (Ok(host), Ok(domains)) => (host.version, host.guests, domains, String::new()),
            (Err(error), _) | (_, Err(error)) => (String::new(), None, Listing::default(), error.to_string()),
        },
    };
    let in_memory = |domain: &Obs<drover_drivers::hypervisor::Domain>| match domain {
        Obs::Known(domain) => domain.run != RunState::Off,
        Obs::Unknown(_) => true,
        Obs::Absent => false,
    };
    let total = ctx.options.capacity.unwrap_or(facts.memory_total);
    let Listing { ours, mut foreign } = domains;
    foreign.truncate(FOREIGN_MAX);
    let mut strays = ctx.strays.borrow().clone();
    // Those without a record at once, before their tasks have looked at them: the VM may be defined again any moment.
    let view = ctx.views.latest();
    let running = ours.iter().filter_map(|(_, domain)| domain.known()).filter(|domain| domain.run != RunState::Off);
    strays.extend(running.filter(|d| !view.vms.contains_key(&d.uuid)).map(|d| (d.uuid, d.mark.epoch)));
    let strays = strays.into_iter().map(|(uuid, epoch)| Stray { uuid, epoch }).collect();
    let mut domains: Vec<Uuid> = ours.into_iter().filter(|(_, d)| in_memory(d)).map(|(uuid, _)| uuid).collect();
    // Sorted, so that another order of the hypervisor's list is not a change.
    domains.sort_unstable();
    Ok(NodeStatus {
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
        guests,
        bridges: facts.bridges,
        shared: ctx.options.shared.clone(),
        network_problems: ctx.network_problems.borrow().clone(),
        floating: ctx.options.primary.addresses.iter().map(|a| (a.network.clone(), a.address.to_string())).collect(),
        drain: ctx.drain.borrow().clone(),
        duties: ctx.failures.recent(),
        bmc: ctx.bmc.borrow().clone(),
        cluster_key: ctx.options.bmc.key.as_ref().map(ClusterKey::id).unwrap_or_default(),
        memory_total: total,
        memory_free: facts.memory_available.min(total.saturating_sub(HOST_RESERVE)),
        load: facts.load,
        domains,
        strays,
        foreign,
        updated: ctx.wall(),
    })
}

/// Reports that this daemon stops on purpose. Guests keep running.
pub(crate) async fn leave(ctx: &Context) {
    if !ctx.is_member() {
        return;
    }
    let written = match observe(ctx, DaemonState::Stop).await {
        Ok(status) => records::put(&*ctx.store, ctx.me(), &status).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::warn!(error, "could not report that this node's daemon stops on purpose");
    }
}
