//! A helper process: the agents of many nodes, or of one with its API, assembled as in `droverd`, with fake
//! hypervisors.

use super::words::{Answer, Crew, Question, Ready, Usage};
use crate::{definitions, pings::now};
use drover_agent::{Agent, BmcOptions, ClusterKey, Drivers, HostFacts, NodeHandle, Options, PrimaryOptions};
use drover_api::ApiState;
use drover_drivers::{
    console::FakeLogs,
    host_network::fake::FakeHostNetwork,
    hypervisor::fake::{FakeMachine, FakeNetwork},
    power::fake::{self, FakeBmc, FakePower},
    presence::fake::FakePresence,
    storage::fake::FakeDisks,
};
use drover_lab::{LabError, Result};
use drover_model::{
    Bmc, Bytes, ClusterView, DomainType, NodeName, NodeState, PowerState, RecordPath, Role, RunState, TokenName,
    TokenRole, WallTime,
};
use drover_store::zookeeper::{self, ZooKeeperStore};
use futures_util::future::try_join_all;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use uuid::Uuid;

/// The default of `droverd`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs agents, and answers questions until standard input ends.
pub(crate) fn run(crew: &str) -> Result<()> {
    let begin = Instant::now();
    let crew: Crew = serde_json::from_str(crew).map_err(|e| LabError::new("what a helper is told", e))?;
    // The same number of threads as in `droverd`.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| LabError::new("cannot run anything asynchronous", e))?;
    let outcome = runtime.block_on(serve(&crew, begin));
    // Work in progress is dropped, as in a crash.
    runtime.shutdown_background();
    outcome
}

/// What all nodes of a helper share.
#[derive(Default)]
struct Surroundings {
    network: FakeNetwork,
    power: FakePower,
    presence: FakePresence,
}

/// Address of a node's API, for the other agents.
fn api_of(node: &NodeName) -> String {
    format!("{node}:7370")
}

async fn serve(crew: &Crew, begin: Instant) -> Result<()> {
    let world = Surroundings::default();
    for name in &crew.bmcs {
        world.power.put(name.as_str(), FakeBmc { machine: name.to_string(), ..FakeBmc::default() });
    }
    let mut nodes = (0_u64..)
        .zip(&crew.names)
        .map(|(n, name)| start(crew, n, name, &world))
        .collect::<Result<Vec<NodeHandle>>>()?;
    let (_serves, api) = match (&crew.token, nodes.first()) {
        (Some(token), Some(node)) => answer_requests(node.clone(), token).await?,
        _ => (watch::channel(false).0, None),
    };
    for node in &mut nodes {
        node.wait_ready().await.map_err(|e| LabError::new(format!("node {}", node.me()), e))?;
    }
    let loaded = begin.elapsed();
    if let (Some(token), Some(node)) = (&crew.token, nodes.first()) {
        let name = TokenName::new("bench").map_err(|e| LabError::new("a token's name", e))?;
        let installed = node.commands().install_token(name, token, TokenRole::Admin).await;
        installed.map_err(|e| LabError::new("cannot make a token known", e))?;
    }
    say(&Ready { api, loaded, usage: usage()? })?;
    let mut questions = questions();
    while let Some(line) = questions.recv().await {
        let question =
            serde_json::from_str::<Question>(&line).map_err(|e| LabError::new(format!("the question {line:?}"), e))?;
        say(&answer(question, &nodes, &world).await?)?;
    }
    for node in &nodes {
        node.stop();
    }
    Ok(())
}

fn say<T: Serialize>(what: &T) -> Result<()> {
    let text = serde_json::to_string(what).map_err(|e| LabError::new("an answer", e))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| LabError::new("cannot answer", e))
}

