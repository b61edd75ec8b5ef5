//! What is printed: data to standard output as tables, names or JSON, everything else to standard error.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use unicode_width::UnicodeWidthStr;

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
            "start" | "run" | "running" | "ready" | "primary" | "chosen" => Tone::Good,
            "shutdown" | "restart" | "delete" | "init" | "flush" | "unflush" | "paused" | "waits" => Tone::Busy,
            "migrate" | "migrate-live" | "unmigrate" | "shutting-down" | "takeover" | "relinquish" => Tone::Busy,
            "fail" | "dead" | "flushed" | "blocked" => Tone::Bad,
            "stop" | "disable" | "off" | "absent" | "-" | "client" | "rejected" => Tone::Faint,
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

    /// What was done: a sentence for people, or the API's object as data.
    pub(crate) fn done(&self, message: &str, value: &impl Serialize) -> Result<(), Failure> {
        if self.format == Format::Json {
            return self.json(value);
        }
        self.note(message);
        Ok(())
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

/// What others wrote must not steer the terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A reader that went away (`| head`) is no failure: there is just nothing more to say.
fn finish(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure { code: 0, message: String::new() }),
        outcome => Ok(outcome?),
    }
}

/// How wide a table may be: before it does without a column, and before the last column's texts go on in the next line.
const WIDTH: usize = 120;
/// How wide the last column is at least.
const LAST_WIDTH: usize = 30;

/// Columns under their names, as wide as they need to be; numbers to the right.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    names: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    spare: Option<&'static str>,
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
        let text = harmless(&text.into());
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
        Table { names: names.to_vec(), rows: Vec::new(), spare: None }
    }

    /// Does without a column where the table would be too wide with it.
    pub(crate) fn sparing(self, name: &'static str) -> Table {
        Table { spare: Some(name), ..self }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self, output: &Output) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.text.width());
            let name = self.names.get(column).map_or(0, |n| n.len());
            cells.max().unwrap_or(0).max(name)
        };
        let widths: Vec<usize> = (0..self.names.len()).map(width).collect();
        let whole: usize = widths.iter().map(|width| width + 2).sum();
        if let Some(spare) = self.names.iter().position(|name| whole > WIDTH + 2 && self.spare == Some(*name)) {
            let mut without = Table { spare: None, ..self.clone() };
            without.names.remove(spare);
            for row in &mut without.rows {
                row.remove(spare);
            }
            return without.render(output);
        }
        let right = |column: usize| self.rows.first().and_then(|r| r.get(column)).is_some_and(|c| c.right);
        let header = self.names.iter().enumerate().map(|(n, name)| {
            let tone = Tone::Faint;
            Cell { text: (*name).to_owned(), tone, right: right(n) }
        });
        let mut out = line(header, &widths, output);
        let before: usize = widths.split_last().map_or(0, |(_, before)| before.iter().map(|width| width + 2).sum());
        let room = WIDTH.saturating_sub(before).max(LAST_WIDTH);
        for row in &self.rows {
            let mut row = row.clone();
            let last = row.last_mut().map(|last| std::mem::take(&mut last.text)).unwrap_or_default();
            for (n, part) in wrapped(&last, room).into_iter().enumerate() {
                if n > 0 {
                    row.iter_mut().for_each(|cell| cell.text.clear());
                }
                if let Some(last) = row.last_mut() {
                    last.text = part;
                }
                out.push_str(&line(row.iter().cloned(), &widths, output));
            }
        }
        out
    }
}

/// One line of a table.
fn line(cells: impl Iterator<Item = Cell>, widths: &[usize], output: &Output) -> String {
    let cells = cells.zip(widths).map(|(cell, width)| {
        let pad = width.saturating_sub(cell.text.width());
        let (before, after) = if cell.right { (pad, 0) } else { (0, pad) };
        let text = if cell.text.is_empty() { String::new() } else { output.paint(cell.tone, &cell.text) };
        format!("{}{text}{}", " ".repeat(before), " ".repeat(after))
    });
    format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
}

/// A text in lines of that width, broken between words where that can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(last) = lines.last_mut() else { break };
        if last.is_empty() {
            last.push_str(word);
        } else if last.width() + 1 + word.width() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
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
        let value = harmless(&value.into());
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
        let mut wide = Table::new(&["NOTE", "MEMORY"]);
        wide.row(vec![Cell::text("日本"), Cell::number(1)]);
        wide.row(vec![Cell::text("e\u{301}te"), Cell::number(2)]);
        let render = wide.render(&PLAIN);
        assert_eq!(render, "NOTE  MEMORY\n日本       1\ne\u{301}te        2\n", "as many columns as a terminal takes");
        let coloured = Output { coloured: true, ..PLAIN };
        assert!(table.render(&coloured).contains("\x1b[32mstart\x1b[0m"));
    }

    #[test]
    fn a_wide_table_does_without_a_column() {
        let render = |note: &str| {
            let mut table = Table::new(&["NAME", "UUID", "NOTE"]).sparing("UUID");
            table.row(vec![Cell::text("web"), Cell::text("u".repeat(36)), Cell::text(note)]);
            table.render(&PLAIN)
        };
        let longest = "x".repeat(WIDTH - 4 - 2 - 36 - 2);
        assert!(render(&longest).contains(&"u".repeat(36)));
        assert_eq!(render(&longest).lines().map(str::len).max(), Some(WIDTH));
        assert_eq!(render(&format!("{longest}x")), format!("NAME  NOTE\nweb   {longest}x\n"));
    }

    #[test]
    fn a_long_text_goes_on_in_the_next_line() {
        let mut table = Table::new(&["NAME", "REASON"]);
        table.row(vec![Cell::text("web"), Cell::text("word ".repeat(30).trim())]);
        table.row(vec![Cell::text("db"), Cell::text("short")]);
        let part = "word ".repeat(22) + "word";
        let rest = "word ".repeat(6) + "word";
        assert_eq!(table.render(&PLAIN), format!("NAME  REASON\nweb   {part}\n      {rest}\ndb    short\n"));
        let mut narrow = Table::new(&["NAME", "REASON"]);
        narrow.row(vec![Cell::text("n".repeat(110)), Cell::text("one two three four five six seven")]);
        let last = narrow.render(&PLAIN).lines().last().unwrap().trim().to_owned();
        assert_eq!(last, "seven", "the last column keeps some width");
    }

    #[test]
    fn facts_are_aligned_and_empty_ones_left_out() {
        let mut facts = Facts::default();
        facts.fact("Name", "web");
        facts.fact("Reason", "");
        facts.fact("Memory", "1\x1bMiB");
        assert_eq!(facts.render(&PLAIN), "Name:   web\nMemory: 1 MiB\n");
    }
}
