//! The table of endpoints.

use crate::{ApiState, answer::Answer, args::Args, openapi, routes};
use axum::http::Method;
use drover_agent::{DEADLINE_MAX_S, LIMIT_MAX};
use drover_model::{
    CoordinatorState, MigrationMethod, Selector, Stall, VmState,
    meta::{MAX_DOWNTIME_MAX_MS, PRIORITY_MAX},
    wire,
};
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
    /// Any number of texts: with commas in between, as a parameter that is repeated, or as a JSON array. What they are.
    List(&'static str),
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

const NODE: Kind = Kind::Text("a node's name");
const SELECTOR: Kind = Kind::Word(&["none", "mem", "memprov", "load", "vcpus", "vms"]);
const MOVES: Kind = Kind::Number(1, LIMIT_MAX as i64);

const VM_LIST: &[Param] = &[
    param("limit", LIMIT, "only VMs whose name matches, or whose UUID this is"),
    param("node", NODE, "only VMs assigned to this node"),
    param("state", Kind::Word(&VmState::WORDS), "only VMs in this state"),
    param("tag", Kind::Text("a tag"), "only VMs with this tag"),
    param("negate", Kind::Flag, "the VMs that the other filters leave out"),
    param("xml", Kind::Flag, "whether their definitions are in the answer (true)"),
];
const VM_LIMIT: Param = param("limit", Kind::List("nodes' names"), "the nodes that it may run on; empty: all");
const VM_SELECTOR: Param = param("selector", SELECTOR, "how its node is chosen; none: by the cluster's default");
const VM_AUTOSTART: Param = param("autostart", Kind::Flag, "start it when its node becomes ready; holds once");
const VM_METHOD: Param = param(
    "migration_method",
    Kind::Word(MigrationMethod::WORDS),
    "how it is moved; none: live, and if that fails, cold",
);
const VM_DOWNTIME: Param = param(
    "migration_max_downtime",
    Kind::Number(1, MAX_DOWNTIME_MAX_MS as i64),
    "the longest pause at the end of a live migration, in milliseconds (300)",
);
const VM_PRIORITY: Param = param(
    "priority",
    Kind::Number(-(PRIORITY_MAX as i64), PRIORITY_MAX as i64),
    "the higher, the sooner it is moved or started (0)",
);
const VM_PROFILE: Param = param("profile", Kind::Text("a name"), "the profile that it was built from");
const VM_USER_TAGS: Param = param("user_tags", Kind::List("tags"), "tags to be added");
const VM_PROTECTED_TAGS: Param = param("protected_tags", Kind::List("tags"), "tags to be added that cannot be removed");

/// These parameters, and those that say something of a VM beside its definition.
macro_rules! and_meta {
    ($($param:expr),*) => {
        &[
            $($param,)*
            VM_LIMIT,
            VM_SELECTOR,
            VM_AUTOSTART,
            VM_METHOD,
            VM_DOWNTIME,
            VM_PRIORITY,
            VM_PROFILE,
            VM_USER_TAGS,
            VM_PROTECTED_TAGS,
        ]
    };
}

const VM_DEFINE: &[Param] =
    and_meta![required("xml", XML, "the definition"), param("node", NODE, "its node; if not given, one is chosen")];
const VM_DEFINE_OR_SET: &[Param] = and_meta![
    param("xml", XML, "the definition of a new VM of this name or UUID; if not given, the VM's metadata are changed"),
    param("node", NODE, "the new VM's node; if not given, one is chosen")
];
const VM_META: &[Param] = and_meta![];
const VM_TAG: &[Param] = &[
    required("action", Kind::Word(&["add", "remove"]), "what is done with it"),
    required("tag", Kind::Text("letters, digits, '-', '_', '.' and ':'; at most 63"), "the tag"),
    param("protected", Kind::Flag, "for add: it cannot be removed, unless it is added again without this"),
];
const VM_MOVE: &[Param] = &[
    required(
        "action",
        Kind::Word(&["migrate", "unmigrate", "move", "cancel"]),
        "migrate: for a while, its home stays what it is; move: for good; unmigrate: home again; cancel: a move that is under way is taken back",
    ),
    param("node", NODE, "for migrate and move: where to; if not given, the best node is chosen"),
    param("force", Kind::Flag, "for migrate: also if it is away from its home already"),
    param("force_live", Kind::Flag, "live or not at all, whatever its method says"),
    param("wait", Kind::Flag, "answer when it has arrived; if it does not, say why and where it is"),
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
    param("coordinator_state", Kind::Word(CoordinatorState::WORDS), "only nodes in this state"),
    param("domain_state", Kind::Word(&["ready", "flush", "flushed", "unflush"]), "only nodes in this state"),
];

const NODE_STATE: &[Param] = &[
    required(
        "state",
        Kind::Word(&["ready", "flush"]),
        "flush: its VMs are moved away; ready: it takes VMs, and they come home",
    ),
    param("wait", Kind::Flag, "answer when it is done"),
    param("force", Kind::Flag, "for flush: also if no other node takes VMs, so that they are all shut down"),
];
const COORDINATOR_STATE: &[Param] = &[required(
    "state",
    Kind::Word(&["primary", "secondary"]),
    "primary: it takes the role over; secondary: another coordinator takes it over",
)];
const MAINTENANCE: &[Param] = &[
    required("state", Kind::Flag, "whether the cluster is to be in maintenance"),
    param("until", Kind::Number(0, i64::MAX), "when it ends by itself: milliseconds since 1970, UTC"),
    param("duration", Kind::Number(1, 366 * 86_400), "instead of until: how long it lasts, in seconds"),
];
const FAULTS: &[Param] = &[param(
    "sort_key",
    Kind::Word(wire::FaultKey::WORDS),
    "what they are listed by, the least first; if not given, by id",
)];
const CONFIG: &[Param] = &[
    param("selector", Kind::Word(Selector::WORDS), "how the node of a VM is chosen that has no selector of its own"),
    param("moves_per_source", MOVES, "how many VMs move away from one node at once, at most"),
    param("moves_per_target", MOVES, "how many VMs move to one node at once, at most"),
    param("moves", MOVES, "how many VMs move at once in all, at most"),
    param("stall", Kind::Word(Stall::WORDS), "what becomes of a live migration that does not come to its end"),
    param("migration_deadline", Kind::Number(1, DEADLINE_MAX_S as i64), "when that is, in seconds"),
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
    row!(open GET "/", "The version of the API, and the node that answers.", wire::Root, routes::cluster::root),
    row!(open GET "/openapi.json", "This document.", serde_json::Value, openapi::serve),
    row!(GET "/status", "The cluster as a whole.", &[], wire::Status, routes::cluster::status),
    row!(POST "/status", "Switch maintenance on or off.", MAINTENANCE, wire::Maintenance, routes::cluster::set_maintenance),
    row!(open GET "/status/primary_node", "The primary coordinator; 204 when there is none.", wire::PrimaryNode, routes::cluster::primary_node),
    row!(GET "/faults", "What a person should look at.", FAULTS, Vec<wire::FaultInfo>, routes::cluster::faults),
    row!(GET "/config", "What holds for the whole cluster.", &[], wire::Config, routes::cluster::config),
    row!(PUT "/config", "Change it; what is not given stays.", CONFIG, wire::Config, routes::cluster::set_config),
    row!(GET "/node", "Nodes.", NODE_LIST, Vec<wire::Node>, routes::node::list),
    row!(GET "/node/{node}", "One node.", &[], wire::Node, routes::node::one),
    row!(DELETE "/node/{node}", "Remove a node that is gone for good.", &[], wire::Message, routes::node::remove),
    row!(GET "/node/{node}/daemon-state", "What its daemon does.", &[], wire::StateOf, routes::node::daemon_state),
    row!(GET "/node/{node}/coordinator-state", "The part that it plays.", &[], wire::StateOf, routes::node::coordinator_state),
    row!(POST "/node/{node}/coordinator-state", "Make it the primary, or have it hand that role over.", COORDINATOR_STATE, wire::NodeChanged, routes::node::set_coordinator_state),
    row!(GET "/node/{node}/domain-state", "Whether it takes VMs.", &[], wire::StateOf, routes::node::domain_state),
    row!(POST "/node/{node}/domain-state", "Take it out of service, or put it back.", NODE_STATE, wire::NodeChanged, routes::node::set_domain_state),
    row!(GET "/node/{node}/flush-plan", "What a flush would do with each of its VMs.", &[], Vec<wire::Fate>, routes::node::flush_plan),
    row!(stream GET "/node/{node}/watch", "The node each time that it changes: one JSON object a line, until it is removed.", &[], routes::node::watch),
    row!(GET "/node/{node}/log", "Its daemon's log.", LOG, wire::Log, routes::node::log),
    row!(GET "/vm", "VMs.", VM_LIST, Vec<wire::Vm<'static>>, routes::vm::list),
    row!(POST "/vm", "Define a VM.", VM_DEFINE, wire::Changed, routes::vm::define),
    row!(GET "/vm/{vm}", "One VM, by name or UUID.", &[], wire::Vm<'static>, routes::vm::one),
    row!(POST "/vm/{vm}", "Define it, or change its metadata; what is not given stays.", VM_DEFINE_OR_SET, wire::Changed, routes::vm::define_or_set),
    row!(PUT "/vm/{vm}", "Give it a new definition.", VM_MODIFY, wire::Changed, routes::vm::modify),
    row!(DELETE "/vm/{vm}", "Delete it; answers when it is gone.", &[param("delete_disks", Kind::Flag, "delete the disks that are Drover's own too")], wire::Message, routes::vm::delete),
    row!(GET "/vm/{vm}/state", "What is wanted of it.", &[], wire::StateOf, routes::vm::state),
    row!(POST "/vm/{vm}/state", "Start it, stop it, and the like.", VM_STATE, wire::Changed, routes::vm::set_state),
    row!(GET "/vm/{vm}/meta", "What is said of it beside its definition.", &[], wire::Meta, routes::vm::meta::one),
    row!(POST "/vm/{vm}/meta", "Change it; what is not given stays.", VM_META, wire::Changed, routes::vm::meta::set),
    row!(GET "/vm/{vm}/tags", "Its tags.", &[], wire::Tags, routes::vm::meta::tags),
    row!(POST "/vm/{vm}/tags", "Add a tag, or remove one.", VM_TAG, wire::Changed, routes::vm::meta::tag),
    row!(GET "/vm/{vm}/node", "The node that it is assigned to, and its home.", &[], wire::VmNode, routes::vm::moves::node),
    row!(POST "/vm/{vm}/node", "Bring it to another node.", VM_MOVE, wire::Changed, routes::vm::moves::relocate),
    row!(GET "/vm/{vm}/explain", "Where it would go if it were moved now, and why.", &[], wire::Explained, routes::vm::moves::explain),
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