/// Lines of standard input, read by a thread.
fn questions() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::io::Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Assembles a node.
fn start(crew: &Crew, n: u64, name: &NodeName, world: &Surroundings) -> Result<NodeHandle> {
    let failed = |e: String| LabError::new(format!("cannot start node {name}"), e);
    let store = ZooKeeperStore::start(zookeeper::Options {
        servers: crew.servers.clone(),
        session_timeout: SESSION_TIMEOUT,
        root: RecordPath::new("/drover").map_err(|e| failed(e.to_string()))?,
    });
    let store = Arc::new(store.map_err(|e| failed(e.to_string()))?);
    let uri = format!("fake://{name}");
    let machine = world.network.plug(&uri, &FakeMachine::new(n));
    let memory = Bytes::mib(crew.memory);
    let facts = HostFacts { cpus: 128, memory_total: memory, memory_available: memory, ..HostFacts::default() };
    let (known, domain_type) = watch::channel(Some(DomainType::Kvm));
    tokio::spawn(async move { known.closed().await });
    let coordinates = usize::try_from(n).is_ok_and(|n| n < crew.coordinators);
    let options = Options {
        name: name.clone(),
        role: if coordinates { Role::Coordinator } else { Role::Hypervisor },
        api: api_of(name),
        machine: name.to_string(),
        boot: "1".to_owned(),
        same_machine: false,
        join_again: false,
        instance: Uuid::new_v4(),
        migration: uri,
        // All nodes have everything that the definitions need.
        shared: vec!["/srv/shared".to_owned()],
        capacity: Some(memory),
        host: Arc::new(move || Ok(HostFacts { bridges: bridges(), ..facts.clone() })),
        going_down: Arc::new(|| Box::pin(std::future::ready(false))),
        domain_type,
        console_dir: "/nowhere/consoles".into(),
        log_file: "/nowhere/log".into(),
        primary: PrimaryOptions { term: Some(SESSION_TIMEOUT), ..PrimaryOptions::default() },
        bmc: BmcOptions {
            bmc: crew.bmcs.contains(name).then(|| Bmc { access: fake::at(name.as_str()), password: None }),
            key: ClusterKey::parse(&"5e".repeat(32)).ok(),
        },
        token: format!("drover_of_{name}"),
        events: drover_agent::Events::in_memory(),
        wall: Arc::new(|| WallTime(now() / 1000)),
    };
    let drivers = Drivers {
        hypervisor: Arc::new(machine.connect()),
        disks: Arc::new(FakeDisks::default()),
        consoles: Arc::new(FakeLogs::default()),
        network: Arc::new(FakeHostNetwork::new(n)),
        power: Arc::new(world.power.clone()),
        presence: Arc::new(world.presence.clone()),
        watchdog: None,
    };
    let agent = Agent::new(options, store, drivers);
    let handle = agent.handle();
    tokio::spawn(agent.primary(Vec::new()).run());
    let name = name.clone();
    tokio::spawn(async move {
        if let Err(error) = agent.run().await {
            eprintln!("node {name} ends: {error}");
        }
    });
    Ok(handle)
}

fn bridges() -> Vec<String> {
    definitions::BRIDGES.map(str::to_owned).to_vec()
}

/// Serves the API of a node until the first returned value is dropped.
async fn answer_requests(node: NodeHandle, _token: &str) -> Result<(watch::Sender<bool>, Option<String>)> {
    let failed = |e| LabError::new("cannot serve the API", e);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stop, stops) = watch::channel(false);
    tokio::spawn(drover_api::serve(vec![listener], ApiState::new(node, 1024), stops));
    Ok((stop, Some(address.to_string())))
}

async fn answer(question: Question, nodes: &[NodeHandle], world: &Surroundings) -> Result<Answer> {
    let one = || nodes.first().ok_or_else(|| LabError::new("a helper without nodes", "there is none"));
    let runs = |view: &ClusterView, uuid: &Uuid| {
        let status = view.vms.get(uuid).and_then(|vm| vm.status.as_ref());
        status.is_some_and(|status| status.run == Some(RunState::Running))
    };
    let times = match question {
        Question::Usage => return usage().map(Answer::Usage),
        Question::Seen(uuid, description) => {
            let shows =
                |view: &ClusterView| view.vms.get(&uuid).is_some_and(|vm| vm.record.value.description == description);
            try_join_all(nodes.iter().map(|node| seen(node, shows))).await?
        }
        Question::Running(mut uuids) => {
            let all_run = |view: &ClusterView| {
                uuids.retain(|uuid| !runs(view, uuid));
                uuids.is_empty()
            };
            vec![seen(one()?, all_run).await?]
        }
        Question::Flushed(name) => {
            let is = |view: &ClusterView| {
                view.nodes.get(&name).is_some_and(|node| node.record.value.domain_state == NodeState::Flushed)
            };
            vec![seen(one()?, is).await?]
        }
        Question::Cut(names) => {
            for name in &names {
                world.power.set_machine(name.as_str(), PowerState::Off);
                world.presence.set_silent(&api_of(name), true);
            }
            vec![now()]
        }
        Question::Recovered(mut uuids, gone) => {
            let all = uuids.len();
            let mut first = None;
            let recovered = |view: &ClusterView| {
                let is_gone =
                    |uuid: &Uuid| view.vms.get(uuid).and_then(|vm| vm.holder()).is_none_or(|on| gone.contains(on));
                uuids.retain(|uuid| is_gone(uuid) || !runs(view, uuid));
                if uuids.len() < all {
                    first.get_or_insert_with(now);
                }
                uuids.is_empty()
            };
            let last = seen(one()?, recovered).await?;
            vec![first.unwrap_or(last), last]
        }
    };
    Ok(Answer::At(times))
}

/// Waits until a node's view fulfils a condition. Returns when it did.
async fn seen(node: &NodeHandle, mut shows: impl FnMut(&ClusterView) -> bool) -> Result<u64> {
    let mut views = node.views();
    let there = views.wait_for(|view| shows(view)).await.map(|_| now());
    there.map_err(|e| LabError::new(format!("node {}", node.me()), e))
}

/// Resource usage of this process.
fn usage() -> Result<Usage> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let processor =
        Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default());
    let own = i32::try_from(std::process::id()).map_err(|e| LabError::new("this process's number", e))?;
    Ok(Usage { processor, resident: crate::daemon::memory_of(own)?.resident })
}
