//! VM metadata.

use super::{done, found};
use crate::{
    args::{OneVm, word},
    commands::{Context, Run},
    complete,
    failure::Failure,
    output::{Facts, Format},
};
use clap::Args;
use clap_complete::ArgValueCompleter;
use drover_model::{
    MigrationMethod, NodeName, ProfileName,
    wire::{self, ChangeMeta, SelectorOrder, Tag},
};

/// Show or change a VM's metadata: where it may run, how it is moved
///
/// Without options, the metadata is shown. Fields that are not given stay as they are.
///
/// Examples: drover vm meta web; drover vm meta web --limit hv1,hv2 --method live; drover vm meta web --limit ''
#[derive(Debug, Args)]
pub(crate) struct Meta {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    change: MetaOptions,
}

// A VM's metadata.
#[derive(Debug, Args)]
pub(super) struct MetaOptions {
    /// The nodes that it may run on, separated by commas or repeated; '' allows all
    #[arg(short, long, value_name = "NODE,...", add = ArgValueCompleter::new(complete::node_lists))]
    limit: Vec<String>,
    /// How its node is chosen; none: by the cluster's default
    ///
    /// mem: the most free memory. memprov: the most free memory if all assigned VMs were running. load: the
    /// lowest load. vcpus: the fewest vCPUs. vms: the fewest VMs.
    #[arg(short, long, alias = "node-selector", value_name = "SELECTOR")]
    #[arg(value_parser = word::<SelectorOrder>(SelectorOrder::words()))]
    selector: Option<SelectorOrder>,
    /// Start it when its node next becomes ready (once)
    #[arg(short, long, overrides_with = "no_autostart")]
    autostart: bool,
    /// Do not start it when its node becomes ready
    #[arg(short = 'A', long, overrides_with = "autostart")]
    no_autostart: bool,
    /// How it is moved while it runs
    ///
    /// none: live, and if that fails, cold. live: only live. shutdown: it is shut down, and started on the other node.
    #[arg(short, long, value_name = "METHOD")]
    #[arg(value_parser = word::<MigrationMethod>(MigrationMethod::WORDS.iter().copied()))]
    method: Option<MigrationMethod>,
    /// Maximum downtime of its guest at the end of a live migration, in ms (default 300)
    #[arg(long, value_name = "MS")]
    max_downtime: Option<u32>,
    /// VMs with a higher priority are moved and started first (default 0)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// While its guest is paused by an I/O error, try now and then to let it run on
    ///
    /// It is tried after 10 s, and then with growing pauses, 5 minutes at most. The fault stays until it runs.
    #[arg(long, overrides_with = "no_resume_after_io_error")]
    resume_after_io_error: bool,
    /// Leave it paused after an I/O error until somebody resumes it (default)
    #[arg(long, overrides_with = "resume_after_io_error")]
    no_resume_after_io_error: bool,
    /// The profile that it was built from
    #[arg(long, value_name = "NAME")]
    profile: Option<ProfileName>,
    /// Add a tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Add a tag that cannot be removed; may be repeated
    #[arg(long = "protected-tag", value_name = "TAG")]
    protected_tags: Vec<String>,
}

impl MetaOptions {
    /// The change to send: only the given fields.
    pub(super) fn change(self) -> Result<ChangeMeta, Failure> {
        let limit: Result<Vec<NodeName>, _> = self
            .limit
            .iter()
            .flat_map(|some| some.split(','))
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .map(str::parse)
            .collect();
        let limit = limit.map_err(|error| Failure::usage(format!("--limit: {error}")))?;
        Ok(ChangeMeta {
            limit: (!self.limit.is_empty()).then_some(limit),
            selector: self.selector,
            autostart: (self.autostart || self.no_autostart).then_some(self.autostart),
            migration_method: self.method,
            migration_max_downtime: self.max_downtime,
            priority: self.priority,
            resume_after_io_error: (self.resume_after_io_error || self.no_resume_after_io_error)
                .then_some(self.resume_after_io_error),
            profile: self.profile,
            user_tags: self.tags,
            protected_tags: self.protected_tags,
        })
    }
}

