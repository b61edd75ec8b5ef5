//! Requests about nodes.

use crate::{Client, Params, Result, part, values};
use bytes::Bytes;
use drover_model::wire::{Fate, Log, Message, Node, NodeChanged, StateOf};
use futures_util::Stream;
use reqwest::Method;

impl Client {
    /// Nodes, filtered.
    pub async fn nodes(&self, filters: Params<'_>) -> Result<Vec<Node>> {
        self.get("/node", filters).await
    }

    /// One node.
    pub async fn node(&self, name: &str) -> Result<Node> {
        self.get(&format!("/node/{}", part(name)), &[]).await
    }

    /// A node each time that it changes, beginning with how it is. Ends when the node is removed.
    pub async fn watch_node(&self, name: &str) -> Result<impl Stream<Item = Result<Node>> + Send + use<>> {
        let path = format!("/node/{}/watch", part(name));
        Ok(values(format!("{}{path}", self.base), self.stream(&path, &[]).await?))
    }

    /// Takes a node out of service (`flush`), or puts it back (`ready`).
    pub async fn set_domain_state(&self, name: &str, state: &str, extra: Params<'_>) -> Result<NodeChanged> {
        let mut params = vec![("state", state.to_owned())];
        params.extend_from_slice(extra);
        self.post(&format!("/node/{}/domain-state", part(name)), &params).await
    }

    /// The part that a node plays: whether it is the primary.
    pub async fn coordinator_state(&self, name: &str) -> Result<StateOf> {
        self.get(&format!("/node/{}/coordinator-state", part(name)), &[]).await
    }

    /// Makes a node the primary (`primary`), or has it hand that role over (`secondary`).
    pub async fn set_coordinator_state(&self, name: &str, state: &str) -> Result<NodeChanged> {
        self.post(&format!("/node/{}/coordinator-state", part(name)), &[("state", state.to_owned())]).await
    }

    /// What a flush would do with each VM of a node.
    pub async fn flush_plan(&self, name: &str) -> Result<Vec<Fate>> {
        self.get(&format!("/node/{}/flush-plan", part(name)), &[]).await
    }

    /// Removes a node that is gone for good.
    pub async fn remove_node(&self, name: &str) -> Result<Message> {
        self.request(Method::DELETE, &format!("/node/{}", part(name)), &[], None).await
    }

    /// The last lines of a node's log.
    pub async fn node_log(&self, name: &str, lines: usize) -> Result<Log> {
        self.get(&format!("/node/{}/log", part(name)), &[("lines", lines.to_string())]).await
    }

    /// A node's log as it is written, after its last lines.
    pub async fn follow_node_log(
        &self,
        name: &str,
        lines: usize,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let params = [("lines", lines.to_string()), ("follow", "true".to_owned())];
        self.stream(&format!("/node/{}/log", part(name)), &params).await
    }
}
