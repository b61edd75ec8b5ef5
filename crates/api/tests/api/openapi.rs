//! The OpenAPI document.

use crate::support::TestNode;
use std::path::Path;

/// The copy in the repository, for people and for clients' generators, is the one that the server serves.
#[tokio::test]
async fn the_copy_in_docs_is_the_one_that_is_served() {
    let node = TestNode::start().await;
    let served = node.get("/openapi.json").await.json();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let text = serde_json::to_string_pretty(&served).unwrap() + "\n";
    if std::env::var_os("DROVER_WRITE_OPENAPI").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let copy = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        copy == text,
        "docs/openapi.json is old; write it anew: DROVER_WRITE_OPENAPI=1 cargo test -p drover-api openapi"
    );
}

/// Every endpoint is in it, every parameter, and every schema that is referred to.
#[tokio::test]
async fn it_is_complete() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.json();
    for endpoint in drover_api::endpoint::ENDPOINTS {
        let method = endpoint.method.as_str().to_lowercase();
        let operation = &document["paths"][format!("/api/v1{}", endpoint.path)][&method];
        assert!(operation.is_object(), "{method} {}", endpoint.path);
        let text = operation.to_string();
        for param in endpoint.params {
            assert!(text.contains(&format!("\"{}\"", param.name)), "{method} {}: {}", endpoint.path, param.name);
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/").skip(1).filter_map(|rest| rest.split('"').next()) {
        let pointer = format!("/{reference}");
        assert!(document.pointer(&pointer).is_some(), "{pointer} is referred to, and is not there");
    }
}
