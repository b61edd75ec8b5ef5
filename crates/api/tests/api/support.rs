//! A whole node with an in-memory store and a fake hypervisor, tested through its API.

use axum::{
    Router,
    body::{Body, BodyDataStream, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use drover_agent::{
    Agent, BmcOptions, ClusterKey, Drivers, HostFacts, JoinError, NodeHandle, Options, PrimaryLoop, PrimaryOptions,
    records,
};
use drover_api::{ApiState, router};
use drover_drivers::{
    console::FakeLogs,
    host_network::fake::FakeHostNetwork,
    hypervisor::fake::{FakeMachine, FakeNetwork},
    power::fake::{FakePower, at},
    presence::{Presence, fake::FakePresence},
    storage::fake::FakeDisks,
};
use drover_model::{
    Bmc, Bytes, ClusterView, DaemonState, DomainType, NodeName, NodeRecord, Role, Secret, TokenName, TokenRole,
    WallTime,
};
use drover_store::memory::{MemoryCluster, MemoryStore};
use futures_util::StreamExt;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};
use tower::ServiceExt;

/// How the nodes of a cluster are fenced. Default: they have no BMCs, and answer on the network.
#[derive(Clone, Default)]
pub(crate) struct Fencing {
    /// The BMCs of all nodes, each at its node's name; `None`: there are none.
    pub(crate) power: Option<FakePower>,
    /// Who answers on the network; `None`: everybody.
    pub(crate) presence: Option<Arc<dyn Presence>>,
}

pub(crate) struct TestNode {
    fencing: Fencing,
    pub(crate) cluster: MemoryCluster,
    pub(crate) machine: FakeMachine,
    pub(crate) handle: NodeHandle,
    pub(crate) token: String,
    /// The wall clock, in milliseconds since 1970.
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) disks: FakeDisks,
    pub(crate) network: FakeNetwork,
    /// Its session of the store.
    pub(crate) session: MemoryStore,
    /// How its agent ends.
    pub(crate) ended: JoinHandle<Result<(), JoinError>>,
    /// How its loop of the primary's role ends.
    pub(crate) role_ended: JoinHandle<drover_store::Result<()>>,
    /// Another such loop, which has not begun.
    pub(crate) late_role: PrimaryLoop,
    router: Router,
    _folder: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Told {
    /// A header, empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl TestNode {
    /// A cluster of one node, hv1.
    pub(crate) async fn start() -> TestNode {
        TestNode::fenced(Fencing::default()).await
    }

    /// The same, in a cluster whose nodes are fenced so.
    pub(crate) async fn fenced(fencing: Fencing) -> TestNode {
        let (cluster, network) = (MemoryCluster::new(1), FakeNetwork::default());
        let mut node = TestNode::run(cluster, network, fencing, "hv1", 8192).await;
        let token = TokenName::new("test").unwrap();
        node.token = node.handle.commands().create_token(token, TokenRole::Admin).await.unwrap();
        let up = |view: &Arc<ClusterView>| {
            !view.tokens().is_empty() && !view.nodes.is_empty() && view.primary_node().is_some()
        };
        node.handle.views().wait_for(up).await.unwrap();
        node
    }

    /// Adds a node with this much memory to the cluster, and waits until this node sees it.
    pub(crate) async fn beside(&self, name: &str, mib: u64) -> TestNode {
        let mut node = TestNode::run(self.cluster.clone(), self.network.clone(), self.fencing.clone(), name, mib).await;
        node.token.clone_from(&self.token);
        let running = |view: &ClusterView| {
            let node = NodeName::new(name).ok().and_then(|name| view.nodes.get(&name).cloned());
            node.is_some_and(|node| node.daemon_state() == DaemonState::Run) && !view.tokens().is_empty()
        };
        for handle in [&self.handle, &node.handle] {
            handle.views().wait_for(|view| running(view)).await.unwrap();
        }
        node
    }

    async fn run(cluster: MemoryCluster, network: FakeNetwork, fencing: Fencing, name: &str, mib: u64) -> TestNode {
        let mut node = TestNode::begin_fenced(cluster, network, fencing, name, mib, false);
        node.handle.wait_ready().await.unwrap();
        node
    }

    /// Starts a node's daemon.
    pub(crate) fn begin(
        cluster: MemoryCluster,
        network: FakeNetwork,
        name: &str,
        mib: u64,
        join_again: bool,
    ) -> TestNode {
        TestNode::begin_fenced(cluster, network, Fencing::default(), name, mib, join_again)
    }

    fn begin_fenced(
        cluster: MemoryCluster,
        network: FakeNetwork,
        fencing: Fencing,
        name: &str,
        mib: u64,
        join_again: bool,
    ) -> TestNode {
        let folder = tempfile::tempdir().unwrap();
        let seed = u64::from(name.as_bytes().last().copied().unwrap_or_default());
        let machine = network.plug(name, &FakeMachine::new(seed));
        let facts = HostFacts {
            cpus: 4,
            memory_total: Bytes::mib(mib),
            memory_available: Bytes::mib(mib),
            ..HostFacts::default()
        };
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let wall = clock.clone();
        let (known, domain_type) = watch::channel(Some(DomainType::Qemu));
        tokio::spawn(async move { known.closed().await });
        let bmc = match fencing.power {
            None => BmcOptions::default(),
            Some(_) => BmcOptions {
                bmc: Some(Bmc { access: at(name), password: Some(Secret::new("secret".to_owned())) }),
                key: ClusterKey::parse(&"5e".repeat(32)).ok(),
            },
        };
        let options = Options {
            name: NodeName::new(name).unwrap(),
            role: Role::Coordinator,
            api: "127.0.0.1:1".to_owned(),
            machine: name.to_owned(),
            boot: "b".to_owned(),
            same_machine: false,
            join_again,
            instance: uuid::Uuid::from_u128(u128::from(seed)),
            migration: name.to_owned(),
            shared: vec![],
            capacity: None,
            host: Arc::new(move || Ok(facts.clone())),
            going_down: Arc::new(|| Box::pin(std::future::ready(false))),
            domain_type,
            console_dir: folder.path().to_owned(),
            log_file: folder.path().join("log"),
            primary: PrimaryOptions { term: Some(Duration::from_secs(4)), ..PrimaryOptions::default() },
            bmc,
            token: format!("drover_of_{name}"),
            events: drover_agent::Events::in_memory(),
            wall: Arc::new(move || WallTime(wall.load(Ordering::Relaxed))),
        };
        let session = cluster.session(Duration::from_secs(4));
        let disks = FakeDisks::default();
        let drivers = Drivers {
            hypervisor: Arc::new(machine.connect()),
            disks: Arc::new(disks.clone()),
            consoles: Arc::new(FakeLogs::default()),
            network: Arc::new(FakeHostNetwork::new(seed)),
            power: Arc::new(fencing.power.clone().unwrap_or_default()),
            presence: fencing.presence.clone().unwrap_or_else(|| Arc::new(FakePresence::default())),
            watchdog: None,
        };
        let agent = Agent::new(options, Arc::new(session.clone()), drivers);
        let handle = agent.handle();
        let (role_ended, late_role) = (tokio::spawn(agent.primary(vec![]).run()), agent.primary(vec![]));
        let ended = tokio::spawn(agent.run());
        let router = router(ApiState::new(handle.clone(), 1024));
        TestNode {
            fencing,
            cluster,
            machine,
            handle,
            token: String::new(),
            clock,
            disks,
            network,
            session,
            ended,
            role_ended,
            late_role,
            router,
            _folder: folder,
        }
    }

    /// Waits until a VM, as the API shows it, fulfils a condition.
    pub(crate) async fn vm_until(&self, vm: &str, is: impl Fn(&Value) -> bool) -> Value {
        let (mut views, mut shown) = (self.handle.views(), Value::Null);
        let waited = tokio::time::timeout(Duration::from_secs(600), async {
            loop {
                views.borrow_and_update();
                shown = self.get(&format!("/vm/{vm}")).await.json();
                if is(&shown) {
                    return;
                }
                views.changed().await.unwrap();
            }
        });
        assert!(waited.await.is_ok(), "it does not come to it: {shown}");
        shown
    }

    /// Serves its API at an address, for the other daemons.
    pub(crate) async fn serve(&self) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let me = self.handle.me();
        let old = records::read::<NodeRecord>(&self.session, me).await.unwrap().unwrap();
        let api = listener.local_addr().unwrap().to_string();
        let new = NodeRecord { api: api.clone(), ..old.value.clone() };
        records::set(&self.session, me, &old, &new).await.unwrap();
        let router = self.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        self.handle.views().wait_for(|view| view.nodes[me].record.value.api == api).await.unwrap();
    }

    /// Begins to receive a stream.
    pub(crate) async fn open(&self, request: Request<Body>) -> BodyDataStream {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.into_body().into_data_stream()
    }

    /// Begins to receive a stream with the administrator's token.
    pub(crate) async fn stream(&self, path: &str) -> BodyDataStream {
        let request = Request::builder().uri(format!("/api/v1{path}")).header("x-api-key", &self.token);
        self.open(request.body(Body::empty()).unwrap()).await
    }

    /// The first line of a stream.
    pub(crate) async fn first_line(&self, path: &str) -> Value {
        let piece = self.stream(path).await.next().await.unwrap().unwrap();
        serde_json::from_slice(&piece).unwrap()
    }

    /// All records except the node's own reports.
    pub(crate) fn records(&self) -> BTreeMap<String, Vec<u8>> {
        self.cluster.dump().into_iter().filter(|(path, _)| !path.starts_with("/nodes")).collect()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Told {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = to_bytes(answer.into_body(), 1 << 24).await.unwrap();
        Told { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// A request with these headers too.
    pub(crate) async fn with_headers(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Told {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        for (name, value) in [("x-api-key", &*self.token), ("content-type", "application/json")] {
            request = request.header(name, value);
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(body.to_string().into()).unwrap()).await
    }

    pub(crate) async fn raw(&self, method: &str, path: &str, kind: &str, body: impl Into<Body>) -> Told {
        let request = Request::builder().method(method).uri(format!("/api/v1{path}")).header("x-api-key", &self.token);
        let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: Value) -> Told {
        self.raw(method, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Told {
        self.raw("GET", path, "", Body::empty()).await
    }

    pub(crate) async fn form(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Told {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        self.raw(method, path, "application/x-www-form-urlencoded", body.finish()).await
    }

    pub(crate) async fn define(&self, name: &str, uuid: &str) -> Told {
        self.form("POST", "/vm", &[("xml", &xml(name, uuid))]).await
    }
}

pub(crate) fn xml(name: &str, uuid: &str) -> String {
    let uuid = if uuid.is_empty() { String::new() } else { format!("<uuid>{uuid}</uuid>") };
    format!(
        "<domain type='kvm'><name>{name}</name>{uuid}<memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type \
         arch='x86_64'>hvm</type></os><devices><serial type='pty'/></devices></domain>"
    )
}
