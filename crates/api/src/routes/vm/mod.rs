//! VMs: what they are, their states, their definitions.

pub(crate) mod meta;
pub(crate) mod moves;

use super::{limit, logs, stopping};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
};
use axum::http::StatusCode;
use drover_agent::{Change, CommandError, Define, Modify};
use drover_model::{
    Definition, NodeName, Version, VmName, VmView,
    wire::{Changed, StateOf, Vm},
};
use drover_plan::admit::Command;
use similar::TextDiff;
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// How much longer than a guest's own deadline a request waits for it, and how long where there is none: for a start, a
/// delete.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn list(call: Call) -> Answer {
    let view = call.state.node.view();
    let by_name = limit(call.args.text("limit"))?;
    let uuid = call.args.text("limit").and_then(|l| Uuid::parse_str(l).ok());
    let node: Option<NodeName> = call.args.parsed("node")?;
    let (state, tag) = (call.args.text("state"), call.args.text("tag"));
    let wanted = |vm: &VmView| {
        let record = &vm.record.value;
        by_name.as_ref().is_none_or(|l| l.is_match(record.name.as_str()) || uuid == Some(record.uuid))
            && node.as_ref().is_none_or(|n| record.node.as_ref() == Some(n))
            && state.is_none_or(|s| record.state.word() == s)
            && tag.is_none_or(|t| record.meta.tags.contains_key(t))
    };
    let negate = call.args.flag("negate");
    // By name: the order that people read in.
    let all = view.names.values().filter_map(|uuid| view.vms.get(uuid));
    let with_xml = call.args.given_flag("xml").unwrap_or(true);
    let vms: Vec<Arc<VmView>> = all.filter(|vm| wanted(vm) != negate).cloned().collect();
    let view = view.clone();
    answer::list(vms, move |vm, piece| {
        let vm = Vm::of(&view, vm);
        let vm = if with_xml { vm } else { Vm { xml: Cow::Borrowed(""), ..vm } };
        serde_json::to_writer(piece, &vm)
    })
}

/// The VM that a request is about. A name that cannot be any VM's is not found either; names are checked where they are
/// given.
async fn subject(call: &Call) -> Result<Arc<VmView>, ApiError> {
    call.state.node.find_vm(&call.subject).await.ok_or_else(|| {
        ApiError::not_found(format!("there is no VM {:?} (by name or UUID)", answer::shortened(&call.subject)))
    })
}

async fn uuid(call: &Call) -> Result<Uuid, ApiError> {
    Ok(subject(call).await?.record.value.uuid)
}

pub(crate) async fn one(call: Call) -> Answer {
    let vm = subject(&call).await?;
    answer::json(&Vm::of(&call.state.node.view(), &vm))
}

pub(crate) async fn state(call: Call) -> Answer {
    let vm = subject(&call).await?;
    let record = &vm.record.value;
    answer::json(&StateOf { name: record.name.to_string(), state: record.state.word().to_owned() })
}

fn changed(message: String, change: &Change) -> Answer {
    let (name, uuid) = (change.record.name.to_string(), change.record.uuid.to_string());
    let to = change.record.state.destination().map(ToString::to_string);
    answer::json(&Changed { message, name, uuid, version: change.version.0, to, diff: None })
}

pub(crate) async fn define(call: Call) -> Answer {
    let xml = call.args.required("xml").to_owned();
    define_as(&call, xml).await
}

/// With a definition it is made, under the name or UUID that the path has; without, the metadata of the one that is
/// there are changed.
pub(crate) async fn define_or_set(call: Call) -> Answer {
    let Some(xml) = call.args.text("xml") else {
        if let Some(node) = call.args.text("node") {
            let accepted = "none without xml: POST to .../node moves a VM";
            return Err(ApiError::parameter("node", node, accepted));
        }
        return meta::set(call).await;
    };
    let own = Uuid::parse_str(&call.subject).ok();
    let definition = Definition::parse(xml, own.unwrap_or_else(Uuid::new_v4)).map_err(CommandError::from)?;
    if definition.name.as_str() != call.subject && own != Some(definition.uuid) {
        let given = format!("{} ({})", definition.name, definition.uuid);
        let accepted = format!("the definition of a VM with the name or UUID {:?}", answer::shortened(&call.subject));
        return Err(ApiError::parameter("xml", &given, accepted));
    }
    define_as(&call, definition.xml).await
}

