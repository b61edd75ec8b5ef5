//! Golden tables of moves: what a request makes of a VM's record, what becomes of its home, and when a move has taken
//! too long.

mod turns;

use super::*;
use crate::place::tests::{Tweak, cluster, moving, name, node, node_in, running, status, vm};
use drover_model::{AtRest, DaemonState, DomainState, NodeView};

/// `migrate`, `move` or `unmigrate`; `to` a node; `by force`; `live`.
fn request(text: &str) -> Request {
    let mut words = text.split_whitespace();
    let kind = match words.next().unwrap() {
        "move" => MoveKind::Move,
        "migrate" => MoveKind::Migrate,
        "unmigrate" => MoveKind::Unmigrate,
        other => panic!("{other}"),
    };
    let mut request = Request { kind, to: None, force: false, live_only: false };
    while let Some(word) = words.next() {
        match word {
            "to" => request.to = words.next().map(name),
            "by" => request.force = words.next() == Some("force"),
            "live" => request.live_only = true,
            other => panic!("{other}"),
        }
    }
    request
}

/// Where the VM is, or goes, and what its home is.
fn said(outcome: Result<VmRecord, Refusal>) -> String {
    let record = match outcome {
        Ok(record) => record,
        Err(refusal) => return refusal.to_string(),
    };
    let node = record.node.map(|n| n.to_string()).unwrap_or_default();
    let home = record.last_node.map(|home| format!(", home {home}")).unwrap_or_default();
    match record.state {
        VmState::Migrate { to, kind, how } => format!("{node} to {to}{home}: {kind:?} {how:?}"),
        state => format!("{state} on {node}{home}"),
    }
}

/// Five nodes: `c` has the most memory, `d` is flushed, `e` is full; the VM has 2 GiB.
fn five_nodes(vm: &VmView) -> ClusterView {
    let nodes = vec![node("a", 8), node("b", 8), node("c", 16), node_in("d", 32, DomainState::Flushed), node("e", 2)];
    cluster(nodes, vec![vm.clone()])
}

fn relocated(vm: &VmView, asked: &str) -> String {
    said(relocate(&five_nodes(vm), vm, &request(asked)))
}

fn away(vm: VmView) -> VmView {
    vm.but(|v| v.record.value.last_node = Some(name("a")))
}

fn method(vm: VmView, method: MigrationMethod) -> VmView {
    vm.but(|v| v.record.value.meta.method = method)
}

#[test]
fn a_running_vm_is_sent_where_it_fits_best_or_where_somebody_says() {
    use MigrationMethod::{Live, None as Any, Shutdown};
    for (by, asked, says) in [
        (Any, "migrate", "a to c: Migrate LiveElseCold"),
        (Any, "migrate to b", "a to b: Migrate LiveElseCold"),
        (Any, "migrate to b live", "a to b: Migrate Live"),
        (Any, "move", "a to c: Move LiveElseCold"),
        (Any, "move to b", "a to b: Move LiveElseCold"),
        (Any, "unmigrate", "VM vm1 is at home: it was not migrated"),
        (Any, "unmigrate by force", "VM vm1 is at home: it was not migrated"),
        (Live, "migrate", "a to c: Migrate Live"),
        (Live, "migrate live", "a to c: Migrate Live"),
        (Shutdown, "migrate", "a to c: Migrate Cold"),
        (
            Shutdown,
            "migrate live",
            "VM vm1 has the migration method shutdown, so it cannot be moved live; change its method, or leave live out",
        ),
    ] {
        assert_eq!(relocated(&method(running(1, "a", 2048), by), asked), says, "method {by}, {asked}");
    }
}

#[test]
fn a_node_that_somebody_names_must_be_fit_too() {
    for (limit, asked, says) in [
        ("", "migrate to a", "node a cannot take VM vm1: the VM is there"),
        ("", "migrate to d", "node d cannot take VM vm1: it is in state flushed"),
        (
            "",
            "move to e",
            "node e cannot take VM vm1: 2144 MiB are needed (with 96 MiB for QEMU itself), 1536 MiB are free",
        ),
        ("", "migrate to x", "there is no node x; accepted are a, b, c, d, e"),
        ("a c", "migrate to b by force", "node b cannot take VM vm1: the VM is limited to a, c"),
        ("a b", "migrate", "a to b: Migrate LiveElseCold"),
    ] {
        let limit = limit.split_whitespace().map(name).collect();
        let vm = running(1, "a", 2048).but(|v| v.record.value.meta.node_limit = limit);
        assert_eq!(relocated(&vm, asked), says, "{asked}");
    }
    let nowhere = running(1, "a", 2048).but(|v| v.record.value.meta.node_limit = [name("a"), name("e")].into());
    assert_eq!(
        relocated(&nowhere, "migrate"),
        "no node can take VM vm1: b: the VM is limited to a, e; c: the VM is limited to a, e; \
         d: it is in state flushed; e: 2144 MiB are needed (with 96 MiB for QEMU itself), 1536 MiB are free"
    );
}

