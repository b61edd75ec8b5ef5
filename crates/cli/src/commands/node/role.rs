//! The primary role: passing it to a node, having a node hand it over, and asking who has it.

use crate::{
    args::{OneNode, Waiting},
    commands::{Context, Run},
    complete,
    failure::Failure,
    output::{Format, Output},
    wait,
};
use clap::Args;
use clap_complete::ArgValueCompleter;
use drover_client::Client;
use drover_model::wire::{RoleOrder, SetCoordinatorState};
use std::io::{self, IsTerminal};

/// Make a coordinator the primary
///
/// One coordinator at a time is the primary: it has the floating addresses, which always lead to the primary's API, and
/// runs the services that may run only once. The handoff takes well below a second and loses no packet. If the node
/// cannot take the role over, the role stays where it is, and 'drover node info NODE' shows why. When the primary dies,
/// another coordinator takes over automatically.
///
/// Example: drover node primary hv2 --wait
#[derive(Debug, Args)]
pub(crate) struct Primary {
    #[command(flatten)]
    node: OneNode,
    #[command(flatten)]
    wait: Waiting,
}

/// Hand the primary role over to the best other coordinator
///
/// The handoff takes well below a second and loses no packet. To choose the node that takes over, use 'drover node
/// primary' with that node. If NODE is about to become the primary, it stays secondary; if it is not the primary,
/// nothing changes.
///
/// Example: drover node secondary hv1 --wait
#[derive(Debug, Args)]
pub(crate) struct Secondary {
    #[command(flatten)]
    node: OneNode,
    #[command(flatten)]
    wait: Waiting,
}

/// Check whether a node is the primary, by the exit code (for scripts)
///
/// 0: it is. 1: it is not, or a handoff to or from it is in progress. Other codes are errors: 2 wrong usage, 3 no such
/// node, 5 no answer (or another failure), 6 not authorised. With 0 and 1, nothing is printed, except with --format
/// json: the node's state. 'drover status' shows which node is the primary.
///
/// Examples: drover node is-primary && backup; drover node is-primary hv1 --wait
#[derive(Debug, Args)]
pub(crate) struct IsPrimary {
    /// The node's name; if not given, the node that answers
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    node: Option<String>,
    /// Wait until it is the primary, without a timeout
    #[arg(short, long)]
    wait: bool,
}

impl Run for Primary {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output, node) = (context.client()?, context.output, self.node.node);
        let order = SetCoordinatorState { state: RoleOrder::Primary };
        let done = if self.wait.wait {
            let earlier = client.node(&node).await?.takeover_problem;
            let ordered = client.set_coordinator_state(&node, order).await?;
            wait::primary(&client, &ordered, &earlier, output).await?
        } else {
            client.set_coordinator_state(&node, order).await?
        };
        output.done(&done.message, &done)
    }
}

impl Run for Secondary {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        let order = SetCoordinatorState { state: RoleOrder::Secondary };
        let ordered = client.set_coordinator_state(&self.node.node, order).await?;
        let done = if self.wait.wait { wait::secondary(&client, &ordered, output).await? } else { ordered };
        output.done(&done.message, &done)
    }
}

impl Run for IsPrimary {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = async { is_primary(&context.client()?, self.node.as_deref(), self.wait, context.output).await };
        answer.await.map_err(undecided)
    }
}

/// "No" is a failure without a message, which distinguishes it from an error (see [`undecided`]).
async fn is_primary(client: &Client, name: Option<&str>, wait: bool, output: Output) -> Result<(), Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => client.root().await?.node,
    };
    if name.is_empty() {
        return Err(Failure::usage("the node that answers is too old to report its name; give the node's name"));
    }
    let state = if wait {
        // No progress lines in a script's log.
        let quiet = output.quiet || !io::stderr().is_terminal();
        wait::until_primary(client, &name, Output { quiet, ..output }).await?
    } else {
        client.coordinator_state(&name).await?
    };
    if output.format == Format::Json {
        match output.json(&state) {
            // A closed pipe does not change the answer.
            Err(failure) if failure.code == 0 => {}
            printed => printed?,
        }
    }
    if state.state == "primary" { Ok(()) } else { Err(Failure::new("")) }
}

/// Exit code 1 means "no", so errors with that code get code 5.
fn undecided(failure: Failure) -> Failure {
    let code = if failure.code == 1 && !failure.message.is_empty() { 5 } else { failure.code };
    Failure { code, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::Arguments,
        commands::{Command, node::Node},
    };
    use clap::Parser;
    use serde_json::json;

    fn parsed(line: &str) -> Option<Node> {
        match Arguments::try_parse_from(line.split(' ')).ok()?.command {
            Command::Node(node) => Some(node),
            _ => None,
        }
    }

    #[test]
    fn primary_secondary_and_is_primary_are_parsed() {
        let named = |line: &str| match parsed(line) {
            Some(Node::Primary(Primary { node, wait })) => ("primary", node.node, wait.wait),
            Some(Node::Secondary(Secondary { node, wait })) => ("secondary", node.node, wait.wait),
            Some(Node::IsPrimary(IsPrimary { node, wait })) => ("is-primary", node.unwrap_or_default(), wait),
            _ => ("", String::new(), false),
        };
        for command in ["primary", "secondary", "is-primary"] {
            let line = format!("drover node {command} hv1");
            assert_eq!(named(&line), (command, "hv1".to_owned(), false));
            for wait in ["-w", "--wait"] {
                assert_eq!(named(&format!("{line} {wait}")), (command, "hv1".to_owned(), true));
            }
        }
        for command in ["primary", "secondary"] {
            assert!(parsed(&format!("drover node {command}")).is_none(), "the node must be named");
        }
        assert_eq!(named("drover node is-primary -w"), ("is-primary", String::new(), true), "the node that answers");
    }

    #[tokio::test]
    async fn not_being_primary_is_not_an_error() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: true };
        let ask = async |state: Option<&str>| {
            let answer = state.map(|state| ("/node/hv1/coordinator-state", state.to_owned()));
            let client = wait::tests::routes(&Vec::from_iter(answer)).await;
            is_primary(&client, Some("hv1"), false, output).await.map_err(undecided)
        };
        let state = |state: &str| json!({"name": "hv1", "state": state}).to_string();
        assert_eq!(ask(Some(&state("primary"))).await, Ok(()));
        for other in ["secondary", "takeover", "relinquish", "client"] {
            assert_eq!(ask(Some(&state(other))).await, Err(Failure { code: 1, message: String::new() }));
        }
        assert_eq!(ask(None).await.unwrap_err().code, 3, "no such node");
        assert_eq!(ask(Some("something else")).await.unwrap_err().code, 5, "not a valid answer");
    }

    #[tokio::test]
    async fn without_a_name_the_answering_node_is_meant() {
        let output = Output { format: Format::Pretty, coloured: false, quiet: true };
        let (primary, root) = (json!({"name": "hv2", "state": "primary"}), json!({"message": "", "node": "hv2"}));
        let state = ("/node/hv2/coordinator-state", primary.to_string());
        let client = wait::tests::routes(&[("/", root.to_string()), state.clone()]).await;
        assert_eq!(is_primary(&client, None, false, output).await, Ok(()));
        let old = wait::tests::routes(&[("/", json!({"message": ""}).to_string()), state]).await;
        assert_eq!(is_primary(&old, None, false, output).await.map_err(undecided).unwrap_err().code, 2);
    }
}
