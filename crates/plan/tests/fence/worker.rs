//! A coordinator that works on fences: what its daemon knows, and what it is doing. Its decisions are `plan::fence`'s
//! and `plan::recover`'s; the order of what it does is that of `agent::fence`.

use crate::{
    store::{ClaimRec, FenceIs, FenceRec, NAMES, Of, Order, Store, VmRec, Write, boot_id, evidence, index},
    world::{Flaw, HOSTS, TICK, World},
};
use drover_model::{ClusterView, Epoch, EvidenceKind, Fence, FencePhase, Mono, PowerState, Version, WallTime};
use drover_plan::{
    fence::{
        self, Step,
        proof::{Attempts, Found, Presence, Reading, Tries},
    },
    liveness::{self, Lives},
    recover,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// The moment that every decision is made at; ages are counted back from it.
const NOW: Mono = Mono(1_000_000);

fn ago(ticks: u8) -> Mono {
    Mono(NOW.0 - u64::from(ticks) * TICK.as_millis() as u64)
}

/// What a BMC read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Read {
    On,
    Off,
    Nothing,
}

/// How far an attempt to find proof is. Times are counted in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The order to cut the power is written since then; `silent`: the machine was asked again, and did not answer.
    Announced { age: u8, silent: bool },
    /// The BMC and the machine are being asked.
    Look { reading: Option<Read>, answers: Option<bool>, ordered: bool },
    /// It has ended.
    Ended { reading: Read, answers: bool, ordered: bool, age: u8 },
}

/// An attempt about a boot of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Try {
    pub(crate) boot: u8,
    pub(crate) stage: Stage,
}

const ASKED: Stage = Stage::Look { reading: None, answers: None, ordered: false };

/// What a coordinator's daemon sees of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sight {
    pub(crate) store: Store,
    /// The machine did not answer, last.
    pub(crate) unheard: [bool; HOSTS],
}

/// A coordinator's process. One that does not think that it is the primary has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Worker {
    pub(crate) sight: Option<Sight>,
    pub(crate) tries: [Option<Try>; HOSTS],
    pub(crate) write: Option<Write>,
}

/// What a pass decides: what it writes, one after the other, and about whom it asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pass {
    pub(crate) writes: Vec<Write>,
    pub(crate) ask: [bool; HOSTS],
}

type Key = (World, Sight, [Option<Try>; HOSTS]);

thread_local! {
    /// The same input gives the same decision, and building the real records takes most of the time.
    static PASSES: RefCell<HashMap<Key, Pass>> = RefCell::default();
}

impl Worker {
    /// It reads everything. `leads`: it has the role, as it reads.
    pub(crate) fn read(&mut self, sight: Sight, leads: bool) {
        let before = self.sight.map(|sight| sight.store.primary);
        if !leads || before.is_some_and(|before| before != sight.store.primary) {
            // What is under way stays so; what was found out is forgotten.
            *self = Worker { write: self.write, ..Worker::default() };
        }
        if !leads {
            return;
        }
        self.sight = Some(sight);
        for (n, attempt) in self.tries.iter_mut().enumerate() {
            let node = &sight.store.nodes[n];
            let silent = node.session.is_none() || sight.unheard[n];
            *attempt = attempt.filter(|attempt| silent && node.rec.is.boot == attempt.boot);
        }
    }

    pub(crate) fn pass(&self, world: &World) -> Pass {
        let Some(sight) = self.sight else { return Pass::default() };
        let key = (*world, sight, self.tries);
        if let Some(pass) = PASSES.with_borrow(|passes| passes.get(&key).cloned()) {
            return pass;
        }
        let pass = decide(world, &sight, &self.tries);
        PASSES.with_borrow_mut(|passes| passes.insert(key, pass.clone()));
        pass
    }

    /// It begins to ask about those about whom it has to.
    fn ask(&mut self, world: &World) {
        let Some(sight) = self.sight else { return };
        for (n, _) in self.pass(world).ask.into_iter().enumerate().filter(|(_, ask)| *ask) {
            self.tries[n] = Some(Try { boot: sight.store.nodes[n].rec.is.boot, stage: ASKED });
        }
    }

