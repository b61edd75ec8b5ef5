//! The history of the cluster.

use super::{Context, Run, followable};
use crate::{
    complete,
    failure::Failure,
    output::{Cell, Output, Table, harmless},
};
use clap::Args;
use clap_complete::ArgValueCompleter;
use drover_client::{Client, ClientError, Followed};
use drover_model::{
    NodeName, OperationId, WallTime,
    wire::{Event, ListEvents},
};
use futures_util::StreamExt;
use std::{collections::BTreeMap, pin::pin, time::Duration};

/// Pause before a stream that ended is resumed.
const AGAIN: Duration = Duration::from_secs(1);

/// Show what was decided and done, and why
///
/// Every node keeps the history of what it did, for some thousand events; this command joins those of all nodes that
/// answer, the newest last. The history of a node that is off is shown again when it is back.
///
/// Examples: drover cluster events; drover cluster events --vm web --limit 20; drover cluster events --follow
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Keep printing new events until interrupted
    #[arg(long)]
    follow: bool,
    /// Only events about this VM
    #[arg(long, value_name = "VM", add = ArgValueCompleter::new(complete::vms))]
    vm: Option<String>,
    /// Only events about this node, or told by it
    #[arg(long, value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    node: Option<NodeName>,
    /// Only events of this kind, such as fence-proved (format JSON shows it)
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only events of this operation: of what one command began, or one decision of Drover's
    #[arg(long, value_name = "ID")]
    operation: Option<OperationId>,
    /// Number of events to show, from the end
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    limit: usize,
}

impl Run for List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        let List { follow: following, limit, vm, node, kind, operation } = self;
        let which = ListEvents { after: None, limit: Some(limit), vm, node, kind, operation };
        if following {
            followable(output)?;
            let mut interrupted = pin!(tokio::signal::ctrl_c());
            return tokio::select! {
                biased;
                _ = &mut interrupted => Err(Failure::interrupted()),
                failed = follow(&client, which, output) => failed,
            };
        }
        let found = client.events(&which).await?;
        if output.format == crate::output::Format::Json {
            return output.json(&found);
        }
        output.warn(&missing(&found.unanswered));
        output.list(&found.events, |event| &event.what, table, "There are no events.")
    }
}

/// Prints events as they come. Resumes when the node that answers goes away.
async fn follow(client: &Client, mut which: ListEvents, output: Output) -> Result<(), Failure> {
    let mut told = false;
    loop {
        let error = match client.follow_events(&which).await {
            Ok(events) => {
                let mut events = pin!(events);
                loop {
                    match events.next().await {
                        Some(Ok(Followed::Event(event, position))) => {
                            told = false;
                            output.print(&line(&event))?;
                            which.after = Some(position);
                        }
                        Some(Ok(Followed::Position(position))) => which.after = Some(position),
                        Some(Ok(Followed::Unanswered(nodes))) => output.warn(&missing(&nodes)),
                        Some(Err(error)) => break Some(error),
                        None => break None,
                    }
                }
            }
            Err(error) => Some(error),
        };
        match error {
            Some(error @ (ClientError::Refused { .. } | ClientError::BadAnswer { .. })) if !is_passing(&error) => {
                return Err(error.into());
            }
            Some(error) if !told => {
                output.note(&format!("{error}; trying again"));
                told = true;
            }
            _ => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether a node that has just begun may say so.
fn is_passing(error: &ClientError) -> bool {
    error.status() == Some(503)
}

fn missing(unanswered: &BTreeMap<String, String>) -> Vec<String> {
    let one = |(node, why): (&String, &String)| format!("the events of node {node} are missing: {why}");
    unanswered.iter().map(one).collect()
}

/// What an event is about.
fn about(event: &Event) -> String {
    match (event.vm.as_str(), event.about.as_str()) {
        ("", "") => "cluster".to_owned(),
        ("", node) => format!("node {node}"),
        (vm, _) => format!("VM {vm}"),
    }
}

/// The sentence, with what it rests on, and who asked.
fn what(event: &Event) -> String {
    let told = ["evidence", "problems", "why", "doing"].iter().filter_map(|key| event.details.get(*key));
    let mut more: Vec<String> = told.filter(|text| !text.is_empty()).cloned().collect();
    if !event.by.is_empty() {
        more.push(format!("asked by {}", event.by));
    }
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join("; ")) };
    format!("{}{more}", event.what)
}

fn line(event: &Event) -> String {
    let (about, what) = (about(event), what(event));
    harmless(format!("{}  {about:<16}  {what}", WallTime(event.at))).into_owned()
}

fn table(events: &[Event]) -> Table<'_> {
    let mut table = Table::new(&["TIME", "ABOUT", "WHAT"]);
    for event in events {
        let (time, about, what) = (WallTime(event.at).to_string(), about(event), what(event));
        table.row(vec![Cell::text(time), Cell::text(about), Cell::text(what)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_evidence_and_who_asked() {
        let details = [("evidence", "its BMC reads off"), ("boot", "7")];
        let event = Event {
            at: 1_700_000_000_000,
            about: "hv2".to_owned(),
            what: "Node hv2 is proved to be off.".to_owned(),
            by: "ops".to_owned(),
            details: details.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Event::default()
        };
        let wanted = format!(
            "{}  node hv2          Node hv2 is proved to be off. (its BMC reads off; asked by ops)",
            WallTime(event.at)
        );
        assert_eq!(line(&event), wanted);
        let vm = Event { vm: "web\u{1b}[2J".to_owned(), about: "hv2".to_owned(), ..Event::default() };
        assert!(about(&vm).starts_with("VM web") && !line(&vm).contains('\u{1b}'));
        assert_eq!(about(&Event::default()), "cluster");
    }
}
