//! libvirt behind [`Hypervisor`]: blocking calls on threads and connections of their own, each with a deadline.
//!
//! * `keeper`: keeps the connection that events come by, and that tells whether libvirtd is there.
//! * `pool`: the threads of the calls. A call that libvirtd does not answer at all ends with its thread's connection,
//!   by libvirt's keepalive (6 s); one that hangs in libvirtd holds its thread.
//! * `observe`: what libvirt says of a domain, in our words.
//! * `migrate`: guests that are sent to another node.
//! * `reach`: whether the other node's libvirtd answers at all, before that.
//! * `import`: domains that are not Drover's yet.
//! * `checks`, `error`: what is looked at before a change, and why a call failed.
//! * `ffi`: events, and all the unsafe code.
//!
//! A changing call takes its domain's *lane*, and keeps it until libvirt has answered, however long its caller waited.
//! A domain whose lane is taken is observed as unknown, so nobody acts on a domain that is about to change (`lanes`).
//!
//! # Guests that hang
//!
//! A QEMU that does not answer (stopped, or stuck in its storage) holds whoever talks to its monitor, without end. In
//! libvirt 9.0.0 each such call also holds one of libvirtd's 20 workers (`max_workers`), but not the 5 that serve only
//! what needs no monitor (`prio_workers`): looks, and the cutting of power, which kills the process before it waits for
//! anything. So there are five kinds of calls, and none waits for another's threads: looks; questions to a running
//! guest's monitor, of which one hangs for each guest at most; changes; cuts, which overtake everything; and checks of
//! definitions.
//!
//! # Checks of definitions
//!
//! `virConnectDomainXMLToNative` reads and checks a definition as a start does, and builds QEMU's command line. In
//! libvirt 9.0.0 (`qemuConnectDomainXMLToNative`) it makes no domain and starts no process but a QEMU that it asks for
//! its capabilities, once for each binary. No file of the definition need exist, no port is taken (5900 stands for
//! any), a TPM's state is not made. But each interface becomes one of type `ethernet`: a TAP device is made, and goes
//! when the call ends, and the interface's `<script>` would be run ([`drover_model::domain::without_scripts`]). So
//! bridges are not looked for. A SCSI device of the host must be there. It is not among the calls that the 5 workers
//! serve.

mod capabilities;
mod checks;
mod error;
mod ffi;
mod import;
mod keeper;
mod lanes;
mod migrate;
mod observe;
mod pool;
mod processes;
mod reach;

use super::{Allowed, Connection, Domain, Event, Host, Hypervisor, HypervisorError, Listing, Mark, Result, Sending};
use async_trait::async_trait;
use checks::{METADATA, check_mark, check_name, check_replaceable, undefine};
use drover_model::{Obs, Progress, RunState, domain::Candidate};
use error::{CallError, find};
use keeper::KEEPALIVE;
use lanes::{Kind, Lanes};
use pool::{Job, Pool};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::timeout,
};
use uuid::Uuid;
use virt::{connect::Connect, error::ErrorNumber};
use virt_sys as sys;

/// How many calls of each kind may be under way at once. Questions, changes and checks together are fewer than
/// libvirtd's workers.
const LOOKS: usize = 6;
const QUESTIONS: usize = 7;
const CHANGES: usize = 8;
const CUTS: usize = 4;
const CHECKS: usize = 2;

/// How to reach libvirtd, and how long calls may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `qemu:///system`.
    pub uri: String,
    /// For calls that only look.
    pub look: Duration,
    /// For calls that change something: starting a QEMU with much memory, or ending one that hangs in its storage,
    /// takes a while.
    pub change: Duration,
    /// For checks of definitions: the first one for a QEMU asks that for its capabilities.
    pub check: Duration,
}

impl Options {
    /// For that URI, with the usual deadlines.
    pub fn new(uri: impl Into<String>) -> Options {
        Options {
            uri: uri.into(),
            look: Duration::from_secs(5),
            change: Duration::from_secs(60),
            check: Duration::from_secs(10),
        }
    }
}

/// The real thing. Dropping it closes the connection; domains keep running.
pub struct LibvirtHypervisor {
    shared: Arc<Shared>,
    looks: Pool,
    questions: Pool,
    changes: Pool,
    cuts: Pool,
    checks: Pool,
}

