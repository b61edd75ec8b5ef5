//! The OpenAPI 3.1 document, generated from the table of endpoints and the schemas of the response types.

use crate::{
    answer::{self, Answer},
    endpoint::{Answers, Call, ENDPOINTS, Endpoint, get},
    params::{Kind, Param},
};
use axum::http::Method;
use drover_model::{
    operation::{OPERATION_MAX, OPERATION_MIN},
    wire::{Nothing, Refusal, VERSION},
};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![get("/openapi.json", "This document.", serve).answers::<Value>().open()]
}

fn schema_of(kind: &Kind) -> Value {
    match kind {
        Kind::Text(text) => json!({"type": "string", "description": text.what}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Number(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        Kind::Word(words) => json!({"type": "string", "enum": words}),
        Kind::List(text) => json!({"type": "array", "items": {"type": "string"}, "description": text.what}),
    }
}

/// A parameter in the query. If the body may have it instead, the description says so, and it is required in neither.
fn query(param: &Param, or_body: bool) -> Value {
    let about = match (or_body, param.required) {
        (true, true) => format!("{} Required, here or in the body.", param.about),
        (true, false) => format!("{} Here or in the body.", param.about),
        (false, _) => param.about.clone(),
    };
    json!({"name": param.name, "in": "query", "required": param.required && !or_body, "description": about,
           "schema": schema_of(&param.kind)})
}

/// The same parameters as a form or a JSON object.
fn body(endpoint: &Endpoint) -> Value {
    let properties: Map<String, Value> = endpoint
        .params
        .iter()
        .map(|param| {
            let mut schema = schema_of(&param.kind);
            let required = if param.required { " Required, here or in the query." } else { "" };
            schema["description"] = json!(format!("{}{required}", param.about));
            (param.name.clone(), schema)
        })
        .collect();
    let schema = json!({"type": "object", "properties": properties});
    json!({
        "description": "The parameters of the query, as a form or a JSON object. Each is given there or here, \
                        not in both.",
        "required": false,
        "content": {"application/json": {"schema": schema}, "application/x-www-form-urlencoded": {"schema": schema}},
    })
}

fn path_parameter(path: &str) -> Option<Value> {
    let name = path.split_once('{')?.1.split_once('}')?.0;
    Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
}

/// The header that every request may have that changes something.
fn operation_header() -> Value {
    let what = format!("{OPERATION_MIN} to {OPERATION_MAX} lower-case letters, digits and hyphens");
    let about = format!(
        "The id of the operation that the request begins, in its records, events and log lines: {what}; another \
         value is refused. If it is not given, X-Request-Id is used if that is valid, or one is made."
    );
    json!({"name": drover_client::OPERATION, "in": "header", "required": false, "description": about,
           "schema": {"type": "string"}})
}

/// Descriptions of types and fields are those of the source, whose links lead nowhere here: only their texts are kept.
fn without_links(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "description" => *text = unlinked(text),
                    value => without_links(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_links),
        _ => {}
    }
}

/// A text with `name` instead of [`name`] and [`name`](path).
fn unlinked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("`]") else {
            rest = &rest[before.len()..];
            break;
        };
        out.push_str(&format!("`{name}`"));
        let path = after.strip_prefix('(').and_then(|path| path.split_once(')'));
        rest = path.map_or(after, |(_, after)| after);
    }
    out + rest
}

/// The whole document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let refusal = generator.subschema_for::<Refusal>();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in ENDPOINTS.iter() {
        let good = match endpoint.answers {
            Answers::Json(schema) => {
                let mut content = json!({"application/json": {"schema": schema(&mut generator)}});
                if endpoint.follows {
                    content["text/plain"] = json!({"schema": {"type": "string"}});
                }
                json!({"description": "Done.", "content": content})
            }
            Answers::Lines => {
                let content = json!({"application/x-ndjson": {}});
                json!({"description": "A stream of JSON objects, one per line.", "content": content})
            }
        };
        let takes_body = matches!(endpoint.method, Method::POST | Method::PUT);
        let refused = |what: &str| json!({"description": what, "content": {"application/json": {"schema": refusal}}});
        let mut responses = json!({
            "200": good,
            "400": refused("Not accepted, or not in this state."),
            "503": refused("The cluster's store does not answer."),
        });
        if endpoint.token {
            responses["401"] = refused("The token is missing or not known.");
        }
        if endpoint.path.contains('{') {
            responses["404"] = refused("It does not exist.");
        }
        if endpoint.follows {
            responses["502"] = refused("The node that has it did not give a valid answer.");
        }
        if endpoint.waits {
            responses["504"] = refused("The wait timed out; the operation continues.");
        }
        if takes_body {
            responses["413"] = refused("The body is too large.");
            responses["415"] = refused("The body is of another type than JSON or a form.");
        }
        let changes = endpoint.method != Method::GET;
        if changes {
            let header = json!({"description": "The id of the operation.", "schema": {"type": "string"}});
            responses["200"]["headers"] = json!({drover_client::OPERATION: header});
            responses["409"] = refused("Somebody else changed it meanwhile, or the name is taken.");
        }
        let mut parameters: Vec<Value> = path_parameter(endpoint.path).into_iter().collect();
        let method = endpoint.method.as_str().to_ascii_lowercase();
        let mut operation = json!({"summary": endpoint.about, "responses": responses});
        // Every method accepts parameters as query, form or JSON; a body is only described where one is usual.
        let or_body = takes_body && !endpoint.params.is_empty();
        parameters.extend(endpoint.params.iter().map(|param| query(param, or_body)));
        if changes {
            parameters.push(operation_header());
        }
        if or_body {
            operation["requestBody"] = body(endpoint);
        }
        operation["parameters"] = Value::Array(parameters);
        if !endpoint.token {
            operation["security"] = json!([]);
        }
        let path = format!("/api/v1{}", endpoint.path);
        paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
    }
    let mut schemas = generator.take_definitions(true);
    schemas.values_mut().for_each(without_links);
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Drover", "version": VERSION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}},
        },
        "security": [{"token": []}],
    })
}

async fn serve(_: Call, _: Nothing) -> Answer {
    answer::json(&document())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_no_links() {
        for (text, wanted) in [
            ("See [`Vm::name`](super::Vm::name): it is so.", "See `Vm::name`: it is so."),
            ("A word ([`Kind`]; or [`Other`]).", "A word (`Kind`; or `Other`)."),
            ("`a` [b] (c) [`d", "`a` [b] (c) [`d"),
            ("", ""),
        ] {
            assert_eq!(unlinked(text), wanted);
        }
        assert!(!document().to_string().contains("[`"));
    }
}
