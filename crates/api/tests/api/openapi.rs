//! The OpenAPI document.

use crate::support::TestNode;
use std::path::Path;

/// The copy in the repository, for people and code generators, is equal to the served document.
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
        "docs/openapi.json is outdated; regenerate it: DROVER_WRITE_OPENAPI=1 cargo test -p drover-api openapi"
    );
}

/// It has all endpoints, all parameters, and all referenced schemas.
#[tokio::test]
async fn it_is_complete() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.json();
    for endpoint in drover_api::endpoint::ENDPOINTS.iter() {
        let method = endpoint.method.as_str().to_lowercase();
        let operation = &document["paths"][format!("/api/v1{}", endpoint.path)][&method];
        assert!(operation.is_object(), "{method} {}", endpoint.path);
        let text = operation.to_string();
        for param in &endpoint.params {
            assert!(text.contains(&format!("\"{}\"", param.name)), "{method} {}: {}", endpoint.path, param.name);
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/").skip(1).filter_map(|rest| rest.split('"').next()) {
        let pointer = format!("/{reference}");
        assert!(document.pointer(&pointer).is_some(), "{pointer} is referenced, but missing");
    }
}

/// A parameter that stands in the query and in the body is one parameter, and may be given in either.
#[tokio::test]
async fn the_query_and_the_body_are_alternatives() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap().values();
    let mut both = 0;
    for operation in paths.flat_map(|path| path.as_object().unwrap().values()) {
        let Some(body) = operation.get("requestBody") else { continue };
        assert_eq!(body["required"], false, "{operation}");
        assert!(body["description"].as_str().unwrap().contains("not in both"), "{operation}");
        let schema = &body["content"]["application/json"]["schema"];
        assert!(schema.get("required").is_none(), "it may stand in the query: {operation}");
        for parameter in operation["parameters"].as_array().unwrap().iter().filter(|p| p["in"] == "query") {
            assert!(schema["properties"].get(parameter["name"].as_str().unwrap()).is_some(), "{parameter}");
            assert_eq!(parameter["required"], false, "it may stand in the body: {parameter}");
            assert!(parameter["description"].as_str().unwrap().contains("ere or in the body."), "{parameter}");
            both += 1;
        }
    }
    assert!(both > 40, "{both}");
}