async fn define_as(call: &Call, xml: String) -> Answer {
    let request = Define { xml, node: call.args.parsed("node")?, meta: meta::change(&call.args)? };
    let change = call.state.node.commands().define(request).await?;
    let on = change.record.node.as_ref().map(|n| format!(" on node {n}")).unwrap_or_default();
    changed(format!("Defined VM {}{on}.", change.record.name), &change)
}

pub(crate) async fn modify(call: Call) -> Answer {
    let request = Modify {
        xml: call.args.required("xml").to_owned(),
        expected: call.args.number("version").map(Version),
        restart: call.args.flag("restart"),
        dry_run: call.args.flag("dry_run"),
    };
    let dry_run = request.dry_run;
    let done = call.state.node.commands().modify(uuid(&call).await?, request).await?;
    let (name, state) = (&done.now.record.name, done.now.record.state.word());
    let diff = TextDiff::from_lines(&done.before, &done.now.record.xml);
    let diff = diff.unified_diff().context_radius(3).header("before", "after").to_string();
    let message = match (diff.is_empty(), dry_run, state) {
        (true, ..) => format!("Nothing changes for VM {name}."),
        (false, true, _) => format!("This would change VM {name}."),
        (false, false, "restart") => format!("VM {name} has a new definition and is restarted to take it up."),
        (false, false, "start") => format!("VM {name} has a new definition; it holds from the next start."),
        (false, false, _) => format!("VM {name} has a new definition."),
    };
    let (name, uuid) = (name.to_string(), done.now.record.uuid.to_string());
    answer::json(&Changed { message, name, uuid, version: done.now.version.0, to: None, diff: Some(diff) })
}

pub(crate) async fn rename(call: Call) -> Answer {
    let Some(name) = call.args.parsed::<VmName>("new_name")? else {
        return Err(ApiError::parameter("new_name", "", "a VM's name"));
    };
    let change =
        call.state.node.commands().rename(uuid(&call).await?, name, call.args.number("version").map(Version)).await?;
    changed(format!("VM {} is now named {}.", call.subject, change.record.name), &change)
}

pub(crate) async fn set_state(call: Call) -> Answer {
    let timeout_s: Option<u32> = call.args.number("timeout");
    let command = match call.args.required("state") {
        "start" => Command::Start,
        "shutdown" => Command::Shutdown(timeout_s),
        "stop" => Command::Stop,
        "restart" => Command::Restart(timeout_s),
        _ => Command::Disable { force: call.args.flag("force") },
    };
    let uuid = uuid(&call).await?;
    let change = call.state.node.commands().set_state(uuid, command).await?;
    let (name, state) = (change.record.name.clone(), change.record.state.word());
    if !call.args.flag("wait") {
        return changed(format!("VM {name} is to {}.", phrase(state)), &change);
    }
    let guest_has = Duration::from_secs(timeout_s.unwrap_or(drover_model::vm::SHUTDOWN_TIMEOUT_S).into());
    let settled = settle(&call, uuid, change.version, guest_has + PATIENCE).await?;
    match settled.as_ref() {
        None => answer::message(format!("VM {name} was deleted meanwhile.")),
        Some(vm) => {
            let view = call.state.node.view();
            let shown = Vm::of(&view, vm);
            if shown.state == "fail" {
                let message = format!("VM {name} could not be started: {}", shown.failed_reason);
                return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
            }
            let message = format!("VM {name} is {}.", if shown.state == "start" { "running" } else { "off" });
            let (name, version) = (name.to_string(), vm.record.version);
            answer::json(&Changed { message, name, uuid: shown.uuid, version: version.0, to: None, diff: None })
        }
    }
}

