//! What is to be seen of a cluster at one moment, and the sentences about what has changed since the moment before.

use crate::world::World;
use drover_model::{
    Fault, Fence, FencePhase, NodeName, NodeRecord, NodeSession, NodeState, Only, Primary, RecordKind, VmRecord,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    pub(super) nodes: BTreeMap<String, NodeScene>,
    pub(super) vms: BTreeMap<String, VmScene>,
    pub(super) primary: Option<NodeName>,
    /// The nodes that have the floating address.
    owners: BTreeSet<NodeName>,
    /// How many calls the store had when the records were read.
    pub(super) calls: u64,
    /// Messages by id.
    pub(super) faults: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct NodeScene {
    /// Whether its machine has power.
    pub(super) on: bool,
    /// Whether it has a session.
    pub(super) alive: bool,
    pub(super) state: Option<NodeState>,
    pub(super) fence: Option<Fence>,
    /// Whether it was ever proved to be off, and whether its power was ever cut by Drover.
    pub(super) was_fenced: bool,
    pub(super) was_cut: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct VmScene {
    /// Where its guest executes.
    pub(super) on: BTreeSet<NodeName>,
    /// What is wanted of it; `None`: it is deleted.
    pub(super) state: Option<String>,
}

impl Scene {
    /// What is to be seen now, after this. `vms`: their names. `all`: read the records although nobody has called the
    /// store (when sessions end, they change all the same).
    pub(super) fn look(&self, world: &World, vms: &BTreeMap<Uuid, String>, all: bool) -> Scene {
        let (calls, judge) = (world.cluster.calls(), &world.judge);
        let running = judge.lock().running.clone();
        let on = |uuid: &Uuid| running.get(uuid).map(|nodes| nodes.keys().cloned().collect()).unwrap_or_default();
        if calls == self.calls && !all {
            let mut scene = self.clone();
            scene.owners = judge.lock().owners.clone();
            for machine in &world.machines {
                scene.nodes.entry(machine.name.to_string()).or_default().on = machine.has_booted();
            }
            for (uuid, name) in vms {
                scene.vms.entry(name.clone()).or_default().on = on(uuid);
            }
            return scene;
        }
        let nodes = world.machines.iter().map(|machine| {
            let (name, before) = (&machine.name, self.nodes.get(machine.name.as_str()));
            let fence: Option<Fence> = judge.read(&Fence::path(name));
            let scene = NodeScene {
                on: machine.has_booted(),
                alive: judge.read::<NodeSession>(&NodeSession::path(name)).is_some(),
                state: judge.read::<NodeRecord>(&NodeRecord::path(name)).map(|record| record.domain_state),
                was_fenced: before.is_some_and(|before| before.was_fenced)
                    || fence.as_ref().is_some_and(|fence| !fence.evidence.is_empty()),
                was_cut: before.is_some_and(|before| before.was_cut)
                    || fence.as_ref().is_some_and(|fence| fence.off_ordered),
                fence,
            };
            (name.to_string(), scene)
        });
        let vms_now = vms.iter().map(|(uuid, name)| {
            let state = judge.read::<VmRecord>(&VmRecord::path(uuid)).map(|record| record.state.to_string());
            (name.clone(), VmScene { on: on(uuid), state })
        });
        Scene {
            nodes: nodes.collect(),
            vms: vms_now.collect(),
            primary: judge.read::<Primary>(&Primary::path(&Only)).and_then(|record| record.holder),
            owners: judge.lock().owners.clone(),
            calls,
            faults: faults(world, vms),
        }
    }

    /// How things are in the beginning.
    pub(super) fn describe(&self) -> Vec<String> {
        let mut out: Vec<String> = self.primary.iter().map(|primary| format!("{primary} is the primary")).collect();
        for (name, vm) in &self.vms {
            out.push(match names(&vm.on).as_str() {
                "" => format!("{name} is off"),
                nodes => format!("{name} runs on {nodes}"),
            });
        }
        out.extend(self.faults.iter().map(|(id, message)| format!("fault {id}: {message}")));
        out
    }

    /// What has changed since `before`.
    pub(super) fn since(&self, before: &Scene) -> Vec<String> {
        let mut out = Vec::new();
        for (name, now) in &self.nodes {
            let then = before.nodes.get(name).cloned().unwrap_or_default();
            match (then.on, now.on) {
                (true, false) => out.push(format!("{name} has no power")),
                (false, true) => out.push(format!("{name} is switched on")),
                _ => {}
            }
            match (then.alive, now.alive) {
                (true, false) => out.push(format!("{name} has no session with the store any more")),
                (false, true) => out.push(format!("{name} has a session with the store")),
                _ => {}
            }
        }
        if self.primary != before.primary {
            out.push(
                self.primary
                    .as_ref()
                    .map_or_else(|| "no node is the primary".to_owned(), |primary| format!("{primary} is the primary")),
            );
        }
        if self.owners != before.owners {
            out.push(match names(&self.owners).as_str() {
                "" => "nobody has the cluster's address".to_owned(),
                nodes => format!("the cluster's address is on {nodes}"),
            });
        }
        for (name, now) in &self.nodes {
            let then = before.nodes.get(name).cloned().unwrap_or_default();
            fence(name, then.fence.as_ref(), now.fence.as_ref(), &mut out);
            if let Some(state) = now.state.filter(|state| then.state != Some(*state)) {
                out.push(format!("{name} is in state {state}"));
            }
        }
        for (name, now) in &self.vms {
            let then = before.vms.get(name).cloned().unwrap_or_default();
            if now.state != then.state {
                out.push(match &now.state {
                    Some(state) => format!("{name} is in state {state}"),
                    None => format!("{name} is deleted"),
                });
            }
            let left: BTreeSet<_> = then.on.difference(&now.on).cloned().collect();
            let came: BTreeSet<_> = now.on.difference(&then.on).cloned().collect();
            match (names(&left).as_str(), names(&came).as_str()) {
                ("", "") => {}
                ("", came) => out.push(format!("{name} starts on {came}")),
                (left, "") => out.push(format!("{name} ends on {left}")),
                (left, came) => out.push(format!("{name} goes from {left} to {came}")),
            }
        }
        let new = self.faults.iter().filter(|(id, _)| !before.faults.contains_key(*id));
        out.extend(new.map(|(id, message)| format!("fault {id}: {message}")));
        let over = before.faults.keys().filter(|id| !self.faults.contains_key(*id));
        out.extend(over.map(|id| format!("fault {id} is over")));
        out
    }
}

fn faults(world: &World, vms: &BTreeMap<Uuid, String>) -> BTreeMap<String, String> {
    let faults = world.cluster.dump().into_iter().filter_map(|(path, data)| {
        let id = path.strip_prefix("/faults/")?;
        let fault: Fault = serde_json::from_slice(&data).ok()?;
        Some((named(id, vms), named(&fault.message, vms)))
    });
    faults.collect()
}

/// What has changed in the fence of a node.
fn fence(name: &str, before: Option<&Fence>, now: Option<&Fence>, out: &mut Vec<String>) {
    let Some(now) = now else {
        out.extend(before.map(|_| format!("{name} is not suspected any more")));
        return;
    };
    // The last one of an earlier boot, or of an earlier suspicion, is none of this one.
    let before = before.filter(|before| before.boot == now.boot && before.since == now.since);
    let phase = before.map(|before| before.phase);
    if before.is_none() {
        out.push(format!("{name} is suspected to be off"));
    }
    if now.off_ordered && !before.is_some_and(|before| before.off_ordered) {
        out.push(format!("the power of {name} is to be cut"));
    }
    for evidence in now.evidence.iter().skip(before.map_or(0, |before| before.evidence.len())) {
        out.push(format!("it is proved that {name} is off ({}): {}", evidence.kind, evidence.what));
    }
    if phase == Some(now.phase) {
        if now.phase == FencePhase::Unproved && before.is_some_and(|before| before.problems != now.problems) {
            out.push(format!("there is still no proof that {name} is off: {}", now.problems.join("; ")));
        }
        return;
    }
    match now.phase {
        FencePhase::Suspect | FencePhase::Proved => {}
        FencePhase::Proving => out.push(format!("proof is looked for that {name} is off")),
        FencePhase::Unproved => {
            out.push(format!("there is no proof that {name} is off: {}", now.problems.join("; ")));
        }
        FencePhase::Recovering => out.push(format!("the VMs of {name} are given to other nodes")),
        FencePhase::Recovered => out.push(format!("no VM of {name} is left to be given away")),
        FencePhase::Over => out.push(format!("{name} is back, and its fence is over")),
    }
}

fn names(nodes: &BTreeSet<NodeName>) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// With the VMs' names in place of their UUIDs.
pub(super) fn named(text: &str, vms: &BTreeMap<Uuid, String>) -> String {
    vms.iter().fold(text.to_owned(), |text, (uuid, name)| text.replace(&uuid.to_string(), name))
}
