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
use failure::Failure;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = Arguments::parse();
    let output = Output::new(arguments.format, arguments.colour, arguments.quiet);
    match run(arguments, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("drover: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = Context { connection: arguments.connection, output };
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
