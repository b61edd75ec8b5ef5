//! What an order changes, and on which versions. How many are given is told by `tests/scripts/limits.txt`.

use super::*;
use drover_model::{Bytes, MoveLimits, Selector, Version, placed::Scored};

/// Orders, in their order: `vm1 a to b: Migrate`, `vm2 start on a`.
fn ordered(orders: &[Order]) -> String {
    let one = |order: &Order| {
        let record = &order.record;
        let (name, node) = (&record.name, record.node.as_ref().unwrap());
        match &record.state {
            VmState::Migrate { to, kind, .. } => format!("{name} {node} to {to}: {kind:?}"),
            state => format!("{name} {state} on {node}"),
        }
    };
    orders.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn limits(per_source: u32, per_target: u32, cluster: u32) -> MoveLimits {
    MoveLimits { per_source, per_target, cluster }
}

fn flush_a(limits: MoveLimits, vms: Vec<VmView>) -> Vec<Order> {
    let nodes = vec![node("a", 64).in_state(NodeState::Flush), node("b", 32), node("c", 32), node("d", 32)];
    let mut view = cluster(nodes, vms);
    view.config.limits = limits;
    evacuate(&view, &name("a")).orders(&view, &name("a"), MoveKind::Migrate, WallTime(9))
}

#[test]
fn an_order_names_the_version_that_it_was_made_on_and_changes_nothing_else() {
    let vm1 = running(1, "a", 64).priority(3).away_from("d").version(41);
    let [order] = &flush_a(MoveLimits::default(), vec![vm1.clone()])[..] else { panic!("one order") };
    let old = &vm1.record.value;
    let state = VmState::Migrate { to: name("b"), kind: MoveKind::Migrate, how: How::LiveElseCold };
    assert_eq!((order.uuid, order.version, order.claim), (old.uuid, Version(41), None));
    let reasons = Reasons {
        selector: Some(Selector::Mem),
        score: Some(32_768 - 512 - 64 - 96),
        left: Some(Bytes::mib(32_768 - 512 - 64 - 96)),
        others: ["c", "d"].map(|other| Scored { node: name(other), score: 32_768 - 512 - 64 - 96 }).into(),
        ..Reasons::default()
    };
    let how = Some(How::LiveElseCold);
    let going = Some(Box::new(Placed { by: PlacedBy::Flush, at: WallTime(9), to: name("b"), how, reasons }));
    assert_eq!(order.record, VmRecord { state, going, ..old.clone() });
}

#[test]
fn an_order_says_why_that_node_or_why_it_cannot_move() {
    let limited = running(2, "a", 64).limited(&["a"]);
    let small = node("c", 32).in_state(NodeState::Flushed);
    let nodes = vec![node("a", 64).in_state(NodeState::Flush), node("b", 32), small];
    let view = cluster(nodes, vec![running(1, "a", 64), limited]);
    let plan = evacuate(&view, &name("a"));
    let why = plan.orders(&view, &name("a"), MoveKind::Migrate, WallTime(9)).into_iter().map(|order| order.why);
    let score = 32_768 - 512 - 64 - 96;
    let chosen = format!("score {score} by mem, the highest; not c (it is in state flushed)");
    let [(_, _, _), (_, _, Fate::ShutDown(rejected))] = &plan.fates[..] else { panic!("{plan:?}") };
    assert_eq!(why.collect::<Vec<_>>(), [chosen, rejected.clone()]);
    // By what a VM has kept of an earlier move, nothing is said of one that is not moved now.
    let mut moved = vm(1, 64).on("a");
    moved.record.value.meta.autostart = true;
    let (by, at, to) = (PlacedBy::Flush, WallTime(1), name("b"));
    moved.record.value.going = Some(Box::new(Placed { by, at, to, how: None, reasons: Reasons::default() }));
    let view = cluster(vec![node("a", 64).in_state(NodeState::Unflush)], vec![moved]);
    let orders = bring_home(&view, &name("a")).orders(&view, &name("a"), MoveKind::Unmigrate, WallTime(9));
    assert_eq!(orders.iter().map(|order| &*order.why).collect::<Vec<_>>(), [""]);
}

#[test]
fn a_vm_that_waits_to_start_asks_its_target_too_but_its_home_takes_it_at_once_while_nobody_does() {
    let claimed = |vm: VmView| {
        vm.but(|v| {
            v.record.version = Version(41);
            if let Some(claim) = &mut v.claim {
                claim.version = Version(17);
            }
        })
    };
    let orders = flush_a(MoveLimits::default(), vec![claimed(waiting(1, "a", 64))]);
    assert_eq!(
        (ordered(&orders).as_str(), orders[0].version, orders[0].claim),
        ("vm1 a to b: Migrate", Version(41), None)
    );

    let home = |held: Option<&str>| {
        let waits =
            claimed(waiting(1, "b", 64).away_from("a").but(|v| v.claim.as_mut().unwrap().node = held.map(name)));
        let nodes = vec![node("a", 64).in_state(NodeState::Unflush), node("b", 8), node("c", 8)];
        let view = cluster(nodes, vec![waits]);
        bring_home(&view, &name("a")).orders(&view, &name("a"), MoveKind::Unmigrate, WallTime(9))
    };
    let orders = home(None);
    assert_eq!(
        (ordered(&orders).as_str(), orders[0].version, orders[0].claim),
        ("vm1 start on a", Version(41), Some(Version(17)))
    );
    assert_eq!(orders[0].record.last_node, None);
    assert_eq!(ordered(&home(Some("b"))), "vm1 b to a: Unmigrate");
    assert_eq!(ordered(&home(Some("c"))), "vm1 b to a: Unmigrate", "it is held elsewhere still");
}

#[test]
fn what_is_shut_down_is_marked_to_start_again_and_what_starts_is_not_marked_any_more() {
    let huge = running(1, "a", 60_000).version(41);
    let [order] = &flush_a(limits(0, 0, 0), vec![huge.clone()])[..] else { panic!("one order") };
    let mut wanted = huge.record.value.clone();
    wanted.state = VmState::Shutdown { timeout_s: 180, then: AtRest::Stop };
    wanted.meta.autostart = true;
    assert_eq!((order.version, &order.record), (Version(41), &wanted));

    let view = cluster(
        vec![node("a", 64).in_state(NodeState::Unflush)],
        vec![vm(1, 64).on("a").but(|v| v.record.value = VmRecord { state: VmState::Stop, ..wanted })],
    );
    let orders = bring_home(&view, &name("a")).orders(&view, &name("a"), MoveKind::Unmigrate, WallTime(9));
    assert_eq!(ordered(&orders), "vm1 start on a");
    assert!(!orders[0].record.meta.autostart);
}

#[test]
fn nothing_is_ordered_for_what_is_under_way_or_blocked() {
    let live_only = running(3, "a", 64).method(MigrationMethod::Live);
    let vms = vec![moving(1, "a", "b", 64), vm(2, 64).on("a").held_by("a"), live_only.failed("b", 3)];
    assert_eq!(ordered(&flush_a(limits(9, 9, 9), vms)), "");
}

#[test]
fn a_home_is_kept_by_a_vm_that_leaves_another_node_and_found_again_when_it_goes_there() {
    let arrived = |home: &str| {
        let orders = flush_a(MoveLimits::default(), vec![running(1, "a", 64).away_from(home)]);
        let VmState::Migrate { to, kind, .. } = &orders[0].record.state else { panic!("{:?}", orders[0]) };
        let there = orders[0].record.arrived(to, *kind);
        (there.node.unwrap().to_string(), there.last_node.map(|home| home.to_string()))
    };
    assert_eq!(arrived("d"), ("b".to_owned(), Some("d".to_owned())));
    assert_eq!(arrived("b"), ("b".to_owned(), None));
}
