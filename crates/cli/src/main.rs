//! The drover command line, a client of the HTTP API. It runs on any machine that reaches the API.

mod args;
mod commands;
mod complete;
mod connection;
mod failure;
mod output;
mod screen;
mod wait;

use args::Arguments;
use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use commands::{Context, Run};
use drover_client::Begun;
use drover_model::OperationId;
use failure::Failure;
use output::Output;
use std::{env, process::ExitCode, sync::Arc};
use uuid::Uuid;

fn main() -> ExitCode {
    CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = Arguments::parse();
    let output = Output::new(arguments.format, arguments.colour, arguments.quiet);
    let operation = operation_id().map(|id| Arc::new(Begun::new(id)));
    let outcome = operation.clone().and_then(|operation| run(arguments, output, operation));
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("drover: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    };
    // With it, all that follows is found in events and logs.
    if let Some(id) = operation.as_ref().ok().and_then(|operation| operation.id()) {
        output.note(&format!("Operation {id}"));
    }
    code
}

/// The id of what this command begins, if it changes something: from the environment, or a new one.
fn operation_id() -> Result<OperationId, Failure> {
    match env::var("DROVER_OPERATION") {
        Ok(id) if !id.is_empty() => id.parse().map_err(|bad| Failure::usage(format!("DROVER_OPERATION: {bad}"))),
        _ => Ok(OperationId::made(Uuid::new_v4(), 0)),
    }
}

fn run(arguments: Arguments, output: Output, operation: Arc<Begun>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = Context { connection: arguments.connection, output, operation };
    runtime.block_on(arguments.command.run(&context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }
}
