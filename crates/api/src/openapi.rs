//! The OpenAPI 3.1 document, made from the table of endpoints and the schemas of the answers' types.

use crate::{
    answer::{self, Answer},
    endpoint::{Call, ENDPOINTS, Endpoint, Kind, Param},
};
use drover_model::wire::{Refusal, VERSION};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

fn schema_of(kind: Kind) -> Value {
    match kind {
        Kind::Text(what) => json!({"type": "string", "description": what}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Number(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        Kind::Word(words) => json!({"type": "string", "enum": words}),
        Kind::List(what) => json!({"type": "array", "items": {"type": "string"}, "description": what}),
    }
}

fn query(param: &Param) -> Value {
    json!({"name": param.name, "in": "query", "required": param.required, "description": param.about,
           "schema": schema_of(param.kind)})
}

/// The same parameters as a form or a JSON object.
fn body(endpoint: &Endpoint) -> Value {
    let properties: Map<String, Value> = endpoint
        .params
        .iter()
        .map(|p| {
            let mut schema = schema_of(p.kind);
            schema["description"] = json!(p.about);
            (p.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = endpoint.params.iter().filter(|p| p.required).map(|p| p.name).collect();
    let schema = json!({"type": "object", "properties": properties, "required": required});
    json!({"content": {"application/json": {"schema": schema}, "application/x-www-form-urlencoded": {"schema": schema}}})
}

fn path_parameter(path: &str) -> Option<Value> {
    let name = path.split_once('{')?.1.split_once('}')?.0;
    Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
}

/// The whole document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let refusal = generator.subschema_for::<Refusal>();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in ENDPOINTS {
        let good = match endpoint.answer {
            Some(schema) => {
                let mut content = json!({"application/json": {"schema": schema(&mut generator)}});
                if endpoint.params.iter().any(|p| p.name == "follow") {
                    content["text/plain"] = json!({"schema": {"type": "string"}});
                }
                json!({"description": "Done.", "content": content})
            }
            None => {
                json!({"description": "One JSON object a line, as it comes.", "content": {"application/x-ndjson": {}}})
            }
        };
        let refused = |what: &str| json!({"description": what, "content": {"application/json": {"schema": refusal}}});
        let mut responses = json!({"200": good, "400": refused("Not accepted, or not in this state."), "503": refused("The cluster's store does not answer.")});
        if endpoint.token {
            responses["401"] = refused("The token is missing or not known.");
        }
        if endpoint.path.contains('{') {
            responses["404"] = refused("There is no such thing.");
        }
        if endpoint.params.iter().any(|p| p.name == "follow") {
            responses["502"] = refused("The node that has it was asked, and gave no proper answer.");
        }
        if endpoint.params.iter().any(|p| p.name == "wait") || endpoint.method == axum::http::Method::DELETE {
            responses["504"] = refused("It was waited for and is not done yet; it goes on.");
        }
        if matches!(endpoint.method, axum::http::Method::POST | axum::http::Method::PUT) {
            responses["413"] = refused("The body is too large.");
            responses["415"] = refused("The body is of another type than JSON or a form.");
        }
        if endpoint.method != axum::http::Method::GET {
            responses["409"] = refused("Somebody else changed it meanwhile, or has the name.");
        }
        let mut parameters: Vec<Value> = path_parameter(endpoint.path).into_iter().collect();
        let method = endpoint.method.as_str().to_ascii_lowercase();
        let mut operation = json!({"summary": endpoint.about, "responses": responses});
        parameters.extend(endpoint.params.iter().map(query));
        // Any method takes its parameters as query, form or JSON; a body is described where one is usual. None is
        // required there, for the query will do.
        if !endpoint.params.is_empty() && matches!(method.as_str(), "post" | "put") {
            operation["requestBody"] = body(endpoint);
            for parameter in &mut parameters {
                if parameter["in"] == "query" {
                    parameter["required"] = json!(false);
                }
            }
        }
        operation["parameters"] = Value::Array(parameters);
        if !endpoint.token {
            operation["security"] = json!([]);
        }
        let path = format!("/api/v1{}", endpoint.path);
        paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Drover", "version": VERSION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}},
        },
        "security": [{"token": []}],
    })
}

pub(crate) async fn serve(_call: Call) -> Answer {
    answer::json(&document())
}
