//! Measures what was chosen: each kind of cluster is brought up once, empty, and then filled.

use crate::{
    benchmarks::{Benchmark, MANY, Measure, Row, Setting},
    machine::Machine,
    scale::{Place, Size},
    world::{Cluster, World},
};
use drover_lab::{Lab, Progress, Result};
use std::path::Path;

/// What was found.
pub(crate) struct Results {
    /// Where.
    pub(crate) machine: Machine,
    /// The benchmarks' rows, in the order of the document.
    pub(crate) tables: Vec<Table>,
}

/// What one benchmark found.
pub(crate) struct Table {
    /// It.
    pub(crate) benchmark: &'static Benchmark,
    /// Its rows, each with what it was measured in.
    pub(crate) rows: Rows,
}

/// Rows, each with what it was measured in.
pub(crate) type Rows = Vec<(Scene, Row)>;

/// What a row was measured in, for people.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// `three nodes`.
    pub(crate) cluster: String,
    /// How many VMs there were on record.
    pub(crate) vms: usize,
}

impl Table {
    fn take(&mut self, scene: &Scene, rows: Vec<Row>) {
        self.rows.extend(rows.into_iter().map(|row| (scene.clone(), row)));
    }
}

/// Measures. The lab is in `folder`, which does not exist before and after.
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
    // Before anything is brought up, when nothing else is at work.
    for table in &mut tables {
        if let Measure::Alone { nodes, vms, run } = table.benchmark.measure {
            progress(&format!("{}: {nodes} nodes, {vms} VMs", table.benchmark.name));
            table.take(&Scene { cluster: format!("{nodes} nodes, imagined"), vms }, run()?);
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
                    table.take(&scene, run(&world)?);
                }
            }
        }
        progress(&format!("{cluster}: taking the lab down"));
    }
    Ok(Results { machine, tables })
}
