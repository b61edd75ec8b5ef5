//! Endpoints of VMs: lists, states, definitions.

pub(crate) mod import;
pub(crate) mod meta;
pub(crate) mod moves;

use super::{limit, logs, stopping};
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, delete, field, get, post, put},
};
use axum::http::StatusCode;
use drover_agent::{Change, CommandError, Define, Defined, Modify};
use drover_model::{
    ClusterView, Definition, Version, VmView,
    wire::{
        Changed, DefineOrChange, DefineVm, DeleteVm, ListVms, Log, Message, ModifyVm, Nothing, PowerOrder, ReadLog,
        RenameVm, SetVmState, Settled, StateOf, Vm,
    },
};
use drover_plan::admit::Command;
use drover_plan::disks;
use similar::TextDiff;
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// Timeout of a wait, in addition to the guest's own timeout if it has one (a start or a delete has none).
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/vm", "VMs.", list).answers::<Vec<Vm<'static>>>(),
        post("/vm", "Define a VM.", define).answers::<Changed>(),
        get("/vm/{vm}", "One VM, by name or UUID.", one).answers::<Vm<'static>>(),
        post(
            "/vm/{vm}",
            "Define it, or change its metadata; fields that are not given stay as they are.",
            define_or_change,
        )
        .answers::<Changed>(),
        put("/vm/{vm}", "Replace its definition.", modify).answers::<Changed>(),
        delete("/vm/{vm}", "Delete it; the response is sent when it is deleted.", remove).answers::<Message>().waits(),
        get("/vm/{vm}/state", "Its wanted state.", state).answers::<StateOf>(),
        post("/vm/{vm}/state", "Start, shut down, stop, restart or disable it.", set_state)
            .answers::<Changed>()
            .waits(),
        get("/vm/{vm}/console", "Its console log.", console).answers::<Log>().follows(),
        post("/vm/{vm}/rename", "Rename it; it must be off.", rename).answers::<Changed>(),
        get("/vm/{vm}/watch", "Stream the VM: one JSON object per line at each change, until it is deleted.", watch),
    ]
}

async fn list(call: Call, request: ListVms) -> Answer {
    let view = call.state.node.view();
    let by_name = limit(field!(ListVms.limit), request.limit.as_deref())?;
    let uuid = request.limit.as_ref().and_then(|limit| Uuid::parse_str(limit).ok());
    let ListVms { node, state, tag, negate, .. } = request;
    let wanted = |vm: &VmView| {
        let record = &vm.record.value;
        by_name.as_ref().is_none_or(|l| l.is_match(record.name.as_str()) || uuid == Some(record.uuid))
            && node.as_ref().is_none_or(|n| record.node.as_ref() == Some(n))
            && state.is_none_or(|s| record.state.word() == s.word())
            && tag.as_ref().is_none_or(|t| record.meta.tags.contains_key(t))
    };
    // Sorted by name.
    let all = view.names.values().filter_map(|uuid| view.vms.get(uuid));
    let with_xml = request.xml.unwrap_or(true);
    let vms: Vec<Arc<VmView>> = all.filter(|vm| wanted(vm) != negate).cloned().collect();
    let view = view.clone();
    answer::list(vms, move |vm, piece| {
        let vm = Vm::of(&view, vm);
        let xml = if with_xml { vm.xml } else { Cow::Borrowed("") };
        // The reasons of placements are only part of a single VM's representation.
        let vm = Vm { xml, placed: None, going: None, ..vm };
        serde_json::to_writer(piece, &vm)
    })
}

/// The VM that a request is about. An invalid name gives 404 too; names are validated when they are assigned.
async fn subject(call: &Call) -> Result<Arc<VmView>, ApiError> {
    call.state.node.find_vm(&call.subject).await.ok_or_else(|| {
        ApiError::not_found(format!("there is no VM {:?} (by name or UUID)", answer::shortened(&call.subject)))
    })
}

async fn uuid(call: &Call) -> Result<Uuid, ApiError> {
    Ok(subject(call).await?.record.value.uuid)
}

async fn one(call: Call, _: Nothing) -> Answer {
    let vm = subject(&call).await?;
    answer::json(&Vm::of(&call.state.node.view(), &vm))
}

