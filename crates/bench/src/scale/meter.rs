//! Measurements outside the agents: the machine's memory, and the number of requests to the ensemble.

use crate::figures::Figure;
use drover_lab::{LabError, Result};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

/// Memory reserved for everything else on the machine, in bytes.
const KEPT: u64 = 1 << 30;

/// Available memory, in bytes (proc(5), `MemAvailable`).
pub(crate) fn available() -> Result<u64> {
    let file = "/proc/meminfo";
    let text = fs::read_to_string(file).map_err(|e| LabError::new(format!("cannot read {file}"), e))?;
    read_available(&text).ok_or_else(|| LabError::new(format!("cannot read {file}"), "no MemAvailable"))
}

fn read_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Fails if `all` VMs would not fit into memory, extrapolated from the first `some` of them.
pub(crate) fn guard(taken: u64, some: usize, all: usize, available: u64) -> Result<()> {
    let left = u128::from(taken) * (all.saturating_sub(some)) as u128 / some.max(1) as u128;
    let needed = u64::try_from(left).unwrap_or(u64::MAX).saturating_add(KEPT);
    if needed <= available {
        return Ok(());
    }
    Err(LabError::new(
        format!("this machine is too small for {all} VMs on so many nodes"),
        format!(
            "the first {some} took {}, the others would need {} and there are {}; choose fewer with --nodes and --vms",
            Figure::Memory(taken),
            Figure::Memory(needed - KEPT),
            Figure::Memory(available),
        ),
    ))
}

/// Number of requests to the members of an ensemble so far (`zk_packets_received` of the command `mntr`).
pub(crate) fn requests(members: &[String]) -> Result<u64> {
    members.iter().map(|member| requests_of(member)).sum()
}

fn requests_of(member: &str) -> Result<u64> {
    let failed = |why: String| LabError::new(format!("ZooKeeper at {member} does not say how it is"), why);
    let mut text = String::new();
    let asked = TcpStream::connect(member).and_then(|mut connection| {
        connection.write_all(b"mntr")?;
        connection.read_to_string(&mut text)
    });
    asked.map_err(|e| failed(e.to_string()))?;
    read_requests(&text).ok_or_else(|| failed(format!("{text:?}")))
}

fn read_requests(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("zk_packets_received"))?;
    // Some versions print it with decimals.
    value.trim().split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_read() {
        let text = "zk_version\t3.8.0\nzk_packets_received\t1234\nzk_packets_sent\t99\n";
        assert_eq!(read_requests(text), Some(1234));
        assert_eq!(read_requests("zk_packets_received\t17.0\n"), Some(17));
        assert_eq!(read_requests("This ZooKeeper instance is not currently serving requests\n"), None);
        assert_eq!(read_available("MemTotal: 9 kB\nMemAvailable:   2 kB\n"), Some(2048));
    }

    #[test]
    fn a_machine_that_is_too_small_is_told_so() {
        let gib = 1 << 30;
        assert!(guard(gib, 1000, 10_000, 11 * gib).is_ok());
        let error = guard(gib, 1000, 10_000, 9 * gib).unwrap_err().to_string();
        assert!(error.contains("the first 1000 took 1024 MiB, the others would need 9216 MiB"), "{error}");
    }
}
