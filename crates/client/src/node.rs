//! Requests about nodes.

use crate::{Client, Result, part, values};
use bytes::Bytes;
use drover_model::wire::{
    Fate, FenceInfo, FenceNode, ListNodes, Log, Message, Node, NodeChanged, NodePolicies, Nothing, ReadLog, RemoveNode,
    SetCoordinatorState, SetDomainState, SetNodePolicies, StateOf,
};
use futures_util::Stream;
use reqwest::Method;

impl Client {
    /// Nodes, filtered.
    pub async fn nodes(&self, filters: &ListNodes) -> Result<Vec<Node>> {
        self.get("/node", filters).await
    }

    /// One node.
    pub async fn node(&self, name: &str) -> Result<Node> {
        self.get(&format!("/node/{}", part(name)), &Nothing {}).await
    }

    /// Streams a node: its current state, then each change. Ends when the node is removed.
    pub async fn watch_node(&self, name: &str) -> Result<impl Stream<Item = Result<Node>> + Send + use<>> {
        let path = format!("/node/{}/watch", part(name));
        Ok(values(format!("{}{path}", self.base), self.stream(&path, &Nothing {}).await?))
    }

    /// Takes a node out of service, or puts it back.
    pub async fn set_domain_state(&self, name: &str, order: SetDomainState) -> Result<NodeChanged> {
        self.post(&format!("/node/{}/domain-state", part(name)), &order).await
    }

    /// Changes a node's own policies; those that are not given stay as they are.
    pub async fn set_node_policies(&self, name: &str, change: SetNodePolicies) -> Result<NodePolicies> {
        self.request(Method::PUT, &format!("/node/{}/policies", part(name)), &change, None).await
    }

    /// A node's role: whether it is the primary.
    pub async fn coordinator_state(&self, name: &str) -> Result<StateOf> {
        self.get(&format!("/node/{}/coordinator-state", part(name)), &Nothing {}).await
    }

    /// Makes a node the primary, or has it hand the primary role over.
    pub async fn set_coordinator_state(&self, name: &str, order: SetCoordinatorState) -> Result<NodeChanged> {
        self.post(&format!("/node/{}/coordinator-state", part(name)), &order).await
    }

    /// What a flush would do with each VM of a node.
    pub async fn flush_plan(&self, name: &str) -> Result<Vec<Fate>> {
        self.get(&format!("/node/{}/flush-plan", part(name)), &Nothing {}).await
    }

    /// What becomes of each VM that should come home when a node is made ready.
    pub async fn ready_plan(&self, name: &str) -> Result<Vec<Fate>> {
        self.get(&format!("/node/{}/ready-plan", part(name)), &Nothing {}).await
    }

    /// Removes a node that is gone for good.
    pub async fn remove_node(&self, name: &str, order: RemoveNode) -> Result<Message> {
        self.request(Method::DELETE, &format!("/node/{}", part(name)), &order, None).await
    }

    /// A node's fence, and what becomes of its VMs if it is off.
    pub async fn fence(&self, name: &str) -> Result<FenceInfo> {
        self.get(&format!("/node/{}/fence", part(name)), &Nothing {}).await
    }

    /// Confirms that a node's machine is off.
    pub async fn fence_node(&self, name: &str, order: FenceNode) -> Result<NodeChanged> {
        self.post(&format!("/node/{}/fence", part(name)), &order).await
    }

    /// The last lines of a node's log.
    pub async fn node_log(&self, name: &str, lines: usize) -> Result<Log> {
        self.get(&format!("/node/{}/log", part(name)), &ReadLog { lines: Some(lines), follow: false }).await
    }

    /// Follows a node's log, starting with its last lines.
    pub async fn follow_node_log(
        &self,
        name: &str,
        lines: usize,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let params = ReadLog { lines: Some(lines), follow: true };
        self.stream(&format!("/node/{}/log", part(name)), &params).await
    }
}
