//! Running the host's programs, and the lab's error type.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// An error: what failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct LabError {
    what: String,
    why: String,
}

/// Result of the lab's functions.
pub type Result<T> = std::result::Result<T, LabError>;

impl LabError {
    /// An error that reads `what: why`.
    pub fn new(what: impl Into<String>, why: impl ToString) -> LabError {
        LabError { what: what.into(), why: why.to_string() }
    }
}

/// Adds what was attempted to an error.
pub(crate) trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: ToString> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| LabError::new(what(), e))
    }
}

/// Programs that the lab needs, with their Debian packages.
const REQUIRED: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("tini", "tini"),
    ("libvirtd", "libvirt-daemon-system"),
    ("virsh", "libvirt-clients"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("java", "zookeeper"),
    ("ping", "iputils-ping"),
    ("ipmitool", "ipmitool"),
    ("ipmi_sim", "openipmi"),
];

/// Checks that we are root and that all required programs are installed.
pub(crate) fn check_host() -> Result<()> {
    if !rustix::process::getuid().is_root() {
        return Err(LabError::new("the lab needs root", "it creates network namespaces and mounts; try sudo"));
    }
    let mut missing: Vec<&str> =
        REQUIRED.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if !std::path::Path::new("/usr/share/java/zookeeper.jar").exists() {
        missing.push("zookeeper");
    }
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    Err(LabError::new(
        "the lab needs Debian packages that are not installed",
        format!("{}; run scripts/install-deps", missing.join(", ")),
    ))
}

/// The path of a program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs a program and returns its standard output. If it fails, the error has its standard error.
pub(crate) fn run(argv: &[&str]) -> Result<String> {
    run_with(argv, None)
}

/// Like [`run`], with standard input.
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
    stdout(&child.wait_with_output().attempt(what)?, what)
}

/// A program's standard output if it succeeded; else an error with its standard error.
pub(crate) fn stdout(output: &Output, what: impl FnOnce() -> String) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.trim();
    Err(LabError::new(what(), if stderr.is_empty() { output.status.to_string() } else { stderr.to_owned() }))
}