async fn state(call: Call, _: Nothing) -> Answer {
    let vm = subject(&call).await?;
    let record = &vm.record.value;
    answer::json(&StateOf { name: record.name.to_string(), state: record.state.word().to_owned() })
}

fn changed(message: String, change: &Change) -> Answer {
    warned(message, change, Vec::new())
}

/// The same, with what an administrator should know.
fn warned(message: String, change: &Change, warnings: Vec<String>) -> Answer {
    let (name, uuid) = (change.record.name.to_string(), change.record.uuid.to_string());
    let to = change.record.state.destination().map(ToString::to_string);
    answer::json(&Changed { message, name, uuid, version: change.version.0, to, diff: None, warnings })
}

/// What an order means for the loss of nodes, if that is asked for.
async fn warnings(call: &Call, change: &Change, advise: bool) -> Vec<String> {
    if advise { call.state.node.commands().warnings(change.record.uuid).await } else { Vec::new() }
}

/// What is said of a definition that no hypervisor has checked.
fn not_checked(why: Option<String>) -> String {
    why.map(|why| format!(" The definition was not checked by a hypervisor: {why}.")).unwrap_or_default()
}

async fn define(call: Call, request: DefineVm) -> Answer {
    let DefineVm { xml, node, adopt, no_check, force, advise, meta } = request;
    let request = Define { xml, node, adopt, meta: meta.into(), no_check, force };
    let Defined { now: change, unchecked } = call.state.node.commands().define(request).await?;
    let on = change.record.node.as_ref().map(|n| format!(" on node {n}")).unwrap_or_default();
    let warnings = warnings(&call, &change, advise).await;
    warned(format!("Defined VM {}{on}.{}", change.record.name, not_checked(unchecked)), &change, warnings)
}

/// With a definition, defines the VM, which must have the name or UUID in the path; without one, changes the metadata
/// of the existing VM.
async fn define_or_change(call: Call, request: DefineOrChange) -> Answer {
    let DefineOrChange { xml, node, no_check, force, meta } = request;
    let Some(xml) = xml else {
        if let Some(node) = node {
            let accepted = "none without xml: POST to .../node moves a VM";
            return Err(ApiError::parameter(field!(DefineOrChange.node), node.as_str(), accepted));
        }
        if no_check {
            return Err(ApiError::parameter(field!(DefineOrChange.no_check), "true", "none without xml"));
        }
        if force {
            return Err(ApiError::parameter(field!(DefineOrChange.force), "true", "none without xml"));
        }
        return meta::set(call, meta).await;
    };
    let own = Uuid::parse_str(&call.subject).ok();
    let definition = Definition::parse(&xml, own.unwrap_or_else(Uuid::new_v4)).map_err(CommandError::from)?;
    if definition.name.as_str() != call.subject && own != Some(definition.uuid) {
        let given = format!("{} ({})", definition.name, definition.uuid);
        let accepted = format!("the definition of a VM with the name or UUID {:?}", answer::shortened(&call.subject));
        return Err(ApiError::parameter(field!(DefineOrChange.xml), &given, accepted));
    }
    define(call, DefineVm { xml: definition.xml, node, adopt: false, no_check, force, advise: false, meta }).await
}

async fn modify(call: Call, request: ModifyVm) -> Answer {
    let ModifyVm { xml, restart, version, dry_run, no_check, force } = request;
    let request = Modify { xml, expected: version.map(Version), restart, dry_run, no_check, force };
    let done = call.state.node.commands().modify(uuid(&call).await?, request).await?;
    let (name, state) = (&done.now.record.name, done.now.record.state.word());
    let diff = TextDiff::from_lines(&done.before, &done.now.record.xml);
    let diff = diff.unified_diff().context_radius(3).header("before", "after").to_string();
    let message = match (diff.is_empty(), dry_run, state) {
        (true, ..) => format!("Nothing changes for VM {name}."),
        (false, true, _) => format!("This would change VM {name}."),
        (false, false, "restart") => format!("VM {name} has a new definition and is restarted to apply it."),
        (false, false, "start") => format!("VM {name} has a new definition, which takes effect at the next start."),
        (false, false, _) => format!("VM {name} has a new definition."),
    } + &not_checked(done.unchecked);
    let (name, uuid) = (name.to_string(), done.now.record.uuid.to_string());
    answer::json(&Changed {
        message,
        name,
        uuid,
        version: done.now.version.0,
        to: None,
        diff: Some(diff),
        warnings: Vec::new(),
    })
}

