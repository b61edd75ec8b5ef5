//! Names given by users, validated once at the edge and trusted afterwards.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// Maximum length of the name of a node or VM, in bytes: the limit of a DNS label (RFC 1035, 2.3.4), because both
/// become host names.
pub const NAME_MAX: usize = 63;

/// An invalid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {given:?} is not accepted: {why}")]
pub struct BadName {
    /// What is named.
    pub kind: &'static str,
    /// The given name, truncated to a printable length.
    pub given: String,
    /// What is accepted instead.
    pub why: &'static str,
}

/// Maximum length of a token's name, in bytes: a node's own token is called by the node's name and a prefix.
pub const TOKEN_NAME_MAX: usize = 80;

/// The rule for all names: safe in a path, a file name, a URL, a DNS label and a shell.
fn check(kind: &'static str, given: &str, max: usize, dots: bool) -> Result<(), BadName> {
    let refuse = |why| Err(BadName { kind, given: given.chars().take(80).collect(), why });
    if given.is_empty() {
        return refuse("it is empty");
    }
    if given.len() > max {
        return refuse(if max == NAME_MAX {
            "at most 63 characters are accepted"
        } else {
            "at most 80 characters are accepted"
        });
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || (dots && c == '.');
    if !given.chars().all(inner) {
        return refuse(if dots {
            "accepted are letters, digits, '-', '_' and '.'"
        } else {
            "accepted are letters, digits, '-' and '_'"
        });
    }
    if !given.starts_with(|c: char| c.is_ascii_alphanumeric()) || !given.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        return refuse("it must begin and end with a letter or digit");
    }
    if given.contains("..") {
        return refuse("two dots in a row are not accepted");
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $ty:ident, $kind:literal, $max:ident, dots: $dots:literal, $format:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $ty(Arc<str>);

        impl $ty {
            /// Name of its format in JSON Schemas.
            pub const FORMAT: &'static str = $format;

            /// Checks and wraps a name.
            pub fn new(name: &str) -> Result<Self, BadName> {
                check($kind, name, $max, $dots)?;
                Ok($ty(name.into()))
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $ty {
            type Err = BadName;
            fn from_str(s: &str) -> Result<Self, BadName> {
                Self::new(s)
            }
        }
        impl TryFrom<String> for $ty {
            type Error = BadName;
            fn try_from(s: String) -> Result<Self, BadName> {
                Self::new(&s)
            }
        }
        impl From<$ty> for String {
            fn from(n: $ty) -> String {
                n.as_str().to_owned()
            }
        }
        schema_of_text!($ty, $what);
    };
}

/// Implements the JSON Schema of a text with a rule: its title and its format.
macro_rules! schema_of_text {
    ($ty:ident, $what:literal) => {
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $ty {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($ty).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "title": $what, "format": $ty::FORMAT})
            }
        }
    };
}

name_type!(
    /// A node's name: letters, digits, `-`, `_`; 1 to 63 of them.
    NodeName, "node", NAME_MAX, dots: false, "node-name", "a node's name"
);
name_type!(
    /// A VM's name: letters, digits, `-`, `_`, `.`; 1 to 63 of them.
    VmName, "VM", NAME_MAX, dots: true, "vm-name", "letters, digits, '-', '_' and '.'; at most 63"
);
name_type!(
    /// An API token's name: letters, digits, `-`, `_`, `.`; 1 to 80 of them.
    TokenName, "token", TOKEN_NAME_MAX, dots: true, "token-name", "letters, digits, '-', '_' and '.'; at most 80"
);

impl TokenName {
    /// The name of the token of a node's daemon.
    ///
    /// # Errors
    /// The node's name is too long for one.
    pub fn of_node(node: &NodeName) -> Result<TokenName, BadName> {
        TokenName::new(&format!("node-{node}"))
    }
}

/// Maximum length of a profile's name, in characters.
pub const PROFILE_NAME_MAX: usize = 128;

/// The name of the profile that a VM was built from. For users only: profiles are not looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(String);
schema_of_text!(ProfileName, "a name");

impl ProfileName {
    /// Name of its format in JSON Schemas.
    pub const FORMAT: &'static str = "profile-name";
}

impl FromStr for ProfileName {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        if s.chars().count() > PROFILE_NAME_MAX || s.chars().any(char::is_control) {
            let why = "accepted are at most 128 characters, none of them a control character";
            return Err(BadName { kind: "profile", given: s.chars().take(80).collect(), why });
        }
        Ok(ProfileName(s.to_owned()))
    }
}

impl TryFrom<String> for ProfileName {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> String {
        name.0
    }
}

/// Checks a text against a format of JSON Schemas; `None`: unknown format.
pub fn check_format(format: &str, text: &str) -> Option<Result<(), BadName>> {
    fn check<T: FromStr<Err = BadName>>(text: &str) -> Result<(), BadName> {
        text.parse::<T>().map(|_| ())
    }
    match format {
        NodeName::FORMAT => Some(check::<NodeName>(text)),
        VmName::FORMAT => Some(check::<VmName>(text)),
        TokenName::FORMAT => Some(check::<TokenName>(text)),
        ProfileName::FORMAT => Some(check::<ProfileName>(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_the_reason() {
        for (name, why) in [
            ("", "empty"),
            ("a/b", "accepted are"),
            ("..", "begin and end"),
            ("a..b", "two dots"),
            ("it's", "accepted are"),
            ("a\nb", "accepted are"),
            ("\"q\"", "accepted are"),
            ("-rf", "begin and end"),
            ("naïve", "accepted are"),
            (&"x".repeat(64), "at most 63"),
        ] {
            let error = VmName::new(name).unwrap_err().to_string();
            assert!(error.contains(why), "{name:?}: {error}");
        }
        assert!(VmName::new(&"x".repeat(63)).is_ok());
        assert!(VmName::new("web-1.example_2").is_ok());
        assert!(NodeName::new("hv.1").is_err());
    }

    #[test]
    fn a_bad_name_does_not_deserialise() {
        assert!(serde_json::from_str::<VmName>("\"a/b\"").is_err());
        assert_eq!(serde_json::from_str::<VmName>("\"a\"").unwrap().as_str(), "a");
    }
}
