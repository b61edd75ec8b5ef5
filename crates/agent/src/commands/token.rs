//! Tokens of the API.

use super::{CommandError, Commands, Result};
use crate::{records, tokens};
use drover_model::{RecordKind, Token, TokenName, TokenRole, WallTime, cluster::CLUSTER_SCHEMA};
use drover_store::StoreError;

impl Commands {
    /// Makes a token. It is returned here and never again.
    pub async fn create_token(&self, name: TokenName, role: TokenRole) -> Result<String> {
        let token = tokens::mint().map_err(|e| CommandError::Unavailable(format!("cannot make a token: {e}")))?;
        let record = token_record(name.clone(), &token, role, self.ctx.wall());
        match records::create(&*self.ctx.store, &name, &record).await {
            Ok(()) => {
                tracing::info!(token = %name, "made a token");
                self.shown(|view| view.tokens().contains_key(&name)).await;
                Ok(token)
            }
            Err(StoreError::Exists(_)) => {
                Err(CommandError::Conflict(format!("a token named {name} exists already; revoke it first")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a token that is known already hold under this name, whatever held before: how a daemon makes its own token
    /// known.
    pub async fn install_token(&self, name: TokenName, token: &str, role: TokenRole) -> Result<()> {
        let old = records::read::<Token>(&*self.ctx.store, &name).await?;
        if old.is_some_and(|old| old.value.sha256 == tokens::hash(token) && old.value.role == role) {
            return Ok(());
        }
        let record = token_record(name.clone(), token, role, self.ctx.wall());
        records::put(&*self.ctx.store, &name, &record).await?;
        Ok(())
    }

    /// Revokes a token.
    pub async fn delete_token(&self, name: TokenName) -> Result<()> {
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
