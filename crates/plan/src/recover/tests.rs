use super::*;
use drover_model::{AtRest, Epoch, NodeState, NodeView, testing::*};

/// The plan for the node `x`, which is off, in words: each VM, its fate, and its record and claim afterwards.
fn story(others: Vec<NodeView>, vms: Vec<VmView>) -> Vec<String> {
    story_of(others, vms, false, false)
}

fn story_of(others: Vec<NodeView>, vms: Vec<VmView>, for_good: bool, again: bool) -> Vec<String> {
    let mut nodes = vec![node("x", 8).dead()];
    nodes.extend(others);
    let view = cluster(nodes, vms);
    let plan = plan(&view, &BTreeMap::from([(name("x"), for_good)]), again);
    let orders = plan.orders(&view, WallTime(9));
    let told = plan.items.iter().map(|item| {
        let Some(order) = orders.iter().find(|order| order.uuid == item.uuid) else {
            return match &item.fate {
                Fate::UnderWay(to) => format!("{} is being taken by {to}", item.vm),
                Fate::Waits(why) | Fate::NoRoom(why) => format!("{} waits: {why}", item.vm),
                fate => panic!("{fate:?} without an order"),
            };
        };
        let record = &order.record;
        let on = record.node.as_ref().map_or("-", NodeName::as_str);
        let to = record.state.destination().map(|to| format!(" to {to}")).unwrap_or_default();
        let home = record.last_node.as_ref().map(|home| format!(", home {home}")).unwrap_or_default();
        let claim = match &order.granted {
            Some(claim) => format!("{} {}", claim.node.as_ref().map_or("free", NodeName::as_str), claim.epoch),
            None => "as it is".to_owned(),
        };
        format!("{}: {}{to} on {on}{home}; claim {claim}", item.vm, record.state)
    });
    told.collect()
}

#[test]
fn a_node_where_it_could_not_be_started_once_is_better_than_none() {
    let refused = |nodes: &[&str]| {
        let of = |node: &&str| drover_model::StartRefused { node: name(node), why: "no bridge".to_owned() };
        let mut vm = running(1, "x", 64);
        vm.record.value.refused = nodes.iter().map(of).collect();
        vm
    };
    assert_eq!(story(two(), vec![refused(&["b"])]), ["vm1: migrate to a on x; claim free 2"]);
    assert_eq!(story(two(), vec![refused(&["b", "a"])]), ["vm1: migrate to b on x; claim free 2"]);
    let view = cluster(vec![node("x", 8).dead(), node("b", 8)], vec![refused(&["b"])]);
    let plan = plan(&view, &BTreeMap::from([(name("x"), false)]), false);
    assert!(plan.orders(&view, WallTime(9))[0].record.refused.is_empty(), "b is to take it");
}

#[test]
fn an_order_says_why_that_node_or_why_there_was_nothing_to_choose() {
    let nodes = vec![node("x", 8).dead(), node("a", 8), node("b", 9), node("c", 8).in_state(NodeState::Flushed)];
    let mut sent = running(2, "x", 64);
    sent.claim.as_mut().unwrap().value.to = Some(name("a"));
    let stopped = vm(3, 64).on("x").held_by("x");
    let view = cluster(nodes, vec![running(1, "x", 64), sent, stopped]);
    let orders = plan(&view, &BTreeMap::from([(name("x"), false)]), false).orders(&view, WallTime(9));
    let why: Vec<&str> = orders.iter().map(|order| &*order.why).collect();
    let score = 9 * 1024 - 512 - 64 - 96;
    let chosen = format!("score {score} by mem, the highest; not c (it is in state flushed)");
    assert_eq!(why, [&*chosen, "it was on its way there", "its state is stop then"]);
}

#[test]
fn a_vm_whose_domain_was_not_taken_over_yet_waits_for_its_node() {
    let mut vm = running(1, "x", 64);
    let claim = Claim { adopts: Some(Epoch(0)), ..vm.claim.as_ref().unwrap().value.clone() };
    vm.claim = Some(kept(claim));
    let told = story(two(), vec![vm.clone()]);
    assert!(told[0].starts_with("vm1 waits: the domain that it was imported from"), "{told:?}");
    assert_eq!(story_of(two(), vec![vm], true, false), ["vm1: migrate to b on x; claim free 2"]);
}