fn phrase(state: &str) -> &'static str {
    match state {
        "start" => "run",
        "restart" => "restart",
        "shutdown" => "shut down",
        "disable" => "stay off, disabled",
        _ => "be off",
    }
}

/// Waits until the VM has no more to do (`None`: it is gone), from the version that a command made on.
async fn settle(
    call: &Call,
    uuid: Uuid,
    version: Version,
    patience: Duration,
) -> Result<Option<Arc<VmView>>, ApiError> {
    until(call, uuid, version, patience, |vm| vm.is_settled().then_some(())).await.map(|(_, vm)| vm)
}

/// Waits until something can be told of the VM as it is from that version on, or it is gone (`None`).
async fn until<T>(
    call: &Call,
    uuid: Uuid,
    version: Version,
    patience: Duration,
    tell: impl Fn(&Vm<'_>) -> Option<T>,
) -> Result<(Option<T>, Option<Arc<VmView>>), ApiError> {
    let mut views = call.state.node.views();
    let (mut seen, mut told) = (false, None);
    let waited = views.wait_for(|view| match view.vms.get(&uuid) {
        None => seen,
        Some(vm) => {
            seen = true;
            told = if vm.record.version >= version { tell(&Vm::of(view, vm)) } else { None };
            told.is_some()
        }
    });
    match timeout(patience, waited).await {
        Ok(Ok(view)) => {
            let vm = view.vms.get(&uuid).cloned();
            drop(view);
            Ok((told, vm))
        }
        Ok(Err(_)) => Err(stopping()),
        Err(_) => {
            let view = call.state.node.view();
            let doing = view.vms.get(&uuid).map(|vm| Vm::of(&view, vm)).map(|vm| (vm.state, vm.doing));
            let (state, doing) = doing.unwrap_or_default();
            let doing = if doing.is_empty() { String::new() } else { format!(" ({doing})") };
            let message = format!(
                "not done after {} s: the VM is in state {state}{doing}. It goes on; look with 'drover vm info'",
                patience.as_secs()
            );
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, message))
        }
    }
}

pub(crate) async fn delete(call: Call) -> Answer {
    let vm = subject(&call).await?;
    let (uuid, name) = (vm.record.value.uuid, vm.record.value.name.clone());
    if call.state.node.commands().delete(uuid, call.args.flag("delete_disks")).await?.is_some() {
        let mut views = call.state.node.views();
        let gone = views.wait_for(|view| !view.vms.contains_key(&uuid));
        if !matches!(timeout(PATIENCE, gone).await, Ok(Ok(_))) {
            let node = vm.claim.as_ref().and_then(|c| c.value.node.clone()).or(vm.record.value.node.clone());
            let node = node.map(|n| n.to_string()).unwrap_or_default();
            let message =
                format!("VM {name} is being deleted, but its node {node} has not done it yet; look at that node");
            return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, message));
        }
    }
    answer::message(format!("Deleted VM {name}."))
}

pub(crate) async fn console(call: Call) -> Answer {
    let vm = subject(&call).await?;
    let record = &vm.record.value;
    if vm.devices.console.is_empty() {
        let message = format!(
            "VM {} has no console to log: add <serial type='pty'/> to the <devices> of its definition",
            record.name
        );
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    // Whoever ran it last has its log.
    let holder = vm.claim.as_ref().and_then(|c| c.value.node.clone());
    let node = holder.or_else(|| vm.status.as_ref().map(|s| s.node.clone())).or_else(|| record.node.clone());
    match node {
        Some(node) if node != *call.state.node.me() => {
            logs::remote(&call, &node, logs::Remote::Console(&record.uuid.to_string())).await
        }
        _ => logs::local(record.name.as_str(), call.state.node.console_file(&record.uuid), &call.args).await,
    }
}

pub(crate) async fn watch(call: Call) -> Answer {
    let uuid = uuid(&call).await?;
    super::watch(&call, move |view| serde_json::to_vec(&Vm::of(view, view.vms.get(&uuid)?)).ok())
}
