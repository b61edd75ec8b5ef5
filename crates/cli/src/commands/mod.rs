//! The commands: each is a struct with its options, its help and its `run`, in a file per noun or verb. To add one,
//! write such a struct and list it under its noun.

mod cluster;
mod completion;
mod config;
mod connection;
mod events;
mod fault;
mod node;
mod status;
mod token;
mod vm;

use crate::{
    connection::client,
    failure::Failure,
    output::{Format, Output, finish},
    screen::Screen,
};
use bytes::Bytes;
use drover_client::{Begun, Client, ClientError};
use drover_model::wire::Log;
use futures_util::{Stream, StreamExt};
use std::{
    io::{self, BufRead, IsTerminal, Write},
    pin::pin,
    sync::Arc,
};

/// What every command gets.
pub(crate) struct Context {
    /// The connection given with `-c` or `DROVER_CONNECTION`, if any.
    pub(crate) connection: Option<String>,
    pub(crate) output: Output,
    /// What this command begins, if it changes something.
    pub(crate) operation: Arc<Begun>,
}

impl Context {
    /// A client for the chosen cluster.
    fn client(&self) -> Result<Client, Failure> {
        Ok(client(self.connection.as_deref())?.as_part_of(self.operation.clone()))
    }
}

/// A command, or a noun with its commands.
pub(crate) trait Run {
    async fn run(self, context: &Context) -> Result<(), Failure>;
}

/// Defines the commands of a noun: the name of each, and its struct.
macro_rules! commands {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $variant:ident($command:ty)),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum $name {
            $($(#[$attribute])* $variant($command)),+
        }

        impl $crate::commands::Run for $name {
            async fn run(self, context: &$crate::commands::Context) -> Result<(), $crate::failure::Failure> {
                match self {
                    $($name::$variant(command) => command.run(context).await),+
                }
            }
        }
    };
}
use commands;

commands! {
    Command {
        Status(status::Status),
        #[command(subcommand)]
        Cluster(cluster::Cluster),
        #[command(subcommand)]
        Vm(vm::Vm),
        #[command(subcommand)]
        Node(node::Node),
        #[command(subcommand)]
        Config(config::Config),
        #[command(subcommand)]
        Fault(fault::Fault),
        #[command(subcommand)]
        Token(token::Token),
        #[command(subcommand)]
        Connection(connection::Connection),
        Completion(completion::Completion),
    }
}

/// Asks for confirmation, unless `yes`.
fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{question}\nConfirmation is needed, but standard input is not a terminal: use --yes."
        )));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("Nothing was done.")),
    }
}

/// The filter for a log: on a terminal, what others have written must not steer it. Anything else gets it unchanged.
fn screen(output: Output, raw: bool) -> Option<Screen> {
    (io::stdout().is_terminal() && !raw).then(|| Screen::new(output.coloured))
}

/// Prints the lines of a log.
fn print_log(log: &Log, raw: bool, output: Output) -> Result<(), Failure> {
    match (output.format, screen(output, raw)) {
        (Format::Json, _) => output.json(log),
        (_, Some(mut screen)) => {
            let text = screen.show(log.data.as_bytes());
            let lines = text.strip_suffix('\n').unwrap_or(&text);
            output.print(&format!("{lines}{}", screen.end()))
        }
        (_, None) => output.print(&log.data),
    }
}

/// Refuses to follow a log as JSON: a JSON document has an end.
fn followable(output: Output) -> Result<(), Failure> {
    match output.format {
        Format::Json => Err(Failure::usage(
            "a log cannot be followed with --format json, because a JSON document has an end; use another format",
        )),
        Format::Pretty | Format::Raw => Ok(()),
    }
}

/// Prints chunks as they arrive, until the stream ends or Ctrl-C.
async fn print_stream(
    pieces: impl Stream<Item = Result<Bytes, ClientError>>,
    raw: bool,
    output: Output,
) -> Result<(), Failure> {
    let mut pieces = pin!(pieces);
    let mut screen = screen(output, raw);
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let ended = loop {
        let piece = tokio::select! {
            biased;
            _ = &mut interrupted => break Err(Failure::interrupted()),
            piece = pieces.next() => piece,
        };
        let piece = match piece {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => break Err(error.into()),
            None => break Ok(()),
        };
        let shown = screen.as_mut().map(|screen| screen.show(&piece).into());
        write_out(&shown.unwrap_or(piece))?;
    };
    if let Some(mut screen) = screen {
        write_out(screen.end().as_bytes())?;
    }
    ended
}

fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    finish(out.write_all(bytes).and_then(|()| out.flush()))
}
