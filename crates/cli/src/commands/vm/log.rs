//! The console log of a VM.

use crate::{
    args::{LogLines, OneVm},
    commands::{Context, Run, followable, print_log, print_stream},
    failure::Failure,
};
use clap::Args;

/// Show a VM's console log
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(flatten)]
    vm: OneVm,
    #[command(flatten)]
    log: LogLines,
}

impl Run for Log {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, vm, lines) = (context.client()?, self.vm.vm, self.log.lines);
        if self.log.follow {
            followable(context.output)?;
            return print_stream(client.follow_console(&vm, lines).await?, self.log.raw, context.output).await;
        }
        print_log(&client.console(&vm, lines).await?, self.log.raw, context.output)
    }
}
