//! Tokens.

use super::confirm;
use crate::{
    args,
    failure::Failure,
    output::{Cell, Format, Output, Table},
};
use drover_client::Client;
use drover_model::wire::TokenInfo;

fn table(tokens: &[TokenInfo]) -> Table {
    let mut table = Table::new(&["NAME", "ROLE"]);
    for token in tokens {
        table.row(vec![Cell::text(token.name.as_str()), Cell::text(&*token.role)]);
    }
    table
}

pub(crate) async fn run(command: args::Token, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        args::Token::List => {
            let tokens = client.tokens().await?;
            output.list(&tokens, |t| t.name.as_str(), table, "There are no tokens.")
        }
        args::Token::Create { name } => {
            let made = client.create_token(&name).await?;
            if output.format == Format::Json {
                return output.json(&made);
            }
            output.note("The token; keep it, it is not shown again:");
            output.print(&made.token)
        }
        args::Token::Revoke { name, confirm: sure } => {
            confirm(&format!("Whoever uses token {name} will be refused. Revoke it?"), sure.yes)?;
            let done = client.delete_token(&name).await?;
            output.done(&done.message, &done)
        }
    }
}
