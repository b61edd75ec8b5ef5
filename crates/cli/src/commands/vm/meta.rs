//! What is said of VMs beside their definitions.

use super::{done, with_hint};
use crate::{
    args::{self, Waiting},
    failure::Failure,
    output::{Cell, Facts, Format, Output, Table},
};
use drover_client::Client;
use drover_model::wire::{Meta, Tag};

/// The parameters of what was given.
pub(super) fn params(meta: &args::MetaOptions) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let mut put = |name, value: Option<String>| out.extend(value.map(|value| (name, value)));
    put("limit", (!meta.limit.is_empty()).then(|| meta.limit.join(",")));
    put("selector", meta.selector.clone());
    put("autostart", (meta.autostart || meta.no_autostart).then(|| meta.autostart.to_string()));
    put("migration_method", meta.method.clone());
    put("migration_max_downtime", meta.max_downtime.map(|ms| ms.to_string()));
    put("priority", meta.priority.map(|n| n.to_string()));
    put("profile", meta.profile.clone());
    put("user_tags", (!meta.tags.is_empty()).then(|| meta.tags.join(",")));
    put("protected_tags", (!meta.protected_tags.is_empty()).then(|| meta.protected_tags.join(",")));
    out
}

/// A VM's tags in one line; the protected ones are marked.
pub(super) fn tags(tags: &[Tag]) -> String {
    let shown = tags.iter().map(|tag| format!("{}{}", tag.name, if tag.protected { " (protected)" } else { "" }));
    shown.collect::<Vec<_>>().join(", ")
}

/// The facts that a VM's own page and its metadata have in common.
pub(super) fn facts(facts: &mut Facts, meta: &Meta) {
    facts.fact("Limit", meta.node_limit.join(", "));
    facts.fact("Selector", if meta.node_selector == "none" { "the cluster's" } else { &*meta.node_selector });
    facts.fact("Autostart", if meta.node_autostart { "when its node becomes ready" } else { "" });
    let method = match meta.migration_method.as_str() {
        "none" => "live, else cold (none)".to_owned(),
        "live" => "live or not at all (live)".to_owned(),
        "shutdown" => "cold (shutdown)".to_owned(),
        other => other.to_owned(),
    };
    let pause = if meta.migration_method == "shutdown" { String::new() } else { pause(meta.migration_max_downtime) };
    facts.fact("Moves", format!("{method}{pause}"));
    facts.fact("Priority", if meta.priority == 0 { String::new() } else { meta.priority.to_string() });
    facts.fact("Profile", &*meta.profile);
    facts.fact("Tags", tags(&meta.tags));
}

fn pause(ms: u32) -> String {
    format!(", paused for {ms} ms at most")
}

pub(super) async fn run(vm: &str, change: &args::MetaOptions, client: &Client, output: Output) -> Result<(), Failure> {
    let params = params(change);
    if !params.is_empty() {
        return match client.set_vm_meta(vm, &params).await {
            Ok(changed) => done(client, &changed, &Waiting { wait: false }, output).await,
            Err(error) => Err(with_hint(client, vm, error).await),
        };
    }
    let meta = match client.vm_meta(vm).await {
        Ok(meta) => meta,
        Err(error) => return Err(with_hint(client, vm, error).await),
    };
    match output.format {
        Format::Json => output.json(&meta),
        Format::Raw => output.print(&meta.name),
        Format::Pretty => {
            let mut shown = Facts::default();
            shown.fact("Name", &*meta.name);
            facts(&mut shown, &meta);
            output.print(&shown.render(&output))
        }
    }
}

pub(super) async fn tag(command: args::Tag, client: &Client, output: Output) -> Result<(), Failure> {
    let (vm, changed) = match command {
        args::Tag::List(one) => {
            let tags = match client.vm_tags(&one.vm).await {
                Ok(found) => found.tags,
                Err(error) => return Err(with_hint(client, &one.vm, error).await),
            };
            return output.list(&tags, |tag| &tag.name, table, "The VM has no tags.");
        }
        args::Tag::Add { vm, tag, protected } => {
            let changed = client.add_vm_tag(&vm.vm, &tag, protected).await;
            (vm.vm, changed)
        }
        args::Tag::Remove { vm, tag } => {
            let changed = client.remove_vm_tag(&vm.vm, &tag).await;
            (vm.vm, changed)
        }
    };
    match changed {
        Ok(changed) => done(client, &changed, &Waiting { wait: false }, output).await,
        Err(error) => Err(with_hint(client, &vm, error).await),
    }
}

fn table(tags: &[Tag]) -> Table {
    let mut table = Table::new(&["TAG", "PROTECTED"]);
    for tag in tags {
        table.row(vec![Cell::text(&*tag.name), Cell::text(if tag.protected { "yes" } else { "" })]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Arguments;
    use clap::Parser;

    fn given(words: &str) -> Vec<(&'static str, String)> {
        let words = ["drover", "vm", "meta", "web"].into_iter().chain(words.split(' ').filter(|w| !w.is_empty()));
        let words = words.map(|word| if word == "''" { "" } else { word });
        match Arguments::try_parse_from(words).unwrap().command {
            args::Command::Vm(args::Vm::Meta { change, .. }) => params(&change),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let pairs = |all: &[(&'static str, &str)]| all.iter().map(|(n, v)| (*n, (*v).to_owned())).collect::<Vec<_>>();
        for (words, sent) in [
            ("", vec![]),
            ("--limit ''", vec![("limit", "")]),
            ("-l a,b --limit c", vec![("limit", "a,b,c")]),
            ("--autostart", vec![("autostart", "true")]),
            ("--no-autostart", vec![("autostart", "false")]),
            ("--autostart --no-autostart", vec![("autostart", "false")]),
            ("--priority -5 --selector none", vec![("selector", "none"), ("priority", "-5")]),
            ("--method live --max-downtime 50", vec![("migration_method", "live"), ("migration_max_downtime", "50")]),
            ("--tag a --tag b --protected-tag c", vec![("user_tags", "a,b"), ("protected_tags", "c")]),
        ] {
            assert_eq!(given(words), pairs(&sent), "{words}");
        }
    }
}
