//! Observations of the outside world: three values, not two.

/// An observation of something that may be changing.
///
/// It becomes [`Obs::Unknown`] *before* an action on the thing begins, and something else only after a new look at it.
/// A timeout, a crash or a cancelled step leave it unknown, and the unknown is looked up, never guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obs<T> {
    /// It does not exist.
    Absent,
    /// It exists in this state.
    Known(T),
    /// It may exist or not, for this reason.
    Unknown(String),
}

impl<T> Obs<T> {
    /// The value, if it is known and exists.
    pub fn known(&self) -> Option<&T> {
        match self {
            Obs::Known(t) => Some(t),
            Obs::Absent | Obs::Unknown(_) => None,
        }
    }
}
