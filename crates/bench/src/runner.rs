//! Runs the selected benchmarks. Each kind of cluster is brought up once, empty, and then filled with VMs.

use crate::{
    benchmarks::{Benchmark, MANY, Measure, Row, Setting},
    machine::Machine,
    scale::{Place, Size},
    world::{Cluster, World},
};
use drover_lab::{Lab, Progress, Result};
use std::path::Path;

/// Results of all benchmarks.
pub(crate) struct Results {
    /// Facts about the machine.
    pub(crate) machine: Machine,
    /// The tables, in the order of the document.
    pub(crate) tables: Vec<Table>,
}

/// Results of one benchmark.
pub(crate) struct Table {
    /// The benchmark.
    pub(crate) benchmark: &'static Benchmark,
    /// Its rows.
    pub(crate) rows: Rows,
}

/// Rows, each with the cluster that it was measured in.
pub(crate) type Rows = Vec<(Scene, Row)>;

/// The cluster that a row was measured in, as shown in the table.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Description of the cluster, such as `three nodes`.
    pub(crate) cluster: String,
    /// Number of defined VMs.
    pub(crate) vms: usize,
}

impl Table {
    fn add(&mut self, scene: &Scene, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (scene.clone(), row)));
    }
}

/// Runs benchmarks. Labs are brought up in `folder`, which must not exist and is removed afterwards.
pub(crate) fn run(
    selected: &[&'static Benchmark],
    size: Size,
    folder: &Path,
    program: &Path,
    progress: Progress<'_>,
) -> Result<Results> {
    let mut machine = Machine::read(program)?;
    if let Some(warning) = machine.busy() {
        progress(&warning);
    }
    let mut tables: Vec<Table> = selected.iter().map(|benchmark| Table { benchmark, rows: Vec::new() }).collect();
    // First, while no lab uses the CPUs.
    for table in &mut tables {
        if let Measure::Alone { nodes, vms, run } = table.benchmark.measure {
            progress(&format!("{}: {nodes} nodes, {vms} VMs", table.benchmark.name));
            table.add(&Scene { cluster: format!("{nodes} nodes, simulated"), vms }, run()?);
        }
        if let Measure::Large { run } = table.benchmark.measure {
            table.rows.extend(run(&Place { size, folder, program, progress })?);
            Lab::remove(folder)?;
        }
    }
    for cluster in Cluster::ALL {
        let wants = |vms| {
            let setting = Setting { cluster, vms };
            selected.iter().any(|benchmark| benchmark.measure.is_in(setting)).then_some(setting)
        };
        let settings: Vec<Setting> = [0, MANY].into_iter().filter_map(wants).collect();
        if settings.is_empty() {
            continue;
        }
        let mut world = World::up(cluster, folder, program, progress)?;
        machine.guests(cluster, &world.nodes()?);
        for setting in settings {
            world.fill(setting.vms)?;
            let scene = Scene { cluster: cluster.to_string(), vms: setting.vms };
            for table in tables.iter_mut().filter(|table| table.benchmark.measure.is_in(setting)) {
                if let Measure::InLabs { run, .. } = table.benchmark.measure {
                    table.add(&scene, run(&world)?);
                }
            }
        }
        progress(&format!("{cluster}: taking the lab down"));
    }
    Ok(Results { machine, tables })
}