    /// The store answers. `taken`: what it wrote was carried out.
    pub(crate) fn answered(&mut self, write: &Write, taken: bool) {
        let (n, Some(sight)) = (usize::from(write.node), self.sight) else { return };
        if taken && write.announces {
            let boot = sight.store.nodes[n].rec.is.boot;
            self.tries[n] = Some(Try { boot, stage: Stage::Announced { age: 0, silent: false } });
        }
    }

    /// The machine of a node answers now, or does not. Returns whether it orders to cut its power.
    pub(crate) fn probe(&mut self, world: &World, n: usize, now: bool) -> bool {
        let Some(sight) = self.sight else { return false };
        let Some(attempt) = &mut self.tries[n] else { return false };
        match &mut attempt.stage {
            Stage::Announced { silent, .. } if !*silent && !now => *silent = true,
            Stage::Announced { age, silent } => {
                let node = &sight.store.nodes[n];
                let late = *age > 0 && world.flaw != Flaw::LateOrders;
                let holds = *silent && !late && node.session.is_none() && node.rec.is.boot == attempt.boot;
                attempt.stage = Stage::Look { reading: None, answers: None, ordered: holds };
                return holds;
            }
            Stage::Look { answers, .. } => *answers = Some(now),
            Stage::Ended { .. } => {}
        }
        attempt.end(world);
        false
    }

    pub(crate) fn hears(&mut self, world: &World, n: usize, said: Read) {
        let Some(attempt) = &mut self.tries[n] else { return };
        if let Stage::Look { reading, .. } = &mut attempt.stage {
            *reading = Some(said);
        }
        attempt.end(world);
    }

    /// It does what takes no time: it begins to ask, and forgets what decides nothing more.
    pub(crate) fn settle(&mut self, world: &World) {
        self.ask(world);
        let Some(sight) = self.sight else { return };
        for (attempt, node) in self.tries.iter_mut().zip(&sight.store.nodes) {
            let proved = node.fence.is_some_and(|f| f.is.phase.is_proved() && f.is.boot == node.rec.is.boot);
            *attempt = attempt.filter(|attempt| !(proved && matches!(attempt.stage, Stage::Ended { .. })));
        }
        if self.tries == [None; HOSTS] && self.pass(world).writes.is_empty() {
            self.sight = None;
        }
    }

    pub(crate) fn tick(&mut self) {
        for attempt in self.tries.iter_mut().flatten() {
            match &mut attempt.stage {
                // It is either new or not.
                Stage::Ended { age, .. } | Stage::Announced { age, .. } => *age = 1,
                Stage::Look { .. } => {}
            }
        }
    }
}

impl Try {
    fn end(&mut self, world: &World) {
        let Stage::Look { reading: Some(reading), answers: Some(answers), ordered } = self.stage else { return };
        let trusted = world.flaw == Flaw::OrderIsProof && ordered;
        let reading = if trusted { Read::Off } else { reading };
        self.stage = Stage::Ended { reading, answers, ordered, age: 0 };
    }

    fn full(self) -> Attempts {
        let attempts = Attempts { boot: boot_id(self.boot), last: None, failed: 0 };
        let Stage::Ended { reading, answers, ordered, age } = self.stage else { return attempts };
        let reading = match reading {
            Read::On => Reading::Power("B".to_owned(), PowerState::On),
            Read::Off => Reading::Power("B".to_owned(), PowerState::Off),
            Read::Nothing => Reading::None("?".to_owned()),
        };
        let presence = match answers {
            true => Presence::Answers("m".to_owned(), String::new()),
            false => Presence::Silent("m".to_owned()),
        };
        let found = Found { reading, presence, order: ordered.then_some(Ok(())) };
        attempts.ended(ago(age), found)
    }
}

