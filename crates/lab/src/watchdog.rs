//! A stand-in for a node's watchdog, which the host's kernel may not have: a program outside the node, behind a socket
//! in it (`/srv/node/watchdog`), that cuts the node's power when it is not petted in time.
//!
//! It is spoken to in lines, each of which is answered by `ok`: `start MS`, `pet`, `stop`. As with the kernel's device,
//! a connection that ends without `stop` is a pet, and changes nothing else.

use crate::{
    lab::Lab,
    node::Node,
    process::{self, Process},
    tools::{Attempt, Result},
};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

/// Path of the socket in the node.
pub const WATCHDOG: &str = "/srv/node/watchdog";

/// How long it takes until the program listens.
const START: Duration = Duration::from_secs(10);

impl Node<'_> {
    fn watchdog_mark(&self) -> String {
        format!("{}/watchdog-{}", self.lab().id(), self.name())
    }

    /// Starts the node's watchdog, which does not count yet. It is taken down with the lab.
    ///
    /// # Errors
    /// If it does not listen in time.
    pub fn start_watchdog(&self) -> Result<()> {
        let failed = || format!("{}: cannot start the watchdog", self.name());
        let socket = self.folder().join("watchdog");
        // Of an earlier one.
        fs::remove_file(&socket).ok();
        let program = fs::canonicalize(self.lab().folder().join("programs/drover-lab")).attempt(failed)?;
        let log = File::create(self.folder().join("watchdog.log")).attempt(failed)?;
        let started = Command::new("setsid")
            .arg("--fork")
            .arg(program)
            .arg("--dir")
            .arg(self.lab().folder())
            .args(["watchdog", self.name()])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env(process::MARK, self.watchdog_mark())
            .stdin(Stdio::null())
            .stdout(log.try_clone().attempt(failed)?)
            .stderr(log)
            .status();
        started.attempt(failed)?;
        Lab::until(&failed(), START, || socket.exists().then_some(()))
    }

    /// What the node's watchdog did: `start`, `stop`, `ran out`, one a line.
    pub fn watchdog_log(&self) -> String {
        fs::read_to_string(self.folder().join("watchdog.log")).unwrap_or_default()
    }
}

/// What a connection says.
enum Said {
    Line(String, UnixStream),
    End,
}

/// Is the watchdog of a node, until it is killed.
///
/// # Errors
/// If it cannot listen, or cannot cut the node's power.
pub fn watchdog(lab: &Lab, name: &str) -> Result<()> {
    let node = lab.node(name)?;
    let failed = || format!("{name}: the watchdog failed");
    // A short path, because that of a socket has at most 107 bytes.
    let folder = File::open(node.folder()).attempt(failed)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/watchdog", folder.as_raw_fd())).attempt(failed)?;
    let (sender, said) = mpsc::channel();
    std::thread::spawn(move || listen(&listener, &sender));
    let mut timeout = Duration::ZERO;
    // When it runs out, and in which boot of the node.
    let mut timer: Option<(Instant, Option<Process>)> = None;
    loop {
        let left = timer.map_or(Duration::from_secs(3600), |(end, _)| end.saturating_duration_since(Instant::now()));
        match said.recv_timeout(left) {
            Ok(Said::Line(line, mut from)) => {
                let good = match line.split_once(' ') {
                    Some(("start", ms)) => ms.parse().map(|ms| timeout = Duration::from_millis(ms)).is_ok(),
                    _ => matches!(line.as_str(), "pet" | "stop"),
                };
                timer = (line != "stop" && good).then(|| (Instant::now() + timeout, node.init()));
                if line != "pet" {
                    println!("{line}");
                }
                // It may have ended meanwhile.
                from.write_all(if good { b"ok\n" } else { b"what?\n" }).ok();
            }
            Ok(Said::End) => {
                timer = timer.map(|(_, boot)| (Instant::now() + timeout, boot));
            }
            Err(RecvTimeoutError::Timeout) => {
                // The power of another boot is not cut: that one has not started it.
                if let Some((_, boot)) = timer.take().filter(|(_, boot)| boot.is_some() && *boot == node.init()) {
                    println!("ran out in the boot of process {}", boot.map_or(0, |init| init.pid()));
                    node.power_off()?;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Passes on what all connections say.
fn listen(listener: &UnixListener, sender: &Sender<Said>) {
    for stream in listener.incoming().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let Ok(reader) = stream.try_clone() else { return };
            for line in BufReader::new(reader).lines().map_while(std::result::Result::ok) {
                let Ok(answer) = stream.try_clone() else { break };
                sender.send(Said::Line(line, answer)).ok();
            }
            sender.send(Said::End).ok();
        });
    }
}
