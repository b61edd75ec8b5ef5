//! Which losses of several nodes at once are planned: those that can be the worst, by two figures of each node.
//!
//! The memory that is left after a loss is that of all nodes, less what the lost ones had free, less what their VMs
//! need. It is least for the nodes with the greatest sum of both: a large empty node can be as bad a loss as a full
//! one. Where memory is enough in sum, but in pieces, more VMs that need a place are the greater risk. So half of the
//! sets are those with the greatest sums, and half those whose VMs need most.

use drover_model::{Bytes, NodeName};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// All sets are planned if there are no more than this.
pub(super) const ALL: u64 = 64;
/// How many are, otherwise, by each of the two figures.
pub(super) const BY_EACH: usize = 16;

/// A node, as far as its loss is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Figures {
    /// The node.
    pub(super) node: NodeName,
    /// The memory that its VMs need elsewhere.
    pub(super) need: Bytes,
    /// The memory that it could give to others.
    pub(super) free: Bytes,
}

/// The sets of `size` of these nodes that are planned, and the number of all of that size. The same nodes give the same
/// sets, in the same order.
pub(super) fn sets(size: usize, nodes: &[Figures]) -> (Vec<Vec<NodeName>>, u64) {
    let all = count(nodes.len(), size);
    if all <= ALL {
        return (combinations(&nodes.iter().collect::<Vec<_>>(), size).map(names).collect(), all);
    }
    let in_sum = |node: &Figures| node.need.saturating_add(node.free);
    let mut chosen = BTreeSet::new();
    let sets = greatest(size, nodes, in_sum).into_iter().chain(greatest(size, nodes, |node| node.need));
    (sets.filter(|set| chosen.insert(set.clone())).collect(), all)
}

/// The sets with the greatest sums of a figure, ties by name.
fn greatest(size: usize, nodes: &[Figures], figure: impl Fn(&Figures) -> Bytes) -> Vec<Vec<NodeName>> {
    let mut sorted: Vec<&Figures> = nodes.iter().collect();
    sorted.sort_by_key(|node| (Reverse(figure(node)), &node.node));
    // A set with a node behind these has at least as many sets before it: its last node, replaced by each of these.
    sorted.truncate(BY_EACH + size - 1);
    let mut ranked = BTreeMap::new();
    for set in combinations(&sorted, size) {
        let sum: Bytes = set.iter().map(|node| figure(node)).sum();
        ranked.insert((Reverse(sum), names(set)), ());
    }
    ranked.into_keys().map(|(_, set)| set).take(BY_EACH).collect()
}

fn names(set: Vec<&Figures>) -> Vec<NodeName> {
    let mut names: Vec<NodeName> = set.into_iter().map(|node| node.node.clone()).collect();
    names.sort();
    names
}

/// Number of the sets of `size` out of `n`; saturates.
fn count(n: usize, size: usize) -> u64 {
    let (n, size) = (n as u64, size as u64);
    (0..size).fold(1, |sets: u64, taken| sets.saturating_mul(n.saturating_sub(taken)) / (taken + 1))
}

/// All sets of `size` of these, in their order.
fn combinations<'a>(of: &[&'a Figures], size: usize) -> impl Iterator<Item = Vec<&'a Figures>> {
    let mut sets = vec![(Vec::new(), 0)];
    for _ in 0..size {
        let longer = |(set, from): (Vec<&'a Figures>, usize)| {
            let rest = of.iter().enumerate().skip(from);
            rest.map(move |(at, node)| ([set.clone(), vec![*node]].concat(), at + 1)).collect::<Vec<_>>()
        };
        sets = sets.into_iter().flat_map(longer).collect();
    }
    sets.into_iter().map(|(set, _)| set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::testing::name;

    /// Nodes by their need and what they have free, in MiB: `n00`, `n01` and so on.
    fn nodes(figures: &[(u64, u64)]) -> Vec<Figures> {
        let one = |(n, (need, free)): (usize, &(u64, u64))| Figures {
            node: name(&format!("n{n:02}")),
            need: Bytes::mib(*need),
            free: Bytes::mib(*free),
        };
        figures.iter().enumerate().map(one).collect()
    }

    fn text(sets: &[Vec<NodeName>]) -> Vec<String> {
        sets.iter().map(|set| set.iter().map(NodeName::as_str).collect::<Vec<_>>().join("+")).collect()
    }

    #[test]
    fn few_sets_are_all_planned() {
        let (sets, all) = sets(2, &nodes(&[(1, 1); 4]));
        assert_eq!((text(&sets).join(" ").as_str(), all), ("n00+n01 n00+n02 n00+n03 n01+n02 n01+n03 n02+n03", 6));
        for (n, size, wanted) in [(11, 2, 55), (7, 3, 35), (2, 2, 1), (3, 1, 3)] {
            let (sets, all) = super::sets(size, &nodes(&vec![(1, 1); n]));
            assert_eq!((sets.len() as u64, all), (wanted, wanted), "{size} of {n}");
            assert_eq!(sets.iter().collect::<BTreeSet<_>>().len(), sets.len(), "each once");
        }
    }

    #[test]
    fn of_many_sets_those_are_planned_that_leave_least_and_those_that_need_most() {
        let mut figures = vec![(100, 100); 100];
        // Nothing to recover, but the memory that the others rely on.
        figures[70] = (0, 900);
        figures[80] = (300, 0);
        figures[90] = (250, 0);
        for (size, of) in [(2, 4950), (3, 161_700)] {
            let (sets, all) = sets(size, &nodes(&figures));
            assert_eq!(all, of);
            assert!(sets.len() > BY_EACH && sets.len() <= 2 * BY_EACH, "{} sets", sets.len());
            assert_eq!(sets, super::sets(size, &nodes(&figures)).0, "the same again");
            let sets = text(&sets);
            let has = |set: &str| sets.iter().any(|one| one == set);
            match size {
                2 => assert!(sets[0] == "n70+n80" && has("n80+n90"), "{sets:?}"),
                _ => assert!(sets[0] == "n70+n80+n90" && has("n00+n80+n90"), "{sets:?}"),
            }
        }
    }

    /// Nodes that are cut off from the ranking early must not be in one of the sets that are wanted.
    #[test]
    fn the_greatest_sets_are_those_of_all_sets() {
        for size in [2, 3] {
            let figures: Vec<(u64, u64)> = (0..30).map(|n| (n * 7919 % 101, n * 104_729 % 89)).collect();
            let (nodes, figure) = (nodes(&figures), |node: &Figures| node.need.saturating_add(node.free));
            let sum = |set: &Vec<NodeName>| -> u64 {
                nodes.iter().filter(|node| set.contains(&node.node)).map(|node| figure(node).0).sum()
            };
            let mut all: Vec<_> = combinations(&nodes.iter().collect::<Vec<_>>(), size).map(names).collect();
            all.sort_by_key(|set| (Reverse(sum(set)), set.clone()));
            assert_eq!(greatest(size, &nodes, figure), all[..BY_EACH], "{size}");
        }
    }
}
