//! Request parameters, from the query, a form or a JSON body: checked against what the endpoint accepts, and converted
//! to the endpoint's request struct.
//!
//! A list is given as one comma-separated text, as a repeated parameter, or as a JSON array; an empty text or array is
//! an empty list, which is different from an absent parameter.

use crate::{
    answer::{ApiError, shortened},
    params::{Kind, Param, Text},
};
use axum::http::{HeaderMap, StatusCode, header};
use drover_model::name;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The checked parameters of one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Args(Map<String, Value>);

/// A parameter's value before it is checked.
enum Given {
    Text(String),
    Array(Vec<String>),
}

impl Args {
    /// Collects and checks the parameters of a request.
    pub(crate) fn read(
        params: &[Param],
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
                            "a body of type {:?} is not accepted; accepted are application/json and \
                             application/x-www-form-urlencoded",
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
            if !args.0.contains_key(&param.name) {
                let mut error = ApiError::parameter(&param.name, "", param.kind.accepted());
                error.refusal.message =
                    format!("parameter {} is missing; accepted is {}", param.name, param.kind.accepted());
                return Err(error);
            }
        }
        Ok(args)
    }

    /// Converts to the endpoint's request struct.
    pub(crate) fn request<R: DeserializeOwned>(self) -> Result<R, ApiError> {
        serde_json::from_value(Value::Object(self.0))
            .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, format!("the parameters: {error}")))
    }

    fn put(&mut self, param: &Param, value: Given) -> Result<(), ApiError> {
        if let Kind::List(text) = &param.kind {
            let items = match value {
                Given::Array(items) => items,
                Given::Text(text) => {
                    let items = text.split(',').map(|item| item.trim_matches(' ')).filter(|item| !item.is_empty());
                    items.map(str::to_owned).collect()
                }
            };
            items.iter().try_for_each(|item| text.check(&param.name, item))?;
            if let Value::Array(list) = self.0.entry(&*param.name).or_insert_with(|| Value::Array(Vec::new())) {
                list.extend(items.into_iter().map(Value::String));
            }
            return Ok(());
        }
        let Given::Text(text) = value else {
            return Err(ApiError::parameter(&param.name, "a list", param.kind.accepted()));
        };
        match self.0.insert(param.name.clone(), param.kind.read(&param.name, text)?) {
            Some(_) => Err(ApiError::parameter(&param.name, "two values", "one value")),
            None => Ok(()),
        }
    }
}

impl Kind {
    /// Parses the value of a parameter.
    fn read(&self, name: &str, text: String) -> Result<Value, ApiError> {
        let value = match self {
            Kind::Text(what) => {
                what.check(name, &text)?;
                return Ok(Value::String(text));
            }
            Kind::Flag => flag(&text).map(Value::Bool),
            Kind::Number(from, to) => text.parse().ok().filter(|n| (*from..=*to).contains(n)).map(i64::into),
            Kind::Word(words) => words.contains(&text).then(|| Value::String(text.clone())),
            Kind::List(_) => None,
        };
        value.ok_or_else(|| ApiError::parameter(name, &text, self.accepted()))
    }
}

impl Text {
    fn check(&self, parameter: &str, text: &str) -> Result<(), ApiError> {
        let checked = self.format.as_ref().and_then(|format| name::check_format(format, text));
        checked.unwrap_or(Ok(())).map_err(|error| {
            let mut refused = ApiError::parameter(parameter, text, error.to_string());
            refused.refusal.message = format!("parameter {parameter}: {error}");
            refused
        })
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" | "" => Some(false),
        _ => None,
    }
}

