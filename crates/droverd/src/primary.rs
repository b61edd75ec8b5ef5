//! The thread of the primary's control loop. The heartbeat of its lease must not share a thread or a queue with
//! anything slow: only this loop and the kernel's network driver run on it.

use drover_agent::PrimaryLoop;
use drover_drivers::host_network::KernelHostNetwork;
use std::io;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

/// The runtime of the thread.
pub(crate) struct RoleThread {
    runtime: Runtime,
}

impl RoleThread {
    /// Creates the runtime, and connects the network driver on it.
    pub(crate) fn prepare() -> Result<(RoleThread, KernelHostNetwork), Box<dyn std::error::Error + Send + Sync>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let network = runtime.block_on(KernelHostNetwork::connect())?;
        Ok((RoleThread { runtime }, network))
    }

    /// Runs the loop until the returned sender is dropped. The receiver completes when the loop has ended: with `()`
    /// because the store was closed, which the agent does at its end and has the reason for; with an error because the
    /// loop failed. Then the daemon must exit, since nothing manages what this node has as the primary.
    pub(crate) fn run(self, role: PrimaryLoop) -> io::Result<(oneshot::Sender<()>, oneshot::Receiver<()>)> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (closed, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("primary".to_owned()).spawn(move || {
            let result = self.runtime.block_on(async {
                tokio::select! {
                    result = role.run() => result,
                    _ = stopped => Ok(()),
                }
            });
            // A panic drops the sender too.
            match result {
                Ok(()) => drop(closed.send(())),
                Err(error) => tracing::error!(%error, "cannot watch the primary's record"),
            }
        })?;
        Ok((stop, ended))
    }
}
