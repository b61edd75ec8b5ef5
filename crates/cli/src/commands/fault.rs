//! Faults: problems that need an administrator's attention.

use super::{Context, Run, commands};
use crate::{
    args::word,
    failure::Failure,
    output::{Cell, Table},
};
use clap::Args;
use drover_model::wire::{FaultInfo, FaultKey, ListFaults};

commands! {
    /// Show faults: problems that need an administrator's attention
    Fault {
        List(List),
        Delete(Delete),
    }
}

/// List faults
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The field to sort by, in ascending order; if not given, the id
    #[arg(long, value_name = "KEY", value_parser = word::<FaultKey>(FaultKey::WORDS.iter().copied()))]
    sort_key: Option<FaultKey>,
}

/// Delete a fault; it is reported again if its cause is still there
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The fault's id, as the list shows it
    id: String,
}

impl Run for Delete {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let done = context.client()?.delete_fault(&self.id).await?;
        context.output.done(&done.message, &done)
    }
}

impl Run for List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let faults = context.client()?.faults(&ListFaults { sort_key: self.sort_key }).await?;
        context.output.list(&faults, |f| &f.id, table, "There are no faults.")
    }
}

fn table(faults: &[FaultInfo]) -> Table<'_> {
    let mut table = Table::new(&["ID", "STATUS", "COSTS", "MESSAGE"]);
    for fault in faults {
        let cost = format!("{} %", fault.health_delta);
        table.row(vec![
            Cell::text(&*fault.id),
            Cell::text(&*fault.status),
            Cell::number(cost),
            Cell::text(&*fault.message),
        ]);
    }
    table
}