pub(super) struct Shared {
    options: Options,
    /// The connection that events come by.
    open: Mutex<Option<Connect>>,
    connection: watch::Sender<Connection>,
    events: broadcast::Sender<Event>,
    /// Calls on domains that libvirt has not answered.
    lanes: Mutex<Lanes>,
    /// What is read once from a running domain's XML.
    known: Mutex<observe::Known>,
    /// How guests ended.
    ends: Mutex<observe::Ends>,
    processes: Mutex<processes::Processes>,
    /// Guests that were off for libvirt when they were looked at last, although their processes had not ended: why
    /// they are
    /// unknown.
    given_up: Mutex<BTreeMap<Uuid, String>>,
    closing: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LibvirtHypervisor {
    /// Starts connecting, and returns at once: libvirtd may come later.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub fn start(options: Options) -> std::io::Result<LibvirtHypervisor> {
        ffi::start_event_loop();
        let shared = Arc::new(Shared {
            options,
            open: Mutex::new(None),
            connection: watch::channel(Connection::Down("connecting".to_owned())).0,
            events: broadcast::channel(1024).0,
            lanes: Mutex::default(),
            known: Mutex::default(),
            ends: Mutex::default(),
            processes: Mutex::new(processes::Processes::find()),
            given_up: Mutex::default(),
            closing: watch::channel(false).0,
        });
        keeper::start(&shared)?;
        let pool = |name, threads| Pool::start(name, threads, &shared.options.uri, KEEPALIVE);
        let (looks, questions) = (pool("libvirt-look", LOOKS)?, pool("libvirt-ask", QUESTIONS)?);
        let (changes, cuts) = (pool("libvirt-change", CHANGES)?, pool("libvirt-cut", CUTS)?);
        let checks = pool("libvirt-check", CHECKS)?;
        Ok(LibvirtHypervisor { shared, looks, questions, changes, cuts, checks })
    }

    /// Makes a blocking call on the thread that `run` gives it, and waits for it until the deadline.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Duration,
        run: impl FnOnce(Job) -> std::io::Result<()>,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<T, CallError> + Send + 'static,
        finished: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<T> {
        // However the call ends: a panic in the binding, or a job that never gets a thread, must not leave the lane
        // taken.
        let finished = Finally { shared: self.shared.clone(), act: Some(finished) };
        let disconnected = |why: String| HypervisorError::Disconnected { what: what.to_owned(), why };
        if lock(&self.shared.open).is_none() {
            return Err(disconnected(match &*self.shared.connection.borrow() {
                Connection::Down(why) => why.clone(),
                Connection::Up => "it was just lost".to_owned(),
            }));
        }
        let (answer, wait) = oneshot::channel();
        let shared = self.shared.clone();
        // What is still queued when the caller gives up is withdrawn, and its lane is free at once: else a call that
        // never ran would hide its domain for as long as others hold all threads.
        let queue_entry = QueueEntry(Arc::new(Mutex::new(Some((answer, finished, act)))));
        let entry = queue_entry.0.clone();
        let queued = run(Box::new(move |connection| {
            // After a panic these are dropped from last to first: the lane is free when the caller hears of it.
            let Some((answer, finished, act)) = lock(&entry).take() else { return };
            let outcome = match connection {
                Ok(connection) => act(connection, &shared).map_err(|error| error.seen_on(connection)),
                Err(why) => Err(CallError::NoConnection(why)),
            };
            drop(finished);
            // It fails when the caller gave up.
            answer.send(outcome).ok();
        }));
        if let Err(error) = queued {
            return Err(disconnected(format!("there is no thread for it: {error}")));
        }
        let unknown = |why: String| HypervisorError::Unknown { what: what.to_owned(), why };
        match timeout(deadline, wait).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(CallError::Refused(why)))) => Err(HypervisorError::Refused { what: what.to_owned(), why }),
            Ok(Ok(Err(CallError::Bad(why)))) => Err(HypervisorError::BadDefinition { what: what.to_owned(), why }),
            Ok(Ok(Err(CallError::Broken(why)))) => Err(unknown(why)),
            Ok(Ok(Err(CallError::NoConnection(why)))) => Err(disconnected(why)),
            Ok(Ok(Err(CallError::Withdrawn))) => Err(HypervisorError::Withdrawn { what: what.to_owned() }),
            Ok(Err(_)) => Err(unknown("the call failed in the library".to_owned())),
            Err(_) => Err(unknown(format!("no answer in {} s", deadline.as_secs()))),
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        what: &'static str,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<T, CallError> + Send + 'static,
    ) -> Result<T> {
        self.call(what, self.shared.options.look, |job| self.looks.give(job), act, |_| ()).await
    }

    /// A call on a domain, in its lane for that kind.
    async fn in_lane<T: Send + 'static>(
        &self,
        (uuid, kind, what): (Uuid, Kind, &'static str),
        deadline: Duration,
        run: impl FnOnce(Job) -> std::io::Result<()>,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<T, CallError> + Send + 'static,
    ) -> Result<T> {
        if let Err(earlier) = lock(&self.shared.lanes).take(uuid, kind, what) {
            let why = format!("an earlier call to {earlier} has not finished");
            return Err(HypervisorError::Unknown { what: what.to_owned(), why });
        }
        let finished = move |shared: &Shared| {
            lock(&shared.lanes).leave(uuid, kind);
            if kind != Kind::Question {
                lock(&shared.known).forget(uuid);
                shared.tell(Event::Domain(uuid));
            }
        };
        self.call(what, deadline, run, act, finished).await
    }

    /// A call that changes a domain.
    async fn change(
        &self,
        uuid: Uuid,
        what: &'static str,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<(), CallError> + Send + 'static,
    ) -> Result<()> {
        let lane = (uuid, Kind::Change, what);
        self.in_lane(lane, self.shared.options.change, |job| self.changes.give(job), act).await
    }

    /// A call that makes the guest of a domain with that mark execute, or stop.
    async fn tell_guest(
        &self,
        uuid: Uuid,
        mark: Mark,
        what: &'static str,
        act: impl FnOnce(&virt::domain::Domain) -> std::result::Result<(), virt::error::Error> + Send + 'static,
    ) -> Result<()> {
        self.ask(uuid, what, move |connection, _| match find(connection, uuid)? {
            Some(domain) => {
                check_mark(&domain, mark)?;
                Ok(act(&domain)?)
            }
            None => Err(CallError::Refused("there is no such domain".to_owned())),
        })
        .await
    }

    /// A call that talks to a running guest's QEMU.
    async fn ask<T: Send + 'static>(
        &self,
        uuid: Uuid,
        what: &'static str,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<T, CallError> + Send + 'static,
    ) -> Result<T> {
        let lane = (uuid, Kind::Question, what);
        self.in_lane(lane, self.shared.options.look, |job| self.questions.give(job), act).await
    }
}

