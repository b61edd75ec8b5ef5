//! What a fake machine has: its domains, and who is told when one of them comes or goes.

use super::{Observer, OnErased, OnStale, OnTorn, Weather, migrate::Leaving};
use crate::hypervisor::Domain;
use drover_model::{
    Dice, OffReason, Paused, PausedBy, RunState, Transit,
    domain::{Candidate, Mark, Written},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::Instant;
use uuid::Uuid;

pub(super) struct Inner {
    pub(super) domains: BTreeMap<Uuid, FakeDomain>,
    pub(super) weather: Weather,
    pub(super) dice: Dice,
    /// Incremented by each power-off: calls of an earlier life have no effect.
    pub(super) life: u64,
    /// Number of changing calls on each domain that have not ended, those of daemons that are gone included.
    pub(super) calls: BTreeMap<Uuid, u32>,
    pub(super) observer: Option<Observer>,
    /// Domains that are not Drover's.
    pub(super) foreign: BTreeMap<Uuid, Candidate>,
    /// The domains of which something is kept outside their definitions.
    pub(super) kept: BTreeSet<Uuid>,
    pub(super) on_erased: Option<OnErased>,
    pub(super) on_torn: Option<OnTorn>,
    pub(super) on_stale: Option<OnStale>,
    /// Guests of which a daemon has destroyed one half while the other may have needed it. (Others end guests too.)
    pub(super) halved: BTreeSet<Uuid>,
}

#[derive(Debug, Clone)]
pub(super) struct FakeDomain {
    pub(super) name: String,
    pub(super) mark: Mark,
    pub(super) run: RunState,
    pub(super) off: Option<OffReason>,
    /// When it went off.
    pub(super) ended: Option<Instant>,
    /// Why it does not execute, if it is paused.
    pub(super) paused: Option<Paused>,
    /// It hangs: nobody who asks it gets an answer.
    pub(super) hung: bool,
    /// Its migration, while it is being sent.
    pub(super) sending: Option<Leaving>,
    /// It has no definition: it is still arriving, or that was removed. Nothing is left of it when it ends.
    pub(super) transient: bool,
    pub(super) transit: Option<Transit>,
    /// The observer was told that it came into memory. (A migration hides it from the time at which it is paused.)
    pub(super) observed: bool,
    /// Of a copy that came by migration: whether the guest has gone on where it came from.
    pub(super) outdated: Arc<AtomicBool>,
    /// The same of the copy that it has left elsewhere.
    pub(super) copy: Option<Arc<AtomicBool>>,
    /// The disks that it was started with, and those that it has. As in libvirt, its definition follows the latter.
    pub(super) started_with: Written,
    pub(super) disks: Written,
}

impl FakeDomain {
    /// A definition.
    pub(super) fn off(name: String, mark: Mark, started_with: Written, disks: Written) -> FakeDomain {
        let (run, off, ended, paused, sending, transit) = (RunState::Off, None, None, None, None, None);
        let (hung, transient, observed) = (false, false, false);
        let (outdated, copy) = (Arc::default(), None);
        FakeDomain {
            name,
            mark,
            run,
            off,
            ended,
            paused,
            hung,
            sending,
            transient,
            transit,
            observed,
            outdated,
            copy,
            started_with,
            disks,
        }
    }

    pub(super) fn seen(&self, uuid: Uuid) -> Domain {
        let FakeDomain { name, mark, run, off, sending, transit, transient, started_with, disks, .. } = self.clone();
        let by = match transit {
            Some(Transit::Broken) => PausedBy::PostCopyFailed.into(),
            Some(_) => PausedBy::Migrating.into(),
            None => self.paused.clone().unwrap_or_default(),
        };
        let paused = (run == RunState::Paused).then_some(by);
        let (vnc, sending) = (None, sending.is_some());
        Domain { uuid, name, run, off, paused, mark, vnc, sending, transit, transient, started_with, disks }
    }

    /// Whether it has a part of a guest's memory, of which the rest is on another machine.
    pub(super) fn is_half(&self) -> bool {
        self.run == RunState::Paused && matches!(self.transit, Some(Transit::Split | Transit::Broken))
    }

    /// libvirt's state of a guest that it was asked to leave paused at its arrival is as if somebody had paused it.
    pub(super) fn set_paused(&mut self, paused: Option<Paused>) {
        self.run = if paused.is_some() { RunState::Paused } else { RunState::Running };
        self.paused = paused;
    }
}

impl Inner {
    /// The domain of that guest, if it is in memory.
    pub(super) fn guest(&mut self, uuid: Uuid, mark: Mark) -> std::result::Result<&mut FakeDomain, String> {
        let domain = self.domains.get_mut(&uuid).filter(|d| d.run != RunState::Off).ok_or("domain is not running")?;
        if domain.mark == mark { Ok(domain) } else { Err("it is another guest by now".to_owned()) }
    }

    pub(super) fn notify(&mut self, uuid: Uuid, mark: Mark, started: bool) {
        if let Some(domain) = self.domains.get_mut(&uuid) {
            domain.observed = started;
            if let Some(copy) = domain.copy.take_if(|_| started) {
                copy.store(true, Ordering::Relaxed);
            }
            let outdated = started && domain.outdated.load(Ordering::Relaxed);
            if let Some(observer) = self.on_stale.as_ref().filter(|_| outdated) {
                observer(uuid, mark);
            }
        }
        if let Some(observer) = &self.observer {
            observer(uuid, mark, started);
        }
    }

    pub(super) fn switch_off(&mut self, uuid: Uuid, reason: OffReason) {
        let Some(domain) = self.domains.get_mut(&uuid).filter(|d| d.run != RunState::Off) else { return };
        // Only an executing guest powers itself off. QEMU's event of any other says that the host ended it.
        let executes = matches!(domain.run, RunState::Running | RunState::ShuttingDown);
        let reason = if reason == OffReason::Shutdown && !executes { OffReason::Ended } else { reason };
        (domain.run, domain.off, domain.sending, domain.hung) = (RunState::Off, Some(reason), None, false);
        domain.ended = Some(Instant::now());
        (domain.paused, domain.transit) = (None, None);
        let (mark, transient, observed) = (domain.mark, domain.transient, domain.observed);
        if transient {
            self.domains.remove(&uuid);
        }
        if observed {
            self.notify(uuid, mark, false);
        }
    }
}
