//! Events of the primary loop, and how they change its state.

use super::{
    PrimaryLoop,
    record::{Read, Reading},
    service::Outcome,
};
use crate::events::{Entry, EventKind};
use drover_model::{Mono, NodeName, Primary, Stored, Version};
use drover_plan::primary::{Heard, Write};
use drover_store::{Result as StoreResult, lock};
use std::time::Duration;

/// Pause before a retry.
const RETRY: Duration = Duration::from_millis(200);

/// An event of the loop.
pub(super) enum News {
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
    pub(super) fn absorb(&mut self, news: News) {
        match news {
            News::Read(Ok(reading)) => self.take_in(reading),
            News::Read(Err(error)) => {
                tracing::debug!(%error, "cannot read the primary's record now");
                (self.unread, self.sync, self.read_at) = (true, true, Some(self.now().after(RETRY)));
            }
            News::Beaten(sent, answer) => self.beaten(sent, answer),
            News::Written(sent, write, answer) => self.written(sent, write, answer),
            News::Worked(outcome) => self.worked(outcome),
            News::Locked(Ok(guard)) => self.locked = Some(guard),
            News::Locked(Err(error)) => {
                tracing::warn!(%error, "cannot take the lock of the handoff");
            }
            News::Woken => self.unread = true,
            News::Announced | News::Changed => {}
        }
    }

    fn take_in(&mut self, reading: Reading) {
        let now = self.now();
        match reading.record {
            Ok(record) => {
                // The read may have come from a server of the store that is behind.
                let newer = |old: &Stored<Primary>| record.as_ref().is_some_and(|new| new.version >= old.version);
                if self.record.as_ref().is_some_and(|old| !newer(old)) {
                    (self.unread, self.sync, self.read_at) = (true, true, Some(now.after(RETRY)));
                    return;
                }
                if self.record.as_ref().map(|r| r.version) != record.as_ref().map(|r| r.version) {
                    self.record_since = now;
                    if let Some(new) = &record {
                        tell(self.ctx.me(), &new.value);
                    }
                }
                (self.record, self.unreadable) = (record, false);
            }
            // The record that was read before stays valid while the lease does: whatever takes this node's part from it
            // ends that.
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    tracing::warn!(
                        %error,
                        "the primary's record cannot be read: this node keeps its part, and changes nothing"
                    );
                }
            }
        }
        let before = std::mem::take(&mut self.leases);
        let heard = |(name, (version, revision, lease)): (NodeName, Read)| {
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
                    // The lease was replaced or deleted: its authority is over.
                    tracing::warn!(%error, "this node's lease as the primary was not renewed");
                    self.authority = None;
                } else {
                    tracing::debug!(%error, "it is unknown whether this node's lease was renewed");
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
                let holder = write.record.holder.as_ref().map_or("no node", NodeName::as_str);
                let what = match write.record.candidate() {
                    Some(to) => format!("The primary role is being handed from {holder} to {to}."),
                    None => format!("The primary is {holder}."),
                };
                self.ctx.tell(Entry::of_cluster(EventKind::Primary, what).with("why", &write.why));
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
            self.announcer.restart();
        }
        self.trouble = outcome.trouble;
        if !outcome.problems.is_empty() {
            self.work_at = Some((self.now().after(RETRY), job.is_some_and(|job| job.is_up())));
        }
        for (name, why) in &outcome.problems {
            if self.problems.get(name) != Some(why) {
                tracing::warn!(service = name, why, up = job.is_some_and(|j| j.is_up()), "a primary service failed");
            }
        }
        self.problems = outcome.problems.into_iter().collect();
    }
}

fn tell(me: &NodeName, record: &Primary) {
    tracing::debug!(%me, ?record, "who is the primary");
}
