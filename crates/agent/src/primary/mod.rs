//! This node's part in the role of the primary: asks `plan::primary` what to do, and does it.
//!
//! Everything that takes time is a *lane*: reading the record, rewriting the lease, changing the record, working on the
//! services, taking the lock. A lane has one thing under way at a time, and none waits for another; so a store that
//! does not answer never keeps an address from being let go in time. The loop takes in what a lane brought, decides
//! anew from the whole, and begins what is to be begun.
//!
//! The loop is a future of its own, which the daemon runs on a thread of its own: nothing that is slow elsewhere holds
//! it up.

mod address;
mod announce;
mod links;
mod record;
mod service;

pub use links::WatchedNetwork;
pub use service::{Grant, Handover, PrimaryService};

use crate::context::Context;
use crate::view::differs;
use address::Address;
use announce::Announcer;
use drover_model::{ClusterView, FloatingAddress, Mono, NodeName, Only, Primary, RecordKind, Stored, Version};
use drover_plan::primary::{Decision, Heard, Level, Situation, Timing, Want, Write, decide, election};
use drover_store::{Result as StoreResult, SessionState, StoreError, Watch, lock};
use record::Reading;
use service::{Announce, Job, Outcome, Services};
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a reading may take before it is begun anew.
const READ: Duration = Duration::from_secs(2);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How a node takes part.
#[derive(Debug, Clone, Default)]
pub struct PrimaryOptions {
    /// The addresses that move with the role.
    pub addresses: Vec<FloatingAddress>,
    /// The networks that they are on, to see whether these work here.
    pub networks: Vec<WatchedNetwork>,
    /// The length of a lease; `None`: nobody shares the store.
    pub term: Option<Duration>,
}

type Lane<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// Completes with what a lane brings, and never while there is nothing in it.
async fn next<T>(lane: &mut Lane<T>) -> T {
    match lane {
        Some(work) => {
            let brought = work.await;
            *lane = None;
            brought
        }
        None => std::future::pending().await,
    }
}

/// Whether two views differ in what the election looks at.
fn of_interest(old: &ClusterView, new: &ClusterView) -> bool {
    !old.nodes.ptr_eq(&new.nodes)
}

/// The role's loop of one node; see [`crate::Agent::primary`].
pub struct PrimaryLoop {
    ctx: Arc<Context>,
    timing: Timing,
    services: Services,
    announcer: Announcer,
    // What is known.
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
    // What is to be done.
    unread: bool,
    sync: bool,
    /// Not before.
    read_at: Option<Mono>,
    /// Services that did not go the way that they were told are told again then: the way up (`true`), or down.
    work_at: Option<(Mono, bool)>,
    /// The outcome of a change, or of a rewriting, is not known until the record was read.
    change_unknown: bool,
    beat_unknown: bool,
    // The lanes.
    reading: Lane<StoreResult<Reading>>,
    beating: Lane<(Mono, StoreResult<Version>)>,
    writing: Lane<(Mono, Write, StoreResult<()>)>,
    working: Option<Job>,
    /// The services have prepared for the role's passing on.
    quiesced: bool,
    /// Nothing was done to them yet.
    new: bool,
    work: Lane<Outcome>,
    /// Until when the services were started last.
    granted: Option<Mono>,
    locking: Lane<StoreResult<lock::Guard>>,
    locked: Option<lock::Guard>,
}

/// Something that the loop waited for.
enum News {
    Read(StoreResult<Reading>),
    Beaten(Mono, StoreResult<Version>),
    Written(Mono, Write, StoreResult<()>),
    Worked(Outcome),
    Locked(StoreResult<lock::Guard>),
    Announced,
    Woken,
    Changed,
}

