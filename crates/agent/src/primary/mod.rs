//! This node's part in the primary role: asks `plan::primary` what to do, and does it.
//!
//! Everything that takes time runs in a *lane*: reading the record, renewing the lease, changing the record, work on
//! the services, taking the lock. A lane runs one operation at a time, and lanes do not wait for each other, so a store
//! that does not answer never delays the release of an address. The loop takes in a lane's result, decides anew on the
//! whole state, and starts what is to be started.
//!
//! The loop is a future of its own that the daemon runs on a thread of its own, so that nothing slow elsewhere delays
//! it.

mod address;
mod announce;
mod lanes;
mod links;
mod news;
mod record;
mod service;

pub use links::WatchedLink;
pub use service::{Grant, Handover, PrimaryService};

use crate::context::Context;
use crate::view::differs;
use address::Address;
use announce::Announcer;
use drover_model::{
    ClusterView, FloatingAddress, Mono, NodeName, Only, Primary, RecordKind, Role, Stored, Version, layout,
};
use drover_plan::primary::{Decision, Heard, Level, Situation, Timing, Write, decide, election, hears_leases};
use drover_store::{Result as StoreResult, SessionState, StoreError, Wakeup, Watch, lock};
use lanes::{Lane, next};
use news::News;
use record::Reading;
use service::{Job, Outcome, Services};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Configuration of a node's part in the primary role.
#[derive(Debug, Clone, Default)]
pub struct PrimaryOptions {
    /// The addresses that move with the role.
    pub addresses: Vec<FloatingAddress>,
    /// The networks of these addresses, which are monitored.
    pub networks: Vec<WatchedLink>,
    /// The length of a lease; `None`: the store is not shared.
    pub term: Option<Duration>,
}

/// Whether two views differ in what the election depends on.
fn of_interest(old: &ClusterView, new: &ClusterView) -> bool {
    !old.nodes.ptr_eq(&new.nodes)
}

/// What the loop publishes, and whether the daemon is stopping.
pub(crate) struct Outlets {
    /// Problems of the networks of the floating addresses.
    pub(crate) network_problems: watch::Sender<Vec<String>>,
    /// Failed services and why; empty when this node is not the primary.
    pub(crate) service_problems: watch::Sender<Vec<(String, String)>>,
    /// Whether this node has a part in the role that another node could take over.
    pub(crate) must_hand_over: watch::Sender<bool>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The primary loop of one node; see [`crate::Agent::primary`].
pub struct PrimaryLoop {
    ctx: Arc<Context>,
    outlets: Outlets,
    timing: Timing,
    services: Services,
    announcer: Announcer,
    // Known state.
    record: Option<Stored<Primary>>,
    record_since: Mono,
    leases: BTreeMap<NodeName, Heard>,
    authority: Option<Mono>,
    last_beat: Option<Mono>,
    connected: Option<Mono>,
    generation: u64,
    shared: Level,
    exclusive: Level,
    trouble: Option<String>,
    problems: BTreeMap<String, String>,
    // Pending work.
    unread: bool,
    sync: bool,
    /// The record exists, but this version cannot read it.
    unreadable: bool,
    /// No read before this time.
    read_at: Option<Mono>,
    /// Retry time for services that failed to start (`true`) or stop.
    work_at: Option<(Mono, bool)>,
    /// The outcome of a change, or of a renewal of the lease, is unknown until the record is read.
    change_unknown: bool,
    beat_unknown: bool,
    // The lanes.
    reading: Lane<StoreResult<Reading>>,
    beating: Lane<(Mono, StoreResult<Version>)>,
    writing: Lane<(Mono, Write, StoreResult<()>)>,
    working: Option<Job>,
    /// The services have been quiesced for a handover.
    quiesced: bool,
    /// No job has run yet.
    new: bool,
    work: Lane<Outcome>,
    /// The deadline under which the services were last started.
    granted: Option<Mono>,
    locking: Lane<StoreResult<lock::Guard>>,
    locked: Option<lock::Guard>,
}

impl PrimaryLoop {
    pub(crate) fn new(ctx: Arc<Context>, outlets: Outlets, services: Vec<Arc<dyn PrimaryService>>) -> PrimaryLoop {
        let options = &ctx.options.primary;
        let mut all: Vec<Arc<dyn PrimaryService>> = Vec::new();
        for address in &options.addresses {
            all.push(Arc::new(Address::new(ctx.network.clone(), address.clone())));
        }
        all.extend(services);
        let timing = options.term.map_or_else(Timing::alone, Timing::of);
        PrimaryLoop {
            outlets,
            timing,
            services: Services::new(all),
            announcer: Announcer::default(),
            record: None,
            record_since: Mono::default(),
            leases: BTreeMap::new(),
            authority: None,
            last_beat: None,
            connected: None,
            generation: 0,
            shared: Level::Unknown,
            exclusive: Level::Unknown,
            trouble: None,
            problems: BTreeMap::new(),
            unread: true,
            sync: true,
            unreadable: false,
            read_at: None,
            work_at: None,
            change_unknown: false,
            beat_unknown: false,
            reading: None,
            beating: None,
            writing: None,
            working: None,
            quiesced: false,
            new: true,
            work: None,
            granted: None,
            locking: None,
            locked: None,
            ctx,
        }
    }

