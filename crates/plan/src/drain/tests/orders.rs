//! What is written of a plan at once: as much as the limits allow.

use super::*;
use drover_model::{Limits, Version};

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

fn limits(per_source: u32, per_target: u32, cluster: u32) -> Limits {
    Limits { per_source, per_target, cluster }
}

fn flush_a(limits: Limits, vms: Vec<VmView>) -> Vec<Order> {
    let nodes = vec![node_in("a", 64, DomainState::Flush), node("b", 32), node("c", 32), node("d", 32)];
    let mut view = cluster(nodes, vms);
    view.config.limits = limits;
    evacuate(&view, &name("a")).orders(&view, &name("a"), MoveKind::Migrate)
}

#[test]
fn no_more_moves_are_ordered_than_the_limits_let_begin() {
    let four = || (1..=4).map(|n| running(n, "a", 1024));
    for (limits, under_way, wanted) in [
        (limits(9, 9, 9), vec![], "vm1 a to b: Migrate; vm2 a to c: Migrate; vm3 a to d: Migrate; vm4 a to b: Migrate"),
        (limits(2, 9, 9), vec![], "vm1 a to b: Migrate; vm2 a to c: Migrate"),
        (limits(9, 9, 1), vec![], "vm1 a to b: Migrate"),
        (limits(9, 1, 9), vec![], "vm1 a to b: Migrate; vm2 a to c: Migrate; vm3 a to d: Migrate"),
        (limits(0, 9, 9), vec![], ""),
        // What is on its way already counts: from here, to there, anywhere.
        (limits(2, 9, 9), vec![moving(9, "a", "d", 16)], "vm1 a to b: Migrate"),
        (limits(2, 9, 9), vec![moving(8, "a", "d", 16), moving(9, "a", "d", 16)], ""),
        (limits(2, 9, 9), vec![moving(9, "c", "d", 16)], "vm1 a to b: Migrate; vm2 a to c: Migrate"),
        (limits(9, 1, 9), vec![moving(9, "c", "b", 16)], "vm1 a to d: Migrate; vm3 a to c: Migrate"),
        (limits(9, 9, 2), vec![moving(9, "c", "d", 16)], "vm1 a to b: Migrate"),
        (limits(9, 9, 1), vec![moving(9, "c", "d", 16)], ""),
    ] {
        let orders = flush_a(limits, four().chain(under_way.clone()).collect());
        assert_eq!(ordered(&orders), wanted, "{limits:?}, {} under way", under_way.len());
    }
}

#[test]
fn an_order_names_the_version_that_it_was_made_on_and_changes_nothing_else() {
    let vm1 = away_from("d", important(running(1, "a", 64), 3)).but(|v| v.record.version = Version(41));
    let [order] = &flush_a(Limits::default(), vec![vm1.clone()])[..] else { panic!("one order") };
    let old = &vm1.record.value;
    let state = VmState::Migrate { to: name("b"), kind: MoveKind::Migrate, how: How::LiveElseCold };
    assert_eq!((order.uuid, order.version, order.claim), (old.uuid, Version(41), None));
    assert_eq!(order.record, VmRecord { state, ..old.clone() });
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
    let orders = flush_a(Limits::default(), vec![claimed(vm(1, VmState::Start, "a", None, 64))]);
    assert_eq!(
        (ordered(&orders).as_str(), orders[0].version, orders[0].claim),
        ("vm1 a to b: Migrate", Version(41), None)
    );

    let home = |held| {
        let waits = claimed(away_from("a", vm(1, VmState::Start, "b", held, 64)));
        let view = cluster(vec![node_in("a", 64, DomainState::Unflush), node("b", 8)], vec![waits]);
        bring_home(&view, &name("a")).orders(&view, &name("a"), MoveKind::Unmigrate)
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
    let huge = running(1, "a", 60_000).but(|v| v.record.version = Version(41));
    let [order] = &flush_a(limits(0, 0, 0), vec![huge.clone()])[..] else { panic!("one order") };
    let mut wanted = huge.record.value.clone();
    wanted.state = VmState::Shutdown { timeout_s: 180, then: AtRest::Stop };
    wanted.meta.autostart = true;
    assert_eq!((order.version, &order.record), (Version(41), &wanted));

    let view = cluster(
        vec![node_in("a", 64, DomainState::Unflush)],
        vec![vm(1, VmState::Stop, "a", None, 64).but(|v| v.record.value = VmRecord { state: VmState::Stop, ..wanted })],
    );
    let orders = bring_home(&view, &name("a")).orders(&view, &name("a"), MoveKind::Unmigrate);
    assert_eq!(ordered(&orders), "vm1 start on a");
    assert!(!orders[0].record.meta.autostart);
}

#[test]
fn nothing_is_ordered_for_what_is_under_way_or_blocked() {
    let live_only = running(3, "a", 64).but(|v| v.record.value.meta.method = MigrationMethod::Live);
    let vms = vec![moving(1, "a", "b", 64), vm(2, VmState::Stop, "a", Some("a"), 64), failed(live_only, "b", 3)];
    assert_eq!(ordered(&flush_a(limits(9, 9, 9), vms)), "");
}

#[test]
fn a_home_is_kept_by_a_vm_that_leaves_another_node_and_found_again_when_it_goes_there() {
    let arrived = |home: &str| {
        let orders = flush_a(Limits::default(), vec![away_from(home, running(1, "a", 64))]);
        let VmState::Migrate { to, kind, .. } = &orders[0].record.state else { panic!("{:?}", orders[0]) };
        let there = orders[0].record.arrived(to, *kind);
        (there.node.unwrap().to_string(), there.last_node.map(|home| home.to_string()))
    };
    assert_eq!(arrived("d"), ("b".to_owned(), Some("d".to_owned())));
    assert_eq!(arrived("b"), ("b".to_owned(), None));
}

#[test]
fn vms_come_home_under_the_limits_of_their_home_and_the_cluster_and_are_started_beside() {
    let home = |n, on: &str| away_from("a", running(n, on, 64));
    let starts = autostart(vm(9, VmState::Stop, "a", None, 64));
    for (limits, wanted) in [
        (limits(9, 9, 9), "vm1 b to a: Unmigrate; vm2 b to a: Unmigrate; vm3 c to a: Unmigrate; vm9 start on a"),
        (limits(9, 2, 9), "vm1 b to a: Unmigrate; vm2 b to a: Unmigrate; vm9 start on a"),
        (limits(9, 9, 1), "vm1 b to a: Unmigrate; vm9 start on a"),
        (limits(9, 0, 9), "vm9 start on a"),
    ] {
        let nodes = vec![node_in("a", 64, DomainState::Unflush), node("b", 8), node("c", 8)];
        let mut view = cluster(nodes, vec![home(1, "b"), home(2, "b"), home(3, "c"), starts.clone()]);
        view.config.limits = limits;
        let orders = bring_home(&view, &name("a")).orders(&view, &name("a"), MoveKind::Unmigrate);
        assert_eq!(ordered(&orders), wanted, "{limits:?}");
    }
}
