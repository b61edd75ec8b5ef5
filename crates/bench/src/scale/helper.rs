//! Starts and controls a helper process.

use super::words::{Answer, Crew, Question, Ready, Usage};
use drover_lab::{LabError, Result};
use serde::de::DeserializeOwned;
use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Timeout for an answer.
const TIMEOUT: Duration = Duration::from_secs(900);

/// A helper process. It is killed on drop, and when the thread that started it ends.
pub(crate) struct Helper {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
    /// Its first message.
    pub(crate) ready: Ready,
}

impl Helper {
    /// Starts a helper, and waits until its agents are members of the cluster.
    pub(crate) fn start(program: &Path, crew: &Crew) -> Result<Helper> {
        let failed = |why: String| LabError::new("cannot start a helper", why);
        let crew = serde_json::to_string(crew).map_err(|e| failed(e.to_string()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(["crew", &crew]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| failed(e.to_string()))?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no input and output".to_owned()));
        };
        let answers = lines(BufReader::new(answers).lines());
        let first = receive(&answers).and_then(|line| decode(&line));
        match first {
            Ok(ready) => Ok(Helper { child, questions, answers, ready }),
            Err(error) => {
                let _it_has_ended = child.kill();
                let _nothing_to_add = child.wait();
                Err(error)
            }
        }
    }

    /// Sends a question; [`Helper::times`] reads the answer.
    pub(crate) fn ask(&mut self, question: &Question) -> Result<()> {
        let text = serde_json::to_string(question).map_err(|e| LabError::new("a question", e))?;
        let asked = writeln!(self.questions, "{text}").and_then(|()| self.questions.flush());
        asked.map_err(|e| LabError::new("cannot ask a helper", e))
    }

    fn answer(&mut self) -> Result<Answer> {
        receive(&self.answers).and_then(|line| decode(&line))
    }

    /// Reads an answer: when the conditions were fulfilled, in microseconds since 1970.
    pub(crate) fn times(&mut self) -> Result<Vec<u64>> {
        match self.answer()? {
            Answer::At(times) if !times.is_empty() => Ok(times),
            other => Err(LabError::new("a helper answers something else", format!("{other:?}"))),
        }
    }

    /// Its resource usage.
    pub(crate) fn usage(&mut self) -> Result<Usage> {
        self.ask(&Question::Usage)?;
        match self.answer()? {
            Answer::Usage(usage) => Ok(usage),
            other => Err(LabError::new("a helper answers something else", format!("{other:?}"))),
        }
    }

    /// Kills it with SIGKILL, as in a crash.
    pub(crate) fn end(&mut self) -> Result<()> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map(|_| ()).map_err(|e| LabError::new("cannot end a helper", e))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error}");
        }
    }
}

/// Reads a helper's answers on a thread, so that waiting for one can time out.
fn lines(lines: Lines<BufReader<ChildStdout>>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in lines.map_while(std::io::Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn receive(answers: &Receiver<String>) -> Result<String> {
    answers.recv_timeout(TIMEOUT).map_err(|why| {
        let why = match why {
            RecvTimeoutError::Timeout => format!("not in {} s", TIMEOUT.as_secs()),
            RecvTimeoutError::Disconnected => "it has ended".to_owned(),
        };
        LabError::new("a helper does not answer", why)
    })
}

fn decode<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line).map_err(|e| LabError::new(format!("a helper says {line:?}"), e))
}
