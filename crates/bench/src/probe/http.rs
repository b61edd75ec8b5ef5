//! GET requests over one connection that is kept, one after the other.
//!
//! The client is the least that HTTP allows, so that what is measured is the server and the kernel's loopback.

use super::{API, Probe, token};
use drover_lab::{LabError, Result};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// The server must say something within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for one path again and again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Requests {
    /// With its parameters, escaped.
    pub(crate) path: String,
    /// How often before it counts.
    pub(crate) warm_up: usize,
    /// How often.
    pub(crate) count: usize,
}

/// How it was answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// From the request's going out to the answer's first byte.
    pub(crate) first_byte: Vec<Duration>,
    /// To its last byte.
    pub(crate) whole: Vec<Duration>,
    /// The length of one answer's body, in bytes.
    pub(crate) size: u64,
}

impl Probe for Requests {
    const NAME: &'static str = "requests";
    type Answer = Answers;

    fn run(self) -> Result<Answers> {
        self.of(API, &token()?)
    }
}

impl Requests {
    /// Asks an API that is at `address:port`.
    pub(crate) fn of(&self, api: &str, token: &str) -> Result<Answers> {
        let failed = |e: io::Error| LabError::new(format!("GET {}", self.path), e);
        let request = format!("GET {} HTTP/1.1\r\nHost: {api}\r\nX-Api-Key: {token}\r\n\r\n", self.path);
        let mut connection = Connection::open(api).map_err(failed)?;
        for _ in 0..self.warm_up {
            connection.ask(&request).map_err(failed)?;
        }
        let mut answers = Answers { first_byte: Vec::new(), whole: Vec::new(), size: 0 };
        for _ in 0..self.count {
            let (first_byte, whole) = connection.ask(&request).map_err(failed)?;
            answers.first_byte.push(first_byte);
            answers.whole.push(whole);
        }
        answers.size = connection.body.len() as u64;
        Ok(answers)
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    /// The last answer's; kept to be filled again.
    body: Vec<u8>,
}

impl Connection {
    fn open(api: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(api)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream: BufReader::with_capacity(1 << 16, stream), body: Vec::new() })
    }

    /// One request. Returns when the first and the last byte of the answer were there, from the request's going out.
    fn ask(&mut self, request: &str) -> io::Result<(Duration, Duration)> {
        let start = Instant::now();
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.stream.fill_buf()?;
        let first_byte = start.elapsed();
        self.body.clear();
        match self.head()? {
            Some(length) => self.piece(length)?,
            None => self.pieces()?,
        }
        Ok((first_byte, start.elapsed()))
    }

    /// Reads so much of the body.
    fn piece(&mut self, length: usize) -> io::Result<()> {
        let from = self.body.len();
        self.body.resize(from + length, 0);
        self.stream.read_exact(&mut self.body[from..])
    }

    /// Reads a body that comes in pieces (RFC 9112, 7.1).
    fn pieces(&mut self) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let bad = || io::Error::other(format!("{line:?} is no length of a piece"));
            let length = usize::from_str_radix(&line, 16).map_err(|_| bad())?;
            self.piece(length)?;
            if !self.line()?.is_empty() {
                return Err(bad());
            }
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Reads up to the body, and gives its length; `None`: it comes in pieces.
    fn head(&mut self) -> io::Result<Option<usize>> {
        let status = self.line()?;
        let (mut length, mut in_pieces) = (None, false);
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok();
                }
                Some((name, value)) if name.eq_ignore_ascii_case("transfer-encoding") => {
                    in_pieces = value.trim().eq_ignore_ascii_case("chunked");
                }
                _ => {}
            }
        }
        match length {
            Some(length) if status.starts_with("HTTP/1.1 200 ") => Ok(Some(length)),
            None if in_pieces && status.starts_with("HTTP/1.1 200 ") => Ok(None),
            _ => Err(io::Error::other(format!("it was answered {status:?}, with a length of {length:?}"))),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}
