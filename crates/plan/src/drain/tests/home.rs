//! Who comes home to a node that is made ready, and who is started there.

use super::*;

/// Who comes home to node `a`, which has 8 GiB and is made ready.
fn coming(vms: Vec<VmView>) -> String {
    let nodes = vec![node_in("a", 8, DomainState::Unflush), node("b", 64), node("c", 64)];
    told(&bring_home(&cluster(nodes, vms), &name("a")))
}

/// It moves for good.
fn to_stay(vm: VmView) -> VmView {
    vm.but(|v| {
        if let VmState::Migrate { kind, .. } = &mut v.record.value.state {
            *kind = MoveKind::Move;
        }
    })
}

#[test]
fn what_was_moved_away_comes_home_and_what_was_shut_down_starts() {
    use VmState::*;
    let fail = || Fail { reason: "x".to_owned() };
    let shutdown = || Shutdown { timeout_s: 9, then: AtRest::Stop };
    let restart = || Restart { timeout_s: 9 };
    let rows = [
        ("runs away from home", away_from("a", running(1, "b", 64)), "vm1 to a"),
        ("is to start away from home", away_from("a", vm(1, Start, "b", None, 64)), "vm1 to a"),
        ("restarts away from home", away_from("a", vm(1, restart(), "b", Some("b"), 64)), "vm1 under way"),
        ("is on its way home", away_from("a", moving(1, "b", "a", 64)), "vm1 under way"),
        ("is on its way elsewhere", away_from("a", moving(1, "b", "c", 64)), "vm1 under way"),
        ("may be home after all", away_from("a", running(1, "b", 64).but(|v| sending(v, "a"))), "vm1 under way"),
        ("is on its way to here, though its home is elsewhere", moving(1, "b", "a", 64), "vm1 under way"),
        ("is on its way from here, and will be away then", moving(1, "a", "b", 64), "vm1 under way"),
        ("is on its way from here for good", to_stay(moving(1, "a", "b", 64)), ""),
        ("is on its way from here, and has its home elsewhere", away_from("c", moving(1, "a", "b", 64)), ""),
        // What somebody stopped meanwhile stays where it is.
        ("is off away from home", away_from("a", vm(1, Stop, "b", None, 64)), ""),
        ("is shut down away from home", away_from("a", vm(1, shutdown(), "b", Some("b"), 64)), ""),
        ("is disabled away from home", away_from("a", vm(1, Disable, "b", None, 64)), ""),
        ("failed away from home", away_from("a", vm(1, fail(), "b", None, 64)), ""),
        // A flush had to shut it down.
        ("was shut down", autostart(vm(1, Stop, "a", None, 64)), "vm1 starts"),
        ("was shut down just now", autostart(vm(1, Stop, "a", Some("a"), 64)), "vm1 under way"),
        ("is being shut down", autostart(vm(1, shutdown(), "a", Some("a"), 64)), "vm1 under way"),
        ("was shut down elsewhere", autostart(vm(1, Stop, "b", None, 64)), ""),
        ("was shut down, and disabled since", autostart(vm(1, Disable, "a", None, 64)), ""),
        ("was shut down, and failed since", autostart(vm(1, fail(), "a", None, 64)), ""),
        ("was shut down, and started since", autostart(running(1, "a", 64)), ""),
        ("was stopped by somebody", vm(1, Stop, "a", None, 64), ""),
        // Others'.
        ("runs here already", running(1, "a", 64), ""),
        ("runs here away from its home", away_from("b", running(1, "a", 64)), ""),
        ("runs elsewhere away from another home", away_from("c", running(1, "b", 64)), ""),
        ("runs elsewhere", running(1, "b", 64), ""),
    ];
    for (what, vm, says) in rows {
        assert_eq!(coming(vec![vm]), says, "a VM that {what}");
    }
}

#[test]
fn how_a_vm_comes_home_is_its_methods_to_say() {
    let by = |method| coming(vec![away_from("a", running(1, "b", 64)).but(|v| v.record.value.meta.method = method)]);
    assert_eq!(by(MigrationMethod::None), "vm1 to a");
    assert_eq!(by(MigrationMethod::Live), "vm1 to a Live");
    assert_eq!(by(MigrationMethod::Shutdown), "vm1 to a Cold");
}

