//! A single node with many VMs: a real `droverd` with its embedded store, and libvirt's test driver instead of a
//! hypervisor.

use super::{Place, fill};
use crate::{
    benchmarks::Row,
    daemon::Process,
    definitions,
    figures::{Figure, Samples},
    runner::{Rows, Scene},
};
use drover_client::Client;
use drover_lab::{Lab, LabError, Result};
use drover_model::{NodeName, wire::DefineVm};
use drover_store::{Store, embedded::EmbeddedStore};
use std::{
    fs,
    net::TcpListener,
    ops::Range,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The numbers of VMs to measure with.
const VMS: [usize; 4] = [0, 300, 3000, 10_000];
/// Repetitions of each change.
const CHANGES: usize = 20;
/// VMs per transaction while the store is filled, without the daemon.
const BATCH: usize = 200;
/// How long the idle daemon is observed.
const WINDOW: Duration = Duration::from_secs(30);
/// Timeout for a start, a stop, and for becoming idle.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The node.
struct Alone<'a> {
    place: &'a Place<'a>,
    folder: PathBuf,
    api: String,
    name: NodeName,
    rows: Rows,
}

/// Runs the benchmark.
pub(super) fn run(place: &Place<'_>) -> Result<Rows> {
    let failed = |e: std::io::Error| LabError::new("cannot prepare a node", e);
    // Below the lab's folder, which is removed in any case.
    let folder = place.folder.join("shared/alone");
    fs::create_dir_all(&folder).map_err(failed)?;
    let api = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(failed)?.to_string();
    let path = folder.display();
    let config = format!(
        "[node]\nname = \"one\"\n[api]\nlisten = [\"{api}\"]\n[hypervisor]\nuri = \"test:///default\"\n\
         domain_type = \"qemu\"\n[paths]\nstate = \"{path}/state\"\nlogs = \"{path}/logs\"\ndisks = \"{path}/disks\"\n"
    );
    fs::write(folder.join("drover.toml"), config).map_err(failed)?;
    let name = NodeName::new("one").map_err(|e| LabError::new("a name", e))?;
    let mut alone = Alone { place, folder, api, name, rows: Vec::new() };
    let mut before = 0;
    for vms in VMS {
        alone.fill(before..vms)?;
        alone.measure(vms)?;
        before = vms;
    }
    Ok(alone.rows)
}

/// A running daemon, killed on drop.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("cannot end droverd: {error}");
        }
    }
}

impl Alone<'_> {
    fn row(&mut self, vms: usize, what: &str, figure: Figure, detail: String) {
        let scene = Scene { cluster: "one node".to_owned(), vms };
        (self.place.progress)(&format!("    one node, {vms} VMs: {what}: {figure} ({detail})"));
        self.rows.push((scene, Row { what: what.to_owned(), figure, detail, target: None }));
    }

    /// Writes VMs into the store while the daemon does not run.
    fn fill(&self, range: Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let failed = |e| LabError::new("the records of one node", e);
        let store = EmbeddedStore::open(&self.folder.join("state")).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|e| LabError::new("cannot run anything asynchronous", e))?;
        for batch in range.collect::<Vec<_>>().chunks(BATCH) {
            let ops = batch.iter().map(|n| fill::new_vm(*n, &self.name)).collect::<Result<Vec<_>>>()?;
            runtime.block_on(store.multi(ops.concat())).map_err(failed)?;
        }
        Ok(())
    }

    fn start(&self) -> Result<(Daemon, Process, Client)> {
        let failed = |e: std::io::Error| LabError::new("cannot start droverd", e);
        let log = fs::File::create(self.folder.join("out")).map_err(failed)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.place.program.with_file_name("droverd"));
        command.arg("--config").arg(self.folder.join("drover.toml"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log).spawn();
        let daemon = Daemon(child.map_err(failed)?);
        let process = Process::of(i32::try_from(daemon.0.id()).unwrap_or_default())?;
        let file = self.folder.join("state/admin.token");
        let client = Lab::until("droverd does not answer", TIMEOUT, || {
            let token = fs::read_to_string(&file).ok()?;
            let client = Client::new(&format!("http://{}", self.api), Some(token.trim().to_owned())).ok()?;
            super::course::block_on(client.status()).is_ok().then_some(client)
        })?;
        Ok((daemon, process, client))
    }

    fn measure(&mut self, vms: usize) -> Result<()> {
        (self.place.progress)(&format!("one node, {vms} VMs: starting droverd, and watching it do nothing"));
        let (_runs, process, client) = self.start()?;
        let rests = || process.load(Duration::from_secs(1)).ok().filter(|percent| *percent < 5.0);
        Lab::until("droverd does not come to rest", TIMEOUT, rests)?;
        let load = process.load(WINDOW)?;
        self.row(vms, "processor time, of one core, nothing changes", Figure::Share(load), "over 30 s".to_owned());
        let memory = process.memory()?;
        let detail = format!("{} its own", Figure::Memory(memory.anonymous));
        self.row(vms, "resident memory of the daemon", Figure::Memory(memory.resident), detail);
        if vms == 0 {
            return Ok(());
        }
        // Names that the filling does not use.
        let first = 100_000 + vms;
        let define = each(&process, |n| {
            let xml = definitions::xml_without_bridges(first + n);
            let vm = DefineVm { xml, ..DefineVm::default() };
            super::course::block_on(client.define_vm(&vm)).map(|_| ())
        })?;
        self.changed(vms, "defining a VM until it is answered", define);
        let meta = each(&process, |n| {
            let change = super::course::of_priority(vms / 100 + n + 1);
            super::course::block_on(client.set_vm_meta(&definitions::name(n), &change)).map(|_| ())
        })?;
        self.changed(vms, "changing a VM's metadata until it is answered", meta);
        Ok(())
    }

    fn changed(&mut self, vms: usize, what: &str, (times, processor): (Samples, Duration)) {
        let detail = format!("{}; {} of processor time", times.range(), Figure::Time(processor));
        self.row(vms, what, times.median(), detail);
    }
}

/// Duration and processor time of each of some changes.
fn each(process: &Process, change: impl Fn(usize) -> Result<()>) -> Result<(Samples, Duration)> {
    let before = process.processor_time()?;
    let once = |n| {
        let begin = Instant::now();
        change(n).map(|()| begin.elapsed())
    };
    let times = Samples::new((0..CHANGES).map(once).collect::<Result<_>>()?)?;
    let used = process.processor_time()?.saturating_sub(before);
    Ok((times, used.div_f64(CHANGES as f64)))
}
