//! Where a VM goes that was moved while off, and cannot be started at its target.

use crate::{
    capacity::Ledger,
    place::{self, Placement, Wanted},
};
use drover_model::{
    ClusterView, How, MoveKind, NodeName, NodeState, Placed, PlacedBy, Stored, VmRecord, VmState, WallTime,
    placed::Reasons,
};

/// What becomes of a VM that cannot be started at its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// The view does not show the VM as it is yet.
    Unknown,
    /// It fails: it has run here, or there is no other node for it.
    Nowhere,
    /// It goes to another node.
    To(Box<Return>),
}

/// A move to where a VM came from, or to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// The target.
    pub to: NodeName,
    /// What that does to its home.
    pub kind: MoveKind,
    /// Reasons of the choice.
    pub why: Reasons,
}

/// Where a VM goes that came `from` a node while off and cannot be started where it is: back. If that node takes no
/// VMs, to another one; if there is none, back although that node is being flushed, for a VM that runs is better than
/// an empty node. A node at which it could not be started is not tried again, so this ends.
pub fn back(view: &ClusterView, record: &Stored<VmRecord>, from: Option<&NodeName>) -> Back {
    let Some(from) = from else { return Back::Nowhere };
    let Some(vm) = view.vms.get(&record.value.uuid).filter(|vm| vm.record.version == record.version) else {
        return Back::Unknown;
    };
    let home = record.value.last_node.as_ref();
    let kind = |to: &NodeName| match home {
        Some(home) if home == to => MoveKind::Unmigrate,
        Some(_) => MoveKind::Migrate,
        None => MoveKind::Move,
    };
    let ledger = Ledger::of(view);
    let choose = |wanted: Wanted<'_>| place::choose(view, &ledger, &wanted.by(How::Cold));
    let found = |placement: Placement| {
        let to = placement.node()?.clone();
        Some(Box::new(Return { kind: kind(&to), to, why: placement.kept() }))
    };
    let is_flushed = view.nodes.get(from).is_some_and(|node| node.record.value.domain_state == NodeState::Flush);
    let wanted = || Wanted::moved(vm);
    let back = || choose(Wanted { returns: Some(from), ..wanted() }.coming_to(view, from, kind(from)));
    let first = found(back()).filter(|_| !is_flushed);
    match first.or_else(|| found(choose(wanted()))).or_else(|| found(back())) {
        Some(to) => Back::To(to),
        None => Back::Nowhere,
    }
}

impl Return {
    /// The VM's record with the order to go there, after it could not be started `here`. `now` is its time for users.
    pub fn ordered(&self, record: &VmRecord, here: &NodeName, why: &str, now: WallTime) -> VmRecord {
        let Return { to, kind, why: reasons } = self.clone();
        let how = How::Cold;
        let placed = Placed { by: PlacedBy::Refused, at: now, to: to.clone(), how: Some(how), reasons };
        let state = VmState::Migrate { to, kind, how };
        VmRecord { state, going: Some(Box::new(placed)), ..record.refused_at(here, why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{StartRefused, testing::*};

    /// A VM at b, which it was brought to from a.
    fn brought(nodes: Vec<drover_model::NodeView>, refused: &[&str], home: Option<&str>) -> Back {
        let vm = running(1, "b", 64).but(|vm| {
            vm.record.value.last_node = home.map(name);
            let words = |node: &&str| StartRefused { node: name(node), why: "no firmware".to_owned() };
            vm.record.value.refused = refused.iter().map(words).collect();
        });
        let view = cluster(nodes, vec![vm.clone()]);
        back(&view, &vm.record, Some(&name("a")))
    }

    fn to(back: Back) -> Option<(String, MoveKind)> {
        match back {
            Back::To(to) => Some((to.to.to_string(), to.kind)),
            Back::Nowhere => None,
            Back::Unknown => panic!("the view shows it"),
        }
    }

    #[test]
    fn it_goes_back_or_to_another_node_or_fails() {
        use MoveKind::*;
        use NodeState::*;
        // State of a, whether there is a c, refused by, home.
        type Given = (NodeState, bool, &'static [&'static str], Option<&'static str>);
        let rows: Vec<(Given, Option<(&str, MoveKind)>)> = vec![
            ((Ready, true, &[], Some("a")), Some(("a", Unmigrate))),
            ((Ready, true, &[], None), Some(("a", Move))),
            ((Ready, true, &[], Some("d")), Some(("a", Migrate))),
            ((Unflush, true, &[], Some("a")), Some(("a", Unmigrate))),
            ((Flush, true, &[], Some("a")), Some(("c", Migrate))),
            ((Flush, false, &[], Some("a")), Some(("a", Unmigrate))),
            ((Flush, true, &["c"], Some("a")), Some(("a", Unmigrate))),
            ((Flushed, true, &[], Some("a")), Some(("c", Migrate))),
            ((Flushed, false, &[], Some("a")), None),
            ((Ready, true, &["a"], None), Some(("c", Move))),
            ((Ready, true, &["a", "c"], None), None),
        ];
        for ((state, other, refused, home), wanted) in rows {
            let mut nodes = vec![node("a", 8).in_state(state), node("b", 8)];
            nodes.extend(other.then(|| node("c", 8)));
            let got = to(brought(nodes, refused, home));
            let wanted = wanted.map(|(node, kind)| (node.to_owned(), kind));
            assert_eq!(got, wanted, "a in {state}, c: {other}, refused by {refused:?}, home {home:?}");
        }
        assert_eq!(to(brought(vec![node("a", 8).dead(), node("b", 8)], &[], Some("a"))), None);
        assert_eq!(
            to(brought(vec![node("a", 8).dead(), node("b", 8), node("c", 8)], &[], None)),
            Some(("c".to_owned(), Move))
        );
    }

    #[test]
    fn it_stays_where_it_has_run_and_waits_for_a_view_that_shows_it() {
        let vm = running(1, "b", 64);
        let view = cluster(vec![node("a", 8), node("b", 8)], vec![vm.clone()]);
        assert_eq!(back(&view, &vm.record, None), Back::Nowhere);
        let later = Stored::new(vm.record.value.clone(), vm.record.version.next());
        assert_eq!(back(&view, &later, Some(&name("a"))), Back::Unknown);
    }

    #[test]
    fn the_order_says_what_happened_and_to_whom() {
        let record = running(1, "b", 64).record.value.refused_at(&name("b"), "earlier");
        let there = Return { to: name("a"), kind: MoveKind::Move, why: Reasons::default() };
        let ordered = there.ordered(&record, &name("b"), &"x".repeat(1000), WallTime(7));
        assert_eq!(ordered.state.destination(), Some(&name("a")));
        let [refused] = &ordered.refused[..] else { panic!("one for each node") };
        assert_eq!((&refused.node, refused.why.len()), (&name("b"), drover_model::vm::REFUSED_WHY_MAX));
        assert_eq!(ordered.accepted_at(&name("b")).refused, []);
        assert_eq!(ordered.accepted_at(&name("a")).refused.len(), 1);
    }
}
