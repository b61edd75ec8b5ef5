//! Disks of a guest that somebody has replaced while it ran, as a backup tool does, and whether the VM's definition
//! would boot older ones.

use crate::{
    domain::{Written, written},
    vm::{Epoch, VmRecord},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A disk that a guest writes to elsewhere than where it was started with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReplacedDisk {
    /// Its name in the guest: `vda`.
    pub dev: String,
    /// What the guest was started with, by its definition.
    pub defined: String,
    /// What it writes to.
    pub live: String,
}

impl fmt::Display for ReplacedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplacedDisk { dev, defined, live } = self;
        write!(f, "disk {dev} is {live}, and the definition has {defined}")
    }
}

/// The replaced disks of a guest, as last observed. Kept in the VM's report, because the domain is gone when the VM is
/// started next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The epoch of the guest.
    pub of: Epoch,
    /// Its disks, by name; at least one.
    pub disks: Vec<ReplacedDisk>,
}

impl Replaced {
    /// The disks of that guest which are not those that it was started with; `None`: all are.
    pub fn between(of: Epoch, started: &Written, live: &Written) -> Option<Replaced> {
        let disks: Vec<ReplacedDisk> = started
            .iter()
            .filter_map(|(dev, defined)| {
                let live = live.get(dev).filter(|live| *live != defined)?.clone();
                Some(ReplacedDisk { dev: dev.clone(), defined: defined.clone(), live })
            })
            .collect();
        (!disks.is_empty()).then_some(Replaced { of, disks })
    }

    /// The disks of which a start from this record would use older data: the definition still names what the guest has
    /// left. (If it names anything else, an administrator has changed it, and decides.)
    pub fn older<'a>(&'a self, record: &VmRecord) -> Vec<&'a ReplacedDisk> {
        if record.older_disks.is_some_and(|accepted| self.of <= accepted) {
            return Vec::new();
        }
        let defined = written(&record.xml);
        self.disks.iter().filter(|disk| defined.get(&disk.dev) == Some(&disk.defined)).collect()
    }

    /// What a start would do, as the end of a sentence; `None`: it would use the newest data.
    pub fn would_boot_older(&self, record: &VmRecord) -> Option<String> {
        let each: Vec<String> = self.older(record).iter().map(ToString::to_string).collect();
        (!each.is_empty()).then(|| {
            format!("it would boot with older data, for disks were replaced while the guest ran: {}", each.join("; "))
        })
    }

    /// The same, with what to do.
    pub fn why_not_started(&self, record: &VmRecord) -> Option<String> {
        let (name, why) = (&record.name, self.would_boot_older(record)?);
        Some(format!(
            "{why}. End the snapshot while the guest runs (virsh blockcommit), put the newest image into the \
             definition ('drover vm modify {name}', also its <driver type>), or use the older one ('drover vm start \
             {name} --force')"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{VmWords, vm};

    fn disks(of: &[(&str, &str)]) -> Written {
        of.iter().map(|(dev, source)| ((*dev).to_owned(), (*source).to_owned())).collect()
    }

    #[test]
    fn a_disk_that_is_elsewhere_was_replaced() {
        let started = disks(&[("vda", "/a"), ("vdb", "/b"), ("vdc", "/c")]);
        let live = disks(&[("vda", "/a.snap"), ("vdb", "/b"), ("vdd", "/plugged")]);
        let replaced = Replaced::between(Epoch(3), &started, &live).unwrap();
        let vda = ReplacedDisk { dev: "vda".to_owned(), defined: "/a".to_owned(), live: "/a.snap".to_owned() };
        assert_eq!(replaced, Replaced { of: Epoch(3), disks: vec![vda] });
        assert_eq!(Replaced::between(Epoch(3), &started, &started), None);
    }

    #[test]
    fn a_definition_that_names_what_the_guest_has_left_is_older() {
        let replaced = Replaced::between(Epoch(3), &disks(&[("vda", "/a")]), &disks(&[("vda", "/a.snap")])).unwrap();
        let disk = |path: &str| format!("<devices><disk><source file='{path}'/><target dev='vda'/></disk></devices>");
        for (xml, accepted, older) in [
            (disk("/a"), None, true),
            (disk("/./a"), None, true),
            (disk("/a.snap"), None, false),
            (disk("/other"), None, false),
            (String::new(), None, false),
            (disk("/a"), Some(2), true),
            (disk("/a"), Some(3), false),
        ] {
            let mut record = vm(1, 64).on("a").record.value.clone();
            record.xml = format!("<domain>{xml}</domain>");
            record.older_disks = accepted.map(Epoch);
            assert_eq!(!replaced.older(&record).is_empty(), older, "{xml}, {accepted:?}");
            assert_eq!(replaced.why_not_started(&record).is_some(), older, "{xml}, {accepted:?}");
        }
    }
}
