//! The endpoint that brings a domain of a node's libvirt under Drover.

use super::moves;
use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, post},
    peer,
};
use axum::http::StatusCode;
use drover_agent::{Import, Imported};
use drover_model::{
    NodeName,
    domain::devices::Devices,
    wire::{ImportVm, ImportedVm},
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        post("/node/{node}/import", "Bring a domain that its libvirt has already under Drover, as it is.", import)
            .answers::<ImportedVm>(),
    ]
}

async fn import(call: Call, request: ImportVm) -> Answer {
    let node = NodeName::new(&call.subject).ok();
    let node = node
        .filter(|node| call.state.node.view().nodes.contains_key(node))
        .ok_or_else(|| ApiError::not_found(format!("there is no node {:?}", answer::shortened(&call.subject))))?;
    // Only that node can look into its libvirt.
    if node != *call.state.node.me() {
        if call.forwarded {
            let me = call.state.node.me();
            let message = format!("node {me} got a request for a domain of node {node}; try again in a moment");
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        return answer::json(&peer::client(&call.state, &node)?.import_vm(node.as_str(), &request).await?);
    }
    let ImportVm { domain, dry_run, no_check, force } = request;
    let asked = Import { domain: domain.clone(), dry_run, no_check, force };
    let Imported { now, already, changes, notes, moves } = call.state.node.commands().import(asked).await?;
    let (record, domain) = (now.record, answer::shortened(&domain));
    let (name, state) = (record.name.to_string(), record.state.word().to_owned());
    let message = match (already, dry_run) {
        (true, _) => format!("Domain {domain} of node {node} is VM {name} already; nothing was changed."),
        (false, true) => format!("Domain {domain} of node {node} would become VM {name} in state {state}."),
        (false, false) => format!("Domain {domain} of node {node} is VM {name} now, in state {state}."),
    };
    let disks = Devices::read(&record.xml).disks.into_iter().map(|disk| (disk.dev.into(), disk.name.into())).collect();
    let others = moves.verdicts.into_iter().filter(|(other, _)| *other != node);
    answer::json(&ImportedVm {
        message,
        dry_run,
        name,
        uuid: record.uuid.to_string(),
        version: now.version.0,
        node: node.to_string(),
        state,
        disks,
        changes,
        notes,
        nodes: others.map(moves::judged).collect(),
    })
}
