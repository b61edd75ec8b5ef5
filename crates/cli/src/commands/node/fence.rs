//! Fences: whether a silent node is off, and what becomes of its VMs.

use crate::{
    args::{Confirmation, OneNode},
    commands::{Context, Run, confirm},
    failure::Failure,
    output::{Cell, Facts, Format, Output, Table, Tone},
};
use clap::Args;
use drover_model::{
    WallTime,
    wire::{FenceInfo, FenceNode},
};

/// Show whether a silent node is known to be off, and what becomes of its VMs; or confirm that it is off
///
/// When a node falls silent, its machine may still run its VMs. Drover starts them elsewhere only when it is proved
/// that the machine is off: by its BMC, if it has one. If you know that it is (you cut its power, or it is gone), say
/// so with --confirm-off. If the machine does run, its VMs then run twice, and their disks are damaged.
///
/// Without --confirm-off nothing is changed. For a node that runs, the fates of its VMs are those that they would have
/// if it failed now.
///
/// Examples: drover node fence hv3; drover node fence hv3 --confirm-off --wait
#[derive(Debug, Args)]
pub(crate) struct Fence {
    #[command(flatten)]
    node: OneNode,
    /// Confirm that the node's machine is off: its VMs are started on other nodes
    #[arg(long)]
    confirm_off: bool,
    /// Show the fence and its proof (the default)
    #[arg(long, conflicts_with = "confirm_off")]
    show: bool,
    /// Wait until its VMs were given to other nodes
    #[arg(short, long, requires = "confirm_off")]
    wait: bool,
    #[command(flatten)]
    confirm: Confirmation,
}

impl Run for Fence {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output, node) = (context.client()?, context.output, self.node.node);
        let fence = client.fence(&node).await?;
        if !self.confirm_off {
            return match output.format {
                Format::Json => output.json(&fence),
                Format::Raw => output.print(&fence.phase),
                Format::Pretty => output.print(&render(&fence, &output)),
            };
        }
        confirm(&question(&fence), self.confirm.yes)?;
        let order = FenceNode { confirm_off: true, boot: Some(fence.boot), wait: self.wait };
        let done = client.fence_node(&node, order).await?;
        output.done(&done.message, &done)
    }
}

/// What is asked before a node is confirmed to be off.
pub(super) fn question(fence: &FenceInfo) -> String {
    let node = &fence.node;
    let vms: Vec<String> =
        fence.vms.iter().map(|vm| format!("  {}: {}\n", vm.vm, told(&vm.fate, &vm.to, &vm.reason))).collect();
    let what = if vms.is_empty() {
        "It has no VMs.\n".to_owned()
    } else {
        format!("This becomes of its VMs:\n{}", vms.concat())
    };
    let known: String = fence.problems.iter().map(|problem| format!("What is known: {problem}.\n")).collect();
    format!(
        "{what}{known}If the machine of node {node} still runs, its VMs will run twice, and their disks will be \
        damaged.\n\
         Is the machine of node {node} off?"
    )
}

/// A VM's fate in words.
fn told(fate: &str, to: &str, reason: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!(" ({to})") };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{fate}{to}{reason}")
}

fn render(fence: &FenceInfo, output: &Output) -> String {
    let mut facts = Facts::default();
    facts.fact("Node", &*fence.node);
    facts.state("Daemon", &fence.daemon_state);
    if fence.phase.is_empty() {
        facts.fact("Fence", "none");
    } else {
        let tone = match &*fence.phase {
            "suspect" | "proving" | "unproved" => Tone::Bad,
            "proved" | "recovering" => Tone::Busy,
            _ => Tone::Plain,
        };
        facts.toned("Fence", &*fence.phase, tone);
        facts.fact("Since", WallTime(fence.since).to_string());
        facts.fact("In that phase since", WallTime(fence.phase_since).to_string());
    }
    facts.fact("Last boot", &*fence.boot);
    if fence.off_ordered && fence.proof.is_empty() {
        facts.toned("Power", "it was ordered to cut it", Tone::Bad);
    }
    if fence.on_ordered {
        facts.fact("Power", "it was ordered to switch it on again");
    }
    for proof in &fence.proof {
        facts.fact("Proof", format!("{} ({}, by {}, {})", proof.what, proof.kind, proof.by, WallTime(proof.at)));
    }
    for problem in &fence.problems {
        facts.toned("No proof", &**problem, Tone::Bad);
    }
    let mut text = facts.render(output);
    if !fence.vms.is_empty() {
        let mut table = Table::new(&["VM", "FATE", "TO", "REASON"]);
        for vm in &fence.vms {
            table.row(vec![Cell::text(&*vm.vm), Cell::state(&vm.fate), Cell::text(&*vm.to), Cell::text(&*vm.reason)]);
        }
        text.push('\n');
        text.push_str(&table.render(output));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_fence_is_shown_and_the_question_names_what_happens() {
        let fence: FenceInfo = serde_json::from_value(json!({
            "node": "hv3", "daemon_state": "dead", "phase": "unproved", "since": 0, "phase_since": 0, "boot": "b1",
            "proof": [], "problems": ["nothing is configured that could tell"], "for_good": false, "off_ordered": true,
            "vms": [
                {"vm": "db", "uuid": "", "fate": "starts", "to": "hv1", "how": "cold", "reason": ""},
                {"vm": "big", "uuid": "", "fate": "waits", "to": "", "how": "", "reason": "hv1: no room"},
            ],
        }))
        .unwrap();
        let asked = question(&fence);
        assert!(asked.contains("  db: starts (hv1)\n  big: waits: hv1: no room\nWhat is known: nothing is"), "{asked}");
        assert!(
            asked.contains("its VMs will run twice") && asked.ends_with("Is the machine of node hv3 off?"),
            "{asked}"
        );
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let shown = render(&fence, &output);
        assert!(shown.contains("Power:               it was ordered to cut it\n"), "{shown}");
        assert!(shown.contains("No proof:            nothing is configured that could tell\n"), "{shown}");
        assert!(
            shown.ends_with("VM   FATE    TO   REASON\ndb   starts  hv1  -\nbig  waits   -    hv1: no room\n"),
            "{shown}"
        );
    }
}
