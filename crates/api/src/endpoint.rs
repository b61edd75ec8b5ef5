//! The table of endpoints.

use crate::{ApiState, answer::Answer, args::Args, openapi, routes};
use axum::http::Method;
use drover_model::{VmState, wire};
use futures_util::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};

/// What a parameter's value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text; what it is.
    Text(&'static str),
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Number(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// What it does, for people.
    pub about: &'static str,
}

const fn param(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, required: false, about }
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, required: true, about }
}

/// A request, as an endpoint's function gets it.
pub(crate) struct Call {
    pub(crate) state: ApiState,
    pub(crate) args: Args,
    /// The path's variable part: a VM's, node's or token's name.
    pub(crate) subject: String,
    /// Whether another daemon passed it on: then this one does not pass it on again, however their views differ.
    pub(crate) forwarded: bool,
}

/// One path and method.
pub struct Endpoint {
    /// GET, POST, ...
    pub method: Method,
    /// Below `/api/v1`; `{x}` is the variable part.
    pub path: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// Whether a token is needed.
    pub token: bool,
    /// Its parameters.
    pub params: &'static [Param],
    /// The schema of a good answer; `None`: a stream of text.
    pub answer: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub(crate) run: fn(Call) -> BoxFuture<'static, Answer>,
}

/// The most lines of a log that are asked for at once.
const LINES: Kind = Kind::Number(0, 100_000);
/// Seconds that a guest may be given to power off.
const TIMEOUT: Kind = Kind::Number(1, drover_plan::admit::TIMEOUT_MAX_S as i64);
const XML: Kind = Kind::Text("a libvirt domain XML");
const LIMIT: Kind = Kind::Text("a regular expression, found anywhere in the name unless it is anchored with ^ and $");

const VM_LIST: &[Param] = &[
    param("limit", LIMIT, "only VMs whose name matches, or whose UUID this is"),
    param("node", Kind::Text("a node's name"), "only VMs assigned to this node"),
    param("state", Kind::Word(&VmState::WORDS), "only VMs in this state"),
    param("tag", Kind::Text("a tag"), "only VMs with this tag"),
    param("negate", Kind::Flag, "the VMs that the other filters leave out"),
];
const VM_DEFINE: &[Param] = &[
    required("xml", XML, "the definition"),
    param("node", Kind::Text("a node's name"), "its node; if not given, one is chosen"),
];
const VM_MODIFY: &[Param] = &[
    required("xml", XML, "the new definition"),
    param("restart", Kind::Flag, "restart a running VM, so that it takes the definition up at once"),
    param("version", Kind::Number(0, i64::MAX), "the version that was read before; refused if there is a newer one"),
    param("dry_run", Kind::Flag, "only say what would change"),
];
const VM_STATE: &[Param] = &[
    required("state", Kind::Word(&["start", "shutdown", "stop", "restart", "disable"]), "what is wanted of it"),
    param("force", Kind::Flag, "for disable: cut the power instead of asking the guest"),
    param("timeout", TIMEOUT, "for shutdown and restart: seconds that the guest has to power off"),
    param("wait", Kind::Flag, "answer when it is done"),
];
const LOG: &[Param] = &[
    param("lines", LINES, "how many of the last lines (500)"),
    param("follow", Kind::Flag, "then go on with what is written, as text"),
];
const NODE_LIST: &[Param] = &[
    param("limit", LIMIT, "only nodes whose name matches"),
    param("daemon_state", Kind::Word(&["init", "run", "shutdown", "stop", "dead"]), "only nodes in this state"),
    param("coordinator_state", Kind::Word(&["primary", "secondary", "client"]), "only nodes in this state"),
    param("domain_state", Kind::Word(&["ready", "flush", "flushed", "unflush"]), "only nodes in this state"),
];

