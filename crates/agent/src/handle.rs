//! The API's access to a node: the view, the commands, and the node's own files.

use crate::{commands::Commands, context::Context, events::Events, records};
use drover_drivers::{console, hypervisor::Hypervisor};
use drover_model::{ClusterView, NameEntry, NodeName, OperationId, RecordKind, VmName, VmRecord, VmView, WallTime};
use drover_plan::liveness::Lives;
use drover_store::SessionState;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

/// Timeout for a look-up in the store, and for the view to catch up with it.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Access to a node's agent. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    context: Arc<Context>,
    lives: watch::Receiver<Lives>,
    logs: console::Watcher,
    commands: Commands,
    ready: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
}

impl NodeHandle {
    pub(crate) fn new(
        context: Arc<Context>,
        lives: watch::Receiver<Lives>,
        logs: console::Watcher,
        ready: watch::Receiver<bool>,
        stop: watch::Sender<bool>,
    ) -> NodeHandle {
        NodeHandle { commands: Commands::new(context.clone()), context, lives, logs, ready, stop }
    }

    /// This node's name.
    pub fn me(&self) -> &NodeName {
        self.context.me()
    }

    /// This node's wall clock.
    pub fn wall(&self) -> WallTime {
        self.context.wall()
    }

    /// The newest view of the cluster.
    pub fn view(&self) -> Arc<ClusterView> {
        self.context.views.latest()
    }

    /// Notifies of changes of the view.
    pub fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.context.views.subscribe()
    }

    /// When a node's daemon entered its state, as seen by this node; `None`: unknown.
    pub fn in_state_since(&self, node: &NodeName) -> Option<WallTime> {
        self.lives.borrow().get(node).map(|life| life.since_wall)
    }

    /// Whether the cluster's records have been read at least once.
    pub fn is_loaded(&self) -> bool {
        self.context.views.freshness().borrow().is_loaded()
    }

    /// Whether the view is current, as far as this node can know; otherwise why not.
    pub fn is_current(&self) -> Result<(), String> {
        if !self.is_loaded() {
            return Err("the cluster's records have not been read yet".to_owned());
        }
        match self.context.store.session().borrow().state {
            SessionState::Connected if self.context.views.freshness().borrow().is_current() => Ok(()),
            SessionState::Connected => {
                Err("this node is connected to the cluster's store again, and is reading what it missed".to_owned())
            }
            SessionState::Disconnected => Err("this node has no connection to the cluster's store".to_owned()),
            SessionState::Closed => Err("this node's daemon is stopping".to_owned()),
        }
    }

    /// Finds a VM by name or UUID. One that is not in the view yet (it was just defined at another node) is looked up
    /// in the store, so that a new VM is not reported as missing.
    pub async fn find_vm(&self, which: &str) -> Option<Arc<VmView>> {
        // A name in the form of a UUID must not hide a VM with that UUID which the view does not show yet.
        let meant = |vm: &&Arc<VmView>| Uuid::parse_str(which).ok().is_none_or(|uuid| vm.record.value.uuid == uuid);
        if let Some(vm) = self.view().vm(which).filter(meant) {
            return Some(vm.clone());
        }
        let uuid = timeout(CATCH_UP, self.look_up(which)).await.ok()??;
        let mut views = self.views();
        let there = timeout(CATCH_UP, views.wait_for(|view| view.vms.contains_key(&uuid))).await.ok()?.ok()?;
        there.vms.get(&uuid).cloned()
    }

    /// Looks a VM's UUID up in the store.
    async fn look_up(&self, which: &str) -> Option<Uuid> {
        let store = &*self.context.store;
        store.sync().await.ok()?;
        if let Ok(uuid) = Uuid::parse_str(which)
            && store.get(&VmRecord::path(&uuid)).await.ok()?.is_some()
        {
            return Some(uuid);
        }
        let name = VmName::new(which).ok()?;
        records::read::<NameEntry>(store, &name).await.ok()?.map(|found| found.value.0)
    }

    /// An id for the operation that a request begins.
    pub fn new_operation_id(&self) -> OperationId {
        self.context.new_operation_id()
    }

    /// This node's history.
    pub fn events(&self) -> &Arc<Events> {
        &self.context.options.events
    }

    /// The requests that change VMs and tokens.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// This node's hypervisor.
    pub fn hypervisor(&self) -> &Arc<dyn Hypervisor> {
        &self.context.hypervisor
    }

    /// Followers of this node's logs.
    pub fn logs(&self) -> &console::Watcher {
        &self.logs
    }

    /// The console log of a VM on this node.
    pub fn console_file(&self, uuid: &Uuid) -> PathBuf {
        self.context.console_file(uuid)
    }

    /// The daemon's log file.
    pub fn log_file(&self) -> &Path {
        &self.context.options.log_file
    }

    /// The token that authenticates this daemon to the others. Secret.
    pub fn node_token(&self) -> &str {
        &self.context.options.token
    }

    /// Waits until this node is a member of the cluster and has written a report. Fails when its agent has ended.
    pub async fn wait_ready(&mut self) -> Result<(), watch::error::RecvError> {
        self.ready.wait_for(|ready| *ready).await.map(|_| ())
    }

    /// Asks [`crate::Agent::run`] to stop. Guests keep running.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}
