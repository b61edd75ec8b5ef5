//! The guest image: Debian's cloud kernel, and an initramfs with busybox and one script (`guest/init`).
//!
//! A guest needs no disk and 96 MiB of memory, and boots in about three seconds without KVM. It writes `BOOTED` to its
//! serial console when it hears its power button, then a heartbeat `HB n` each second, so that a test can tell a
//! migrated guest from one that booted again. Options on its kernel command line:
//!
//! | option | effect |
//! |---|---|
//! | `hn=NAME` | host name |
//! | `ip4=ADDRESS/BITS`, `gw=ADDRESS` | static address and gateway; without, DHCP |
//! | `noacpi_off` | ignores the power button |
//! | `poweroff_after=SECONDS` | powers itself off |
//! | `panic_after=SECONDS` | crashes with a kernel panic |
//! | `sleep_after=SECONDS` | suspends itself to memory, and writes `AWAKE` when it was woken |
//! | `busy` | changes 8 MiB of its memory all the time |

use crate::tools::{Attempt, LabError, Result, find, run};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Kernel modules of the guest, as paths below `/lib/modules/VERSION/kernel`.
const MODULES: [&str; 15] = [
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/virtio/virtio_balloon.ko",
    "drivers/char/virtio_console.ko",
    "drivers/input/evdev.ko",
    "drivers/acpi/button.ko",
    "drivers/misc/pvpanic/pvpanic.ko",
    "drivers/misc/pvpanic/pvpanic-mmio.ko",
];

const INIT: &str = include_str!("../guest/init");
const UDHCPC: &str = include_str!("../guest/udhcpc");
const POWER_BUTTON: &str = include_str!("../guest/power-button");

/// The files of the guest image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
}

impl Guest {
    /// The image in a folder.
    pub fn at(folder: &Path) -> Guest {
        Guest { kernel: folder.join("vmlinuz"), initrd: folder.join("initrd") }
    }

    /// Copies the image to a folder, unless it is there already.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<()> {
        let copy = Guest::at(folder);
        fs::create_dir_all(folder).attempt(|| format!("cannot create {}", folder.display()))?;
        for (from, to) in [(&self.kernel, &copy.kernel), (&self.initrd, &copy.initrd)] {
            if fs::read(from).ok() != fs::read(to).ok() {
                // Replaced by a rename, because QEMU may be reading the old file.
                let temporary = to.with_extension("new");
                fs::copy(from, &temporary).attempt(|| format!("cannot copy {}", from.display()))?;
                fs::rename(&temporary, to).attempt(|| format!("cannot create {}", to.display()))?;
            }
        }
        Ok(())
    }
}

/// The folder where the built image is cached: beside the folder of the executables (`target/guest`).
pub fn cache(program: &Path) -> PathBuf {
    program.parent().and_then(Path::parent).unwrap_or(Path::new("/var/cache/drover-lab")).join("guest")
}

/// Builds the image in a folder. Reuses what is there already. Labs that come up at the same time build one after the
/// other: each would remove what another one has just downloaded.
pub fn build(folder: &Path) -> Result<Guest> {
    in_turn(folder, || build_alone(folder))
}

/// Does something that nobody else does in this folder at the same time, in this process or another.
fn in_turn<T>(folder: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    fs::create_dir_all(folder).attempt(|| format!("cannot create {}", folder.display()))?;
    let lock = folder.join("lock");
    let failed = || format!("cannot lock {}", lock.display());
    // It is released when this function ends, or the process does.
    let turn = fs::File::create(&lock).attempt(failed)?;
    turn.lock().attempt(failed)?;
    work()
}

