//! Text of guests for a terminal: readable, and unable to steer it.
//!
//! A guest's console is written for a screen of its own: firmware, boot loaders and init systems move the cursor, clear
//! the screen, set titles, ask the terminal for its state. What remains of it on an administrator's terminal:
//!
//! | in the guest's output | shown as |
//! |---|---|
//! | text, line breaks, tabs | the same |
//! | colours and other renditions (SGR) | the same, or nothing if output has no colours; reset at the end |
//! | the cursor goes to another line, or back to the line's begin | a line break, unless a line has just begun |
//! | the cursor goes to another column of the line | a space, unless there is one |
//! | anything else: titles, clipboard, queries, modes, key assignments, character sets, bells | nothing |
//!
//! Nothing is passed on but characters that are no control characters, and sequences that are written here, from
//! numbers.

use anstyle_parse::{Params, Parser, Perform};
use std::fmt::Write;

/// The sequence that resets colours.
const RESET: &str = "\x1b[0m";

/// Filters a stream of bytes, in pieces of any size.
pub(crate) struct Screen {
    parser: Parser,
    shown: Shown,
}

/// What is shown.
struct Shown {
    text: String,
    colours: bool,
    /// Whether colours are set.
    coloured: bool,
    /// The last character shown; a line break at the beginning.
    last: char,
    /// Whether the cursor is back at the line's begin, and nothing was written since.
    returned: bool,
}

impl Screen {
    /// `colours`: whether colours pass.
    pub(crate) fn new(colours: bool) -> Screen {
        let shown = Shown { text: String::new(), colours, coloured: false, last: '\n', returned: false };
        Screen { parser: Parser::default(), shown }
    }

    /// What to show for the next bytes.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> String {
        for byte in bytes {
            if *byte == b'\n' {
                // Ends whatever has begun: an unfinished title must not hide what follows.
                self.parser = Parser::default();
                self.shown.put('\n');
            } else {
                self.parser.advance(&mut self.shown, *byte);
            }
        }
        std::mem::take(&mut self.shown.text)
    }

    /// What to show at the end.
    pub(crate) fn end(&mut self) -> &'static str {
        if std::mem::take(&mut self.shown.coloured) { RESET } else { "" }
    }
}

impl Shown {
    fn put(&mut self, c: char) {
        (self.last, self.returned) = (c, false);
        self.text.push(c);
    }

    /// The cursor has left the line.
    fn line(&mut self) {
        if self.last != '\n' {
            self.put('\n');
        }
    }

    /// The cursor has left the column.
    fn column(&mut self) {
        if !self.last.is_whitespace() {
            self.put(' ');
        }
    }
}

