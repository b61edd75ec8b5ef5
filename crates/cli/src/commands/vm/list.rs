//! Listing VMs.

use crate::{
    args::word,
    commands::{Context, Run},
    complete,
    failure::Failure,
    output::{Cell, Format, Table, runs},
};
use clap::Args;
use clap_complete::ArgValueCompleter;
use drover_model::{
    NodeName,
    wire::{ListVms, ListedVm, StateFilter},
};
use std::borrow::Cow;

/// List VMs
///
/// Examples: drover vm list; drover vm list '^web' --state start; drover vm list --node hv1 --negate
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only VMs whose name matches this regular expression
    limit: Option<String>,
    /// Only VMs assigned to this node
    #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
    node: Option<NodeName>,
    /// Only VMs in this state
    #[arg(long, value_parser = word::<StateFilter>(StateFilter::WORDS.iter().copied()))]
    state: Option<StateFilter>,
    /// Only VMs with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Invert the filters: list the VMs that do not match them
    #[arg(long)]
    negate: bool,
}

impl Run for List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let List { limit, node, state, tag, negate } = self;
        let filters = ListVms { limit, node, state, tag, negate, xml: None };
        let (client, output) = (context.client()?, context.output);
        if output.format == Format::Json {
            return output.json(&client.vms(&filters).await?);
        }
        let vms = client.listed_vms(&filters).await?;
        let nothing = if filters == ListVms::default() {
            "There are no VMs yet; define one with 'drover vm define FILE'."
        } else {
            "No VM matches."
        };
        output.lines(&vms, |vm| &vm.name, table, nothing)
    }
}

/// The note on a VM in a list.
fn note(vm: &ListedVm) -> Cow<'_, str> {
    if let Some(migration) = &vm.migration
        && let Some(percent) = migration.percent()
    {
        return format!("to {}: {percent} %", migration.to).into();
    }
    // Shorter than what its node is doing, which is the way on.
    let paused = vm.paused_reason.strip_prefix("is ").unwrap_or(&vm.paused_reason);
    for text in [&*vm.failed_reason, paused, &*vm.doing] {
        if !text.is_empty() {
            return text.into();
        }
    }
    if !vm.move_failed.is_empty() {
        return format!("not moved {}", vm.move_failed).into();
    }
    if vm.pending_changes { "changed; restart to apply".into() } else { "".into() }
}

fn table(vms: &[ListedVm]) -> Table<'_> {
    let away = vms.iter().any(|vm| !vm.last_node.is_empty());
    let tagged = vms.iter().any(|vm| !vm.tags.is_empty());
    let mut names = vec!["NAME", "STATE", "RUNS", "NODE"];
    names.extend(away.then_some("HOME"));
    names.extend(["VCPUS", "MEMORY"]);
    names.extend(tagged.then_some("TAGS"));
    names.extend(["UUID", "NOTE"]);
    let mut table = Table::new(&names).sparing("UUID");
    for vm in vms {
        let mut row = vec![
            Cell::text(&*vm.name),
            Cell::state(&vm.state),
            Cell::state(runs(&vm.run_state)),
            Cell::text(&*vm.node),
        ];
        row.extend(away.then(|| Cell::text(&*vm.last_node)));
        row.extend([Cell::number(vm.vcpu), Cell::number(vm.memory)]);
        row.extend(tagged.then(|| {
            let tags: Vec<&str> = vm.tags.iter().map(|tag| tag.name.as_str()).collect();
            Cell::text(tags.join(","))
        }));
        row.extend([Cell::text(&*vm.uuid), Cell::text(note(vm))]);
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output::Output, wait::tests::vm};
    use serde_json::{Value, json};

    /// A VM as a list reads it from the API, with these fields replaced.
    fn listed(name: &str, fields: Value) -> ListedVm {
        let mut shown: Value = serde_json::from_str(&vm(1, json!({"is": "start"}), "hv1", 0)).unwrap();
        let object = shown.as_object_mut().unwrap();
        object.insert("name".to_owned(), json!(name));
        object.extend(fields.as_object().unwrap().clone());
        serde_json::from_value(shown).unwrap()
    }

    #[test]
    fn a_list_shows_states_and_notes() {
        let sent =
            json!({"to": "hv2", "total": 100, "sent": 50, "left": 75, "rate": 1, "elapsed": 1, "estimate": null});
        let vms = [
            listed("db", json!({"run_state": "absent", "state": "stop", "vcpu": 4, "memory": 2048})),
            listed("web", json!({"migration": sent, "doing": "being sent"})),
            listed("old", json!({"failed_reason": "no disk", "state": "fail", "doing": "nothing"})),
            listed("big", json!({"move_failed": "to hv2: no room", "pending_changes": true})),
            listed("new", json!({"pending_changes": true, "last_node": "hv3"})),
            listed(
                "log",
                json!({"run_state": "paused", "paused_reason": "is paused by an I/O error", "doing": "it is"}),
            ),
        ];
        let output = Output { format: Format::Pretty, coloured: false, quiet: false };
        let text = table(&vms).render(&output);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let uuid = &vms[0].uuid;
        assert_eq!(
            lines,
            [
                "NAME STATE RUNS NODE HOME VCPUS MEMORY UUID NOTE".to_owned(),
                format!("db stop off hv1 - 4 2048 {uuid} -"),
                format!("web start running hv1 - 0 0 {uuid} to hv2: 25 %"),
                format!("old fail running hv1 - 0 0 {uuid} no disk"),
                format!("big start running hv1 - 0 0 {uuid} not moved to hv2: no room"),
                format!("new start running hv1 hv3 0 0 {uuid} changed; restart to apply"),
                format!("log start paused hv1 - 0 0 {uuid} paused by an I/O error"),
            ]
        );
    }
}
