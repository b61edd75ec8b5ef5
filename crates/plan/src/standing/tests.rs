use super::*;
use drover_model::{ClusterConfig, How, MoveKind, VmView, testing::*};

fn size(mib: u64) -> Demand {
    Demand { memory: Bytes::mib(mib), vcpus: 1 }
}

/// What the loss of a node would mean.
fn single(view: &ClusterView, node: &str) -> Losses {
    Losses { each: vec![(name(node), loss(view, &[name(node)], None))], together: None }
}

/// What the loss of each node would mean, and of several at once.
fn all(view: &ClusterView) -> Losses {
    let each = view.nodes.keys().map(|node| (node.clone(), loss(view, std::slice::from_ref(node), None)));
    let mut losses = Losses { each: each.collect(), together: None };
    let sets = sets(view, &losses.each);
    for nodes in &sets.sets {
        losses.add(&sets, nodes, loss(view, nodes, None));
    }
    losses
}

/// The nodes whose loss at once is the worst, the VMs for which there would be no memory, the number of losses that
/// were planned and the number of all, and the fault.
fn worst(view: &ClusterView) -> (String, String, (u64, u64), Option<String>) {
    let losses = all(view);
    let fault = faults(view, &losses).remove("recovery-together-short").map(|(message, _)| message);
    let Some(Together { nodes, loss, planned, all }) = losses.together else { return Default::default() };
    let nodes: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    let short: Vec<String> = loss.short.iter().map(ToString::to_string).collect();
    (nodes.join("+"), short.join(" "), (planned, all), fault)
}

fn tolerating(tolerate: u32, nodes: Vec<NodeView>, vms: Vec<VmView>) -> ClusterView {
    let mut view = cluster(nodes, vms);
    view.config.tolerate = tolerate;
    view
}

/// What the loss of a node would mean, and its fault.
fn told(view: &ClusterView, node: &str) -> (Loss, Option<String>) {
    let losses = single(view, node);
    let fault = faults(view, &losses).remove(&format!("recovery-short-{node}"));
    (losses.each[0].1.clone(), fault.map(|(message, _)| message))
}

#[test]
fn a_loss_that_leaves_no_memory_is_a_fault_and_names_what_is_missing() {
    let vms = || vec![running(1, "a", 1024), running(2, "a", 2048), running(3, "b", 4096)];
    let view = cluster(vec![node("a", 8), node("b", 8), node("c", 4)], vms());
    let (lost, fault) = told(&view, "a");
    assert_eq!((lost.go_on, fault), (2, None));

    let view = cluster(vec![node("a", 8), node("b", 8), node("c", 2)], vms());
    let (lost, _) = told(&view, "b");
    assert_eq!((lost.go_on, lost.short.len(), lost.bound.len()), (1, 0, 0), "a takes it");
    let mut view = cluster(vec![node("a", 6), node("b", 8), node("c", 2)], vms());
    let (lost, fault) = told(&view, "b");
    let needed = Bytes::mib(4096).saturating_add(OVERHEAD);
    assert_eq!((lost.go_on, lost.short, lost.missing), (0, vec![VmName::new("vm3").unwrap()], needed));
    assert!(fault.is_some_and(|message| message.contains("no memory for 1 of its VMs (vm3)")));

    let config = view.config.clone();
    view.config = ClusterConfig { tolerate: 0, ..config.clone() };
    assert_eq!(told(&view, "b").1, None, "it need not be tolerated");
    view.config = config;
    view.change_node(&name("b"), |node| node.session = None);
    assert_eq!(told(&view, "b").1, None, "it is silent, which is a fault itself");
}

#[test]
fn a_vm_that_is_bound_to_its_node_lacks_no_memory() {
    let disk = "<devices><disk type='file'><source file='/own/disk'/><target dev='vda'/></disk></devices>";
    let view = cluster(vec![node("a", 8), node("b", 8)], vec![running(1, "a", 512).defined(disk)]);
    let (lost, fault) = told(&view, "a");
    assert_eq!((lost.bound.len(), lost.short.len(), fault), (1, 0, None));
}

#[test]
fn a_living_node_takes_nothing_in_the_plan_for_its_loss() {
    // Off, and to be deleted: any node could do it.
    let vm = vm(1, 512).on("a").wanted(VmState::Delete { disks: false });
    let view = cluster(vec![node("a", 8), node("b", 8)], vec![vm]);
    let plan = if_lost(&view, &[name("a")]);
    assert_eq!(plan.items[0].fate, Fate::DeletedBy(name("b")));
}

