//! The Drover node daemon: reads its configuration, wires the parts together, and runs until it is stopped.
//!
//! SIGTERM and SIGINT shut it down gracefully; guests keep running, and the next daemon adopts them.

mod config;
mod files;
mod log;
mod primary;
mod selffence;

use clap::Parser;
use config::Config;
use drover_agent::{Agent, BmcOptions, Drivers, Events, HostFacts, NodeHandle, Options, PrimaryService};
use drover_api::{ApiState, FloatingApi};
use drover_drivers::{
    console::LogFolder,
    host,
    host_network::KernelHostNetwork,
    hypervisor::{Hypervisor, libvirt, probe},
    power::PowerControl,
    presence::TcpPresence,
    storage::files::DiskFolder,
};
use drover_model::{DomainType, NodeName, TokenName, TokenRole, WallTime};
use drover_store::{Store, embedded::EmbeddedStore, zookeeper};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::{
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use uuid::Uuid;

/// The Drover node daemon.
///
/// Runs this node's virtual machines and serves the HTTP API. Without a configuration file it is a complete cluster of
/// one node; with ZooKeeper servers in it, a member of a cluster.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// The configuration file [default: /etc/drover/drover.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This is the machine that had this node's name before, now at another address: not a clone of it
    #[arg(long)]
    same_machine: bool,
    /// Join the cluster again, from which this node was removed
    #[arg(long)]
    join_again: bool,
    /// Check the configuration file and exit
    #[arg(long)]
    check: bool,
    /// Make a new cluster key in the configured file (fence.key_file), if there is none, and exit
    #[arg(long)]
    new_cluster_key: bool,
}

/// An error that ends the daemon, for the administrator.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Config::load(arguments.config.as_deref()).map_err(Failure::from).and_then(|config| {
        if arguments.new_cluster_key {
            return files::new_cluster_key(&config.fence.key_file).map_err(Failure::from);
        }
        let bmc = config.fence.load(config.is_clustered())?;
        if arguments.check {
            println!("The configuration is valid.");
            return Ok(());
        }
        start(config, bmc, &arguments)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("droverd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config, bmc: BmcOptions, arguments: &Arguments) -> Result<(), Failure> {
    let own = files::OwnFiles::prepare(&config.paths)?;
    let log_file = config.paths.logs.join("droverd.log");
    log::start(&log_file).map_err(|e| format!("cannot write the log {}: {e}", log_file.display()))?;
    // Two threads are enough: everything that blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (role, network) = primary::RoleThread::prepare().map_err(|e| format!("cannot set up networking: {e}"))?;
    let outcome = runtime.block_on(run(config, bmc, own, log_file, role, network, arguments));
    if let Err(error) = &outcome {
        tracing::error!(%error, "exiting after a fatal error");
    }
    // A thread that is still blocked (in a call to a libvirtd that hangs) is abandoned.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// The configured node name, else the host name.
fn node_name(config: &Config) -> Result<NodeName, Failure> {
    if let Some(name) = &config.node.name {
        return Ok(name.clone());
    }
    let host = host::host_name()?;
    NodeName::new(&host).map_err(|e| format!("the host name is not a valid node name ({e}); set node.name").into())
}

fn host_facts() -> Result<HostFacts, String> {
    host::facts().map(|facts| HostFacts {
        kernel: facts.kernel,
        os: facts.os,
        arch: std::env::consts::ARCH.to_owned(),
        cpus: facts.cpus,
        cpu_model: facts.cpu_model,
        bridges: facts.bridges,
        memory_total: facts.memory_total,
        memory_available: facts.memory_available,
        load: facts.load,
    })
}

fn going_down() -> Pin<Box<dyn Future<Output = bool> + Send>> {
    Box::pin(host::is_going_down())
}

fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn run(
    config: Config,
    bmc: BmcOptions,
    own: files::OwnFiles,
    log_file: PathBuf,
    role: primary::RoleThread,
    network: KernelHostNetwork,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let name = node_name(&config)?;
    let open_files = raise_open_files();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut listeners = Vec::new();
    for address in config.listen() {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|e| format!("the API cannot listen on {address}: {e}; see api.listen"))?);
    }
    let store: Arc<dyn Store> = if config.is_clustered() {
        Arc::new(zookeeper::ZooKeeperStore::start(zookeeper::Options {
            servers: config.store.zookeeper.clone(),
            session_timeout: config.store.session_timeout,
            root: config.store.root.clone(),
        })?)
    } else {
        Arc::new(EmbeddedStore::open(&config.paths.state)?)
    };
    let hypervisor: Arc<dyn Hypervisor> =
        Arc::new(libvirt::LibvirtHypervisor::start(libvirt::Options::new(config.hypervisor.uri.clone()))?);
    let boot = host::boot_id()?;
    let (domain_type, known_domain_type) = watch::channel(None);
    tokio::spawn(probe_kvm(config.clone(), boot.clone(), domain_type));

    let agent = Agent::new(
        Options {
            name: name.clone(),
            role: config.node.role,
            api: config.peer_address().to_string(),
            machine: own.machine.clone(),
            boot,
            same_machine: arguments.same_machine,
            join_again: arguments.join_again,
            instance: Uuid::new_v4(),
            migration: config.migration_uri(),
            shared: config.paths.shared.iter().map(|p| p.display().to_string()).collect(),
            capacity: config.node.memory,
            host: Arc::new(host_facts),
            going_down: Arc::new(going_down),
            domain_type: known_domain_type,
            console_dir: own.consoles.clone(),
            log_file,
            primary: config.primary_options(),
            bmc,
            token: own.token.clone(),
            events: Events::open(&config.paths.state, wall_time()),
            wall: Arc::new(wall_time),
        },
        store,
        Drivers {
            hypervisor,
            disks: Arc::new(DiskFolder::new(config.paths.disks.clone())),
            consoles: Arc::new(LogFolder::new(own.consoles.clone())),
            network: Arc::new(network),
            power: Arc::new(PowerControl::default()),
            presence: Arc::new(TcpPresence),
            watchdog: config.watchdog.driver(config.is_clustered()),
        },
    );
    let handle = agent.handle();
    tracing::info!(node = %name, version = env!("CARGO_PKG_VERSION"), clustered = config.is_clustered(), "starting");
    let (stop_api, api_stopped) = watch::channel(false);
    let api_state = ApiState::new(handle.clone(), open_files);
    let mut api = tokio::spawn(drover_api::serve(listeners, api_state.clone(), api_stopped));
    let readiness = tokio::spawn(announce(handle.clone(), own.token.clone(), name.clone()));
    let mut services: Vec<Arc<dyn PrimaryService>> = Vec::new();
    let floating = config.floating_listen();
    if !floating.is_empty() {
        services.push(Arc::new(FloatingApi::new(floating, api_state)));
    }
    let (_role, role_ended) = role.run(agent.primary(services))?;
    if config.watchdog.device.is_some() && !config.is_clustered() {
        tracing::warn!("the watchdog stays off: this node is alone, so that nobody would count on it");
    }
    let (_fence, fence_ended) = selffence::run(agent.self_fence())?;
    let mut running = tokio::spawn(agent.run());

    let outcome = tokio::select! {
        ended = &mut running => ended?.map_err(Failure::from),
        ended = role_ended => match ended {
            // The agent closes the store as its last act, and the loop may be the faster of the two.
            Ok(()) => (&mut running).await?.map_err(Failure::from),
            Err(_) => Err("the primary's control loop failed".into()),
        },
        _ = fence_ended => Err("the loop that pets the watchdog failed".into()),
        // Returns at once: there is no API server left to wait for below.
        served = &mut api => return Err(format!("the API server ended unexpectedly: {served:?}").into()),
        _ = terminate.recv() => stop(&handle, &mut running).await,
        _ = interrupt.recv() => stop(&handle, &mut running).await,
    };
    readiness.abort();
    stop_api.send_replace(true);
    // With a timeout, because streams that follow a log do not end by themselves.
    if let Ok(served) = tokio::time::timeout(Duration::from_secs(2), api).await {
        served?;
    }
    outcome
}

