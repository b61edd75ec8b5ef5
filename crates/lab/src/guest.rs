//! The guest that the lab boots: Debian's cloud kernel, and an initramfs of busybox and one script.
//!
//! It needs no disk and 96 MiB, and is up in about three seconds without KVM. Its kernel command line takes `hn=NAME`,
//! `ip4=ADDRESS/BITS` and `gw=ADDRESS` (else DHCP), `noacpi_off` (ignore the power button), `poweroff_after=SECONDS`
//! and `panic_after=SECONDS`.

use crate::tools::{Attempt, LabError, Result, find, run};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Kernel modules that the guest loads, below `kernel/` of its modules' folder.
const MODULES: [&str; 13] = [
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
];

const INIT: &str = include_str!("../guest/init");
const UDHCPC: &str = include_str!("../guest/udhcpc");
const POWER_BUTTON: &str = include_str!("../guest/power-button");

/// The files of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
}

impl Guest {
    /// The files in a folder.
    pub fn at(folder: &Path) -> Guest {
        Guest { kernel: folder.join("vmlinuz"), initrd: folder.join("initrd") }
    }

    /// Copies them, if they are not there.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<()> {
        let there = Guest::at(folder);
        fs::create_dir_all(folder).attempt(|| format!("cannot make {}", folder.display()))?;
        for (from, to) in [(&self.kernel, &there.kernel), (&self.initrd, &there.initrd)] {
            // Guests may be running from the old file.
            if fs::read(from).ok() != fs::read(to).ok() {
                let draft = to.with_extension("new");
                fs::copy(from, &draft).attempt(|| format!("cannot copy {}", from.display()))?;
                fs::rename(&draft, to).attempt(|| format!("cannot make {}", to.display()))?;
            }
        }
        Ok(())
    }
}

/// Where guests are kept for the next time: beside the folder of the executables (`target/guest`).
pub fn cache(program: &Path) -> PathBuf {
    program.parent().and_then(Path::parent).unwrap_or(Path::new("/var/cache/drover-lab")).join("guest")
}

/// Builds the guest in a folder; what is there already is used again.
pub fn build(folder: &Path) -> Result<Guest> {
    let guest = Guest::at(folder);
    let unpacked = folder.join("kernel");
    if !guest.kernel.exists() || !unpacked.join("complete").exists() {
        fetch_kernel(folder, &unpacked, &guest.kernel)?;
    }
    let busybox =
        find("busybox").ok_or_else(|| LabError::new("no busybox", "Debian's package busybox-static has it"))?;
    let busybox = fs::read(&busybox).attempt(|| format!("cannot read {}", busybox.display()))?;
    let modules = only_folder_in(&unpacked.join("lib/modules"))?.join("kernel");

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
        let draft = guest.initrd.with_extension("new");
        fs::write(&draft, content).attempt(|| format!("cannot write {}", draft.display()))?;
        fs::rename(&draft, &guest.initrd).attempt(|| format!("cannot make {}", guest.initrd.display()))?;
    }
    Ok(guest)
}

/// Downloads Debian's cloud kernel (27 MB) and unpacks it; nothing is installed.
fn fetch_kernel(folder: &Path, unpacked: &Path, kernel: &Path) -> Result<()> {
    let failed = || format!("cannot make the guest in {}", folder.display());
    let depends = run(&["apt-cache", "depends", "linux-image-cloud-amd64"])?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package
        .ok_or_else(|| LabError::new("no package linux-image-cloud-amd64", "run 'apt-get update' first"))?
        .to_owned();
    // There may be a half-made one, or none.
    fs::remove_dir_all(unpacked).ok();
    let downloads = folder.join("download");
    // There may be a half-made one, or none.
    fs::remove_dir_all(&downloads).ok();
    fs::create_dir_all(&downloads).attempt(failed)?;
    let script = format!(
        "cd '{}' && apt-get -q download {package} && dpkg-deb -x {package}_*.deb '{}'",
        downloads.display(),
        unpacked.display()
    );
    // apt drops its rights for downloads where it can, and complains where the folder keeps it from doing so.
    run(&["sh", "-c", &script])?;
    let image = fs::read_dir(unpacked.join("boot")).attempt(failed)?.flatten().map(|e| e.path());
    let image = image.into_iter().find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")));
    fs::copy(image.ok_or_else(|| LabError::new(failed(), "the package has no kernel"))?, kernel).attempt(failed)?;
    // What stays costs only space.
    fs::remove_dir_all(&downloads).ok();
    fs::write(unpacked.join("complete"), "").attempt(failed)
}

fn only_folder_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).attempt(|| format!("cannot read {}", folder.display()))?;
    let found = entries.flatten().map(|e| e.path()).next();
    found.ok_or_else(|| LabError::new(format!("{} is empty", folder.display()), "remove it and build again"))
}

/// A cpio archive of the "newc" kind, which the kernel unpacks (see its documentation,
/// `early-userspace/buffer-format`).
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
