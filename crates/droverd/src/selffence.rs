//! The thread of the self-fence: nothing that is slow may delay the petting of the watchdog.

use drover_agent::SelfFence;
use std::io;
use tokio::{runtime::Builder, sync::oneshot};

/// Runs the loop until the returned sender is dropped. The receiver completes with an error when the loop has failed:
/// then the daemon must exit, before the watchdog runs out, so that its service manager starts another one.
pub(crate) fn run(fence: SelfFence) -> io::Result<(oneshot::Sender<()>, oneshot::Receiver<()>)> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (closed, ended) = oneshot::channel::<()>();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("selffence".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = fence.run() => {}
                _ = stopped => {}
            }
        });
        // A panic drops the sender without this.
        closed.send(()).ok();
    })?;
    Ok((stop, ended))
}
