//! States and settings that people spell by one word each: how they are printed and read, in one place.

/// A word that is none of the accepted ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {what}: accepted are {accepted}")]
pub struct UnknownWord {
    /// What was to be named.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// The accepted words.
    pub accepted: String,
}

/// Gives a type of unit variants its words.
macro_rules! words {
    ($ty:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        impl $ty {
            /// Every word.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// The word that users and existing clients know.
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
    };
}
pub(crate) use words;
