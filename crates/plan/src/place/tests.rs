//! Golden tables of the choice of a node.

mod properties;

use super::*;
use drover_model::{Claim, RunState, Stored, Version, VmState, testing::*};
use std::sync::Arc;

/// A new VM of that size.
fn place(view: &ClusterView, memory_mib: u64, vcpus: u32, meta: &VmMeta) -> Placement {
    let demand = Demand { memory: Bytes::mib(memory_mib), vcpus };
    let devices = Devices::default();
    let wanted = Wanted::new(demand, meta, &devices);
    choose(view, &Ledger::of(view), &wanted)
}

fn small(view: &ClusterView) -> Option<String> {
    place(view, 512, 1, &VmMeta::default()).node().map(ToString::to_string)
}

#[test]
fn the_most_free_memory_wins_and_ties_go_to_the_first_name() {
    let equal = cluster(vec![node("b", 4), node("a", 4)], vec![]);
    assert_eq!(small(&equal).as_deref(), Some("a"));
    let one_bigger = cluster(vec![node("a", 4), node("b", 8)], vec![]);
    assert_eq!(small(&one_bigger).as_deref(), Some("b"));
}

#[test]
fn a_node_whose_power_may_be_cut_at_any_moment_is_no_target() {
    let mut view = cluster(vec![node("a", 4), node("b", 8).booted("b1")], vec![]);
    let record = &view.nodes.get(&name("b")).unwrap().record.value;
    let fence = drover_model::Fence::suspicion(record, &name("a"), drover_model::Epoch(1), drover_model::WallTime(0));
    let fence = drover_model::Fence { off_ordered: true, ..fence };
    let path = <drover_model::Fence as drover_model::RecordKind>::path(&name("b"));
    view.apply(&path, Some((&serde_json::to_vec(&fence).unwrap(), Version(0))));
    assert_eq!(small(&view).as_deref(), Some("a"));
}

#[test]
fn what_runs_and_what_is_about_to_run_counts_what_is_off_does_not() {
    use VmState::*;
    let shutdown = Shutdown { timeout_s: 9, then: drover_model::AtRest::Stop };
    let rows = [
        ("starts on a", waiting(1, "a", 1024), "b"),
        ("runs on a", running(1, "a", 1024), "b"),
        ("may still run on a", vm(1, 1024).on("b").held_by("a"), "b"),
        ("is shut down on a", vm(1, 1024).on("a").wanted(shutdown).held_by("a"), "b"),
        ("restarts on a", vm(1, 1024).on("a").wanted(Restart { timeout_s: 9 }), "b"),
        ("is on its way from a", moving(1, "a", "c", 1024), "b"),
        ("is on its way to a", moving(1, "c", "a", 1024), "b"),
        ("may have been sent to a", running(1, "c", 1024).sent_to_node("a"), "b"),
        ("is off on a", vm(1, 1024).on("a"), "a"),
        ("is disabled on a", vm(1, 1024).on("a").wanted(Disable), "a"),
        ("failed on a", vm(1, 1024).on("a").wanted(Fail { reason: String::new() }), "a"),
    ];
    for (what, vm, chosen) in rows {
        // Node c is in the cluster, but takes nothing.
        let nodes = vec![node("a", 4), node("b", 4), node("c", 64).in_state(NodeState::Flushed)];
        assert_eq!(small(&cluster(nodes, vec![vm])).as_deref(), Some(chosen), "a VM {what}");
    }
}

