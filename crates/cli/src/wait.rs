//! Waits until a VM has no more to do, and shows what it is doing.

use crate::{failure::Failure, output::Output};
use drover_client::{Client, ClientError};
use drover_model::wire::Vm;
use futures_util::StreamExt;
use std::{
    io::{IsTerminal, Write},
    pin::pin,
    time::Duration,
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// How often in a row the cluster may give no answer, a second apart, before the wait is given up.
const PATIENCE: u32 = 30;

/// What a VM is doing, in one line.
fn line(vm: &Vm<'_>) -> String {
    if vm.doing.is_empty() { format!("{}, now {}", vm.state, crate::output::runs(vm)) } else { vm.doing.clone() }
}

/// Prints progress: on a terminal one line that is written over, elsewhere a line for each change.
struct Progress {
    output: Output,
    terminal: bool,
    name: String,
    last: String,
    start: Instant,
}

impl Progress {
    fn show(&mut self, text: &str) {
        if self.output.quiet {
            return;
        }
        let seconds = self.start.elapsed().as_secs();
        if self.terminal {
            eprint!("\r\x1b[K{}: {text} ({seconds} s)", self.name);
            let _the_next_one_will_do = std::io::stderr().flush();
        } else if self.last != text {
            eprintln!("{}: {text}", self.name);
        }
        text.clone_into(&mut self.last);
    }

    /// Lets the seconds on a terminal go on while nothing else changes.
    fn tick(&mut self) {
        if self.terminal && !self.last.is_empty() {
            let last = std::mem::take(&mut self.last);
            self.show(&last);
        }
    }

    fn end(&self) {
        if self.terminal && !self.output.quiet {
            eprint!("\r\x1b[K");
        }
    }
}

/// Waits until the VM is settled, from the given version of its record on. Fails when it ends in state `fail`.
pub(crate) async fn settled(
    client: &Client,
    name: &str,
    uuid: &str,
    version: i64,
    output: Output,
) -> Result<(), Failure> {
    let terminal = std::io::stderr().is_terminal();
    let mut progress = Progress { output, terminal, name: name.to_owned(), last: String::new(), start: Instant::now() };
    let outcome = follow(client, uuid, version, &mut progress).await;
    progress.end();
    let vm = outcome?;
    let seconds = progress.start.elapsed().as_secs_f32();
    match vm {
        None => output.note(&format!("{name} is gone.")),
        Some(vm) if vm.state == "fail" => return Err(Failure::new(format!("{name} failed: {}", vm.failed_reason))),
        Some(vm) => {
            let now = if vm.state == "start" { format!("running on {}", vm.claim.node) } else { "off".to_owned() };
            output.note(&format!("{name} is {now} ({seconds:.1} s)."));
        }
    }
    Ok(())
}

async fn follow(
    client: &Client,
    uuid: &str,
    version: i64,
    progress: &mut Progress,
) -> Result<Option<Vm<'static>>, Failure> {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = 0;
    loop {
        let error = match watch(client, uuid, version, progress, &mut tick, &mut lost).await {
            Ok(settled) => return Ok(Some(settled)),
            Err(error) => error,
        };
        match error {
            Some(error) if drover_client::is_not_found(&error) => return Ok(None),
            // Asking again changes nothing about an answer that was no, or that was none of Drover's.
            Some(error @ (ClientError::Refused { status: 400..500, .. } | ClientError::BadAnswer { .. })) => {
                return Err(error.into());
            }
            Some(error) if lost >= PATIENCE => return Err(error.into()),
            Some(_) => progress.show("the cluster does not answer, trying again"),
            // The stream ended in order: the VM is gone, or the daemon that answered is. Asking again tells.
            None => {}
        }
        lost += 1;
        tick.tick().await;
    }
}

/// Follows one stream of changes to its end. `lost` counts the streams in a row that told nothing.
async fn watch(
    client: &Client,
    uuid: &str,
    version: i64,
    progress: &mut Progress,
    tick: &mut Interval,
    lost: &mut u32,
) -> Result<Vm<'static>, Option<ClientError>> {
    let mut changes = pin!(client.watch_vm(uuid).await?);
    loop {
        tokio::select! {
            biased;
            change = changes.next() => {
                let vm = change.ok_or(None)??;
                *lost = 0;
                // A node whose view lags behind tells old news first.
                if vm.version >= version {
                    if vm.is_settled() {
                        return Ok(vm);
                    }
                    progress.show(&line(&vm));
                }
            }
            _ = tick.tick() => progress.tick(),
        }
    }
}
