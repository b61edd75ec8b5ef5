//! A node's report: what the cluster knows about its daemon, its machine, its hypervisor and its domains.

use crate::{bmc::ClusterKey, context::Context, published::Reported, records};
use drover_drivers::hypervisor::{Connection, Domain, Listing};
use drover_model::{
    DaemonState, Mono, NodeStatus, Obs, RunState, Stray,
    node::{FOREIGN_MAX, NODE_SCHEMA},
};
use drover_plan::{capacity::HOST_RESERVE, vm::may_be_ordered};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// Poll interval for changes to report.
const REPORT: Duration = Duration::from_secs(5);
/// An unchanged report is rewritten after this time, which bounds the age of what is shown of a node. (Whether its
/// daemon is alive is reported by its session.)
const REPORT_AGAIN: Duration = Duration::from_secs(300);
/// Minimum time between reports; changes in between are combined into one report.
const REPORT_GAP: Duration = Duration::from_millis(500);

/// Writes the node's report.
pub(crate) struct Reporter {
    ctx: Arc<Context>,
    reported: Reported,
}

impl Reporter {
    pub(crate) fn new(ctx: Arc<Context>, reported: Reported) -> Reporter {
        Reporter { ctx, reported }
    }

    /// Writes the node's report: polls every few seconds, and soon after an event.
    pub(crate) async fn run(&self, ready: &watch::Sender<bool>) {
        let ctx = &*self.ctx;
        let mut events = ctx.hypervisor.events();
        let mut connection = ctx.hypervisor.connection();
        let mut domain_type = ctx.options.domain_type.clone();
        let Reported { mut strays, mut drain, mut bmc, mut watchdog, network_problems: mut networks, failures } =
            self.reported.clone();
        let mut failures = failures.changes();
        let mut reported: Option<(Mono, NodeStatus)> = None;
        loop {
            ctx.membership().await;
            drain.mark_unchanged();
            networks.mark_unchanged();
            failures.mark_unchanged();
            strays.mark_unchanged();
            bmc.mark_unchanged();
            watchdog.mark_unchanged();
            let observed = self.observe(DaemonState::Run).await;
            let now = ctx.clock.now();
            // The node, and its report with it, may have been removed and have come back.
            let shown = ctx.views.latest().nodes.get(ctx.me()).is_some_and(|node| node.status.is_some());
            let is_old = |(at, before): &(Mono, NodeStatus), status: &NodeStatus| {
                now.since(*at) >= REPORT_AGAIN || status.is_news_after(before)
            };
            match observed {
                Err(error) => {
                    tracing::warn!(error, "this node's report is not renewed: cannot read the facts about the machine")
                }
                Ok(status) if shown && !reported.as_ref().is_none_or(|before| is_old(before, &status)) => {
                    tracing::trace!("nothing to report");
                }
                Ok(status) => reported = self.write(ready, status).await.map(|status| (now, status)),
            }
            let earliest = ctx.clock.now().after(REPORT_GAP);
            let latest = ctx.clock.now().after(REPORT);
            tokio::select! {
                biased;
                _ = events.recv() => {}
                Ok(()) = connection.changed() => {}
                Ok(()) = domain_type.changed() => {}
                Ok(()) = drain.changed() => {}
                Ok(()) = networks.changed() => {}
                Ok(()) = failures.changed() => {}
                Ok(()) = strays.changed() => {}
                Ok(()) = bmc.changed() => {}
                Ok(()) = watchdog.changed() => {}
                () = ctx.clock.until(Some(latest)) => {}
            }
            ctx.clock.until(Some(earliest)).await;
            while events.try_recv().is_ok() {}
        }
    }

    /// Writes a report, and returns it if that is known to have succeeded.
    async fn write(&self, ready: &watch::Sender<bool>, status: NodeStatus) -> Option<NodeStatus> {
        let ctx = &*self.ctx;
        match records::put(&*ctx.store, ctx.me(), &status).await {
            Ok(()) => {
                if !ready.send_replace(true) {
                    tracing::info!(node = %ctx.me(), "ready for work");
                }
                Some(status)
            }
            Err(error) => {
                tracing::debug!(%error, "cannot write this node's report");
                None
            }
        }
    }

