//! Keeps a connection to libvirtd open: reopens it when it ends.

use super::{Shared, ffi, lock};
use crate::hypervisor::{Connection, Event};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use virt::connect::Connect;

/// Keepalive interval in seconds, and the number that may stay unanswered: a silent libvirtd is given up after 6 s.
pub(super) const KEEPALIVE: (i32, u32) = (2, 3);
/// The first pause between attempts; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Starts the thread, which ends when the hypervisor is dropped.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let weak = Arc::downgrade(shared);
    let (wake, woken) = mpsc::channel::<&'static str>();
    thread::Builder::new().name("libvirt-keeper".to_owned()).spawn(move || {
        let mut pause = PAUSE;
        let mut warned = String::new();
        // The thread holds the shared state only while it works, so that dropping the hypervisor ends it.
        while let Some(shared) = weak.upgrade() {
            if *shared.closing.borrow() {
                return;
            }
            match open(&shared, &wake) {
                Ok(()) => {
                    (pause, warned) = (PAUSE, String::new());
                    drop(shared);
                    let why = wait(&weak, &woken);
                    let Some(shared) = weak.upgrade() else { return };
                    lost(&shared, &why);
                }
                Err(why) => {
                    if warned != why {
                        tracing::warn!(uri = shared.options.uri, why, "cannot connect to libvirt yet");
                        warned.clone_from(&why);
                    }
                    shared.connection.send_if_modified(|now| {
                        let next = Connection::Down(why);
                        let changed = *now != next;
                        *now = next;
                        changed
                    });
                    drop(shared);
                    // There is no event for a libvirtd that comes up.
                    thread::park_timeout(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    })?;
    Ok(())
}

/// Opens the connection and registers the callbacks.
fn open(shared: &Arc<Shared>, wake: &mpsc::Sender<&'static str>) -> Result<(), String> {
    let text = |error: virt::error::Error| error.message().to_owned();
    let mut connection = Connect::open(Some(&shared.options.uri)).map_err(text)?;
    let registered = (|| {
        // Drivers without a daemon (test:///) know no keepalive and need none.
        connection.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1).ok();
        let weak = Arc::downgrade(shared);
        ffi::watch_domains(&connection, move |uuid, happened| {
            let Some(shared) = weak.upgrade() else { return };
            lock(&shared.ends).happened(uuid, happened);
            shared.tell(Event::Domain(uuid));
        })?;
        let wake = wake.clone();
        ffi::watch_connection(&connection, move |why| {
            // It fails when the keeper is gone.
            wake.send(why).ok();
        })
    })();
    if let Err(error) = registered {
        // The connection is of no use any more, whatever closing it says.
        connection.close().ok();
        return Err(text(error));
    }
    *lock(&shared.open) = Some(connection);
    lock(&shared.known).clear();
    tracing::info!(uri = shared.options.uri, "connected to libvirt");
    shared.connection.send_replace(Connection::Up);
    shared.tell(Event::Everything);
    Ok(())
}

/// Waits until the connection or the hypervisor is gone.
fn wait(weak: &std::sync::Weak<Shared>, woken: &mpsc::Receiver<&'static str>) -> String {
    loop {
        match woken.recv_timeout(PAUSE_MAX) {
            Ok(why) => return why.to_owned(),
            Err(mpsc::RecvTimeoutError::Disconnected) => return "its watcher is gone".to_owned(),
            Err(mpsc::RecvTimeoutError::Timeout) => match weak.upgrade() {
                // Dropping the hypervisor sends no event to this thread.
                Some(shared) if !*shared.closing.borrow() => {}
                _ => return "closing".to_owned(),
            },
        }
    }
}

fn lost(shared: &Shared, why: &str) {
    tracing::warn!(uri = shared.options.uri, why, "lost the connection to libvirt");
    let connection = lock(&shared.open).take();
    shared.connection.send_replace(Connection::Down(why.to_owned()));
    shared.tell(Event::Everything);
    if let Some(mut connection) = connection {
        // The connection is dead, whatever closing it says.
        connection.close().ok();
    }
}
