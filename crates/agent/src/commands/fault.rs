//! Requests about faults.

use super::{
    CommandError, Commands, Result,
    update::{Outcome, Write},
};
use crate::{events::About, records};
use drover_model::{ClusterView, Fault, RecordKind, RecordPath, Stored};

impl Commands {
    /// Deletes a fault. It is reported again if its cause is still there.
    pub async fn delete_fault(&self, id: &str) -> Result<()> {
        let gone = || CommandError::NotFound(format!("there is no fault {id}; see 'drover fault list'"));
        // What is no name of a record cannot be one's id.
        let id = &Fault::key(&RecordPath::new(&format!("/faults/{id}")).map_err(|_| gone())?).ok_or_else(gone)?;
        self.update(About::Other(format!("fault {id}")), || async move {
            let Stored { version, .. } = records::read::<Fault>(&*self.ctx.store, id).await?.ok_or_else(gone)?;
            let changed = CommandError::Conflict(format!("fault {id} has just changed; look at it again"));
            let (ops, taken) = (vec![records::delete_op::<Fault>(id, Some(version))], vec![(0..1, changed)]);
            let deleted = id.clone();
            let shows = move |view: &ClusterView| view.faults().get(&deleted).is_none_or(|f| f.version != version);
            Ok(Outcome::Write(Write { ops, answer: (), log: "deleted".to_owned(), shows: Box::new(shows), taken }))
        })
        .await
    }
}