    /// Collects the node's status.
    ///
    /// # Errors
    /// If the facts about the machine cannot be read: a report without them would say that the node has no memory.
    async fn observe(&self, daemon: DaemonState) -> Result<NodeStatus, String> {
        let (ctx, reported) = (&*self.ctx, &self.reported);
        let facts = (ctx.options.host)()?;
        let connection = ctx.hypervisor.connection().borrow().clone();
        let (hypervisor, guests, domains, problem) = match connection {
            Connection::Down(why) => (String::new(), None, Listing::default(), why),
            Connection::Up => match tokio::join!(ctx.hypervisor.host(), ctx.hypervisor.domains()) {
                (Ok(host), Ok(domains)) => (host.version, host.guests, domains, String::new()),
                (Err(error), _) | (_, Err(error)) => (String::new(), None, Listing::default(), error.to_string()),
            },
        };
        let in_memory = |domain: &Obs<drover_drivers::hypervisor::Domain>| match domain {
            Obs::Known(domain) => domain.run != RunState::Off,
            Obs::Unknown(_) => true,
            Obs::Absent => false,
        };
        let total = ctx.options.capacity.unwrap_or(facts.memory_total);
        let Listing { ours, mut foreign } = domains;
        foreign.truncate(FOREIGN_MAX);
        let mut strays = reported.strays.borrow().clone();
        // Those without a record at once, before their tasks have looked at them: the VM may be defined again any
        // moment.
        let view = ctx.views.latest();
        let running = ours.iter().filter_map(|(_, domain)| domain.known()).filter(|domain| domain.run != RunState::Off);
        let paused = |domain: &Domain| domain.paused.as_ref().is_some_and(|paused| may_be_ordered(paused.by));
        let stray = |d: &Domain| (d.uuid, Stray { uuid: d.uuid, epoch: d.mark.epoch, paused: paused(d) });
        strays.extend(running.filter(|d| !view.vms.contains_key(&d.uuid)).map(stray));
        let strays = strays.into_values().collect();
        let mut domains: Vec<Uuid> = ours.into_iter().filter(|(_, d)| in_memory(d)).map(|(uuid, _)| uuid).collect();
        // Sorted, so that another order of the hypervisor's list is not a change.
        domains.sort_unstable();
        Ok(NodeStatus {
            schema: NODE_SCHEMA,
            daemon,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: facts.kernel,
            os: facts.os,
            arch: facts.arch,
            hypervisor,
            hypervisor_problem: problem,
            domain_type: *ctx.options.domain_type.borrow(),
            cpus: facts.cpus,
            cpu_model: facts.cpu_model,
            guests,
            bridges: facts.bridges,
            shared: ctx.options.shared.clone(),
            network_problems: reported.network_problems.borrow().clone(),
            floating: ctx
                .options
                .primary
                .addresses
                .iter()
                .map(|a| (a.network.clone(), a.address.to_string()))
                .collect(),
            drain: reported.drain.borrow().clone(),
            duties: reported.failures.recent(),
            bmc: reported.bmc.borrow().clone(),
            watchdog: reported.watchdog.borrow().clone(),
            cluster_key: ctx.options.bmc.key.as_ref().map(ClusterKey::id).unwrap_or_default(),
            memory_total: total,
            memory_free: facts.memory_available.min(total.saturating_sub(HOST_RESERVE)),
            load: facts.load,
            domains,
            strays,
            foreign,
            updated: ctx.wall(),
        })
    }

    /// Reports that this daemon stops on purpose. Guests keep running.
    pub(crate) async fn leave(&self) {
        let ctx = &*self.ctx;
        if !ctx.is_member() {
            return;
        }
        let written = match self.observe(DaemonState::Stop).await {
            Ok(status) => records::put(&*ctx.store, ctx.me(), &status).await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(error, "could not report that this node's daemon stops on purpose");
        }
    }
}
