//! Sequential GET requests over one connection.
//!
//! The HTTP client is minimal, so that the measurement is of the server and the kernel's loopback.

use super::{API, Probe, token};
use drover_lab::{LabError, Result};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Read timeout.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Requests one path repeatedly.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Requests {
    /// Path and query, percent-encoded.
    pub(crate) path: String,
    /// Number of requests that are not counted.
    pub(crate) warm_up: usize,
    /// Number of requests that are counted.
    pub(crate) count: usize,
}

/// Response times.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// From sending each request to the first byte of the response.
    pub(crate) first_byte: Vec<Duration>,
    /// From sending each request to the last byte of the response.
    pub(crate) whole: Vec<Duration>,
    /// Length of the last response's body, in bytes.
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
    /// Sends the requests to the API at `api`, an `address:port`.
    pub(crate) fn of(&self, api: &str, token: &str) -> Result<Answers> {
        let failed = |e: io::Error| LabError::new(format!("GET {}", self.path), e);
        let request = format!("GET {} HTTP/1.1\r\nHost: {api}\r\nX-Api-Key: {token}\r\n\r\n", self.path);
        let mut connection = Connection::open(api).map_err(failed)?;
        for _ in 0..self.warm_up {
            connection.send(&request).map_err(failed)?;
        }
        let mut answers = Answers { first_byte: Vec::new(), whole: Vec::new(), size: 0 };
        for _ in 0..self.count {
            let (first_byte, whole) = connection.send(&request).map_err(failed)?;
            answers.first_byte.push(first_byte);
            answers.whole.push(whole);
        }
        answers.size = connection.body.len() as u64;
        Ok(answers)
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    /// Body of the last response; the buffer is reused.
    body: Vec<u8>,
}

impl Connection {
    fn open(api: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(api)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream: BufReader::with_capacity(1 << 16, stream), body: Vec::new() })
    }

    /// Sends a request. Returns the times until the first and until the last byte of the response.
    fn send(&mut self, request: &str) -> io::Result<(Duration, Duration)> {
        let start = Instant::now();
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.stream.fill_buf()?;
        let first_byte = start.elapsed();
        self.body.clear();
        match self.head()? {
            Some(length) => self.read_body(length)?,
            None => self.read_chunks()?,
        }
        Ok((first_byte, start.elapsed()))
    }

    /// Reads `length` bytes of the body.
    fn read_body(&mut self, length: usize) -> io::Result<()> {
        let from = self.body.len();
        self.body.resize(from + length, 0);
        self.stream.read_exact(&mut self.body[from..])
    }

    /// Reads a chunked body (RFC 9112, section 7.1).
    fn read_chunks(&mut self) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let bad = || io::Error::other(format!("{line:?} is not a valid chunk size"));
            let length = usize::from_str_radix(&line, 16).map_err(|_| bad())?;
            self.read_body(length)?;
            if !self.line()?.is_empty() {
                return Err(bad());
            }
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Reads the header. Returns the length of the body; `None` if it is chunked.
    fn head(&mut self) -> io::Result<Option<usize>> {
        let status = self.line()?;
        let (mut length, mut chunked) = (None, false);
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
                    chunked = value.trim().eq_ignore_ascii_case("chunked");
                }
                _ => {}
            }
        }
        match length {
            Some(length) if status.starts_with("HTTP/1.1 200 ") => Ok(Some(length)),
            None if chunked && status.starts_with("HTTP/1.1 200 ") => Ok(None),
            _ => Err(io::Error::other(format!("the response is {status:?}, with a length of {length:?}"))),
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
