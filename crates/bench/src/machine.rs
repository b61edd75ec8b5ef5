//! The machine that is measured on.

use crate::world::Cluster;
use drover_lab::{LabError, Result};
use drover_model::wire::Node;
use std::{fs, path::Path, process::Command, thread, time::Duration};

/// From so many percent of the processors on, something else is at work.
const BUSY: f64 = 5.0;

/// What figures depend on.
pub(crate) struct Machine {
    facts: Vec<(String, String)>,
}

impl Machine {
    /// This one. The labs are on the file system that has the programs.
    pub(crate) fn read(program: &Path) -> Result<Machine> {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| cpus.lines().find_map(|line| line.strip_prefix(name)?.split_once(": "));
        let model = field("model name").map_or("not known", |(_, model)| model.trim());
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

    /// Takes in what the nodes of a cluster say of their guests.
    pub(crate) fn guests(&mut self, cluster: Cluster, nodes: &[Node]) {
        let Some(node) = nodes.first() else { return };
        let how = match node.domain_type.as_str() {
            "kvm" => "KVM",
            _ => "QEMU's emulator (TCG)",
        };
        self.facts.push((format!("Guests, {cluster}"), format!("{how}; {}", node.hypervisor)));
    }

    /// A warning, if something else is at work now. Looks for a second.
    pub(crate) fn busy(&self) -> Option<String> {
        let (busy, all) = processor_time()?;
        thread::sleep(Duration::from_secs(1));
        let (busy_then, all_then) = processor_time()?;
        let percent = 100.0 * busy_then.checked_sub(busy)? as f64 / all_then.checked_sub(all)?.max(1) as f64;
        (percent > BUSY).then(|| {
            format!("something else uses {percent:.0} % of the processors: times will be longer than they need be")
        })
    }

    /// Each fact with its name.
    pub(crate) fn facts(&self) -> &[(String, String)] {
        &self.facts
    }
}

/// What the processors did since the machine's start, and all their time, in the kernel's ticks (proc(5),
/// `/proc/stat`).
fn processor_time() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks = text.lines().next()?.split_whitespace().skip(1).map(str::parse::<u64>);
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in user already.
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