/// A queued call, withdrawn on drop unless it has begun.
struct QueueEntry<T>(Arc<Mutex<Option<T>>>);

impl<T> Drop for QueueEntry<T> {
    fn drop(&mut self) {
        let call = lock(&self.0).take();
        drop(call);
    }
}

/// Runs a function on drop.
struct Finally<F: FnOnce(&Shared)> {
    shared: Arc<Shared>,
    act: Option<F>,
}

impl<F: FnOnce(&Shared)> Drop for Finally<F> {
    fn drop(&mut self) {
        if let Some(act) = self.act.take() {
            act(&self.shared);
        }
    }
}

impl Drop for LibvirtHypervisor {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
        if let Some(mut connection) = lock(&self.shared.open).take() {
            // The connection goes away, whatever closing it says.
            connection.close().ok();
        }
    }
}

impl Shared {
    fn tell(&self, event: Event) {
        // Fails without receivers.
        self.events.send(event).ok();
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    async fn domains(&self) -> Result<Listing> {
        self.look("list the domains", observe::all).await
    }

    async fn inspect(&self, which: String) -> Result<Option<Candidate>> {
        self.look("inspect a domain", move |connection, _| import::inspect(connection, &which)).await
    }

    async fn import(&self, uuid: Uuid) -> Result<()> {
        self.change(uuid, "take over a domain", move |connection, _| import::mark(connection, uuid)).await
    }

    async fn mark(&self, uuid: Uuid, from: Mark, to: Mark) -> Result<()> {
        self.change(uuid, "mark a domain", move |connection, _| match find(connection, uuid)? {
            Some(domain) => observe::mark(&domain, from, to),
            None => Err(CallError::Refused("there is no such domain".to_owned())),
        })
        .await
    }

    async fn domain(&self, uuid: Uuid) -> Obs<Domain> {
        let before = lock(&self.shared.lanes).change(uuid);
        if let Some(what) = before.filter(|what| !lanes::shows(what)) {
            return Obs::Unknown(lanes::busy(what));
        }
        let sending = before == Some(migrate::WHAT);
        let look = move |connection: &Connect, shared: &Shared| observe::one(connection, shared, uuid, sending);
        let seen = self.look("look at a domain", look).await;
        match (seen, before, lock(&self.shared.lanes).change(uuid)) {
            // While it is sent or started it is here, or nobody knows.
            (Ok(Obs::Known(seen)), Some(_), after) if before == after && seen.run != RunState::Off => {
                Obs::Known(Domain { sending, ..seen })
            }
            (_, _, Some(what)) => Obs::Unknown(lanes::busy(what)),
            // The call ended between the two checks.
            (Ok(_), Some(what), None) => Obs::Unknown(format!("a call to {what} has just ended")),
            (Ok(seen), None, None) => seen,
            (Err(error), _, None) => Obs::Unknown(error.to_string()),
        }
    }

    async fn check(&self, xml: String) -> Result<()> {
        let check = move |connection: &Connect, _: &Shared| match connection.domain_xml_to_native("qemu-argv", &xml, 0)
        {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.code() {
                // Not the definition's fault.
                ErrorNumber::NoSupport | ErrorNumber::SystemError | ErrorNumber::NoMemory => {
                    CallError::Broken(error.message().to_owned())
                }
                _ => CallError::Bad(error.message().to_owned()),
            }),
        };
        let deadline = self.shared.options.check;
        self.call("check a definition", deadline, |job| self.checks.give(job), check, |_| ()).await
    }

