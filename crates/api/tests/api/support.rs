//! A whole node on a store in memory and a pretended hypervisor, asked through its API.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use drover_agent::{Agent, Drivers, HostFacts, NodeHandle, Options};
use drover_api::{ApiState, router};
use drover_drivers::{hypervisor::fake::FakeMachine, storage::fake::FakeDisks};
use drover_model::{Bytes, DomainType, NodeName, Role, TokenName, TokenRole, WallTime};
use drover_store::memory::MemoryCluster;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use tower::ServiceExt;

pub(crate) struct TestNode {
    pub(crate) cluster: MemoryCluster,
    pub(crate) machine: FakeMachine,
    pub(crate) handle: NodeHandle,
    pub(crate) token: String,
    router: Router,
    _folder: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl TestNode {
    pub(crate) async fn start() -> TestNode {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, machine) = (MemoryCluster::new(1), FakeMachine::new(1));
        let facts = HostFacts {
            cpus: 4,
            memory_total: Bytes::mib(8192),
            memory_available: Bytes::mib(8192),
            ..HostFacts::default()
        };
        let (known, domain_type) = watch::channel(Some(DomainType::Qemu));
        tokio::spawn(async move { known.closed().await });
        let options = Options {
            name: NodeName::new("hv1").unwrap(),
            role: Role::Coordinator,
            api: "127.0.0.1:1".to_owned(),
            machine: "m".to_owned(),
            boot: "b".to_owned(),
            instance: uuid::Uuid::from_u128(1),
            capacity: None,
            host: Arc::new(move || Ok(facts.clone())),
            domain_type,
            console_dir: folder.path().to_owned(),
            log_file: folder.path().join("log"),
            token: "drover_of_this_node".to_owned(),
            wall: Arc::new(|| WallTime(1_700_000_000_000)),
        };
        let store = Arc::new(cluster.session(Duration::from_secs(4)));
        let agent =
            Agent::new(options, store, Drivers { hypervisor: Arc::new(machine.connect()), disks: Arc::new(FakeDisks) });
        let mut handle = agent.handle();
        tokio::spawn(agent.run());
        handle.wait_ready().await.unwrap();
        let token = handle.commands().create_token(TokenName::new("test").unwrap(), TokenRole::Admin).await.unwrap();
        handle.views().wait_for(|view| !view.tokens.is_empty() && !view.nodes.is_empty()).await.unwrap();
        let router = router(ApiState { node: handle.clone() });
        TestNode { cluster, machine, handle, token, router, _folder: folder }
    }

    /// What is stored, but for what the node reports of itself.
    pub(crate) fn records(&self) -> BTreeMap<String, Vec<u8>> {
        self.cluster.dump().into_iter().filter(|(path, _)| !path.starts_with("/nodes")).collect()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Told {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = to_bytes(answer.into_body(), 1 << 24).await.unwrap();
        Told { status, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn raw(&self, method: &str, path: &str, kind: &str, body: impl Into<Body>) -> Told {
        let request = Request::builder().method(method).uri(format!("/api/v1{path}")).header("x-api-key", &self.token);
        let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
        self.send(request.body(body.into()).unwrap()).await
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
        "<domain type='kvm'><name>{name}</name>{uuid}<memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os><devices><serial type='pty'/></devices></domain>"
    )
}
