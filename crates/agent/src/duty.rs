//! Duties: the supervised control loops of a node. One that panics (a defect) is logged, counted, shown in the node's
//! report and health, and restarted after a back-off. One that cannot be restarted ends the daemon, which its service
//! manager restarts: no node claims to run while one of its loops is dead.

use crate::clock::Clock;
use drover_model::{DutyReport, Mono};
use futures_util::future::BoxFuture;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
};

/// The first pause before a failed duty is restarted; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Failures older than this are neither reported nor counted for the pause.
const FORGIVEN: Duration = Duration::from_secs(3600);

/// A supervised control loop.
pub(crate) struct Duty {
    /// Its name, for logs and reports.
    pub(crate) name: &'static str,
    /// Starts it; called again after a failure. `None`: it cannot be started again.
    pub(crate) start: Box<dyn FnMut() -> Option<BoxFuture<'static, ()>> + Send>,
}

impl Duty {
    /// A duty that can be restarted, because it keeps no state.
    pub(crate) fn restartable<F>(name: &'static str, mut start: impl FnMut() -> F + Send + 'static) -> Duty
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Duty { name, start: Box::new(move || Some(Box::pin(start()))) }
    }

    /// A duty that can be started only once.
    pub(crate) fn once(name: &'static str, duty: impl Future<Output = ()> + Send + 'static) -> Duty {
        let mut duty: Option<BoxFuture<'static, ()>> = Some(Box::pin(duty));
        Duty { name, start: Box::new(move || duty.take()) }
    }
}

/// Failure counts, for the node's report. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Failures {
    clock: Clock,
    counts: Arc<watch::Sender<BTreeMap<String, (Mono, DutyReport)>>>,
}

impl Failures {
    pub(crate) fn new(clock: Clock) -> Failures {
        Failures { clock, counts: Arc::new(watch::channel(BTreeMap::new()).0) }
    }

    /// Counts and logs a failure. Returns the number of recent failures.
    pub(crate) fn count(&self, name: &str, why: &str) -> u32 {
        tracing::error!(duty = name, why, "a duty of this node failed; this is a bug in Drover");
        let now = self.clock.now();
        let mut recent = 1;
        self.counts.send_modify(|counts| {
            // A duty may be the task of a VM: forget those that are gone.
            counts.retain(|_, (at, _)| now.since(*at) <= FORGIVEN);
            let entry = counts.entry(name.to_owned());
            let (at, report) =
                entry.or_insert_with(|| (now, DutyReport { name: name.to_owned(), ..Default::default() }));
            report.failures = report.failures.saturating_add(1);
            report.why = why.chars().take(200).collect();
            *at = now;
            recent = report.failures;
        });
        recent
    }

    /// Recent failures.
    pub(crate) fn recent(&self) -> Vec<DutyReport> {
        let now = self.clock.now();
        let counts = self.counts.borrow();
        counts.values().filter(|(at, _)| now.since(*at) <= FORGIVEN).map(|(_, report)| report.clone()).collect()
    }

    /// Notifies of new failures.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<String, (Mono, DutyReport)>> {
        self.counts.subscribe()
    }
}

/// The message of a panic.
pub(crate) fn panic_message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    let panic: Box<dyn Any + Send> = panic;
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        (None, None) => "it panicked".to_owned(),
    }
}

/// The running duties.
pub(crate) struct Duties {
    all: Vec<Duty>,
    failures: Failures,
    tasks: JoinSet<()>,
    ids: BTreeMap<Id, usize>,
    /// When to restart which duty.
    waiting: BTreeSet<(Mono, usize)>,
}

impl Duties {
    /// Starts all duties.
    pub(crate) fn start(all: Vec<Duty>, failures: Failures) -> Duties {
        let (tasks, ids, waiting) = (JoinSet::new(), BTreeMap::new(), BTreeSet::new());
        let mut duties = Duties { all, failures, tasks, ids, waiting };
        for n in 0..duties.all.len() {
            duties.start_one(n);
        }
        duties
    }

    /// Starts one; returns false if it cannot be started again.
    fn start_one(&mut self, n: usize) -> bool {
        let Some(task) = (self.all[n].start)() else { return false };
        self.ids.insert(self.tasks.spawn(task).id(), n);
        true
    }

    /// Supervises the duties. Returns the name of one that failed and cannot be restarted.
    pub(crate) async fn supervise(&mut self) -> &'static str {
        loop {
            let next = self.waiting.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = self.failures.clock.until(next) => {
                    let Some((_, n)) = self.waiting.pop_first() else { continue };
                    if !self.start_one(n) {
                        return self.all[n].name;
                    }
                    tracing::info!(duty = self.all[n].name, "restarting a duty that failed");
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, failed) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(panic_message(error))),
        };
        // A duty that returned has nothing left to do: the store is closed.
        let (Some(n), Some(why)) = (self.ids.remove(&id), failed) else { return };
        let times = self.failures.count(self.all[n].name, &why);
        let pause = PAUSE.saturating_mul(1 << times.saturating_sub(1).min(6)).min(PAUSE_MAX);
        self.waiting.insert((self.failures.clock.now().after(pause), n));
    }

    /// Stops all duties, and waits for them to end.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn failing(name: &'static str, times: u32, started: &Arc<AtomicU32>) -> Duty {
        let started = started.clone();
        Duty::restartable(name, move || {
            let nth = started.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(nth >= times, "failure {nth}");
                std::future::pending().await
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_duty_that_fails_is_counted_and_restarted_and_the_others_go_on() {
        let (bad, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let failures = Failures::new(Clock::new());
        let duties = vec![failing("bad", 3, &bad), failing("good", 0, &good)];
        let mut changes = failures.changes();
        let mut duties = Duties::start(duties, failures.clone());
        let supervisor = tokio::spawn(async move { duties.supervise().await });
        changes.wait_for(|counts| counts.get("bad").is_some_and(|(_, report)| report.failures == 3)).await.unwrap();
        // The third pause is the longest: 4 s.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((bad.load(Ordering::SeqCst), good.load(Ordering::SeqCst)), (4, 1));
        let wanted = DutyReport { name: "bad".to_owned(), failures: 3, why: "failure 2".to_owned() };
        assert_eq!(failures.recent(), [wanted]);
        tokio::time::sleep(FORGIVEN).await;
        assert_eq!(failures.recent(), []);
        failures.count("another", "it is the only one now");
        assert_eq!(failures.counts.borrow().len(), 1);
        assert!(!supervisor.is_finished());
        supervisor.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_duty_that_cannot_restart_ends_supervision() {
        let failures = Failures::new(Clock::new());
        let view = Duty::once("view", async { panic!("no view") });
        let others = Arc::new(AtomicU32::new(0));
        let mut duties = Duties::start(vec![failing("other", 0, &others), view], failures);
        assert_eq!(duties.supervise().await, "view");
        duties.stop().await;
    }
}
