//! The thread of the primary's role. Its heartbeat shares neither a thread nor a queue with anything that may be slow:
//! only this loop and the kernel's network driver are on it.

use drover_agent::PrimaryLoop;
use drover_drivers::network::KernelNetwork;
use std::io;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

/// The thread's runtime, and what lives on it.
pub(crate) struct RoleThread {
    runtime: Runtime,
}

impl RoleThread {
    /// Makes the runtime, and connects with the kernel on it.
    pub(crate) fn prepare() -> Result<(RoleThread, KernelNetwork), Box<dyn std::error::Error + Send + Sync>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let network = runtime.block_on(KernelNetwork::connect())?;
        Ok((RoleThread { runtime }, network))
    }

    /// Runs the loop until the first of the returned values is dropped. The second one tells that it has ended: with
    /// the store, or because it failed; then the daemon cannot go on, for what this node has up as the primary is not
    /// looked after.
    pub(crate) fn run(self, role: PrimaryLoop) -> io::Result<(oneshot::Sender<()>, oneshot::Receiver<()>)> {
        let (running, ended) = oneshot::channel::<()>();
        let (alive, over) = oneshot::channel::<()>();
        std::thread::Builder::new().name("primary".to_owned()).spawn(move || {
            // Dropped when the thread ends, by a panic too.
            let _alive = alive;
            self.runtime.block_on(async {
                tokio::select! {
                    // It ends with the store, when the daemon does.
                    () = role.run() => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok((running, over))
    }
}
