//! Doing and undoing faults.

use super::choice::{Fault, SLOW};
use crate::{
    bmc::{BmcKind, Quirk},
    fabric::{Cut, Net},
    lab::Lab,
    node::{Node, Service},
    process::Process,
    tools::{LabError, Result},
};
use rustix::process::Signal;

/// The BMC of a node: each kind is there.
pub(super) fn bmc_of(node: &Node<'_>) -> BmcKind {
    match node.index() % 3 {
        0 => BmcKind::RedfishPinned,
        1 => BmcKind::Ipmi,
        _ => BmcKind::RedfishSigned,
    }
}

fn node(lab: &Lab, index: usize) -> Result<Node<'_>> {
    lab.node(&format!("hv{index}"))
}

/// Does a fault. A node that is off has no more faults. Returns what else there is to say.
pub(super) fn inject(lab: &Lab, fault: Fault) -> Result<String> {
    let target = match fault.node() {
        Some(index) => node(lab, index)?,
        None => match lab.zookeeper_leader() {
            Some(leader) => lab.node(&leader)?,
            None => return Ok("there is none".to_owned()),
        },
    };
    if !target.is_on() && !matches!(fault, Fault::BmcDead(_) | Fault::BmcSlow(_)) {
        return Ok(format!("{} is off already", target.name()));
    }
    match fault {
        Fault::PowerOff(_) => target.power_off()?,
        Fault::DaemonKilled(_) => target.kill(Service::Drover)?,
        Fault::DaemonStopped(_) => target.signal(Service::Drover, Signal::STOP)?,
        Fault::DaemonRestarted(_) => {
            target.stop(Service::Drover)?;
            // It may not become ready before the other faults are healed.
            target.launch_drover()?;
        }
        Fault::Frozen(_) => signal_all(&target, Signal::STOP)?,
        Fault::Hung(_) => {
            for net in Net::ALL {
                lab.cut(target.name(), net, Cut::Silent)?;
            }
            signal_all(&target, Signal::STOP)?;
        }
        Fault::Cut(_, net, how) => lab.cut(target.name(), net, how)?,
        Fault::LibvirtKilled(_) => target.kill(Service::Libvirt)?,
        Fault::LeaderKilled => {
            target.kill(Service::ZooKeeper)?;
            return Ok(format!("on {}", target.name()));
        }
        Fault::BmcSlow(_) if target.has_redfish() => target.set_quirk(SLOW)?,
        Fault::BmcDead(_) | Fault::BmcSlow(_) => target.stop_bmc()?,
    }
    Ok(String::new())
}

/// Sends a signal to all processes of a node, its guests too, which its own services would not pass on.
fn signal_all(node: &Node<'_>, signal: Signal) -> Result<()> {
    let Some(namespace) = node.init().and_then(|init| init.pid_namespace()) else { return Ok(()) };
    let own = Process::all("").into_iter().filter(|process| process.pid_namespace().as_ref() == Some(&namespace));
    own.into_iter().try_for_each(|process| process.signal(signal))
}

/// Undoes all faults, whichever there are, and starts what does not run.
pub(super) fn heal(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        node.boot()?;
        signal_all(&node, Signal::CONT)?;
        for net in Net::ALL {
            lab.heal(node.name(), net)?;
        }
        if node.has_redfish() {
            node.set_quirk(Quirk::None)?;
        }
        if !node.bmc_runs() {
            node.start_bmc_of(bmc_of(&node))?;
        }
    }
    lab.start_services(&|_| ()).map_err(|error| LabError::new("cannot heal", error))
}
