//! Deletes a VM's disks: reads what others need, asks plan, deletes. See [`drover_plan::disks`] for why the order
//! matters.

use super::Task;
use crate::records;
use drover_model::{RecordKind, RecordPath, Stored, VmRecord, VmStatus};
use drover_plan::disks::{self, Needs};
use drover_store::{Found, StoreError};

/// What a VM needs by its record and its report; `None`: it is gone.
fn needs_of(paths: &[(RecordPath, bool)], found: &[Found]) -> Result<Option<Needs>, String> {
    let ([(record, _), (report, _)], [(is, _), (told, _)]) = (paths, found) else { return Ok(None) };
    let Some(is) = is else { return Ok(None) };
    let vm = records::decode::<VmRecord>(record, &is.data, is.version).map_err(|error| error.to_string())?;
    let needs = Needs::of(&vm.value).ok_or_else(|| format!("the definition in record {record} cannot be read"))?;
    let told = told.as_ref().map(|told| records::decode::<VmStatus>(report, &told.data, told.version)).transpose();
    let told = told.map_err(|error| error.to_string())?;
    Ok(Some(needs.and(told.as_ref().and_then(|report| report.value.replaced.as_ref()))))
}

/// Number of definitions that are read at once.
const YIELD_AFTER: usize = 64;

impl Task {
    /// Deletes the VM's disk files that Drover manages and nobody else needs. A failure is logged, and does not block
    /// deleting the VM. `false`: it must wait.
    pub(super) async fn remove_disks(&mut self, record: &Stored<VmRecord>) -> Result<bool, StoreError> {
        let vm = &record.value;
        let own = disks::own(vm);
        if own.is_empty() {
            return Ok(true);
        }
        let others = match self.needs_of_others().await? {
            Ok(others) => others,
            Err(why) => {
                self.delete_later(vm, why);
                return Ok(false);
            }
        };
        let looked = self.ctx.disks.look(own, disks::paths(&others)).await;
        let mut unneeded = Vec::new();
        for (file, kept) in disks::verdicts(&others, &looked) {
            match kept {
                Some(why) => tracing::warn!(vm = %vm.name, file = %file.display(), %why, "kept a disk"),
                None => unneeded.push(file),
            }
        }
        for (file, outcome) in self.ctx.disks.remove(unneeded).await {
            match outcome {
                Ok(()) => tracing::info!(vm = %vm.name, file = %file.display(), "deleted a disk"),
                Err(error) => {
                    tracing::warn!(vm = %vm.name, file = %file.display(), %error, "could not delete a disk");
                }
            }
        }
        Ok(true)
    }

    /// What all other VMs need, by their records at this moment, not by the view; or why that cannot be told.
    async fn needs_of_others(&self) -> Result<Result<Vec<Needs>, String>, StoreError> {
        let store = &*self.ctx.store;
        // Every definition that was written before this moment is read.
        store.sync().await?;
        let folder = VmRecord::path(&self.uuid).parent().unwrap_or_else(RecordPath::root);
        let names = store.children(&folder).await?;
        let uuids = names.iter().filter_map(|name| name.parse().ok()).filter(|uuid| *uuid != self.uuid);
        // Each VM's record, and its report: which disks its guest uses that the record does not name.
        let paths: Vec<(RecordPath, bool)> =
            uuids.flat_map(|uuid| [(VmRecord::path(&uuid), false), (VmStatus::path(&uuid), false)]).collect();
        let found = store.read_many(&paths).await?;
        let mut needs = Vec::new();
        for (n, (paths, found)) in paths.chunks_exact(2).zip(found.chunks_exact(2)).enumerate() {
            // Reading all definitions takes half a second if there are 10,000: others go on meanwhile.
            if n % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
            match needs_of(paths, found) {
                Ok(other) => needs.extend(other),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(needs))
    }
}
