//! A node with VMs: its machine, its daemon, its guests. What its daemon does about a VM is decided by `plan::vm`, and
//! what it does about its own fence by `plan::fence::returned`.

use crate::{
    store::{ClaimRec, FenceRec, MACHINE, NAMES, Store, VmRec, VmRecs, boot_id},
    world::{Flaw, TICK, VMS, World},
};
use drover_model::{
    Epoch, Fence, FencePhase, Generation, Mono, Obs, OffReason, RunState, Stored, Version, VmState, WallTime,
    domain::Mark,
};
use drover_plan::{
    fence::{self, Return, proof::ORDER_IN_FORCE},
    moves::{self, Back, Turn},
    vm::{self, HostState, Memory, Seen, Situation, Step},
};
use std::{cell::RefCell, collections::HashMap};
use uuid::Uuid;

/// A VM's domain in libvirt, with the epoch that it was started under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Domain {
    Absent,
    Off(u8),
    Runs(u8),
}

/// How its daemon ends the node's fence, as it read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// There is nothing to end.
    Keep,
    /// In this version.
    Delete(u8),
    /// By that.
    Replace(u8, FenceRec),
}

/// The fence that makes a node wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Wait {
    pub(crate) version: u8,
    phase: FencePhase,
    /// For how long.
    ticks: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Daemon {
    Down,
    /// It has no session.
    Out,
    /// It has one, and does not act yet. (The real one waits without a session if something is proved, which makes no
    /// difference but to the time until its VMs are recovered.)
    Joins {
        end: Option<(End, u8)>,
        waits: Option<Wait>,
    },
    Member,
}

const JOINS: Daemon = Daemon::Joins { end: None, waits: None };

/// What a daemon read about a VM, and whether its move can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeenVm {
    pub(crate) recs: VmRecs,
    fits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Host {
    pub(crate) power: bool,
    pub(crate) boot: u8,
    /// It is connected to the others.
    pub(crate) linked: bool,
    /// Its BMC has lost its power with it.
    pub(crate) mute: bool,
    pub(crate) daemon: Daemon,
    pub(crate) seen: [Option<SeenVm>; VMS],
    /// Domains that libvirt was asked to start, under these epochs, and has not started yet.
    pub(crate) creating: [Option<u8>; VMS],
    pub(crate) domains: [Domain; VMS],
    /// Orders to its BMC that are under way, by their age in ticks.
    pub(crate) orders: [bool; 3],
}

impl Host {
    pub(crate) fn steady(domains: [Domain; VMS]) -> Host {
        Host {
            power: true,
            boot: 1,
            linked: true,
            mute: false,
            daemon: Daemon::Member,
            seen: [None; VMS],
            creating: [None; VMS],
            domains,
            orders: [false; 3],
        }
    }

    pub(crate) fn answers(&self) -> bool {
        self.power && self.linked
    }

    pub(crate) fn runs(&self, v: usize) -> bool {
        self.power && matches!(self.domains[v], Domain::Runs(_))
    }

    fn leave(&mut self, daemon: Daemon) {
        (self.daemon, self.seen) = (daemon, [None; VMS]);
    }

    pub(crate) fn die(&mut self, mute: bool) {
        self.leave(Daemon::Down);
        (self.power, self.mute, self.creating) = (false, mute, [None; VMS]);
        for domain in &mut self.domains {
            if let Domain::Runs(epoch) = *domain {
                // libvirt keeps the definition.
                *domain = Domain::Off(epoch);
            }
        }
    }

    pub(crate) fn start(&mut self) {
        (self.power, self.linked, self.mute, self.boot) = (true, true, false, self.boot + 1);
        self.leave(Daemon::Out);
    }

    pub(crate) fn crash(&mut self) {
        self.leave(Daemon::Down);
    }

    /// Whether its daemon can talk to the store.
    pub(crate) fn talks(&self) -> bool {
        self.answers() && self.daemon != Daemon::Down
    }

    /// It makes its session, unless there is one that may be another daemon's. One that had a session
    /// notices first that this is over.
    pub(crate) fn enter(&mut self, store: &mut Store, n: usize) {
        self.leave(Daemon::Out);
        let session = &mut store.nodes[n].session;
        if session.is_none_or(|old| old.boot == self.boot) {
            *session = Some(crate::store::Session { boot: self.boot, own: true, member: false });
            self.leave(JOINS);
        }
    }