async fn stop(
    handle: &NodeHandle,
    running: &mut tokio::task::JoinHandle<Result<(), drover_agent::JoinError>>,
) -> Result<(), Failure> {
    tracing::info!("stopping; guests keep running");
    // Fails without a service manager, which is fine.
    sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]).ok();
    handle.stop();
    // With a timeout: a store that does not answer must not keep the daemon from exiting.
    match tokio::time::timeout(Duration::from_secs(10), running).await {
        Ok(ended) => Ok(ended??),
        Err(_) => Ok(()),
    }
}

/// Raises the limit of open files as far as it may be, and returns it. The usual soft limit, 1,024, is low for programs
/// that use select(2), which this one does not; the hard limit is 524,288 under systemd.
fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            soft.unwrap_or(u64::MAX)
        }
    }
}

/// Determines the domain type (KVM or emulation). Guests are not started before it is known.
async fn probe_kvm(config: Config, boot: String, domain_type: watch::Sender<Option<DomainType>>) {
    let cache = config.paths.state.join("kvm-probe.json");
    let hypervisor = &config.hypervisor;
    let verdict = probe::decide(hypervisor.domain_type, hypervisor.probe_kernel.as_deref(), &cache, &boot).await;
    tracing::info!(domain_type = verdict.domain_type.word(), why = verdict.why, "domain type for guests");
    domain_type.send_replace(Some(verdict.domain_type));
    // Keeps the channel open: a closed one would mean that there will be no answer.
    domain_type.closed().await;
}

/// Installs this node's token in the cluster, then notifies the service manager that the daemon is ready.
async fn announce(mut handle: NodeHandle, token: String, name: NodeName) {
    if handle.wait_ready().await.is_err() {
        return;
    }
    let token_name = match TokenName::of_node(&name) {
        Ok(name) => name,
        Err(error) => return tracing::error!(%error, "cannot name this node's token"),
    };
    while let Err(error) = handle.commands().install_token(token_name.clone(), &token, TokenRole::Node).await {
        tracing::warn!(%error, "cannot install this node's token yet; retrying");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let known = |view: &Arc<drover_model::ClusterView>| view.tokens().contains_key(&token_name);
    if handle.views().wait_for(known).await.is_err() {
        return;
    }
    tracing::info!("ready");
    // Fails without a service manager, which is fine.
    sd_notify::notify(false, &[sd_notify::NotifyState::Ready]).ok();
}
