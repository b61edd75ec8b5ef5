//! Parameters: from the query, a form or a JSON body alike, checked against the endpoint's row before its function sees
//! them.
//!
//! A list is given as one text with commas, as a parameter that is repeated, or as a JSON array; an empty text or array
//! is an empty list, which is not the same as none.

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
    lists: BTreeMap<&'static str, Vec<String>>,
}

/// A parameter as it was given.
enum Given {
    Text(String),
    Array(Vec<String>),
}

impl Args {
    /// Collects and checks the parameters of a request.
    pub(crate) fn read(
        params: &'static [Param],
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Args, ApiError> {
        let mut given: Vec<(String, Given)> = Vec::new();
        let pairs = |bytes| form_urlencoded::parse(bytes).into_owned().map(|(name, text)| (name, Given::Text(text)));
        if let Some(query) = query {
            given.extend(pairs(query.as_bytes()));
        }
        if !body.is_empty() {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
            match kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
                "application/json" => given.extend(from_json(body)?),
                "application/x-www-form-urlencoded" => given.extend(pairs(body)),
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
            args.put(param, value)?;
        }
        for param in params.iter().filter(|p| p.required) {
            if !args.is_given(param.name) {
                let mut error = ApiError::parameter(param.name, "", param.kind.accepted());
                error.refusal.message =
                    format!("parameter {} is missing; accepted is {}", param.name, param.kind.accepted());
                return Err(error);
            }
        }
        Ok(args)
    }

    fn put(&mut self, param: &Param, value: Given) -> Result<(), ApiError> {
        if let Kind::List(_) = param.kind {
            let list = self.lists.entry(param.name).or_default();
            match value {
                Given::Array(items) => list.extend(items),
                Given::Text(text) => {
                    let items = text.split(',').map(|item| item.trim_matches(' ')).filter(|item| !item.is_empty());
                    list.extend(items.map(str::to_owned));
                }
            }
            return Ok(());
        }
        let Given::Text(text) = value else {
            return Err(ApiError::parameter(param.name, "a list", param.kind.accepted()));
        };
        param.kind.check(param.name, &text)?;
        match self.values.insert(param.name, text) {
            Some(_) => Err(ApiError::parameter(param.name, "two values", "one value")),
            None => Ok(()),
        }
    }

    /// Whether a parameter was given.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name) || self.lists.contains_key(name)
    }

    /// The items of a list, if it was given.
    pub(crate) fn list(&self, name: &str) -> Option<&[String]> {
        self.lists.get(name).map(Vec::as_slice)
    }

    /// The items of a list, which must be of a type of ours.
    pub(crate) fn parsed_list<C: FromIterator<T>, T: FromStr>(&self, name: &str) -> Result<Option<C>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        self.list(name).map(|items| items.iter().map(|item| parse(name, item)).collect()).transpose()
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

    /// A flag, if it was given.
    pub(crate) fn given_flag(&self, name: &str) -> Option<bool> {
        self.text(name).map(is_true)
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
        self.text(name).map(|text| parse(name, text)).transpose()
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| {
        let mut refused = ApiError::parameter(name, text, error.to_string());
        refused.refusal.message = format!("parameter {name}: {error}");
        refused
    })
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
            Kind::List(what) => format!("a list of {what}"),
        }
    }

    fn check(&self, name: &str, value: &str) -> Result<(), ApiError> {
        let good = match self {
            Kind::Text(_) | Kind::List(_) => true,
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

/// The members of a JSON object.
fn from_json(body: &[u8]) -> Result<Vec<(String, Given)>, ApiError> {
    let bad = |why: String| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("the body is no JSON object of parameters: {why}"))
    };
    let value: Value = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
    let Value::Object(members) = value else { return Err(bad("it is another kind of value".to_owned())) };
    let mut out = Vec::new();
    for (name, value) in members {
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        let given = match value {
            // The same as not given.
            Value::Null => continue,
            Value::Array(items) => items.into_iter().map(text).collect::<Option<_>>().map(Given::Array),
            value => text(value).map(Given::Text),
        };
        match given {
            Some(given) => out.push((name, given)),
            None => {
                let accepted = "a text, a number or a flag, or a list of texts";
                return Err(ApiError::parameter(&shortened(&name), "an object, or a list of other things", accepted));
            }
        }
    }
    Ok(out)
}