    /// It reads its fence, and decides how to end it.
    pub(crate) fn look(&mut self, world: &World, store: &Store, n: usize) {
        let Daemon::Joins { waits, .. } = self.daemon else { return };
        let recs = &store.nodes[n];
        let mut wait = None;
        let end = match recs.fence {
            None => Some(End::Keep),
            Some(found) => {
                let fence = Stored::new(found.is.full(), Version(found.v.into()));
                let of = |wait: &Wait| {
                    let old = Fence { phase: wait.phase, ..fence.value.clone() };
                    fence::same_orders(&Stored::new(old, Version(wait.version.into())), &fence)
                };
                let waited = waits.filter(of).map_or(0, |wait| wait.ticks);
                let hasty = match world.flaw {
                    Flaw::HastyReturn => true,
                    Flaw::HastyIfProved => found.is.phase.is_proved(),
                    _ => false,
                };
                let time = if hasty { ORDER_IN_FORCE } else { TICK * u32::from(waited) };
                match fence::returned(&fence, time, WallTime(0)) {
                    Return::Wait => {
                        wait = Some(Wait { version: found.v, phase: found.is.phase, ticks: waited });
                        None
                    }
                    _ if found.is.ordered && world.flaw == Flaw::WaitsForEver => None,
                    Return::Keep => Some(End::Keep),
                    Return::Delete => Some(End::Delete(found.v)),
                    Return::Replace(new) => Some(End::Replace(found.v, FenceRec::of(&new))),
                }
            }
        };
        self.daemon = Daemon::Joins { end: end.map(|end| (end, recs.rec.v)), waits: wait };
    }

    /// It ends its fence, and writes its boot into its record. Then it acts, if the session is still its own.
    pub(crate) fn register(&mut self, store: &mut Store, n: usize) {
        let Daemon::Joins { end: Some((end, record)), .. } = self.daemon else { return };
        let recs = &mut store.nodes[n];
        let other = recs.rec.is.boot != self.boot;
        let same = match end {
            End::Keep => true,
            End::Delete(v) | End::Replace(v, _) => recs.fence.is_some_and(|fence| fence.v == v),
        };
        self.daemon = JOINS;
        if !same || (other && recs.rec.v != record) {
            return;
        }
        match end {
            End::Keep => {}
            End::Delete(_) => recs.fence = None,
            End::Replace(_, new) => recs.fence.as_mut().unwrap().set(new),
        }
        if other {
            recs.rec.set(crate::store::NodeRec { boot: self.boot, ..recs.rec.is });
        }
        match recs.session.as_mut().filter(|session| session.own) {
            Some(session) => (session.member, self.daemon) = (true, Daemon::Member),
            None => self.daemon = Daemon::Out,
        }
    }

    /// It reads a VM's records, and keeps them if something is to be done.
    pub(crate) fn read(&mut self, world: &World, store: &Store, n: usize, v: usize) {
        let recs = store.vms[v];
        let fits = recs.rec.is.to.is_none() || {
            let uuid = Uuid::from_u128(v as u128 + 1);
            !matches!(moves::turn(&store.view(world), &uuid), Turn::Unfit(_))
        };
        self.seen[v] = Some(SeenVm { recs, fits });
        if self.step(store, n, v).is_none() {
            self.seen[v] = None;
        }
    }

    /// What it does next about a VM.
    pub(crate) fn step(&self, store: &Store, n: usize, v: usize) -> Option<Step> {
        let seen = self.seen[v].filter(|_| self.daemon == Daemon::Member && self.creating[v].is_none())?;
        let key = (n, v, seen, self.domains[v]);
        if let Some(step) = STEPS.with_borrow(|steps| steps.get(&key).cloned()) {
            return step;
        }
        let step = self.decide(store, n, v, &seen);
        STEPS.with_borrow_mut(|steps| steps.insert(key, step.clone()));
        step
    }

