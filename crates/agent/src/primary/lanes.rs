//! The lanes of the primary loop: long operations, one at a time in each.

use super::{
    PrimaryLoop, record,
    service::{Announce, Grant, Job},
};
use drover_model::layout;
use drover_plan::primary::{Decision, Level, Want, Write};
use drover_store::{StoreError, lock};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::time::{Instant, timeout};

/// Timeout for reading the record.
const READ: Duration = Duration::from_secs(2);

/// A long operation, if one is under way.
pub(super) type Lane<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// Completes with a lane's result; never while the lane is empty.
pub(super) async fn next<T>(lane: &mut Lane<T>) -> T {
    match lane {
        Some(work) => {
            let result = work.await;
            *lane = None;
            result
        }
        None => std::future::pending().await,
    }
}

impl PrimaryLoop {
    pub(super) fn read(&mut self) {
        if !self.unread || self.reading.is_some() || self.connected.is_none() || self.read_at.is_some() {
            return;
        }
        self.unread = false;
        let (store, sync) = (self.ctx.store.clone(), self.sync);
        let known = self.leases.keys().cloned().collect();
        self.reading = Some(Box::pin(async move {
            let unknown = |_| StoreError::Unknown {
                what: "read who is the primary".to_owned(),
                why: "it took too long".to_owned(),
            };
            timeout(READ, record::read(store, sync, known)).await.map_err(unknown)?
        }));
    }

    pub(super) fn beat(&mut self) {
        let me = self.ctx.me().clone();
        let (Some(lease), Some(record)) = (self.leases.get(&me), &self.record) else { return };
        let sent = self.now();
        self.last_beat = Some(sent);
        let beat = record::beat(self.ctx.store.clone(), me, lease.version, record.value.epoch, self.timing.term);
        self.beating = Some(Box::pin(async move { (sent, beat.await) }));
    }

    pub(super) fn write(&mut self, write: Write) {
        let Some(record) = &self.record else { return };
        let ops = match record::change(self.ctx.me(), &write, record, &self.leases, self.timing.term) {
            Ok(ops) => ops,
            Err(error) => return tracing::error!(%error, "cannot change the primary's record"),
        };
        let (sent, store) = (self.now(), self.ctx.store.clone());
        self.writing = Some(Box::pin(async move {
            let answer = store.multi(ops).await;
            (sent, write, answer)
        }));
    }

    pub(super) fn lock(&mut self, wanted: bool) {
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
            let path = layout::primary_lock();
            lock::acquire(&store, &path, me.as_str(), deadline).await
        }));
    }

    /// Starts the job that the decision asks for. Stopping does not wait for a start under way.
    pub(super) fn serve(&mut self, decision: &Decision) {
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
            // Extend only.
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
            // What runs keeps running while it is extended; the state of anything else is unknown from here on.
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

    /// Whether services must be started: one does not run, or has an earlier deadline than it could have now.
    fn raises(&self, all: bool) -> bool {
        self.shared != Level::Up || (all && self.exclusive != Level::Up) || self.is_older() || self.retries()
    }

    fn is_older(&self) -> bool {
        self.granted < self.authority
    }

    /// A service that is not essential failed, and is retried.
    fn retries(&self) -> bool {
        !self.problems.is_empty()
    }

    fn grant(&self, decision: &Decision) -> Grant {
        let now = (self.now(), Instant::now());
        let until = self.timing.term.and(self.authority).map(|until| now.1 + until.since(now.0));
        let epoch = self.record.as_ref().map(|r| r.value.epoch).unwrap_or_default();
        Grant { epoch, until, contested: decision.contested }
    }
}