    /// Runs until it is dropped or the store is closed, which [`crate::Agent::run`] does at its end. Addresses are then
    /// left to the kernel, which removes them at their deadline.
    ///
    /// # Errors
    ///
    /// The primary's record cannot be watched.
    pub async fn run(mut self) -> StoreResult<()> {
        let mut watch = match self.ctx.store.watch(&Primary::path(&Only)).await {
            // The agent may end before this loop has begun.
            Err(StoreError::Closed) => return Ok(()),
            watch => watch?,
        };
        let links = links::watch(self.ctx.clone(), self.outlets.network_problems.clone());
        tokio::pin!(links);
        tokio::select! {
            () = self.go(&mut watch) => {}
            () = &mut links => {}
        }
        Ok(())
    }

    async fn go(&mut self, watch: &mut Watch) {
        let ctx = self.ctx.clone();
        let mut session = ctx.store.session();
        let mut member = ctx.member.subscribe();
        let mut views = ctx.views.subscribe();
        let mut stopping = self.outlets.stopping.clone();
        let mut problems = self.outlets.network_problems.subscribe();
        loop {
            member.mark_unchanged();
            // Copied first: a watch must not be borrowed twice at once, which deadlocks with a waiting sender.
            let now = *session.borrow_and_update();
            self.look_at_session(now);
            let seen = views.borrow_and_update().clone();
            stopping.mark_unchanged();
            problems.mark_unchanged();
            let decision = self.decide();
            self.act(&decision);
            self.publish();
            let again = [decision.again, self.read_at, self.work_at.map(|(at, _)| at)].into_iter().flatten().min();
            let news = tokio::select! {
                biased;
                outcome = next(&mut self.work) => News::Worked(outcome),
                (sent, answer) = next(&mut self.beating) => News::Beaten(sent, answer),
                (sent, write, answer) = next(&mut self.writing) => News::Written(sent, write, answer),
                reading = next(&mut self.reading) => News::Read(reading),
                guard = next(&mut self.locking) => News::Locked(guard),
                () = self.announcer.next(&self.services) => News::Announced,
                woken = watch.next() => match woken {
                    Some(wakeup) if self.is_concerned(&wakeup) => News::Woken,
                    Some(_) => News::Changed,
                    None => return,
                },
                Ok(()) = session.changed() => News::Changed,
                Ok(()) = member.changed() => News::Changed,
                Ok(()) = differs(&mut views, &seen, of_interest) => News::Changed,
                Ok(()) = stopping.changed() => News::Changed,
                Ok(()) = problems.changed() => News::Changed,
                () = ctx.clock.until(again) => News::Changed,
            };
            self.absorb(news);
        }
    }

    fn now(&self) -> Mono {
        self.ctx.clock.now()
    }

