//! Requests about VMs.

use crate::{Client, Result, part, values};
use bytes::Bytes;
use drover_model::wire::{
    ChangeMeta, ChangeTag, Changed, DefineVm, DeleteVm, Explained, ImportVm, ImportedVm, ListVms, ListedVm, Log,
    Message, Meta, ModifyVm, MoveVm, Nothing, ReadLog, RenameVm, SetVmState, Tags, Vm,
};
use futures_util::Stream;
use reqwest::Method;
use serde::de::DeserializeOwned;
use std::time::Duration;

impl Client {
    /// VMs, filtered, without their definitions.
    pub async fn vms(&self, filters: &ListVms) -> Result<Vec<Vm<'static>>> {
        self.list_vms(filters).await
    }

    /// The VM fields that a list shows, filtered. For thousands of VMs, this takes a fraction of the time of
    /// [`Client::vms`].
    pub async fn listed_vms(&self, filters: &ListVms) -> Result<Vec<ListedVm>> {
        self.list_vms(filters).await
    }

    async fn list_vms<T: DeserializeOwned>(&self, filters: &ListVms) -> Result<Vec<T>> {
        self.get("/vm", &ListVms { xml: Some(false), ..filters.clone() }).await
    }

    /// One VM.
    pub async fn vm(&self, vm: &str) -> Result<Vm<'static>> {
        self.get(&format!("/vm/{}", part(vm)), &Nothing {}).await
    }

    /// Streams a VM: its current state, then each change. Ends when the VM is deleted.
    pub async fn watch_vm(&self, vm: &str) -> Result<impl Stream<Item = Result<Vm<'static>>> + Send + use<>> {
        let path = format!("/vm/{}/watch", part(vm));
        Ok(values(format!("{}{path}", self.base), self.stream(&path, &Nothing {}).await?))
    }

    /// Defines a VM.
    pub async fn define_vm(&self, vm: &DefineVm) -> Result<Changed> {
        self.post("/vm", vm).await
    }

    /// Brings a domain of a node's libvirt under Drover.
    pub async fn import_vm(&self, node: &str, domain: &ImportVm) -> Result<ImportedVm> {
        self.post(&format!("/node/{}/import", part(node)), domain).await
    }

    /// Replaces a VM's definition.
    pub async fn modify_vm(&self, vm: &str, change: &ModifyVm) -> Result<Changed> {
        self.request(Method::PUT, &format!("/vm/{}", part(vm)), change, None).await
    }

    /// A VM's metadata.
    pub async fn vm_meta(&self, vm: &str) -> Result<Meta> {
        self.get(&format!("/vm/{}/meta", part(vm)), &Nothing {}).await
    }

    /// Changes a VM's metadata; fields that are not given stay as they are.
    pub async fn set_vm_meta(&self, vm: &str, change: &ChangeMeta) -> Result<Changed> {
        self.post(&format!("/vm/{}/meta", part(vm)), change).await
    }

    /// A VM's tags.
    pub async fn vm_tags(&self, vm: &str) -> Result<Tags> {
        self.get(&format!("/vm/{}/tags", part(vm)), &Nothing {}).await
    }

    /// Adds a tag to a VM, or removes one.
    pub async fn change_vm_tag(&self, vm: &str, change: &ChangeTag) -> Result<Changed> {
        self.post(&format!("/vm/{}/tags", part(vm)), change).await
    }

    /// Changes a VM's wanted state.
    pub async fn set_vm_state(&self, vm: &str, order: SetVmState) -> Result<Changed> {
        self.post(&format!("/vm/{}/state", part(vm)), &order).await
    }

    /// Moves a VM to another node, or cancels a move.
    pub async fn move_vm(&self, vm: &str, order: &MoveVm) -> Result<Changed> {
        self.post(&format!("/vm/{}/node", part(vm)), order).await
    }

    /// Where a VM would go if it were moved now, and why.
    pub async fn explain_vm(&self, vm: &str) -> Result<Explained> {
        self.get(&format!("/vm/{}/explain", part(vm)), &Nothing {}).await
    }

    /// Renames a VM.
    pub async fn rename_vm(&self, vm: &str, name: &RenameVm) -> Result<Changed> {
        self.post(&format!("/vm/{}/rename", part(vm)), name).await
    }

    /// Deletes a VM.
    pub async fn delete_vm(&self, vm: &str, order: DeleteVm) -> Result<Message> {
        // The response is sent when the VM's node has deleted it.
        self.request(Method::DELETE, &format!("/vm/{}", part(vm)), &order, Some(Duration::from_secs(150))).await
    }

    /// The last lines of a VM's console log.
    pub async fn console(&self, vm: &str, lines: usize) -> Result<Log> {
        self.get(&format!("/vm/{}/console", part(vm)), &ReadLog { lines: Some(lines), follow: false }).await
    }

    /// Follows a VM's console log, starting with its last lines.
    pub async fn follow_console(
        &self,
        vm: &str,
        lines: usize,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let params = ReadLog { lines: Some(lines), follow: true };
        self.stream(&format!("/vm/{}/console", part(vm)), &params).await
    }
}
