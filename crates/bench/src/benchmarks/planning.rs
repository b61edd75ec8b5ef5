//! Time of decisions in a large cluster.

use super::{Benchmark, MANY, Measure, Row};
use crate::{
    definitions,
    figures::{Figure, Samples},
};
use drover_lab::{LabError, Result};
use drover_model::{ClusterView, NodeName};
use drover_plan::{
    capacity::Ledger,
    drain::{self, Fate},
    place::{self, Wanted},
    standing::{self, Loss, Losses},
};
use serde_json::{Value, json};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Number of nodes.
const NODES: usize = 100;
/// Number of runs of each decision, after one that is not counted.
const COUNT: usize = 50;
/// Target for planning the evacuation of a node.
const TARGET: Figure = Figure::ms(50);
/// Number of VMs of the cluster whose losses are planned.
const FULL: usize = 10_000;

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "planning",
    title: "Plans for a large cluster",
    measure: Measure::Alone { nodes: NODES, vms: MANY, run },
};

fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for on_first in [MANY / NODES, 100, MANY] {
        let view = view(on_first, MANY)?;
        let what = format!("where every VM of a node with {on_first} of them goes");
        rows.push(row(what, || evacuate(&view, on_first), Some(TARGET))?);
    }
    let few = view(MANY / NODES, MANY)?;
    rows.push(row("which node one VM goes to".to_owned(), || choose(&few), None)?);
    let full = view(FULL / NODES, FULL)?;
    let one = format!("what the loss of a node means, {FULL} VMs in all");
    rows.push(row(one, || lose(&full, &name(0)).map(|_| ()), None)?);
    let all = format!("what the loss of each node means, {FULL} VMs in all (the standing plan)");
    rows.push(row(all, || lose_each(&full).map(|_| ()), None)?);
    for tolerate in [2, 3] {
        let mut full = full.clone();
        full.config.tolerate = tolerate;
        let several = format!("the same, and what the worst loss of {tolerate} nodes at once means");
        rows.push(row(several, || lose_several(&full), None)?);
    }
    Ok(rows)
}

fn row(what: String, mut decide: impl FnMut() -> Result<()>, target: Option<Figure>) -> Result<Row> {
    decide()?;
    let once = |_| {
        let start = Instant::now();
        decide().map(|()| start.elapsed())
    };
    let times = Samples::new((0..COUNT).map(once).collect::<Result<Vec<Duration>>>()?)?;
    Ok(Row { what, figure: times.median(), detail: times.range(), target })
}

/// The node that is evacuated.
fn first() -> Result<NodeName> {
    name(0).parse().map_err(|e| LabError::new(name(0), e))
}

fn name(node: usize) -> String {
    format!("node-{node:03}")
}

/// Plans the evacuation of a node. All of its VMs must be able to move.
fn evacuate(view: &ClusterView, vms: usize) -> Result<()> {
    let plan = drain::evacuate(view, &first()?);
    let moves = plan.fates.iter().filter(|(_, _, fate)| matches!(fate, Fate::Moves { .. })).count();
    if moves == vms && plan.fates.len() == vms { Ok(()) } else { Err(unexpected(format!("{moves} of {vms} VMs move"))) }
}

/// Counts the allocated capacity, as for a single request, and chooses a node for a VM.
fn choose(view: &ClusterView) -> Result<()> {
    let vm = view.vm(&definitions::name(0)).ok_or_else(|| unexpected("it has no VM".to_owned()))?;
    let placement = place::choose(view, &Ledger::of(view), &Wanted::moved(vm));
    match black_box(placement).chosen {
        Some(_) => Ok(()),
        None => Err(unexpected("no node can take the VM".to_owned())),
    }
}

/// Plans the losses of several nodes at once, besides those of each single one. All of their VMs must start elsewhere.
fn lose_several(view: &ClusterView) -> Result<()> {
    let mut losses = Losses { each: lose_each(view)?, together: None };
    let sets = standing::sets(view, &losses.each);
    for nodes in &sets.sets {
        losses.add(&sets, nodes, standing::loss(view, nodes, None));
    }
    let Some(worst) = losses.together else { return Err(unexpected("no loss of several nodes".to_owned())) };
    let held: usize = worst.nodes.iter().map(|node| view.vms_of(node).count()).sum();
    if worst.loss.go_on == held && worst.nodes.len() == view.config.tolerate as usize {
        return Ok(());
    }
    Err(unexpected(format!("{} of {held} VMs go on elsewhere", worst.loss.go_on)))
}