impl PrimaryLoop {
    pub(crate) fn new(ctx: Arc<Context>, services: Vec<Arc<dyn PrimaryService>>) -> PrimaryLoop {
        let options = &ctx.options.primary;
        let mut all: Vec<Arc<dyn PrimaryService>> = Vec::new();
        for address in &options.addresses {
            all.push(Arc::new(Address::new(ctx.network.clone(), address.clone())));
        }
        all.extend(services);
        let timing = options.term.map_or_else(Timing::alone, Timing::of);
        PrimaryLoop {
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

    /// Runs until dropped. Dropped, it leaves to the kernel what it has up.
    pub async fn run(mut self) {
        let mut watch = match self.ctx.store.watch(&Primary::path(&Only)).await {
            Ok(watch) => watch,
            Err(error) => return tracing::error!(%error, "the primary's record cannot be watched"),
        };
        let links = links::watch(self.ctx.clone());
        tokio::pin!(links);
        tokio::select! {
            () = self.go(&mut watch) => {}
            () = &mut links => {}
        }
    }

    async fn go(&mut self, watch: &mut Watch) {
        let ctx = self.ctx.clone();
        let mut session = ctx.store.session();
        let mut views = ctx.views.subscribe();
        let mut stopping = ctx.stopping.subscribe();
        let mut ailing = ctx.network_problems.subscribe();
        loop {
            self.look_at_session(*session.borrow_and_update());
            let seen = views.borrow_and_update().clone();
            stopping.mark_unchanged();
            ailing.mark_unchanged();
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
                    Some(_) => News::Woken,
                    None => return,
                },
                Ok(()) = session.changed() => News::Changed,
                Ok(()) = differs(&mut views, &seen, of_interest) => News::Changed,
                Ok(()) = stopping.changed() => News::Changed,
                Ok(()) = ailing.changed() => News::Changed,
                () = ctx.clock.until(again) => News::Changed,
            };
            self.absorb(news);
        }
    }

    fn now(&self) -> Mono {
        self.ctx.clock.now()
    }

    fn look_at_session(&mut self, session: drover_store::Session) {
        let connected = session.state == SessionState::Connected;
        match (connected, self.connected) {
            (true, None) => {
                self.connected = Some(self.now());
                (self.unread, self.sync) = (true, true);
            }
            (true, Some(_)) if session.generation != self.generation => (self.unread, self.sync) = (true, true),
            (false, Some(_)) => self.connected = None,
            _ => {}
        }
        self.generation = session.generation;
    }

    fn is_live(&self) -> bool {
        self.timing.term.is_none() || self.authority.is_some_and(|until| self.now() < until)
    }

    fn decide(&mut self) -> Decision {
        // What was read once is worth nothing when there is neither a lease nor a connection any more.
        if self.connected.is_none() && !self.is_live() && self.record.take().is_some() {
            tracing::debug!(
                "cut off from the store, and the lease is over: what the primary's record says is not known"
            );
            self.unread = true;
        }
        let ctx = &self.ctx;
        let view = ctx.views.latest();
        let problems = ctx.network_problems.borrow().clone();
        let stopping = *ctx.stopping.borrow();
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
            writing: self.writing.is_some() || self.change_unknown,
            locked: self.locked.is_some(),
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
        if decision.beat {
            self.beat();
        }
        if let Some(write) = &decision.write {
            self.write(write.clone());
        }
        self.lock(decision.lock);
        self.serve(decision);
        let announce = decision.announce.filter(|_| self.shared == Level::Up);
        self.announcer.want(announce);
    }

    fn read(&mut self) {
        if !self.unread || self.reading.is_some() || self.connected.is_none() || self.read_at.is_some() {
            return;
        }
        self.unread = false;
        let (store, sync) = (self.ctx.store.clone(), self.sync);
        self.reading = Some(Box::pin(async move {
            let unknown = |_| StoreError::Unknown {
                what: "read who is the primary".to_owned(),
                why: "it took too long".to_owned(),
            };
            timeout(READ, record::read(store, sync)).await.map_err(unknown)?
        }));
    }

    fn beat(&mut self) {
        let me = self.ctx.me().clone();
        let (Some(lease), Some(record)) = (self.leases.get(&me), &self.record) else { return };
        let sent = self.now();
        self.last_beat = Some(sent);
        let beat = record::beat(self.ctx.store.clone(), me, lease.version, record.value.epoch, self.timing.term);
        self.beating = Some(Box::pin(async move { (sent, beat.await) }));
    }

    fn write(&mut self, write: Write) {
        let Some(record) = &self.record else { return };
        let ops = match record::change(self.ctx.me(), &write, record, &self.leases, self.timing.term) {
            Ok(ops) => ops,
            Err(error) => return tracing::error!(%error, "the primary's record cannot be changed"),
        };
        let (sent, store) = (self.now(), self.ctx.store.clone());
        self.writing = Some(Box::pin(async move {
            let answer = store.multi(ops).await;
            (sent, write, answer)
        }));
    }

    fn lock(&mut self, wanted: bool) {
        if !wanted {
            self.locking = None;
            self.locked = None;
            return;
        }
        if self.locked.is_some() || self.locking.is_some() || self.connected.is_none() {
            return;
        }
        let (store, me) = (self.ctx.store.clone(), self.ctx.me().clone());
        let deadline = Instant::now() + self.timing.patience;
        self.locking = Some(Box::pin(async move {
            let path = drover_model::layout::primary_lock();
            lock::acquire(&store, &path, me.as_str(), deadline).await
        }));
    }

