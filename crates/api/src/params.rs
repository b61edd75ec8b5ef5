//! The parameters of an endpoint, derived from the schema of its request struct.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// The type of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text(Text),
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Number(i64, i64),
    /// One of these words.
    Word(Vec<String>),
    /// Any number of texts: separated by commas, as a repeated parameter, or as a JSON array.
    List(Text),
}

/// A text, or the texts of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// Description of the text or texts.
    pub what: String,
    /// Name of the format to check, if any: see [`drover_model::name::check_format`].
    pub format: Option<String>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// Description.
    pub about: String,
}

impl Kind {
    /// What is accepted, for people.
    pub(crate) fn accepted(&self) -> String {
        match self {
            Kind::Text(text) => text.what.clone(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Number(from, to) => format!("a whole number from {from} to {to}"),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
            Kind::List(text) => format!("a list of {}", text.what),
        }
    }
}

/// The parameters of a request: the fields of its struct.
pub(crate) fn of<R: JsonSchema>() -> Vec<Param> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<R>();
    let required = |name: &str| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    fields
        .map(|(name, field)| Param {
            name: name.clone(),
            kind: kind(field),
            required: required(name),
            about: text(field, "description").replace('\n', " "),
        })
        .collect()
}

fn text(schema: &Value, key: &str) -> String {
    schema[key].as_str().unwrap_or_default().to_owned()
}

/// The type of a field, from its schema. Whether the field may be null (as optional ones) makes no difference.
fn kind(schema: &Value) -> Kind {
    let is = |wanted: &str| match &schema["type"] {
        Value::Array(types) => types.iter().any(|is| is == wanted),
        is => is == wanted,
    };
    if let Some(words) = schema["enum"].as_array() {
        return Kind::Word(words.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    if let Some(either) = schema["anyOf"].as_array() {
        return either.iter().find(|schema| schema["type"] != "null").map_or(Kind::Text(Text::default()), kind);
    }
    let what = text(schema, "title");
    let format = |schema: &Value| schema["format"].as_str().map(str::to_owned);
    if is("boolean") {
        Kind::Flag
    } else if is("integer") {
        let bound = |key: &str, none| schema[key].as_i64().unwrap_or(none);
        Kind::Number(bound("minimum", i64::MIN), bound("maximum", i64::MAX))
    } else if is("array") {
        Kind::List(Text { what, format: format(&schema["items"]) })
    } else {
        Kind::Text(Text { what, format: format(schema) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{name::check_format, wire};

    #[test]
    fn parameters_are_derived_from_the_request_struct() {
        let of = |params: Vec<Param>, name: &str| params.into_iter().find(|param| param.name == name).unwrap();
        let text = |what: &str, format: Option<&str>| Text { what: what.to_owned(), format: format.map(str::to_owned) };
        let words = |all: &[&str]| Kind::Word(all.iter().map(|word| (*word).to_owned()).collect());
        let define = |name: &str| of(super::of::<wire::DefineVm>(), name);
        assert_eq!(
            define("xml"),
            Param {
                name: "xml".to_owned(),
                kind: Kind::Text(text("a libvirt domain XML", None)),
                required: true,
                about: "The definition.".to_owned()
            }
        );
        for (name, kind) in [
            ("node", Kind::Text(text("a node's name", Some("node-name")))),
            ("limit", Kind::List(text("nodes' names", Some("node-name")))),
            ("selector", words(&["none", "mem", "memprov", "load", "vcpus", "vms"])),
            ("autostart", Kind::Flag),
            ("resume_after_io_error", Kind::Flag),
            ("migration_method", words(&["none", "live", "shutdown"])),
            ("migration_max_downtime", Kind::Number(1, 60_000)),
            ("priority", Kind::Number(-1000, 1000)),
            ("user_tags", Kind::List(text("tags", None))),
        ] {
            let param = define(name);
            assert_eq!((param.kind, param.required), (kind, false), "{name}");
        }
        assert_eq!(super::of::<wire::DefineVm>().len(), 16);
        assert_eq!(of(super::of::<wire::ModifyVm>(), "version").kind, Kind::Number(0, i64::MAX));
        assert_eq!(of(super::of::<wire::SetMaintenance>(), "until").kind, Kind::Number(0, i64::MAX));
        assert!(of(super::of::<wire::SetVmState>(), "state").required);
        assert_eq!(super::of::<wire::Nothing>(), []);
    }

    #[test]
    fn every_parameter_has_a_description_and_a_type() {
        for endpoint in crate::endpoint::ENDPOINTS.iter() {
            for param in &endpoint.params {
                let shown = format!("{} {}: {param:?}", endpoint.method, endpoint.path);
                assert!(!param.about.is_empty() && !param.about.contains('\n'), "{shown}");
                match &param.kind {
                    Kind::Text(text) | Kind::List(text) => {
                        assert!(!text.what.is_empty(), "{shown}");
                        let known = text.format.as_ref().is_none_or(|format| check_format(format, "x").is_some());
                        assert!(known, "its rule is checked: {shown}");
                    }
                    Kind::Number(from, to) => assert!(*from > i64::MIN && from < to, "{shown}"),
                    Kind::Word(words) => assert!(!words.is_empty(), "{shown}"),
                    Kind::Flag => {}
                }
            }
        }
    }
}
