//! Taking a node out of service, and putting it back.

use crate::{
    args::{Confirmation, OneNode, Waiting},
    commands::{Context, Run, confirm},
    failure::Failure,
    output::{Cell, Table},
    wait,
};
use clap::Args;
use drover_model::wire::{DomainOrder, Fate, SetDomainState};

/// Take a node out of service: its VMs move to other nodes
///
/// VMs are migrated live where their migration method allows it, by priority and then by size, several at once (see
/// 'drover config'). A VM that fits on no other node is shut down, after a confirmation, and starts again when the node
/// is ready. The node is flushed when its hypervisor has no VM left.
///
/// Examples: drover node flush hv1 --plan; drover node flush hv1 --wait
#[derive(Debug, Args)]
pub(crate) struct Flush {
    #[command(flatten)]
    node: OneNode,
    /// Show what would happen to each VM, without changing anything
    #[arg(long, conflicts_with_all = ["wait", "force", "yes"])]
    plan: bool,
    #[command(flatten)]
    wait: Waiting,
    /// Flush even if no other node takes VMs, so that they are all shut down
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirm: Confirmation,
}

/// Put a node back into service: its VMs return
///
/// Cancels a flush that is in progress. VMs that the flush shut down are started, and VMs that it moved away return.
///
/// Example: drover node ready hv1 --wait
#[derive(Debug, Args)]
pub(crate) struct Ready {
    #[command(flatten)]
    node: OneNode,
    #[command(flatten)]
    wait: Waiting,
}

impl Run for Flush {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output, node) = (context.client()?, context.output, self.node.node);
        let plan = client.flush_plan(&node).await?;
        if self.plan {
            let nothing = format!("There is nothing to do: no VM is on {node}.");
            return output.list(&plan, |fate| &fate.vm, plan_table, &nothing);
        }
        if let Some(question) = question(&plan, &node) {
            confirm(&question, self.confirm.yes)?;
        }
        let order = SetDomainState { force: self.force, ..SetDomainState::to(DomainOrder::Flush) };
        let ordered = client.set_domain_state(&node, order).await?;
        let done = if self.wait.wait { wait::flushed(&client, &ordered, output).await? } else { ordered };
        output.done(&done.message, &done)
    }
}

impl Run for Ready {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        let ordered = client.set_domain_state(&self.node.node, SetDomainState::to(DomainOrder::Ready)).await?;
        let done = if self.wait.wait { wait::ready(&client, &ordered, output).await? } else { ordered };
        output.done(&done.message, &done)
    }
}

/// The question to ask before a flush that shuts VMs down.
fn question(plan: &[Fate], node: &str) -> Option<String> {
    let down = plan.iter().filter(|fate| fate.fate == "shutdown");
    let down: Vec<String> = down.map(|fate| format!("  {}: {}", fate.vm, fate.reason)).collect();
    (!down.is_empty()).then(|| {
        format!(
            "These VMs fit on no other node. They are shut down, and start again when {node} is ready:\n{}\n\
             Flush {node}?",
            down.join("\n")
        )
    })
}

fn plan_table(plan: &[Fate]) -> Table<'_> {
    let mut table = Table::new(&["VM", "FATE", "TO", "HOW", "REASON"]);
    for fate in plan {
        let how = if fate.how == "live-else-cold" { "live, else cold" } else { &*fate.how };
        let cells = [
            Cell::text(&*fate.vm),
            Cell::state(&fate.fate),
            Cell::text(&*fate.to),
            Cell::text(how),
            Cell::text(&*fate.reason),
        ];
        table.row(cells.to_vec());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, Output};

    fn fate(vm: &str, fate: &str, to: &str, how: &str, reason: &str) -> Fate {
        let [vm, fate, to, how, reason] = [vm, fate, to, how, reason].map(str::to_owned);
        Fate { vm, uuid: String::new(), fate, to, how, reason }
    }

    #[test]
    fn a_plan_is_shown_and_shutdowns_need_confirmation() {
        let mut plan = vec![
            fate("db", "moves", "hv2", "live-else-cold", ""),
            fate("old", "blocked", "", "", "its move to hv2 failed 3 times: no"),
            fate("web", "waits", "hv3", "", "it is in state migrate"),
        ];
        assert_eq!(question(&plan, "hv1"), None, "no VM is shut down");
        plan.push(fate("big", "shutdown", "", "", "hv2: no room; hv3: no room"));
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        assert_eq!(
            plan_table(&plan).render(&output),
            "VM   FATE      TO   HOW              REASON\n\
             db   moves     hv2  live, else cold  -\n\
             old  blocked   -    -                its move to hv2 failed 3 times: no\n\
             web  waits     hv3  -                it is in state migrate\n\
             big  shutdown  -    -                hv2: no room; hv3: no room\n"
        );
        let question = question(&plan, "hv1").unwrap();
        assert!(question.contains("\n  big: hv2: no room; hv3: no room\n") && !question.contains("db"), "{question}");
    }
}