fn two() -> Vec<NodeView> {
    vec![node("a", 8), node("b", 9)]
}

#[test]
fn each_state_comes_out_in_a_defined_one() {
    let at_x = |n, state| running(n, "x", 64).wanted(state);
    // The claims have epoch 1.
    for (state, wanted) in [
        (VmState::Start, "vm1: migrate to b on x; claim free 2"),
        (restart(), "vm1: migrate to b on x; claim free 2"),
        (VmState::Pause, "vm1: migrate to b on x; claim free 2"),
        (VmState::Resume, "vm1: migrate to b on x; claim free 2"),
        (shutdown(), "vm1: stop on x; claim free 2"),
        (VmState::Shutdown { timeout_s: 9, then: AtRest::Disable }, "vm1: disable on x; claim free 2"),
        (VmState::Stop, "vm1: stop on x; claim free 2"),
        (VmState::Disable, "vm1: disable on x; claim free 2"),
        (fail(), "vm1: fail on x; claim free 2"),
        (VmState::Delete { disks: false }, "vm1: delete on a; claim free 2"),
        (VmState::Delete { disks: true }, "vm1: delete on a; claim free 2"),
    ] {
        assert_eq!(story(two(), vec![at_x(1, state.clone())]), [wanted], "{state}");
    }
}

#[test]
fn what_nobody_holds_keeps_its_claim_and_what_rests_is_left_alone() {
    for (state, wanted) in [
        (VmState::Start, vec!["vm1: migrate to b on x; claim as it is"]),
        (shutdown(), vec!["vm1: stop on x; claim as it is"]),
        (VmState::Delete { disks: false }, vec!["vm1: delete on a; claim as it is"]),
        (VmState::Stop, vec![]),
        (fail(), vec![]),
    ] {
        assert_eq!(story(two(), vec![vm(1, 64).on("x").wanted(state.clone())]), wanted, "{state}");
    }
}

#[test]
fn a_guest_on_its_way_belongs_to_its_target_whatever_is_wanted() {
    let sent = |state| running(1, "x", 64).wanted(state).sent_to_node("a");
    let to_a = moving(1, "x", "a", 64).sent_to_node("a");
    assert_eq!(story(two(), vec![to_a]), ["vm1: start on a, home x; claim a 4"]);
    assert_eq!(story(two(), vec![sent(VmState::Stop)]), ["vm1: stop on a, home x; claim a 4"]);
    assert_eq!(story(two(), vec![sent(VmState::Start)]), ["vm1: start on a, home x; claim a 4"]);
    assert_eq!(story(two(), vec![sent(VmState::Delete { disks: true })]), ["vm1: delete on a, home x; claim a 4"]);
    // A target that is silent keeps it: it may execute there.
    let other = vec![node("a", 8).dead(), node("b", 8)];
    assert_eq!(story(other, vec![sent(VmState::Start)]), ["vm1: start on a, home x; claim a 4"]);
    // What comes to the dead node is its holder's, and not touched.
    assert_eq!(story(two(), vec![moving(1, "a", "x", 64).sent_to_node("x")]), Vec::<String>::new());
}

/// Its sender may have gone on after the copy was made.
#[test]
fn a_copy_that_waits_at_the_target_is_never_resumed() {
    let view = cluster(vec![node("x", 8).dead(), node("a", 8)], vec![moving(1, "x", "a", 64).sent_to_node("a")]);
    let plan = plan(&view, &BTreeMap::from([(name("x"), false)]), false);
    let order = plan.orders(&view, WallTime(9)).remove(0);
    let sent = Epoch(2);
    let granted = order.granted.unwrap();
    assert!(
        !granted.resume && granted.epoch > sent.next(),
        "the mark before the grant's would be adopted: {granted:?}"
    );
}

