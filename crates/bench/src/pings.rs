//! Continuous pings from the client in the upstream network: how users see an address that moves.

use crate::world::World;
use drover_lab::{Lab, LabError, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    io::Read,
    process::{Child, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Interval between pings, in seconds.
const INTERVAL: &str = "0.025";

/// The current time in microseconds since 1970, UTC, as in ping's output and the daemons' logs.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Waits until an address answers a ping; returns the time of that.
pub(crate) fn answers(world: &World<'_>, address: &str) -> Result<u64> {
    let ping = || world.client(&["ping", "-n", "-c1", "-W1", address]).output().ok().filter(|o| o.status.success());
    Lab::until(&format!("{address} does not answer"), Duration::from_secs(30), ping)?;
    Ok(now())
}

/// Continuous pings of one address, until they are ended.
pub(crate) struct Pings {
    child: Child,
    output: Option<JoinHandle<std::io::Result<String>>>,
}

/// An answer to a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Time of the answer, in microseconds since 1970.
    at: u64,
    /// Sequence number of the ping.
    number: u32,
}

impl Pings {
    /// Starts pinging an address.
    pub(crate) fn start(world: &World<'_>, address: &str) -> Result<Pings> {
        let failed = |e: std::io::Error| LabError::new("cannot run ping", e);
        let mut command = world.client(&["ping", "-n", "-D", "-i", INTERVAL, address]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let pipe = child.stdout.take();
        let output = thread::spawn(move || {
            let mut output = String::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut output)).map(|_| output)
        });
        Ok(Pings { child, output: Some(output) })
    }

    /// Ends the pings, and returns the answers.
    pub(crate) fn end(mut self) -> Result<Vec<Answer>> {
        let failed = |e: std::io::Error| LabError::new("cannot end ping", e);
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT).map_err(|e| failed(e.into()))?;
        }
        self.child.wait().map_err(failed)?;
        let output = self.output.take().and_then(|output| output.join().ok());
        let output = output.ok_or_else(|| LabError::new("cannot read the output of ping", "its reader ended"))?;
        Ok(output.map_err(failed)?.lines().filter_map(answer).collect())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        // Fails if the process has ended.
        self.child.kill().ok();
        // Its exit status does not matter.
        self.child.wait().ok();
    }
}

/// Parses a line of ping's output: `[1700000000.123456] 64 bytes from ADDRESS: icmp_seq=1 ttl=64 time=0.5 ms`.
fn answer(line: &str) -> Option<Answer> {
    let (seconds, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = seconds.split_once('.')?;
    let fraction = format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?;
    let (_, rest) = rest.split_once(" bytes from ")?;
    let number = rest.split_once("icmp_seq=")?.1.split_whitespace().next()?.parse().ok()?;
    Some(Answer { at: seconds.parse::<u64>().ok()? * 1_000_000 + fraction, number })
}

/// Number of pings without an answer, between the first and the last that were answered.
pub(crate) fn lost(answered: &[Answer]) -> u64 {
    let numbers: BTreeSet<u32> = answered.iter().map(|answer| answer.number).collect();
    let sent = numbers.first().zip(numbers.last()).map_or(0, |(first, last)| u64::from(last - first) + 1);
    sent - numbers.len() as u64
}

/// The longest time between two consecutive answers that overlaps a span of time.
///
/// # Errors
/// If there is no answer after the span: the longest gap may then not be over.
pub(crate) fn longest_gap(answered: &[Answer], from: u64, to: u64) -> Result<Duration> {
    let gaps = answered.windows(2).filter_map(|pair| match pair {
        [before, after] if after.at > from && before.at < to => Some(after.at.saturating_sub(before.at)),
        _ => None,
    });
    let last = answered.last().map_or(0, |answer| answer.at);
    let missing = || {
        let early = to.saturating_sub(last) / 1000;
        let why = format!("the last of {} answers came {early} ms before the end of the measurement", answered.len());
        LabError::new("pings are no longer answered", why)
    };
    gaps.max().filter(|_| last >= to).map(Duration::from_micros).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(of: &[(u32, u64)]) -> Vec<Answer> {
        of.iter().map(|&(number, at)| Answer { at, number }).collect()
    }

    #[test]
    fn longest_gap_is_that_which_overlaps_the_span() {
        let answered = answers(&[(1, 100), (2, 125), (3, 150), (33, 900), (34, 925), (77, 2000), (78, 2025)]);
        let gap = |from, to| longest_gap(&answered, from, to).map(|gap| gap.as_micros());
        assert_eq!(gap(0, 140).unwrap(), 25);
        assert_eq!(gap(140, 800).unwrap(), 750);
        assert_eq!(gap(160, 170).unwrap(), 750, "the span is inside the gap");
        assert_eq!(gap(0, 2025).unwrap(), 1075);
        assert!(gap(0, 2026).is_err() && longest_gap(&[], 0, 0).is_err());
    }

    #[test]
    fn lost_pings_are_counted() {
        assert_eq!(
            lost(&answers(&[(3, 1), (4, 2), (4, 3), (6, 4), (5, 5)])),
            0,
            "one answered twice, one out of order"
        );
        assert_eq!(lost(&answers(&[(3, 1), (6, 4), (8, 5)])), 3);
        assert_eq!(lost(&[]), 0);
    }

    #[test]
    fn output_of_ping_is_parsed() {
        assert_eq!(
            answer("[1700000000.012345] 64 bytes from 203.0.113.50: icmp_seq=7 ttl=64 time=0.5 ms"),
            Some(Answer { at: 1_700_000_000_012_345, number: 7 })
        );
        assert_eq!(answer("[1700000000.012345] From 203.0.113.100 icmp_seq=1 Destination Host Unreachable"), None);
        assert_eq!(answer("PING 203.0.113.50 (203.0.113.50) 56(84) bytes of data."), None);
    }
}