async fn rename(call: Call, request: RenameVm) -> Answer {
    let RenameVm { new_name, version } = request;
    let change = call.state.node.commands().rename(uuid(&call).await?, new_name, version.map(Version)).await?;
    changed(format!("VM {} is now named {}.", call.subject, change.record.name), &change)
}

async fn set_state(call: Call, request: SetVmState) -> Answer {
    let SetVmState { state: order, force, timeout: timeout_s, advise, wait } = request;
    let command = match order {
        PowerOrder::Start => Command::Start { force },
        PowerOrder::Shutdown => Command::Shutdown(timeout_s),
        PowerOrder::Stop => Command::Stop,
        PowerOrder::Restart => Command::Restart(timeout_s),
        PowerOrder::Disable => Command::Disable { force },
        PowerOrder::Pause => Command::Pause,
        PowerOrder::Resume => Command::Resume,
    };
    let uuid = uuid(&call).await?;
    let change = call.state.node.commands().set_state(uuid, command).await?;
    let (name, state) = (change.record.name.clone(), change.record.state.word());
    let warnings = warnings(&call, &change, advise && order == PowerOrder::Start).await;
    if !wait {
        return warned(said(order, &name, state), &change, warnings);
    }
    let guest_has = Duration::from_secs(timeout_s.unwrap_or(drover_model::vm::SHUTDOWN_TIMEOUT_S).into());
    let settled = settle(&call, uuid, change.version, guest_has + WAIT_TIMEOUT).await?;
    match settled.as_ref() {
        None => answer::message(format!("VM {name} was deleted meanwhile.")),
        Some(vm) => {
            let view = call.state.node.view();
            let shown = Vm::of(&view, vm);
            let message = match shown.settled() {
                Some(Settled::Failed(why)) => {
                    let message = format!("VM {name} could not be started: {why}");
                    return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
                }
                Some(Settled::Paused(why)) if order != PowerOrder::Pause => {
                    return Err(ApiError::new(StatusCode::BAD_REQUEST, format!("VM {name} {why}. {}", shown.doing)));
                }
                Some(Settled::Paused(why)) => format!("VM {name} {why}."),
                // It may be busy with a later order by now.
                _ if shown.state == "start" => format!("VM {name} is running."),
                _ => format!("VM {name} is off."),
            };
            let (name, version) = (name.to_string(), vm.record.version);
            let uuid = shown.uuid;
            answer::json(&Changed { message, name, uuid, version: version.0, to: None, diff: None, warnings })
        }
    }
}

/// What an order came to that is not waited for.
fn said(order: PowerOrder, name: &drover_model::VmName, state: &str) -> String {
    match (order, state) {
        (PowerOrder::Pause, "start") => format!("VM {name} is paused already."),
        (PowerOrder::Resume, "start") => format!("VM {name} runs already."),
        _ => format!("VM {name} is to {}.", phrase(state)),
    }
}

fn phrase(state: &str) -> &'static str {
    match state {
        "pause" => "pause",
        "resume" => "run on",
        "start" => "run",
        "restart" => "restart",
        "shutdown" => "shut down",
        "disable" => "stay off, disabled",
        _ => "be off",
    }
}

/// Waits until the VM has settled (`None`: it was deleted). `version`: the version that the command wrote; older ones
/// are ignored.
async fn settle(
    call: &Call,
    uuid: Uuid,
    version: Version,
    max_wait: Duration,
) -> Result<Option<Arc<VmView>>, ApiError> {
    until(call, uuid, version, max_wait, |vm| vm.is_settled().then_some(())).await.map(|(_, vm)| vm)
}

