//! Global options, and options shared by several commands. A command's own options are in its module below
//! [`crate::commands`].

use crate::{
    commands::Command,
    complete,
    failure::EXIT_CODES,
    output::{Colour, Format},
};
use clap::{
    Args, Parser,
    builder::{PossibleValuesParser, TypedValueParser},
};
use clap_complete::ArgValueCompleter;
use std::{error::Error, str::FromStr, time::Duration};

/// Help heading of the global options.
const GLOBAL: &str = "Global options";

/// Manages a Drover cluster
#[derive(Debug, Parser)]
#[command(name = "drover", version, propagate_version = true, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The connection to use (see 'drover connection list')
    #[arg(short, long, global = true, help_heading = GLOBAL, value_name = "NAME", env = "DROVER_CONNECTION")]
    pub(crate) connection: Option<String>,
    /// Output format
    #[arg(short, long, global = true, help_heading = GLOBAL, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// Whether to use colours
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, default_value_t, value_name = "WHEN")]
    #[arg(alias = "color")]
    pub(crate) colour: Colour,
    /// Print data and errors only
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

// Plain comments instead of doc comments on the structs below: they are flattened into commands, and clap would show
// their doc comments in place of the command's.

// A node, by name.
#[derive(Debug, Args)]
pub(crate) struct OneNode {
    /// The node's name
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    pub(crate) node: String,
}

// A VM, by name or UUID.
#[derive(Debug, Args)]
pub(crate) struct OneVm {
    /// The VM's name or UUID
    #[arg(value_name = "VM", add = ArgValueCompleter::new(complete::vms))]
    pub(crate) vm: String,
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Wait until it is done, and show the progress
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogLines {
    /// Number of lines to show, from the end of the log
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    pub(crate) lines: usize,
    /// Keep printing new lines until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
    /// On a terminal, pass escape sequences and control characters on as they are; they can steer the terminal
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Confirmation {
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Value parser for a fixed set of words.
pub(crate) fn word<T>(words: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

/// Value parser for a duration of at least 1 s.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let read = drover_model::units::duration(text).filter(|time| time.as_secs() > 0);
    read.ok_or_else(|| "expected a whole number and a unit, such as 90s, 45m, 2h or 3d".to_owned())
}