    async fn create(&self, uuid: Uuid, xml: String, allowed: Allowed) -> Result<()> {
        self.change(uuid, lanes::START, move |connection, shared| {
            if !allowed() {
                return Err(CallError::Withdrawn);
            }
            check_replaceable(connection, shared, uuid)?;
            check_name(connection, uuid, &xml)?;
            let domain = virt::domain::Domain::define_xml(connection, &xml).map_err(CallError::bad)?;
            lock(&shared.ends).forget(uuid);
            if let Err(error) = domain.create() {
                if let Err(second) = undefine(&domain) {
                    tracing::debug!(vm = %uuid, error = %second.message(), "the definition of a failed start stays");
                }
                return Err(error.into());
            }
            Ok(())
        })
        .await
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<()> {
        self.ask(uuid, "press a domain's power button", move |connection, _| match find(connection, uuid)? {
            Some(domain) => Ok(domain.shutdown().map(|_| ())?),
            None => Ok(()),
        })
        .await
    }

    async fn pause(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        self.tell_guest(uuid, mark, "pause a guest", |domain| domain.suspend().map(|_| ())).await
    }

    async fn resume(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        self.tell_guest(uuid, mark, "resume a guest", |domain| domain.resume().map(|_| ())).await
    }

    async fn wake(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        self.tell_guest(uuid, mark, "wake a guest", |domain| domain.pm_wakeup(0).map(|_| ())).await
    }

    async fn destroy(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let cut = move |connection: &Connect, _: &Shared| match find(connection, uuid)? {
            Some(domain) if domain.is_active()? => {
                check_mark(&domain, mark)?;
                Ok(domain.destroy()?)
            }
            _ => Ok(()),
        };
        let lane = (uuid, Kind::Cut, "cut a domain's power");
        self.in_lane(lane, self.shared.options.change, |job| self.cuts.give(job), cut).await
    }

    async fn undefine(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        self.change(uuid, "forget a domain", move |connection, _| match find(connection, uuid)? {
            Some(domain) if domain.is_active()? => Err(CallError::Refused("the domain is running".to_owned())),
            Some(domain) => {
                check_mark(&domain, mark)?;
                Ok(undefine(&domain)?)
            }
            None => Ok(()),
        })
        .await
    }

    async fn erase(&self, uuid: Uuid, xml: String, nvram: bool) -> Result<()> {
        self.change(uuid, "delete what is kept of a domain", move |connection, shared| {
            check_replaceable(connection, shared, uuid)?;
            // libvirt deletes it with a definition only.
            let domain = virt::domain::Domain::define_xml(connection, &xml)?;
            let nvram = if nvram { sys::VIR_DOMAIN_UNDEFINE_NVRAM } else { sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM };
            Ok(domain.undefine_flags(METADATA | sys::VIR_DOMAIN_UNDEFINE_TPM | nvram)?)
        })
        .await
    }

    async fn migrate(&self, uuid: Uuid, how: Sending) -> Result<()> {
        // It takes long, so it has a thread and a connection of its own.
        let uri = self.shared.options.uri.clone();
        let run = move |job| pool::alone("libvirt-send", &uri, KEEPALIVE, job);
        let send = move |connection: &Connect, _: &Shared| migrate::send(connection, uuid, &how);
        self.in_lane((uuid, Kind::Change, migrate::WHAT), migrate::LONGEST, run, send).await
    }

    async fn migration(&self, uuid: Uuid) -> Result<Option<Progress>> {
        self.ask(uuid, "ask how far a migration is", move |connection, _| migrate::progress(connection, uuid)).await
    }

    async fn abort_migration(&self, uuid: Uuid) -> Result<()> {
        self.ask(uuid, "stop a migration", move |connection, _| migrate::abort(connection, uuid)).await
    }

    async fn post_copy(&self, uuid: Uuid) -> Result<()> {
        self.ask(uuid, "let a guest go on at its target", move |connection, _| migrate::post_copy(connection, uuid))
            .await
    }

    async fn host(&self) -> Result<Host> {
        self.look("ask for versions", |connection, _| observe::host(connection)).await
    }

    fn given_up(&self, uuid: Uuid) -> Option<String> {
        lock(&self.shared.given_up).get(&uuid).cloned()
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection.subscribe()
    }
}

#[cfg(test)]
mod tests;
