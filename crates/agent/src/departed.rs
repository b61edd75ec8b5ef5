//! The record [`Departed`] in transactions: definitions check it, orders of deletion change it.

use crate::{commands::CommandError, records};
use drover_model::{Claim, Departed, Only, RecordKind, Stored, VmRecord, VmState};
use drover_plan::{
    admit::Refusal,
    disks::{self, Needs},
};
use drover_store::{Op, Store, StoreError};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The record, and the VMs in it whose deletion has not ended.
pub(crate) struct Now {
    stored: Stored<Departed>,
    leaving: Vec<VmRecord>,
}

impl Now {
    /// Reads them.
    ///
    /// # Errors
    /// Those of the store; a VM's record that cannot be read.
    pub(crate) async fn read(store: &dyn Store) -> Result<Now, StoreError> {
        let stored = record(store).await?;
        let paths: Vec<_> = stored.value.disks_of.iter().map(|uuid| (VmRecord::path(uuid), false)).collect();
        let mut leaving = Vec::new();
        for ((path, _), (found, _)) in paths.iter().zip(store.read_many(&paths).await?) {
            let Some(found) = found else { continue };
            let vm = records::decode::<VmRecord>(path, &found.data, found.version)?.value;
            if matches!(vm.state, VmState::Delete { disks: true }) {
                leaving.push(vm);
            }
        }
        Ok(Now { stored, leaving })
    }

    /// The record without the VMs whose deletion has ended.
    pub(crate) fn value(&self) -> Departed {
        let disks_of: BTreeSet<Uuid> = self.leaving.iter().map(|vm| vm.uuid).collect();
        Departed { disks_of, ..self.stored.value.clone() }
    }

    /// The step for a transaction that writes this definition: it fails if a deletion was ordered meanwhile.
    ///
    /// # Errors
    /// The definition names a file that is being deleted.
    pub(crate) fn admit(&self, vm: &VmRecord) -> Result<Op, CommandError> {
        if let Some(needs) = Needs::of(vm) {
            let others = self.leaving.iter().filter(|leaving| leaving.uuid != vm.uuid);
            let lost = |leaving: &VmRecord| Some((disks::goes_away(leaving, &needs)?, leaving.name.clone()));
            if let Some((file, vm)) = others.into_iter().find_map(lost) {
                return Err(Refusal::FileLeaves { file, vm }.into());
            }
        }
        if self.value() == self.stored.value {
            return Ok(records::check_op::<Departed>(&Only, self.stored.version));
        }
        Ok(records::set_op(&Only, &self.stored, &self.value())?)
    }

    /// The step for the transaction that orders a VM to be deleted with its disks. It makes all definitions fail that
    /// have not seen the order.
    ///
    /// # Errors
    /// The record cannot be encoded.
    pub(crate) fn order(&self, uuid: Uuid) -> Result<Op, StoreError> {
        let mut new = self.value();
        new.disks_of.insert(uuid);
        records::set_op(&Only, &self.stored, &new)
    }
}

async fn record(store: &dyn Store) -> Result<Stored<Departed>, StoreError> {
    let missing = || StoreError::NotFound(Departed::path(&Only));
    records::read::<Departed>(store, &Only).await?.ok_or_else(missing)
}

/// The step for the transaction that deletes the records of a VM with this claim, if there is anything to remember.
///
/// # Errors
/// Those of the store.
pub(crate) async fn remember(store: &dyn Store, claim: &Claim) -> Result<Option<Op>, StoreError> {
    let old = record(store).await?;
    let new = old.value.after(claim);
    // The floor is never lowered, so one that is high enough need not be checked.
    if new == old.value { Ok(None) } else { records::set_op(&Only, &old, &new).map(Some) }
}
