//! Benchmarks of Drover with real components; prints the tables of `docs/benchmarks.md`.
//!
//! Each benchmark is a module of [`benchmarks`] that returns rows of a table. Most run in labs (`drover-lab`), with
//! real libvirtd, QEMU, ZooKeeper and `droverd`. What must be measured inside a node is a [`probe`]: this program is
//! run in the node with a hidden subcommand, and prints its result as JSON.

mod benchmarks;
mod daemon;
mod definitions;
mod figures;
mod log;
mod machine;
mod pings;
mod probe;
mod report;
mod runner;
mod scale;
mod supervisor;
mod world;

use benchmarks::{BENCHMARKS, Benchmark};
use clap::{Parser, Subcommand, builder::PossibleValuesParser};
use drover_lab::{LabError, Result};
use std::{path::Path, process::ExitCode, time::Instant};

/// The file that `--write` updates, relative to the top of the source tree.
const DOCUMENT: &str = "docs/benchmarks.md";

/// Measure Drover with real components on this machine.
///
/// Needs root, and the programs of 'cargo build --release' in the same folder. Progress goes to standard error, the
/// tables (in Markdown) to standard output. A missed target is not an error.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Benchmarks to run [default: all]
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(BENCHMARKS.iter().map(|b| b.name)))]
    names: Vec<String>,
    /// Write the tables into docs/benchmarks.md
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    size: scale::Size,
    /// Measure in this process, whose parent removes the lab (internal)
    #[arg(long, hide = true)]
    supervised: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Measure inside a node (internal)
    #[command(hide = true)]
    Probe { name: String, parameters: String },
    /// Run the agents of a large cluster (internal)
    #[command(hide = true)]
    Crew { crew: String },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("drover-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.action {
        Some(Action::Probe { name, parameters }) => {
            println!("{}", probe::run(&name, &parameters)?);
            return Ok(ExitCode::SUCCESS);
        }
        Some(Action::Crew { crew }) => return scale::run_crew(&crew).map(|()| ExitCode::SUCCESS),
        None => {}
    }
    let program = std::env::current_exe().map_err(|e| LabError::new("cannot find this program's file", e))?;
    let folder = program.parent().and_then(Path::parent).unwrap_or(Path::new("/run")).join("bench");
    if !arguments.supervised {
        return supervisor::run(&program, &folder);
    }
    for needed in ["drover", "droverd", "drover-lab"].map(|name| program.with_file_name(name)) {
        if !needed.exists() {
            let why = "not built; run 'cargo build --release --workspace --bins'";
            return Err(LabError::new(needed.display().to_string(), why));
        }
    }
    measure(&arguments, &program, &folder).map(|()| ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments, program: &Path, folder: &Path) -> Result<()> {
    // First, so that a wrong working directory is an error before minutes of measurements.
    let document = arguments.write.then(|| report::Document::open(Path::new(DOCUMENT))).transpose()?;
    let wanted = |b: &&Benchmark| arguments.names.is_empty() || arguments.names.iter().any(|name| name == b.name);
    let selected: Vec<&'static Benchmark> = BENCHMARKS.iter().filter(wanted).collect();
    let start = Instant::now();
    let progress = move |step: &str| eprintln!("[{:5.1} s] {step}", start.elapsed().as_secs_f32());
    let results = runner::run(&selected, arguments.size, folder, program, &progress)?;
    print!("{}", report::markdown(&results));
    document.map_or(Ok(()), |document| document.write(&results))
}
