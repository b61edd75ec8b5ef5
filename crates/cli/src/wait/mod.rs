//! Waiting for the outcome of a command, with progress output.
//!
//! [`follow`] subscribes to changes of a VM or node. A callback looks at the newest one and returns either the line to
//! show or the outcome. A broken stream is requested again.

mod moves;
mod node;
mod primary;
mod progress;

pub(crate) use moves::moved;
pub(crate) use node::{figures as drain_figures, flushed, ready};
pub(crate) use primary::{primary, secondary, until_primary};
pub(crate) use progress::figures as migration_figures;

use crate::{failure::Failure, output::Output};
use drover_client::{Client, ClientError};
use drover_model::wire::{Changed, Settled, Vm};
use futures_util::{Stream, StreamExt};
use progress::{Line, Progress};
use std::{future::Future, ops::ControlFlow, pin::pin, time::Duration};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// How long the cluster may not answer before the wait is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until a VM has settled after an order, ignoring versions of its record older than the order. Returns the order
/// with its outcome. Fails if the VM ends in state `fail`, or in memory without executing.
pub(crate) async fn settled(client: &Client, order: &Changed, output: Output) -> Result<Changed, Failure> {
    outcome(client, order, false, output).await
}

/// The same after an order to pause it.
pub(crate) async fn paused(client: &Client, order: &Changed, output: Output) -> Result<Changed, Failure> {
    outcome(client, order, true, output).await
}

async fn outcome(client: &Client, order: &Changed, to_pause: bool, output: Output) -> Result<Changed, Failure> {
    let Changed { name, uuid, version, .. } = order;
    let mut progress = Progress::new(name, output);
    let outcome = follow(
        &mut progress,
        || client.watch_vm(uuid),
        |vm: &Vm<'static>| {
            // The view of the answering node may lag behind.
            if vm.version < *version {
                ControlFlow::Continue(None)
            } else {
                match vm.settled() {
                    Some(Settled::Failed(why)) => ControlFlow::Break((vm.version, Err(format!("failed: {why}")))),
                    Some(Settled::Paused(why)) if to_pause => ControlFlow::Break((vm.version, Ok(why.to_owned()))),
                    Some(Settled::Paused(why)) => {
                        let doing = if vm.doing.is_empty() { why } else { &*vm.doing };
                        ControlFlow::Break((vm.version, Err(format!("does not run: {doing}"))))
                    }
                    Some(Settled::Running(_)) if to_pause => {
                        let doing = if vm.doing.is_empty() { "it runs" } else { &*vm.doing };
                        ControlFlow::Break((vm.version, Err(format!("is not paused: {doing}"))))
                    }
                    Some(Settled::Running(node)) => {
                        ControlFlow::Break((vm.version, Ok(format!("is running on {node}"))))
                    }
                    Some(Settled::Off) => ControlFlow::Break((vm.version, Ok("is off".to_owned()))),
                    None => ControlFlow::Continue(Some(line(vm))),
                }
            }
        },
    );
    let (version, message) = match outcome.await? {
        None => (*version, format!("{name} was deleted.")),
        Some((_, Err(why))) => return Err(Failure::new(format!("{name} {why}"))),
        Some((version, Ok(now))) => (version, format!("{name} {now} ({:.1} s).", progress.seconds())),
    };
    Ok(Changed { message, version, ..order.clone() })
}

/// What a VM is doing, in one line.
fn line(vm: &Vm<'_>) -> Line {
    if let Some(migration) = &vm.migration
        && let Some(figures) = migration_figures(migration)
    {
        return Line { what: format!("to {}", migration.to), figures };
    }
    let what = if vm.doing.is_empty() {
        format!("{}, now {}", vm.state, crate::output::runs(&vm.run_state))
    } else {
        vm.doing.clone()
    };
    Line { what, figures: String::new() }
}

