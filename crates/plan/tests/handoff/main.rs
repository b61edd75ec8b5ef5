//! The protocol of the primary role, checked by exhaustive search: every order of steps, losses, delays, stalls and
//! crashes of two or three coordinators, each of which decides with the very function that the daemons use.
//!
//! The world around them ([`world`]) is a model: the store with its compare-and-set, leases and a clock that ticks,
//! kernels in which addresses have lifetimes, requests and answers that are under way, get lost, or arrive after their
//! sender gave up. Time is counted in ticks; a lease lasts three. A process may stop between any two of its steps for
//! any number of ticks.
//!
//! What must hold in every state:
//!
//! 1. *suspects cover*: whoever has an address up is in the record's set of suspects.
//! 2. *one owner*: two nodes have the addresses up only if the record says that one is handing them to the other, in a
//!    phase where that is so.
//! 3. *one of the exclusive services*: at most one node has them up.
//! 4. *recovers*: if nothing goes wrong from here on, and the crashed nodes never come back, then in bounded time one
//!    node has the role and the addresses, nobody else has, and no handoff is left.
//!
//! And each planted defect ([`Flaw`]) must be found: a search that finds nothing anywhere proves nothing.

#![allow(clippy::unwrap_used, reason = "a search ends by panicking when its own words are wrong")]

mod node;
mod world;

use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model, Property};
use std::time::Instant;
use world::{Action, Flaw, State, World};

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::steady(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(self, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.act(self, action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<World>> {
        vec![
            Property::always("suspects cover", |_, s: &State| s.suspects_cover()),
            Property::always("one owner", |_, s: &State| s.one_owner()),
            Property::always("one of the exclusive services", |_, s: &State| s.one_exclusive()),
            Property::always("recovers", |w: &World, s: &State| s.recovers(w)),
            // The search reaches what it is about.
            Property::sometimes("the role is handed over", |_, s: &State| s.handed_over()),
            Property::sometimes("the role is claimed", |w: &World, s: &State| s.claimed(w)),
            Property::sometimes("a handoff is taken back", |_, s: &State| s.taken_back()),
        ]
    }
}

/// Result of a search: violated properties, and reached situations.
#[derive(Default)]
struct Found {
    broken: Vec<&'static str>,
    reached: Vec<&'static str>,
}

/// Searches the whole state space, or until `enough` is found.
fn search(world: World, enough: HasDiscoveries) -> Found {
    let began = Instant::now();
    let checker = world.checker().threads(2).finish_when(enough).spawn_dfs().join();
    let (all, distinct) = (checker.state_count(), checker.unique_state_count());
    println!("{world:?}: {all} states, {distinct} of them distinct, in {:.0?}", began.elapsed());
    let mut found = Found::default();
    for (property, path) in checker.discoveries() {
        if matches!(checker.discovery_classification(property), DiscoveryClassification::Counterexample) {
            let steps: Vec<String> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
            println!("  {property}: no, after {}", steps.join(", "));
            found.broken.push(property);
        } else {
            found.reached.push(property);
        }
    }
    found
}

/// Searches the whole state space; all properties must hold, and the situation that the search is about must be
/// reached.
fn holds(world: World, about: &'static str) {
    let found = search(world, HasDiscoveries::AnyFailures);
    assert_eq!(found.broken, Vec::<&str>::new());
    assert!(found.reached.contains(&about), "{about}: that was never reached");
}

/// Nothing but delays and stalls.
const TWO: World = World { nodes: 2, crashes: 0, losses: 0, requests: 0, flaw: Flaw::None };

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; run it with --release")]
fn the_role_stays_or_is_claimed() {
    holds(World { crashes: 1, losses: 1, ..TWO }, "the role is claimed");
    holds(World { crashes: 2, ..TWO }, "the role is claimed");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; run it with --release")]
fn the_role_is_handed_over() {
    holds(World { requests: 1, ..TWO }, "the role is handed over");
}

/// About ten minutes each on two processors.
#[test]
#[ignore = "large"]
fn the_role_is_handed_over_and_a_coordinator_crashes_or_a_message_is_lost() {
    holds(World { requests: 1, crashes: 1, ..TWO }, "the role is handed over");
    holds(World { requests: 1, losses: 1, ..TWO }, "the role is handed over");
}

#[test]
#[ignore = "large"]
fn three_coordinators() {
    holds(World { nodes: 3, crashes: 1, ..TWO }, "the role is claimed");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; run it with --release")]
fn each_planted_defect_is_found() {
    for (flaw, breaks) in [
        (Flaw::LeaseOutlivesClaim, "suspects cover"),
        (Flaw::NoLifetime, "suspects cover"),
        (Flaw::BlindWrites, "suspects cover"),
        (Flaw::DownUnconfirmed, "one owner"),
        (Flaw::Impatient, "one of the exclusive services"),
        (Flaw::HandoffIsSacred, "recovers"),
        (Flaw::NoWayBack, "recovers"),
    ] {
        let world = World { flaw, crashes: 1, requests: 1, ..TWO };
        let found = search(world, HasDiscoveries::AnyOf([breaks].into()));
        assert!(found.broken.contains(&breaks), "{flaw:?} should break {breaks:?}, and breaks {:?}", found.broken);
    }
}
