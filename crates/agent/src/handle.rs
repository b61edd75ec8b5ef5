//! What the API sees of a node: the view, the commands, and the node's own files.

use crate::{commands::Commands, context::Context, records};
use drover_drivers::hypervisor::Hypervisor;
use drover_model::{ClusterView, NameEntry, NodeName, RecordKind, VmName, VmRecord, VmView, WallTime};
use drover_store::SessionState;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

/// How long a look at the store, or the view's catching up with it, is waited for before something counts as not there.
const CATCH_UP: Duration = Duration::from_secs(2);

/// A node's agent, from outside. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    context: Arc<Context>,
    commands: Commands,
    ready: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
}

impl NodeHandle {
    pub(crate) fn new(context: Arc<Context>, ready: watch::Receiver<bool>, stop: watch::Sender<bool>) -> NodeHandle {
        NodeHandle { commands: Commands::new(context.clone()), context, ready, stop }
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

    /// To wait for changes of the view.
    pub fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.context.views.subscribe()
    }

    /// Since when a node's daemon has been in its state, as far as this node has seen; `None`: nothing is known of it.
    pub fn in_state_since(&self, node: &NodeName) -> Option<WallTime> {
        self.context.lives.borrow().get(node).map(|life| life.since_wall)
    }

    /// Whether the cluster's records have been read at least once.
    pub fn is_loaded(&self) -> bool {
        self.context.views.freshness().borrow().is_loaded()
    }

    /// Whether the view is the present state, as far as this side can know; otherwise why it is not.
    pub fn is_current(&self) -> Result<(), String> {
        if !self.is_loaded() {
            return Err("the cluster's records have not been read yet".to_owned());
        }
        match self.context.store.session().borrow().state {
            SessionState::Connected => Ok(()),
            SessionState::Disconnected => Err("this node has no connection to the cluster's store".to_owned()),
            SessionState::Closed => Err("this node's daemon is stopping".to_owned()),
        }
    }

    /// A VM by its name or UUID. One that the view does not have yet (it was defined a moment ago, at another node) is
    /// looked up in the store, so that nobody is told that his new VM does not exist.
    pub async fn find_vm(&self, which: &str) -> Option<Arc<VmView>> {
        if let Some(vm) = self.view().vm(which) {
            return Some(vm.clone());
        }
        let uuid = timeout(CATCH_UP, self.look_up(which)).await.ok()??;
        let mut views = self.views();
        let there = timeout(CATCH_UP, views.wait_for(|view| view.vms.contains_key(&uuid))).await.ok()?.ok()?;
        there.vms.get(&uuid).cloned()
    }

    /// The UUID of a VM that is in the store now.
    async fn look_up(&self, which: &str) -> Option<Uuid> {
        let store = &*self.context.store;
        store.sync().await.ok()?;
        match (Uuid::parse_str(which), VmName::new(which)) {
            (Ok(uuid), _) => store.get(&VmRecord::path(&uuid)).await.ok()?.map(|_| uuid),
            (Err(_), Ok(name)) => records::read::<NameEntry>(store, &name).await.ok()?.map(|found| found.value.0),
            (Err(_), Err(_)) => None,
        }
    }

    /// The requests that change VMs and tokens.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// This node's hypervisor.
    pub fn hypervisor(&self) -> &Arc<dyn Hypervisor> {
        &self.context.hypervisor
    }

    /// Where the console of a VM is logged on this node.
    pub fn console_file(&self, uuid: &Uuid) -> PathBuf {
        self.context.console_file(uuid)
    }

    /// The daemon's own log.
    pub fn log_file(&self) -> &Path {
        &self.context.options.log_file
    }

    /// The token by which this daemon is known to the others. Never to be shown.
    pub fn node_token(&self) -> &str {
        &self.context.options.token
    }

    /// Waits until this node is a member of the cluster and has reported. Fails when its agent has ended.
    pub async fn wait_ready(&mut self) -> Result<(), watch::error::RecvError> {
        self.ready.wait_for(|ready| *ready).await.map(|_| ())
    }

    /// Asks [`crate::Agent::run`] to end. Guests keep running.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}
