//! Duties: the control loops of a node. Each is a named task that is looked after: one that fails (a panic, which is a
//! defect) is logged, counted, shown in the node's report and health, and begun again after a while; one that cannot be
//! begun again ends the daemon, which its service manager starts again. No node goes on saying that it runs with a loop
//! that is dead.

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

/// The pause before a duty is begun again that failed; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A failure that is older is not told any more, and the pauses begin anew.
const FORGIVEN: Duration = Duration::from_secs(3600);

/// A control loop.
pub(crate) struct Duty {
    /// What it is called, for people.
    pub(crate) name: &'static str,
    /// Begins it. Called again when it has failed, unless it was begun and can be begun once only (`None`).
    pub(crate) begin: Box<dyn FnMut() -> Option<BoxFuture<'static, ()>> + Send>,
}

impl Duty {
    /// One that can be begun again: it looks at everything afresh.
    pub(crate) fn again<F>(name: &'static str, mut begin: impl FnMut() -> F + Send + 'static) -> Duty
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Duty { name, begin: Box::new(move || Some(Box::pin(begin()))) }
    }

    /// One that can be begun once only.
    pub(crate) fn once(name: &'static str, duty: impl Future<Output = ()> + Send + 'static) -> Duty {
        let mut duty: Option<BoxFuture<'static, ()>> = Some(Box::pin(duty));
        Duty { name, begin: Box::new(move || duty.take()) }
    }
}

/// What failed how often, for the node's report. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Failures {
    clock: Clock,
    counts: Arc<watch::Sender<BTreeMap<String, (Mono, DutyReport)>>>,
}

impl Failures {
    pub(crate) fn new(clock: Clock) -> Failures {
        Failures { clock, counts: Arc::new(watch::channel(BTreeMap::new()).0) }
    }

    /// One more failure, which is logged. Returns how many it has been lately.
    pub(crate) fn count(&self, name: &str, why: &str) -> u32 {
        tracing::error!(duty = name, why, "a duty of this node failed; this is a defect of Drover");
        let now = self.clock.now();
        let mut lately = 1;
        self.counts.send_modify(|counts| {
            let entry = counts.entry(name.to_owned());
            let (at, report) =
                entry.or_insert_with(|| (now, DutyReport { name: name.to_owned(), ..Default::default() }));
            report.failures = if now.since(*at) > FORGIVEN { 1 } else { report.failures.saturating_add(1) };
            report.why = why.chars().take(200).collect();
            *at = now;
            lately = report.failures;
        });
        lately
    }

    /// What has failed lately.
    pub(crate) fn lately(&self) -> Vec<DutyReport> {
        let now = self.clock.now();
        let counts = self.counts.borrow();
        counts.values().filter(|(at, _)| now.since(*at) <= FORGIVEN).map(|(_, report)| report.clone()).collect()
    }

    /// To wait for more.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<String, (Mono, DutyReport)>> {
        self.counts.subscribe()
    }
}

/// What a panic said.
pub(crate) fn said(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    let panic: Box<dyn Any + Send> = panic;
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        (None, None) => "it panicked".to_owned(),
    }
}

/// The duties that were begun.
pub(crate) struct Duties {
    all: Vec<Duty>,
    failures: Failures,
    tasks: JoinSet<()>,
    ids: BTreeMap<Id, usize>,
    /// When which is begun again.
    waiting: BTreeSet<(Mono, usize)>,
}

impl Duties {
    /// Begins them all.
    pub(crate) fn begin(all: Vec<Duty>, failures: Failures) -> Duties {
        let (tasks, ids, waiting) = (JoinSet::new(), BTreeMap::new(), BTreeSet::new());
        let mut duties = Duties { all, failures, tasks, ids, waiting };
        for n in 0..duties.all.len() {
            duties.begin_one(n);
        }
        duties
    }

    /// Begins one; returns whether that can be done.
    fn begin_one(&mut self, n: usize) -> bool {
        let Some(task) = (self.all[n].begin)() else { return false };
        self.ids.insert(self.tasks.spawn(task).id(), n);
        true
    }

    /// Looks after them. Ends, with its name, when one has failed that cannot be begun again.
    pub(crate) async fn look_after(&mut self) -> &'static str {
        loop {
            let next = self.waiting.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = self.failures.clock.until(next) => {
                    let Some((_, n)) = self.waiting.pop_first() else { continue };
                    if !self.begin_one(n) {
                        return self.all[n].name;
                    }
                    tracing::info!(duty = self.all[n].name, "a duty that failed is begun again");
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, failed) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(said(error))),
        };
        // One that ended by itself has nothing left to do: the store is closed.
        let (Some(n), Some(why)) = (self.ids.remove(&id), failed) else { return };
        let times = self.failures.count(self.all[n].name, &why);
        let pause = PAUSE.saturating_mul(1 << times.saturating_sub(1).min(6)).min(PAUSE_MAX);
        self.waiting.insert((self.failures.clock.now().after(pause), n));
    }

    /// Ends them all, and waits until they have ended.
    pub(crate) async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn failing(name: &'static str, times: u32, begun: &Arc<AtomicU32>) -> Duty {
        let begun = begun.clone();
        Duty::again(name, move || {
            let nth = begun.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(nth >= times, "failure {nth}");
                std::future::pending().await
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_duty_that_fails_is_counted_and_begun_again_and_the_others_go_on() {
        let (bad, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let failures = Failures::new(Clock::new());
        let duties = vec![failing("bad", 3, &bad), failing("good", 0, &good)];
        let mut told = failures.changes();
        let mut duties = Duties::begin(duties, failures.clone());
        let looked_after = tokio::spawn(async move { duties.look_after().await });
        told.wait_for(|counts| counts.get("bad").is_some_and(|(_, report)| report.failures == 3)).await.unwrap();
        // The third pause is the longest: 4 s.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((bad.load(Ordering::SeqCst), good.load(Ordering::SeqCst)), (4, 1));
        let wanted = DutyReport { name: "bad".to_owned(), failures: 3, why: "failure 2".to_owned() };
        assert_eq!(failures.lately(), [wanted]);
        tokio::time::sleep(FORGIVEN).await;
        assert_eq!(failures.lately(), []);
        assert!(!looked_after.is_finished());
        looked_after.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_be_begun_again_ends_it_all() {
        let failures = Failures::new(Clock::new());
        let view = Duty::once("view", async { panic!("no view") });
        let others = Arc::new(AtomicU32::new(0));
        let mut duties = Duties::begin(vec![failing("other", 0, &others), view], failures);
        assert_eq!(duties.look_after().await, "view");
        duties.end().await;
    }
}