#[test]
fn a_move_that_has_not_begun_goes_to_its_target_if_that_can_take_it() {
    let moved = || moving(1, "x", "a", 64);
    assert_eq!(story(two(), vec![moved()]), ["vm1: migrate to a on x; claim free 2"], "b is larger");
    let flushed = vec![node("a", 8).in_state(NodeState::Flushed), node("b", 8)];
    assert_eq!(story(flushed, vec![moved()]), ["vm1: migrate to b on x; claim free 2"]);
}

#[test]
fn a_vm_that_a_target_takes_is_left_to_it_and_goes_elsewhere_if_it_cannot() {
    let free = || vm(1, 64).on("x").going_to("a", MoveKind::Migrate, How::Cold);
    let of = free().record.version;
    assert_eq!(story(two(), vec![free()]), ["vm1 is being taken by a"]);
    assert_eq!(story(two(), vec![free().answered("a", of, None)]), ["vm1 is being taken by a"]);
    let refused = || free().answered("a", of, Some("full"));
    assert_eq!(story(two(), vec![refused()]), ["vm1: migrate to b on x; claim as it is"]);
    let only_a = || vec![node("a", 8)];
    assert_eq!(story(only_a(), vec![refused()]), ["vm1 waits: a has no room for it: full"]);
    let again = story_of(only_a(), vec![refused()], false, true);
    assert_eq!(again, ["vm1: migrate to a on x; claim as it is"]);
    let dead = vec![node("a", 8).dead(), node("b", 8)];
    assert_eq!(story(dead, vec![free()]), ["vm1: migrate to b on x; claim as it is"]);
}

#[test]
fn the_most_important_get_the_room_and_the_others_wait() {
    // a has 2048 - 512 MiB, and each VM takes 96 more than its own.
    let vms = vec![
        running(1, "x", 900),
        running(2, "x", 900).priority(5),
        running(3, "x", 400),
        running(4, "x", 64).defined("<devices><disk type='file'><source file='/own/d'/></disk></devices>"),
        running(5, "x", 64).limited(&["x", "y"]),
    ];
    let told = story(vec![node("a", 2)], vms);
    assert!(told[0].starts_with("vm2: migrate to a"), "{told:?}");
    assert!(
        told[1].starts_with("vm1 waits: a: 996.0 MiB are needed") || told[1].starts_with("vm1 waits: a: "),
        "{told:?}"
    );
    assert!(told[2].starts_with("vm3: migrate to a"), "{told:?}");
    assert!(told[3].contains("vm4 waits: a: /own/d is a file of the VM's node only"), "{told:?}");
    assert!(told[4].contains("vm5 waits: a: the VM is limited to x, y"), "{told:?}");
}

#[test]
fn disks_of_a_deleted_vm_are_deleted_where_they_are() {
    let with = |folder: &str| {
        let disk = format!("<devices><disk type='file'><source file='{folder}/d'/></disk></devices>");
        running(1, "x", 64).wanted(VmState::Delete { disks: true }).defined(&disk)
    };
    let told = story(two(), vec![with("/own")]);
    assert!(told[0].starts_with("vm1 waits: no other node has its disks; 'drover vm undefine vm1'"), "{told:?}");
    let mut nodes = vec![node("x", 8).dead().sharing(&["/srv"])];
    nodes.extend([node("a", 8), node("b", 8).sharing(&["/srv"])]);
    let view = cluster(nodes, vec![with("/srv")]);
    let plan = plan(&view, &BTreeMap::from([(name("x"), false)]), false);
    assert_eq!(plan.items[0].fate, Fate::DeletedBy(name("b")));
}

#[test]
fn a_node_that_is_gone_for_good_keeps_nothing() {
    let vms = vec![vm(1, 64).on("x"), running(2, "x", 64), running(3, "x", 64).wanted(VmState::Stop)];
    let told = story_of(two(), vms, true, false);
    assert_eq!(
        told,
        ["vm1: stop on b; claim as it is", "vm2: migrate to b on x; claim free 2", "vm3: stop on x; claim free 2"]
    );
}

