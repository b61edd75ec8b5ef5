//! Running a program with a fixed environment, a deadline, and bounded output.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{io, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// Maximum output of a program, in bytes, on each of its two streams.
const OUTPUT_MAX: u64 = 64 << 10;

/// What a program said.
#[derive(Debug)]
pub(super) struct Said {
    /// Its exit code; `None` if a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Why there is nothing that a program said.
#[derive(Debug)]
pub(super) enum NotRun {
    /// It cannot be started.
    Start(io::Error),
    /// It had not ended at the deadline, and was killed.
    Timeout,
    /// It said more than is read.
    TooMuch,
}

/// Kills a program and all that it started, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Fails if the group has just ended.
            killpg(group, Signal::SIGKILL).ok();
        }
    }
}

/// Runs a program with `input` on its standard input. It sees no other environment than `environment`, and is killed at
/// the deadline, or when the future is dropped.
pub(super) async fn run(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
    input: &str,
    deadline: Duration,
) -> Result<Said, NotRun> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that what a script started is killed with it.
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(NotRun::Start)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut pipe) = stdin {
            // A program that ends without reading its input is judged by what it says.
            pipe.write_all(input.as_bytes()).await.ok();
        }
    };
    let all = async { tokio::join!(write, read(stdout), read(stderr), child.wait()) };
    let ((), stdout, stderr, status) = timeout(deadline, all).await.map_err(|_| NotRun::Timeout)?;
    group.0 = None;
    let code = status.map_err(NotRun::Start)?.code();
    Ok(Said { code, stdout: stdout?, stderr: stderr? })
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Result<String, NotRun> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_MAX + 1).read_to_end(&mut bytes).await.map_err(NotRun::Start)?;
    }
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > OUTPUT_MAX {
        return Err(NotRun::TooMuch);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    async fn shell(script: &str, deadline: Duration) -> Result<Said, NotRun> {
        run(Path::new("/bin/sh"), &["-c", script], &[("A", "b")], "in", deadline).await
    }

    #[tokio::test]
    async fn a_program_sees_only_what_it_is_given() {
        let said = shell("cat; env | grep -v PWD; echo why >&2; exit 3", Duration::from_secs(10)).await.unwrap();
        assert_eq!((said.code, said.stderr.as_str()), (Some(3), "why\n"));
        assert!(said.stdout.starts_with("in") && said.stdout.contains("A=b"), "{}", said.stdout);
        assert!(!said.stdout.contains("PATH="), "{}", said.stdout);
    }

    /// The grandchild keeps the pipe open: it must be killed too.
    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children() {
        let start = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", file.display());
        assert!(matches!(shell(&script, Duration::from_millis(500)).await, Err(NotRun::Timeout)));
        assert!(start.elapsed() < Duration::from_secs(5));
        let pid = std::fs::read_to_string(file).unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !gone() {
            assert!(start.elapsed() < Duration::from_secs(5), "process {pid} lives");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn endless_output_is_refused() {
        let said = shell("yes", Duration::from_secs(10)).await;
        assert!(matches!(said, Err(NotRun::TooMuch)), "{said:?}");
        let said = run(Path::new("/nowhere"), &[], &[], "", Duration::from_secs(1)).await;
        assert!(matches!(said, Err(NotRun::Start(_))), "{said:?}");
    }
}
