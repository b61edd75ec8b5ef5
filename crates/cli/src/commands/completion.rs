//! Shell completion.

use super::{Context, Run};
use crate::{failure::Failure, output::Format};
use clap::Args;

/// Print the line that enables completion in a shell
///
/// Example: echo "$(drover completion bash)" >> ~/.bashrc
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

impl Run for Completion {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let line = match self.shell.as_str() {
            "fish" => "COMPLETE=fish drover | source".to_owned(),
            shell => format!("source <(COMPLETE={shell} drover)"),
        };
        let output = context.output;
        if output.format == Format::Json { output.json(&line) } else { output.print(&line) }
    }
}
