//! Facts about the host, read from /proc, /sys and /etc. A required value that is missing or malformed is an error,
//! never a guess.

use drover_model::Bytes;
use std::{fs, io, path::Path, process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

/// Facts about the host at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Kernel release: `6.1.0-30-amd64`.
    pub kernel: String,
    /// Operating system: `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// CPU threads that this process may use.
    pub cpus: u32,
    /// CPU model, the `model name` of /proc/cpuinfo. Empty if the kernel does not report one.
    pub cpu_model: String,
    /// Names of the bridges in this network namespace, sorted.
    pub bridges: Vec<String>,
    /// Total memory (`MemTotal`).
    pub memory_total: Bytes,
    /// The kernel's estimate of memory available without swapping (`MemAvailable`).
    pub memory_available: Bytes,
    /// Load average over one minute.
    pub load: f32,
}

/// Reads the current facts.
///
/// # Errors
/// If a file cannot be read or lacks a value; names the file.
pub fn facts() -> Result<Facts, String> {
    let memory = read("/proc/meminfo")?;
    let load = read("/proc/loadavg")?;
    Ok(Facts {
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        os: os_name(&read_if_there("/etc/os-release")?),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        cpu_model: cpu_model(&read_if_there("/proc/cpuinfo")?),
        bridges: bridges(Path::new("/sys/class/net"))?,
        memory_total: meminfo(&memory, "MemTotal").ok_or("/proc/meminfo has no MemTotal")?,
        memory_available: meminfo(&memory, "MemAvailable").ok_or("/proc/meminfo has no MemAvailable")?,
        load: load.split(' ').next().and_then(|n| n.parse().ok()).ok_or("/proc/loadavg has no load average")?,
    })
}

/// The id of this boot (random(4)).
///
/// # Errors
/// If the file cannot be read.
pub fn boot_id() -> Result<String, String> {
    Ok(read("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The host's machine-id(5); `None` if it is absent or empty.
pub fn machine_id() -> Option<String> {
    let id = fs::read_to_string("/etc/machine-id").ok()?.trim().to_owned();
    (!id.is_empty()).then_some(id)
}

/// The host name without its domain.
///
/// # Errors
/// If the file cannot be read.
pub fn host_name() -> Result<String, String> {
    let name = read("/proc/sys/kernel/hostname")?;
    Ok(name.trim().split('.').next().unwrap_or("").to_owned())
}

/// How long systemd may take to say whether the machine goes down.
const ASKED: Duration = Duration::from_secs(3);

/// Whether systemd is taking the machine down. It says so from the moment that somebody has ordered it, before it stops
/// the first service (systemd 252, `manager_state`: the job of shutdown.target is queued). Without systemd, or without
/// an answer: no.
pub async fn is_going_down() -> bool {
    // As sd_booted(3) finds out.
    if !Path::new("/run/systemd/system").is_dir() {
        return false;
    }
    let mut command = Command::new("systemctl");
    command.arg("is-system-running").stdin(Stdio::null()).kill_on_drop(true);
    match timeout(ASKED, command.output()).await {
        // Its exit code is not 0 in most states.
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        Ok(Err(error)) => {
            tracing::warn!(%error, "systemctl does not say whether the machine goes down");
            false
        }
        Err(_) => {
            tracing::warn!("systemctl does not say in time whether the machine goes down");
            false
        }
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(Path::new(path)).map_err(|error| format!("cannot read {path}: {error}"))
}

/// The text of a file that need not exist.
fn read_if_there(path: &str) -> Result<String, String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| format!("cannot read {path}: {error}")),
    }
}

/// Parses a line of /proc/meminfo: `MemTotal:       16384 kB`. The kernel's `kB` means KiB.
fn meminfo(text: &str, key: &str) -> Option<Bytes> {
    let row = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = row.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// The first CPU's `model name`; empty if there is none.
fn cpu_model(text: &str) -> String {
    let row = text.lines().find(|line| line.starts_with("model name"));
    row.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim().to_owned()).unwrap_or_default()
}

/// Names of the interfaces that are bridges: those with a folder `bridge` in /sys/class/net.
fn bridges(interfaces: &Path) -> Result<Vec<String>, String> {
    let failed = |error| format!("cannot read {}: {error}", interfaces.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(interfaces).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().join("bridge").is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
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
    fn meminfo_and_os_release_are_parsed() {
        let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(Bytes::mib(16)));
        assert_eq!(meminfo(text, "MemAvailable"), Some(Bytes::mib(8)));
        for malformed in ["", "MemTotal: many kB", "MemTotal: 5", "MemTotal: 99999999999999999999 kB"] {
            assert_eq!(meminfo(malformed, "MemTotal"), None, "{malformed}");
        }
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_name(""), "Linux");
    }

    #[test]
    fn facts_of_this_host_are_read() {
        let facts = facts().unwrap();
        assert!(facts.memory_total > facts.memory_available && facts.cpus > 0 && !facts.kernel.is_empty());
    }
}
