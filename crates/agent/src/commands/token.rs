//! Requests about API tokens.

use super::{
    CommandError, Commands, Result,
    update::{Outcome, Write},
};
use crate::{events::About, records, tokens};
use drover_model::{ClusterView, NodeRecord, Token, TokenName, TokenRole, WallTime, cluster::CLUSTER_SCHEMA};
use drover_plan::node;

impl Commands {
    /// Creates a token. The only time that it is returned.
    pub async fn create_token(&self, name: TokenName, role: TokenRole) -> Result<String> {
        let token = tokens::mint().map_err(|e| CommandError::Unavailable(format!("cannot create a token: {e}")))?;
        let record = token_record(name.clone(), &token, role, self.ctx.wall());
        let (name, record) = (&name, &record);
        self.update(About::Other(format!("token {name}")), || async move {
            let exists = CommandError::Conflict(format!("a token named {name} exists already; revoke it first"));
            let (ops, taken) = (vec![records::create_op(name, record)?], vec![(0..1, exists)]);
            let new = name.clone();
            let shows = Box::new(move |view: &ClusterView| view.tokens().contains_key(&new));
            Ok(Outcome::Write(Write { ops, answer: (), log: "created".to_owned(), shows, taken }))
        })
        .await?;
        Ok(token)
    }

    /// Stores a given token under this name, replacing an earlier one: how a daemon registers its own token.
    pub async fn install_token(&self, name: TokenName, token: &str, role: TokenRole) -> Result<()> {
        let old = records::read::<Token>(&*self.ctx.store, &name).await?;
        if old.as_ref().is_some_and(|old| old.value.sha256 == tokens::hash(token) && old.value.role == role) {
            return Ok(());
        }
        let record = token_record(name.clone(), token, role, self.ctx.wall());
        let write = match old {
            Some(old) => records::set_op(&name, &old, &record)?,
            None => records::create_op(&name, &record)?,
        };
        // The token goes with the node, and must not come after it.
        let me = self.ctx.me();
        let node = records::read::<NodeRecord>(&*self.ctx.store, me).await?;
        let node = node.ok_or_else(|| CommandError::Unavailable(format!("node {me} is not there any more")))?;
        Ok(self.ctx.store.multi(vec![records::check_op::<NodeRecord>(me, node.version), write]).await?)
    }

    /// Revokes a token, but not one that the daemon of a node of the cluster uses.
    pub async fn delete_token(&self, name: TokenName) -> Result<()> {
        if let Some(node) = node::user_of_token(&*self.view()?, &name) {
            return Err(CommandError::Refused(format!(
                "token {name} is that of the daemon of node {node}, which needs it; it goes when the node is removed. \
                 To replace it, stop that daemon, delete the file admin.token in its state folder, and start it again"
            )));
        }
        let name = &name;
        self.update(About::Other(format!("token {name}")), || async move {
            let missing = CommandError::NotFound(format!("there is no token named {name}"));
            let (ops, taken) = (vec![records::delete_op::<Token>(name, None)], vec![(0..1, missing)]);
            let gone = name.clone();
            let shows = Box::new(move |view: &ClusterView| !view.tokens().contains_key(&gone));
            Ok(Outcome::Write(Write { ops, answer: (), log: "revoked".to_owned(), shows, taken }))
        })
        .await
    }
}

fn token_record(name: TokenName, token: &str, role: TokenRole, created: WallTime) -> Token {
    Token { schema: CLUSTER_SCHEMA, name, sha256: tokens::hash(token), role, created }
}
