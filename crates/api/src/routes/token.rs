//! Endpoints of tokens.

use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, delete, get, post},
};
use drover_model::{
    TokenName, TokenRole,
    wire::{CreateToken, Message, NewToken, Nothing, TokenInfo},
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/token", "Tokens: their names and roles, not the secrets.", list).answers::<Vec<TokenInfo>>(),
        post("/token", "Create a token; it is shown only now.", create).answers::<NewToken>(),
        delete("/token/{token}", "Revoke a token.", revoke).answers::<Message>(),
    ]
}

async fn list(call: Call, _: Nothing) -> Answer {
    let view = call.state.node.view();
    answer::json(&view.tokens().values().map(|token| TokenInfo::of(&token.value)).collect::<Vec<_>>())
}

async fn create(call: Call, request: CreateToken) -> Answer {
    let name = request.name;
    let token = call.state.node.commands().create_token(name.clone(), TokenRole::Admin).await?;
    answer::json(&NewToken { name, token })
}

async fn revoke(call: Call, _: Nothing) -> Answer {
    let name = TokenName::new(&call.subject).map_err(|e| ApiError::not_found(e.to_string()))?;
    call.state.node.commands().delete_token(name.clone()).await?;
    answer::message(format!("Revoked token {name}."))
}