fn build_alone(folder: &Path) -> Result<Guest> {
    let guest = Guest::at(folder);
    let unpacked = folder.join("kernel");
    if !guest.kernel.exists() || !unpacked.join("complete").exists() {
        fetch_kernel(folder, &unpacked, &guest.kernel)?;
    }
    let busybox =
        find("busybox").ok_or_else(|| LabError::new("there is no busybox", "install the package busybox-static"))?;
    let busybox = fs::read(&busybox).attempt(|| format!("cannot read {}", busybox.display()))?;
    let modules = first_entry(&unpacked.join("lib/modules"))?.join("kernel");

    let mut archive = Archive::default();
    for name in ["bin", "dev", "proc", "sys", "etc", "etc/acpi", "etc/acpi/PWRF", "modules", "tmp", "run", "root"] {
        archive.folder(name);
    }
    archive.file("bin/busybox", 0o755, &busybox);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("etc/udhcpc", 0o755, UDHCPC.as_bytes());
    archive.file("etc/acpi/PWRF/00000080", 0o755, POWER_BUTTON.as_bytes());
    for module in MODULES {
        let file = modules.join(module);
        let content = fs::read(&file).attempt(|| format!("cannot read {}", file.display()))?;
        let name = Path::new(module).file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), 0o644, &content);
    }
    let content = archive.end();
    if fs::read(&guest.initrd).ok().as_deref() != Some(&content) {
        let temporary = guest.initrd.with_extension("new");
        fs::write(&temporary, content).attempt(|| format!("cannot write {}", temporary.display()))?;
        fs::rename(&temporary, &guest.initrd).attempt(|| format!("cannot create {}", guest.initrd.display()))?;
    }
    Ok(guest)
}

/// Downloads Debian's cloud kernel (27 MB) and unpacks it; nothing is installed.
fn fetch_kernel(folder: &Path, unpacked: &Path, kernel: &Path) -> Result<()> {
    let failed = || format!("cannot build the guest image in {}", folder.display());
    let depends = run(&["apt-cache", "depends", "linux-image-cloud-amd64"])?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package
        .ok_or_else(|| LabError::new("there is no package linux-image-cloud-amd64", "run 'apt-get update' first"))?
        .to_owned();
    let downloads = folder.join("download");
    // Remains of an unfinished build, if there are any.
    fs::remove_dir_all(unpacked).ok();
    fs::remove_dir_all(&downloads).ok();
    fs::create_dir_all(&downloads).attempt(failed)?;
    let script = format!(
        "cd '{}' && apt-get -q -o Acquire::Retries=3 download {package} && dpkg-deb -x {package}_*.deb '{}'",
        downloads.display(),
        unpacked.display()
    );
    // apt warns on standard error if its unprivileged user cannot write to the folder; the download works all the same.
    run(&["sh", "-c", &script])?;
    let image = fs::read_dir(unpacked.join("boot")).attempt(failed)?.flatten().map(|e| e.path());
    let image = image.into_iter().find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")));
    fs::copy(image.ok_or_else(|| LabError::new(failed(), "the package has no kernel"))?, kernel).attempt(failed)?;
    // If this fails, it only costs disk space.
    fs::remove_dir_all(&downloads).ok();
    fs::write(unpacked.join("complete"), "").attempt(failed)
}

fn first_entry(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).attempt(|| format!("cannot read {}", folder.display()))?;
    let first = entries.flatten().map(|e| e.path()).next();
    first.ok_or_else(|| LabError::new(format!("{} is empty", folder.display()), "remove it and build again"))
}

/// A cpio archive in the format "newc" of initramfs images (Linux' documentation, `early-userspace/buffer-format`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = content.len();
        let fields = [self.entries as usize, mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_the_same_folder_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let download = folder.path().join("download");
        let build = || {
            in_turn(folder.path(), || {
                // Another build that is under way has it.
                fs::create_dir(&download).attempt(|| "two at the same time".to_owned())?;
                (0..100).for_each(|_| std::thread::yield_now());
                fs::remove_dir(&download).attempt(|| "somebody removed it".to_owned())
            })
        };
        std::thread::scope(|scope| {
            let builds: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..50).try_for_each(|_| build()))).collect();
            for done in builds {
                done.join().unwrap().unwrap();
            }
        });
    }
}
