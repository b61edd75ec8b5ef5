//! Waiting for a VM's move.

use super::{Progress, follow, line};
use crate::{failure::Failure, output::Output};
use drover_client::Client;
use drover_model::wire::{Changed, MoveOrder, MoveOutcome, Vm};
use std::{ops::ControlFlow, time::Duration};
use tokio::time::Instant;

/// How long a node may take to report why a move ended.
const REASON_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until a VM runs on the target node of an order, and returns the order with its outcome. `before`: the VM
/// before that order.
pub(crate) async fn moved(
    client: &Client,
    before: &Vm<'_>,
    order: &Changed,
    to: &str,
    output: Output,
) -> Result<Changed, Failure> {
    let name = &order.name;
    let mut progress = Progress::new(name, output);
    let ordered = MoveOrder::new(before, to, order.version);
    let mut ended: Option<Instant> = None;
    let outcome = follow(
        &mut progress,
        || client.watch_vm(&order.uuid),
        |vm: &Vm<'static>| {
            let Some(outcome) = ordered.outcome(vm) else { return ControlFlow::Continue(None) };
            let done = match outcome {
                MoveOutcome::UnderWay => {
                    ended = None;
                    false
                }
                MoveOutcome::Ended => ended.get_or_insert_with(Instant::now).elapsed() >= REASON_TIMEOUT,
                MoveOutcome::Arrived | MoveOutcome::Failed(_) => true,
            };
            if done {
                ControlFlow::Break((outcome, vm.whereabouts(), vm.version))
            } else {
                ControlFlow::Continue(Some(line(vm)))
            }
        },
    );
    let outcome = outcome.await?;
    match outcome {
        Some((MoveOutcome::Arrived, _, version)) => {
            let message = format!("{name} is running on {to} ({:.1} s).", progress.seconds());
            Ok(Changed { message, version, ..order.clone() })
        }
        Some((MoveOutcome::Failed(why), now, _)) => {
            Err(Failure::new(format!("{name} was not moved to {to}: {why}\nNow {now}.")))
        }
        Some((MoveOutcome::Ended | MoveOutcome::UnderWay, now, _)) => Err(Failure {
            code: 4,
            message: format!("{name} was not moved to {to}: somebody gave another order meanwhile\nNow {now}."),
        }),
        None => Err(Failure { code: 3, message: format!("{name} was deleted meanwhile.") }),
    }
}
