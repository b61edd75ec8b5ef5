//! Processes of a lab: finding them, even after a crash of the lab's program, and killing them reliably.

use crate::tools::{Attempt, LabError, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Environment variable of every process of a lab; its value is the lab's id and the node's name, `ID/NAME`.
pub(crate) const MARK: &str = "DROVER_LAB_NODE";

/// A process, identified by its PID and start time, because PIDs are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    start: u64,
}

impl Process {
    /// The process with this PID; `None` if there is none, or only a zombie.
    pub(crate) fn of(pid: i32) -> Option<Process> {
        Process::read(pid).filter(|(_, zombie)| !zombie).map(|(process, _)| process)
    }

    /// The process with this PID, and whether it is a zombie: its first thread has ended.
    fn read(pid: i32) -> Option<(Process, bool)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc_pid_stat(5): the name, in parentheses, may contain spaces.
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let zombie = rest.next()? == "Z";
        Some((Process { pid, start: rest.nth(18)?.parse().ok()? }, zombie))
    }

    /// Reads a file written by [`Process::save`]; `None` if the process has ended.
    pub(crate) fn load(file: &Path) -> Option<Process> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let saved = Process { pid: pid.parse().ok()?, start: start.parse().ok()? };
        (Process::of(saved.pid) == Some(saved)).then_some(saved)
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.pid, self.start)).attempt(|| format!("cannot write {}", file.display()))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Its PID in its own PID namespace; `None` if that is the host's.
    pub(crate) fn namespaced_pid(&self) -> Option<i32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        pids.split_whitespace().skip(1).last()?.parse().ok()
    }

    /// Its PID namespace.
    pub(crate) fn pid_namespace(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/ns/pid", self.pid)).ok()
    }

    /// All processes of the host whose name begins with `name`.
    pub(crate) fn all(name: &str) -> Vec<Process> {
        let named =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name));
        pids().into_iter().filter(named).filter_map(Process::of).collect()
    }

    /// A process that does not exist, for tests.
    #[cfg(test)]
    pub(crate) fn sample(pid: i32) -> Process {
        Process { pid, start: 0 }
    }

    /// Sends SIGKILL, and waits until the process has ended.
    pub(crate) fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_ended(Duration::from_secs(20))
    }

    /// Sends a signal. Succeeds if the process has already ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(LabError::new(format!("cannot send a signal to process {}", self.pid), error)),
        }
    }

    /// Waits until the process has ended.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> Result<()> {
        let what = || format!("process {} has not ended", self.pid);
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        // A zombie may have other threads, which keep its files open: so zombies are waited for, too.
        if Process::read(self.pid).is_none_or(|(process, _)| process != *self) {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).attempt(what)?;
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(LabError::new(what(), format!("timed out after {} s", timeout.as_secs()))),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(LabError::new(what(), error)),
            }
        }
    }
}

/// All processes whose [`MARK`] begins with `prefix`.
pub(crate) fn marked(prefix: &str) -> Vec<Process> {
    let mark = format!("{MARK}={prefix}");
    let marked = pids().into_iter().filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable.starts_with(mark.as_bytes()))
    });
    marked.filter_map(Process::of).collect()
}

/// The PIDs of all processes of the host.
fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}
