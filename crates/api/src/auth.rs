//! Token authentication. Every token gives an administrator's rights.

use crate::answer::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use drover_agent::tokens;
use drover_model::ClusterView;
use subtle::{Choice, ConstantTimeEq};

/// Hash of a token.
pub(crate) type Hash = String;

/// Checks the token of a request against the hashes in the view, and returns its hash and its name.
pub(crate) fn check(view: &ClusterView, headers: &HeaderMap) -> Result<(Hash, String), ApiError> {
    let refused = |why: &str| {
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            format!("{why}; send a token in the header X-Api-Key (make one with 'drover token create')"),
        ))
    };
    // The scheme's case does not matter (RFC 9110, 11.1).
    let bearer = || {
        let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    };
    let given = headers.get("x-api-key").and_then(|v| v.to_str().ok()).or_else(bearer);
    let Some(given) = given.map(str::trim).filter(|g| !g.is_empty()) else { return refused("a token is needed") };
    let hash = tokens::hash(given);
    if !is_known(view, &hash) {
        return refused("the token is not known to this cluster");
    }
    let name = view.tokens().iter().find(|(_, token)| token.sha256 == hash).map(|(name, _)| name.to_string());
    Ok((hash, name.unwrap_or_default()))
}

/// Whether a token is valid. All hashes are compared, each in constant time, so that timing reveals nothing.
pub(crate) fn is_known(view: &ClusterView, hash: &Hash) -> bool {
    let same = |known: &str| known.as_bytes().ct_eq(hash.as_bytes());
    view.tokens().values().fold(Choice::from(0), |found, token| found | same(&token.sha256)).into()
}