#[test]
fn an_order_is_warned_of_once_and_only_if_its_vm_would_run() {
    let resting = || vm(1, 4096).on("b").wanted(VmState::Stop);
    let view = cluster(vec![node("a", 2), node("b", 8)], vec![resting(), running(2, "b", 512)]);
    let warned = |view: &ClusterView| {
        let view = if_started(view, &Uuid::from_u128(1));
        warnings(&view, &single(&view, "b")).concat()
    };
    assert_eq!(faults(&view, &single(&view, "b")).len(), 0, "it is off");
    assert!(warned(&view).contains("no memory for 1 of its VMs (vm1)"), "{}", warned(&view));
    let roomy = cluster(vec![node("a", 8), node("b", 8)], vec![resting()]);
    assert_eq!(warned(&roomy), "");
    let mut lenient = view.clone();
    lenient.config = ClusterConfig { tolerate: 0, ..view.config.clone() };
    assert_eq!(warned(&lenient), "");
    let vm = view.vms.get(&Uuid::from_u128(1)).unwrap();
    let migrating = VmState::Migrate { to: name("a"), how: How::Cold, kind: MoveKind::Move };
    let mut moving = view.clone();
    moving.put_vm(&VmView::clone(vm).wanted(migrating.clone()));
    let moving = if_started(&moving, &Uuid::from_u128(1));
    assert_eq!(moving.vms[&Uuid::from_u128(1)].record.value.state, migrating, "what it does is not changed");
}

#[test]
fn further_vms_are_counted_with_and_without_a_loss() {
    let view = cluster(vec![node("a", 4), node("b", 4)], vec![running(1, "a", 1024)]);
    let after = loss(&view, &[name("a")], Some(size(1024))).further;
    assert_eq!((further(&view, size(1024)), after), (5, Some(2)), "memory, less the reserve and QEMU's own");
    assert_eq!(further(&view, Demand { vcpus: 5, ..size(1) }), 0, "no node has so many threads");
}

/// Each single loss fits, in any of the other two.
fn three(tolerate: u32) -> ClusterView {
    let vms = vec![running(1, "a", 1024), running(2, "b", 2048), running(3, "c", 1024)];
    tolerating(tolerate, vec![node("a", 4), node("b", 4), node("c", 4)], vms)
}

#[test]
fn a_loss_of_two_nodes_at_once_is_a_fault_where_each_alone_could_be_absorbed() {
    let view = three(1);
    assert_eq!((faults(&view, &all(&view)), all(&view).together), (BTreeMap::new(), None), "one is to be tolerated");
    let view = three(2);
    let losses = all(&view);
    assert!(losses.each.iter().all(|(_, loss)| loss.short.is_empty()), "{losses:?}");
    let (nodes, short, planned, fault) = worst(&view);
    // 3.5 GiB can be promised by c, which has one VM: that takes vm2, and not vm1 as well.
    assert_eq!((&*nodes, &*short, planned), ("a+b", "vm1", (3, 3)));
    let message = fault.unwrap_or_default();
    let says =
        "If 2 nodes were lost at once (a, b), the others would have no memory for 1 of their VMs (vm1): 1120 MiB";
    assert!(message.starts_with(says) && message.contains("--tolerate 1'"), "{message}");
    assert_eq!(faults(&view, &losses).len(), 1, "no single loss is one");
    let mut view = view;
    view.config.tolerate = 0;
    assert_eq!((faults(&view, &losses), all(&view).together), (BTreeMap::new(), None));
}

#[test]
fn the_worst_loss_of_two_is_found_among_all_and_among_many() {
    // Of c and d, which are as large as the rest together, c has nothing to be recovered.
    let few = || vec![node("a", 4), node("b", 4), node("c", 9), node("d", 9)];
    let vms = || vec![running(1, "a", 2048), running(2, "b", 2048), running(3, "d", 4096)];
    let (nodes, short, planned, _) = worst(&tolerating(2, few(), vms()));
    assert_eq!((&*nodes, &*short, planned), ("c+d", "vm3", (6, 6)));

    let others = || (0..20).map(|n| node(&format!("n{n:02}"), 4));
    let on_others = || (0..20).map(|n| running(100 + n, &format!("n{n:02}"), 2048));
    let many = |tolerate| {
        tolerating(
            tolerate,
            few().into_iter().chain(others()).collect(),
            vms().into_iter().chain(on_others()).collect(),
        )
    };
    let (nodes, short, (planned, all), fault) = worst(&many(2));
    assert_eq!((&*nodes, &*short, all), ("c+d", "vm3", 276));
    assert!(planned < 40 && fault.is_some(), "{planned}");
    let (nodes, _, (planned, all), _) = worst(&many(3));
    assert!(nodes.starts_with("a+c+d") && planned < 40 && all == 2024, "{nodes}, {planned} of {all}");
}

