//! What follows from a proof, and what is said of one that was false.

use super::*;
use crate::recover::Fate;

/// The view of a node that is off, as its BMC reads, with the cluster's configuration.
fn off(config: &ClusterConfig, change: impl Fn(Fence) -> Fence) -> ClusterView {
    let mut view = cluster(five(), vec![]);
    silence(&mut view, &["c"]);
    let record = &view.nodes.get(&name("c")).unwrap().record.value;
    let what = "B reads off".to_owned();
    let evidence = Evidence { kind: EvidenceKind::Power, at: WallTime(1), by: name("a"), what };
    let fence = change(Fence::suspicion(record, &name("a"), Epoch(1), WallTime(0)).proved(evidence));
    put(&mut view, "c", &fence);
    view.apply(&ClusterConfig::path(&Only), Some((&serde_json::to_vec(config).unwrap(), Version(1))));
    view
}

#[test]
fn a_proof_waits_for_an_administrator_if_the_policy_says_so() {
    let config = ClusterConfig { after_proof: AfterProof::None, ..ClusterConfig::default() };
    let view = off(&config, |fence| fence);
    assert_eq!(steps(&view, &[("c", 50)], 60), []);
    let (message, _) = &faults(&view, &outlook(&view, &[("c", 50)], 60), &Plan::default())["node-dead-c"];
    assert!(message.contains("its VMs wait") && message.contains("--confirm-off"), "{message}");
    let node = view.nodes.get(&name("c")).unwrap().record.value.clone();
    let old = view.fences().get(&name("c")).unwrap().value.clone();
    let said = |old: &Fence| confirm(&node, None, Some(old), (None, false), (&name("a"), Epoch(4)), WallTime(7));
    let confirmed = said(&old).unwrap().unwrap();
    let kinds: Vec<_> = confirmed.evidence.iter().map(|evidence| evidence.kind).collect();
    assert_eq!(kinds, [EvidenceKind::Power, EvidenceKind::Administrator]);
    assert_eq!(said(&confirmed), Ok(None), "it is known");
    let recover = vec![("c".to_owned(), Step::Recover)];
    assert_eq!(steps(&off(&config, |_| confirmed.clone()), &[("c", 50)], 60), recover);
    assert_eq!(steps(&off(&ClusterConfig::default(), |fence| fence), &[("c", 50)], 60), recover, "by default");
}

#[test]
fn a_nodes_own_policy_is_in_force_instead_of_the_clusters() {
    use AfterProof::{None as Wait, Recover};
    for (cluster, own, waits) in
        [(Wait, None, true), (Wait, Some(Recover), false), (Recover, Some(Wait), true), (Recover, None, false)]
    {
        let config = ClusterConfig { after_proof: cluster, ..ClusterConfig::default() };
        let mut view = off(&config, |fence| fence);
        view.change_node(&name("c"), |node| node.record.after_proof = own);
        // Another node's is not.
        view.change_node(&name("b"), |node| node.record.after_proof = Some(if waits { Recover } else { Wait }));
        let wanted = if waits { vec![] } else { vec![("c".to_owned(), Step::Recover)] };
        assert_eq!(steps(&view, &[("c", 50)], 60), wanted, "{cluster:?} {own:?}");
        let faults = faults(&view, &outlook(&view, &[("c", 50)], 60), &Plan::default());
        assert_eq!(faults["node-dead-c"].0.contains("its VMs wait"), waits, "{cluster:?} {own:?}: {faults:?}");
    }
    let node = |own| NodeRecord { power_on: own, ..view_of_c().clone() };
    let cluster = |power_on| ClusterConfig { power_on, ..ClusterConfig::default() };
    for (all, own, on) in [(true, None, true), (true, Some(false), false), (false, Some(true), true)] {
        assert_eq!(node(own).effective_power_on(&cluster(all)), on, "{all} {own:?}");
    }
}

fn view_of_c() -> NodeRecord {
    cluster(five(), vec![]).nodes[&name("c")].record.value.clone()
}

