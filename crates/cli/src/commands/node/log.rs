//! The log of a node's daemon.

use crate::{
    args::{LogLines, OneNode},
    commands::{Context, Run, followable, print_log, print_stream},
    failure::Failure,
};
use clap::Args;

/// Show the log of a node's daemon
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(flatten)]
    node: OneNode,
    #[command(flatten)]
    log: LogLines,
}

impl Run for Log {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, node, lines) = (context.client()?, self.node.node, self.log.lines);
        if self.log.follow {
            followable(context.output)?;
            return print_stream(client.follow_node_log(&node, lines).await?, self.log.raw, context.output).await;
        }
        print_log(&client.node_log(&node, lines).await?, self.log.raw, context.output)
    }
}
