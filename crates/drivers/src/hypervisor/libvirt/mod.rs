//! libvirt behind [`Hypervisor`]: one connection, kept; blocking calls on threads of their own, each with a deadline.
//!
//! * `keeper`: opens the connection, and again whenever it ends.
//! * `pool`: the threads. A hanging call holds one of them until libvirt's keepalive ends the connection (6 s).
//! * `observe`: what libvirt says of a domain, in our words.
//! * `migrate`: guests that are sent to another node.
//! * `ffi`: events, and all the unsafe code.
//!
//! A changing call takes its domain's *lane*, and keeps it until libvirt has answered, however long its caller waited.
//! A domain whose lane is taken is observed as unknown, so nobody acts on a domain that is about to change.

mod ffi;
mod keeper;
mod migrate;
mod observe;
mod pool;

use super::{Connection, Domain, Event, Host, Hypervisor, HypervisorError, Result, Sending};
use async_trait::async_trait;
use drover_model::{Obs, Progress, RunState};
use pool::Pool;
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
use virt::{
    connect::Connect,
    error::{ErrorDomain, ErrorNumber},
};
use virt_sys as sys;

/// How many calls may be under way at once, those that send guests included: they last. libvirtd itself serves 20 calls
/// at once by default (max_workers).
const THREADS: usize = 16;

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
}

impl Options {
    /// For that URI, with the usual deadlines.
    pub fn new(uri: impl Into<String>) -> Options {
        Options { uri: uri.into(), look: Duration::from_secs(5), change: Duration::from_secs(60) }
    }
}

/// The real thing. Dropping it closes the connection; domains keep running.
pub struct LibvirtHypervisor {
    shared: Arc<Shared>,
    pool: Pool,
}

pub(super) struct Shared {
    options: Options,
    /// The open connection.
    open: Mutex<Option<Connect>>,
    connection: watch::Sender<Connection>,
    events: broadcast::Sender<Event>,
    /// Changing calls that libvirt has not answered.
    lanes: Mutex<BTreeMap<Uuid, &'static str>>,
    /// What is read once from a running domain's XML.
    known: Mutex<observe::Known>,
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
            closing: watch::channel(false).0,
        });
        keeper::start(&shared)?;
        Ok(LibvirtHypervisor { shared, pool: Pool::start(THREADS)? })
    }

    /// Does a blocking call on the pool, and waits for it until the deadline.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Duration,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<T, Trouble> + Send + 'static,
        finished: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<T> {
        // However the call ends: a panic in the binding, or a job that never gets a thread, must not keep the domain's
        // lane.
        let finished = Finally { shared: self.shared.clone(), act: Some(finished) };
        let connection = lock(&self.shared.open).clone();
        let Some(mut connection) = connection else {
            let why = match &*self.shared.connection.borrow() {
                Connection::Down(why) => why.clone(),
                Connection::Up => "it was just lost".to_owned(),
            };
            return Err(HypervisorError::Disconnected { what: what.to_owned(), why });
        };
        let (answer, wait) = oneshot::channel();
        let shared = self.shared.clone();
        self.pool.run(Box::new(move || {
            // A caller that gave up before its turn came wants nothing any more, and nothing was done.
            let outcome = (!answer.is_closed()).then(|| act(&connection, &shared));
            // This only counts down the references to the connection.
            connection.close().ok();
            drop(finished);
            if let Some(outcome) = outcome {
                // It fails when the caller gave up.
                answer.send(outcome).ok();
            }
        }));
        let unknown = |why: String| HypervisorError::Unknown { what: what.to_owned(), why };
        match timeout(deadline, wait).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(Trouble::Said(why)))) => Err(HypervisorError::Refused { what: what.to_owned(), why }),
            Ok(Ok(Err(Trouble::Broken(why)))) => Err(unknown(why)),
            Ok(Err(_)) => Err(unknown("the call failed in the library".to_owned())),
            Err(_) => Err(unknown(format!("no answer in {} s", deadline.as_secs()))),
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        what: &'static str,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        self.call(what, self.shared.options.look, act, |_| ()).await
    }

    /// A changing call, in its domain's lane.
    async fn change(
        &self,
        uuid: Uuid,
        what: &'static str,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<(), Trouble> + Send + 'static,
    ) -> Result<()> {
        self.change_within(uuid, what, self.shared.options.change, act).await
    }

    /// The same, with a deadline of its own.
    async fn change_within(
        &self,
        uuid: Uuid,
        what: &'static str,
        deadline: Duration,
        act: impl FnOnce(&Connect, &Shared) -> std::result::Result<(), Trouble> + Send + 'static,
    ) -> Result<()> {
        {
            let mut lanes = lock(&self.shared.lanes);
            if let Some(earlier) = lanes.get(&uuid) {
                let why = format!("an earlier call to {earlier} has not finished");
                return Err(HypervisorError::Unknown { what: what.to_owned(), why });
            }
            lanes.insert(uuid, what);
        }
        let finished = move |shared: &Shared| {
            lock(&shared.lanes).remove(&uuid);
            lock(&shared.known).forget(uuid);
            shared.tell(Event::Domain(uuid));
        };
        self.call(what, deadline, act, finished).await
    }
}