#[test]
fn a_vm_that_moves_takes_its_room_at_both_ends_and_once_at_each() {
    let four = || vec![node("a", 4), node("b", 4), node("c", 4)];
    for vm in [moving(1, "a", "b", 2048), moving(1, "a", "b", 2048).sent_to_node("b")] {
        let ledger = Ledger::of(&cluster(four(), vec![vm]));
        let promised = |n| ledger.usage(&name(n)).promised_memory.as_mib();
        assert_eq!((promised("a"), promised("b"), promised("c")), (2048 + 96, 2048 + 96, 0));
    }
    let view = cluster(four(), vec![moving(1, "a", "b", 2048)]);
    assert_eq!(place(&view, 2048, 1, &VmMeta::default()).node(), Some(&name("c")));
    let reasons = place(&view, 4096, 1, &VmMeta::default()).reasons();
    assert!(
        reasons.starts_with("a: 4192 MiB are needed (with 96 MiB for QEMU itself), 1440 MiB are free; b: "),
        "{reasons}"
    );
}

#[test]
fn a_node_that_takes_no_vm_says_why() {
    let nodes = vec![
        node("a", 8).dead(),
        node("b", 8).unreported(),
        node("c", 8).reporting(|r| r.daemon = DaemonState::Shutdown),
        node("d", 8).in_state(NodeState::Flush),
        node("e", 8).in_state(NodeState::Flushed),
        node("f", 8).in_state(NodeState::Unflush),
        node("g", 8).without_hypervisor("no libvirtd"),
        node("h", 1),
    ];
    let placement = place(&cluster(nodes, vec![]), 512, 1, &VmMeta::default());
    assert_eq!(placement.node(), None);
    assert_eq!(
        placement.reasons(),
        "a: its daemon is in state dead; b: its daemon is in state init; c: its daemon is in state shutdown; \
         d: it is in state flush; e: it is in state flushed; f: it is in state unflush; \
         g: its hypervisor cannot be used: no libvirtd; \
         h: 608 MiB are needed (with 96 MiB for QEMU itself), 512 MiB are free"
    );
    assert_eq!(place(&cluster(vec![], vec![]), 1, 1, &VmMeta::default()).reasons(), "there is no other node");
    // A view in which the node's report has not come yet.
    let meta = VmMeta::default();
    let devices = Devices::default();
    let wanted = Wanted::new(Demand::default(), &meta, &devices);
    let verdict = judge(&cluster(vec![], vec![]), &Ledger::default(), &name("a"), &node("a", 8), &wanted);
    assert_eq!(verdict, Verdict::Rejected(Rejection::NotReported));
}

/// A VM on node `h`, and node `b` that it may go to.
struct Setting {
    h: NodeView,
    b: NodeView,
    vm: VmView,
}

impl Setting {
    fn definition(&mut self, parts: &str) -> &mut Self {
        self.vm.devices = Arc::new(Devices::read(&format!("<domain>{parts}</domain>")));
        self
    }
    fn disk(&mut self, file: &str) -> &mut Self {
        self.definition(&format!("<devices><disk type='file'><source file='{file}'/></disk></devices>"))
    }
    fn kernel(&mut self) -> &mut Self {
        self.definition("<os><kernel>/shared/k</kernel><initrd>/local/i</initrd></os>")
    }
    fn never_ran(&mut self) {
        self.vm.claim = Some(Stored::new(Claim::new(drover_model::Epoch(0)), Version::NEW).into());
    }
    fn is_off(&mut self) {
        self.vm = self.vm.clone().reported(|report| report.run = Some(RunState::Off));
    }
    fn limit(&mut self, nodes: &str) {
        self.vm.record.value.meta.node_limit = nodes.split_whitespace().map(name).collect();
    }
    fn size(&mut self, mib: u64, vcpus: u32) {
        self.vm.demand = Demand { memory: Bytes::mib(mib), vcpus };
    }
    fn bridges(&mut self, b: &str) {
        self.b.report().bridges = vec![b.to_owned()];
    }
    fn shared(&mut self, h: &str, b: &str) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        (self.h.report().shared, self.b.report().shared) = (words(h), words(b));
    }
    fn execution(&mut self, h: Option<DomainType>, b: Option<DomainType>) {
        (self.h.report().domain_type, self.b.report().domain_type) = (h, b);
    }
    fn processors(&mut self, how: DomainType, h: &str, b: &str) {
        self.execution(Some(how), Some(how));
        (self.h.report().cpu_model, self.b.report().cpu_model) = (h.to_owned(), b.to_owned());
    }
}

