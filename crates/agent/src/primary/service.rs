//! What moves with the primary role: services, each with a start, a stop and a check; and what is done with a node's
//! services as a whole.

use async_trait::async_trait;
use drover_model::vm::Epoch;
use drover_plan::primary::Level;
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// How long one step of one service may take. What takes longer is not known, and is tried again.
const STEP: Duration = Duration::from_secs(5);

/// Under what a service is up.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Of which grant of the role.
    pub epoch: Epoch,
    /// By then at the latest it must be gone, unless it is started again with a later moment. `None`: nobody else can
    /// ever have the role.
    pub until: Option<Instant>,
    /// Another node of the cluster may have it up at this moment, and may have it.
    pub contested: bool,
}

/// How a service passes from one node to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// It is up on the new node before the old one stops it: no moment without it.
    Overlapping,
    /// It is stopped on the old node before the new one starts it: never two of it. What it does must need one of the
    /// floating addresses, so that nobody hears of it any more when the kernel takes these from a node whose process is
    /// stopped.
    Exclusive,
}

/// Something that the primary has up, and no other node. All calls may be made again and again; they make it so, or
/// leave it so.
#[async_trait]
pub trait PrimaryService: Send + Sync {
    /// For people and logs.
    fn name(&self) -> String;

    /// How it passes on.
    fn handover(&self) -> Handover;

    /// Whether a node without it cannot be the primary. A handoff to a node where it does not start is taken back;
    /// otherwise that is only reported.
    fn is_essential(&self) -> bool;

    /// Brings it up, or has it stay up.
    async fn start(&self, grant: &Grant) -> Result<(), String>;

    /// The role is about to pass on: it finishes what is under way, and begins nothing that the passing would break
    /// off. It stays up. A start takes this back.
    async fn quiesce(&self) {}

    /// Tells the network that it is here.
    async fn announce(&self) {}

    /// Takes it down.
    async fn stop(&self) -> Result<(), String>;

    /// Whether it is up, by looking.
    async fn check(&self) -> Result<bool, String>;
}

/// All services of a node, in the order of their start.
#[derive(Clone)]
pub(super) struct Services {
    all: Arc<Vec<Arc<dyn PrimaryService>>>,
}

/// Whether what comes up is announced as a part of that: what is up without anybody knowing is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announce {
    Always,
    /// If something came up that was not there before.
    WhatIsNew,
    Never,
}

/// One thing that is done with a node's services; never two at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Job {
    /// Overlapping ones come up, or stay.
    Share(Grant, Announce),
    /// Those that were made to prepare for the role's passing on stay as they are.
    Prolong(Grant),
    /// All of them do.
    Raise(Grant, Announce),
    /// Exclusive ones are stopped, the others prepare for the role's passing on.
    Yield,
    /// All are stopped.
    Lower,
}

impl Job {
    /// Whether it brings something up.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Job::Share(..) | Job::Prolong(_) | Job::Raise(..))
    }
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    /// What is known of the overlapping ones now, if anything new is.
    pub(super) shared: Option<Level>,
    /// The same of the exclusive ones.
    pub(super) exclusive: Option<Level>,
    /// What did not come up, by name, and why.
    pub(super) problems: Vec<(String, String)>,
    /// Why an essential one did not.
    pub(super) trouble: Option<String>,
    /// Something came up that was not there before.
    pub(super) appeared: bool,
}

impl Services {
    pub(super) fn new(all: Vec<Arc<dyn PrimaryService>>) -> Services {
        Services { all: Arc::new(all) }
    }

    fn of(&self, how: Handover) -> impl DoubleEndedIterator<Item = &Arc<dyn PrimaryService>> {
        self.all.iter().filter(move |service| service.handover() == how)
    }

    /// Tells the network of all that are to be announced.
    pub(super) async fn announce(self) {
        for service in self.all.iter() {
            service.announce().await;
        }
    }

    /// Does a job. Dropped in the middle, it leaves everything unknown.
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
                    // Whoever is not quiet by now has had its time.
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
        // What the others may stand on first, all of it at once.
        let (essential, others): (Vec<_>, Vec<_>) = self.of(how).partition(|service| service.is_essential());
        let level = self.raise_all(vec![essential, others], grant, outcome).await;
        match how {
            Handover::Overlapping => outcome.shared = Some(level),
            Handover::Exclusive => outcome.exclusive = Some(level),
        }
    }

    /// One part after the other, each at once; returns how far that came.
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

/// What a start has done.
enum Raised {
    New,
    Already,
}

/// Starts a service, and sees that it is up.
async fn raise(service: &dyn PrimaryService, grant: &Grant) -> Result<Raised, String> {
    let before = timeout(STEP, service.check()).await.map_err(late)??;
    timeout(STEP, service.start(grant)).await.map_err(late)??;
    match timeout(STEP, service.check()).await.map_err(late)?? {
        true if before => Ok(Raised::Already),
        true => Ok(Raised::New),
        false => Err("it was started and is not there".to_owned()),
    }
}

/// Stops a service, and sees that it is gone.
async fn lower(service: &dyn PrimaryService) -> Result<(), String> {
    timeout(STEP, service.stop()).await.map_err(late)??;
    match timeout(STEP, service.check()).await.map_err(late)?? {
        false => Ok(()),
        true => Err("it was stopped and is still there".to_owned()),
    }
}