/// Waits until `look` returns something for the VM, or it is deleted (`None`). Versions older than `version` are
/// ignored.
async fn until<T>(
    call: &Call,
    uuid: Uuid,
    version: Version,
    max_wait: Duration,
    look: impl Fn(&Vm<'_>) -> Option<T>,
) -> Result<(Option<T>, Option<Arc<VmView>>), ApiError> {
    let mut views = call.state.node.views();
    let (mut seen, mut found) = (false, None);
    let waited = views.wait_for(|view| match view.vms.get(&uuid) {
        None => seen,
        Some(vm) => {
            seen = true;
            found = if vm.record.version >= version { look(&Vm::of(view, vm)) } else { None };
            found.is_some()
        }
    });
    match timeout(max_wait, waited).await {
        Ok(Ok(view)) => {
            let vm = view.vms.get(&uuid).cloned();
            drop(view);
            Ok((found, vm))
        }
        Ok(Err(_)) => Err(stopping()),
        Err(_) => {
            let view = call.state.node.view();
            let (state, doing) = doing(&view, &uuid);
            let message = format!(
                "not done after {} s: the VM is in state {state}{doing}. The work continues; see 'drover vm info'",
                max_wait.as_secs()
            );
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, message))
        }
    }
}

/// A VM's state, and in parentheses what is done with it now, if anything.
fn doing(view: &ClusterView, uuid: &Uuid) -> (String, String) {
    let (state, doing) =
        view.vms.get(uuid).map(|vm| Vm::of(view, vm)).map(|vm| (vm.state, vm.doing)).unwrap_or_default();
    (state, if doing.is_empty() { doing } else { format!(" ({doing})") })
}

async fn remove(call: Call, request: DeleteVm) -> Answer {
    let vm = subject(&call).await?;
    let (uuid, name) = (vm.record.value.uuid, vm.record.value.name.clone());
    // What its node will find by more than names is in that node's log.
    let view = call.state.node.view();
    let kept = if request.delete_disks {
        let vm = vm.clone();
        // It reads all definitions, which takes half a second if there are 10,000.
        let shared = move || disks::shared(&vm.record.value, view.vms.values().map(|other| &other.record.value));
        // A panic costs the words only.
        tokio::task::spawn_blocking(shared).await.unwrap_or_default()
    } else {
        Vec::new()
    };
    if call.state.node.commands().delete(uuid, request.delete_disks).await?.is_some() {
        let mut views = call.state.node.views();
        let gone = views.wait_for(|view| !view.vms.contains_key(&uuid));
        if !matches!(timeout(WAIT_TIMEOUT, gone).await, Ok(Ok(_))) {
            let node = vm.claim.as_ref().and_then(|c| c.value.node.clone()).or(vm.record.value.node.clone());
            let node = node.map(|n| n.to_string()).unwrap_or_default();
            let (_, doing) = doing(&call.state.node.view(), &uuid);
            let message =
                format!("VM {name} is being deleted, but its node {node} has not done it yet{doing}; check that node");
            return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, message));
        }
    }
    let kept = kept.iter().map(|(file, by)| format!(" {} is kept: VM {by} needs it.", file.display()));
    answer::message(format!("Deleted VM {name}.{}", kept.collect::<String>()))
}

async fn console(call: Call, request: ReadLog) -> Answer {
    let vm = subject(&call).await?;
    let record = &vm.record.value;
    if vm.devices.console.is_empty() {
        let message = format!(
            "VM {} has no console to log: add <serial type='pty'/> to the <devices> of its definition",
            record.name
        );
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    // The node that ran it last has its log.
    let holder = vm.claim.as_ref().and_then(|c| c.value.node.clone());
    let node = holder.or_else(|| vm.status.as_ref().map(|s| s.node.clone())).or_else(|| record.node.clone());
    match node {
        Some(node) if node != *call.state.node.me() => {
            logs::remote(&call, &node, logs::Remote::Console(&record.uuid.to_string()), request).await
        }
        _ => logs::local(&call, record.name.as_str(), call.state.node.console_file(&record.uuid), request).await,
    }
}

async fn watch(call: Call, _: Nothing) -> Answer {
    let uuid = uuid(&call).await?;
    super::watch(&call, move |view| serde_json::to_vec(&Vm::of(view, view.vms.get(&uuid)?)).ok())
}