#[test]
fn the_node_is_never_filled_beyond_what_it_has_the_most_important_and_largest_come_first() {
    // Node a can carry 7680 MiB, QEMU's own part included.
    let home = |n, mib| away_from("a", running(n, "b", mib));
    let no_room = |vm: &str, needed: u64, free: u64| {
        format!("{vm} blocked: {needed} MiB are needed (with 96 MiB for QEMU itself), {free} MiB are free")
    };
    assert_eq!(
        coming(vec![home(1, 3000), home(2, 4000), home(3, 3000), home(4, 100)]),
        format!("vm2 to a; vm1 to a; {}; vm4 to a", no_room("vm3", 3096, 488))
    );
    assert_eq!(
        coming(vec![home(1, 3000), home(2, 4000), important(home(3, 3000), 1)]),
        format!("vm3 to a; vm2 to a; {}", no_room("vm1", 3096, 488))
    );
    // What is started, what runs there already and what is on its way there needs room as well.
    let starts = |n, mib| autostart(vm(n, VmState::Stop, "a", None, mib));
    assert_eq!(
        coming(vec![home(1, 3000), starts(2, 4000), starts(3, 3000)]),
        format!("vm2 starts; vm1 to a; {}", no_room("vm3", 3096, 488))
    );
    assert_eq!(coming(vec![home(1, 4000), running(2, "a", 4000)]), no_room("vm1", 4096, 3584));
    assert_eq!(
        coming(vec![home(1, 4000), important(moving(2, "b", "a", 4000), 1)]),
        format!("vm2 under way; {}", no_room("vm1", 4096, 3584))
    );
}

#[test]
fn what_cannot_come_home_is_named_with_the_reason() {
    let home = || away_from("a", running(1, "b", 64));
    assert_eq!(coming(vec![limited(home(), &["b", "c"])]), "vm1 blocked: the VM is limited to b, c");
    assert_eq!(coming(vec![failed(home(), "a", 2)]), "vm1 to a");
    let live_only = home().but(|v| v.record.value.meta.method = MigrationMethod::Live);
    assert_eq!(coming(vec![failed(live_only, "a", 3)]), "vm1 blocked: its move to a failed 3 times: no route");
    let broken = node("a", 8).but(|n| status(n).hypervisor_problem = "no libvirtd".to_owned());
    let view = cluster(vec![broken, node("b", 8)], vec![home(), autostart(vm(2, VmState::Stop, "a", None, 64))]);
    let says = "blocked: its hypervisor cannot be used: no libvirtd";
    assert_eq!(told(&bring_home(&view, &name("a"))), format!("vm1 {says}; vm2 {says}"));
}

#[test]
fn a_guest_that_cannot_come_home_while_it_runs_comes_cold_or_before_it_runs() {
    let kvm = |n: &str, model: &str| {
        node(n, 8).but(|n| (status(n).domain_type, status(n).cpu_model) = (Some(DomainType::Kvm), model.to_owned()))
    };
    let comes = |vm: VmView| {
        let host_cpu = Devices::read("<domain><cpu mode='host-passthrough'/></domain>");
        let vm = away_from("a", vm).but(|v| v.devices = host_cpu.into());
        told(&bring_home(&cluster(vec![kvm("a", "xeon"), kvm("b", "epyc")], vec![vm]), &name("a")))
    };
    // A flush moved it cold, so it comes home cold.
    assert_eq!(comes(running(1, "b", 64)), "vm1 to a Cold");
    let live_only = running(1, "b", 64).but(|v| v.record.value.meta.method = MigrationMethod::Live);
    assert!(comes(live_only).starts_with("vm1 blocked: the guest's processor is its node's own"));
    assert_eq!(comes(vm(1, VmState::Start, "b", None, 64)), "vm1 to a");
}

#[test]
fn a_node_that_is_made_ready_is_no_target_for_anybody_else() {
    let nodes = vec![node_in("a", 8, DomainState::Unflush), node_in("b", 8, DomainState::Flush)];
    let view = cluster(nodes, vec![running(1, "b", 64), away_from("a", running(2, "b", 64))]);
    assert_eq!(told(&bring_home(&view, &name("a"))), "vm2 to a");
    assert_eq!(told(&evacuate(&view, &name("b"))), "vm1 shut down; vm2 shut down");
}