/// One pass of `agent::fence`.
fn decide(world: &World, sight: &Sight, tries: &[Option<Try>; HOSTS]) -> Pass {
    let view = sight.store.view(world);
    let (mut lives, _) = liveness::observe(&Lives::new(), &view, Mono(0), WallTime(0));
    // Everybody is as it is for long: the governor has nothing to do.
    lives.values_mut().for_each(|life| life.since = Mono(0));
    let unheard: BTreeSet<_> = (0..HOSTS).filter(|n| sight.unheard[*n]).map(|n| NAMES[n].clone()).collect();
    let plan = recover::plan(&view, &fence::recovering(&view), true);
    let tries: Tries = tries
        .iter()
        .enumerate()
        .filter_map(|(n, t)| Some((NAMES[n].clone(), (*t)?.full())))
        .collect::<BTreeMap<_, _>>();
    let outlook = fence::next(&view, (&lives, &unheard), &plan, &tries, NOW, WallTime(0));
    assert_eq!(outlook.held, None);
    let mut pass = Pass::default();
    for node in &outlook.ask {
        let n = index(node);
        let stuck = sight.store.nodes[n].fence.is_some_and(|f| match world.flaw {
            Flaw::AskedOnce => f.is.phase == FencePhase::Unproved,
            Flaw::Abandons => f.is.phase == FencePhase::Proving && tries.is_empty(),
            _ => false,
        });
        pass.ask[n] = !stuck;
    }
    let steps =
        outlook.steps.iter().filter_map(|(node, step)| fence_write(world, &view, &sight.store, index(node), step));
    pass.writes.extend(steps);
    pass.writes.extend(plan.orders(&view, WallTime(0)).iter().map(|order| order_write(&sight.store, order)));
    pass
}

/// The conditions of every write about a silent node.
fn conditions(store: &Store, n: usize) -> Write {
    Write {
        node: n as u8,
        announces: false,
        primary: Some(store.primary),
        no_session: true,
        rec: Some(store.nodes[n].rec.v),
        fence: FenceIs::Any,
        set_fence: None,
        flush: false,
        order: None,
    }
}

/// A step of a fence as the agent writes it (`agent::fence::write`). `None`: it says what is known.
fn fence_write(world: &World, view: &ClusterView, store: &Store, n: usize, step: &Step) -> Option<Write> {
    let old = store.nodes[n].fence;
    let base = Write { fence: old.map_or(FenceIs::Missing, |f| FenceIs::At(f.v)), ..conditions(store, n) };
    let to = |phase| old.map(|f| FenceRec::of(&f.is.full().to(phase, WallTime(0))));
    let proved = |kind| old.map(|f| FenceRec::of(&f.is.full().proved(evidence(kind))));
    let set = |fence: Option<FenceRec>| Some(fence);
    Some(match step {
        Step::Suspect => {
            let record = &view.nodes.get(&NAMES[n]).unwrap().record.value;
            let new = Fence::suspicion(record, &NAMES[n], Epoch(1), WallTime(0));
            Write { set_fence: set(Some(FenceRec::of(&new))), ..base }
        }
        Step::Withdraw => Write { no_session: false, rec: None, set_fence: Some(None), ..base },
        Step::End => Write { no_session: false, rec: None, set_fence: set(to(FencePhase::Over)), ..base },
        Step::Proving => Write { set_fence: set(to(FencePhase::Proving)), ..base },
        Step::Cut => {
            let ordered = world.flaw != Flaw::UnwrittenCuts;
            let new = to(FencePhase::Proving).map(|f| FenceRec { ordered: f.ordered || ordered, ..f });
            Write { announces: true, set_fence: set(new), ..base }
        }
        Step::Unproved(_) if old.is_some_and(|f| f.is.phase == FencePhase::Unproved) => return None,
        Step::Unproved(_) => Write { set_fence: set(to(FencePhase::Unproved)), ..base },
        Step::Proved(_) => Write { set_fence: set(proved(EvidenceKind::Power)), ..base },
        Step::Recover => Write { flush: true, set_fence: set(to(FencePhase::Recovering)), ..base },
        Step::Recovered => Write { set_fence: set(to(FencePhase::Recovered)), ..base },
        Step::RanOut(..) | Step::PowerOn => panic!("{step:?} is no part of this"),
    })
}

/// A VM that is given away, as the agent writes it (`agent::fence::try_order`).
fn order_write(store: &Store, order: &recover::Order) -> Write {
    let n = index(&order.node);
    let number = |version: Version| u8::try_from(version.0).unwrap();
    let granted = order.granted.as_ref().map(ClaimRec::of);
    let rec = Of { v: number(order.version), is: VmRec::of(&order.record) };
    let vm = u8::try_from(order.uuid.as_u128()).unwrap() - 1;
    let fence = store.nodes[n].fence.map_or(FenceIs::Missing, |f| FenceIs::At(f.v));
    let order = Order { vm, rec, claim: number(order.claim), granted };
    Write { fence, order: Some(order), ..conditions(store, n) }
}
