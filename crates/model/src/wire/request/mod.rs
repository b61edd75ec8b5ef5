//! Parameters of requests: one struct for each request, with the parameters' names that the API's clients know.
//!
//! The client encodes these as a query or a form, the server decodes them, and the OpenAPI document is generated from
//! their schemas: a field's name is the parameter's name, its comment describes the parameter, and its type (with the
//! schema's `title`: what the text is, its range, and the words of an enum) is what is accepted.

mod cluster;
mod node;
mod vm;

pub use cluster::{ChangeConfig, CreateToken, ListEvents, ListFaults, PlanLosses, SetMaintenance};
pub use node::{
    DomainOrder, FenceNode, ListNodes, OwnAfterProof, OwnOnReturn, OwnPowerOn, RemoveNode, RoleOrder,
    SetCoordinatorState, SetDomainState, SetNodePolicies,
};
pub use vm::{
    ChangeMeta, ChangeTag, DefineOrChange, DefineVm, DeleteVm, ImportVm, ListVms, ModifyVm, MoveAction, MoveVm,
    PowerOrder, RenameVm, SelectorOrder, SetVmState, StateFilter, TagAction,
};

use serde::{Deserialize, Serialize, Serializer};
use std::fmt::Display;

/// A request without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Nothing {}

/// Parameters of a request for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReadLog {
    /// Number of last lines (500).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 100_000)))]
    pub lines: Option<usize>,
    /// Continue with new lines as they are written, as text.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follow: bool,
}

/// An unset flag is omitted.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A list as one text with commas, the only form in a query.
fn with_commas<'a, T: Display + 'a, S: Serializer>(
    list: impl IntoIterator<Item = &'a T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let items: Vec<String> = list.into_iter().map(T::to_string).collect();
    to.serialize_str(&items.join(","))
}

/// The same for an optional list that is given.
fn given_with_commas<T: Display, S: Serializer>(list: &Option<Vec<T>>, to: S) -> Result<S::Ok, S::Error> {
    with_commas(list.iter().flatten(), to)
}