#[test]
fn a_node_whose_power_was_cut_is_switched_on_again_once_if_the_policy_said_so() {
    let config = |maintenance| ClusterConfig { maintenance, ..ClusterConfig::default() };
    let recovered =
        |fence: Fence| Fence { off_ordered: true, then_on: true, ..fence.to(FencePhase::Recovered, WallTime(3)) };
    let step = |config: &ClusterConfig, change: &dyn Fn(Fence) -> Fence| {
        step_of(outlook(&off(config, |fence| change(recovered(fence))), &[("c", 50)], 60))
    };
    assert_eq!(step(&config(false), &|fence| fence), Some(Step::PowerOn));
    assert_eq!(step(&config(true), &|fence| fence), None, "in maintenance");
    let quiet = config(false);
    let now_on = ClusterConfig { power_on: true, ..config(false) };
    assert_eq!(step(&now_on, &|fence| Fence { then_on: false, ..fence }), None, "it was cut under another policy");
    assert_eq!(step(&quiet, &|fence| Fence { on_ordered: true, ..fence }), None, "it was tried");
    assert_eq!(step(&quiet, &|fence| Fence { for_good: true, ..fence }), None, "it is gone for good");
    let confirmed = |fence: Fence| {
        let what = "said so".to_owned();
        let word = Evidence { kind: EvidenceKind::Administrator, at: WallTime(2), by: name("a"), what };
        Fence { evidence: [fence.evidence.clone(), vec![word]].concat(), ..fence }
    };
    assert_eq!(step(&quiet, &confirmed), None, "somebody may be at work in it");
    assert_eq!(step(&quiet, &|fence| fence.to(FencePhase::Proved, WallTime(4))), Some(Step::Recover), "first its VMs");

    // What waits for the node itself does not keep it off.
    let view = off(&quiet, |fence| recovered(fence).to(FencePhase::Recovering, WallTime(4)));
    let (lives, _) = liveness::observe(&Lives::new(), &view, at(0), WallTime(0));
    let with = |fate: Fate| {
        let item = crate::recover::Item { uuid: uuid::Uuid::nil(), vm: "web".parse().unwrap(), node: name("c"), fate };
        let plan = Plan { items: vec![item] };
        step_of(next(&view, (&lives, &BTreeSet::new()), &plan, &Tries::new(), at(60), WallTime(60_000)))
    };
    assert_eq!(with(Fate::Waits("its disk is there".to_owned())), Some(Step::PowerOn));
    assert_eq!(with(Fate::Freed), None);
}

#[test]
fn a_node_that_is_back_in_the_boot_that_was_proved_to_have_ended_is_a_fault() {
    let mut view = cluster(five(), vec![]);
    let over = fence(&view, "c", FencePhase::Over);
    put(&mut view, "c", &over);
    let faults = |view: &ClusterView| faults(view, &Outlook::default(), &Plan::default());
    let told = faults(&view);
    let (message, _) = &told["fence-false-c"];
    assert!(told.len() == 1 && message.contains("(said so)") && message.contains("two nodes at once"), "{told:?}");
    let mut joining = view.clone();
    joining.change_node(&name("c"), |node| node.session.as_mut().unwrap().boot = "b2".to_owned());
    assert_eq!(faults(&joining), BTreeMap::new(), "it has not written its new boot to its record");
    put(&mut view, "c", &Fence { boot: "b0".to_owned(), ..over });
    assert_eq!(faults(&view), BTreeMap::new(), "it was booted since");
    let fault = serde_json::json!({
        "schema": 1, "id": "fence-false-c", "message": "m", "health_delta": 1, "first_reported": 1, "last_reported": 1,
    });
    let at = drover_model::Fault::path(&"fence-false-c".to_owned());
    view.apply(&at, Some((&serde_json::to_vec(&fault).unwrap(), Version(0))));
    assert_eq!(reported(&view).collect::<Vec<_>>(), ["fence-false-c"], "so that it is withdrawn then");
}
