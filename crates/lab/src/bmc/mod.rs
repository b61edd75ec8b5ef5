//! A node's management controller (BMC): a program in the switch, on the cluster network, where it outlives its node,
//! and cuts and restores the node's power.

mod ipmi;
mod redfish;

pub use redfish::{Quirk, redfish_bmc};

use crate::{
    fabric::Net,
    lab::Lab,
    node::{Node, Service},
    process,
    tools::{Attempt, Result, run},
};
use std::{fs, path::PathBuf};

/// The BMCs' user, with the privilege of an operator.
pub const BMC_USER: &str = "operator";
/// The user's password.
pub const BMC_PASSWORD: &str = "lab-bmc-s3cret";

/// What a BMC speaks, and how the nodes recognise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BmcKind {
    /// IPMI 2.0.
    Ipmi,
    /// Redfish, recognised by the SHA-256 of its certificate.
    RedfishPinned,
    /// Redfish, recognised by the authority that signed its certificate.
    RedfishSigned,
}

impl Lab {
    /// Gives every node a BMC of the kind that the function says: starts it, configures it in the node, gives all nodes
    /// one cluster key, and starts their daemons again.
    ///
    /// # Errors
    /// If a step fails; see [`Node::start_bmc_of`].
    pub fn give_bmcs(&self, kind_of: impl Fn(&Node<'_>) -> BmcKind) -> Result<()> {
        let nodes = self.nodes();
        let Some(first) = nodes.first() else { return Ok(()) };
        first.exec(&["droverd", "--new-cluster-key"])?;
        let key = first.exec(&["cat", "/etc/drover/cluster.key"])?;
        for node in &nodes {
            let kind = kind_of(node);
            node.start_bmc_of(kind)?;
            let file = node.folder().join("etc/drover/drover.toml");
            let failed = || format!("{}: cannot configure the BMC", node.name());
            let old = fs::read_to_string(&file).attempt(failed)?;
            fs::write(&file, old + &node.bmc_section(kind)?).attempt(failed)?;
            let secrets = format!(
                "umask 077; echo {BMC_PASSWORD} > /etc/drover/bmc.password; echo {} > /etc/drover/cluster.key",
                key.trim()
            );
            node.exec(&["sh", "-c", &secrets])?;
            node.stop(Service::Drover)?;
            node.start_drover()?;
        }
        Ok(())
    }
}

impl Node<'_> {
    /// Address of the node's BMC in the cluster network.
    pub fn bmc_address(&self) -> String {
        Net::Cluster.address(100 + self.index())
    }

    fn bmc_folder(&self) -> PathBuf {
        self.lab().folder().join("bmc").join(self.name())
    }

    fn bmc_mark(&self) -> String {
        format!("{}/bmc-{}", self.lab().id(), self.name())
    }

    /// Starts the node's BMC, and waits until it answers. It is taken down with the lab.
    ///
    /// # Errors
    /// If a program is missing, or a step fails.
    pub fn start_bmc_of(&self, kind: BmcKind) -> Result<()> {
        match kind {
            BmcKind::Ipmi => self.start_bmc(),
            BmcKind::RedfishPinned | BmcKind::RedfishSigned => self.start_redfish(),
        }
    }

    /// Whether its BMC runs.
    pub(crate) fn bmc_runs(&self) -> bool {
        !process::marked(&self.bmc_mark()).is_empty()
    }

    /// Ends the node's BMC, as if it had lost its power. Its address stays.
    pub fn stop_bmc(&self) -> Result<()> {
        process::marked(&self.bmc_mark()).iter().try_for_each(process::Process::kill)
    }

    /// The section of the configuration file about the BMC.
    fn bmc_section(&self, kind: BmcKind) -> Result<String> {
        let address = self.bmc_address();
        let access = match kind {
            BmcKind::Ipmi => format!("[fence.ipmi]\naddress = \"{address}\""),
            BmcKind::RedfishPinned => {
                let pin = self.bmc_identity()?.pin();
                format!("[fence.redfish]\nurl = \"https://{address}\"\ncertificate = \"{pin}\"")
            }
            BmcKind::RedfishSigned => {
                let failed = || format!("{}: cannot write the authority's certificate", self.name());
                let file = self.folder().join("etc/drover/bmc.authority.pem");
                fs::write(file, self.bmc_identity()?.authority()).attempt(failed)?;
                let authority = "/etc/drover/bmc.authority.pem";
                format!("[fence.redfish]\nurl = \"https://{address}\"\nauthority = \"{authority}\"")
            }
        };
        Ok(format!("\n{access}\nuser = \"{BMC_USER}\"\npassword_file = \"/etc/drover/bmc.password\"\n"))
    }

    /// Gives the BMC its address, if it has not got it.
    fn plug_bmc(&self) -> Result<()> {
        let switch = self.lab().fabric().netns("switch");
        let address = format!("{}/24", self.bmc_address());
        run(&["ip", "-n", &switch, "address", "replace", &address, "dev", "cluster"])?;
        // The lab itself asks it from there, through the loopback interface.
        run(&["ip", "-n", &switch, "link", "set", "lo", "up"]).map(|_| ())
    }

    /// Takes the BMC's address away: nothing answers there any more.
    fn unplug_bmc(&self) {
        let switch = self.lab().fabric().netns("switch");
        // It may be gone.
        run(&["ip", "-n", &switch, "address", "delete", &format!("{}/24", self.bmc_address()), "dev", "cluster"]).ok();
    }
}
