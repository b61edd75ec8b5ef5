//! The part of a placement that is stored with the VM: small, however many nodes there are.

use super::{Placement, Rejection, Verdict};
use drover_model::{
    NodeName,
    placed::{OTHERS_MAX, REJECTED_MAX, Reasons, Rejected, Scored, WHY_MAX},
};
use std::mem::discriminant;

/// One node for each kind of reason, by name, with the number of others; and the number of nodes that are not counted
/// in any kind.
fn summed_up(verdicts: &[(NodeName, Verdict)]) -> (Vec<Rejected>, u32) {
    let mut kinds: Vec<(&NodeName, &Rejection, u32)> = Vec::new();
    let mut unnamed = 0;
    for (node, verdict) in verdicts {
        let Verdict::Rejected(why) = verdict else { continue };
        let room = kinds.len() < REJECTED_MAX;
        match kinds.iter_mut().find(|(_, of, _)| discriminant(*of) == discriminant(why)) {
            _ if matches!(why, Rejection::Here | Rejection::Lost) => {}
            Some((.., more)) => *more += 1,
            None if room => kinds.push((node, why, 0)),
            None => unnamed += 1,
        }
    }
    let named = kinds.into_iter().map(|(node, why, more)| {
        let why = why.to_string().chars().take(WHY_MAX).collect();
        Rejected { node: node.clone(), why, more }
    });
    (named.collect(), unnamed)
}

impl Placement {
    /// The reasons of the choice; if no node was chosen, why.
    pub fn kept(&self) -> Reasons {
        // Best first; nodes of the same score by name, in the order of the verdicts.
        let mut best: Vec<(i64, &NodeName)> = Vec::with_capacity(OTHERS_MAX + 1);
        let (mut own, mut others) = (None, 0u32);
        for (node, verdict) in &self.verdicts {
            let Verdict::Fits { score, left } = verdict else { continue };
            if self.node() == Some(node) {
                own = Some((*score, *left));
                continue;
            }
            others = others.saturating_add(1);
            best.insert(best.partition_point(|(than, _)| than >= score), (*score, node));
            best.truncate(OTHERS_MAX);
        }
        let others_more = others.saturating_sub(u32::try_from(best.len()).unwrap_or(u32::MAX));
        let (rejected, rejected_more) = summed_up(&self.verdicts);
        let mut not_live = summed_up(&self.not_live).0;
        // A reason that holds for live and cold moves is listed once.
        not_live.retain(|live| !rejected.iter().any(|any| any.why == live.why));
        Reasons {
            selector: self.any.then_some(self.selector),
            score: own.map(|(score, _)| score),
            left: own.map(|(_, left)| left),
            others: best.into_iter().map(|(score, node)| Scored { node: node.clone(), score }).collect(),
            others_more,
            rejected,
            rejected_more,
            not_live,
        }
    }
}
