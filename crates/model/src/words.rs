//! States and settings that users write as one word: formatting and parsing in one place.

/// A word that is not one of the accepted ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a valid {what}; accepted are {accepted}")]
pub struct UnknownWord {
    /// What the word should name.
    pub what: &'static str,
    /// The given word.
    pub given: String,
    /// The accepted words.
    pub accepted: String,
}

/// Gives a type of unit variants its words.
macro_rules! words {
    ($ty:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        impl $ty {
            /// All words.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// The word for users and existing clients.
            pub fn word(self) -> &'static str {
                match self {
                    $($ty::$variant => $word),+
                }
            }
        }
        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }
        impl std::str::FromStr for $ty {
            type Err = $crate::words::UnknownWord;
            fn from_str(s: &str) -> Result<Self, $crate::words::UnknownWord> {
                match s {
                    $($word => Ok($ty::$variant),)+
                    _ => Err($crate::words::UnknownWord {
                        what: $what,
                        given: s.chars().take(80).collect(),
                        accepted: $ty::WORDS.join(", "),
                    }),
                }
            }
        }
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $ty {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($ty).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": $ty::WORDS})
            }
        }
    };
}
pub(crate) use words;

/// Serialises a type as its words. For types that are not part of a record.
macro_rules! written_as_words {
    ($($ty:ident),+) => {
        $(
            impl serde::Serialize for $ty {
                fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    to.serialize_str(self.word())
                }
            }
            impl<'de> serde::Deserialize<'de> for $ty {
                fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
                }
            }
        )+
    };
}
pub(crate) use written_as_words;
