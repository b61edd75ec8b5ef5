//! Runs the benchmarks in a child process, and removes the lab when that has ended: normally, by a signal, or by a
//! crash.

use drover_lab::{Lab, LabError, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    env,
    fs::{File, TryLockError},
    io,
    path::Path,
    process::ExitCode,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// Runs `program`, which is this one, as a child process with a lab in `folder`.
pub(crate) fn run(program: &Path, folder: &Path) -> Result<ExitCode> {
    let _lock = take_lock(&folder.with_extension("lock"))?;
    // The lab of a run that was killed, if there is one.
    Lab::remove(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| LabError::new("cannot create a runtime", e))?;
    let outcome = runtime.block_on(measure(program));
    Lab::remove(folder)?;
    outcome
}

/// Two runs at the same time would disturb each other's measurements, and use the same lab.
fn take_lock(path: &Path) -> Result<File> {
    let failed = |why: String| LabError::new(format!("cannot lock {}", path.display()), why);
    let file = File::create(path).map_err(|e| failed(e.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(failed("another drover-bench is running".to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error.to_string())),
    }
}

/// Runs the child until it ends. On a signal, kills it with all its children.
async fn measure(program: &Path) -> Result<ExitCode> {
    let failed = |e: io::Error| LabError::new(format!("cannot run {}", program.display()), e);
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    // The kernel kills the child when this process ends. It has its own process group, so that the terminal's signals
    // reach only this process.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(env::args_os().skip(1)).arg("--supervised");
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    tokio::select! {
        ended = child.wait() => {
            let code = ended.map_err(failed)?.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    kill(&mut child).await.map_err(failed)?;
    Err(LabError::new("stopped by a signal", "nothing was written"))
}

async fn kill(child: &mut Child) -> io::Result<()> {
    if let Some(group) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
        kill_process_group(group, Signal::KILL)?;
    }
    child.wait().await.map(|_| ())
}
