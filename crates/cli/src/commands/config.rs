//! The cluster's configuration.

use super::{Context, Run, commands};
use crate::{
    args::word,
    failure::Failure,
    output::{Facts, Format, Output},
};
use clap::Args;
use drover_model::{
    AfterProof, OnReturn, Selector, Stall, WallTime,
    wire::{self, ChangeConfig},
};

commands! {
    /// Show or change the cluster's configuration
    Config {
        Show(Show),
        Set(Set),
    }
}

/// Show the configuration
#[derive(Debug, Args)]
pub(crate) struct Show {}

/// Change the configuration; settings that are not given stay as they are
///
/// Example: drover config set --moves-per-source 4 --migration-deadline 600
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Set {
    /// How to choose a node for VMs that have no selector of their own
    #[arg(long, value_name = "SELECTOR", value_parser = word::<Selector>(Selector::WORDS.iter().copied()))]
    selector: Option<Selector>,
    /// Maximum number of VMs that move away from one node at once
    ///
    /// VMs of a node that is off, which only start on others, do not count, here and in the other limits.
    #[arg(long, value_name = "N")]
    moves_per_source: Option<u32>,
    /// Maximum number of VMs that move to one node at once
    #[arg(long, value_name = "N")]
    moves_per_target: Option<u32>,
    /// Maximum number of VMs that move at once in the whole cluster
    #[arg(long, value_name = "N")]
    moves: Option<u32>,
    /// What to do with a live migration that is not finished by its deadline
    ///
    /// abort: the VM keeps running on the source node. post-copy: it is sent again, and its guest continues on the
    /// target node at once and fetches the missing memory; if a node dies meanwhile, the guest is lost.
    #[arg(long, value_name = "POLICY", value_parser = word::<Stall>(Stall::WORDS.iter().copied()))]
    stall: Option<Stall>,
    /// Deadline for a live migration, in seconds
    #[arg(long, value_name = "SECONDS")]
    migration_deadline: Option<u32>,
    /// How many nodes the cluster must be able to lose at once, 0 to 3
    ///
    /// 1: a lack of memory for the VMs of any one is a fault. 2 or 3: also one for the VMs of so many at once, where
    /// the worst loss counts ('drover cluster plan'). 0: none is a fault.
    #[arg(long, value_name = "NODES")]
    tolerate: Option<u32>,
    /// What follows when a BMC or a watchdog proves that a node is off
    ///
    /// recover: its VMs start on other nodes. none: they wait, until you confirm it ('drover node fence NODE
    /// --confirm-off').
    #[arg(long, value_name = "POLICY", value_parser = word::<AfterProof>(AfterProof::WORDS.iter().copied()))]
    after_proof: Option<AfterProof>,
    /// Whether a node whose power was cut is switched on again when its VMs are recovered
    ///
    /// What it is then, '--on-return' says.
    #[arg(long, value_name = "BOOL")]
    power_on: Option<bool>,
    /// What a node is when it is back after its VMs were given to others
    ///
    /// flushed: it takes no VMs until you make it ready ('drover node ready NODE'). ready: it becomes ready by itself,
    /// if it was ready before, and its VMs come home.
    #[arg(long, value_name = "POLICY", value_parser = word::<OnReturn>(OnReturn::WORDS.iter().copied()))]
    on_return: Option<OnReturn>,
}

impl Run for Show {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        show(&context.client()?.config().await?, context.output)
    }
}

impl Run for Set {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let change = ChangeConfig {
            selector: self.selector,
            moves_per_source: self.moves_per_source,
            moves_per_target: self.moves_per_target,
            moves: self.moves,
            stall: self.stall,
            migration_deadline: self.migration_deadline,
            tolerate: self.tolerate,
            after_proof: self.after_proof,
            power_on: self.power_on,
            on_return: self.on_return,
        };
        show(&context.client()?.set_config(&change).await?, context.output)
    }
}

fn show(config: &wire::Config, output: Output) -> Result<(), Failure> {
    match output.format {
        Format::Json => output.json(config),
        Format::Raw => output.print(&config.cluster_name),
        Format::Pretty => output.print(&render(config, &output)),
    }
}

fn render(config: &wire::Config, output: &Output) -> String {
    let mut facts = Facts::default();
    facts.fact("Cluster", &*config.cluster_name);
    let until = config.maintenance_until.map(|until| format!(" until {}", WallTime(until))).unwrap_or_default();
    facts.fact("Maintenance", if config.maintenance { format!("on{until}") } else { "off".to_owned() });
    facts.fact("Selector", &*config.selector);
    facts.fact(
        "Moves at once",
        format!(
            "{} from a node, {} to a node, {} in all",
            config.moves_per_source, config.moves_per_target, config.moves
        ),
    );
    let stall = match config.stall.as_str() {
        "abort" => "is given up (abort)",
        _ => "goes on at the target at once (post-copy)",
    };
    facts.fact("Migrations", format!("one that takes longer than {} s {stall}", config.migration_deadline));
    let tolerated = match config.tolerate {
        0 => "may leave VMs without memory".to_owned(),
        1 => "must leave memory for its VMs".to_owned(),
        several => format!("must leave memory for its VMs; so must that of {several} at once"),
    };
    facts.fact("Loss of a node", tolerated);
    let vms = match config.after_proof.as_str() {
        "none" => "its VMs wait until you confirm that it is off",
        _ => "its VMs start on other nodes",
    };
    let power = if config.power_on { "is switched on again" } else { "stays off" };
    facts.fact("A node that is off", format!("{vms}; one whose power was cut {power}"));
    let back = match config.on_return.as_str() {
        "ready" => "is ready by itself, if it was before",
        _ => "is flushed, until you make it ready",
    };
    facts.fact("A node that is back", format!("without its VMs {back}"));
    facts.render(output)
}
