//! Golden tables of the choice of a node; and the clusters that other tests are made of.

mod properties;

use super::*;
use drover_model::{
    Claim, Kept, MoveKind, NodeRecord, NodeSession, Role, Stored, Version, VmName, VmState, WallTime,
    node::NODE_SCHEMA,
    vm::{Epoch, Generation, VM_SCHEMA},
};
use proptest::test_runner::{Config, RngSeed};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn name(n: &str) -> NodeName {
    NodeName::new(n).unwrap()
}

pub(crate) fn kept<T>(value: T) -> Kept<T> {
    Stored::new(value, Version::NEW).into()
}

/// A node that takes VMs, with so much memory and four processor threads.
pub(crate) fn node(n: &str, gib: u64) -> NodeView {
    NodeView {
        record: kept(NodeRecord {
            schema: NODE_SCHEMA,
            name: name(n),
            machine: String::new(),
            role: Role::Coordinator,
            api: String::new(),
            migration: String::new(),
            domain_state: DomainState::Ready,
        }),
        status: Some(kept(NodeStatus {
            schema: NODE_SCHEMA,
            daemon: DaemonState::Run,
            version: String::new(),
            kernel: String::new(),
            os: String::new(),
            arch: String::new(),
            hypervisor: String::new(),
            hypervisor_problem: String::new(),
            domain_type: None,
            cpus: 4,
            memory_total: Bytes::mib(gib * 1024),
            memory_free: Bytes::mib(gib * 1024),
            load: 0.0,
            domains: vec![],
            cpu_model: String::new(),
            bridges: vec![],
            network_problems: vec![],
            floating: vec![],
            shared: vec![],
            drain: None,
            duties: vec![],
            updated: WallTime(0),
        })),
        session: Some(kept(NodeSession {
            schema: NODE_SCHEMA,
            instance: Uuid::nil(),
            machine: String::new(),
            boot: String::new(),
            started: WallTime(0),
        })),
        unreadable: None,
    }
}

/// The same in another state.
pub(crate) fn node_in(n: &str, gib: u64, state: DomainState) -> NodeView {
    let mut node = node(n, gib);
    node.record.value.domain_state = state;
    node
}

pub(crate) fn status(node: &mut NodeView) -> &mut NodeStatus {
    node.status.as_mut().unwrap()
}

/// `vm<n>` with one vCPU: its state, the node that it is assigned to, the node that holds its claim, its memory.
pub(crate) fn vm(n: u128, state: VmState, on: &str, held: Option<&str>, mib: u64) -> VmView {
    VmView {
        record: kept(VmRecord {
            schema: VM_SCHEMA,
            uuid: Uuid::from_u128(n),
            name: VmName::new(&format!("vm{n}")).unwrap(),
            state,
            node: Some(name(on)),
            last_node: None,
            xml: String::new(),
            generation: Generation(1),
            description: String::new(),
            profile: String::new(),
            meta: VmMeta::default(),
        }),
        claim: Some(kept(Claim { schema: VM_SCHEMA, node: held.map(name), epoch: Epoch(1), to: None })),
        claim_unreadable: false,
        status: None,
        arrival: None,
        demand: Demand { memory: Bytes::mib(mib), vcpus: 1 },
        devices: Arc::default(),
    }
}

/// `vm<n>`, which runs on a node.
pub(crate) fn running(n: u128, on: &str, mib: u64) -> VmView {
    vm(n, VmState::Start, on, Some(on), mib)
}

/// `vm<n>`, which runs on a node and is to go to another.
pub(crate) fn moving(n: u128, on: &str, to: &str, mib: u64) -> VmView {
    let state = VmState::Migrate { to: name(to), kind: MoveKind::Migrate, how: How::LiveElseCold };
    vm(n, state, on, Some(on), mib)
}