macro_rules! row {
    ($method:ident $path:literal, $about:literal, $params:expr, $answer:ty, $run:path) => {
        row!(@ $method $path, $about, true, $params, Some(|g| g.subschema_for::<$answer>()), $run)
    };
    (open $method:ident $path:literal, $about:literal, $answer:ty, $run:path) => {
        row!(@ $method $path, $about, false, &[], Some(|g| g.subschema_for::<$answer>()), $run)
    };
    (stream $method:ident $path:literal, $about:literal, $params:expr, $run:path) => {
        row!(@ $method $path, $about, true, $params, None, $run)
    };
    (@ $method:ident $path:literal, $about:literal, $token:expr, $params:expr, $answer:expr, $run:path) => {
        Endpoint {
            method: Method::$method,
            path: $path,
            about: $about,
            token: $token,
            params: $params,
            answer: $answer,
            run: |call| Box::pin($run(call)),
        }
    };
}

/// Every endpoint.
pub static ENDPOINTS: &[Endpoint] = &[
    row!(open GET "/", "The version of the API.", wire::Message, routes::cluster::root),
    row!(open GET "/openapi.json", "This document.", serde_json::Value, openapi::serve),
    row!(GET "/status", "The cluster as a whole.", &[], wire::Status, routes::cluster::status),
    row!(open GET "/status/primary_node", "The primary coordinator; 204 when there is none.", wire::StateOf, routes::cluster::primary_node),
    row!(GET "/faults", "What a person should look at.", &[], Vec<wire::FaultInfo>, routes::cluster::faults),
    row!(GET "/node", "Nodes.", NODE_LIST, Vec<wire::Node>, routes::node::list),
    row!(GET "/node/{node}", "One node.", &[], wire::Node, routes::node::one),
    row!(DELETE "/node/{node}", "Remove a node that is gone for good.", &[], wire::Message, routes::node::remove),
    row!(GET "/node/{node}/daemon-state", "What its daemon does.", &[], wire::StateOf, routes::node::daemon_state),
    row!(GET "/node/{node}/coordinator-state", "The part that it plays.", &[], wire::StateOf, routes::node::coordinator_state),
    row!(GET "/node/{node}/domain-state", "Whether it takes VMs.", &[], wire::StateOf, routes::node::domain_state),
    row!(GET "/node/{node}/log", "Its daemon's log.", LOG, wire::Log, routes::node::log),
    row!(GET "/vm", "VMs.", VM_LIST, Vec<wire::Vm<'static>>, routes::vm::list),
    row!(POST "/vm", "Define a VM.", VM_DEFINE, wire::Changed, routes::vm::define),
    row!(GET "/vm/{vm}", "One VM, by name or UUID.", &[], wire::Vm<'static>, routes::vm::one),
    row!(PUT "/vm/{vm}", "Give it a new definition.", VM_MODIFY, wire::Changed, routes::vm::modify),
    row!(DELETE "/vm/{vm}", "Delete it; answers when it is gone.", &[param("delete_disks", Kind::Flag, "delete the disks that are Drover's own too")], wire::Message, routes::vm::delete),
    row!(GET "/vm/{vm}/state", "What is wanted of it.", &[], wire::StateOf, routes::vm::state),
    row!(POST "/vm/{vm}/state", "Start it, stop it, and the like.", VM_STATE, wire::Changed, routes::vm::set_state),
    row!(GET "/vm/{vm}/node", "The node that it is assigned to.", &[], wire::StateOf, routes::vm::node),
    row!(GET "/vm/{vm}/console", "Its console's log.", LOG, wire::Log, routes::vm::console),
    row!(POST "/vm/{vm}/rename", "Give it a new name; it must be off.", &[
        required("new_name", Kind::Text("letters, digits, '-', '_' and '.'; at most 63"), "the new name"),
        param("version", Kind::Number(0, i64::MAX), "the version that was read before; refused if there is a newer one"),
    ], wire::Changed, routes::vm::rename),
    row!(stream GET "/vm/{vm}/watch", "The VM each time that it changes: one JSON object a line, until it is gone.", &[], routes::vm::watch),
    row!(GET "/token", "Tokens, without themselves.", &[], Vec<wire::TokenInfo>, routes::token::list),
    row!(POST "/token", "Make a token; it is shown this once.", &[required("name", Kind::Text("letters, digits, '-', '_' and '.'; at most 80"), "its name")], wire::NewToken, routes::token::create),
    row!(DELETE "/token/{token}", "Revoke a token.", &[], wire::Message, routes::token::delete),
];