/// Follows changes until `look` breaks with an outcome; `None`: the followed object is gone. `look` is called for each
/// change, and again every second with the last one, for timeouts.
async fn follow<T, R, S, F>(
    progress: &mut Progress,
    open: impl Fn() -> F,
    mut look: impl FnMut(&T) -> ControlFlow<R, Option<Line>>,
) -> Result<Option<R>, Failure>
where
    S: Stream<Item = Result<T, ClientError>>,
    F: Future<Output = Result<S, ClientError>>,
{
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = None;
    let outcome = loop {
        let watched = watch(progress, open(), &mut look, &mut tick, &mut lost).await;
        let since = *lost.get_or_insert_with(Instant::now);
        match watched {
            Ok(done) => break Ok(Some(done)),
            Err(Some(error)) if drover_client::is_not_found(&error) => break Ok(None),
            // Permanent: retrying does not help against a refusal, or an answer that is not from Drover.
            Err(Some(error @ (ClientError::Refused { status: 400..500, .. } | ClientError::BadAnswer { .. }))) => {
                break Err(error.into());
            }
            Err(Some(error)) if since.elapsed() >= ANSWER_TIMEOUT => break Err(error.into()),
            Err(Some(_)) => progress.show(&Line::of("the cluster does not answer, retrying")),
            // The stream ended cleanly: the followed object is gone, or the daemon has stopped. The next request shows
            // which.
            Err(None) => {}
        }
        tick.tick().await;
    };
    progress.end();
    outcome
}

