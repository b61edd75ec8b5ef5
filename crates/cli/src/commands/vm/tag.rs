//! A VM's tags.

use super::{done, found};
use crate::{
    args::OneVm,
    commands::{Context, Run, commands},
    failure::Failure,
    output::{Cell, Table},
};
use clap::Args;
use drover_model::wire::{self, ChangeTag, TagAction};

commands! {
    /// Manage a VM's tags, by which lists can be filtered ('drover vm list --tag TAG')
    Tag {
        List(List),
        Add(Add),
        Remove(Remove),
    }
}

/// List a VM's tags
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    vm: OneVm,
}

/// Add a tag to a VM, or change whether it is protected
///
/// Example: drover vm tag add db backup --protected
#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    vm: OneVm,
    /// The tag: letters, digits, '-', '_', '.' and ':'
    tag: String,
    /// The tag cannot be removed until it is added again without this option
    #[arg(short, long)]
    protected: bool,
}

/// Remove a tag from a VM
#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    vm: OneVm,
    /// The tag
    tag: String,
}

impl Run for List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, vm) = (context.client()?, self.vm.vm);
        let tags = found(&client, &vm, client.vm_tags(&vm).await).await?.tags;
        context.output.list(&tags, |tag| &tag.name, table, "The VM has no tags.")
    }
}

impl Run for Add {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let change = ChangeTag { action: TagAction::Add, tag: self.tag, protected: self.protected };
        change_tag(&self.vm.vm, &change, context).await
    }
}

impl Run for Remove {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let change = ChangeTag { action: TagAction::Remove, tag: self.tag, protected: false };
        change_tag(&self.vm.vm, &change, context).await
    }
}

async fn change_tag(vm: &str, change: &ChangeTag, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let changed = found(&client, vm, client.change_vm_tag(vm, change).await).await?;
    done(&client, &changed, false, context.output).await
}

fn table(tags: &[wire::Tag]) -> Table<'_> {
    let mut table = Table::new(&["TAG", "PROTECTED"]);
    for tag in tags {
        table.row(vec![Cell::text(&*tag.name), Cell::text(if tag.protected { "yes" } else { "" })]);
    }
    table
}
