//! What the parts of an agent publish for each other. Each channel has one publisher, which alone is given its sender;
//! those who need it are given a receiver.

use crate::{clock::Clock, duty::Failures};
use drover_model::{BmcReport, DrainReport, Stray, WatchdogReport};
use drover_plan::liveness::Lives;
use std::collections::BTreeMap;
use tokio::sync::watch::{Receiver, Sender, channel};
use uuid::Uuid;

/// Guests that run here without a claim of this node.
pub(crate) type Strays = BTreeMap<Uuid, Stray>;

/// All channels. Only [`crate::Agent`] has them all, and hands them out.
pub(crate) struct Published {
    /// The state of each node's daemon, and since when. Published by `liveness`.
    pub(crate) lives: Sender<Lives>,
    /// Published by the VMs' tasks, each its own entry.
    pub(crate) strays: Sender<Strays>,
    /// Progress of draining or refilling the node. Published by `drain`.
    pub(crate) drain: Sender<Option<DrainReport>>,
    /// What is known about this node's BMC. Published by `bmc`.
    pub(crate) bmc: Sender<Option<BmcReport>>,
    /// Problems of the networks of the floating addresses. Published by `primary`.
    pub(crate) network_problems: Sender<Vec<String>>,
    /// Failed primary services and why; empty when this node is not the primary. Published by `primary`.
    pub(crate) service_problems: Sender<Vec<(String, String)>>,
    /// Whether this node has a part in the primary role that another node could take over. Published by `primary`.
    pub(crate) must_hand_over: Sender<bool>,
    /// What is known about this node's watchdog. Published by `selffence`.
    pub(crate) watchdog: Sender<Option<WatchdogReport>>,
    /// Whether the watchdog may run, so that it must be disarmed before this daemon ends. Published by `selffence`.
    pub(crate) armed: Sender<bool>,
    /// Whether the daemon is stopping. Published by the agent.
    pub(crate) stopping: Sender<bool>,
    /// Recent failures of the duties. Published by their supervisors.
    pub(crate) failures: Failures,
}

/// What the node's report is made of, besides what is observed for it.
#[derive(Clone)]
pub(crate) struct Reported {
    pub(crate) strays: Receiver<Strays>,
    pub(crate) drain: Receiver<Option<DrainReport>>,
    pub(crate) bmc: Receiver<Option<BmcReport>>,
    pub(crate) watchdog: Receiver<Option<WatchdogReport>>,
    pub(crate) network_problems: Receiver<Vec<String>>,
    pub(crate) failures: Failures,
}

impl Published {
    pub(crate) fn new(clock: Clock) -> Published {
        Published {
            lives: channel(Lives::new()).0,
            strays: channel(Strays::new()).0,
            drain: channel(None).0,
            bmc: channel(None).0,
            watchdog: channel(None).0,
            armed: channel(false).0,
            network_problems: channel(Vec::new()).0,
            service_problems: channel(Vec::new()).0,
            must_hand_over: channel(false).0,
            stopping: channel(false).0,
            failures: Failures::new(clock),
        }
    }

    /// What the node's report needs.
    pub(crate) fn reported(&self) -> Reported {
        Reported {
            strays: self.strays.subscribe(),
            drain: self.drain.subscribe(),
            bmc: self.bmc.subscribe(),
            watchdog: self.watchdog.subscribe(),
            network_problems: self.network_problems.subscribe(),
            failures: self.failures.clone(),
        }
    }
}
