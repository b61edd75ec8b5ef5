//! What happens in a round, chosen from a seed: the same seed, round and size of the lab give the same round.

use crate::{
    bmc::Quirk,
    fabric::{Cut, Net},
};
use std::{collections::BTreeSet, fmt, time::Duration};

/// A fault of a node, or of the cluster. It lasts until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The node loses its power; its BMC does not.
    PowerOff(usize),
    /// `droverd` is killed.
    DaemonKilled(usize),
    /// `droverd` is stopped by SIGSTOP.
    DaemonStopped(usize),
    /// `droverd` is stopped in good order and started again at once.
    DaemonRestarted(usize),
    /// All processes are stopped, its kernel goes on: it answers the network.
    Frozen(usize),
    /// All processes are stopped, and nothing answers.
    Hung(usize),
    /// A link is cut.
    Cut(usize, Net, Cut),
    /// libvirtd is killed; guests go on.
    LibvirtKilled(usize),
    /// Whichever node has the leader: ZooKeeper is killed there.
    LeaderKilled,
    /// Nothing answers for the BMC.
    BmcDead(usize),
    /// The BMC takes its time, if it has that quirk; else it is dead.
    BmcSlow(usize),
}

/// What is under way when the faults come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// A guest is sent to a node, or the one after it if it is there. Both count from 1.
    Move { guest: usize, to: usize },
    /// A node is flushed, and made ready afterwards.
    Flush(usize),
    /// The primary's role is handed to a node.
    Primary(usize),
}

