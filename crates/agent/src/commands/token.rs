//! Tokens of the API.

use super::{CommandError, Commands, Result};
use crate::{records, tokens};
use drover_model::{Stored, Token, TokenName, TokenRole, WallTime, cluster::CLUSTER_SCHEMA, layout};
use drover_store::{CreateMode, StoreError};

impl Commands {
    /// Makes a token. It is returned here and never again.
    pub async fn create_token(&self, name: TokenName, role: TokenRole) -> Result<String> {
        let token = tokens::mint();
        let data = records::encode(&token_record(name.clone(), &token, role, self.ctx.wall()))?;
        match self.ctx.store.create(&layout::token(name.as_str()), data, CreateMode::Persistent).await {
            Ok(_) => {
                tracing::info!(token = %name, "made a token");
                self.shown(|view| view.tokens.contains_key(&name)).await;
                Ok(token)
            }
            Err(StoreError::Exists(_)) => {
                Err(CommandError::Conflict(format!("a token named {name} exists already; revoke it first")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a token that is known already hold under this name, whatever held before: how a daemon makes its own token known.
    pub async fn install_token(&self, name: TokenName, token: &str, role: TokenRole) -> Result<()> {
        let path = layout::token(name.as_str());
        let old: Option<Stored<Token>> = records::read(&*self.ctx.store, &path).await?;
        if old.is_some_and(|old| old.value.sha256 == tokens::hash(token) && old.value.role == role) {
            return Ok(());
        }
        records::put(&*self.ctx.store, &path, &token_record(name, token, role, self.ctx.wall())).await?;
        Ok(())
    }

    /// Revokes a token.
    pub async fn delete_token(&self, name: TokenName) -> Result<()> {
        match self.ctx.store.delete(&layout::token(name.as_str()), None).await {
            Ok(()) => {
                tracing::info!(token = %name, "revoked a token");
                self.shown(|view| !view.tokens.contains_key(&name)).await;
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
