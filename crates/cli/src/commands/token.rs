//! API tokens.

use super::{Context, Run, commands, confirm};
use crate::{
    args::Confirmation,
    failure::Failure,
    output::{Cell, Format, Table},
};
use clap::Args;
use drover_model::{
    TokenName,
    wire::{CreateToken, TokenInfo},
};

commands! {
    /// Manage API tokens
    Token {
        List(List),
        Create(Create),
        Revoke(Revoke),
    }
}

/// List tokens: their names and roles, not the secrets
#[derive(Debug, Args)]
pub(crate) struct List {}

/// Create a token; it is printed only now
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The token's name, needed to revoke it
    name: TokenName,
}

/// Revoke a token
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The token's name
    name: String,
    #[command(flatten)]
    confirm: Confirmation,
}

impl Run for List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let tokens = context.client()?.tokens().await?;
        context.output.list(&tokens, |t| t.name.as_str(), table, "There are no tokens.")
    }
}

impl Run for Create {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let created = context.client()?.create_token(&CreateToken { name: self.name }).await?;
        let output = context.output;
        if output.format == Format::Json {
            return output.json(&created);
        }
        output.note("The token; keep it, it cannot be shown again:");
        output.print(&created.token)
    }
}

impl Run for Revoke {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = self.name;
        let client = context.client()?;
        confirm(&format!("Requests with token {name} will be refused. Revoke it?"), self.confirm.yes)?;
        let done = client.delete_token(&name).await?;
        context.output.done(&done.message, &done)
    }
}

fn table(tokens: &[TokenInfo]) -> Table<'_> {
    let mut table = Table::new(&["NAME", "ROLE"]);
    for token in tokens {
        table.row(vec![Cell::text(token.name.as_str()), Cell::text(&*token.role)]);
    }
    table
}
