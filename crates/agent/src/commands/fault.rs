//! Requests about faults.

use super::{CommandError, Commands, Result};
use crate::records;
use drover_model::{Fault, RecordKind, RecordPath};

impl Commands {
    /// Deletes a fault. It is reported again if its cause is still there.
    pub async fn delete_fault(&self, id: &str) -> Result<()> {
        let gone = || CommandError::NotFound(format!("there is no fault {id}; see 'drover fault list'"));
        // What is no name of a record cannot be one's id.
        let id = &Fault::key(&RecordPath::new(&format!("/faults/{id}")).map_err(|_| gone())?).ok_or_else(gone)?;
        // This server may not have heard of it yet.
        self.ctx.store.sync().await?;
        let fault = records::read::<Fault>(&*self.ctx.store, id).await?.ok_or_else(gone)?;
        match self.ctx.store.delete(&Fault::path(id), Some(fault.version)).await {
            Err(error) if error.is_conflict() => {
                Err(CommandError::Conflict(format!("fault {id} has just changed; look at it again")))
            }
            done => {
                done?;
                tracing::info!(fault = id, "deleted a fault");
                self.shown(|view| view.faults().get(id).is_none_or(|shown| shown.version != fault.version)).await;
                Ok(())
            }
        }
    }
}
