//! Operations: what was asked for at once, or decided at once, and all that follows from it, on whatever nodes. Its id
//! is in the answer to the request, in the records that it writes, in events and in log lines.

use crate::dice::Dice;
use serde::{Deserialize, Deserializer, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Minimum length of an id, in characters.
pub const OPERATION_MIN: usize = 4;
/// Maximum length of an id, in characters: that of a UUID.
pub const OPERATION_MAX: usize = 36;

/// The id of an operation. Those that Drover makes are 12 hexadecimal digits; clients may give others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperationId(String);

/// The text is not an id of an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not the id of an operation; accepted are {OPERATION_MIN} to {OPERATION_MAX} lower-case letters, \
     digits and hyphens"
)]
pub struct BadOperationId {
    /// The beginning of the text.
    given: String,
}

impl OperationId {
    /// The id with that number of those that `source` (a run of a daemon, or of a command) makes. They differ from each
    /// other; those of different sources are as good as random.
    pub fn made(source: Uuid, number: u64) -> OperationId {
        let (high, low) = source.as_u64_pair();
        // The outputs of different states differ (SplitMix64 is a bijection), and 48 bits of them are used.
        let mixed = Dice::new(high ^ low.rotate_left(32)).any().wrapping_add(number);
        OperationId(format!("{:012x}", Dice::new(mixed).any() >> 16))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OperationId {
    type Err = BadOperationId;

    fn from_str(text: &str) -> Result<OperationId, BadOperationId> {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (OPERATION_MIN..=OPERATION_MAX).contains(&text.len()) && text.bytes().all(fine) {
            return Ok(OperationId(text.to_owned()));
        }
        Err(BadOperationId { given: text.chars().take(OPERATION_MAX + 1).collect() })
    }
}

impl TryFrom<String> for OperationId {
    type Error = BadOperationId;
    fn try_from(text: String) -> Result<OperationId, BadOperationId> {
        text.parse()
    }
}

impl From<OperationId> for String {
    fn from(id: OperationId) -> String {
        id.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for OperationId {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OperationId".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "title": "the id of an operation"})
    }
}

/// An operation, as records have it: the last one that changed what the record orders. It is for people and decides
/// nothing: a daemon that does not know it may leave it out, or keep that of an earlier order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The name of the token with which it was asked for; empty: Drover decided it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// Reads the operation of a record; `None`, if it is not one that this version can read: that must not make the record
/// unreadable.
pub(crate) fn if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Operation>, D::Error> {
    let document = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(document).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_that_are_made_differ_and_are_valid() {
        let sources = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(1 << 64)];
        let made: Vec<OperationId> =
            sources.into_iter().flat_map(|source| (0..500).map(move |n| OperationId::made(source, n))).collect();
        assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), made.len());
        for id in made {
            assert_eq!((id.as_str().len(), id.as_str().parse()), (12, Ok(id.clone())));
        }
    }

    #[test]
    fn what_is_no_id_is_refused_with_what_is_accepted() {
        for good in ["abcd", "0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d"] {
            assert_eq!(good.parse::<OperationId>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "abc", "ABCD", "a b c d", "a\nbcd", "äbcd", &"x".repeat(37)] {
            let error = bad.parse::<OperationId>().unwrap_err().to_string();
            assert!(error.ends_with("accepted are 4 to 36 lower-case letters, digits and hyphens"), "{error}");
        }
        let long = "y".repeat(9999).parse::<OperationId>().unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn an_operation_that_cannot_be_read_is_none() {
        #[derive(Deserialize)]
        struct Record {
            #[serde(default, deserialize_with = "if_known")]
            operation: Option<Operation>,
        }
        let read = |text: &str| serde_json::from_str::<Record>(text).unwrap().operation;
        let known = Operation { id: "abcd".parse().unwrap(), by: "ops".to_owned() };
        assert_eq!(read(r#"{"operation": {"id": "abcd", "by": "ops"}}"#), Some(known));
        for other in ["{}", r#"{"operation": null}"#, r#"{"operation": 7}"#, r#"{"operation": {"id": "A B"}}"#] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
