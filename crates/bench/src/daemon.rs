//! What a running `droverd` uses of the machine, as its kernel counts it.

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
    life: OwnedFd,
}

/// Its memory, in bytes (proc(5), `/proc/pid/status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// VmRSS: all that is resident.
    pub(crate) resident: u64,
    /// RssAnon: of that, what is its own and not a file's.
    pub(crate) anonymous: u64,
}

fn read(pid: i32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|e| LabError::new(format!("cannot read {path}"), e))
}

/// What a process has now.
pub(crate) fn memory_of(pid: i32) -> Result<Memory> {
    let status = read(pid, "status")?;
    let bytes = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = value.and_then(|v| v.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| LabError::new("cannot read its memory", format!("no {name}")))
    };
    Ok(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
}

impl Process {
    /// The one that runs on a node.
    pub(crate) fn on(node: &Node<'_>) -> Result<Process> {
        let failed = || format!("{}: cannot look at droverd", node.name());
        Process::of(node.pid(Service::Drover).ok_or_else(|| LabError::new(failed(), "it does not run"))?)
    }

    /// The one of this number.
    pub(crate) fn of(pid: i32) -> Result<Process> {
        let failed = || format!("cannot look at process {pid}");
        let number = Pid::from_raw(pid).ok_or_else(|| LabError::new(failed(), format!("its number is {pid}")))?;
        let life = pidfd_open(number, PidfdFlags::empty()).map_err(|e| LabError::new(failed(), e))?;
        Ok(Process { pid, life })
    }

    /// What it has now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        memory_of(self.pid)
    }

    /// How much processor time it has had, in its own code and in the kernel for it (proc(5), `utime` and `stime`; in
    /// steps of 10 ms).
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let stat = read(self.pid, "stat")?;
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100))
    }

    /// What it uses of one core during a time, in percent. Fails at once if it ends meanwhile.
    pub(crate) fn load(&self, during: Duration) -> Result<f64> {
        let (before, start) = (self.processor_time()?, Instant::now());
        self.outlives(during)?;
        let used = self.processor_time()?.saturating_sub(before);
        Ok(100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64())
    }

    fn outlives(&self, time: Duration) -> Result<()> {
        let failed = || format!("droverd, process {}", self.pid);
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|e| LabError::new(failed(), e))?;
            match poll(&mut [PollFd::new(&self.life, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(LabError::new(failed(), "it ended while it was measured")),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(LabError::new(failed(), error)),
            }
        }
    }
}
