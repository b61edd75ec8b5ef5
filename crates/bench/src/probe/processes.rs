//! Run time of processes.

use super::Probe;
use drover_lab::{LabError, Result};
use serde::{Deserialize, Serialize};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Runs a command repeatedly.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Runs {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Number of runs.
    pub(crate) count: usize,
}

impl Probe for Runs {
    const NAME: &'static str = "runs";
    /// Time of each run: until the process has ended and all its output was read.
    type Answer = Vec<Duration>;

    fn run(self) -> Result<Vec<Duration>> {
        // Not counted: it reads the program from disk.
        self.once()?;
        (0..self.count).map(|_| self.once()).collect()
    }
}

impl Runs {
    fn once(&self) -> Result<Duration> {
        let failed = |why: String| LabError::new(self.argv.join(" "), why);
        let [program, arguments @ ..] = self.argv.as_slice() else {
            return Err(failed("there is no program".to_owned()));
        };
        let start = Instant::now();
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let (output, took) = (output.map_err(|e| failed(e.to_string()))?, start.elapsed());
        if output.status.success() {
            return Ok(took);
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
