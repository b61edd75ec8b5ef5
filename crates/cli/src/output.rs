//! What is printed: data to standard output as tables, names or JSON, everything else to standard error.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Tables and text for people
    #[default]
    Pretty,
    /// The API's objects
    Json,
    /// Names only, one a line
    Raw,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Where output goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) coloured: bool,
    pub(crate) quiet: bool,
}

/// The sense of a word, which gives it its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
    Faint,
}

impl Tone {
    /// Of a state's word.
    pub(crate) fn of(word: &str) -> Tone {
        match word {
            "start" | "run" | "running" | "ready" | "primary" => Tone::Good,
            "shutdown" | "restart" | "delete" | "init" | "flush" | "unflush" | "provision" | "paused" => Tone::Busy,
            "fail" | "dead" | "flushed" => Tone::Bad,
            "stop" | "disable" | "off" | "absent" | "-" | "client" => Tone::Faint,
            _ => Tone::Plain,
        }
    }

    fn codes(self) -> (&'static str, &'static str) {
        match self {
            Tone::Plain => ("", ""),
            Tone::Good => ("\x1b[32m", "\x1b[0m"),
            Tone::Busy => ("\x1b[33m", "\x1b[0m"),
            Tone::Bad => ("\x1b[31m", "\x1b[0m"),
            Tone::Faint => ("\x1b[2m", "\x1b[0m"),
        }
    }
}

impl Output {
    pub(crate) fn new(format: Format, colour: Colour, quiet: bool) -> Output {
        let coloured = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Output { format, coloured, quiet }
    }

    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        let (on, off) = tone.codes();
        if self.coloured { format!("{on}{text}{off}") } else { text.to_owned() }
    }

    /// A text as data.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        finish(write!(out, "{text}{newline}").and_then(|()| out.flush()))
    }

    /// The API's object, as it is.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(e.to_string()))?;
        self.print(&text)
    }

    /// What was done, for people: not data.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A list, in the format that was asked for. `name` gives what `raw` prints.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        name: impl Fn(&T) -> &str,
        table: impl Fn(&[T]) -> Table,
        nothing: &str,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(&items),
            Format::Raw => self.print(&items.iter().map(|i| format!("{}\n", name(i))).collect::<String>()),
            Format::Pretty if items.is_empty() => {
                self.note(nothing);
                Ok(())
            }
            Format::Pretty => self.print(&table(items).render(self)),
        }
    }
}

/// A reader that went away (`| head`) is no failure: there is just nothing more to say.
fn finish(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure { code: 0, message: String::new() }),
        outcome => Ok(outcome?),
    }
}

/// Columns under their names, as wide as they need to be; numbers to the right.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    names: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A cell: its text and sense.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Cell {
        let text: String = text.into();
        // What others wrote must not steer the terminal.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = if text.is_empty() { "-".to_owned() } else { text };
        Cell { text, tone: Tone::Plain, right: false }
    }
    pub(crate) fn state(word: &str) -> Cell {
        Cell { tone: Tone::of(word), ..Cell::text(word) }
    }
    pub(crate) fn number(number: impl std::fmt::Display) -> Cell {
        Cell { right: true, ..Cell::text(number.to_string()) }
    }
}

impl Table {
    pub(crate) fn new(names: &[&'static str]) -> Table {
        Table { names: names.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self, output: &Output) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.text.chars().count());
            let name = self.names.get(column).map_or(0, |n| n.len());
            cells.max().unwrap_or(0).max(name)
        };
        let widths: Vec<usize> = (0..self.names.len()).map(width).collect();
        let right = |column: usize| self.rows.first().and_then(|r| r.get(column)).is_some_and(|c| c.right);
        let mut out = String::new();
        let header = self.names.iter().enumerate().map(|(n, name)| {
            let pad = widths[n] - name.len();
            let (before, after) = if right(n) { (pad, 0) } else { (0, pad) };
            format!("{}{}{}", " ".repeat(before), output.paint(Tone::Faint, name), " ".repeat(after))
        });
        out.push_str(header.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(n, cell)| {
                let pad = widths[n] - cell.text.chars().count();
                let (before, after) = if cell.right { (pad, 0) } else { (0, pad) };
                format!("{}{}{}", " ".repeat(before), output.paint(cell.tone, &cell.text), " ".repeat(after))
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

/// Facts of one thing: a name and a value a line. Empty values are left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    rows: Vec<(&'static str, String, Tone)>,
}

impl Facts {
    pub(crate) fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.toned(name, value, Tone::Plain);
    }
    pub(crate) fn state(&mut self, name: &'static str, word: &str) {
        self.toned(name, word, Tone::of(word));
    }
    pub(crate) fn toned(&mut self, name: &'static str, value: impl Into<String>, tone: Tone) {
        let value = value.into();
        if !value.is_empty() {
            self.rows.push((name, value, tone));
        }
    }
    pub(crate) fn render(&self, output: &Output) -> String {
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0) + 1;
        let line = |(name, value, tone): &(&'static str, String, Tone)| {
            let label = format!("{:<width$}", format!("{name}:"));
            format!("{} {}\n", output.paint(Tone::Faint, &label), output.paint(*tone, value))
        };
        self.rows.iter().map(line).collect()
    }
}

/// What a VM does, for people: one whose node has no domain for it is simply off.
pub(crate) fn runs<'a>(vm: &'a drover_model::wire::Vm<'_>) -> &'a str {
    if vm.run_state == "absent" { "off" } else { &vm.run_state }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { format: Format::Pretty, coloured: false, quiet: false };

    #[test]
    fn columns_are_aligned_and_controls_are_harmless() {
        let mut table = Table::new(&["NAME", "STATE", "MEMORY"]);
        table.row(vec![Cell::text("web"), Cell::state("start"), Cell::number(512)]);
        table.row(vec![Cell::text("a\x1b[31mlong"), Cell::state("stop"), Cell::number(2048)]);
        table.row(vec![Cell::text(""), Cell::state("fail"), Cell::number(1)]);
        assert_eq!(
            table.render(&PLAIN),
            "NAME        STATE  MEMORY\n\
             web         start     512\n\
             a [31mlong  stop     2048\n\
             -           fail        1\n"
        );
        let coloured = Output { coloured: true, ..PLAIN };
        assert!(table.render(&coloured).contains("\x1b[32mstart\x1b[0m"));
    }

    #[test]
    fn facts_are_aligned_and_empty_ones_left_out() {
        let mut facts = Facts::default();
        facts.fact("Name", "web");
        facts.fact("Reason", "");
        facts.fact("Memory", "1 MiB");
        assert_eq!(facts.render(&PLAIN), "Name:   web\nMemory: 1 MiB\n");
    }
}
