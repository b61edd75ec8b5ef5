//! The protocol of the primary role, checked by exhaustive search: every order of steps, losses, delays, stalls and crashes of two or three
//! coordinators, each of which decides with the very function that the daemons use.
//!
//! The world around them ([`world`]) is a model: the store with its compare-and-set, leases and a clock that ticks, kernels in which addresses
//! have lifetimes, requests and answers that are under way, get lost, or arrive after their sender gave up. Time is counted in ticks; a lease lasts
//! three. A process may stop between any two of its steps for any number of ticks.
//!
//! What must hold in every state:
//!
//! 1. *suspects cover*: whoever has an address up is in the record's set of suspects.
//! 2. *one owner*: two nodes have the addresses up only if the record says that one is handing them to the other, in a phase where that is so.
//! 3. *one of the exclusive services*: at most one node has them up.
//! 4. *recovers*: if nothing goes wrong from here on, and the crashed nodes never come back, then in bounded time one node has the role and the addresses, nobody
//!    else has, and no handoff is left.
//!
//! And each planted defect ([`Flaw`]) must be found: a search that finds nothing anywhere proves nothing.

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
            Property::sometimes("the role is claimed", |_, s: &State| s.claimed()),
            Property::sometimes("a handoff is taken back", |_, s: &State| s.taken_back()),
        ]
    }
}

/// Searches all of it; returns the properties that do not hold. Stops at the first.
fn search(world: World) -> Vec<&'static str> {
    let began = Instant::now();
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let (all, distinct) = (checker.state_count(), checker.unique_state_count());
    println!("{world:?}: {all} states, {distinct} of them distinct, in {:.0?}", began.elapsed());
    let mut broken = Vec::new();
    for (property, path) in checker.discoveries() {
        if matches!(checker.discovery_classification(property), DiscoveryClassification::Counterexample) {
            let steps: Vec<String> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
            println!("  {property}: no, after {}", steps.join(", "));
            broken.push(property);
        }
    }
    broken.sort_unstable();
    broken
}

/// Searches all of it, and demands that everything holds.
fn holds(world: World) {
    assert_eq!(search(world), Vec::<&str>::new());
}

/// Nothing but delays and stalls.
const TWO: World = World { nodes: 2, crashes: 0, losses: 0, requests: 0, flaw: Flaw::None };

#[test]
fn the_role_stays_or_is_claimed() {
    holds(World { crashes: 1, losses: 1, ..TWO });
    holds(World { crashes: 2, ..TWO });
}

#[test]
fn the_role_is_handed_over() {
    holds(World { requests: 1, ..TWO });
}

/// About four minutes, and 3 GiB.
#[test]
#[ignore = "large"]
fn the_role_is_handed_over_and_a_coordinator_crashes_or_a_message_is_lost() {
    holds(World { requests: 1, crashes: 1, ..TWO });
    holds(World { requests: 1, losses: 1, ..TWO });
}

#[test]
#[ignore = "large"]
fn three_coordinators() {
    holds(World { nodes: 3, crashes: 1, ..TWO });
}

#[test]
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
        let broken = search(World { flaw, crashes: 1, requests: 1, ..TWO });
        assert!(!broken.is_empty(), "{flaw:?} was not found");
        println!("{flaw:?} breaks {broken:?}, for instance {breaks:?}");
    }
}