/// Follows one stream of changes to its end. `lost`: since when no stream has delivered anything.
async fn watch<T, R, S: Stream<Item = Result<T, ClientError>>>(
    progress: &mut Progress,
    open: impl Future<Output = Result<S, ClientError>>,
    look: &mut impl FnMut(&T) -> ControlFlow<R, Option<Line>>,
    tick: &mut Interval,
    lost: &mut Option<Instant>,
) -> Result<R, Option<ClientError>> {
    let mut changes = pin!(open.await?);
    let mut newest: Option<T> = None;
    loop {
        tokio::select! {
            biased;
            change = changes.next() => {
                newest = Some(change.ok_or(None)??);
                *lost = None;
            }
            _ = tick.tick() => {}
        }
        match newest.as_ref().map(&mut *look) {
            Some(ControlFlow::Break(done)) => return Ok(done),
            Some(ControlFlow::Continue(Some(line))) => progress.show(&line),
            Some(ControlFlow::Continue(None)) | None => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::Format;
    use axum::{
        Router,
        body::Body,
        extract::State,
        http::{StatusCode, Uri},
    };
    use drover_model::{ClusterView, wire::Node};
    use serde_json::{Value, json};
    use std::{
        collections::{BTreeMap, VecDeque},
        sync::{Arc, Mutex},
    };

    const UUID: &str = "11111111-2222-4333-8444-555555555555";
    pub(super) const QUIET: Output = Output { format: Format::Pretty, coloured: false, quiet: true };

    /// A VM as the API shows it: its record's version and state, its node, the number of failed moves in a row.
    pub(crate) fn vm(version: i64, state: Value, node: &str, failures: u32) -> String {
        let mut view = ClusterView::default();
        let mut put = |path: &str, version: i64, value: Value| {
            view.apply(&path.parse().unwrap(), Some((value.to_string().as_bytes(), drover_model::Version(version))));
        };
        for node in ["hv1", "hv2"] {
            let record = json!({"schema": 1, "name": node, "role": "coordinator", "api": "", "domain_state": "ready"});
            put(&format!("/nodes/{node}"), 1, record);
            let session = json!({"schema": 1, "instance": UUID, "machine": "", "boot": "", "started": 0});
            put(&format!("/nodes/{node}/session"), 1, session);
        }
        let path = format!("/vms/{UUID}");
        let record =
            json!({"schema": 1, "uuid": UUID, "name": "web", "state": state, "node": node, "xml": "", "generation": 1});
        put(&path, version, record);
        put(&format!("{path}/claim"), 1, json!({"schema": 1, "node": node, "epoch": 1}));
        let failure =
            (failures > 0).then(|| json!({"to": "hv2", "reason": "no room", "count": failures, "told": failures}));
        let status =
            json!({"schema": 1, "node": node, "epoch": 1, "run": "running", "since": 0, "move_failure": failure});
        put(&format!("{path}/status"), 1, status);
        assert!(view.broken.is_empty(), "{:?}", view.broken);
        serde_json::to_string(&Vm::of(&view, view.vm("web").unwrap())).unwrap() + "\n"
    }

    fn on_its_way(version: i64, failures: u32) -> String {
        vm(version, json!({"is": "migrate", "to": "hv2", "kind": "migrate", "how": "live"}), "hv1", failures)
    }

    fn started(version: i64, node: &str, failures: u32) -> String {
        vm(version, json!({"is": "start"}), node, failures)
    }

    /// A server that answers each request with the next of these streams, and with 404 after the last one.
    async fn server(streams: Vec<Vec<String>>) -> Client {
        type Streams = Arc<Mutex<VecDeque<Vec<String>>>>;
        async fn next(State(streams): State<Streams>) -> Result<Body, (StatusCode, String)> {
            let next = streams.lock().unwrap().pop_front();
            let gone = || (StatusCode::NOT_FOUND, json!({"message": "there is no VM"}).to_string());
            next.map(|lines| Body::from(lines.concat())).ok_or_else(gone)
        }
        serve(Router::new().fallback(next).with_state(Arc::new(Mutex::new(VecDeque::from(streams))))).await
    }

    async fn serve(router: Router) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Client::new(&url, None).unwrap()
    }

    /// A server with these answers by path, and 404 for all other paths.
    pub(crate) async fn routes(answers: &[(&str, String)]) -> Client {
        type Answers = Arc<BTreeMap<String, String>>;
        async fn answer(uri: Uri, State(answers): State<Answers>) -> Result<String, (StatusCode, String)> {
            let gone = || (StatusCode::NOT_FOUND, json!({"message": "there is no such thing"}).to_string());
            answers.get(uri.path()).cloned().ok_or_else(gone)
        }
        let answers = answers.iter().map(|(path, text)| (format!("/api/v1{path}"), text.clone()));
        serve(Router::new().fallback(answer).with_state(Answers::new(answers.collect()))).await
    }

    /// A node as the API shows it, with these fields.
    pub(crate) fn node(fields: Value) -> Node {
        let mut view = ClusterView::default();
        let record = json!({"schema": 1, "name": "hv1", "role": "coordinator", "api": "", "domain_state": "ready"});
        view.apply(&"/nodes/hv1".parse().unwrap(), Some((record.to_string().as_bytes(), drover_model::Version(1))));
        let node = view.nodes.values().next().unwrap();
        let mut node = serde_json::to_value(Node::of(&view, node, Default::default())).unwrap();
        node.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(node).unwrap()
    }

    /// Waits for a move to hv2, ordered in version 5 after one failed move. Returns the final version.
    async fn move_to_hv2(streams: Vec<Vec<String>>) -> Result<i64, Failure> {
        let (message, name, uuid) = (String::new(), "web".to_owned(), UUID.to_owned());
        let order =
            Changed { message, name, uuid, version: 5, to: Some("hv2".to_owned()), diff: None, warnings: vec![] };
        let before: Vm<'static> = serde_json::from_str(&started(4, "hv1", 1)).unwrap();
        moved(&server(streams).await, &before, &order, "hv2", QUIET).await.map(|done| done.version)
    }

    #[tokio::test]
    async fn the_wait_for_a_move_ends_when_the_vm_runs_there() {
        let whole = vec![vec![started(4, "hv1", 1), on_its_way(5, 1), started(6, "hv2", 0)]];
        assert_eq!(move_to_hv2(whole).await, Ok(6), "the final version");
        // The answering daemon stops meanwhile.
        let broken = vec![vec![on_its_way(5, 1)], vec![started(6, "hv2", 0)]];
        assert_eq!(move_to_hv2(broken).await, Ok(6));
    }

    #[tokio::test]
    async fn a_failed_move_reports_why_and_where_the_vm_runs() {
        let failed = move_to_hv2(vec![vec![on_its_way(5, 1), started(6, "hv1", 2)]]).await.unwrap_err();
        assert_eq!(failed.message, "web was not moved to hv2: no room\nNow it runs on hv1.");
        assert_eq!(failed.code, 1);
        assert_eq!(move_to_hv2(vec![vec![on_its_way(5, 1)]]).await.unwrap_err().code, 3, "it is gone");
    }
}
