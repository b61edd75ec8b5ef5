//! Connections to clusters.

use crate::{
    args,
    connection::{self, Connection, Connections, LOCAL},
    failure::Failure,
    output::{Cell, Format, Output, Table},
};
use drover_model::wire::Message;
use serde_json::json;
use std::io::{self, BufRead, IsTerminal, Write};

pub(crate) fn run(command: args::Connection, output: Output) -> Result<(), Failure> {
    let file = connection::file()?;
    let mut connections = Connections::load(&file)?;
    match command {
        args::Connection::List => list(&connections, output),
        args::Connection::Add { name, url, token_file } => {
            // A URL that cannot be used is refused now, not at the first command.
            drover_client::Client::new(&url, None).map_err(|e| Failure::usage(e.to_string()))?;
            let token = if token_file.is_some() { None } else { read_token()? };
            connections.all.insert(name.clone(), Connection { url, token, token_file });
            connections.save(&file)?;
            done(
                format!(
                    "Added connection {name}; use it with -c {name}, or always with 'drover connection default {name}'."
                ),
                output,
            )
        }
        args::Connection::Remove { name } => {
            if connections.all.remove(&name).is_none() {
                return Err(Failure { code: 3, message: format!("there is no connection named {name:?}") });
            }
            connections.default = connections.default.filter(|default| *default != name);
            connections.save(&file)?;
            done(format!("Removed connection {name}."), output)
        }
        args::Connection::Default { name } => {
            if name != LOCAL && !connections.all.contains_key(&name) {
                return Err(Failure { code: 3, message: format!("there is no connection named {name:?}") });
            }
            let message = format!("Connection {name} is used when none is named.");
            connections.default = Some(name).filter(|name| name != LOCAL);
            connections.save(&file)?;
            done(message, output)
        }
    }
}

fn done(message: String, output: Output) -> Result<(), Failure> {
    let message = Message { message };
    output.done(&message.message, &message)
}

fn read_token() -> Result<Option<String>, Failure> {
    if io::stdin().is_terminal() {
        eprint!("Token (it will be seen as you type; or use --token-file): ");
        io::stderr().flush()?;
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let token = line.trim().to_owned();
    if token.is_empty() {
        return Err(Failure::usage("no token was given on standard input; or use --token-file"));
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