#[test]
fn several_nodes_are_one_plan_and_others_are_not_touched() {
    let nodes = vec![node("x", 8).dead(), node("y", 8).dead(), node("z", 8).dead(), node("a", 2)];
    let vms = vec![running(1, "x", 1000), running(2, "y", 1000).priority(1), running(3, "z", 64), running(4, "a", 64)];
    let view = cluster(nodes, vms);
    let plan = plan(&view, &BTreeMap::from([(name("x"), false), (name("y"), false)]), false);
    let fates: Vec<(&str, bool)> =
        plan.items.iter().map(|i| (i.vm.as_str(), matches!(i.fate, Fate::Starts { .. }))).collect();
    assert_eq!(fates, [("vm2", true), ("vm1", false)]);
    assert_eq!(plan.waiting(&name("x")).count() + plan.waiting(&name("y")).count(), 1);
}

#[test]
fn a_guest_that_another_node_reports_is_not_started_a_second_time() {
    let stray = |epoch| {
        let stray = drover_model::Stray { uuid: Uuid::from_u128(1), epoch: Epoch(epoch), paused: false };
        vec![node("a", 8).reporting(|report| report.strays = vec![stray]), node("b", 9)]
    };
    assert_eq!(story(stray(1), vec![running(1, "x", 64)]), ["vm1: start on a, home x; claim a 3"]);
    assert_eq!(story(stray(1), vec![waiting(1, "x", 64)]), ["vm1 is being taken by a"]);
    let old = story(stray(0), vec![running(1, "x", 64)]);
    assert_eq!(old, ["vm1: migrate to b on x; claim free 2"], "a guest of an earlier grant");
    let adopting = |vm: &mut VmView| {
        let claim = vm.claim.as_mut().unwrap();
        (claim.epoch, claim.adopts) = (Epoch(3), Some(Epoch(1)));
    };
    let adopted = story(stray(1), vec![running(1, "x", 64).but(adopting)]);
    assert_eq!(adopted, ["vm1: start on a, home x; claim a 5"], "its grant is for that guest");
    let other = story(stray(2), vec![running(1, "x", 64).but(adopting)]);
    assert_eq!(other, ["vm1: migrate to b on x; claim free 4"]);
    // What a node has said that is off, too, was before that: the VM does not go to and fro between the two.
    let stray = drover_model::Stray { uuid: Uuid::from_u128(1), epoch: Epoch(1), paused: false };
    let y = node("y", 8).booted("b1").dead().reporting(|report| report.strays = vec![stray]);
    let nodes = vec![node("x", 8).booted("b1").dead(), y, node("b", 9)];
    let lost = BTreeMap::from([(name("x"), false), (name("y"), false)]);
    let view = cluster(nodes, vec![running(1, "x", 64)]);
    assert!(matches!(&plan(&view, &lost, false).items[0].fate, Fate::Starts { to, .. } if *to == name("b")));
}

#[test]
fn what_another_machine_of_that_name_holds_is_not_moved() {
    let held = |machine: &str| {
        let claim = |vm: &mut VmView| vm.claim.as_mut().unwrap().machine = machine.to_owned();
        let view = cluster(vec![node("x", 8).booted("b1").dead(), node("a", 8)], vec![running(1, "x", 64).but(claim)]);
        let plan = plan(&view, &BTreeMap::from([(name("x"), false)]), false);
        matches!(plan.items[0].fate, Fate::Starts { .. })
    };
    assert_eq!([held("m"), held("other"), held("")], [true, false, true]);
}

#[test]
fn a_claim_that_cannot_be_read_is_not_moved() {
    let mut unreadable = running(1, "x", 64);
    (unreadable.claim, unreadable.claim_unreadable) = (None, true);
    let told = story(two(), vec![unreadable]);
    assert_eq!(told, ["vm1 waits: its claim is unreadable (see 'drover status')"]);
}

#[test]
fn an_epoch_that_may_be_on_its_way_is_left_out() {
    let claim = Claim::new(Epoch(4)).granted_to(&name("x"));
    let sent = claim.epoch.next();
    assert!(claim.freed().granted_to(&name("a")).epoch > sent);
}
