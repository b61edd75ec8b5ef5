//! A node's membership of its cluster: the basic records, the node's record, its session.
//!
//! A node's name belongs to one machine, because claims are held by name: another machine may not join under the name
//! until the node was removed.
//!
//! The session is an ephemeral record, created again in every session of the store. An existing one is replaced only if
//! it belongs to our dead predecessor (`plan::node::enter`). Until the session is ours, this daemon writes nothing
//! about the node and does nothing under its name: it may run on a clone of the machine that has the name.

use crate::{
    context::Context,
    fence::{self, Return},
    records,
    report::Reporter,
};
use drover_model::{
    Claim, ClusterConfig, Departed, Fence, Mono, NodeName, NodeRecord, NodeSession, NodeState, Only, Primary,
    RecordKind, RemovedNode, Stored, VmRecord,
    cluster::{CLUSTER_SCHEMA, Layout},
    node::NODE_SCHEMA,
};
use drover_plan::{
    fence as plan,
    node::{self, Entry},
};
use drover_store::{CreateMode, Op, SessionState, StoreError};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// Pause before a step is retried after a store error, and before the node enters again.
const RETRY: Duration = Duration::from_secs(1);
/// A session that is older than this belongs to a live daemon: longer than any session timeout that can be configured
/// (120 s).
const EXPIRED: Duration = Duration::from_secs(130);

/// Why a node may not join its cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The name is in use.
    #[error(
        "node {name} of this cluster is another machine (id {machine}); give this one a name of its own (node.name in \
        the configuration file), or, if it takes that one's place, remove the old node first ('drover node remove \
        {name}' on another node)"
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
        "node {name} holds {held} VMs and was last seen at {last}; this machine has its name and its machine id, but \
        another address, {api}, and was booted since: it may be a clone. If it is a clone, give it a name (node.name \
        in the configuration file) and a machine id of its own ('rm /etc/machine-id && systemd-machine-id-setup'). If \
        it is the same machine with a new address, start it once with 'droverd --same-machine'"
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
        "node {0} was removed from the cluster ('drover node remove') while this daemon was away, so it does nothing; \
        guests that still run here are left alone. If it is to be a node of the cluster again, start it once with \
        'droverd --join-again'"
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
    "another daemon has the name {name} and the machine id {machine} (its address is {api}): two machines must not \
    share these, as a cloned one does. Give one of them a name of its own (node.name in the configuration file) and a \
    machine id of its own ('rm /etc/machine-id && systemd-machine-id-setup')"
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
    /// This machine's power may be cut at any moment, as the node's fence says.
    Condemned(Box<Stored<Fence>>),
    /// The session is not ours any more.
    Left,
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
pub(crate) async fn run(ctx: &Context, reporter: &Reporter, ready: watch::Sender<bool>) -> Result<(), JoinError> {
    with_retries(ctx, Step::Prepare, &mut None).await?;
    let mut freshness = ctx.views.freshness();
    let stay = async {
        let mut session = ctx.store.session();
        // The administrator has said it of the machine that had the name until now, not of one that may have it later.
        let mut same_machine = ctx.options.same_machine;
        let mut condemned = None;
        loop {
            let generation = session.borrow_and_update().generation;
            with_retries(ctx, Step::Enter { same_machine }, &mut condemned).await?;
            if !with_retries(ctx, Step::Register, &mut condemned).await? {
                continue;
            }
            same_machine = false;
            ctx.member.send_replace(generation);
            lost(ctx, &mut session, generation).await;
            ctx.member.send_replace(0);
        }
    };
    let reports = async {
        // It fails when the keeper of the view is gone; then the daemon ends.
        freshness.wait_for(|f| f.is_loaded()).await.ok();
        reporter.run(&ready).await;
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
    Enter {
        /// See [`Options::same_machine`](crate::Options::same_machine).
        same_machine: bool,
    },
    /// The node's record must say what this daemon is.
    Register,
}

/// The fence that makes a node wait, and since when it does.
type Condemned = Option<(Stored<Fence>, Mono)>;

/// Does a step, with retries while the store fails. Returns whether it is done; otherwise the node must enter again.
async fn with_retries(ctx: &Context, step: Step, condemned: &mut Condemned) -> Result<bool, JoinError> {
    let mut reported = false;
    let mut occupied: Option<Mono> = None;
    loop {
        let done = match step {
            Step::Prepare => prepare(ctx, ctx.options.join_again).await,
            Step::Enter { same_machine } => enter(ctx, same_machine, condemned).await,
            Step::Register => register(ctx, condemned).await,
        };
        match done {
            Ok(()) => return Ok(true),
            Err(StepError::Left) => {
                ctx.clock.until(Some(ctx.clock.now().after(RETRY))).await;
                return Ok(false);
            }
            Err(StepError::Join(error)) => return Err(error),
            Err(StepError::Occupied(twin)) => {
                let now = ctx.clock.now();
                if occupied.is_none() {
                    tracing::warn!(%twin, "waiting for the other daemon's session to expire; nothing is done until \
                    then");
                }
                if now.since(*occupied.get_or_insert(now)) >= EXPIRED {
                    return Err(JoinError::NotUnique(twin));
                }
                ctx.clock.until(Some(now.after(RETRY))).await;
            }
            Err(StepError::Condemned(fence)) => {
                let now = ctx.clock.now();
                if !condemned.as_ref().is_some_and(|(seen, _)| plan::same_orders(seen, &fence)) {
                    tracing::warn!(
                        "the cluster has ordered to cut this machine's power; nothing is done until that is over"
                    );
                    *condemned = Some((*fence, now));
                }
                ctx.clock.until(Some(now.after(RETRY))).await;
            }
            Err(StepError::Store(error)) => {
                // Without a leader no session expires: the time counts from the next answer.
                occupied = None;
                if !reported {
                    tracing::warn!(%error, ?step, "this node cannot become a member of the cluster yet; trying until \
                    it can");
                    reported = true;
                }
                ctx.clock.until(Some(ctx.clock.now().after(RETRY))).await;
            }
        }
    }
}

/// Creates the basic records of the cluster, and this node's own, if they are missing. `again`: also if this machine
/// was removed from the cluster.
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
        after_proof: old.and_then(|old| old.after_proof),
        power_on: old.and_then(|old| old.power_on),
        on_return: old.and_then(|old| old.on_return),
        then_ready: old.is_some_and(|old| old.then_ready),
        operation: old.and_then(|old| old.operation.clone()),
    }
}

