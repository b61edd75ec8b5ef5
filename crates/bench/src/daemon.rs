//! CPU time and memory of a running `droverd`, from /proc.

use drover_lab::{LabError, Node, Result, Service};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs,
    time::{Duration, Instant},
};

/// A running daemon.
pub(crate) struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

/// Memory of a process, in bytes (proc(5), `/proc/pid/status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident memory (VmRSS).
    pub(crate) resident: u64,
    /// The part of it that is anonymous, not mapped from a file (RssAnon).
    pub(crate) anonymous: u64,
}

fn read(pid: i32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|e| LabError::new(format!("cannot read {path}"), e))
}

/// Current memory of a process.
pub(crate) fn memory_of(pid: i32) -> Result<Memory> {
    let status = read(pid, "status")?;
    let bytes = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = value.and_then(|v| v.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.map(|kib| kib << 10)
            .ok_or_else(|| LabError::new(format!("cannot read the memory of process {pid}"), format!("no {name}")))
    };
    Ok(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
}

impl Process {
    /// The daemon of a node.
    pub(crate) fn on(node: &Node<'_>) -> Result<Process> {
        let failed = || format!("{}: cannot measure droverd", node.name());
        Process::of(node.pid(Service::Drover).ok_or_else(|| LabError::new(failed(), "it is not running"))?)
    }

    /// The process with a PID.
    pub(crate) fn of(pid: i32) -> Result<Process> {
        let failed = || format!("cannot measure process {pid}");
        let valid = Pid::from_raw(pid).ok_or_else(|| LabError::new(failed(), "not a valid PID"))?;
        let pidfd = pidfd_open(valid, PidfdFlags::empty()).map_err(|e| LabError::new(failed(), e))?;
        Ok(Process { pid, pidfd })
    }

    /// Current memory.
    pub(crate) fn memory(&self) -> Result<Memory> {
        memory_of(self.pid)
    }

    /// CPU time used so far, in user and kernel mode (proc(5), `utime` and `stime`; in steps of 10 ms).
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let stat = read(self.pid, "stat")?;
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100))
    }

    /// CPU usage over the given time, in percent of one core. Fails at once if the process ends.
    pub(crate) fn load(&self, during: Duration) -> Result<f64> {
        let (before, start) = (self.processor_time()?, Instant::now());
        self.wait_alive(during)?;
        let used = self.processor_time()?.saturating_sub(before);
        Ok(100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64())
    }

    /// Waits for a time during which the process must not end.
    fn wait_alive(&self, time: Duration) -> Result<()> {
        let failed = || format!("droverd, process {}", self.pid);
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|e| LabError::new(failed(), e))?;
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(LabError::new(failed(), "it ended during the measurement")),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(LabError::new(failed(), error)),
            }
        }
    }
}
