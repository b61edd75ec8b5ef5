//! Detects the domain type that works on this machine: KVM if a guest really boots with it, else emulation (TCG).
//!
//! `/dev/kvm` can exist and hang every 64-bit guest (a machine that is itself a guest of an odd hypervisor). So a real
//! kernel is booted with it, without a root file system: it prints its version, panics because it has no root, and QEMU
//! exits (`-no-reboot`). The result holds for this boot of the machine and is cached in a file.

use drover_model::DomainType;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

/// Timeout for the kernel's first line. With working KVM it takes well under a second.
const DEADLINE: Duration = Duration::from_secs(10);
/// Limit of the kernel's output in bytes; more is not read.
const OUTPUT_MAX: usize = 256 << 10;
/// The emulator, the same that libvirt runs.
const QEMU: &str = "qemu-system-x86_64";

/// The domain type as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Detect it.
    #[default]
    Auto,
    /// KVM, without a probe.
    Kvm,
    /// Emulation (TCG).
    Qemu,
}

/// The domain type to use, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The domain type.
    pub domain_type: DomainType,
    /// The reason, for people.
    pub why: String,
}

impl Verdict {
    fn new(domain_type: DomainType, why: impl Into<String>) -> Verdict {
        Verdict { domain_type, why: why.into() }
    }
}

/// The cached result.
#[derive(Serialize, Deserialize)]
struct Kept {
    boot: String,
    kernel: PathBuf,
    verdict: Verdict,
}

/// Determines the domain type. `kernel`: the kernel to boot; default: the newest `/boot/vmlinuz-*`. `kept`: the cache
/// file. `boot`: the id of this boot.
pub async fn decide(setting: Setting, kernel: Option<&Path>, kept: &Path, boot: &str) -> Verdict {
    match setting {
        Setting::Kvm => return Verdict::new(DomainType::Kvm, "it is configured"),
        Setting::Qemu => return Verdict::new(DomainType::Qemu, "it is configured"),
        Setting::Auto => {}
    }
    if !Path::new("/dev/kvm").exists() {
        return Verdict::new(DomainType::Qemu, "this machine has no /dev/kvm");
    }
    let Some(kernel) = kernel.map(Path::to_owned).or_else(|| newest_kernel(Path::new("/boot"))) else {
        return Verdict::new(
            DomainType::Qemu,
            "there is no kernel in /boot to try KVM with; name one as hypervisor.probe_kernel, or set \
             hypervisor.domain_type",
        );
    };
    let old = fs::read(kept).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    if let Some(old) = old.filter(|old| old.boot == boot && old.kernel == kernel) {
        return old.verdict;
    }
    let verdict = try_kvm(&kernel).await;
    let kept_now = Kept { boot: boot.to_owned(), kernel, verdict: verdict.clone() };
    let written = serde_json::to_vec(&kept_now).map_err(std::io::Error::other).and_then(|bytes| fs::write(kept, bytes));
    if let Err(error) = written {
        tracing::debug!(%error, file = %kept.display(), "the verdict on KVM is not kept");
    }
    verdict
}

/// The kernel with the highest version in a folder.
fn newest_kernel(folder: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let version = |path: &PathBuf| -> Vec<u64> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    names
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))
        .max_by_key(version)
}

/// QEMU's arguments: a processor, memory, a serial port and the kernel.
fn arguments(kernel: &Path) -> Vec<OsString> {
    let mut out: Vec<OsString> = [
        "-accel",
        "kvm",
        "-machine",
        "pc",
        "-m",
        "256",
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-append",
        "console=ttyS0 panic=-1",
        "-kernel",
    ]
    .map(OsString::from)
    .to_vec();
    out.push(kernel.into());
    out
}

/// Judges the kernel's output.
fn proves(output: &str) -> bool {
    // The kernel's first line; firmware and boot loader print nothing like it.
    output.contains("Linux version ")
}

async fn try_kvm(kernel: &Path) -> Verdict {
    let spawned = Command::new(QEMU)
        .args(arguments(kernel))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut qemu = match spawned {
        Ok(qemu) => qemu,
        Err(error) => return Verdict::new(DomainType::Qemu, format!("{QEMU} cannot be run to try KVM: {error}")),
    };
    let (Some(mut stdout), Some(mut stderr)) = (qemu.stdout.take(), qemu.stderr.take()) else {
        return Verdict::new(DomainType::Qemu, format!("{QEMU} gives no output to try KVM with"));
    };
    let mut said = Vec::new();
    let listening = async {
        let mut chunk = [0; 4096];
        while said.len() < OUTPUT_MAX {
            match stdout.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(n) => said.extend_from_slice(chunk.get(..n).unwrap_or(&[])),
            }
            if proves(&String::from_utf8_lossy(&said)) {
                return;
            }
        }
    };
    let timely = timeout(DEADLINE, listening).await.is_ok();
    // Fails if QEMU has exited already.
    qemu.start_kill().ok();
    // The exit status does not matter.
    qemu.wait().await.ok();
    let said = String::from_utf8_lossy(&said);
    if proves(&said) {
        return Verdict::new(DomainType::Kvm, format!("{} boots with it", kernel.display()));
    }
    let mut complaint = String::new();
    // QEMU's error message is optional, so only one second is spent on it.
    timeout(Duration::from_secs(1), stderr.read_to_string(&mut complaint)).await.ok();
    let last = said.lines().chain(complaint.lines()).map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("nothing");
    let last: String = last.chars().filter(|c| !c.is_control()).take(200).collect();
    let how = if timely { "QEMU ended".to_owned() } else { format!("it hung for {} s", DEADLINE.as_secs()) };
    let why = format!(
        "/dev/kvm is there, but {} does not boot with it: {how}; the last it said was '{last}'",
        kernel.display()
    );
    Verdict::new(DomainType::Qemu, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_words_count() {
        assert!(proves("Probing EDD (edd=off to disable)... ok\n[    0.000000] Linux version 6.1.0"));
        assert!(!proves("SeaBIOS (version 1.16)\nBooting from ROM...\nProbing EDD (edd=off to disable)... ok"));
    }

    #[test]
    fn the_newest_kernel_by_version_not_by_letter() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-30-amd64", "vmlinuz-5.10.0-99-amd64", "config-7.0"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        assert_eq!(newest_kernel(folder.path()).unwrap(), folder.path().join("vmlinuz-6.1.0-30-amd64"));
        assert_eq!(newest_kernel(&folder.path().join("none")), None);
    }

    #[tokio::test]
    async fn a_file_that_is_no_kernel_never_makes_it_kvm() {
        let folder = tempfile::tempdir().unwrap();
        let (kernel, kept) = (folder.path().join("vmlinuz-x"), folder.path().join("kept"));
        fs::write(&kernel, b"no kernel").unwrap();
        let verdict = decide(Setting::Auto, Some(&kernel), &kept, "boot").await;
        assert_eq!(verdict.domain_type, DomainType::Qemu, "{}", verdict.why);
        assert_eq!(decide(Setting::Kvm, None, &kept, "boot").await.domain_type, DomainType::Kvm);
    }
}
