//! Requests about VMs.

use crate::{Client, Params, Result, part, values};
use bytes::Bytes;
use drover_model::wire::{Changed, Explained, Log, Message, Meta, Tags, Vm};
use futures_util::Stream;
use reqwest::Method;
use std::time::Duration;

impl Client {
    /// VMs, filtered, without their definitions.
    pub async fn vms(&self, filters: Params<'_>) -> Result<Vec<Vm<'static>>> {
        let params: Vec<(&str, String)> = filters.iter().cloned().chain([("xml", "false".to_owned())]).collect();
        self.get("/vm", &params).await
    }

    /// One VM.
    pub async fn vm(&self, vm: &str) -> Result<Vm<'static>> {
        self.get(&format!("/vm/{}", part(vm)), &[]).await
    }

    /// A VM each time that it changes, beginning with how it is. Ends when the VM is gone.
    pub async fn watch_vm(&self, vm: &str) -> Result<impl Stream<Item = Result<Vm<'static>>> + Send + use<>> {
        let path = format!("/vm/{}/watch", part(vm));
        Ok(values(format!("{}{path}", self.base), self.stream(&path, &[]).await?))
    }

    /// Defines a VM.
    pub async fn define_vm(&self, xml: &str, node: Option<&str>) -> Result<Changed> {
        let node: Vec<(&str, String)> = node.iter().map(|n| ("node", (*n).to_owned())).collect();
        self.define_vm_with(xml, &node).await
    }

    /// Defines a VM, with its node and metadata.
    pub async fn define_vm_with(&self, xml: &str, extra: Params<'_>) -> Result<Changed> {
        let mut params = vec![("xml", xml.to_owned())];
        params.extend_from_slice(extra);
        self.post("/vm", &params).await
    }

    /// Gives a VM a new definition.
    pub async fn modify_vm(
        &self,
        vm: &str,
        xml: &str,
        version: Option<i64>,
        restart: bool,
        dry_run: bool,
    ) -> Result<Changed> {
        let mut params =
            vec![("xml", xml.to_owned()), ("restart", restart.to_string()), ("dry_run", dry_run.to_string())];
        params.extend(version.map(|v| ("version", v.to_string())));
        self.request(Method::PUT, &format!("/vm/{}", part(vm)), &params, None).await
    }

    /// What is said of a VM beside its definition.
    pub async fn vm_meta(&self, vm: &str) -> Result<Meta> {
        self.get(&format!("/vm/{}/meta", part(vm)), &[]).await
    }

    /// Changes what is said of a VM beside its definition; what is not given stays.
    pub async fn set_vm_meta(&self, vm: &str, change: Params<'_>) -> Result<Changed> {
        self.post(&format!("/vm/{}/meta", part(vm)), change).await
    }

    /// A VM's tags.
    pub async fn vm_tags(&self, vm: &str) -> Result<Tags> {
        self.get(&format!("/vm/{}/tags", part(vm)), &[]).await
    }

    /// Adds a tag to a VM.
    pub async fn add_vm_tag(&self, vm: &str, tag: &str, protected: bool) -> Result<Changed> {
        let params = [("action", "add".to_owned()), ("tag", tag.to_owned()), ("protected", protected.to_string())];
        self.post(&format!("/vm/{}/tags", part(vm)), &params).await
    }

    /// Removes a tag from a VM.
    pub async fn remove_vm_tag(&self, vm: &str, tag: &str) -> Result<Changed> {
        let params = [("action", "remove".to_owned()), ("tag", tag.to_owned())];
        self.post(&format!("/vm/{}/tags", part(vm)), &params).await
    }

    /// Changes what is wanted of a VM.
    pub async fn set_vm_state(&self, vm: &str, state: &str, extra: Params<'_>) -> Result<Changed> {
        let mut params = vec![("state", state.to_owned())];
        params.extend_from_slice(extra);
        self.post(&format!("/vm/{}/state", part(vm)), &params).await
    }

    /// Brings a VM to another node (`migrate`, `move`, `unmigrate`), or takes that back (`cancel`).
    pub async fn relocate_vm(&self, vm: &str, action: &str, extra: Params<'_>) -> Result<Changed> {
        let mut params = vec![("action", action.to_owned())];
        params.extend_from_slice(extra);
        self.post(&format!("/vm/{}/node", part(vm)), &params).await
    }

    /// Where a VM would go if it were moved now, and why.
    pub async fn explain_vm(&self, vm: &str) -> Result<Explained> {
        self.get(&format!("/vm/{}/explain", part(vm)), &[]).await
    }

    /// Gives a VM a new name.
    pub async fn rename_vm(&self, vm: &str, new_name: &str) -> Result<Changed> {
        self.post(&format!("/vm/{}/rename", part(vm)), &[("new_name", new_name.to_owned())]).await
    }

    /// Deletes a VM.
    pub async fn delete_vm(&self, vm: &str, delete_disks: bool) -> Result<Message> {
        let params = [("delete_disks", delete_disks.to_string())];
        // Answers when the VM's node has done it.
        self.request(Method::DELETE, &format!("/vm/{}", part(vm)), &params, Some(Duration::from_secs(150))).await
    }

    /// The last lines of a VM's console.
    pub async fn console(&self, vm: &str, lines: usize) -> Result<Log> {
        self.get(&format!("/vm/{}/console", part(vm)), &[("lines", lines.to_string())]).await
    }

    /// A VM's console as it is written, after its last lines.
    pub async fn follow_console(
        &self,
        vm: &str,
        lines: usize,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let params = [("lines", lines.to_string()), ("follow", "true".to_owned())];
        self.stream(&format!("/vm/{}/console", part(vm)), &params).await
    }
}
