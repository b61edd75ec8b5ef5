//! Commands for the cluster as a whole.

use super::{Context, Run, commands};
use crate::{
    args::duration,
    complete,
    failure::Failure,
    output::{Cell, Format, Output, Table},
};
use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;
use drover_model::{
    Bytes,
    wire::{LossFigures, LossPlan, LossTogether, NodeLoss, PlanLosses, SetMaintenance},
};
use std::time::Duration;

commands! {
    /// Manage the cluster as a whole
    Cluster {
        Maintenance(Maintenance),
        Plan(Plan),
        Events(super::events::List),
    }
}

/// Switch maintenance on or off
///
/// 'drover status' shows whether it is on, and until when.
///
/// Examples: drover cluster maintenance on --for 2h; drover cluster maintenance off
#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    /// Whether to switch maintenance on or off
    #[arg(value_enum)]
    switch: Switch,
    /// End maintenance after this time: 90s, 45m, 2h, 3d; if not given, it lasts until it is switched off
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
}

/// Show what would become of the VMs if a node were lost now
///
/// For each node: how many of its VMs would start on the others (GO ON), how many no other node can take for reasons
/// such as a disk file of its own (BOUND), and for how many there is no memory (SHORT, MISSING). A lack of memory is
/// also a fault, unless the cluster need not tolerate a loss ('drover config set --tolerate 0'). What becomes of each
/// VM of a node: 'drover node fence NODE'.
///
/// If it must tolerate the loss of 2 or 3 nodes at once, the last row is the worst such loss. Up to 64 of them, all are
/// planned; otherwise those that leave the others the least memory, and those whose VMs need the most.
///
/// Examples: drover cluster plan; drover cluster plan hv2; drover cluster plan --memory 4096 --vcpus 2
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Only the loss of this node, with the names of the VMs
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// Also count how many further VMs with this much memory would fit, in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// With this many vCPUs each [default: 1]
    #[arg(long, value_name = "N", requires = "memory")]
    vcpus: Option<u32>,
}

impl Run for Plan {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        let mut plan = client.losses(PlanLosses { memory: self.memory, vcpus: self.vcpus }).await?;
        let Some(node) = &self.node else {
            return match output.format {
                Format::Json => output.json(&plan),
                Format::Raw => output.print(&short(&plan).join("\n")),
                Format::Pretty => output.print(&render(&plan, &output)),
            };
        };
        plan.nodes.retain(|loss| loss.node == *node);
        let Some(loss) = plan.nodes.first() else {
            // The error says so.
            return client.node(node).await.map(|_| ()).map_err(Failure::from);
        };
        match output.format {
            Format::Json => output.json(loss),
            Format::Raw => output.print(&loss.figures.short.join("\n")),
            Format::Pretty => output.print(&in_words(loss)),
        }
    }
}

/// The nodes whose loss would leave VMs without memory.
fn short(plan: &LossPlan) -> Vec<&str> {
    plan.nodes.iter().filter(|loss| !loss.figures.short.is_empty()).map(|loss| &*loss.node).collect()
}

fn render(plan: &LossPlan, output: &Output) -> String {
    let mut names = vec!["LOST", "GO ON", "BOUND", "SHORT", "MISSING"];
    if plan.further.is_some() {
        names.push("THEN FIT");
    }
    let mut table = Table::new(&names);
    let mut row = |lost: String, loss: &LossFigures| {
        let mut row = vec![
            Cell::text(lost),
            Cell::number(loss.go_on),
            Cell::number(loss.bound.len()),
            Cell::number(loss.short.len()),
            Cell::number(missing(loss.missing)),
        ];
        row.extend(loss.further.map(Cell::number));
        table.row(row);
    };
    for loss in &plan.nodes {
        row(loss.node.clone(), &loss.figures);
    }
    if let Some(loss) = &plan.together {
        row(loss.nodes.join("+"), &loss.figures);
    }
    let mut text = table.render(output);
    if let Some(loss) = &plan.together {
        text.push_str(&format!("\n{}", at_once(loss)));
    }
    if let Some(further) = plan.further {
        text.push_str(&format!("\nNow {further} further VMs of that size fit.\n"));
    }
    text
}

fn missing(mib: u64) -> String {
    if mib == 0 { "-".to_owned() } else { Bytes::mib(mib).to_string() }
}

/// The worst loss of several nodes at once, and of how many it is that.
fn at_once(loss: &LossTogether) -> String {
    let (nodes, size) = (loss.nodes.join(", "), loss.nodes.len());
    let of = if loss.planned == loss.all {
        format!("all {} were planned", loss.all)
    } else {
        format!("the {} of {} that are likely to be the worst were planned", loss.planned, loss.all)
    };
    let mut text = format!("The worst loss of {size} nodes at once is that of {nodes} ({of}).\n");
    tell_lacks(&mut text, &loss.figures);
    text
}

