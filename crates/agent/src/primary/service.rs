//! Services that move with the primary role, each with a start, a stop and a check; and operations on all services of a
//! node.

use async_trait::async_trait;
use drover_model::vm::Epoch;
use drover_plan::primary::Level;
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// Timeout for one step of one service. After it the outcome is unknown, and the step is retried.
const STEP: Duration = Duration::from_secs(5);

/// The grant under which a service runs.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// The epoch of the grant.
    pub epoch: Epoch,
    /// The service must be gone by then, unless it is started again with a later deadline. `None`: no other node can
    /// ever have the role.
    pub until: Option<Instant>,
    /// Another node of the cluster may legitimately run it at this moment.
    pub contested: bool,
}

/// How a service is handed over from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// It starts on the new node before it stops on the old one: no interruption.
    Overlapping,
    /// It stops on the old node before it starts on the new one: never two instances. What it does must need one of the
    /// floating addresses, so that nobody can reach it once the kernel removes these from a node whose process is
    /// suspended.
    Exclusive,
}

/// Something that runs on the primary and on no other node. All calls are idempotent.
#[async_trait]
pub trait PrimaryService: Send + Sync {
    /// Name for messages and logs.
    fn name(&self) -> String;

    /// How it is handed over.
    fn handover(&self) -> Handover;

    /// Whether a node that cannot run it cannot be the primary. A handoff to a node where an essential service does not
    /// start is reverted; for other services the failure is only reported.
    fn is_essential(&self) -> bool;

    /// Starts it, or extends its deadline.
    async fn start(&self, grant: &Grant) -> Result<(), String>;

    /// Prepares for a handover: finishes work under way, and begins nothing that the handover would interrupt. It keeps
    /// running. A start cancels this.
    async fn quiesce(&self) {}

    /// Announces it to the network.
    async fn announce(&self) {}

    /// Stops it.
    async fn stop(&self) -> Result<(), String>;

    /// Checks whether it runs.
    async fn check(&self) -> Result<bool, String>;
}

/// All services of a node, in start order.
#[derive(Clone)]
pub(super) struct Services {
    all: Arc<Vec<Arc<dyn PrimaryService>>>,
}

/// Whether services are announced as a part of their start: one that nobody can find is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announce {
    Always,
    /// If something started that did not run before.
    WhatIsNew,
    Never,
}

/// An operation on a node's services. They do not overlap.
#[derive(Debug, Clone, Copy)]
pub(super) enum Job {
    /// Starts or extends the overlapping ones.
    Share(Grant, Announce),
    /// Extends the overlapping ones without ending their quiescence.
    Prolong(Grant),
    /// Starts or extends all.
    Raise(Grant, Announce),
    /// Stops the exclusive ones, and quiesces the others.
    Yield,
    /// Stops all.
    Lower,
}

impl Job {
    /// Whether it starts services.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Job::Share(..) | Job::Prolong(_) | Job::Raise(..))
    }
}

/// The outcome of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    /// The level of the overlapping services, if it is known anew.
    pub(super) shared: Option<Level>,
    /// The same for the exclusive ones.
    pub(super) exclusive: Option<Level>,
    /// Failed services by name, and why.
    pub(super) problems: Vec<(String, String)>,
    /// Why an essential one failed.
    pub(super) trouble: Option<String>,
    /// Something started that did not run before.
    pub(super) appeared: bool,
}

impl Services {
    pub(super) fn new(all: Vec<Arc<dyn PrimaryService>>) -> Services {
        Services { all: Arc::new(all) }
    }

    fn of(&self, how: Handover) -> impl DoubleEndedIterator<Item = &Arc<dyn PrimaryService>> {
        self.all.iter().filter(move |service| service.handover() == how)
    }

    /// Announces all services.
    pub(super) async fn announce(self) {
        for service in self.all.iter() {
            service.announce().await;
        }
    }

