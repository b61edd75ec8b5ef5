//! Requests about API tokens.

use super::{CommandError, Commands, Result};
use crate::{records, tokens};
use drover_model::{NodeRecord, RecordKind, Token, TokenName, TokenRole, WallTime, cluster::CLUSTER_SCHEMA};
use drover_plan::node;
use drover_store::StoreError;

impl Commands {
    /// Creates a token. The only time that it is returned.
    pub async fn create_token(&self, name: TokenName, role: TokenRole) -> Result<String> {
        let token = tokens::mint().map_err(|e| CommandError::Unavailable(format!("cannot create a token: {e}")))?;
        let record = token_record(name.clone(), &token, role, self.ctx.wall());
        match records::create(&*self.ctx.store, &name, &record).await {
            Ok(()) => {
                tracing::info!(token = %name, "created a token");
                self.shown(|view| view.tokens().contains_key(&name)).await;
                Ok(token)
            }
            Err(StoreError::Exists(_)) => {
                Err(CommandError::Conflict(format!("a token named {name} exists already; revoke it first")))
            }
            Err(error) => Err(error.into()),
        }
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
                "token {name} is that of the daemon of node {node}, which needs it; it goes when the node is removed. To replace it, stop that daemon, delete the file admin.token in its state folder, and start it again"
            )));
        }
        match self.ctx.store.delete(&Token::path(&name), None).await {
            Ok(()) => {
                tracing::info!(token = %name, "revoked a token");
                self.shown(|view| !view.tokens().contains_key(&name)).await;
                Ok(())
            }
            Err(StoreError::NotFound(_)) => Err(CommandError::NotFound(format!("there is no token named {name}"))),
            Err(error) => Err(error.into()),
        }
    }
}

fn token_record(name: TokenName, token: &str, role: TokenRole, created: WallTime) -> Token {
    Token { schema: CLUSTER_SCHEMA, name, sha256: tokens::hash(token), role, created }
}
