//! Output: data goes to standard output as tables, names or JSON, everything else to standard error.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::Serialize;
use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};
use unicode_width::UnicodeWidthStr;

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Tables and text for people
    #[default]
    Pretty,
    /// The API's objects
    Json,
    /// Names only, one per line
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

/// Output settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) coloured: bool,
    pub(crate) quiet: bool,
}

/// The meaning of a word, which determines its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
    Faint,
}

impl Tone {
    /// The tone of a state.
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

    /// Prints text as data.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        finish(write!(out, "{text}{newline}").and_then(|()| out.flush()))
    }

    /// Prints an object of the API unchanged.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(e.to_string()))?;
        self.print(&escaped(&text))
    }

    /// Prints a message for people, unless quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Prints what should be known of what was done; format JSON has it in the API's object.
    pub(crate) fn warn(&self, warnings: &[String]) {
        if self.format != Format::Json {
            warnings.iter().for_each(|warning| self.note(&format!("Warning: {}", harmless(warning))));
        }
    }

    /// Reports what was done: the message, or the API's object if the format is JSON.
    pub(crate) fn done(&self, message: &str, value: &impl Serialize) -> Result<(), Failure> {
        if self.format == Format::Json {
            return self.json(value);
        }
        self.note(message);
        Ok(())
    }

    /// Prints a list in the chosen format. `name`: what format `raw` prints of an item.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        name: impl Fn(&T) -> &str,
        table: impl Fn(&[T]) -> Table<'_>,
        nothing: &str,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(&items),
            Format::Raw | Format::Pretty => self.lines(items, name, table, nothing),
        }
    }

    /// Prints a list as a table, or its names.
    pub(crate) fn lines<T>(
        &self,
        items: &[T],
        name: impl Fn(&T) -> &str,
        table: impl Fn(&[T]) -> Table<'_>,
        nothing: &str,
    ) -> Result<(), Failure> {
        if self.format == Format::Raw {
            return self.print(&items.iter().flat_map(|item| [name(item), "\n"]).collect::<String>());
        }
        if items.is_empty() {
            self.note(nothing);
            return Ok(());
        }
        self.print(&table(items).render(self))
    }
}

/// Replaces control characters, so that text from elsewhere cannot send escape sequences to the terminal.
pub(crate) fn harmless<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let text = text.into();
    if !text.chars().any(char::is_control) {
        return text;
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Writes the control characters U+007F to U+009F of a JSON document as escapes, which JSON does not demand: some of
/// them steer a terminal as escape sequences do. They occur in strings only.
fn escaped(json: &str) -> Cow<'_, str> {
    let is_control = |c: char| matches!(c, '\u{7f}'..='\u{9f}');
    if !json.contains(is_control) {
        return json.into();
    }
    json.chars().map(|c| if is_control(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

/// A closed pipe (`| head`) ends the command with code 0 and no message.
pub(crate) fn finish(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure { code: 0, message: String::new() }),
        outcome => Ok(outcome?),
    }
}

/// Maximum width of a table, in columns of the terminal. A wider one drops its spare column, and wraps its last column.
const WIDTH: usize = 120;
/// Minimum width of the last column.
const LAST_WIDTH: usize = 30;

/// A table with a header. Columns are as wide as needed, numbers right-aligned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table<'a> {
    names: Vec<&'static str>,
    rows: Vec<Vec<Cell<'a>>>,
    spare: Option<&'static str>,
}

/// A cell: its text, the text's width, and its tone.
#[derive(Debug, Clone)]
pub(crate) struct Cell<'a> {
    text: Cow<'a, str>,
    width: usize,
    tone: Tone,
    right: bool,
}

impl<'a> Cell<'a> {
    fn new(text: Cow<'a, str>, tone: Tone, right: bool) -> Cell<'a> {
        // Fast path: most texts are ASCII.
        let width = if text.is_ascii() { text.len() } else { text.width() };
        Cell { text, width, tone, right }
    }
    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Cell<'a> {
        let text = harmless(text);
        Cell::new(if text.is_empty() { "-".into() } else { text }, Tone::Plain, false)
    }
    pub(crate) fn state(word: &'a str) -> Cell<'a> {
        Cell { tone: Tone::of(word), ..Cell::text(word) }
    }
    pub(crate) fn number(number: impl std::fmt::Display) -> Cell<'a> {
        Cell { right: true, ..Cell::text(number.to_string()) }
    }
}

