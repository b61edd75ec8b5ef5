//! Moves of VMs between nodes.

use super::{done, with_hint};
use crate::{
    args::Waiting,
    failure::Failure,
    output::{Cell, Format, Output, Table},
    wait,
};
use drover_client::Client;
use drover_model::wire::Explained;

/// How a VM is brought to another node.
pub(super) struct Order<'a> {
    pub(super) vm: &'a str,
    /// `migrate`, `move` or `unmigrate`.
    pub(super) action: &'static str,
    pub(super) to: Option<String>,
    pub(super) force: bool,
    pub(super) live: bool,
}

/// Brings a VM to another node.
pub(super) async fn relocate(order: Order<'_>, wait: &Waiting, client: &Client, output: Output) -> Result<(), Failure> {
    let Order { vm, action, to, force, live } = order;
    // Whether a move fails is seen by the count of its failures.
    let before = match client.vm(vm).await {
        Ok(vm) => vm,
        Err(error) => return Err(with_hint(client, vm, error).await),
    };
    let mut params = vec![("force", force.to_string()), ("force_live", live.to_string())];
    params.extend(to.map(|to| ("node", to)));
    let changed = client.relocate_vm(&before.uuid, action, &params).await?;
    match &changed.to {
        Some(to) if wait.wait => {
            let arrived = wait::moved(client, &before, &changed, to, output).await?;
            output.done(&arrived.message, &arrived)
        }
        // It did not run, so it is there already.
        _ if wait.wait => {
            output.note(&changed.message);
            done(client, &changed, wait, output).await
        }
        _ => done(client, &changed, wait, output).await,
    }
}

/// Takes back a move that is under way.
pub(super) async fn cancel(vm: &str, wait: &Waiting, client: &Client, output: Output) -> Result<(), Failure> {
    match client.relocate_vm(vm, "cancel", &[]).await {
        Ok(changed) => done(client, &changed, wait, output).await,
        Err(error) => Err(with_hint(client, vm, error).await),
    }
}

pub(super) async fn explain(vm: &str, client: &Client, output: Output) -> Result<(), Failure> {
    let explained = match client.explain_vm(vm).await {
        Ok(explained) => explained,
        Err(error) => return Err(with_hint(client, vm, error).await),
    };
    match output.format {
        Format::Json => output.json(&explained),
        Format::Raw => output.print(&explained.chosen),
        Format::Pretty => {
            output.print(&table(&explained).render(&output))?;
            output.note(&verdict(&explained));
            Ok(())
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

fn table(explained: &Explained) -> Table {
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
    use drover_model::wire::Judged;

    #[test]
    fn the_chosen_node_is_marked_and_the_others_say_why_not() {
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
            chosen: "hv3".to_owned(),
            nodes: vec![
                judged("hv1", None, "the VM is there"),
                judged("hv2", Some(512), ""),
                judged("hv3", Some(900), ""),
            ],
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