/// A round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) operation: Option<Operation>,
    /// One or two.
    pub(super) faults: Vec<Fault>,
    /// How long after the first fault the second one comes.
    pub(super) pause: Duration,
    /// How long all last.
    pub(super) lasts: Duration,
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..count`.
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// The round of a number. `nodes` and `guests` are how many there are.
pub(super) fn round(seed: u64, number: u64, nodes: usize, guests: usize) -> Round {
    let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let operation = match random.below(6) {
        0 | 1 => Some(Operation::Move { guest: 1 + random.below(guests), to: 1 + random.below(nodes) }),
        2 => Some(Operation::Flush(1 + random.below(nodes))),
        3 => Some(Operation::Primary(1 + random.below(nodes))),
        _ => None,
    };
    let mut faults = vec![fault(&mut random, nodes)];
    if random.below(2) == 0 {
        let second = fault(&mut random, nodes);
        // Two of one node's power or processes would be one.
        if faults.iter().all(|first| first.node() != second.node() || first.is_of_bmc() != second.is_of_bmc()) {
            faults.push(second);
        }
    }
    let pause = Duration::from_millis(250 * u64::try_from(random.below(12)).unwrap_or(0));
    let lasts = Duration::from_secs([2, 5, 9, 15, 25][random.below(5)]);
    Round { operation, faults, pause, lasts }
}

fn fault(random: &mut Random, nodes: usize) -> Fault {
    let kind = random.below(18);
    let node = 1 + random.below(nodes);
    match kind {
        0 | 1 => Fault::PowerOff(node),
        2 => Fault::DaemonKilled(node),
        3 => Fault::DaemonStopped(node),
        4 => Fault::DaemonRestarted(node),
        5 => Fault::Frozen(node),
        6 | 7 => Fault::Hung(node),
        8 | 9 => Fault::Cut(node, Net::Cluster, Cut::Silent),
        10 => Fault::Cut(node, Net::Cluster, Cut::In),
        11 => Fault::Cut(node, Net::Cluster, Cut::Out),
        12 => Fault::Cut(node, Net::Cluster, Cut::Store),
        13 => Fault::Cut(node, if random.below(2) == 0 { Net::Storage } else { Net::Upstream }, Cut::Silent),
        14 => Fault::LibvirtKilled(node),
        15 => Fault::LeaderKilled,
        16 => Fault::BmcDead(node),
        _ => Fault::BmcSlow(node),
    }
}

/// How slow a slow BMC is: each answer; a call has several.
pub(super) const SLOW: Quirk = Quirk::Slow(2);

impl Fault {
    /// The node's index; `None`: any.
    pub(super) fn node(self) -> Option<usize> {
        match self {
            Fault::PowerOff(node)
            | Fault::DaemonKilled(node)
            | Fault::DaemonStopped(node)
            | Fault::DaemonRestarted(node)
            | Fault::Frozen(node)
            | Fault::Hung(node)
            | Fault::Cut(node, ..)
            | Fault::LibvirtKilled(node)
            | Fault::BmcDead(node)
            | Fault::BmcSlow(node) => Some(node),
            Fault::LeaderKilled => None,
        }
    }

    fn is_of_bmc(self) -> bool {
        matches!(self, Fault::BmcDead(_) | Fault::BmcSlow(_))
    }

    /// Whether guests of the node may stop: it is off, stopped, or silent, so that its power may be cut.
    pub(super) fn may_stop_guests(self) -> bool {
        match self {
            Fault::PowerOff(_) | Fault::Frozen(_) | Fault::Hung(_) => true,
            Fault::Cut(_, net, how) => net == Net::Cluster && how != Cut::Store,
            _ => false,
        }
    }
}

impl Round {
    /// The nodes (indexes) whose guests may stop.
    pub(super) fn spared(&self) -> BTreeSet<usize> {
        self.faults.iter().filter(|fault| fault.may_stop_guests()).filter_map(|fault| fault.node()).collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::PowerOff(node) => write!(f, "hv{node} loses its power"),
            Fault::DaemonKilled(node) => write!(f, "droverd of hv{node} is killed"),
            Fault::DaemonStopped(node) => write!(f, "droverd of hv{node} is stopped (SIGSTOP)"),
            Fault::DaemonRestarted(node) => write!(f, "droverd of hv{node} is restarted"),
            Fault::Frozen(node) => write!(f, "all processes of hv{node} are frozen"),
            Fault::Hung(node) => write!(f, "hv{node} hangs: its processes are frozen and its links silent"),
            Fault::Cut(node, net, Cut::Silent) => write!(f, "hv{node} is cut off from the {net} network"),
            Fault::Cut(node, _, Cut::Store) => write!(f, "hv{node} is cut off from the store of the others"),
            Fault::Cut(node, net, how) => write!(f, "hv{node} is cut off from the {net} network, {how:?} only"),
            Fault::LibvirtKilled(node) => write!(f, "libvirtd of hv{node} is killed"),
            Fault::LeaderKilled => f.write_str("ZooKeeper's leader is killed"),
            Fault::BmcDead(node) => write!(f, "the BMC of hv{node} is dead"),
            Fault::BmcSlow(node) => write!(f, "the BMC of hv{node} is slow"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::discriminant;

    #[test]
    fn a_round_is_repeated_from_its_seed() {
        assert!((0..100).all(|number| round(7, number, 3, 4) == round(7, number, 3, 4)));
        assert!((0..100).any(|number| round(7, number, 3, 4) != round(8, number, 3, 4)));
    }

    #[test]
    fn every_fault_and_operation_comes_up_and_all_are_of_nodes_that_exist() {
        let rounds: Vec<Round> = (0..400).map(|number| round(1, number, 3, 4)).collect();
        let mut faults: Vec<_> = rounds.iter().flat_map(|round| &round.faults).map(discriminant).collect();
        faults.sort_by_key(|kind| format!("{kind:?}"));
        faults.dedup();
        assert_eq!(faults.len(), 11);
        let mut operations: Vec<_> = rounds.iter().filter_map(|r| r.operation.as_ref()).map(discriminant).collect();
        operations.sort_by_key(|kind| format!("{kind:?}"));
        operations.dedup();
        assert_eq!(operations.len(), 3);
        for round in &rounds {
            assert!((1..=2).contains(&round.faults.len()), "{round:?}");
            assert!(round.faults.iter().all(|f| f.node().is_none_or(|node| (1..=3).contains(&node))), "{round:?}");
        }
        assert!(rounds.iter().any(|round| round.faults.len() == 2));
    }
}
