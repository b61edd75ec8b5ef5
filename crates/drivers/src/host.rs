//! Facts of the machine, from the kernel's files. Parsing is pure; what is missing or odd is an error, never a guess.

use drover_model::Bytes;
use std::{fs, path::Path};

/// What the machine says of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Kernel release: `6.1.0-30-amd64`.
    pub kernel: String,
    /// Operating system: `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// Processor threads that this process may use.
    pub cpus: u32,
    /// The processors' model, as /proc/cpuinfo has it.
    pub cpu_model: String,
    /// Bridges of this network namespace, by name.
    pub bridges: Vec<String>,
    /// All memory.
    pub memory_total: Bytes,
    /// The kernel's estimate of what could be given out without swapping.
    pub memory_available: Bytes,
    /// Load average over one minute.
    pub load: f32,
}

/// Reads the present facts.
///
/// # Errors
/// Which file, and what about it.
pub fn facts() -> Result<Facts, String> {
    let memory = read("/proc/meminfo")?;
    let load = read("/proc/loadavg")?;
    Ok(Facts {
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        os: os_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        cpu_model: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        bridges: bridges(Path::new("/sys/class/net")),
        memory_total: meminfo(&memory, "MemTotal").ok_or("/proc/meminfo has no MemTotal")?,
        memory_available: meminfo(&memory, "MemAvailable").ok_or("/proc/meminfo has no MemAvailable")?,
        load: load.split(' ').next().and_then(|n| n.parse().ok()).ok_or("/proc/loadavg has no number")?,
    })
}

/// This boot's id.
///
/// # Errors
/// When the kernel does not say.
pub fn boot_id() -> Result<String, String> {
    Ok(read("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The machine's id (machine-id(5)), if it has one.
pub fn machine_id() -> Option<String> {
    let id = fs::read_to_string("/etc/machine-id").ok()?.trim().to_owned();
    (!id.is_empty()).then_some(id)
}

/// The machine's host name, without its domain.
///
/// # Errors
/// When the kernel does not say.
pub fn host_name() -> Result<String, String> {
    let name = read("/proc/sys/kernel/hostname")?;
    Ok(name.trim().split('.').next().unwrap_or("").to_owned())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(Path::new(path)).map_err(|error| format!("cannot read {path}: {error}"))
}

/// A row of /proc/meminfo: `MemTotal:       16384 kB`, which means KiB.
fn meminfo(text: &str, key: &str) -> Option<Bytes> {
    let row = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = row.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// The first processor's `model name`; empty: the kernel does not say.
fn cpu_model(text: &str) -> String {
    let row = text.lines().find(|line| line.starts_with("model name"));
    row.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim().to_owned()).unwrap_or_default()
}

/// Network interfaces that are bridges: they have a folder `bridge`.
fn bridges(interfaces: &Path) -> Vec<String> {
    let entries = fs::read_dir(interfaces).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("bridge").is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// PRETTY_NAME of os-release(5).
fn os_name(text: &str) -> String {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_files() {
        let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(Bytes::mib(16)));
        assert_eq!(meminfo(text, "MemAvailable"), Some(Bytes::mib(8)));
        for odd in ["", "MemTotal: many kB", "MemTotal: 5", "MemTotal: 99999999999999999999 kB"] {
            assert_eq!(meminfo(odd, "MemTotal"), None, "{odd}");
        }
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_name(""), "Linux");
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = facts().unwrap();
        assert!(facts.memory_total > facts.memory_available && facts.cpus > 0 && !facts.kernel.is_empty());
    }
}