fn unknown(name: &str, params: &[Param]) -> ApiError {
    let names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
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
        ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not a JSON object of parameters: {why}"))
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
            // The same as an absent parameter.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params;
    use drover_model::wire::*;
    use schemars::JsonSchema;
    use serde::Serialize;
    use std::fmt::Debug;

    /// Checks that a request round-trips as a form and as JSON.
    fn round_trips<R: Serialize + DeserializeOwned + JsonSchema + PartialEq + Debug>(request: R) {
        let written = serde_json::to_value(&request).unwrap();
        let pairs = written.as_object().unwrap().iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.clone(), text)
        });
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        for (query, body) in [(Some(&*form), String::new()), (None, written.to_string())] {
            let args = Args::read(&params::of::<R>(), query, &headers, body.as_bytes()).unwrap();
            assert_eq!(args.request::<R>().unwrap(), request, "{query:?} {body}");
        }
    }

    #[test]
    fn every_request_round_trips() {
        let name = |n: &str| n.parse().unwrap();
        round_trips(Nothing {});
        round_trips(ReadLog { lines: Some(7), follow: true });
        round_trips(ReadLog::default());
        let state = Some("migrate-live".parse().unwrap());
        let tag = Some("a".to_owned());
        round_trips(ListVms {
            limit: tag.clone(),
            node: Some(name("a")),
            state,
            tag: tag.clone(),
            negate: true,
            xml: Some(false),
        });
        round_trips(ListVms::default());
        let mut meta = ChangeMeta {
            limit: Some(vec![name("a"), name("b")]),
            selector: Some(SelectorOrder(None)),
            autostart: Some(false),
            migration_method: Some("live".parse().unwrap()),
            migration_max_downtime: Some(50),
            priority: Some(-5),
            resume_after_io_error: Some(true),
            profile: Some("small".parse().unwrap()),
            user_tags: vec!["a".to_owned(), "b".to_owned()],
            protected_tags: vec!["c".to_owned()],
        };
        round_trips(meta.clone());
        round_trips(DefineVm {
            xml: "<domain/>".to_owned(),
            node: Some(name("a")),
            adopt: true,
            no_check: true,
            force: true,
            advise: true,
            meta: meta.clone(),
        });
        // An empty list is different from an absent one.
        meta.limit = Some(Vec::new());
        meta.selector = Some("vcpus".parse().unwrap());
        round_trips(DefineOrChange { xml: None, node: None, no_check: true, force: true, meta });
        round_trips(DefineOrChange::default());
        round_trips(ModifyVm {
            xml: "&=,\u{e9}".to_owned(),
            restart: true,
            version: Some(i64::MAX),
            dry_run: true,
            no_check: true,
            force: true,
        });
        round_trips(RenameVm { new_name: "a.b".parse().unwrap(), version: None });
        round_trips(DeleteVm { delete_disks: true });
        for action in [TagAction::Add, TagAction::Remove] {
            round_trips(ChangeTag { action, tag: "a".to_owned(), protected: true });
        }
        for word in PowerOrder::WORDS {
            let state = word.parse().unwrap();
            round_trips(SetVmState { state, force: true, timeout: Some(9), advise: true, wait: true });
        }
        for word in MoveAction::WORDS {
            let order = MoveVm { node: Some(name("b")), force: true, ..MoveVm::by(word.parse().unwrap()) };
            round_trips(MoveVm { force_live: true, advise: true, wait: true, ..order });
        }
        round_trips(ListNodes {
            limit: Some("a".to_owned()),
            daemon_state: Some("dead".parse().unwrap()),
            coordinator_state: Some("takeover".parse().unwrap()),
            domain_state: Some("unflush".parse().unwrap()),
        });
        round_trips(SetDomainState { state: DomainOrder::Flush, wait: true, force: true });
        round_trips(SetNodePolicies {
            after_proof: Some("inherit".parse().unwrap()),
            power_on: Some("false".parse().unwrap()),
            on_return: Some("ready".parse().unwrap()),
        });
        round_trips(SetCoordinatorState { state: RoleOrder::Secondary });
        round_trips(SetMaintenance { state: true, until: Some(5), duration: Some(6) });
        for word in FaultKey::WORDS {
            round_trips(ListFaults { sort_key: Some(word.parse().unwrap()) });
        }
        round_trips(ListEvents {
            after: Some("@5,hv1:7".to_owned()),
            limit: Some(7),
            vm: tag.clone(),
            node: Some(name("a")),
            kind: tag.clone(),
            operation: Some("3f9a0c71d2e4".parse().unwrap()),
        });
        round_trips(ChangeConfig {
            selector: Some("memprov".parse().unwrap()),
            moves_per_source: Some(1),
            moves_per_target: Some(2),
            moves: Some(3),
            stall: Some("post-copy".parse().unwrap()),
            migration_deadline: Some(4),
            tolerate: Some(0),
            after_proof: Some("none".parse().unwrap()),
            power_on: Some(true),
            on_return: Some("ready".parse().unwrap()),
        });
        round_trips(PlanLosses { memory: Some(5), vcpus: Some(6) });
        round_trips(CreateToken { name: "a.b".parse().unwrap() });
    }
}
