//! Connections to clusters.

use super::{Context, Run, commands};
use crate::{
    connection::{self, Connections, LOCAL},
    failure::Failure,
    output::{Cell, Format, Output, Table},
};
use clap::Args;
use drover_model::wire::Message;
use serde_json::json;
use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

commands! {
    /// Manage the connections to clusters
    Connection {
        List(List),
        Add(Add),
        Remove(Remove),
        Default(MakeDefault),
    }
}

/// List the connections
#[derive(Debug, Args)]
pub(crate) struct List {}

/// Add a connection, or change an existing one
///
/// The token is read from standard input, so that it does not show up in the shell's history or in the list of
/// processes. With --token-file, it is read from the file whenever the connection is used.
///
/// Example: drover connection add prod http://10.0.0.1:7370 < token
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The connection's name
    name: String,
    /// URL of the API of any node of the cluster
    url: String,
    /// Read the token from this file at each use, instead of storing it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Remove a connection
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The connection's name
    name: String,
}

/// Choose the connection to use when none is given
#[derive(Debug, Args)]
pub(crate) struct MakeDefault {
    /// The connection's name; 'local' for this machine's node
    name: String,
}

impl Run for List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        list(&Connections::load(&connection::file()?)?, context.output)
    }
}

impl Run for Add {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Add { name, url, token_file } = self;
        let file = connection::file()?;
        let mut connections = Connections::load(&file)?;
        // Refuse an unusable URL now, not at its first use.
        drover_client::Client::new(&url, None).map_err(|e| Failure::usage(e.to_string()))?;
        let token = if token_file.is_some() { None } else { read_token()? };
        connections.all.insert(name.clone(), connection::Connection { url, token, token_file });
        connections.save(&file)?;
        let message = format!(
            "Added connection {name}; use it with -c {name}, or always with 'drover connection default {name}'."
        );
        done(message, context.output)
    }
}

impl Run for Remove {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = self.name;
        let file = connection::file()?;
        let mut connections = Connections::load(&file)?;
        if connections.all.remove(&name).is_none() {
            return Err(unknown(&name));
        }
        connections.default = connections.default.filter(|default| *default != name);
        connections.save(&file)?;
        done(format!("Removed connection {name}."), context.output)
    }
}

impl Run for MakeDefault {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = self.name;
        let file = connection::file()?;
        let mut connections = Connections::load(&file)?;
        if name != LOCAL && !connections.all.contains_key(&name) {
            return Err(unknown(&name));
        }
        let message = format!("Connection {name} is now the default.");
        connections.default = Some(name).filter(|name| name != LOCAL);
        connections.save(&file)?;
        done(message, context.output)
    }
}

fn unknown(name: &str) -> Failure {
    Failure { code: 3, message: format!("there is no connection named {name:?}") }
}

fn done(message: String, output: Output) -> Result<(), Failure> {
    let message = Message { message };
    output.done(&message.message, &message)
}

fn read_token() -> Result<Option<String>, Failure> {
    if io::stdin().is_terminal() {
        eprint!("Token (shown as you type; --token-file avoids that): ");
        io::stderr().flush()?;
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let token = line.trim().to_owned();
    if token.is_empty() {
        return Err(Failure::usage("there is no token on standard input; give one there, or use --token-file"));
    }
    Ok(Some(token))
}

fn list(connections: &Connections, output: Output) -> Result<(), Failure> {
    let default = connections.default.as_deref().unwrap_or(LOCAL);
    let own = connections.all.iter().map(|(name, c)| (name.as_str(), c.url.as_str()));
    let implicit = (!connections.all.contains_key(LOCAL)).then_some((LOCAL, "http://127.0.0.1:7370"));
    let all: Vec<(&str, &str)> = own.chain(implicit).collect();
    match output.format {
        Format::Json => {
            let objects: Vec<_> =
                all.iter().map(|(name, url)| json!({"name": name, "url": url, "default": *name == default})).collect();
            output.json(&objects)
        }
        Format::Raw => output.print(&all.iter().map(|(name, _)| format!("{name}\n")).collect::<String>()),
        Format::Pretty => {
            let mut table = Table::new(&["NAME", "URL", "DEFAULT"]);
            for (name, url) in all {
                table.row(vec![
                    Cell::text(name),
                    Cell::text(url),
                    Cell::text(if name == default { "yes" } else { "" }),
                ]);
            }
            output.print(&table.render(&output))
        }
    }
}