impl<'a> Table<'a> {
    pub(crate) fn new(names: &[&'static str]) -> Table<'a> {
        Table { names: names.to_vec(), rows: Vec::new(), spare: None }
    }

    /// Marks a column as spare: it is dropped if the table would be too wide.
    pub(crate) fn sparing(self, name: &'static str) -> Table<'a> {
        Table { spare: Some(name), ..self }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell<'a>>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self, output: &Output) -> String {
        let mut widths: Vec<usize> = self.names.iter().map(|name| name.len()).collect();
        for row in &self.rows {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.width.max(*width));
        }
        let whole: usize = widths.iter().map(|width| width + 2).sum();
        // The column to drop, if any.
        let spare = self.names.iter().position(|name| whole > WIDTH + 2 && self.spare == Some(*name));
        let shown = |n: &usize| Some(*n) != spare;
        let columns: Vec<(usize, usize)> = widths.into_iter().enumerate().filter(|(n, _)| shown(n)).collect();
        let right = |column: usize| self.rows.first().and_then(|row| row.get(column)).is_some_and(|cell| cell.right);
        let header = |n: usize| self.names.get(n).map(|name| Cell::new((*name).into(), Tone::Faint, right(n)));
        let header: Vec<Cell<'_>> = (0..self.names.len()).filter_map(header).collect();
        let mut out = String::with_capacity((self.rows.len() + 1) * (whole + 2));
        line(&mut out, &header, &columns, output);
        let before: usize =
            columns.split_last().map_or(0, |(_, before)| before.iter().map(|(_, width)| width + 2).sum());
        let room = WIDTH.saturating_sub(before).max(LAST_WIDTH);
        for row in &self.rows {
            let Some(last) = row.last().filter(|last| last.width > room) else {
                line(&mut out, row, &columns, output);
                continue;
            };
            let mut part = row.clone();
            for (n, text) in wrapped(&last.text, room).into_iter().enumerate() {
                if n > 0 {
                    part.iter_mut().for_each(|cell| *cell = Cell::new("".into(), cell.tone, cell.right));
                }
                if let Some(cell) = part.last_mut() {
                    *cell = Cell::new(text.into(), cell.tone, cell.right);
                }
                line(&mut out, &part, &columns, output);
            }
        }
        out
    }
}

/// Appends one line of a table. `columns`: the index and width of each shown column.
fn line(out: &mut String, cells: &[Cell<'_>], columns: &[(usize, usize)], output: &Output) {
    let start = out.len();
    for (place, (column, width)) in columns.iter().enumerate() {
        let Some(cell) = cells.get(*column) else { continue };
        let pad = width.saturating_sub(cell.width);
        let (before, after) = if cell.right { (pad, 0) } else { (0, pad) };
        let gap = if place > 0 { 2 } else { 0 };
        out.extend(std::iter::repeat_n(' ', gap + before));
        if output.coloured && !cell.text.is_empty() {
            out.push_str(&output.paint(cell.tone, &cell.text));
        } else {
            out.push_str(&cell.text);
        }
        out.extend(std::iter::repeat_n(' ', after));
    }
    let kept = out.get(start..).map_or(0, |line| line.trim_end().len());
    out.truncate(start + kept);
    out.push('\n');
}

/// Wraps a text at spaces; a word longer than the width stays whole.
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

/// Facts about one object: one name and value per line. Empty values are left out.
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
        let value = harmless(value.into()).into_owned();
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

/// A VM's `run_state` for people: without a domain on its node, it is off.
pub(crate) fn runs(run_state: &str) -> &str {
    if run_state == "absent" { "off" } else { run_state }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { format: Format::Pretty, coloured: false, quiet: false };

    #[test]
    fn columns_are_aligned_and_control_characters_replaced() {
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
        assert_eq!(render, "NOTE  MEMORY\n日本       1\ne\u{301}te        2\n", "width as on a terminal");
        let coloured = Output { coloured: true, ..PLAIN };
        assert!(table.render(&coloured).contains("\x1b[32mstart\x1b[0m"));
    }

    #[test]
    fn json_has_no_control_characters() {
        let text = "a\u{9b}31m\u{7f}\u{1b}é";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escaped(&json);
        assert!(!escaped.chars().any(char::is_control), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn a_wide_table_drops_its_spare_column() {
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
    fn the_last_column_is_wrapped() {
        let mut table = Table::new(&["NAME", "REASON"]);
        table.row(vec![Cell::text("web"), Cell::text("word ".repeat(30).trim().to_owned())]);
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
