//! Tokens.

use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
};
use drover_model::{
    TokenName, TokenRole,
    wire::{NewToken, TokenInfo},
};

pub(crate) async fn list(call: Call) -> Answer {
    let view = call.state.node.view();
    answer::json(&view.tokens().values().map(|token| TokenInfo::of(&token.value)).collect::<Vec<_>>())
}

pub(crate) async fn create(call: Call) -> Answer {
    let Some(name) = call.args.parsed::<TokenName>("name")? else {
        return Err(ApiError::parameter("name", "", "a token's name"));
    };
    let token = call.state.node.commands().create_token(name.clone(), TokenRole::Admin).await?;
    answer::json(&NewToken { name, token })
}

pub(crate) async fn delete(call: Call) -> Answer {
    let name = TokenName::new(&call.subject).map_err(|e| ApiError::not_found(e.to_string()))?;
    call.state.node.commands().delete_token(name.clone()).await?;
    answer::message(format!("Revoked token {name}."))
}