impl Perform for Shown {
    fn print(&mut self, c: char) {
        if c.is_control() {
            return;
        }
        // Text after a carriage return would overwrite the line. Most carriage returns come before a line break.
        if self.returned {
            self.line();
        }
        self.put(c);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.returned = true,
            b'\t' => self.put('\t'),
            // Vertical tab, form feed.
            0x0b | 0x0c => self.line(),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        // With a private marker it means something else: `ESC [ > 4 ; 2 m` changes what keys send.
        if ignore || !intermediates.is_empty() {
            return;
        }
        match action {
            b'm' if self.colours => {
                let codes: Vec<String> =
                    params.iter().map(|code| code.iter().map(u16::to_string).collect::<Vec<_>>().join(":")).collect();
                self.coloured = codes.iter().any(|code| code != "0");
                // Writing to a string cannot fail.
                write!(self.text, "\x1b[{}m", codes.join(";")).ok();
            }
            // Up, down, to a line, to the next or previous line, to a position.
            b'A' | b'B' | b'E' | b'F' | b'H' | b'd' | b'f' => self.line(),
            // Forward, to a column.
            b'C' | b'G' | b'`' => self.column(),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _ignore: bool, byte: u8) {
        // Index, next line, reverse index, reset.
        if intermediates.is_empty() && matches!(byte, b'D' | b'E' | b'M' | b'c') {
            self.line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        let mut screen = Screen::new(true);
        let mut text = screen.show(bytes);
        text += screen.end();
        // In pieces of any size it is the same.
        for size in [1, 2, 3, 7] {
            let mut screen = Screen::new(true);
            let mut pieces: String = bytes.chunks(size).map(|piece| screen.show(piece)).collect();
            pieces += screen.end();
            assert_eq!(pieces, text, "in pieces of {size}");
        }
        text
    }

    #[test]
    fn colours_pass_and_nothing_else_steers_the_terminal() {
        for (written, wanted) in [
            (&b"plain\r\ntext\ttab\n"[..], "plain\ntext\ttab\n"),
            ("日本 é".as_bytes(), "日本 é"),
            // systemd
            (b"[\x1b[0;32m  OK  \x1b[0m] Started\x1b[K\r\n", "[\x1b[0;32m  OK  \x1b[0m] Started\n"),
            (b"\x1b[38;5;12mblue", "\x1b[38;5;12mblue\x1b[0m"),
            (b"\x1b[4:3mcurly\x1b[m.", "\x1b[4:3mcurly\x1b[0m."),
            // SeaBIOS, GRUB
            (b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n\r\n", "\x1b[0mSeaBIOS\n\n"),
            (b"one\x1b[5;1Htwo\x1b[6;1Hthree\x1b[40Cfour", "one\ntwo\nthree four"),
            (b"\x1b[H\x1b[Htop\n\rnext", "top\nnext"),
            // Carriage returns: progress, and lines that end in two.
            (b"10%\r20%\r30%\r\r\ndone", "10%\n20%\n30%\ndone"),
            (b"\rstart", "start"),
            // Title, clipboard, hyperlink, in each of their ends; sixel graphics, privacy message
            (b"a\x1b]0;title\x07b\x1b]52;c;cm0gLXJm\x1b\\c\x1b]8;;http://x\x07d", "abcd"),
            (b"a\x1bP1;2qgraphics\x1b\\b\x1b^private\x1b\\c\x1b_app\x1b\\d\x1bXstring\x1b\\e", "abcde"),
            // Queries (the terminal would type the answer), keys, modes, mouse, character set, window size, bell,
            // backspace
            (b"a\x1b[6n\x1b[c\x1b[>4;2m\x1b[?1000h\x1b[?1049h\x1b(0\x1b[8;1;1t\x07\x08\x0e\x05\x1bZb", "ab"),
            // What has begun ends with the line.
            (b"a\x1b]0;title\nb\x1b[3\nc\x1bPq\nd", "a\nb\nc\nd"),
            (b"a\x1b[", "a"),
            // Cancelled
            (b"a\x1b[3\x18b\x1b]0;t\x1ac", "abc"),
            // More parameters than there is room for
            (b"a\x1b[1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1mb", "ab"),
        ] {
            assert_eq!(shown(written), wanted, "{:?}", String::from_utf8_lossy(written));
        }
    }

    /// Whatever a guest writes, as bytes or as UTF-8.
    #[test]
    fn no_control_character_passes_but_in_a_colour() {
        let mut random = 1_u64;
        let alphabet =
            b"\x1b\x1b\x1b[[]PX^_m;:0123\x07\x9b\x9d\x90\x84\x85\xc2\xc2\xff\xe2\x80\xf0\\ABHhlnc?>!\x7f\x08\r\n\0 a";
        for _ in 0..4_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    alphabet[usize::try_from(random >> 33).unwrap() % alphabet.len()]
                })
                .collect();
            let text = shown(&bytes);
            let mut rest = text.as_str();
            while let Some(at) = rest.find(|c: char| c.is_control() && c != '\n' && c != '\t') {
                let (sequence, after) = rest[at..].split_once('m').unwrap_or((&rest[at..], ""));
                let codes = sequence.strip_prefix("\x1b[").unwrap_or_else(|| panic!("{bytes:x?} → {text:?}"));
                assert!(codes.chars().all(|c| c.is_ascii_digit() || ";:".contains(c)), "{bytes:x?} → {text:?}");
                rest = after;
            }
        }
    }

    #[test]
    fn without_colours_there_is_no_escape_sequence() {
        let mut screen = Screen::new(false);
        assert_eq!(screen.show(b"\x1b[31mred\x1b[0m"), "red");
        assert_eq!(screen.end(), "");
    }
}
