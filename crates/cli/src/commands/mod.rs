//! What the commands do, one file for each noun.

mod config;
mod connection;
mod node;
mod status;
mod token;
mod vm;

use crate::{
    args::{self, Command, Node},
    connection::client,
    failure::Failure,
    output::{Format, Output},
};
use bytes::Bytes;
use drover_client::ClientError;
use drover_model::wire::Log;
use futures_util::{Stream, StreamExt};
use std::{
    io::{self, BufRead, IsTerminal, Write},
    pin::pin,
};

/// Does a command.
pub(crate) async fn run(command: Command, named: Option<&str>, output: Output) -> Result<(), Failure> {
    match command {
        Command::Completion { shell } => {
            let line = match shell.as_str() {
                "fish" => "COMPLETE=fish drover | source".to_owned(),
                shell => format!("source <(COMPLETE={shell} drover)"),
            };
            if output.format == Format::Json { output.json(&line) } else { output.print(&line) }
        }
        Command::Connection(command) => connection::run(command, output),
        Command::Cluster(args::Cluster::Maintenance { switch, lasts }) => {
            status::maintenance(&client(named)?, switch, lasts, output).await
        }
        Command::Status => status::run(&client(named)?, output).await,
        Command::Fault(args::Fault::List { sort_key }) => status::faults(&client(named)?, sort_key, output).await,
        Command::Config(command) => config::run(command, &client(named)?, output).await,
        Command::Node(command @ Node::IsPrimary { .. }) => {
            let answer = async { node::run(command, &client(named)?, output).await };
            answer.await.map_err(node::undecided)
        }
        Command::Node(command) => node::run(command, &client(named)?, output).await,
        Command::Vm(command) => vm::run(command, &client(named)?, output).await,
        Command::Token(command) => token::run(command, &client(named)?, output).await,
    }
}

/// Asks before something that cannot be undone.
fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question}\nThis needs a yes: use --yes where nobody can be asked.")));
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

/// Prints the lines of a log.
fn print_log(log: &Log, output: Output) -> Result<(), Failure> {
    if output.format == Format::Json { output.json(log) } else { output.print(&log.data) }
}

/// Whether a log can be followed in that format: what has no end is no JSON document.
fn followable(output: Output) -> Result<(), Failure> {
    match output.format {
        Format::Json => {
            Err(Failure::usage("a log that is followed has no end, so it is no JSON document; leave out --format json"))
        }
        Format::Pretty | Format::Raw => Ok(()),
    }
}

/// Prints pieces as they come, until they end or Ctrl-C.
async fn print_stream(pieces: impl Stream<Item = Result<Bytes, ClientError>>) -> Result<(), Failure> {
    let mut pieces = pin!(pieces);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let mut out = io::stdout().lock();
        match out.write_all(&piece).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}
