//! Pings from a client on the network where users are, all the time: what users see of a thing that moves.

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

/// How often it is pinged, in seconds.
const INTERVAL: &str = "0.025";

/// Now, in microseconds since 1970, UTC, as answers have it, and the daemons' logs.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Waits until an address answers; returns when it was seen to.
pub(crate) fn answers(world: &World<'_>, address: &str) -> Result<u64> {
    let ping = || world.client(&["ping", "-n", "-c1", "-W1", address]).output().ok().filter(|o| o.status.success());
    Lab::until(&format!("{address} does not answer"), Duration::from_secs(30), ping)?;
    Ok(now())
}

/// Pings of one address, which go on until they are ended.
pub(crate) struct Pings {
    child: Child,
    said: Option<JoinHandle<std::io::Result<String>>>,
}

/// A ping that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// When the answer came, in microseconds since 1970.
    at: u64,
    /// Its number.
    number: u32,
}

impl Pings {
    /// Begins.
    pub(crate) fn start(world: &World<'_>, address: &str) -> Result<Pings> {
        let failed = |e: std::io::Error| LabError::new("cannot run ping", e);
        let mut command = world.client(&["ping", "-n", "-D", "-i", INTERVAL, address]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let pipe = child.stdout.take();
        let said = thread::spawn(move || {
            let mut said = String::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut said)).map(|_| said)
        });
        Ok(Pings { child, said: Some(said) })
    }

    /// Ends them, and gives what was answered.
    pub(crate) fn end(mut self) -> Result<Vec<Answer>> {
        let failed = |e: std::io::Error| LabError::new("cannot end ping", e);
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT).map_err(|e| failed(e.into()))?;
        }
        self.child.wait().map_err(failed)?;
        let said = self.said.take().and_then(|said| said.join().ok());
        let said = said.ok_or_else(|| LabError::new("cannot read what ping says", "its reader ended"))?;
        Ok(said.map_err(failed)?.lines().filter_map(answer).collect())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        // It fails when the process has ended.
        self.child.kill().ok();
        // How it ended is not asked.
        self.child.wait().ok();
    }
}

/// What a line of ping's says: `[1700000000.123456] 64 bytes from ADDRESS: icmp_seq=1 ttl=64 time=0.5 ms`.
fn answer(line: &str) -> Option<Answer> {
    let (seconds, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = seconds.split_once('.')?;
    let fraction = format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?;
    let (_, rest) = rest.split_once(" bytes from ")?;
    let number = rest.split_once("icmp_seq=")?.1.split_whitespace().next()?.parse().ok()?;
    Some(Answer { at: seconds.parse::<u64>().ok()? * 1_000_000 + fraction, number })
}

/// How many were not answered, from the first to the last that was.
pub(crate) fn lost(answered: &[Answer]) -> u64 {
    let numbers: BTreeSet<u32> = answered.iter().map(|answer| answer.number).collect();
    let sent = numbers.first().zip(numbers.last()).map_or(0, |(first, last)| u64::from(last - first) + 1);
    sent - numbers.len() as u64
}

/// The longest time between two answers, some of which is in this span.
pub(crate) fn longest_gap(answered: &[Answer], from: u64, to: u64) -> Result<Duration> {
    let gaps = answered.windows(2).filter_map(|pair| match pair {
        [before, after] if after.at > from && before.at < to => Some(after.at.saturating_sub(before.at)),
        _ => None,
    });
    // An answer beyond it must have come, or the longest is not over.
    let last = answered.last().map_or(0, |answer| answer.at);
    let missing = || {
        let why =
            format!("{} answers, the last of them {} ms too early", answered.len(), to.saturating_sub(last) / 1000);
        LabError::new("pings are not answered any more", why)
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
    fn the_longest_gap_of_a_span_is_found() {
        let answered = answers(&[(1, 100), (2, 125), (3, 150), (33, 900), (34, 925), (77, 2000), (78, 2025)]);
        let gap = |from, to| longest_gap(&answered, from, to).map(|gap| gap.as_micros());
        assert_eq!(gap(0, 140).unwrap(), 25);
        assert_eq!(gap(140, 800).unwrap(), 750);
        assert_eq!(gap(160, 170).unwrap(), 750, "it is all inside");
        assert_eq!(gap(0, 2025).unwrap(), 1075);
        assert!(gap(0, 2026).is_err() && longest_gap(&[], 0, 0).is_err());
    }

    #[test]
    fn lost_pings_are_counted() {
        assert_eq!(lost(&answers(&[(3, 1), (4, 2), (4, 3), (6, 4), (5, 5)])), 0, "one twice, and one late");
        assert_eq!(lost(&answers(&[(3, 1), (6, 4), (8, 5)])), 3);
        assert_eq!(lost(&[]), 0);
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(
            answer("[1700000000.012345] 64 bytes from 203.0.113.50: icmp_seq=7 ttl=64 time=0.5 ms"),
            Some(Answer { at: 1_700_000_000_012_345, number: 7 })
        );
        assert_eq!(answer("[1700000000.012345] From 203.0.113.100 icmp_seq=1 Destination Host Unreachable"), None);
        assert_eq!(answer("PING 203.0.113.50 (203.0.113.50) 56(84) bytes of data."), None);
    }
}
