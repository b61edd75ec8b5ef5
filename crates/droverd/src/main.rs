//! The Drover node daemon: reads its configuration, puts the parts together, and runs until told to stop.
//!
//! SIGTERM and SIGINT end it in an orderly way; guests keep running, and the next daemon takes them over.

mod config;
mod files;
mod log;
mod primary;

use clap::Parser;
use config::Config;
use drover_agent::{Agent, Drivers, HostFacts, NodeHandle, Options, PrimaryService};
use drover_api::{ApiState, FloatingApi};
use drover_drivers::{
    host,
    hypervisor::{Hypervisor, libvirt, probe},
    network::KernelNetwork,
    storage::files::DiskFolder,
};
use drover_model::{DomainType, NodeName, TokenName, TokenRole, WallTime};
use drover_store::{Store, embedded::EmbeddedStore, zookeeper};
use std::{
    path::PathBuf,
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
/// Runs this node's virtual machines, and answers the HTTP API. With no configuration file it is a complete cluster of
/// one node; with ZooKeeper's addresses in it, a member of a cluster.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// The configuration file [default: /etc/drover/drover.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration file
    #[arg(long)]
    check: bool,
}

/// Whatever keeps the daemon from running, for people.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Config::load(arguments.config.as_deref()).map_err(Failure::from).and_then(|config| {
        if arguments.check {
            println!("The configuration is good.");
            return Ok(());
        }
        start(config)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("droverd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> Result<(), Failure> {
    let own = files::Own::prepare(&config.paths)?;
    let log_file = config.paths.logs.join("droverd.log");
    log::start(&log_file).map_err(|e| format!("cannot write the log {}: {e}", log_file.display()))?;
    // Two threads do: everything that blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (role, network) = primary::RoleThread::prepare().map_err(|e| format!("the network: {e}"))?;
    let outcome = runtime.block_on(run(config, own, log_file, role, network));
    if let Err(error) = &outcome {
        tracing::error!(%error, "the daemon cannot go on");
    }
    // What still blocks (a call to a hanging libvirtd) is left behind.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Takes the name that is configured, or the host's.
fn node_name(config: &Config) -> Result<NodeName, Failure> {
    if let Some(name) = &config.node.name {
        return Ok(name.clone());
    }
    let host = host::host_name()?;
    NodeName::new(&host).map_err(|e| format!("the host's name cannot be the node's ({e}); set node.name").into())
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

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn run(
    config: Config,
    own: files::Own,
    log_file: PathBuf,
    role: primary::RoleThread,
    network: KernelNetwork,
) -> Result<(), Failure> {
    let name = node_name(&config)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut listeners = Vec::new();
    for address in config.listen() {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|e| format!("the API cannot listen on {address}: {e} (set api.listen)"))?);
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
            instance: Uuid::new_v4(),
            migration: config.migration_uri(),
            shared: config.paths.shared.iter().map(|p| p.display().to_string()).collect(),
            capacity: config.node.memory,
            host: Arc::new(host_facts),
            domain_type: known_domain_type,
            console_dir: own.consoles.clone(),
            log_file,
            primary: config.primary_options(),
            token: own.token.clone(),
            wall: Arc::new(wall),
        },
        store,
        Drivers {
            hypervisor,
            disks: Arc::new(DiskFolder::new(config.paths.disks.clone())),
            network: Arc::new(network),
        },
    );
    let handle = agent.handle();
    tracing::info!(node = %name, version = env!("CARGO_PKG_VERSION"), clustered = config.is_clustered(), "starting");
    let (stop_api, api_stops) = watch::channel(false);
    let mut api = tokio::spawn(drover_api::serve(listeners, ApiState { node: handle.clone() }, api_stops));
    let readiness = tokio::spawn(announce(handle.clone(), own.token.clone(), name.clone()));
    let mut services: Vec<Arc<dyn PrimaryService>> = Vec::new();
    let floating = config.floating_listen();
    if !floating.is_empty() {
        services.push(Arc::new(FloatingApi::new(floating, ApiState { node: handle.clone() })));
    }
    let (_role, role_over) = role.run(agent.primary(services))?;
    let mut running = tokio::spawn(agent.run());

    let outcome = tokio::select! {
        ended = &mut running => ended?.map_err(Failure::from),
        _ = role_over => Err("the loop of the primary's role failed".into()),
        // Nothing is left of it to be waited for below.
        served = &mut api => return Err(format!("the API ended by itself: {served:?}").into()),
        _ = terminate.recv() => stop(&handle, &mut running).await,
        _ = interrupt.recv() => stop(&handle, &mut running).await,
    };
    readiness.abort();
    stop_api.send_replace(true);
    // Streams that follow a log never end by themselves.
    if let Ok(served) = tokio::time::timeout(Duration::from_secs(2), api).await {
        served??;
    }
    outcome
}

async fn stop(
    handle: &NodeHandle,
    running: &mut tokio::task::JoinHandle<Result<(), drover_agent::JoinError>>,
) -> Result<(), Failure> {
    tracing::info!("stopping; guests keep running");
    // It fails without a service manager, which is fine.
    sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]).ok();
    handle.stop();
    // A store that does not answer must not keep the daemon from ending.
    match tokio::time::timeout(Duration::from_secs(10), running).await {
        Ok(ended) => Ok(ended??),
        Err(_) => Ok(()),
    }
}

/// Finds out how guests are executed here. Guests are started from then on.
async fn probe_kvm(config: Config, boot: String, domain_type: watch::Sender<Option<DomainType>>) {
    let kept = config.paths.state.join("kvm-probe.json");
    let hypervisor = &config.hypervisor;
    let verdict = probe::decide(hypervisor.domain_type, hypervisor.probe_kernel.as_deref(), &kept, &boot).await;
    tracing::info!(domain_type = verdict.domain_type.word(), why = verdict.why, "how guests are executed");
    domain_type.send_replace(Some(verdict.domain_type));
    // Kept open: a closed channel would look like an answer that never comes.
    domain_type.closed().await;
}

/// Makes this node's token known, and tells the service manager when there is something to use.
async fn announce(mut handle: NodeHandle, token: String, name: NodeName) {
    if handle.wait_ready().await.is_err() {
        return;
    }
    let token_name = match TokenName::new(&format!("node-{name}")) {
        Ok(name) => name,
        Err(error) => return tracing::error!(%error, "this node's token has no name"),
    };
    while let Err(error) = handle.commands().install_token(token_name.clone(), &token, TokenRole::Node).await {
        tracing::warn!(%error, "this node's token is not known to the cluster yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let known = |view: &Arc<drover_model::ClusterView>| view.tokens().contains_key(&token_name);
    if handle.views().wait_for(known).await.is_err() {
        return;
    }
    tracing::info!("ready");
    // It fails without a service manager, which is fine.
    sd_notify::notify(false, &[sd_notify::NotifyState::Ready]).ok();
}
