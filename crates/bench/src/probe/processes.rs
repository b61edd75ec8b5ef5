//! Whole processes, one after the other.

use super::Probe;
use drover_lab::{LabError, Result};
use serde::{Deserialize, Serialize};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Runs a command again and again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Runs {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// How often.
    pub(crate) count: usize,
}

impl Probe for Runs {
    const NAME: &'static str = "runs";
    /// Each from before its start until its end was seen and all its output was read.
    type Answer = Vec<Duration>;

    fn run(self) -> Result<Vec<Duration>> {
        // The first one finds the program on disk.
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
