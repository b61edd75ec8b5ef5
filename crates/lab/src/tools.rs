//! The programs of the machine that the lab is built with, and what goes wrong with them.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// What could not be done, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct LabError {
    what: String,
    why: String,
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, LabError>;

impl LabError {
    /// An error of this text.
    pub fn new(what: impl Into<String>, why: impl ToString) -> LabError {
        LabError { what: what.into(), why: why.to_string() }
    }
}

/// Says what was attempted when something fails.
pub(crate) trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: ToString> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| LabError::new(what(), e))
    }
}

/// Programs that a cluster needs, and the Debian packages that have them.
const CLUSTER: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("tini", "tini"),
    ("libvirtd", "libvirt-daemon-system"),
    ("virsh", "libvirt-clients"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("java", "zookeeper"),
    ("ping", "iputils-ping"),
];

/// Says which programs are missing, and how they are installed.
pub(crate) fn check_machine() -> Result<()> {
    if !rustix::process::getuid().is_root() {
        return Err(LabError::new("the lab needs root", "it makes network namespaces and mounts; try sudo"));
    }
    let mut missing: Vec<&str> =
        CLUSTER.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if !std::path::Path::new("/usr/share/java/zookeeper.jar").exists() {
        missing.push("zookeeper");
    }
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    Err(LabError::new(
        "something is not installed that the lab needs",
        format!("Debian's packages {}; scripts/install-deps installs them", missing.join(", ")),
    ))
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs a program to its end and gives what it printed. Fails with what it complained about.
pub(crate) fn run(argv: &[&str]) -> Result<String> {
    run_with(argv, None)
}

/// The same, with something to read.
pub(crate) fn run_with(argv: &[&str], input: Option<&str>) -> Result<String> {
    let what = || argv.join(" ");
    let [program, arguments @ ..] = argv else { return Ok(String::new()) };
    let program = find(program).unwrap_or_else(|| program.into());
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().attempt(what)?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        std::io::Write::write_all(&mut pipe, text.as_bytes()).attempt(what)?;
    }
    printed(&child.wait_with_output().attempt(what)?, what)
}

/// What a program printed, if it ended well.
pub(crate) fn printed(output: &Output, what: impl FnOnce() -> String) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim();
    Err(LabError::new(what(), if complaint.is_empty() { output.status.to_string() } else { complaint.to_owned() }))
}