#[test]
fn a_vm_that_does_not_run_is_only_assigned_elsewhere() {
    let fail = || VmState::Fail { reason: "x".to_owned() };
    for (state, asked, says) in [
        (VmState::Stop, "migrate to b", "stop on b, home a"),
        (VmState::Stop, "migrate", "stop on c, home a"),
        (VmState::Stop, "move to b", "stop on b"),
        (VmState::Stop, "move to d", "node d cannot take VM vm1: it is in state flushed"),
        (VmState::Disable, "move", "disable on c"),
        (fail(), "move", "fail on c"),
        // It is to run, and nobody holds it yet: the target must have room for it all the same.
        (VmState::Start, "migrate to b", "a to b: Migrate LiveElseCold"),
        (
            VmState::Start,
            "move to e",
            "node e cannot take VM vm1: 2144 MiB are needed (with 96 MiB for QEMU itself), 1536 MiB are free",
        ),
    ] {
        assert_eq!(relocated(&vm(1, state.clone(), "a", None, 2048), asked), says, "{state:?}, {asked}");
    }
    let still = vm(1, VmState::Stop, "b", Some("a"), 2048);
    assert_eq!(relocated(&still, "move to c"), "VM vm1 is still held by node a; wait until it is released");
}

#[test]
fn a_processor_matters_only_to_a_vm_that_runs_already() {
    let other_processor = |vm: VmView| {
        let kvm = |n: &str, model: &str| {
            node(n, 8).but(|n| {
                status(n).domain_type = Some(drover_model::DomainType::Kvm);
                status(n).cpu_model = model.to_owned();
            })
        };
        let devices = drover_model::domain::devices::Devices::read("<domain><cpu mode='host-model'/></domain>");
        let vm = vm.but(|v| v.devices = devices.into());
        let view = cluster(vec![kvm("a", "xeon"), kvm("b", "epyc")], vec![vm.clone()]);
        said(relocate(&view, &vm, &request("migrate to b")))
    };
    let refused = "node b cannot take VM vm1: the guest's processor is its node's own (\"xeon\"), and this is \"epyc\"";
    assert_eq!(other_processor(method(running(1, "a", 2048), MigrationMethod::Live)), refused);
    // What may be moved cold is, where it cannot be moved live.
    assert_eq!(other_processor(running(1, "a", 2048)), "a to b: Migrate Cold");
    let cold = method(running(1, "a", 2048), MigrationMethod::Shutdown);
    assert_eq!(other_processor(cold), "a to b: Migrate Cold");
    assert_eq!(other_processor(vm(1, VmState::Start, "a", None, 2048)), "a to b: Migrate LiveElseCold");
    assert_eq!(other_processor(vm(1, VmState::Stop, "a", None, 2048)), "stop on b, home a");
}

#[test]
fn a_vm_that_is_being_worked_on_is_not_moved() {
    for (state, word) in [
        (VmState::Shutdown { timeout_s: 9, then: AtRest::Stop }, "shutdown"),
        (VmState::Restart { timeout_s: 9 }, "restart"),
        (moving(1, "a", "b", 64).record.value.state.clone(), "migrate"),
        (VmState::Delete { disks: false }, "delete"),
    ] {
        let says = format!("VM vm1 is in state {word}; a VM is moved while it runs (state start) or is off");
        assert_eq!(relocated(&vm(1, state, "a", Some("a"), 64), "migrate by force"), says);
    }
}

