//! A VM that something is done with, as the node shows it that is asked.

pub(super) use crate::pings::now;
use drover_client::{Client, ClientError};
use drover_lab::{LabError, Result};
use drover_model::wire::{Changed, Vm};
use futures_util::{Stream, StreamExt};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::time::{sleep, timeout};

/// What is waited for comes sooner, or has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A VM.
pub(super) struct Subject<'a> {
    client: &'a Client,
    name: String,
    changes: Pin<Box<dyn Stream<Item = drover_client::Result<Vm<'static>>> + Send>>,
}

/// An order that came to be so.
pub(super) struct Done {
    /// Before the request was sent, in microseconds since 1970.
    pub(super) asked: u64,
    /// When it was seen.
    pub(super) seen: u64,
    /// The VM then.
    pub(super) vm: Vm<'static>,
}

/// Whether a VM runs, and nothing else is to happen.
fn runs(vm: &Vm<'_>) -> bool {
    vm.run_state == "running" && vm.is_settled()
}

impl<'a> Subject<'a> {
    /// One that there is.
    pub(super) async fn watch(client: &'a Client, name: &str) -> Result<Subject<'a>> {
        let changes = client.watch_vm(name).await.map_err(|e| LabError::new(format!("cannot watch VM {name}"), e))?;
        Ok(Subject { client, name: name.to_owned(), changes: Box::pin(changes) })
    }

    /// A new one.
    pub(super) async fn define(client: &'a Client, name: &str, xml: &str, node: &str) -> Result<Subject<'a>> {
        // Live or not at all: what is measured of its moves is not to be a shutdown and a start.
        let more = [("node", node.to_owned()), ("migration_method", "live".to_owned())];
        let defined = client.define_vm_with(xml, &more).await;
        defined.map_err(|e| LabError::new(format!("cannot define VM {name}"), e))?;
        Subject::watch(client, name).await
    }

    fn failed(&self, what: &str) -> impl Fn(ClientError) -> LabError + use<> {
        let what = format!("cannot {what} VM {}", self.name);
        move |e| LabError::new(&*what, e)
    }

    /// Starts it, under a later grant than `last`.
    pub(super) async fn start(&mut self, last: u64) -> Result<Done> {
        let (client, name) = (self.client, self.name.clone());
        let order = client.set_vm_state(&name, "start", &[]);
        self.order("start", order, |vm| vm.claim.epoch > last && runs(vm)).await
    }

    /// Cuts its power.
    pub(super) async fn stop(&mut self) -> Result<Done> {
        let (client, name) = (self.client, self.name.clone());
        let order = client.set_vm_state(&name, "stop", &[]);
        self.order("stop", order, |vm| vm.state == "stop" && vm.is_settled()).await
    }

    /// Sends it to another node, for a while.
    pub(super) async fn migrate(&mut self, to: &str) -> Result<Done> {
        let (client, name, order) = (self.client, self.name.clone(), [("node", to.to_owned())]);
        let order = client.relocate_vm(&name, "migrate", &order);
        self.order("migrate", order, |vm| vm.node == to && vm.claim.node == to && runs(vm)).await
    }

    /// Brings it home, which is this node.
    pub(super) async fn unmigrate(&mut self, home: &str) -> Result<Done> {
        let (client, name) = (self.client, self.name.clone());
        let order = client.relocate_vm(&name, "unmigrate", &[]);
        self.order("unmigrate", order, |vm| vm.node == home && vm.claim.node == home && runs(vm)).await
    }

    /// Deletes it, which is off.
    pub(super) async fn delete(self) -> Result<()> {
        self.client.delete_vm(&self.name, false).await.map(|_| ()).map_err(self.failed("delete"))
    }

    /// Waits until its console says that its kernel is up and its program runs.
    pub(super) async fn booted(&self) -> Result<()> {
        let seen = async {
            // Its log may not be there yet.
            while !self.client.console(&self.name, 1000).await.is_ok_and(|log| log.data.contains("BOOTED ")) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let late = |_| LabError::new(format!("VM {} does not boot", self.name), not_in_time());
        timeout(PATIENCE, seen).await.map_err(late)
    }

    /// Waits until another node can take it.
    pub(super) async fn fits(&self, node: &str) -> Result<()> {
        let fits = async || {
            let explained = self.client.explain_vm(&self.name).await.map_err(self.failed("look for a node for"))?;
            Ok::<bool, LabError>(explained.nodes.iter().any(|judged| judged.node == node && judged.fits))
        };
        let seen = async {
            while !fits().await? {
                sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        let late = |_| Err(LabError::new(format!("node {node} cannot take VM {}", self.name), not_in_time()));
        timeout(PATIENCE, seen).await.unwrap_or_else(late)
    }

    /// Orders something, and waits until it is so. The answer to the request and the news may come in either order.
    async fn order(
        &mut self,
        what: &str,
        order: impl Future<Output = drover_client::Result<Changed>>,
        is: impl Fn(&Vm<'_>) -> bool,
    ) -> Result<Done> {
        let failed = self.failed(what);
        let asked = now();
        let answered = async { order.await.map_err(failed) };
        let (_, (seen, vm)) = tokio::try_join!(answered, self.until(what, is))?;
        Ok(Done { asked, seen, vm })
    }

    /// Waits until it is so; returns when that was seen.
    async fn until(&mut self, what: &str, is: impl Fn(&Vm<'_>) -> bool) -> Result<(u64, Vm<'static>)> {
        let failed_to_watch = self.failed("watch");
        let failed = |why: &str| LabError::new(format!("cannot {what} VM {}", self.name), why);
        let changes = &mut self.changes;
        let seen = async {
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
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| Err(failed(&not_in_time())))
    }
}

fn not_in_time() -> String {
    format!("not in {} s", PATIENCE.as_secs())
}
