//! A VM that is watched while requests are sent about it.

pub(super) use crate::pings::now;
use drover_client::{Client, ClientError};
use drover_lab::{LabError, Result};
use drover_model::{
    MigrationMethod, NodeName,
    wire::{ChangeMeta, Changed, DefineVm, DeleteVm, MoveAction, MoveVm, PowerOrder, SetVmState, Vm},
};
use futures_util::{Stream, StreamExt};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::time::{sleep, timeout};

/// Timeout for the completion of a request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A VM with a stream of its changes, as shown by the node that requests are sent to.
pub(super) struct WatchedVm<'a> {
    client: &'a Client,
    name: String,
    changes: Pin<Box<dyn Stream<Item = drover_client::Result<Vm<'static>>> + Send>>,
}

/// A completed request. Times are in microseconds since 1970.
pub(super) struct Completed {
    /// Just before the request was sent.
    pub(super) requested: u64,
    /// When its effect was shown.
    pub(super) seen: u64,
    /// The VM at that time.
    pub(super) vm: Vm<'static>,
}

/// Whether a VM runs and is settled.
fn runs(vm: &Vm<'_>) -> bool {
    vm.run_state == "running" && vm.is_settled()
}

fn named(node: &str) -> Result<NodeName> {
    node.parse().map_err(|e| LabError::new("cannot use a node", e))
}

impl<'a> WatchedVm<'a> {
    /// Watches an existing VM.
    pub(super) async fn watch(client: &'a Client, name: &str) -> Result<WatchedVm<'a>> {
        let changes = client.watch_vm(name).await.map_err(|e| LabError::new(format!("cannot watch VM {name}"), e))?;
        Ok(WatchedVm { client, name: name.to_owned(), changes: Box::pin(changes) })
    }

    /// Defines a VM and watches it.
    pub(super) async fn define(client: &'a Client, name: &str, xml: &str, node: &str) -> Result<WatchedVm<'a>> {
        // Only live migration, so that no move that is measured is a shutdown and a start.
        let meta = ChangeMeta { migration_method: Some(MigrationMethod::Live), ..ChangeMeta::default() };
        let vm = DefineVm {
            xml: xml.to_owned(),
            node: Some(named(node)?),
            adopt: false,
            no_check: false,
            force: false,
            advise: false,
            meta,
        };
        // Its node reports every few seconds which bridges it has, and there may be a new one.
        let defined = async {
            loop {
                match client.define_vm(&vm).await {
                    Err(ClientError::Refused { refusal, .. }) if refusal.message.contains("it has no bridge") => {
                        sleep(Duration::from_millis(100)).await;
                    }
                    defined => return defined,
                }
            }
        };
        let failed = || format!("cannot define VM {name}");
        let late = |_| LabError::new(failed(), timed_out());
        timeout(TIMEOUT, defined).await.map_err(late)?.map_err(|e| LabError::new(failed(), e))?;
        WatchedVm::watch(client, name).await
    }

    fn failed(&self, what: &str) -> impl Fn(ClientError) -> LabError + use<> {
        let what = format!("cannot {what} VM {}", self.name);
        move |e| LabError::new(&*what, e)
    }

    /// Starts the VM. `last` is the epoch of its last start; the new one is later.
    pub(super) async fn start(&mut self, last: u64) -> Result<Completed> {
        let (client, name) = (self.client, self.name.clone());
        let order = client.set_vm_state(&name, SetVmState::to(PowerOrder::Start));
        self.order("start", order, |vm| vm.claim.epoch > last && runs(vm)).await
    }

    /// Stops the VM (cuts its power).
    pub(super) async fn stop(&mut self) -> Result<Completed> {
        let (client, name) = (self.client, self.name.clone());
        let order = client.set_vm_state(&name, SetVmState::to(PowerOrder::Stop));
        self.order("stop", order, |vm| vm.state == "stop" && vm.is_settled()).await
    }

    /// Migrates the VM to another node; its home stays.
    pub(super) async fn migrate(&mut self, to: &str) -> Result<Completed> {
        let (client, name) = (self.client, self.name.clone());
        let order = MoveVm { node: Some(named(to)?), ..MoveVm::by(MoveAction::Migrate) };
        let order = client.move_vm(&name, &order);
        self.order("migrate", order, |vm| vm.node == to && vm.claim.node == to && runs(vm)).await
    }

    /// Migrates the VM back to `home`.
    pub(super) async fn unmigrate(&mut self, home: &str) -> Result<Completed> {
        let (client, name) = (self.client, self.name.clone());
        let order = MoveVm::by(MoveAction::Unmigrate);
        let order = client.move_vm(&name, &order);
        self.order("unmigrate", order, |vm| vm.node == home && vm.claim.node == home && runs(vm)).await
    }

    /// Deletes the VM, which must be off.
    pub(super) async fn delete(self) -> Result<()> {
        self.client.delete_vm(&self.name, DeleteVm::default()).await.map(|_| ()).map_err(self.failed("delete"))
    }

    /// Waits until the guest reports on its console that it has booted.
    pub(super) async fn booted(&self) -> Result<()> {
        let booted = async {
            // Errors are retried: the log may not exist yet.
            while !self.client.console(&self.name, 1000).await.is_ok_and(|log| log.data.contains("BOOTED ")) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let failed = |_| LabError::new(format!("VM {} has not booted", self.name), timed_out());
        timeout(TIMEOUT, booted).await.map_err(failed)
    }

    /// Waits until the VM fits on another node.
    pub(super) async fn fits(&self, node: &str) -> Result<()> {
        let fits = async || {
            let explained =
                self.client.explain_vm(&self.name).await.map_err(self.failed("explain the placement of"))?;
            Ok::<bool, LabError>(explained.nodes.iter().any(|judged| judged.node == node && judged.fits))
        };
        let wait = async {
            while !fits().await? {
                sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        let failed = |_| Err(LabError::new(format!("VM {} does not fit on node {node}", self.name), timed_out()));
        timeout(TIMEOUT, wait).await.unwrap_or_else(failed)
    }

    /// Sends a request, and waits for its effect. The response and the change may come in either order.
    async fn order(
        &mut self,
        what: &str,
        order: impl Future<Output = drover_client::Result<Changed>>,
        is: impl Fn(&Vm<'_>) -> bool,
    ) -> Result<Completed> {
        let failed = self.failed(what);
        let requested = now();
        let answered = async { order.await.map_err(failed) };
        let (_, (seen, vm)) = tokio::try_join!(answered, self.until(what, is))?;
        Ok(Completed { requested, seen, vm })
    }

    /// Waits until the VM is shown to meet a condition; returns the time and the VM.
    async fn until(&mut self, what: &str, is: impl Fn(&Vm<'_>) -> bool) -> Result<(u64, Vm<'static>)> {
        let failed_to_watch = self.failed("watch");
        let failed = |why: &str| LabError::new(format!("cannot {what} VM {}", self.name), why);
        let changes = &mut self.changes;
        let met = async {
            while let Some(vm) = changes.next().await {
                let (at, vm) = (now(), vm.map_err(&failed_to_watch)?);
                if is(&vm) {
                    return Ok((at, vm));
                }
                for why in [&vm.failed_reason, &vm.move_failed] {
                    if !why.is_empty() {
                        return Err(failed(why));
                    }
                }
            }
            Err(failed("the watch ended"))
        };
        timeout(TIMEOUT, met).await.unwrap_or_else(|_| Err(failed(&timed_out())))
    }
}

fn timed_out() -> String {
    format!("timed out after {} s", TIMEOUT.as_secs())
}