#[test]
fn a_vm_that_is_away_goes_home_or_by_force() {
    let runs = away(running(1, "b", 2048));
    for (asked, says) in [
        (
            "migrate",
            "VM vm1 is away from its home a already; bring it home (unmigrate), move it for good (move), or use force",
        ),
        (
            "migrate to c",
            "VM vm1 is away from its home a already; bring it home (unmigrate), move it for good (move), or use force",
        ),
        ("migrate by force", "b to c, home a: Migrate LiveElseCold"),
        ("migrate to c by force", "b to c, home a: Migrate LiveElseCold"),
        ("migrate to a", "b to a, home a: Migrate LiveElseCold"),
        ("move to c", "b to c, home a: Move LiveElseCold"),
        ("unmigrate", "b to a, home a: Unmigrate LiveElseCold"),
        ("unmigrate live", "b to a, home a: Unmigrate Live"),
        // Its home is where it goes, whatever is said beside.
        ("unmigrate to c", "b to a, home a: Unmigrate LiveElseCold"),
    ] {
        assert_eq!(relocated(&runs, asked), says, "{asked}");
    }
    let off = away(vm(1, VmState::Stop, "b", None, 2048));
    assert_eq!(relocated(&off, "unmigrate"), "stop on a");
    assert_eq!(relocated(&off, "migrate to c by force"), "stop on c, home a");
    assert_eq!(relocated(&off, "migrate to a"), "stop on a");
    assert_eq!(relocated(&off, "move"), "stop on c");
    let homeless = running(1, "b", 2048).but(|v| v.record.value.last_node = Some(name("d")));
    assert_eq!(relocated(&homeless, "unmigrate"), "node d cannot take VM vm1: it is in state flushed");
}

#[test]
fn what_is_on_its_way_to_a_node_has_its_room_there() {
    let (vm1, vm2) = (running(1, "a", 8192), moving(2, "a", "c", 8192));
    let nodes = vec![node("a", 32), node("b", 16), node("c", 16)];
    let view = cluster(nodes, vec![vm1.clone(), vm2]);
    assert_eq!(said(relocate(&view, &vm1, &request("move"))), "a to b: Move LiveElseCold");
    let to_c = said(relocate(&view, &vm1, &request("move to c")));
    assert!(to_c.starts_with("node c cannot take VM vm1: 8288 MiB are needed"), "{to_c}");
}

#[test]
fn a_node_whose_daemon_does_not_run_is_no_target() {
    let vm1 = running(1, "a", 64);
    let nodes = vec![node("a", 8), node("b", 8).but(|n| status(n).daemon = DaemonState::Shutdown)];
    let to_b = said(relocate(&cluster(nodes, vec![vm1.clone()]), &vm1, &request("migrate to b")));
    assert_eq!(to_b, "node b cannot take VM vm1: its daemon is in state shutdown");
}

#[test]
fn a_home_is_kept_until_the_vm_is_there_again_or_moves_for_good() {
    use MoveKind::*;
    // Where it is and its home; where it comes to and how; its home then.
    for (on, home, to, kind, then) in [
        ("a", None, "b", Migrate, Some("a")),
        ("b", Some("a"), "c", Migrate, Some("a")),
        ("b", Some("a"), "a", Migrate, None),
        ("a", None, "a", Migrate, None),
        ("a", None, "b", Move, None),
        ("b", Some("a"), "c", Move, None),
        ("b", Some("a"), "a", Unmigrate, None),
    ] {
        let record = running(1, on, 64).record.value.clone();
        let record = VmRecord { last_node: home.map(name), ..record };
        let arrived = record.arrived(&name(to), kind);
        assert_eq!(arrived.node, Some(name(to)));
        assert_eq!(arrived.last_node, then.map(name), "{on}, home {home:?}, {kind:?} to {to}");
        assert_eq!(VmRecord { node: record.node.clone(), last_node: record.last_node.clone(), ..arrived }, record);
    }
}

#[test]
fn a_migration_is_given_up_or_goes_post_copy_at_its_deadline() {
    use Supervision::*;
    for (stall, elapsed_ms, post_copy_begun, then) in [
        (Stall::Abort, 0, false, GoOn),
        (Stall::Abort, 59_999, false, GoOn),
        (Stall::Abort, 60_000, false, GiveUp),
        (Stall::PostCopy, 59_999, false, GoOn),
        (Stall::PostCopy, 60_000, false, PostCopy),
        // There is no way back then.
        (Stall::PostCopy, 60_000, true, GoOn),
        (Stall::Abort, 600_000, true, GoOn),
    ] {
        let config = ClusterConfig { stall, migration_deadline_s: 60, ..ClusterConfig::default() };
        let elapsed = Duration::from_millis(elapsed_ms);
        let got = supervise(&config, elapsed, post_copy_begun);
        assert_eq!(got, then, "{stall}, after {elapsed:?}, post-copy begun: {post_copy_begun}");
    }
}