#[test]
fn every_rejection_of_a_move_has_its_reason() {
    use DomainType::{Kvm, Qemu};
    use How::{Cold, Live};
    const BRIDGED: &str = "<devices><interface type='bridge'><source bridge='br1'/></interface></devices>";
    const USER: &str = "<devices><interface type='user'/></devices>";
    const DIRECT: &str = "<devices><interface type='direct'><source dev='eth0'/></interface></devices>";
    const HOST_CPU: &str = "<cpu mode='host-passthrough'/>";
    const TPM: &str = "<devices><tpm><backend type='emulator'/></tpm></devices>";
    const EFI: &str = "<os firmware='efi'/>";
    const BLOCK: &str = "<devices><disk type='block'><source dev='/dev/vg/a'/></disk></devices>";
    const PCI: &str = "<devices><hostdev mode='subsystem' type='pci'/></devices>";
    const FOLDER: &str = "<devices><filesystem><source dir='/shared/f'/></filesystem></devices>";
    const OWN_NVRAM: &str = "<os firmware='efi'><nvram>/shared/n</nvram></os>";
    const CUSTOM_CPU: &str = "<cpu mode='custom'/>";
    type Row = (How, fn(&mut Setting), &'static str);
    let rows: Vec<Row> = vec![
        (Live, |_| {}, ""),
        // Where it may run.
        (Live, |s| s.limit("b c"), ""),
        (Live, |s| s.limit("c d"), "the VM is limited to c, d"),
        // What the node has room for.
        (Live, |s| s.size(2048 - 512 - 96, 4), ""),
        (Live, |s| s.size(2048 - 512 - 95, 4), "1537 MiB are needed (with 96 MiB for QEMU itself), 1536 MiB are free"),
        (Live, |s| s.size(64, 5), "5 vCPUs are needed, it has 4 processor threads"),
        // Networks.
        (Cold, |s| _ = s.definition(BRIDGED), "it has no bridge br1"),
        (Cold, |s| s.definition(BRIDGED).bridges("br1"), ""),
        (Cold, |s| s.definition(BRIDGED).bridges("br10"), "it has no bridge br1"),
        (Cold, |s| _ = s.definition(USER), ""),
        (Cold, |s| _ = s.definition(DIRECT), ""),
        // Files: in a folder that both share.
        (Cold, |s| _ = s.disk("/d"), "/d is a file of the VM's node only: it is in no folder that both nodes share"),
        (Cold, |s| s.disk("/shared/x/d").shared("/shared", "/other /shared"), ""),
        (Cold, |s| s.disk("/shared/d").shared("/shared", "/other"), "/shared/d is a file of the VM's node only"),
        (Cold, |s| s.disk("/shared/d").shared("/other", "/shared"), "/shared/d is a file of the VM's node only"),
        (Cold, |s| s.disk("/shared2/d").shared("/shared", "/shared"), "/shared2/d is a file of the VM's node only"),
        (Cold, |s| s.kernel().shared("/shared", "/shared"), "/local/i is a file of the VM's node only"),
        (Cold, |s| s.kernel().shared("/shared /local", "/local /shared"), ""),
        (Cold, |s| _ = s.definition(BLOCK), "/dev/vg/a is a file of the VM's node only"),
        (Live, |s| s.definition(BLOCK).shared("/dev/vg", "/dev/vg"), ""),
        // What only its node has, unless an administrator says otherwise. It never goes live.
        (Cold, |s| _ = s.definition(PCI), "it uses a device of the host (pci) of the VM's node"),
        (Live, |s| _ = s.definition(PCI), "it uses a device of the host (pci) of the VM's node"),
        (
            Cold,
            |s| {
                s.definition(PCI).never_ran();
            },
            "it uses a device of the host (pci) of the VM's node",
        ),
        (Cold, |s| s.definition(PCI).limit("b h"), ""),
        (Live, |s| s.definition(PCI).limit("b h"), "it cannot be moved live: it uses a device of the host (pci)"),
        (Live, |s| s.definition(FOLDER).shared("/shared", "/shared"), "it cannot be moved live: a folder of the host"),
        (Cold, |s| s.definition(FOLDER).shared("/shared", "/shared"), ""),
        (Cold, |s| _ = s.definition(FOLDER), "/shared/f is a file of the VM's node only"),
        // What libvirt keeps on its node goes along with a guest that runs.
        (Cold, |s| _ = s.definition(TPM), "libvirt keeps the state of its emulated TPM on the VM's node only"),
        (Cold, |s| s.definition(TPM).never_ran(), ""),
        (Live, |s| _ = s.definition(TPM), ""),
        (Live, |s| s.definition(TPM).is_off(), "libvirt keeps the state of its emulated TPM on the VM's node only"),
        (Live, |s| s.definition(OWN_NVRAM).is_off(), ""),
        (Cold, |s| _ = s.definition(EFI), "libvirt keeps its firmware's variables (NVRAM) on the VM's node only"),
        (Live, |s| _ = s.definition(EFI), ""),
        (Cold, |s| _ = s.definition(OWN_NVRAM), "/shared/n is a file of the VM's node only"),
        (Cold, |s| s.definition(OWN_NVRAM).shared("/shared", "/shared"), ""),
        (Cold, |s| s.definition(OWN_NVRAM).never_ran(), ""),
        (Live, |s| _ = s.definition(OWN_NVRAM), ""),
        // How guests are executed: only one that runs minds.
        (Live, |s| s.execution(None, Some(Kvm)), ""),
        (Live, |s| s.execution(Some(Kvm), Some(Qemu)), "it runs guests by qemu, and the VM's node by kvm"),
        (Cold, |s| s.execution(Some(Kvm), Some(Qemu)), ""),
        // The processor: only a running guest that sees its node's own minds.
        (
            Live,
            |s| s.definition(HOST_CPU).processors(Kvm, "xeon", "epyc"),
            "the guest's processor is its node's own (\"xeon\"), and this is \"epyc\"",
        ),
        (Live, |s| s.definition(HOST_CPU).processors(Kvm, "xeon", "xeon"), ""),
        (Live, |s| s.definition(CUSTOM_CPU).processors(Kvm, "xeon", "epyc"), ""),
        (Live, |s| s.definition(HOST_CPU).processors(Qemu, "xeon", "epyc"), ""),
        (Cold, |s| s.definition(HOST_CPU).processors(Kvm, "xeon", "epyc"), ""),
    ];
    for (row, (how, change, says)) in rows.into_iter().enumerate() {
        let mut s = Setting { h: node("h", 2), b: node("b", 2), vm: running(1, "h", 512) };
        change(&mut s);
        let view = cluster(vec![s.h, s.b], vec![s.vm.clone()]);
        let placement = choose(&view, &Ledger::of(&view), &Wanted::moved(&s.vm).by(how));
        assert_eq!(placement.verdicts[1], (name("h"), Verdict::Rejected(Rejection::Here)), "row {row}");
        match &placement.verdicts[0].1 {
            Verdict::Fits { .. } => assert_eq!("", says, "row {row} fits"),
            Verdict::Rejected(why) => {
                assert!(!says.is_empty() && why.to_string().starts_with(says), "row {row}: {why}, not {says:?}");
            }
        }
    }
}

#[test]
fn a_new_vm_takes_no_files_with_it() {
    let view = cluster(vec![node("a", 8)], vec![]);
    let (meta, mut s) = (VmMeta::default(), Setting { h: node("h", 8), b: node("b", 8), vm: running(1, "h", 512) });
    s.disk("/d");
    let wanted = Wanted::new(Demand::default(), &meta, &s.vm.devices);
    assert_eq!(choose(&view, &Ledger::of(&view), &wanted).node(), Some(&name("a")));
}

#[test]
fn each_selector_picks_what_is_best_with_the_vm_on_it() {
    // Node, VMs that run there, vCPUs and MiB of each, MiB of one that is off, load.
    let table = [
        ("a", 3, 2, 100, 9000, 3.0),
        ("b", 3, 2, 1000, 0, 3.0),
        ("c", 3, 2, 2000, 0, 0.5),
        ("d", 2, 1, 2000, 0, 3.0),
        ("e", 1, 3, 5000, 0, 3.0),
    ];
    let (mut nodes, mut vms) = (vec![], vec![]);
    for (on, count, vcpus, mib, off, load) in table {
        nodes.push(node(on, 16).reporting(|r| r.load = load));
        for _ in 0..count {
            vms.push(running(vms.len() as u128, on, mib).but(|v| v.demand.vcpus = vcpus));
        }
        vms.push(vm(vms.len() as u128, off).on(on));
    }
    let view = cluster(nodes, vms);
    for (selector, best, score) in [
        (Selector::Mem, "a", 16384 - 512 - 3 * (100 + 96) - (1000 + 96)),
        (Selector::Memprov, "b", 16384 - 3 * 1000 - 1000),
        (Selector::Load, "c", -(500 + 2000)),
        (Selector::Vcpus, "d", -(2 + 2)),
        (Selector::Vms, "e", -2),
    ] {
        let placement = place(&view, 1000, 2, &VmMeta { selector: Some(selector), ..VmMeta::default() });
        assert_eq!((placement.selector, placement.node()), (selector, Some(&name(best))), "{placement:#?}");
        let (_, verdict) = placement.verdicts.iter().find(|(node, _)| *node == name(best)).unwrap();
        let Verdict::Fits { score: got, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!(*got, score, "{selector}");
    }
}

#[test]
fn ties_go_to_the_first_name_by_every_selector() {
    for word in Selector::WORDS {
        let meta = VmMeta { selector: Some(word.parse().unwrap()), ..VmMeta::default() };
        let equal = cluster(vec![node("c", 4), node("b", 4), node("d", 4)], vec![]);
        assert_eq!(place(&equal, 64, 1, &meta).node(), Some(&name("b")), "{word}");
    }
}

#[test]
fn the_load_that_is_on_its_way_counts_before_the_node_reports_it() {
    let by_load = VmMeta { selector: Some(Selector::Load), ..VmMeta::default() };
    let nodes = || vec![node("a", 8).reporting(|r| r.load = 0.5), node("b", 8).reporting(|r| r.load = 1.0)];
    assert_eq!(place(&cluster(nodes(), vec![]), 64, 1, &by_load).node(), Some(&name("a")));
    for coming in [waiting(1, "a", 64), moving(1, "b", "a", 64)] {
        assert_eq!(place(&cluster(nodes(), vec![coming]), 64, 1, &by_load).node(), Some(&name("b")));
    }
    let there = cluster(nodes(), vec![running(1, "a", 64)]);
    assert_eq!(place(&there, 64, 1, &by_load).node(), Some(&name("a")), "its load is in the report already");
}

#[test]
fn a_vm_without_a_selector_goes_by_the_clusters() {
    let mut view = cluster(vec![node("a", 4), node("b", 8)], vec![running(1, "b", 64)]);
    assert_eq!(small(&view).as_deref(), Some("b"));
    view.config.selector = Selector::Vms;
    assert_eq!(small(&view).as_deref(), Some("a"));
    let own = VmMeta { selector: Some(Selector::Mem), ..VmMeta::default() };
    assert_eq!(place(&view, 512, 1, &own).node(), Some(&name("b")));
}

#[test]
fn a_new_vm_needs_its_bridges_too() {
    let meta = VmMeta::default();
    let devices = Devices::read(
        "<domain><devices><interface type='bridge'><source bridge='br1'/></interface></devices></domain>",
    );
    let view = cluster(vec![node("a", 8), node("b", 4).but(|n| n.report().bridges = vec!["br1".to_owned()])], vec![]);
    let placement = choose(&view, &Ledger::of(&view), &Wanted::new(Demand::default(), &meta, &devices));
    assert_eq!((placement.node(), placement.reasons()), (Some(&name("b")), "a: it has no bridge br1".to_owned()));
}

#[test]
fn what_its_own_node_does_not_say_is_no_permission() {
    let silent = || node("h", 8).unreported();
    let ask = |nodes: Vec<NodeView>, how, change: fn(&mut Setting)| {
        let mut s = Setting { h: silent(), b: node("b", 8), vm: running(1, "h", 64) };
        change(&mut s);
        let view = cluster(nodes.into_iter().chain([s.b]).collect(), vec![s.vm.clone()]);
        choose(&view, &Ledger::of(&view), &Wanted::moved(&s.vm).by(how)).verdicts.remove(0).1
    };
    let unknown = Verdict::Rejected(Rejection::StorageUnknown("/d".to_owned()));
    for nodes in [vec![], vec![silent()]] {
        assert_eq!(ask(nodes.clone(), How::Cold, |s| _ = s.disk("/d")), unknown);
        assert_eq!(ask(nodes.clone(), How::Live, |_| {}), Verdict::Rejected(Rejection::SourceUnknown));
        assert!(matches!(ask(nodes, How::Cold, |_| {}), Verdict::Fits { .. }));
    }
}

#[test]
fn what_is_kept_of_a_choice_is_small_and_says_which_were_next_and_why_the_others_not() {
    let mut nodes: Vec<NodeView> = (10..40).map(|n| node(&format!("n{n}"), 8 + n % 4)).collect();
    nodes.extend((40..70).map(|n| node(&format!("n{n}"), 8).in_state(NodeState::Flushed)));
    nodes.extend((70..100).map(|n| node(&format!("n{n}"), 8).without_hypervisor(&format!("{n} {}", "é".repeat(500)))));
    let kept = place(&cluster(nodes, vec![]), 1000, 1, &VmMeta::default()).kept();
    let score = 11 * 1024 - 512 - 1096;
    assert_eq!(
        (kept.selector, kept.score, kept.left),
        (Some(Selector::Mem), Some(score), Some(Bytes::mib(score as u64)))
    );
    let others: Vec<(&str, i64)> = kept.others.iter().map(|other| (other.node.as_str(), other.score)).collect();
    assert_eq!(others, [("n15", score), ("n19", score), ("n23", score)], "n11 was chosen");
    assert_eq!(kept.others_more, 26);
    let rejected: Vec<(&str, u32)> = kept.rejected.iter().map(|of| (of.node.as_str(), of.more)).collect();
    assert_eq!((rejected, kept.rejected_more), (vec![("n40", 29), ("n70", 29)], 0));
    assert_eq!(kept.rejected[0].why, "it is in state flushed");
    assert_eq!(kept.rejected[1].why.chars().count(), 160);
    let (by, to, how) = (drover_model::PlacedBy::Flush, name("n11"), Some(How::Live));
    let placed = drover_model::Placed { by, at: drover_model::WallTime(0), to, how, reasons: kept.clone() };
    let said = drover_model::wire::Placed::of(&placed).in_short();
    let wanted =
        format!("score {score} by mem, the highest; not n40 and 29 alike (it is in state flushed), n70 and 29");
    assert!(said.starts_with(&wanted) && !said.contains("next"), "{said}");
    assert!(said.chars().count() < 400, "{said}");
    // As many kinds of reasons as there are: the rest is counted.
    let every = vec![
        node("a", 8).dead(),
        node("b", 8).in_state(NodeState::Flush),
        node("c", 8).without_hypervisor("x"),
        node("d", 1),
        node("e", 8).reporting(|r| r.cpus = 1),
        node("f", 8).but(|n| {
            n.unreadable = Some(Arc::new(drover_model::Unreadable {
                version: drover_model::Version(1),
                newer: None,
                why: String::new(),
                document: Default::default(),
            }))
        }),
        node("g", 8),
        node("h", 8).dead(),
    ];
    let meta = VmMeta { node_limit: ["a", "b", "c", "d", "e", "f", "h"].map(name).into(), ..VmMeta::default() };
    let kept = place(&cluster(every, vec![]), 1000, 2, &meta).kept();
    let rejected: Vec<(&str, u32)> = kept.rejected.iter().map(|of| (of.node.as_str(), of.more)).collect();
    assert_eq!(rejected, [("a", 1), ("b", 0), ("c", 0), ("d", 0), ("e", 0), ("f", 0)]);
    assert_eq!((kept.rejected_more, kept.score, kept.others), (1, None, vec![]));
}

#[test]
fn a_node_that_is_named_for_a_new_vm_must_have_what_its_definition_names() {
    let with = |parts: &str| Devices::read(&format!("<domain><devices>{parts}</devices></domain>"));
    let bridged = with("<interface type='bridge'><source bridge='br1'/></interface>");
    let file = |file: &str| with(&format!("<disk type='file'><source file='{file}'/></disk>"));
    let newer = |n: &mut NodeView| {
        let problem = drover_model::Unreadable {
            version: drover_model::Version(1),
            newer: Some((2, 1)),
            why: String::new(),
            document: Default::default(),
        };
        n.unreadable = Some(Arc::new(problem));
    };
    let nodes = vec![
        node("has", 8).bridged(&["br0", "br1"]).sharing(&["/other", "/srv"]),
        node("not", 8).bridged(&["br10"]).sharing(&["/srv2"]),
        node("full", 1).in_state(NodeState::Flushed).dead().bridged(&["br1"]).sharing(&["/srv"]),
        node("silent", 8).unreported(),
        node("newer", 8).bridged(&["br1"]).sharing(&["/srv"]).but(newer),
    ];
    let view = cluster(nodes, vec![]);
    let asked = |devices: &Devices| {
        let ask = |n| has_for_new(&view, &name(n), devices).err().map(|why| why.to_string()).unwrap_or_default();
        ["has", "not", "full", "silent", "newer"].map(ask)
    };
    let (silent, newer) = ("it has not reported its resources yet".to_owned(), "its records are unreadable");
    let [has, not, full, quiet, later] = asked(&bridged);
    assert_eq!((&*has, &*not, &*full, &quiet), ("", "it has no bridge br1", "", &silent), "there need be no room");
    assert!(later.starts_with(newer), "{later}");
    let [has, not, full, quiet, later] = asked(&file("/srv/x/a.img"));
    let lacks = "it does not share /srv (paths.shared), where /srv/x/a.img is";
    assert_eq!((&*has, &*not, &*full, &quiet), ("", lacks, "", &silent));
    assert!(later.starts_with(newer), "{later}");
    // What nobody shares is the node's own, and one that needs nothing may be anywhere.
    for anywhere in [file("/var/lib/a.img"), file("/srv3/a.img"), with("<interface type='user'/>")] {
        assert_eq!(asked(&anywhere), [""; 5].map(str::to_owned));
    }
    // The chooser asks the same.
    let (meta, devices) = (VmMeta::default(), file("/srv/x/a.img"));
    let placement = choose(&view, &Ledger::of(&view), &Wanted::new(Demand::default(), &meta, &devices));
    assert_eq!(placement.node(), Some(&name("has")));
    assert!(placement.reasons().contains(&format!("not: {lacks}")), "{}", placement.reasons());
    // One that shares another of the folders in which the file is has it too.
    let nested = cluster(vec![node("a", 8).sharing(&["/srv"]), node("b", 8).sharing(&["/srv/x"])], vec![]);
    assert_eq!(["a", "b"].map(|n| has_for_new(&nested, &name(n), &devices).is_ok()), [true, true]);
}
