//! What is known of something in the world: three values, not two.

/// What we know of a thing that somebody may be changing.
///
/// It becomes [`Obs::Unknown`] *before* an action on it begins, and something else only when it was looked at
/// afterwards. A timeout, a crash or a cancelled step leave it unknown, and unknown is looked up, never guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obs<T> {
    /// It was looked for and is not there.
    Absent,
    /// It was looked at, and was like this.
    Known(T),
    /// It may be there or not, for this reason.
    Unknown(String),
}

impl<T> Obs<T> {
    /// The value, where it is known and there.
    pub fn known(&self) -> Option<&T> {
        match self {
            Obs::Known(t) => Some(t),
            Obs::Absent | Obs::Unknown(_) => None,
        }
    }
}
