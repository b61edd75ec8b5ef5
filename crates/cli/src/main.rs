//! The drover command line: a client of the HTTP API, which runs anywhere.

mod args;
mod commands;
mod complete;
mod connection;
mod failure;
mod output;
mod wait;

use args::Arguments;
use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
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
    runtime.block_on(commands::run(arguments.command, arguments.connection.as_deref(), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Arguments::command().debug_assert();
    }
}
