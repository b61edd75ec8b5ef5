//! What holds for the whole cluster.

use crate::{
    args,
    failure::Failure,
    output::{Facts, Format, Output},
};
use drover_client::Client;
use drover_model::{WallTime, wire::Config};

fn render(config: &Config, output: &Output) -> String {
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
    facts.render(output)
}

pub(crate) async fn run(command: args::Config, client: &Client, output: Output) -> Result<(), Failure> {
    let config = match command {
        args::Config::Show => client.config().await?,
        args::Config::Set(change) => {
            let number = |n: Option<u32>| n.map(|n| n.to_string());
            let given = [
                ("selector", change.selector),
                ("moves_per_source", number(change.moves_per_source)),
                ("moves_per_target", number(change.moves_per_target)),
                ("moves", number(change.moves)),
                ("stall", change.stall),
                ("migration_deadline", number(change.migration_deadline)),
            ];
            let given: Vec<(&str, String)> =
                given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            client.set_config(&given).await?
        }
    };
    match output.format {
        Format::Json => output.json(&config),
        Format::Raw => output.print(&config.cluster_name),
        Format::Pretty => output.print(&render(&config, &output)),
    }
}