    /// Begins what is to be done with the services. Going down does not wait for what is coming up.
    fn serve(&mut self, decision: &Decision) {
        let announce = match (decision.announce, self.shared) {
            (None, _) => Announce::Never,
            (Some(_), Level::Up) => Announce::WhatIsNew,
            (Some(_), _) => Announce::Always,
        };
        let job = match (decision.shared, decision.exclusive) {
            (Want::Down, Want::Down) => {
                (self.shared != Level::Down || self.exclusive != Level::Down).then_some(Job::Lower)
            }
            (Want::Up, Want::Up) => self.raises(true).then(|| Job::Raise(self.grant(decision), announce)),
            (Want::Up | Want::Keep, Want::Down) if self.exclusive != Level::Down => Some(Job::Yield),
            (Want::Up, _) if self.quiesced => self.raises(false).then(|| Job::Prolong(self.grant(decision))),
            (Want::Up, _) => self.raises(false).then(|| Job::Share(self.grant(decision), announce)),
            // Prolonged, but nothing new.
            (Want::Keep, exclusive) if self.shared == Level::Up && self.is_older() => {
                let all = exclusive != Want::Down && self.exclusive == Level::Up;
                let grant = self.grant(decision);
                Some(match all {
                    true => Job::Raise(grant, Announce::Never),
                    false if self.quiesced => Job::Prolong(grant),
                    false => Job::Share(grant, Announce::Never),
                })
            }
            _ => None,
        };
        let Some(job) = job else { return };
        if self.work_at.is_some_and(|(_, up)| up == job.is_up()) {
            return;
        }
        match &self.working {
            Some(under_way) if matches!(job, Job::Lower) && under_way.is_up() => {}
            Some(_) => return,
            None => {}
        }
        match job {
            Job::Lower => (self.shared, self.exclusive) = (Level::Unknown, Level::Unknown),
            Job::Yield => self.exclusive = Level::Unknown,
            // What is up stays up while it is prolonged; anything else is not known from here on.
            Job::Share(..) | Job::Prolong(_) | Job::Raise(..) => {
                let unless_up = |level| if level == Level::Up { Level::Up } else { Level::Unknown };
                self.shared = unless_up(self.shared);
                if matches!(job, Job::Raise(..)) {
                    self.exclusive = unless_up(self.exclusive);
                }
            }
        }
        match job {
            Job::Yield => self.quiesced = true,
            Job::Raise(..) | Job::Lower => self.quiesced = false,
            Job::Share(..) | Job::Prolong(_) => {}
        }
        self.granted = if job.is_up() { self.authority } else { None };
        self.new = false;
        self.working = Some(job);
        self.work = Some(Box::pin(self.services.clone().work(job)));
    }

    /// Whether services have to be started: something is not up, or was started for a shorter time than there is now.
    fn raises(&self, all: bool) -> bool {
        self.shared != Level::Up || (all && self.exclusive != Level::Up) || self.is_older() || self.retries()
    }

    fn is_older(&self) -> bool {
        self.granted < self.authority
    }

    /// Something that may fail failed, and is tried again.
    fn retries(&self) -> bool {
        !self.problems.is_empty()
    }

    fn grant(&self, decision: &Decision) -> Grant {
        let now = (self.now(), Instant::now());
        let until = self.timing.term.and(self.authority).map(|until| now.1 + until.since(now.0));
        let epoch = self.record.as_ref().map(|r| r.value.epoch).unwrap_or_default();
        Grant { epoch, until, contested: decision.contested }
    }

    fn absorb(&mut self, news: News) {
        match news {
            News::Read(Ok(reading)) => self.take_in(reading),
            News::Read(Err(error)) => {
                tracing::debug!(%error, "who is the primary cannot be read now");
                (self.unread, self.sync, self.read_at) = (true, true, Some(self.now().after(RETRY)));
            }
            News::Beaten(sent, answer) => self.beaten(sent, answer),
            News::Written(sent, write, answer) => self.written(sent, write, answer),
            News::Worked(outcome) => self.worked(outcome),
            News::Locked(Ok(guard)) => self.locked = Some(guard),
            News::Locked(Err(error)) => {
                tracing::warn!(%error, "the lock of the handoff cannot be had");
            }
            News::Woken => self.unread = true,
            News::Announced | News::Changed => {}
        }
    }

