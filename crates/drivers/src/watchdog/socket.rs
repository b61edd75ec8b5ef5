//! A watchdog behind a Unix socket: of a program that shares one device between several, or stands for one where the
//! kernel has none.
//!
//! It is spoken to in lines: `start MS` (it begins to count that many milliseconds), `pet`, `stop`. Each is answered by
//! `ok`. A connection that ends without `stop` changes nothing: it goes on counting.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Timeout of an answer. The loop that pets waits for it.
const ANSWER: Duration = Duration::from_millis(500);

/// An open connection.
#[derive(Debug)]
pub(super) struct SocketWatchdog {
    stream: BufReader<UnixStream>,
}

impl SocketWatchdog {
    /// Connects, and starts the timer.
    pub(super) fn start(path: &Path, timeout: Duration) -> io::Result<SocketWatchdog> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut watchdog = SocketWatchdog { stream: BufReader::new(stream) };
        watchdog.ask(&format!("start {}\n", timeout.as_millis()))?;
        Ok(watchdog)
    }

    pub(super) fn pet(&mut self) -> io::Result<()> {
        self.ask("pet\n")
    }

    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.ask("stop\n")
    }

    fn ask(&mut self, line: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        match answer.trim_end() {
            "ok" => Ok(()),
            other => Err(io::Error::other(format!("it answers {other:?} to {:?}", line.trim_end()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KernelWatchdog, Watchdog, WatchdogError};
    use std::{
        io::{BufRead, BufReader, Write},
        os::unix::net::UnixListener,
    };

    #[test]
    fn lines_are_spoken_and_an_answer_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut said = Vec::new();
            for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                let answer = if said.len() == 2 { "busy\n" } else { "ok\n" };
                said.push(line);
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
            said
        });
        let watchdog = KernelWatchdog::new(path.clone(), 10, false);
        assert_eq!(watchdog.open().unwrap().timeout.as_secs(), 10);
        assert!(matches!(watchdog.open(), Err(WatchdogError::Busy { .. })), "it is open");
        watchdog.pet().unwrap();
        assert!(watchdog.close().unwrap_err().to_string().contains("\"busy\""), "it runs on, and is still open");
        watchdog.close().unwrap();
        assert_eq!(peer.join().unwrap(), ["start 10000", "pet", "stop", "stop"]);
        assert!(matches!(watchdog.open(), Err(WatchdogError::Failed { .. })), "nobody is there");
    }
}
