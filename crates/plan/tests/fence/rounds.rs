//! What becomes of a state if nothing goes wrong from there on.

use crate::{
    host::Daemon,
    world::{Action, HOSTS, State, VMS, World},
};
use drover_model::FencePhase;
use drover_plan::{fence, recover};
use std::{
    cell::RefCell,
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Number of rounds after which the cluster must have recovered.
const ROUNDS: usize = 40;

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// No machine, link or daemon; and an administrator confirms what no BMC says.
    Nothing,
    /// All of them.
    All,
}

thread_local! {
    /// States from which it is known to recover.
    static KNOWN: RefCell<HashSet<u64>> = RefCell::default();
}

impl State {
    /// Whether all is well after some rounds in which everybody does all that it can.
    pub(crate) fn recovers(&self, world: &World, mode: Mode) -> bool {
        let mut state = self.clone();
        let mut seen = vec![];
        for _ in 0..ROUNDS {
            let mut hasher = DefaultHasher::new();
            (world, mode, &state).hash(&mut hasher);
            let key = hasher.finish();
            let known = KNOWN.with_borrow(|known| known.contains(&key));
            seen.push(key);
            if known || state.is_well(world, mode) {
                KNOWN.with_borrow_mut(|known| known.extend(seen));
                return true;
            }
            state.round(world, mode);
        }
        false
    }

    fn round(&mut self, world: &World, mode: Mode) {
        use Action::*;
        let comes_back = |action: &Action| matches!(action, Boot(_) | Plug(_) | Start(_));
        // Each does what it can, some steps long.
        for _ in 0..6 {
            let mut actions = vec![];
            self.quiet_actions(world, &mut actions);
            actions.retain(|action| *action != Tick && (mode == Mode::All || !comes_back(action)));
            // An order comes first, then whoever has asked reads again.
            for action in actions {
                if self.is_possible(world, action) {
                    self.act(world, action);
                }
            }
            if mode == Mode::Nothing {
                self.be_told(world);
            }
        }
        self.act(world, Tick);
    }

    /// Whether it still is, after what came before it in this round.
    fn is_possible(&self, world: &World, action: Action) -> bool {
        let mut actions = vec![];
        self.quiet_actions(world, &mut actions);
        actions.contains(&action)
    }

    /// An administrator confirms what the BMC cannot say.
    fn be_told(&mut self, world: &World) {
        for n in 0..HOSTS {
            if self.hosts[n].mute && self.phase(n) == Some(FencePhase::Unproved) {
                self.say(n);
                self.act(world, Action::Note);
                self.act(world, Action::Confirm);
            }
        }
    }

    fn is_well(&self, world: &World, mode: Mode) -> bool {
        let fences = (0..HOSTS).all(|n| match (self.phase(n), mode) {
            (None, _) => self.store.nodes[n].session.is_some_and(|session| session.member),
            (Some(FencePhase::Recovering | FencePhase::Recovered), Mode::Nothing) => true,
            (Some(FencePhase::Unproved), Mode::Nothing) => self.hosts[n].answers(),
            _ => false,
        });
        fences && self.is_idle() && (0..world.vms.min(VMS)).all(|v| self.is_settled(world, v))
    }

    fn is_idle(&self) -> bool {
        self.hosts.iter().all(|host| host.orders == [false; 3] && host.creating == [None; VMS])
    }

    /// Whether a VM runs where its claim says, or is known to wait.
    fn is_settled(&self, world: &World, v: usize) -> bool {
        let claim = self.store.vms[v].claim.is;
        let runs = claim.node.is_some_and(|n| {
            let host = &self.hosts[usize::from(n)];
            host.daemon == Daemon::Member && host.domains[v] == crate::host::Domain::Runs(claim.epoch)
        });
        let at = claim.node.unwrap_or(self.store.vms[v].rec.is.node);
        let unproved = self.phase(usize::from(at)) == Some(FencePhase::Unproved);
        runs || unproved || self.waits(world, v)
    }

    fn waits(&self, world: &World, v: usize) -> bool {
        let view = self.store.view(world);
        let plan = recover::plan(&view, &fence::recovering(&view), true);
        plan.items.iter().any(|item| item.uuid.as_u128() == v as u128 + 1 && item.fate.why_waiting().is_some())
    }
}
