//! Processes that the lab started: to find them again after a crash of the lab itself, and to be sure that they are
//! gone.

use crate::tools::{Attempt, LabError, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// The environment variable that every process of a lab has: the lab's id and the node's name.
pub(crate) const MARK: &str = "DROVER_LAB_NODE";

/// A process, told from a later one with the same number by the time of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    start: u64,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Option<Process> {
        Process::read(pid).filter(|(_, zombie)| !zombie).map(|(process, _)| process)
    }

    /// The process that has this number now, and whether its first thread has ended.
    fn read(pid: i32) -> Option<(Process, bool)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may have spaces.
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let zombie = rest.next()? == "Z";
        Some((Process { pid, start: rest.nth(18)?.parse().ok()? }, zombie))
    }

    /// Reads a file of [`Process::save`]; `None` if that process has ended.
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

    /// Its number in its own namespace, which is an inner one; `None` for a process of the host's.
    pub(crate) fn namespaced_pid(&self) -> Option<i32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        numbers.split_whitespace().skip(1).last()?.parse().ok()
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_gone(Duration::from_secs(20))
    }

    /// Sends a signal; that it is gone already is no failure.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(LabError::new(format!("cannot send a signal to process {}", self.pid), error)),
        }
    }

    /// Waits for its end.
    pub(crate) fn wait_gone(&self, patience: Duration) -> Result<()> {
        let what = || format!("process {} does not end", self.pid);
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        // One whose first thread has ended may have others, with all its files open.
        if Process::read(self.pid).is_none_or(|(process, _)| process != *self) {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).attempt(what)?;
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(LabError::new(what(), format!("not in {} s", patience.as_secs()))),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(LabError::new(what(), error)),
            }
        }
    }
}

/// Every process whose mark begins with this text.
pub(crate) fn marked(prefix: &str) -> Vec<Process> {
    let wanted = format!("{MARK}={prefix}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable.starts_with(wanted.as_bytes()))
    })
    .filter_map(Process::of)
    .collect()
}
