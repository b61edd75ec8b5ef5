//! The self-fence of this node, if it has a watchdog: renews the node's promise, pets the watchdog only while that is
//! acknowledged, and ends all guests when it is not (`plan::selffence`).
//!
//! It runs on a thread of its own: nothing that hangs in the rest of the daemon may cost the machine. What takes time
//! (the store, the hypervisor) is under way beside the loop, one call of each kind at a time.

use crate::{context::Context, records, view::differs};
use drover_drivers::{
    hypervisor::{Domain, Hypervisor},
    watchdog::{Watchdog, WatchdogError},
};
use drover_model::{
    Mono, NodeName, Obs, Promise, RecordKind, RunState, Version, WatchdogReport, watchdog::WATCHDOG_SCHEMA,
};
use drover_plan::selffence::{Decision, Promised, Said, Situation, Timing, Write, decide};
use drover_store::{CreateMode, SessionState, Store, StoreError};
use futures_util::future::join_all;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Timeout of a read, and of a write: after it, the record is read again.
const CALL: Duration = Duration::from_secs(5);
/// Pause before guests that did not end, or came up meanwhile, are ended.
const END_AGAIN: Duration = Duration::from_millis(500);
/// Pause before the record is read again after an error.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// A call that is under way, if one is.
type Lane<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// Completes with a lane's result; never while the lane is empty.
async fn next<T>(lane: &mut Lane<T>) -> T {
    match lane {
        Some(work) => {
            let result = work.await;
            *lane = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// The record as it was read: its version, what it says, and how long others wait.
type Reading = (Option<Version>, Said, Duration);

/// The self-fence.
pub struct SelfFence {
    ctx: Arc<Context>,
    report: watch::Sender<Option<WatchdogReport>>,
    armed: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
    timing: Timing,
    began: Mono,
    promised: Promised,
    /// The version of the record; `None`: there is none.
    version: Option<Version>,
    /// The longest time that this boot has promised.
    gone_after: Duration,
    beat: u64,
    /// The record must be read (again).
    unread: bool,
    open: bool,
    /// What the device says of itself.
    identity: String,
    /// Why the device cannot be used, if so, and whether that is for good.
    failed: Option<(String, bool)>,
    tried: Option<Mono>,
    petted: Option<Mono>,
    sent: Option<Mono>,
    reading: Lane<Result<Reading, StoreError>>,
    writing: Lane<(Write, Mono, Result<Version, StoreError>)>,
    ending: Lane<()>,
    /// Whether the guests were being ended at the last pass.
    ends: bool,
}

impl SelfFence {
    pub(crate) fn new(
        ctx: Arc<Context>,
        report: watch::Sender<Option<WatchdogReport>>,
        armed: watch::Sender<bool>,
        stopping: watch::Receiver<bool>,
    ) -> SelfFence {
        let began = ctx.watchdog.as_ref().map_or(Mono::default(), |watchdog| watchdog.now());
        // The device may take a shorter timeout. What is promised holds for the longest.
        let timing = Timing::of(ctx.watchdog.as_ref().map_or(Duration::ZERO, |watchdog| watchdog.asked()));
        SelfFence {
            ctx,
            report,
            armed,
            stopping,
            timing,
            began,
            promised: Promised::Unknown,
            version: None,
            gone_after: timing.gone_after(),
            beat: 0,
            unread: true,
            open: false,
            identity: String::new(),
            failed: None,
            tried: None,
            petted: None,
            sent: None,
            reading: None,
            writing: None,
            ending: None,
            ends: false,
        }
    }

    /// Runs until dropped; without a watchdog, it does nothing.
    pub async fn run(mut self) {
        let Some(watchdog) = self.ctx.watchdog.clone() else { return std::future::pending().await };
        let ctx = self.ctx.clone();
        let (mut session, mut member) = (ctx.store.session(), ctx.member.subscribe());
        let mut views = ctx.views.subscribe();
        let mut stopping = self.stopping.clone();
        loop {
            session.mark_unchanged();
            member.mark_unchanged();
            stopping.mark_unchanged();
            let seen = views.borrow_and_update().clone();
            let now = watchdog.now();
            let decision = decide(&self.situation(now));
            self.act(&*watchdog, now, &decision);
            self.publish(&*watchdog, now);
            // What was done may call for more at once: each is due again only after a pause.
            if decision.acts() {
                continue;
            }
            let again = decision.again.map(|at| at.since(now) + Duration::from_millis(1));
            tokio::select! {
                biased;
                () = after(again) => {}
                (write, sent, answer) = next(&mut self.writing) => self.written(write, sent, answer),
                reading = next(&mut self.reading) => self.read(reading),
                () = next(&mut self.ending) => {}
                Ok(()) = session.changed() => {}
                Ok(()) = member.changed() => {}
                Ok(()) = stopping.changed() => {}
                Ok(()) = differs(&mut views, &seen, |old, new| old.config != new.config) => {}
            }
        }
    }

    /// Why it is not to be armed now, if there is a reason.
    fn unwanted(&self) -> Option<String> {
        if let Some((why, _)) = self.failed.as_ref().filter(|(_, for_good)| *for_good) {
            return Some(why.clone());
        }
        if *self.stopping.borrow() {
            return Some("the daemon is stopping".to_owned());
        }
        let maintenance = self.is_loaded() && self.ctx.views.latest().config.is_in_maintenance(self.ctx.wall());
        maintenance.then(|| "the cluster is in maintenance".to_owned())
    }

    fn is_loaded(&self) -> bool {
        self.ctx.views.freshness().borrow().is_loaded()
    }

    fn situation(&self, now: Mono) -> Situation {
        Situation {
            now,
            timing: self.timing,
            promised: self.promised,
            wanted: self.unwanted().is_none(),
            member: self.ctx.is_member() && self.is_loaded(),
            connected: self.ctx.store.session().borrow().state == SessionState::Connected,
            busy: self.unread || self.reading.is_some() || self.writing.is_some(),
            open: self.open,
            began: self.began,
            tried: self.tried,
            petted: self.petted,
            sent: self.sent,
        }
    }

    fn act(&mut self, watchdog: &dyn Watchdog, now: Mono, decision: &Decision) {
        // Petting comes first: it is what the time that the rest takes counts against.
        if decision.pet {
            self.petted = Some(now);
            if let Err(error) = watchdog.pet() {
                self.fail(error.to_string(), true);
            }
        }
        if decision.open {
            self.tried = Some(now);
            self.open(watchdog, now);
        }
        if decision.close {
            self.tried = Some(now);
            match watchdog.close() {
                Ok(()) => {
                    self.open = false;
                    tracing::info!(device = watchdog.name(), "the watchdog is stopped");
                }
                Err(error) => self.fail(error.to_string(), true),
            }
        }
        if decision.end_guests {
            self.end_guests();
        }
        self.ends = decision.end_guests;
        if let Some(write) = decision.write {
            self.write(write);
        }
        if self.unread && self.reading.is_none() && self.writing.is_none() {
            let (store, me, boot) = (self.ctx.store.clone(), self.ctx.me().clone(), self.ctx.options.boot.clone());
            self.reading = Some(Box::pin(async move {
                let unknown = |_| unanswered("read this node's promise");
                let answer = timeout(CALL, read(&*store, &me, &boot)).await.map_err(unknown).flatten();
                if answer.is_err() {
                    sleep(READ_AGAIN).await;
                }
                answer
            }));
        }
    }

    fn fail(&mut self, why: String, for_good: bool) {
        if self.failed.as_ref().is_none_or(|(before, _)| *before != why) {
            tracing::error!(why, "this node's watchdog cannot be used");
        }
        self.failed = Some((why, for_good));
    }

    fn open(&mut self, watchdog: &dyn Watchdog, now: Mono) {
        match watchdog.open() {
            Ok(started) => {
                self.open = true;
                self.petted = Some(now);
                self.failed = None;
                self.timing = Timing::of(started.timeout);
                let timeout_s = started.timeout.as_secs();
                tracing::info!(device = watchdog.name(), started.identity, timeout_s, "the watchdog runs");
                self.identity = started.identity;
            }
            Err(error) => {
                let for_good = matches!(error, WatchdogError::Unfit { .. });
                self.fail(error.to_string(), for_good);
            }
        }
    }

    fn write(&mut self, write: Write) {
        let Some(watchdog) = &self.ctx.watchdog else { return };
        let gone_after_ms = u64::try_from(self.gone_after.as_millis()).unwrap_or(u64::MAX);
        self.beat = self.beat.saturating_add(1);
        let promise = Promise {
            schema: WATCHDOG_SCHEMA,
            boot: self.ctx.options.boot.clone(),
            gone_after_ms: (write == Write::Renew).then_some(gone_after_ms),
            timeout_ms: u64::try_from(self.timing.timeout.as_millis()).unwrap_or(u64::MAX),
            beat: self.beat,
        };
        // Before it is sent: what counts is the sending.
        let sent = watchdog.now();
        self.sent = Some(sent);
        self.promised = self.promised.sending(write, sent, &self.timing);
        let (store, me, version) = (self.ctx.store.clone(), self.ctx.me().clone(), self.version);
        self.writing = Some(Box::pin(async move {
            let put = timeout(CALL, put(&*store, &me, &promise, version)).await;
            (write, sent, put.unwrap_or_else(|_| Err(unanswered("renew this node's promise"))))
        }));
    }

    fn written(&mut self, write: Write, sent: Mono, answer: Result<Version, StoreError>) {
        match answer {
            Ok(version) => {
                self.version = Some(version);
                let before = self.promised;
                self.promised = before.done(write, sent, &self.timing);
                match (before, write) {
                    (Promised::Until { known: true, .. } | Promised::Spent, Write::Renew) => {}
                    (_, Write::Renew) => tracing::info!(
                        gone_after_s = self.gone_after.as_secs(),
                        "the watchdog is armed: others count on it that this machine is reset when it is cut off"
                    ),
                    (_, Write::Withdraw) => tracing::info!("the watchdog is disarmed"),
                }
            }
            Err(error) => {
                tracing::debug!(%error, ?write, "this node's promise was not renewed");
                self.unread = true;
            }
        }
    }

    fn read(&mut self, reading: Result<Reading, StoreError>) {
        match reading {
            Ok((version, said, gone_after)) => {
                (self.version, self.unread) = (version, false);
                self.gone_after = self.gone_after.max(gone_after);
                let before = self.promised;
                self.promised = before.read(said);
                if self.promised == Promised::Spent && before != Promised::Spent {
                    tracing::error!(
                        "the cluster takes this machine for one that its watchdog has reset; its guests are ended"
                    );
                }
            }
            Err(error) => tracing::debug!(%error, "cannot read this node's promise; it is read again"),
        }
    }

    /// Begins to end all guests, unless that is under way.
    fn end_guests(&mut self) {
        if !self.ends {
            tracing::error!(
                "this node is cut off: its guests are ended, and its machine is reset, because others may start them"
            );
        }
        if self.ending.is_none() {
            let hypervisor = self.ctx.hypervisor.clone();
            self.ending = Some(Box::pin(async move {
                end_all(&*hypervisor).await;
                sleep(END_AGAIN).await;
            }));
        }
    }

    /// Publishes what others in the daemon want to know.
    fn publish(&self, watchdog: &dyn Watchdog, now: Mono) {
        let holds = matches!(self.promised, Promised::Until { known: true, end } if now < end) && self.open;
        let reason = self.unwanted().or_else(|| self.failed.as_ref().map(|(why, _)| why.clone()));
        let why_not = match (holds, reason) {
            (true, None) => String::new(),
            (_, Some(why)) => why,
            (false, None) if self.ends => "this node is cut off, and its machine is about to be reset".to_owned(),
            (false, None) => "others do not know of it yet".to_owned(),
        };
        let device = watchdog.name();
        let report = WatchdogReport {
            what: if self.identity.is_empty() { device } else { format!("{device} ({})", self.identity) },
            armed: why_not.is_empty(),
            timeout_s: if self.identity.is_empty() { 0 } else { self.timing.timeout.as_secs() },
            failed: self.failed.is_some(),
            why_not,
        };
        self.report.send_if_modified(|old| {
            let changed = old.as_ref() != Some(&report);
            *old = Some(report);
            changed
        });
        let idle = !self.open && matches!(self.promised, Promised::Unknown | Promised::Nothing);
        self.armed.send_if_modified(|old| std::mem::replace(old, !idle) == idle);
    }
}

async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}

fn unanswered(what: &str) -> StoreError {
    StoreError::Unknown { what: what.to_owned(), why: "there was no answer in time".to_owned() }
}

/// Reads the promise of this node, with all that was written before.
async fn read(store: &dyn Store, me: &NodeName, boot: &str) -> Result<Reading, StoreError> {
    store.sync().await?;
    let Some(record) = store.get(&Promise::path(me)).await? else { return Ok((None, Said::Nothing, Duration::ZERO)) };
    let version = Some(record.version);
    Ok(match records::decode::<Promise>(&Promise::path(me), &record.data, record.version) {
        Ok(found) if found.value.boot != boot => (version, Said::Nothing, Duration::ZERO),
        Ok(found) => match found.value.gone_after() {
            Some(gone_after) => (version, Said::Promise, gone_after),
            None => (version, Said::Withdrawn, Duration::ZERO),
        },
        // A newer daemon wrote it, perhaps in this boot.
        Err(_) => (version, Said::Promise, Duration::ZERO),
    })
}

/// Writes the promise over this version. It is made from scratch: what a newer daemon of this node promised in it is
/// over.
async fn put(
    store: &dyn Store,
    me: &NodeName,
    promise: &Promise,
    version: Option<Version>,
) -> Result<Version, StoreError> {
    let (path, data) = (Promise::path(me), records::encode(promise)?);
    match version {
        Some(version) => store.set(&path, data, version).await,
        None => store.create(&path, data, CreateMode::Persistent).await.map(|_| Version::NEW),
    }
}

/// Ends every guest of ours that is in memory, but for what is left of one that is going on elsewhere: it does not
/// execute, and the other node needs it. What cannot be observed is tried again by the caller.
async fn end_all(hypervisor: &dyn Hypervisor) {
    let listed = match hypervisor.domains().await {
        Ok(listed) => listed.ours,
        Err(error) => return tracing::warn!(%error, "cannot list the guests that are to be ended"),
    };
    let leaves = |domain: &Domain| domain.run == RunState::Paused && domain.transit.is_some();
    let known = listed.iter().filter_map(|(_, domain)| match domain {
        Obs::Known(domain) if domain.run != RunState::Off && !leaves(domain) => Some(domain),
        _ => None,
    });
    let end = |domain: &Domain| {
        let (uuid, mark, name) = (domain.uuid, domain.mark, domain.name.clone());
        async move {
            match hypervisor.destroy(uuid, mark).await {
                Ok(()) => tracing::warn!(vm = name, "a guest was ended, because this node is cut off"),
                Err(error) => tracing::warn!(vm = name, %error, "cannot end a guest"),
            }
        }
    };
    join_all(known.map(end)).await;
}
