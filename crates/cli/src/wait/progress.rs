//! Progress output: on a terminal one line that is overwritten; elsewhere a new line whenever the activity changes, and
//! one with new figures from time to time.

use crate::output::{Output, harmless};
use drover_model::wire::Migration;
use std::{
    io::{IsTerminal, Write},
    time::Duration,
};
use tokio::time::Instant;

/// Minimum interval between lines that only have new figures, without a terminal.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);

/// The current activity, and its figures, which change all the time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Line {
    pub(super) what: String,
    pub(super) figures: String,
}

impl Line {
    pub(super) fn of(what: &str) -> Line {
        Line { what: what.to_owned(), figures: String::new() }
    }

    fn text(&self) -> String {
        let whole =
            if self.figures.is_empty() { self.what.clone() } else { format!("{}: {}", self.what, self.figures) };
        harmless(whole).into_owned()
    }
}

/// Progress of a migration, in figures; `None`: nothing is being sent.
pub(crate) fn figures(migration: &Migration) -> Option<String> {
    let Migration { total, sent, rate, estimate, .. } = migration;
    let percent = migration.percent()?;
    let estimate = estimate.map(|seconds| format!(", about {seconds} s left")).unwrap_or_default();
    Some(format!("{percent} %, {sent} MiB sent of {total}, {rate} MiB/s{estimate}"))
}

/// Prints progress to standard error.
pub(super) struct Progress {
    output: Output,
    terminal: bool,
    name: String,
    last: Line,
    printed: Instant,
    start: Instant,
}

impl Progress {
    pub(super) fn new(name: &str, output: Output) -> Progress {
        let (terminal, now) = (std::io::stderr().is_terminal(), Instant::now());
        Progress { output, terminal, name: name.to_owned(), last: Line::default(), printed: now, start: now }
    }

    /// Seconds since the wait began.
    pub(super) fn seconds(&self) -> f32 {
        self.start.elapsed().as_secs_f32()
    }

    pub(super) fn show(&mut self, line: &Line) {
        if self.output.quiet {
            return;
        }
        if self.terminal {
            eprint!("\r\x1b[K{}: {} ({} s)", self.name, line.text(), self.start.elapsed().as_secs());
            // A lost update is harmless: the next one overwrites it.
            std::io::stderr().flush().ok();
        } else if self.is_due(line) {
            eprintln!("{}: {}", self.name, line.text());
            self.printed = Instant::now();
            self.last.clone_from(line);
        }
    }

    fn is_due(&self, line: &Line) -> bool {
        let first_figures = self.last.figures.is_empty() && !line.figures.is_empty();
        self.last.what != line.what
            || first_figures
            || (self.last != *line && self.printed.elapsed() >= FIGURES_INTERVAL)
    }

    pub(super) fn end(&self) {
        if self.terminal && !self.output.quiet {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[tokio::test(start_paused = true)]
    async fn figures_are_printed_at_intervals() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let mut progress = Progress { terminal: false, ..Progress::new("web", output) };
        let line = |figures: &str| Line { what: "to hv2".to_owned(), figures: figures.to_owned() };
        let due = |progress: &mut Progress, line: &Line| {
            let due = progress.is_due(line);
            progress.show(line);
            due
        };
        assert!(due(&mut progress, &line("")));
        assert!(due(&mut progress, &line("1 %")), "the first figures");
        assert!(!due(&mut progress, &line("2 %")));
        tokio::time::advance(FIGURES_INTERVAL).await;
        assert!(due(&mut progress, &line("50 %")));
        assert!(!due(&mut progress, &line("50 %")));
        assert!(due(&mut progress, &Line::of("waiting")), "another activity");
    }

    #[test]
    fn a_migration_is_shown_in_figures() {
        let mut migration = Migration { total: 1024, sent: 700, left: 512, rate: 117, ..Migration::default() };
        assert_eq!(figures(&migration).unwrap(), "50 %, 700 MiB sent of 1024, 117 MiB/s");
        migration.estimate = Some(4);
        assert_eq!(figures(&migration).unwrap(), "50 %, 700 MiB sent of 1024, 117 MiB/s, about 4 s left");
        assert_eq!(figures(&Migration::default()), None);
    }
}