/// Does something when it is dropped.
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
        // It fails when nobody listens.
        self.events.send(event).ok();
    }

    /// Why a domain cannot be looked at now.
    fn lane(&self, uuid: Uuid) -> Option<String> {
        lock(&self.lanes).get(&uuid).map(|what| format!("a call to {what} has not finished"))
    }
}

/// What went wrong in a call.
pub(super) enum Trouble {
    /// libvirtd answered, and said no.
    Said(String),
    /// There was no answer of libvirtd's.
    Broken(String),
}

impl From<virt::error::Error> for Trouble {
    fn from(error: virt::error::Error) -> Trouble {
        // Errors of the client's own transport mean that there was no answer; everything else was said by libvirtd.
        let transport = matches!(error.domain(), ErrorDomain::Rpc | ErrorDomain::Remote)
            || matches!(error.code(), ErrorNumber::InvalidConn | ErrorNumber::NoConnect);
        let text = error.message().to_owned();
        if transport { Trouble::Broken(text) } else { Trouble::Said(text) }
    }
}

/// The domain, or `None` when libvirtd says that there is none.
fn find(connection: &Connect, uuid: Uuid) -> std::result::Result<Option<virt::domain::Domain>, Trouble> {
    match virt::domain::Domain::lookup_by_uuid_string(connection, &uuid.to_string()) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    async fn domains(&self) -> Result<Vec<(Uuid, Obs<Domain>)>> {
        self.look("list the domains", observe::all).await
    }

    async fn domain(&self, uuid: Uuid) -> Obs<Domain> {
        let sending = migrate::is_sending(&self.shared, uuid);
        if !sending && let Some(why) = self.shared.lane(uuid) {
            return Obs::Unknown(why);
        }
        let seen =
            self.look("look at a domain", move |connection, shared| observe::one(connection, shared, uuid)).await;
        match (seen, self.shared.lane(uuid)) {
            // While it is sent it is here, or nobody knows.
            (Ok(Obs::Known(seen)), Some(_)) if sending && seen.run != RunState::Off => {
                Obs::Known(Domain { sending: true, ..seen })
            }
            (_, Some(why)) => Obs::Unknown(why),
            // The call ended between the two looks.
            (Ok(_), None) if sending => Obs::Unknown("its migration has just ended".to_owned()),
            (Ok(seen), None) => seen,
            (Err(error), None) => Obs::Unknown(error.to_string()),
        }
    }

    async fn create(&self, uuid: Uuid, xml: String) -> Result<()> {
        self.change(uuid, "start a domain", move |connection, shared| {
            if let Some(left_over) = find(connection, uuid)? {
                if left_over.is_active()? {
                    return Err(Trouble::Said("the domain is running already".to_owned()));
                }
                if let Obs::Unknown(why) = observe::one(connection, shared, uuid)? {
                    return Err(Trouble::Said(why));
                }
            }
            let domain = virt::domain::Domain::define_xml(connection, &xml)?;
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
        self.change(uuid, "press a domain's power button", move |connection, _| match find(connection, uuid)? {
            Some(domain) => Ok(domain.shutdown().map(|_| ())?),
            None => Ok(()),
        })
        .await
    }

    async fn destroy(&self, uuid: Uuid) -> Result<()> {
        self.change(uuid, "cut a domain's power", move |connection, _| match find(connection, uuid)? {
            Some(domain) if domain.is_active()? => Ok(domain.destroy()?),
            _ => Ok(()),
        })
        .await
    }

    async fn undefine(&self, uuid: Uuid) -> Result<()> {
        self.change(uuid, "forget a domain", move |connection, _| match find(connection, uuid)? {
            Some(domain) if domain.is_active()? => Err(Trouble::Said("the domain is running".to_owned())),
            Some(domain) => Ok(undefine(&domain)?),
            None => Ok(()),
        })
        .await
    }

    async fn migrate(&self, uuid: Uuid, how: Sending) -> Result<()> {
        self.change_within(uuid, migrate::WHAT, migrate::LONGEST, move |_, shared| {
            migrate::send(&shared.options.uri, uuid, &how)
        })
        .await
    }

    async fn migration(&self, uuid: Uuid) -> Result<Option<Progress>> {
        self.look("ask how far a migration is", move |connection, _| migrate::progress(connection, uuid)).await
    }

    async fn abort_migration(&self, uuid: Uuid) -> Result<()> {
        self.look("stop a migration", move |connection, _| migrate::abort(connection, uuid)).await
    }

    async fn post_copy(&self, uuid: Uuid) -> Result<()> {
        self.look("let a guest go on at its target", move |connection, _| migrate::post_copy(connection, uuid)).await
    }

    async fn host(&self) -> Result<Host> {
        self.look("ask for versions", |connection, _| observe::host(connection)).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection.subscribe()
    }
}

/// Forgets a definition with what libvirt keeps beside it. NVRAM stays: it is the guest's, not the definition's.
fn undefine(domain: &virt::domain::Domain) -> std::result::Result<(), virt::error::Error> {
    domain.undefine_flags(
        sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM,
    )
}