    fn look_at_session(&mut self, session: drover_store::Session) {
        // Only a member takes part: another machine may have this node's name.
        let connected = session.state == SessionState::Connected && self.ctx.is_member();
        match (connected, self.connected) {
            (true, None) => {
                self.connected = Some(self.now());
                (self.unread, self.sync) = (true, true);
            }
            (true, Some(_)) if session.generation != self.generation => (self.unread, self.sync) = (true, true),
            (false, Some(_)) => self.connected = None,
            _ => {}
        }
        if session.generation != self.generation {
            // The lock of the handoff has ended with the session that it was taken in.
            (self.locking, self.locked) = (None, None);
        }
        self.generation = session.generation;
    }

    /// Whether a notification is a reason to read. Leases are renewed all the time; a node that would not act on a
    /// silent holder does not read them.
    fn is_concerned(&self, wakeup: &Wakeup) -> bool {
        let Wakeup::Paths(paths) = wakeup else { return true };
        let leases = layout::leases();
        let eligible = self.ctx.options.role == Role::Coordinator;
        let record = self.record.as_ref().map(|r| &r.value);
        hears_leases(record, self.ctx.me(), eligible) || paths.iter().any(|path| !path.is_within(&leases))
    }

    fn is_live(&self) -> bool {
        self.timing.term.is_none() || self.authority.is_some_and(|until| self.now() < until)
    }

    fn decide(&mut self) -> Decision {
        // Without a lease and without a connection, what was read is out of date.
        if self.connected.is_none() && !self.is_live() && self.record.take().is_some() {
            tracing::debug!("disconnected from the store, and the lease has expired: the primary's record is unknown");
            self.unread = true;
        }
        let ctx = &self.ctx;
        let view = ctx.views.latest();
        let problems = self.outlets.network_problems.borrow().clone();
        let stopping = *self.outlets.stopping.borrow();
        let standing = election::standing(&view, ctx.me(), ctx.options.role, &problems, stopping);
        decide(&Situation {
            me: ctx.me(),
            now: self.now(),
            timing: &self.timing,
            record: self.record.as_ref().map(|r| &r.value),
            record_since: self.record_since,
            leases: &self.leases,
            authority: self.authority,
            last_beat: self.last_beat,
            beating: self.beating.is_some() || self.beat_unknown,
            connected: self.connected,
            // An unreadable record may say anything.
            writing: self.writing.is_some() || self.change_unknown || self.unreadable,
            locked: self.locked.as_ref().is_some_and(lock::Guard::is_held),
            new: self.new,
            shared: self.shared,
            exclusive: self.exclusive,
            trouble: self.trouble.as_deref(),
            standing: &standing,
        })
    }

    fn act(&mut self, decision: &Decision) {
        let now = self.now();
        self.read_at = self.read_at.filter(|at| *at > now);
        self.work_at = self.work_at.filter(|(at, _)| *at > now);
        self.read();
        // A handoff whose record has become unreadable may be at any phase by now. This node's part ends with its
        // lease; then others may claim the role.
        let lost = self.unreadable && self.record.as_ref().is_some_and(|record| record.value.handoff.is_some());
        if decision.beat && !lost {
            self.beat();
        }
        if let Some(write) = &decision.write {
            self.write(write.clone());
        }
        self.lock(decision.lock && !lost);
        self.serve(decision);
        let announce = decision.announce.filter(|_| self.shared == Level::Up);
        self.announcer.want(announce);
    }

    /// Publishes the state for the rest of the daemon.
    fn publish(&self) {
        let (ctx, me) = (&self.ctx, self.ctx.me());
        let has_part = self.record.as_ref().is_some_and(|r| r.value.suspects.contains(me));
        let taken = has_part
            && (election::heir(&ctx.views.latest(), me).is_some()
                || self.record.as_ref().is_some_and(|r| r.value.handoff.is_some()));
        self.outlets.must_hand_over.send_if_modified(|old| std::mem::replace(old, taken) != taken);
        let problems: Vec<(String, String)> =
            if has_part { self.problems.clone().into_iter().collect() } else { Vec::new() };
        self.outlets.service_problems.send_if_modified(|old| {
            let changed = *old != problems;
            *old = problems;
            changed
        });
    }
}

/// Sleeps until then; for ever if `None`.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
