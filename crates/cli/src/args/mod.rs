//! The commands and their options, with the help that teaches them.

mod node;
mod vm;

pub(crate) use node::Node;
pub(crate) use vm::{MetaOptions, Tag, Vm};

use crate::{
    complete,
    failure::EXIT_CODES,
    output::{Colour, Format},
};
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use clap_complete::ArgValueCompleter;
use drover_model::{Selector, Stall, wire::FaultKey};
use std::{path::PathBuf, time::Duration};

/// The heading of the options that every command has.
const GLOBAL: &str = "Options of every command";

/// Manages a Drover cluster
#[derive(Debug, Parser)]
#[command(name = "drover", version, propagate_version = true, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The connection to use (see 'drover connection list')
    #[arg(short, long, global = true, help_heading = GLOBAL, value_name = "NAME", env = "DROVER_CONNECTION")]
    pub(crate) connection: Option<String>,
    /// How data is printed
    #[arg(short, long, global = true, help_heading = GLOBAL, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// Whether to use colours
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, default_value_t, value_name = "WHEN", alias = "color")]
    pub(crate) colour: Colour,
    /// Print data and errors only
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the cluster as a whole
    Status,
    /// What is ordered of the cluster as a whole
    #[command(subcommand)]
    Cluster(Cluster),
    /// Virtual machines
    #[command(subcommand)]
    Vm(Vm),
    /// The cluster's nodes
    #[command(subcommand)]
    Node(Node),
    /// What holds for the whole cluster
    #[command(subcommand)]
    Config(Config),
    /// What a person should look at
    #[command(subcommand)]
    Fault(Fault),
    /// Tokens for the API
    #[command(subcommand)]
    Token(Token),
    /// Connections to clusters
    #[command(subcommand)]
    Connection(Connection),
    /// Print the line that switches on completion in a shell
    ///
    /// Example: echo "$(drover completion bash)" >> ~/.bashrc
    Completion {
        /// The shell
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
}

/// A node, by name.
#[derive(Debug, Args)]
pub(crate) struct OneNode {
    /// The node's name
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    pub(crate) node: String,
}

/// A VM, by name or UUID.
#[derive(Debug, Args)]
pub(crate) struct OneVm {
    /// The VM's name or UUID
    #[arg(value_name = "VM", add = ArgValueCompleter::new(complete::vms))]
    pub(crate) vm: String,
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Wait until it is done, showing what happens
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogLines {
    /// How many of the last lines
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    pub(crate) lines: usize,
    /// Go on with what is written, until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Asking {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Switch maintenance on or off
    ///
    /// 'drover status' shows whether it is on, and until when.
    ///
    /// Examples: drover cluster maintenance on --for 2h; drover cluster maintenance off
    Maintenance {
        /// Whether it is to be on
        #[arg(value_enum)]
        switch: Switch,
        /// It ends by itself after this time: 90s, 45m, 2h, 3d; if not given, when it is switched off
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasts: Option<Duration>,
    },
}

/// Whether something is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// It is on
    On,
    /// It is off
    Off,
}

/// A length of time that is at least a second.
fn duration(text: &str) -> Result<Duration, String> {
    let read = drover_model::units::duration(text).filter(|time| time.as_secs() > 0);
    read.ok_or_else(|| "accepted are a whole number and its unit: 90s, 45m, 2h, 3d".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show it
    Show,
    /// Change it; what is not given stays
    ///
    /// Example: drover config set --moves-per-source 4 --migration-deadline 600
    Set(ConfigChange),
}

/// What of the cluster's configuration is changed.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ConfigChange {
    /// By what the node of a VM is chosen that has no selector of its own
    #[arg(long, value_name = "SELECTOR", value_parser = clap::builder::PossibleValuesParser::new(Selector::WORDS))]
    pub(crate) selector: Option<String>,
    /// How many VMs move away from one node at once, at most
    #[arg(long, value_name = "N")]
    pub(crate) moves_per_source: Option<u32>,
    /// How many VMs move to one node at once, at most
    #[arg(long, value_name = "N")]
    pub(crate) moves_per_target: Option<u32>,
    /// How many VMs move at once in all, at most
    #[arg(long, value_name = "N")]
    pub(crate) moves: Option<u32>,
    /// What becomes of a live migration that does not come to its end by its deadline
    ///
    /// abort: the VM runs on where it was. post-copy: its guest goes on at the target at once and fetches what is
    /// missing; if a node dies meanwhile, the guest is lost.
    #[arg(long, value_name = "POLICY", value_parser = clap::builder::PossibleValuesParser::new(Stall::WORDS))]
    pub(crate) stall: Option<String>,
    /// How long a live migration may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) migration_deadline: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fault {
    /// List faults
    List {
        /// What they are listed by, the least first; if not given, by id
        #[arg(long, value_name = "KEY", value_parser = PossibleValuesParser::new(FaultKey::WORDS).try_map(|key| key.parse::<FaultKey>()))]
        sort_key: Option<FaultKey>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List tokens, without themselves
    List,
    /// Make a token; it is printed this once
    Create {
        /// Its name, by which it is revoked
        name: String,
    },
    /// Revoke a token
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        confirm: Asking,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connection {
    /// List the connections
    List,
    /// Add a connection, or change it
    ///
    /// The token is read from standard input, so that it is in no history and no process list, or each time from a
    /// file.
    ///
    /// Example: drover connection add prod http://10.0.0.1:7370 < token
    Add {
        /// Its name
        name: String,
        /// The API of any node of the cluster
        url: String,
        /// Read the token from this file each time, instead of keeping it
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// Remove a connection
    Remove {
        /// Its name
        name: String,
    },
    /// Use a connection when none is named
    Default {
        /// Its name; 'local' for this machine's node
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_is_ordered_for_a_time() {
        let parsed = |line: &str| match Arguments::try_parse_from(line.split(' ')).ok()?.command {
            Command::Cluster(Cluster::Maintenance { switch, lasts }) => Some((switch, lasts.map(|l| l.as_secs()))),
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
