//! Parameters: from the query, a form or a JSON body alike, checked against the endpoint's row before its function sees them.

use crate::{
    answer::{ApiError, shortened},
    endpoint::{Kind, Param},
};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use std::{collections::BTreeMap, str::FromStr};

/// The checked parameters of one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Args {
    values: BTreeMap<&'static str, String>,
}

impl Args {
    /// Collects and checks the parameters of a request.
    pub(crate) fn read(
        params: &'static [Param],
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Args, ApiError> {
        let mut given: Vec<(String, String)> = Vec::new();
        if let Some(query) = query {
            given.extend(form_urlencoded::parse(query.as_bytes()).into_owned());
        }
        if !body.is_empty() {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
            match kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
                "application/json" => given.extend(from_json(body)?),
                "application/x-www-form-urlencoded" => {
                    given.extend(form_urlencoded::parse(body).into_owned());
                }
                other => {
                    return Err(ApiError::new(
                        StatusCode::UNSUPPORTED_MEDIA_TYPE,
                        format!(
                            "a body of type {:?} is not accepted; accepted are application/json and application/x-www-form-urlencoded",
                            shortened(other)
                        ),
                    ));
                }
            }
        }
        let mut args = Args::default();
        for (name, value) in given {
            let Some(param) = params.iter().find(|p| p.name == name) else { return Err(unknown(&name, params)) };
            param.kind.check(param.name, &value)?;
            if args.values.insert(param.name, value).is_some() {
                return Err(ApiError::parameter(param.name, "two values", "one value"));
            }
        }
        for param in params.iter().filter(|p| p.required) {
            if !args.values.contains_key(param.name) {
                let mut error = ApiError::parameter(param.name, "", param.kind.accepted());
                error.refusal.message =
                    format!("parameter {} is missing; accepted is {}", param.name, param.kind.accepted());
                return Err(error);
            }
        }
        Ok(args)
    }

    /// A parameter's text, if it was given.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The text of a parameter that the row requires.
    pub(crate) fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or("")
    }

    /// Whether a flag was given as true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(is_true)
    }

    /// A number, checked already.
    pub(crate) fn number<N: FromStr>(&self, name: &str) -> Option<N> {
        self.text(name)?.parse().ok()
    }

    /// A text that must be of a type of ours.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: &str| {
            text.parse().map_err(|error: T::Err| {
                let mut refused = ApiError::parameter(name, text, error.to_string());
                refused.refusal.message = format!("parameter {name}: {error}");
                refused
            })
        };
        self.text(name).map(parse).transpose()
    }
}

fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

fn is_false(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "false" | "0" | "no" | "off" | "")
}

impl Kind {
    /// What is accepted, for people.
    pub(crate) fn accepted(&self) -> String {
        match self {
            Kind::Text(what) => (*what).to_owned(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Number(from, to) => format!("a whole number from {from} to {to}"),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
        }
    }

    fn check(&self, name: &str, value: &str) -> Result<(), ApiError> {
        let good = match self {
            Kind::Text(_) => true,
            Kind::Flag => is_true(value) || is_false(value),
            Kind::Number(from, to) => value.parse::<i64>().is_ok_and(|n| (*from..=*to).contains(&n)),
            Kind::Word(words) => words.contains(&value),
        };
        if good { Ok(()) } else { Err(ApiError::parameter(name, value, self.accepted())) }
    }
}

fn unknown(name: &str, params: &[Param]) -> ApiError {
    let names: Vec<&str> = params.iter().map(|p| p.name).collect();
    let accepted = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let near = names.iter().map(|known| (strsim::osa_distance(name, known), *known)).min().filter(|(d, _)| *d <= 3);
    let hint = near.map(|(_, known)| format!(" (did you mean {known}?)")).unwrap_or_default();
    let mut error = ApiError::parameter(&shortened(name), "", accepted.clone());
    error.refusal.message = format!("there is no parameter {:?} here{hint}; accepted are: {accepted}", shortened(name));
    error
}

/// The members of a JSON object as texts.
fn from_json(body: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let bad = |why: String| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("the body is no JSON object of parameters: {why}"))
    };
    let value: Value = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
    let Value::Object(members) = value else { return Err(bad("it is another kind of value".to_owned())) };
    let mut out = Vec::new();
    for (name, value) in members {
        match value {
            // The same as not given.
            Value::Null => {}
            Value::String(text) => out.push((name, text)),
            Value::Bool(flag) => out.push((name, flag.to_string())),
            Value::Number(number) => out.push((name, number.to_string())),
            Value::Array(_) | Value::Object(_) => {
                return Err(ApiError::parameter(
                    &shortened(&name),
                    "a list or an object",
                    "a text, a number or a flag",
                ));
            }
        }
    }
    Ok(out)
}
