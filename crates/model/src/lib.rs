//! Every type that Drover stores or sends, its validation, and its states; no I/O.

pub mod name;
pub mod path;

pub use name::{BadName, NodeName, TokenName, VmName};
pub use path::{BadPath, RecordPath, layout};
