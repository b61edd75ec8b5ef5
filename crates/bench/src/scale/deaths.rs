//! The death of a rack in a large cluster: ten nodes with 1,000 running VMs lose their power at the same time.

use super::{
    course::{Large, block_on},
    fill,
    helper::Helper,
    meter,
    words::{Crew, Question},
};
use crate::{figures::Figure, pings::now};
use drover_lab::{Lab, Result};
use drover_model::{
    NodeName,
    wire::{ListNodes, PowerOrder},
};
use std::time::Duration;

/// Number of nodes that die, and of VMs that run on them.
const NODES: usize = 10;
const VMS: usize = 1000;
/// Timeout for the daemons to have checked their BMCs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The nodes that die. They have a process of their own, which is killed, and BMCs, which say that they are off.
pub(super) fn names() -> Vec<NodeName> {
    (0..NODES).filter_map(|n| NodeName::new(&format!("rack{n}")).ok()).collect()
}

impl Large<'_> {
    /// Adds the nodes to the cluster, starts VMs on them, and cuts their power.
    pub(super) fn deaths(&mut self) -> Result<()> {
        let names = names();
        self.say(&format!("starting {VMS} VMs on {NODES} more nodes, which lose their power"));
        let crew = Crew { names: names.clone(), coordinators: 0, ..self.crowd.clone() };
        let mut rack = Helper::start(self.place.program, &crew)?;
        let first = self.beyond();
        self.records.fill(first..first + VMS, &names)?;
        let uuids: Vec<_> = (first..first + VMS).map(fill::uuid).collect();
        self.others.ask(&Question::Running(uuids.clone()))?;
        self.set_states(first..first + VMS, PowerOrder::Start)?;
        self.others.times()?;
        let checked = || {
            let nodes = block_on(self.client.nodes(&ListNodes::default())).ok()?;
            let bmcs = nodes.iter().filter_map(|node| node.bmc.as_ref());
            (bmcs.filter(|bmc| bmc.checked > 0 && bmc.problem.is_empty()).count() == NODES).then_some(())
        };
        Lab::until("the BMCs are not checked", TIMEOUT, checked)?;
        let members = self.ensemble.addresses();
        let used = |of: &mut Self| -> Result<[Duration; 3]> {
            Ok([of.one.usage()?.processor, of.others.usage()?.processor, of.time_of_ensemble()?])
        };
        let (requests, before) = (meter::requests(&members)?, used(self)?);
        let begin = now();
        rack.end()?;
        self.others.ask(&Question::Cut(names.clone()))?;
        self.others.times()?;
        self.others.ask(&Question::Recovered(uuids, names))?;
        let times = self.others.times()?;
        let since = |at: Option<&u64>| Duration::from_micros(at.copied().unwrap_or_default().saturating_sub(begin));
        let (one, all) = (since(times.first()), since(times.last()));
        let requests = meter::requests(&members)? - requests;
        let after = used(self)?;
        let [daemon, others, ensemble] = [0, 1, 2].map(|n| Figure::Time(after[n].saturating_sub(before[n])));
        let detail = format!(
            "{} until the first runs; the session timeout is 5 s; {requests} requests; processor time: one daemon \
             {daemon}, all others {others}, the ensemble {ensemble}",
            Figure::Time(one),
        );
        self.row(
            &format!("{NODES} nodes with {VMS} running VMs lose their power: until all run elsewhere"),
            Figure::Time(all),
            detail,
        );
        Ok(())
    }
}
