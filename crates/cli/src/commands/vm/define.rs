//! Defining a VM.

use super::{done, meta::MetaOptions, read};
use crate::{
    commands::{Context, Run},
    complete,
    failure::Failure,
};
use clap::Args;
use clap_complete::ArgValueCompleter;
use drover_model::{
    NodeName,
    wire::{DefineVm, PowerOrder, SetVmState},
};
use std::path::PathBuf;

/// Define a VM from a libvirt domain XML; it is not started
///
/// The XML must have a name, memory and vcpu; a missing uuid is generated. Elements that Drover does not know are kept
/// unchanged.
///
/// Examples: drover vm define web.xml --start --wait; drover vm define db.xml --limit hv1,hv2 --method live
/// --priority 10
#[derive(Debug, Args)]
pub(crate) struct Define {
    /// The file with the XML; - for standard input
    file: PathBuf,
    /// The node to run it on; if not given, the best one by its selector
    #[arg(long, alias = "target", add = ArgValueCompleter::new(complete::nodes))]
    node: Option<NodeName>,
    /// Do not ask the hypervisor whether it accepts the definition
    #[arg(long)]
    no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    meta: MetaOptions,
    /// Take over its guest, which runs on a node already under an earlier record, as it runs
    #[arg(long, conflicts_with = "start")]
    adopt: bool,
    /// Also start it
    #[arg(long)]
    start: bool,
    /// Wait until it runs, and show the progress
    #[arg(short, long, requires = "start")]
    wait: bool,
}

impl Run for Define {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        let Define { node, adopt, no_check, force, .. } = self;
        let (xml, meta) = (read(&self.file)?, self.meta.change()?);
        let vm = DefineVm { xml, node, adopt, no_check, force, advise: true, meta };
        let defined = client.define_vm(&vm).await?;
        if !self.start {
            return done(&client, &defined, false, output).await;
        }
        output.note(&defined.message);
        let started = client.set_vm_state(&defined.uuid, SetVmState::to(PowerOrder::Start)).await?;
        done(&client, &started, self.wait, output).await
    }
}
