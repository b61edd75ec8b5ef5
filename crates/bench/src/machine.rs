//! Facts about the machine that the benchmarks run on.

use crate::world::Cluster;
use drover_lab::{LabError, Result};
use drover_model::wire::Node;
use std::{fs, path::Path, process::Command, thread, time::Duration};

/// CPU usage of other processes that is warned about, in percent of all CPUs.
const BUSY_PERCENT: f64 = 5.0;

/// Facts that the figures depend on.
pub(crate) struct Machine {
    facts: Vec<(String, String)>,
}

impl Machine {
    /// Reads the facts. The file system is that of the programs, where the labs are, too.
    pub(crate) fn read(program: &Path) -> Result<Machine> {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| cpus.lines().find_map(|line| line.strip_prefix(name)?.split_once(": "));
        let model = field("model name").map_or("unknown", |(_, model)| model.trim());
        let cores = thread::available_parallelism().map_err(|e| LabError::new("cannot count the processors", e))?;
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        let memory = memory.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / f64::from(1 << 20);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let facts = [
            ("Processor", format!("{model}, {cores} threads")),
            ("Memory", format!("{memory:.1} GiB")),
            ("Kernel", format!("Linux {kernel}")),
            ("File system", file_system(program)?),
        ];
        Ok(Machine { facts: facts.map(|(name, fact)| (name.to_owned(), fact)).to_vec() })
    }

    /// Adds how guests are executed, as the nodes of a cluster report.
    pub(crate) fn guests(&mut self, cluster: Cluster, nodes: &[Node]) {
        let Some(node) = nodes.first() else { return };
        let how = match node.domain_type.as_str() {
            "kvm" => "KVM",
            _ => "QEMU's emulator (TCG)",
        };
        self.facts.push((format!("Guests, {cluster}"), format!("{how}; {}", node.hypervisor)));
    }

    /// Measures CPU usage for one second; returns a warning if other processes use the CPUs.
    pub(crate) fn busy(&self) -> Option<String> {
        let (busy, all) = processor_time()?;
        thread::sleep(Duration::from_secs(1));
        let (busy_then, all_then) = processor_time()?;
        let percent = 100.0 * busy_then.checked_sub(busy)? as f64 / all_then.checked_sub(all)?.max(1) as f64;
        (percent > BUSY_PERCENT).then(|| {
            format!("warning: other processes use {percent:.0} % of the CPUs; measured times will be too long")
        })
    }

    /// Names and values of the facts.
    pub(crate) fn facts(&self) -> &[(String, String)] {
        &self.facts
    }
}

/// Busy time and total time of all CPUs since boot, in clock ticks (proc(5), `/proc/stat`).
fn processor_time() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks = text.lines().next()?.split_whitespace().skip(1).map(str::parse::<u64>);
    // user, nice, system, idle, iowait, irq, softirq, steal; the time of guests is included in user.
    let ticks: Vec<u64> = ticks.take(8).collect::<std::result::Result<_, _>>().ok()?;
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let all: u64 = ticks.iter().sum();
    Some((all.checked_sub(idle)?, all))
}

fn file_system(program: &Path) -> Result<String> {
    let output = Command::new("df").arg("--output=fstype").arg(program).output();
    let output = output.map_err(|e| LabError::new("cannot run df", e))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().trim().to_owned())
}