    fn take_in(&mut self, reading: Reading) {
        let now = self.now();
        // Another server of the store may be behind the one that answered last.
        let newer = |old: &Stored<Primary>| reading.record.as_ref().is_some_and(|new| new.version >= old.version);
        if self.record.as_ref().is_some_and(|old| !newer(old)) {
            (self.unread, self.sync, self.read_at) = (true, true, Some(now.after(RETRY)));
            return;
        }
        if self.record.as_ref().map(|r| r.version) != reading.record.as_ref().map(|r| r.version) {
            self.record_since = now;
            if let Some(new) = &reading.record {
                tell(self.ctx.me(), &new.value);
            }
        }
        self.record = reading.record;
        let before = std::mem::take(&mut self.leases);
        let heard = |(name, (version, revision, lease)): (NodeName, (Version, i64, drover_model::Lease))| {
            let heard = Heard::read(before.get(&name).copied(), version, revision, lease.term(), now);
            (name, heard)
        };
        self.leases = reading.leases.into_iter().map(heard).collect();
        if !self.leases.contains_key(self.ctx.me()) {
            self.authority = None;
        }
        (self.sync, self.change_unknown, self.beat_unknown) = (false, false, false);
    }

    fn beaten(&mut self, sent: Mono, answer: StoreResult<Version>) {
        match answer {
            Ok(version) => {
                self.authority = self.authority.max(self.timing.authority(sent));
                if let Some(own) = self.leases.get_mut(self.ctx.me()) {
                    own.version = version;
                }
            }
            Err(error) => {
                if error.is_definite() {
                    // The lease is another one, or gone: what it gave is over.
                    tracing::warn!(%error, "this node's lease as the primary was not prolonged");
                    self.authority = None;
                } else {
                    tracing::debug!(%error, "whether this node's lease was prolonged is not known");
                }
                (self.unread, self.sync, self.beat_unknown) = (true, true, true);
            }
        }
    }

    fn written(&mut self, sent: Mono, write: Write, answer: StoreResult<()>) {
        (self.unread, self.change_unknown) = (true, true);
        match answer {
            Ok(()) => {
                tracing::info!(
                    holder = write.record.holder.as_ref().map_or("nobody", NodeName::as_str),
                    handoff = write.record.candidate().map(NodeName::as_str),
                    phase = write.record.phase().map(|p| p.word()),
                    epoch = %write.record.epoch,
                    why = write.why,
                    "the primary's record was changed by this node"
                );
                if write.make_lease {
                    (self.authority, self.last_beat) = (self.timing.authority(sent), Some(sent));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the primary's record was not changed");
                self.sync = true;
            }
        }
    }

    fn worked(&mut self, outcome: Outcome) {
        let job = self.working.take();
        self.shared = outcome.shared.unwrap_or(self.shared);
        self.exclusive = outcome.exclusive.unwrap_or(self.exclusive);
        if outcome.appeared {
            self.announcer.again();
        }
        self.trouble = outcome.trouble;
        if !outcome.problems.is_empty() {
            self.work_at = Some((self.now().after(RETRY), job.is_some_and(|job| job.is_up())));
        }
        for (name, why) in &outcome.problems {
            if self.problems.get(name) != Some(why) {
                tracing::warn!(
                    service = name,
                    why,
                    up = job.is_some_and(|j| j.is_up()),
                    "a primary service is not as it should be"
                );
            }
        }
        self.problems = outcome.problems.into_iter().collect();
    }

    /// Lets the rest of the daemon know.
    fn publish(&self) {
        let ctx = &self.ctx;
        let me = ctx.me();
        let has_part = self.record.as_ref().is_some_and(|r| r.value.suspects.contains(me));
        let taken = has_part
            && (election::heir(&ctx.views.latest(), me).is_some()
                || self.record.as_ref().is_some_and(|r| r.value.handoff.is_some()));
        ctx.must_hand_over.send_if_modified(|old| std::mem::replace(old, taken) != taken);
        let problems: Vec<(String, String)> =
            if has_part { self.problems.clone().into_iter().collect() } else { Vec::new() };
        ctx.service_problems.send_if_modified(|old| {
            let changed = *old != problems;
            *old = problems;
            changed
        });
    }
}

fn tell(me: &NodeName, record: &Primary) {
    tracing::debug!(%me, ?record, "who is the primary");
}

/// Waits for a moment, for ever if there is none.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