impl Run for Meta {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output, vm) = (context.client()?, context.output, self.vm.vm);
        let change = self.change.change()?;
        if !change.is_empty() {
            let changed = found(&client, &vm, client.set_vm_meta(&vm, &change).await).await?;
            return done(&client, &changed, false, output).await;
        }
        let meta = found(&client, &vm, client.vm_meta(&vm).await).await?;
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
}

/// A VM's tags in one line, the protected ones marked.
pub(super) fn tags(tags: &[Tag]) -> String {
    let shown = tags.iter().map(|tag| format!("{}{}", tag.name, if tag.protected { " (protected)" } else { "" }));
    shown.collect::<Vec<_>>().join(", ")
}

/// The facts that 'vm info' and 'vm meta' have in common.
pub(super) fn facts(facts: &mut Facts, meta: &wire::Meta) {
    facts.fact("Limit", meta.node_limit.join(", "));
    facts.fact("Selector", if meta.node_selector == "none" { "the cluster's" } else { &*meta.node_selector });
    facts.fact("Autostart", if meta.node_autostart { "when its node becomes ready" } else { "" });
    let method = match meta.migration_method.as_str() {
        "none" => "live, else cold (none)".to_owned(),
        "live" => "live or not at all (live)".to_owned(),
        "shutdown" => "cold (shutdown)".to_owned(),
        other => other.to_owned(),
    };
    let downtime =
        if meta.migration_method == "shutdown" { String::new() } else { downtime(meta.migration_max_downtime) };
    facts.fact("Moves", format!("{method}{downtime}"));
    facts.fact("Priority", if meta.priority == 0 { String::new() } else { meta.priority.to_string() });
    facts.fact("I/O error", if meta.resume_after_io_error { "it is tried to let the guest run on" } else { "" });
    facts.fact("Profile", &*meta.profile);
    facts.fact("Tags", tags(&meta.tags));
}

fn downtime(ms: u32) -> String {
    format!(", paused for {ms} ms at most")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::Arguments,
        commands::{Command, vm::Vm},
    };
    use clap::Parser;

    fn given(words: &str) -> Result<ChangeMeta, Failure> {
        let words = ["drover", "vm", "meta", "web"].into_iter().chain(words.split(' ').filter(|w| !w.is_empty()));
        let words = words.map(|word| if word == "''" { "" } else { word });
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Vm(Vm::Meta(meta)) => meta.change.change(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_given_fields_are_sent() {
        let nodes = |names: &[&str]| Some(names.iter().map(|name| name.parse().unwrap()).collect());
        let none = ChangeMeta::default;
        for (words, sent) in [
            ("", none()),
            ("--limit ''", ChangeMeta { limit: Some(Vec::new()), ..none() }),
            ("-l a,b --limit c", ChangeMeta { limit: nodes(&["a", "b", "c"]), ..none() }),
            ("--autostart", ChangeMeta { autostart: Some(true), ..none() }),
            ("--no-autostart", ChangeMeta { autostart: Some(false), ..none() }),
            ("--autostart --no-autostart", ChangeMeta { autostart: Some(false), ..none() }),
            ("--resume-after-io-error", ChangeMeta { resume_after_io_error: Some(true), ..none() }),
            ("--no-resume-after-io-error", ChangeMeta { resume_after_io_error: Some(false), ..none() }),
            (
                "--priority -5 --selector none",
                ChangeMeta { priority: Some(-5), selector: Some(SelectorOrder(None)), ..none() },
            ),
            (
                "--method live --max-downtime 50",
                ChangeMeta {
                    migration_method: Some(MigrationMethod::Live),
                    migration_max_downtime: Some(50),
                    ..none()
                },
            ),
            (
                "--tag a --tag b --protected-tag c",
                ChangeMeta {
                    user_tags: vec!["a".to_owned(), "b".to_owned()],
                    protected_tags: vec!["c".to_owned()],
                    ..none()
                },
            ),
        ] {
            assert_eq!(given(words), Ok(sent), "{words}");
        }
        assert_eq!(given("--limit a,b/c").unwrap_err().code, 2, "not a valid node name");
    }
}