/// The VMs that would have no place.
fn tell_lacks(text: &mut String, loss: &LossFigures) {
    if !loss.bound.is_empty() {
        text.push_str(&format!("  no other node can take {}\n", loss.bound.join(", ")));
    }
    if !loss.short.is_empty() {
        let missing = Bytes::mib(loss.missing);
        text.push_str(&format!("  there is no memory for {}: {missing} are missing\n", loss.short.join(", ")));
    }
}

fn in_words(NodeLoss { node, figures }: &NodeLoss) -> String {
    let go_on = figures.go_on;
    let mut text = format!("If node {node} were lost now:\n  {go_on} of its VMs would go on on other nodes\n");
    tell_lacks(&mut text, figures);
    if let Some(further) = figures.further {
        text.push_str(&format!("  then {further} further VMs of that size would fit\n"));
    }
    text.push_str(&format!("What becomes of each VM, and why: 'drover node fence {node}'"));
    text
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// Switch it on
    On,
    /// Switch it off
    Off,
}

impl Run for Maintenance {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let state = self.switch == Switch::On;
        if !state && self.lasts.is_some() {
            return Err(Failure::usage("--for can only be used with 'on'"));
        }
        let duration = self.lasts.map(|lasts| lasts.as_secs());
        let done = context.client()?.set_maintenance(&SetMaintenance { state, until: None, duration }).await?;
        context.output.done(&done.message, &done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Colour;

    #[test]
    fn losses_are_a_table_and_one_loss_is_told() {
        let figures = |go_on, bound: &[&str], short: &[&str], missing, further| LossFigures {
            go_on,
            bound: bound.iter().map(ToString::to_string).collect(),
            short: short.iter().map(ToString::to_string).collect(),
            missing,
            further,
        };
        let loss = |node: &str, short: &[&str], further| NodeLoss {
            node: node.to_owned(),
            figures: figures(12, &["disk"], short, 4224 * short.len() as u64, further),
        };
        let output = Output::new(Format::Pretty, Colour::Never, false);
        let nodes = vec![loss("hv1", &[], Some(3)), loss("hv2", &["db"], Some(3))];
        let mut plan = LossPlan { tolerate: 1, further: Some(9), nodes, together: None };
        let shown = render(&plan, &output);
        let wanted = "LOST  GO ON  BOUND  SHORT   MISSING  THEN FIT\n\
                      hv1      12      1      0         -         3\n\
                      hv2      12      1      1  4224 MiB         3\n\
                      \nNow 9 further VMs of that size fit.\n";
        assert_eq!(shown, wanted, "{shown}");
        let told = in_words(&plan.nodes[1]);
        assert!(told.contains("no memory for db: 4224 MiB are missing"), "{told}");

        plan.further = None;
        plan.nodes = vec![loss("hv1", &[], None)];
        plan.together = Some(LossTogether {
            nodes: vec!["hv1".to_owned(), "hv2".to_owned()],
            figures: figures(3, &[], &["db", "web"], 512, None),
            planned: 32,
            all: 4950,
        });
        let shown = render(&plan, &output);
        let wanted = "LOST     GO ON  BOUND  SHORT  MISSING\n\
                      hv1         12      1      0        -\n\
                      hv1+hv2      3      0      2  512 MiB\n\
                      \nThe worst loss of 2 nodes at once is that of hv1, hv2 \
                      (the 32 of 4950 that are likely to be the worst were planned).\n  \
                      there is no memory for db, web: 512 MiB are missing\n";
        assert_eq!(shown, wanted, "{shown}");
    }
    use crate::{args::Arguments, commands::Command};
    use clap::Parser;

    #[test]
    fn maintenance_can_be_limited_in_time() {
        let parsed = |line: &str| match Arguments::try_parse_from(line.split(' ')).ok()?.command {
            Command::Cluster(Cluster::Maintenance(Maintenance { switch, lasts })) => {
                Some((switch, lasts.map(|l| l.as_secs())))
            }
            _ => None,
        };
        for (line, order) in [
            ("drover cluster maintenance on", Some((Switch::On, None))),
            ("drover cluster maintenance on --for 2h", Some((Switch::On, Some(7200)))),
            ("drover cluster maintenance off", Some((Switch::Off, None))),
            ("drover cluster maintenance on --for 2", None),
            ("drover cluster maintenance on --for 10ms", None),
            ("drover cluster maintenance", None),
        ] {
            assert_eq!(parsed(line), order, "{line}");
        }
    }
}