    /// Does a job. If dropped, the state of the services is unknown.
    pub(super) async fn work(self, job: Job) -> Outcome {
        let mut outcome = Outcome::default();
        match job {
            Job::Share(grant, announce) => self.share(&grant, announce, &mut outcome).await,
            Job::Prolong(grant) => {
                let essential = self.of(Handover::Overlapping).filter(|service| service.is_essential()).collect();
                let level = self.raise_all(vec![essential], &grant, &mut outcome).await;
                outcome.shared = Some(level);
            }
            Job::Raise(grant, announce) => {
                self.share(&grant, announce, &mut outcome).await;
                self.raise(Handover::Exclusive, &grant, &mut outcome).await;
            }
            Job::Yield => {
                outcome.exclusive = Some(self.lower(Handover::Exclusive, &mut outcome).await);
                for service in self.of(Handover::Overlapping) {
                    // A service that is not quiescent by now has had its time.
                    timeout(STEP, service.quiesce()).await.ok();
                }
            }
            Job::Lower => {
                outcome.exclusive = Some(self.lower(Handover::Exclusive, &mut outcome).await);
                outcome.shared = Some(self.lower(Handover::Overlapping, &mut outcome).await);
            }
        }
        outcome
    }

    async fn share(&self, grant: &Grant, announce: Announce, outcome: &mut Outcome) {
        self.raise(Handover::Overlapping, grant, outcome).await;
        if announce == Announce::Always || (announce == Announce::WhatIsNew && outcome.appeared) {
            self.clone().announce().await;
        }
    }

    async fn raise(&self, how: Handover, grant: &Grant, outcome: &mut Outcome) {
        // Essential ones first, because the others may depend on them; each group concurrently.
        let (essential, others): (Vec<_>, Vec<_>) = self.of(how).partition(|service| service.is_essential());
        let level = self.raise_all(vec![essential, others], grant, outcome).await;
        match how {
            Handover::Overlapping => outcome.shared = Some(level),
            Handover::Exclusive => outcome.exclusive = Some(level),
        }
    }

    /// Starts one group after the other, each concurrently; returns the level that was reached.
    async fn raise_all(
        &self,
        parts: Vec<Vec<&Arc<dyn PrimaryService>>>,
        grant: &Grant,
        outcome: &mut Outcome,
    ) -> Level {
        let mut level = Level::Up;
        let mut done = Vec::new();
        for part in parts {
            let each = part.into_iter().map(|service| async move { (service, raise(&**service, grant).await) });
            done.extend(join_all(each).await);
        }
        for (service, outcome_of_it) in done {
            match outcome_of_it {
                Ok(Raised::New) => outcome.appeared = true,
                Ok(Raised::Already) => {}
                Err(why) => {
                    if service.is_essential() {
                        level = Level::Unknown;
                        outcome.trouble.get_or_insert(format!("{}: {why}", service.name()));
                    }
                    outcome.problems.push((service.name(), why));
                }
            }
        }
        level
    }

    async fn lower(&self, how: Handover, outcome: &mut Outcome) -> Level {
        let mut level = Level::Down;
        for service in self.of(how).rev() {
            if let Err(why) = lower(&**service).await {
                level = Level::Unknown;
                outcome.problems.push((service.name(), why));
            }
        }
        level
    }
}

fn late<T>(_: T) -> String {
    format!("it took longer than {} s", STEP.as_secs())
}

/// The effect of a start.
enum Raised {
    New,
    Already,
}

/// Starts a service, and checks that it runs.
async fn raise(service: &dyn PrimaryService, grant: &Grant) -> Result<Raised, String> {
    let before = timeout(STEP, service.check()).await.map_err(late)??;
    timeout(STEP, service.start(grant)).await.map_err(late)??;
    match timeout(STEP, service.check()).await.map_err(late)?? {
        true if before => Ok(Raised::Already),
        true => Ok(Raised::New),
        false => Err("it was started but does not run".to_owned()),
    }
}

/// Stops a service, and checks that it is gone.
async fn lower(service: &dyn PrimaryService) -> Result<(), String> {
    timeout(STEP, service.stop()).await.map_err(late)??;
    match timeout(STEP, service.check()).await.map_err(late)?? {
        false => Ok(()),
        true => Err("it was stopped but still runs".to_owned()),
    }
}