/// Plans the recovery of each node's VMs.
fn lose_each(view: &ClusterView) -> Result<Vec<(NodeName, Loss)>> {
    let each = |node| Ok((name(node).parse().map_err(|e| LabError::new(name(node), e))?, lose(view, &name(node))?));
    (0..NODES).map(each).collect()
}

/// Plans the recovery of a node's VMs. All of them must start elsewhere.
fn lose(view: &ClusterView, node: &str) -> Result<Loss> {
    let node: NodeName = node.parse().map_err(|e| LabError::new(node.to_owned(), e))?;
    let (held, loss) = (view.vms_of(&node).count(), standing::loss(view, std::slice::from_ref(&node), None));
    if loss.go_on == held && held > 0 {
        return Ok(loss);
    }
    Err(unexpected(format!("{} of {held} VMs of {node} go on elsewhere", loss.go_on)))
}

fn unexpected(why: String) -> LabError {
    LabError::new("the simulated cluster is not as expected", why)
}

/// A cluster of `vms` VMs, of which its first node has `on_first`; the rest are spread evenly over the others. All run.
fn view(on_first: usize, vms: usize) -> Result<ClusterView> {
    let mut view = ClusterView::default();
    for node in 0..NODES {
        for (part, value) in node_records(&name(node)) {
            put(&mut view, &format!("/nodes/{}{part}", name(node)), &value)?;
        }
    }
    for n in 0..vms {
        let node = if n < on_first { 0 } else { 1 + n % (NODES - 1) };
        let uuid = format!("00000000-0000-4000-8000-{n:012}");
        for (part, value) in vm_records(n, &uuid, &name(node)) {
            put(&mut view, &format!("/vms/{uuid}{part}"), &value)?;
        }
    }
    Ok(view)
}

fn put(view: &mut ClusterView, path: &str, value: &Value) -> Result<()> {
    let path = path.parse().map_err(|e| unexpected(format!("{path}: {e}")))?;
    view.apply(&path, Some((value.to_string().as_bytes(), drover_model::Version(1))));
    view.broken.get(&path).map_or(Ok(()), |why| Err(unexpected(format!("{path}: {why}"))))
}

/// Records of a node with 64 threads and 2 TiB, which can hold all VMs.
fn node_records(name: &str) -> [(&'static str, Value); 3] {
    let record = json!({"schema": 1, "name": name, "role": "hypervisor", "api": "", "domain_state": "ready"});
    let session = json!({
        "schema": 1, "instance": "00000000-0000-4000-8000-000000000000", "machine": "", "boot": "", "started": 0,
    });
    let memory = 2_u64 << 40;
    let status = json!({
        "schema": 1, "daemon": "run", "version": "", "kernel": "", "os": "", "arch": "x86_64", "domain_type": "kvm",
        "cpus": 64, "memory_total": memory, "memory_free": memory, "load": 0.0, "domains": [], "cpu_model": "",
        "bridges": definitions::BRIDGES, "shared": ["/srv/shared"], "updated": 0,
    });
    [("", record), ("/session", session), ("/status", status)]
}

/// Records of a VM that runs on a node.
fn vm_records(n: usize, uuid: &str, node: &str) -> [(&'static str, Value); 3] {
    let (name, xml) = (definitions::name(n), definitions::xml(n));
    let record = json!({
        "schema": 1, "uuid": uuid, "name": name, "state": {"is": "start"}, "node": node, "xml": xml, "generation": 1,
    });
    let claim = json!({"schema": 1, "node": node, "epoch": 1});
    let status = json!({"schema": 1, "node": node, "epoch": 1, "run": "running", "generation": 1, "since": 0});
    [("", record), ("/claim", claim), ("/status", status)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_measured_on_the_expected_cluster() {
        for on_first in [MANY / NODES, 100, MANY] {
            let view = view(on_first, MANY).unwrap();
            assert_eq!((view.nodes.len(), view.vms.len()), (NODES, MANY));
            evacuate(&view, on_first).unwrap();
            choose(&view).unwrap();
        }
        assert!(evacuate(&view(10, MANY).unwrap(), 11).is_err());
        let full = view(FULL / NODES, FULL).unwrap();
        assert_eq!((full.nodes.len(), full.vms.len()), (NODES, FULL));
        lose(&full, "node-099").unwrap();
        assert!(lose_several(&full).is_err(), "one is to be tolerated");
        let mut full = full;
        full.config.tolerate = 2;
        lose_several(&full).unwrap();
    }
}