impl Tweak for NodeView {}
impl Tweak for VmView {}
/// One thing about it is otherwise.
pub(crate) trait Tweak: Sized {
    fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

pub(crate) fn cluster(nodes: Vec<NodeView>, vms: Vec<VmView>) -> ClusterView {
    let mut view = ClusterView::default();
    nodes.iter().for_each(|node| view.put_node(node));
    vms.iter().for_each(|vm| view.put_vm(vm));
    view
}

/// Properties are tried on the same cases each time, unless `PROPTEST_RNG_SEED` says otherwise.
pub(crate) fn same_cases(cases: u32) -> Config {
    let given = Config::default();
    let rng_seed = if given.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { given.rng_seed };
    let cases = if given.cases == 256 { cases } else { given.cases };
    Config { cases, rng_seed, failure_persistence: None, ..given }
}

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
fn what_runs_and_what_is_about_to_run_counts_what_is_off_does_not() {
    use VmState::*;
    let shutdown = Shutdown { timeout_s: 9, then: drover_model::AtRest::Stop };
    let rows = [
        ("starts on a", vm(1, Start, "a", None, 1024), "b"),
        ("runs on a", vm(1, Start, "a", Some("a"), 1024), "b"),
        ("may still run on a", vm(1, Stop, "b", Some("a"), 1024), "b"),
        ("is shut down on a", vm(1, shutdown, "a", Some("a"), 1024), "b"),
        ("restarts on a", vm(1, Restart { timeout_s: 9 }, "a", None, 1024), "b"),
        ("is on its way from a", moving(1, "a", "c", 1024), "b"),
        ("is on its way to a", moving(1, "c", "a", 1024), "b"),
        ("may have been sent to a", running(1, "c", 1024).but(|v| sending(v, "a")), "b"),
        ("is off on a", vm(1, Stop, "a", None, 1024), "a"),
        ("is disabled on a", vm(1, Disable, "a", None, 1024), "a"),
        ("failed on a", vm(1, Fail { reason: String::new() }, "a", None, 1024), "a"),
    ];
    for (what, vm, chosen) in rows {
        // Node c is in the cluster, but takes nothing.
        let nodes = vec![node("a", 4), node("b", 4), node_in("c", 64, DomainState::Flushed)];
        assert_eq!(small(&cluster(nodes, vec![vm])).as_deref(), Some(chosen), "a VM {what}");
    }
}

/// The claim says that the guest is being sent to that node.
pub(crate) fn sending(vm: &mut VmView, to: &str) {
    let claim = vm.claim.as_mut().unwrap();
    claim.value = claim.value.sending_to(Some(&name(to)));
}

#[test]
fn a_vm_that_moves_takes_its_room_at_both_ends_and_once_at_each() {
    let four = || vec![node("a", 4), node("b", 4), node("c", 4)];
    for vm in [moving(1, "a", "b", 2048), moving(1, "a", "b", 2048).but(|v| sending(v, "b"))] {
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
        node("a", 8).but(|n| n.session = None),
        node("b", 8).but(|n| n.status = None),
        node("c", 8).but(|n| status(n).daemon = DaemonState::Shutdown),
        node_in("d", 8, DomainState::Flush),
        node_in("e", 8, DomainState::Flushed),
        node_in("f", 8, DomainState::Unflush),
        node("g", 8).but(|n| status(n).hypervisor_problem = "no libvirtd".to_owned()),
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
    fn limit(&mut self, nodes: &str) {
        self.vm.record.value.meta.node_limit = nodes.split_whitespace().map(name).collect();
    }
    fn size(&mut self, mib: u64, vcpus: u32) {
        self.vm.demand = Demand { memory: Bytes::mib(mib), vcpus };
    }
    fn bridges(&mut self, b: &str) {
        status(&mut self.b).bridges = vec![b.to_owned()];
    }
    fn shared(&mut self, h: &str, b: &str) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        (status(&mut self.h).shared, status(&mut self.b).shared) = (words(h), words(b));
    }
    fn execution(&mut self, h: Option<DomainType>, b: Option<DomainType>) {
        (status(&mut self.h).domain_type, status(&mut self.b).domain_type) = (h, b);
    }
    fn processors(&mut self, how: DomainType, h: &str, b: &str) {
        self.execution(Some(how), Some(how));
        (status(&mut self.h).cpu_model, status(&mut self.b).cpu_model) = (h.to_owned(), b.to_owned());
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
        nodes.push(node(on, 16).but(|n| status(n).load = load));
        for _ in 0..count {
            vms.push(running(vms.len() as u128, on, mib).but(|v| v.demand.vcpus = vcpus));
        }
        vms.push(vm(vms.len() as u128, VmState::Stop, on, None, off));
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
    let nodes = || vec![node("a", 8).but(|n| status(n).load = 0.5), node("b", 8).but(|n| status(n).load = 1.0)];
    assert_eq!(place(&cluster(nodes(), vec![]), 64, 1, &by_load).node(), Some(&name("a")));
    for coming in [vm(1, VmState::Start, "a", None, 64), moving(1, "b", "a", 64)] {
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
    let view = cluster(vec![node("a", 8), node("b", 4).but(|n| status(n).bridges = vec!["br1".to_owned()])], vec![]);
    let placement = choose(&view, &Ledger::of(&view), &Wanted::new(Demand::default(), &meta, &devices));
    assert_eq!((placement.node(), placement.reasons()), (Some(&name("b")), "a: it has no bridge br1".to_owned()));
}

#[test]
fn what_its_own_node_does_not_say_is_no_permission() {
    let silent = || node("h", 8).but(|n| n.status = None);
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