#[test]
fn a_later_version_may_want_more_than_is_planned_here() {
    let nodes = (0..30).map(|n| node(&format!("n{n:02}"), 4)).collect();
    let losses = all(&tolerating(15, nodes, vec![]));
    assert_eq!(losses.together.map(|worst| worst.nodes.len()), Some(TOLERATE_MAX as usize));
}

#[test]
fn if_no_node_is_left_there_is_no_memory() {
    let vms = || vec![running(1, "a", 512), running(2, "b", 512), vm(3, 512).on("a").wanted(VmState::Stop)];
    for tolerate in [2, 3] {
        let (nodes, short, planned, fault) = worst(&tolerating(tolerate, vec![node("a", 4), node("b", 4)], vms()));
        assert_eq!((&*nodes, &*short, planned, fault.is_some()), ("a+b", "vm1 vm2", (1, 1), true), "{tolerate}");
    }
    let one = tolerating(3, vec![node("a", 4)], vec![running(1, "a", 512)]);
    assert_eq!((faults(&one, &all(&one)), all(&one).together), (BTreeMap::new(), None), "it was never more than one");
}

#[test]
fn a_vm_that_is_bound_lacks_no_memory_if_a_node_is_left() {
    let mut bound = running(1, "a", 512);
    bound.record.value.meta.node_limit = ["a", "b"].map(name).into();
    let view = tolerating(2, vec![node("a", 4), node("b", 4), node("c", 4)], vec![bound]);
    let at_once = loss(&view, &["a", "b"].map(name), None);
    assert_eq!((at_once.bound.len(), at_once.short.len(), worst(&view).3), (1, 0, None));
}

#[test]
fn a_node_that_is_silent_or_takes_and_has_nothing_is_not_among_those_that_are_lost() {
    let mut view = three(2);
    view.change_node(&name("a"), |node| node.session = None);
    assert_eq!((worst(&view).0, worst(&view).2), ("b+c".to_owned(), (1, 1)));
    let mut view = three(2);
    view.put_node(&node("d", 4));
    assert_eq!(worst(&view).2, (6, 6), "what it takes, others cannot take if it is lost");
    view.change_node(&name("d"), |node| node.status = None);
    assert_eq!(worst(&view).2, (3, 3), "it has no VM, and takes none");
}

/// What moves between two nodes that are lost needs a place elsewhere.
#[test]
fn a_vm_on_its_way_to_a_node_that_is_lost_as_well_is_recovered_from_there() {
    let both = ["a", "b"].map(name);
    for sent in [false, true] {
        let mut vm = moving(1, "a", "b", 2048);
        if sent {
            let claim = vm.claim.take().unwrap();
            let value = claim.value.sending_to(&name("b"));
            vm.claim = Some(Stored { value, ..(*claim).clone() }.into());
        }
        let view = |gib| tolerating(2, vec![node("a", 4), node("b", 4), node("c", gib)], vec![vm.clone()]);
        let roomy = loss(&view(4), &both, None);
        assert_eq!((roomy.go_on, roomy.short.len(), roomy.needed.as_mib() > 2048), (1, 0, true), "sent: {sent}");
        let tight = loss(&view(2), &both, None);
        assert_eq!((tight.go_on, tight.short.len()), (0, 1), "sent: {sent}");
        assert_eq!(loss(&view(2), &both[..1], None).go_on, 1, "b has it, or takes it; sent: {sent}");
        let nodes = vec![node("a", 4), node("b", 4), node("c", 4)];
        let beside = loss(&tolerating(2, nodes, vec![vm, running(2, "a", 2048)]), &both, None);
        assert_eq!((beside.go_on, beside.short.len()), (1, 1), "the room is counted once; sent: {sent}");
    }
}

#[test]
fn an_order_is_warned_of_if_two_losses_at_once_could_not_be_absorbed() {
    let mut view = three(2);
    view.put_vm(&vm(2, 2048).on("b").wanted(VmState::Stop));
    assert_eq!(warnings(&view, &all(&view)), Vec::<String>::new(), "it is off");
    let started = if_started(&view, &Uuid::from_u128(2));
    let said = warnings(&view, &all(&started)).concat();
    assert!(said.contains("If 2 nodes were lost at once (a, b)"), "{said}");
}