/// Updates the node's record to this daemon's configuration. Only once the session is ours: the record may belong to
/// another machine whose name this one has by mistake. What is recorded of an earlier end of the node is over with it.
async fn register(ctx: &Context, condemned: &Condemned) -> Result<(), StepError> {
    let session = records::read_report::<NodeSession>(&*ctx.store, ctx.me()).await?;
    let Some(session) = session.filter(|session| session.value.instance == ctx.options.instance) else {
        return Err(StepError::Left);
    };
    let Some(old) = find_record(ctx).await? else { return prepare(ctx, false).await };
    let record = own_record(ctx, Some(&old.value));
    let mut ops: Vec<Op> = match fence::returned(ctx, condemned.as_ref()).await? {
        Return::With(end) => end.into_iter().collect(),
        Return::Wait(fence) => {
            // It was proved after this daemon had looked for it, and before it had a session.
            if plan::waits_outside(&fence.value) {
                ctx.store.delete(&NodeSession::path(ctx.me()), Some(session.version)).await?;
            }
            return Err(StepError::Condemned(fence));
        }
    };
    if old.value != record {
        ops.push(records::set_op(ctx.me(), &old, &record)?);
    }
    if !ops.is_empty() {
        // Without the session, the fence that was read may have been deleted since, and another one made that has the
        // same version, and says that this machine's power is to be cut.
        ops.push(Op::Check(NodeSession::path(ctx.me()), session.version));
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
async fn enter(ctx: &Context, same_machine: bool, condemned: &Condemned) -> Result<(), StepError> {
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
    match fence::returned(ctx, condemned.as_ref()).await {
        Ok(Return::Wait(fence)) if plan::waits_outside(&fence.value) => return Err(StepError::Condemned(fence)),
        // With one that cannot be read it enters, and waits then.
        Ok(_) | Err(StoreError::Unreadable { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let old = records::read_report::<NodeSession>(&*ctx.store, ctx.me()).await?;
    match (node::enter(record.as_ref(), old.as_ref().map(|old| &old.value), &mine), old) {
        (Entry::Moved, _) if !same_machine => {
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