    fn decide(&self, store: &Store, n: usize, v: usize, seen: &SeenVm) -> Option<Step> {
        let mut of = *store;
        of.vms[v] = seen.recs;
        let record = Stored::new(of.record(v), Version(seen.recs.rec.v.into()));
        let claim = Stored::new(seen.recs.claim.is.full(), Version(seen.recs.claim.v.into()));
        let known = |run, off, epoch: u8| {
            let mark = Mark { epoch: Epoch(epoch.into()), generation: Generation(1) };
            Obs::Known(Seen { run, off, paused: None, mark, sending: false, transit: None, transient: false })
        };
        let domain = match self.domains[v] {
            Domain::Absent => Obs::Absent,
            // It ended with its machine.
            Domain::Off(epoch) => known(RunState::Off, Some(OffReason::Ended), epoch),
            Domain::Runs(epoch) => known(RunState::Running, None, epoch),
        };
        let turn = if seen.fits { Turn::Go } else { Turn::Unfit(String::new()) };
        let decision = vm::next(&Situation {
            me: &NAMES[n],
            machine: MACHINE,
            record: Some(&record),
            claim: Some(&claim),
            domain: &domain,
            memory: &Memory::default(),
            host: &HostState::Ready,
            turn: &turn,
            kept: None,
            elsewhere: None,
            replaced: None,
            back: &Back::Nowhere,
            now: Mono(1_000_000),
        });
        (!matches!(decision.step, Step::Wait | Step::Leave)).then_some(decision.step)
    }

    /// It does that.
    pub(crate) fn act(&mut self, store: &mut Store, n: usize, v: usize, step: &Step) -> bool {
        let Some(seen) = self.seen[v] else { return false };
        let VmRecs { rec, claim } = seen.recs;
        let now = &mut store.vms[v];
        let (same_rec, same_claim) = (now.rec.v == rec.v, now.claim.v == claim.v);
        let mine = |claim: &drover_model::Claim| ClaimRec::of(&claim.on(MACHINE, &boot_id(self.boot)));
        let me = &NAMES[n];
        let full = claim.is.full();
        let before = now.claim.is.epoch;
        self.seen[v] = None;
        match step {
            Step::Start if same_rec && same_claim => {
                let granted = mine(&full.granted_to(me));
                now.claim.set(granted);
                self.creating[v] = Some(granted.epoch);
            }
            Step::TakeOver if same_rec && same_claim => {
                now.claim.set(mine(&full.handed_to(me).settled()));
                now.rec.set(VmRec { node: n as u8, to: None });
            }
            Step::Release if same_claim => now.claim.set(ClaimRec::of(&full.released())),
            Step::HandOver(to) if same_rec && same_claim => {
                let number = crate::store::index(to) as u8;
                let granted = full.handed_to(to).settled();
                now.claim
                    .set(ClaimRec { boot: store.nodes[usize::from(number)].rec.is.boot, ..ClaimRec::of(&granted) });
                now.rec.set(VmRec { node: number, to: None });
            }
            Step::GiveUpMove(_) | Step::Complete(VmState::Start) if same_rec => {
                now.rec.set(VmRec { to: None, ..rec.is })
            }
            Step::Start | Step::TakeOver | Step::Release | Step::HandOver(_) => {}
            Step::GiveUpMove(_) | Step::Complete(VmState::Start) => {}
            Step::Destroy => {
                if let Domain::Runs(epoch) = self.domains[v] {
                    self.domains[v] = Domain::Off(epoch);
                }
            }
            Step::Undefine => self.domains[v] = Domain::Absent,
            Step::Remark => self.domains[v] = Domain::Runs(claim.is.epoch),
            step => panic!("{step:?} is no part of this"),
        }
        store.vms[v].claim.is.epoch < before
    }

    /// libvirt starts what it was asked to.
    pub(crate) fn create(&mut self, v: usize) {
        if let Some(epoch) = self.creating[v].take()
            && !matches!(self.domains[v], Domain::Runs(_))
        {
            self.domains[v] = Domain::Runs(epoch);
        }
    }

    pub(crate) fn tick(&mut self) {
        if let Daemon::Joins { waits: Some(Wait { ticks, .. }), .. } = &mut self.daemon {
            *ticks = (*ticks + 1).min(3);
        }
        self.orders = [false, self.orders[0], self.orders[1]];
    }
}

type Key = (usize, usize, SeenVm, Domain);

thread_local! {
    static STEPS: RefCell<HashMap<Key, Option<Step>>> = RefCell::default();
}
