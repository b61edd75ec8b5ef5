//! Showing where a VM would be placed.

use super::found;
use crate::{
    args::OneVm,
    commands::{Context, Run},
    failure::Failure,
    output::{Cell, Format, Table},
};
use clap::Args;
use drover_model::{WallTime, wire::Explained};

/// Show where a VM would go if it were moved now, and why the other nodes are rejected
///
/// Example: drover vm explain web
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    vm: OneVm,
}

impl Run for Explain {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output, vm) = (context.client()?, context.output, self.vm.vm);
        let explained = found(&client, &vm, client.explain_vm(&vm).await).await?;
        match output.format {
            Format::Json => output.json(&explained),
            Format::Raw => output.print(&explained.chosen),
            Format::Pretty => {
                output.print(&table(&explained).render(&output))?;
                output.note(&verdict(&explained));
                if !explained.paused_reason.is_empty() {
                    output.note(&format!("Its guest {}: it is not moved.", explained.paused_reason));
                }
                if !explained.older_disks.is_empty() {
                    output.note(&format!("It cannot be started again: {}.", explained.older_disks));
                }
                if let Some(placed) = &explained.placed {
                    let Explained { name, .. } = &explained;
                    output.note(&format!("{name} is on {} since {} {placed}.", placed.to, WallTime(placed.at)));
                }
                Ok(())
            }
        }
    }
}

fn verdict(explained: &Explained) -> String {
    let Explained { name, selector, chosen, .. } = explained;
    match chosen.as_str() {
        "" => format!("No node can take {name} now."),
        chosen => format!("{name} would go to {chosen}: the highest score, by selector {selector}."),
    }
}

fn table(explained: &Explained) -> Table<'_> {
    let mut table = Table::new(&["NODE", "VERDICT", "SCORE", "FREE-AFTER", "REASON"]);
    for node in &explained.nodes {
        let word = match node.fits {
            true if node.node == explained.chosen => "chosen",
            true => "fits",
            false => "rejected",
        };
        let number = |n: Option<String>| Cell::number(n.unwrap_or_default());
        table.row(vec![
            Cell::text(&*node.node),
            Cell::state(word),
            number(node.score.map(|score| score.to_string())),
            number(node.memory_left.map(|mib| format!("{mib} MiB"))),
            Cell::text(&*node.reason),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use drover_model::wire::Judged;

    #[test]
    fn the_chosen_node_is_marked_and_rejections_have_reasons() {
        let judged = |node: &str, score: Option<i64>, reason: &str| Judged {
            node: node.to_owned(),
            fits: score.is_some(),
            score,
            memory_left: score.map(|_| 900),
            reason: reason.to_owned(),
        };
        let mut explained = Explained {
            name: "web".to_owned(),
            node: "hv1".to_owned(),
            selector: "mem".to_owned(),
            paused_reason: String::new(),
            older_disks: String::new(),
            chosen: "hv3".to_owned(),
            nodes: vec![
                judged("hv1", None, "the VM is there"),
                judged("hv2", Some(512), ""),
                judged("hv3", Some(900), ""),
            ],
            placed: None,
        };
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        assert_eq!(
            table(&explained).render(&output),
            "NODE  VERDICT   SCORE  FREE-AFTER  REASON\n\
             hv1   rejected      -           -  the VM is there\n\
             hv2   fits        512     900 MiB  -\n\
             hv3   chosen      900     900 MiB  -\n"
        );
        assert_eq!(verdict(&explained), "web would go to hv3: the highest score, by selector mem.");
        explained.chosen = String::new();
        assert_eq!(verdict(&explained), "No node can take web now.");
    }
}
