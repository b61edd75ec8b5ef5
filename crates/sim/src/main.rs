//! Runs simulations: many seeds, or one with its log.

use clap::Parser;
use drover_sim::{Lie, Options, Shape, Tally};
use std::{
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Simulates clusters in virtual time, with crashes, power cuts, partitions and slow hypervisors.
///
/// The same seed always gives the same run. If seeds fail, the command that shows the log of the first one is printed.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The seeds to run
    #[arg(long, default_value = "0..1000", value_parser = range, value_name = "FROM..TO")]
    seeds: Range<u64>,
    /// Run only this seed, and log its events
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Duration of the faults, in seconds of virtual time
    #[arg(long, default_value_t = 240)]
    weather: u64,
    /// Plant a defect, to check that it is found
    #[arg(long, value_enum, default_value_t)]
    lie: Lie,
    /// The kind of cluster
    #[arg(long, value_enum, default_value_t)]
    shape: Shape,
    /// Log level of a single seed: info, debug, trace
    #[arg(long, default_value = "debug")]
    level: tracing::Level,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Play scenarios, and print their stories and what did not hold (docs/scenarios.md)
    Scenario {
        /// Files with a scenario each
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    ends.map(|(from, to): (u64, u64)| from..to).ok_or_else(|| "expected FROM..TO, such as 0..1000".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Scenario { files }) = &arguments.command {
        return scenarios(files);
    }
    let options = |seed| Options {
        weather: Duration::from_secs(arguments.weather),
        lie: arguments.lie,
        shape: arguments.shape,
        ..Options::of(seed)
    };
    match arguments.seed {
        Some(seed) => one(options(seed), arguments.level),
        None => many(arguments.seeds.clone(), options, arguments.lie, arguments.shape),
    }
}

fn scenarios(files: &[PathBuf]) -> ExitCode {
    let mut failed = false;
    for file in files {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: cannot be read: {error}"));
        match text.and_then(|text| drover_sim::scenario::play(&name, &text)) {
            Ok(played) => {
                println!("{name}:");
                print!("{}", played.story);
                played.failures.iter().for_each(|failure| println!("FAILED: {failure}"));
                failed |= !played.failures.is_empty();
            }
            Err(why) => {
                println!("{why}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Puts the virtual time in front of each line of the log.
struct VirtualTime;

impl tracing_subscriber::fmt::time::FormatTime for VirtualTime {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        thread_local!(static START: tokio::time::Instant = tokio::time::Instant::now());
        write!(w, "{:10.3}", START.with(tokio::time::Instant::elapsed).as_secs_f64())
    }
}

fn one(options: Options, level: tracing::Level) -> ExitCode {
    tracing_subscriber::fmt().with_max_level(level).with_timer(VirtualTime).with_target(false).with_ansi(false).init();
    match drover_sim::run(options) {
        Ok(tally) => {
            println!("seed {}: passed; {}", options.seed, describe(&tally));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {}: {violation}", options.seed);
            ExitCode::FAILURE
        }
    }
}

fn describe(tally: &Tally) -> String {
    format!(
        "{} orders done, {} not; {} starts, {} takeovers, {} daemon crashes, {} power cuts, {} partitions, {} stalls, \
         {} servers behind, {} clones, {} nodes off, {} of them by their BMCs, {} by their watchdogs, \
         {} orders to cut the power, {} resets by watchdogs, {} foreign records, {} guests migrated by hand, \
         {} domains made by hand, {} with other disks, {} stores lost",
        tally.orders,
        tally.refused,
        tally.starts,
        tally.takeovers,
        tally.crashes,
        tally.power_cuts,
        tally.partitions,
        tally.stalls,
        tally.behind,
        tally.clones,
        tally.recovered,
        tally.proved,
        tally.ran_out,
        tally.cuts,
        tally.resets,
        tally.foreign,
        tally.hands,
        tally.foreign_domains,
        tally.replaced,
        tally.losses
    )
}

fn many(seeds: Range<u64>, options: impl Fn(u64) -> Options + Sync, lie: Lie, shape: Shape) -> ExitCode {
    let (next, began) = (AtomicU64::new(seeds.start), Instant::now());
    let total = Mutex::new((Tally::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let outcome = drover_sim::run(options(seed));
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok(tally) => add(&mut total.0, &tally),
                        Err(violation) => {
                            println!("seed {seed}: {violation}");
                            total.1.push(seed);
                        }
                    }
                }
            });
        }
    });
    let (tally, failed) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} seeds in {:.1} s: {}", seeds.end - seeds.start, began.elapsed().as_secs_f64(), describe(&tally));
    let Some(first) = failed.iter().min() else { return ExitCode::SUCCESS };
    let lie = if lie == Lie::None {
        String::new()
    } else {
        format!(
            " --lie {}",
            clap::ValueEnum::to_possible_value(&lie).map(|v| v.get_name().to_owned()).unwrap_or_default()
        )
    };
    let shape = clap::ValueEnum::to_possible_value(&shape).map(|v| v.get_name().to_owned()).unwrap_or_default();
    println!(
        "{} failed; to see the first of them: cargo run -p drover-sim -- --shape {shape} --seed {first}{lie}",
        failed.len()
    );
    ExitCode::FAILURE
}

fn add(total: &mut Tally, one: &Tally) {
    total.orders += one.orders;
    total.refused += one.refused;
    total.starts += one.starts;
    total.crashes += one.crashes;
    total.power_cuts += one.power_cuts;
    total.partitions += one.partitions;
    total.stalls += one.stalls;
    total.behind += one.behind;
    total.clones += one.clones;
    total.takeovers += one.takeovers;
    total.foreign += one.foreign;
    total.hands += one.hands;
    total.foreign_domains += one.foreign_domains;
    total.replaced += one.replaced;
    total.losses += one.losses;
    total.cuts += one.cuts;
    total.proved += one.proved;
    total.recovered += one.recovered;
    total.resets += one.resets;
    total.ran_out += one.ran_out;
}
