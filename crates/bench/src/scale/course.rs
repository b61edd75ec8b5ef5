//! The steps of the benchmark: an empty cluster, one with few VMs, a full one; then operations on many VMs, and the
//! restart of components.

use super::{
    Place, deaths,
    fill::{self, Records},
    helper::Helper,
    meter,
    words::{Crew, Question, Usage},
};
use crate::{
    benchmarks::Row,
    daemon::Process,
    definitions,
    figures::{Figure, Samples},
    pings::now,
    probe::{Probe, Requests, Runs},
    runner::{Rows, Scene},
};
use drover_client::{Client, ClientError};
use drover_lab::{Ensemble, LabError, Result};
use drover_model::{
    NodeName,
    wire::{ChangeConfig, ChangeMeta, DefineVm, DomainOrder, PowerOrder, SetDomainState, SetVmState},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    fs,
    future::Future,
    thread::sleep,
    time::{Duration, Instant},
};

/// Number of VMs for the comparison with few VMs.
const FEW: usize = 100;
/// How many VMs are defined one after the other, and how many have their metadata changed.
const CHANGES: usize = 20;
/// Rounds of changes on other nodes, alternating with idle periods.
const ROUNDS: u32 = 8;
/// Number of changes in one round, and the interval between them.
const ELSEWHERE: (u32, Duration) = (40, Duration::from_millis(50));
/// How long an idle cluster is observed: the interval at which an agent checks everything again.
const WINDOW: Duration = Duration::from_secs(30);
/// How many VMs are started at once.
const STARTS: usize = 1000;
/// How many of these requests are in flight at once.
const IN_FLIGHT: usize = 16;
/// Maximum number of running VMs on the node that is flushed.
const FLUSHED: usize = 100;
/// Memory of each node, in MiB: enough for all VMs.
const ROOM: u64 = 64 << 20;
/// Memory of the measured daemon's node: nothing is placed there, because its hypervisor is in another process than the
/// others.
const NO_ROOM: u64 = 600;
/// Heap of an ensemble member, in MiB: the base, and the addition per thousand VMs.
const HEAP: (u32, u32) = (256, 24);

/// The cluster.
pub(super) struct Large<'a> {
    pub(super) place: &'a Place<'a>,
    pub(super) crowd: Crew,
    alone: Crew,
    /// The process of all other nodes.
    pub(super) others: Helper,
    pub(super) one: Helper,
    pub(super) records: Records,
    pub(super) client: Client,
    /// Declared last, so that it is dropped after its users.
    pub(super) ensemble: Ensemble,
    token: String,
    rows: Rows,
    /// Number of VMs from filling.
    vms: usize,
    /// Number of VMs defined in addition.
    more: usize,
}

/// Runs the benchmark.
pub(super) fn run(place: &Place<'_>) -> Result<Rows> {
    let heap = HEAP.0 + HEAP.1 * place.size.vms.div_ceil(1000);
    (place.progress)(&format!("starting an ensemble and {} nodes", place.size.nodes));
    fs::create_dir_all(place.folder.join("shared")).map_err(|e| LabError::new("cannot make a folder", e))?;
    let ensemble = Ensemble::start_with_heap(place.folder, 3, heap)?;
    let mut large = Large::start(place, ensemble)?;
    if place.size.only_deaths {
        large.fill(place.size.vms as usize)?;
        large.deaths()?;
        return Ok(large.rows);
    }
    let empty = large.memory_of_one("resident memory of one daemon")?;
    large.fill(FEW)?;
    let few = large.changes()?;
    large.fill(place.size.vms as usize)?;
    let full = large.memory_of_one("resident memory of one daemon")?;
    let each = full.saturating_sub(empty) / u64::from(place.size.vms);
    large.row("of it for each VM, none of which is on its node", Figure::Memory(each), String::new());
    large.target(Figure::Memory(8 << 10));
    large.steady("nothing changes")?;
    let many = large.changes()?;
    large.ratios(&few, &many)?;
    large.lists()?;
    large.starts()?;
    large.steady(&format!("nothing changes, {STARTS} run"))?;
    large.flush()?;
    large.daemon_again()?;
    large.ensemble_again()?;
    large.deaths()?;
    Ok(large.rows)
}

/// Cost of changes.
struct Costs {
    define: (Duration, Samples),
    meta: (Duration, Samples),
    elsewhere: Samples,
}

fn unanswered(error: ClientError) -> LabError {
    LabError::new("the API of the one daemon", error)
}

/// A change of metadata. The priority differs from that of the last measurement, or nothing would be written.
pub(super) fn of_priority(n: usize) -> ChangeMeta {
    ChangeMeta { priority: i32::try_from(n).ok(), ..ChangeMeta::default() }
}

/// Runs a request to completion.
pub(super) fn block_on<T>(work: impl Future<Output = std::result::Result<T, ClientError>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| LabError::new("cannot run anything asynchronous", e))?.block_on(work).map_err(unanswered)
}

fn client(one: &Helper, token: &str) -> Result<Client> {
    let url = format!("http://{}", one.ready.api.as_deref().unwrap_or_default());
    Client::new(&url, Some(token.to_owned())).map_err(unanswered)
}

impl<'a> Large<'a> {
    fn start(place: &'a Place<'a>, ensemble: Ensemble) -> Result<Large<'a>> {
        let names = (0..place.size.nodes).map(|n| NodeName::new(&format!("hv{n:03}")));
        let names: Vec<NodeName> =
            names.collect::<std::result::Result<_, _>>().map_err(|e| LabError::new("a name", e))?;
        let (own, others) = names.split_first().ok_or_else(|| LabError::new("a cluster", "it has no nodes"))?;
        let token = "drover_of_the_measurement".to_owned();
        let crew = |names: &[NodeName], coordinators, memory, token| {
            let names = names.to_vec();
            Crew { servers: ensemble.addresses(), names, coordinators, bmcs: deaths::names(), memory, token }
        };
        let alone = crew(std::slice::from_ref(own), 0, NO_ROOM, Some(token.clone()));
        let crowd = crew(others, 3, ROOM, None);
        let others = Helper::start(place.program, &crowd)?;
        let one = Helper::start(place.program, &alone)?;
        let records = Records::connect(&alone)?;
        let client = client(&one, &token)?;
        let rows = Vec::new();
        Ok(Large { place, ensemble, crowd, alone, others, one, records, client, token, rows, vms: 0, more: 0 })
    }

    pub(super) fn say(&self, what: &str) {
        (self.place.progress)(&format!("{} nodes, {} VMs: {what}", self.place.size.nodes, self.vms));
    }

    pub(super) fn row(&mut self, what: &str, figure: Figure, detail: String) {
        let scene = Scene { cluster: format!("{} nodes", self.place.size.nodes), vms: self.vms };
        (self.place.progress)(&format!("    {} VMs: {what}: {figure} ({detail})", self.vms));
        self.rows.push((scene, Row { what: what.to_owned(), figure, detail, target: None }));
    }

    /// The target of the last row.
    fn target(&mut self, target: Figure) {
        if let Some((_, row)) = self.rows.last_mut() {
            row.target = Some(target);
        }
    }

    /// The first number that no VM has.
    pub(super) fn beyond(&self) -> usize {
        self.place.size.vms as usize + self.more
    }

    /// Creates VMs up to a number, after checking that they fit into the machine's memory.
    fn fill(&mut self, vms: usize) -> Result<()> {
        let sample = (vms / 10).max(FEW);
        for step in [sample, vms].into_iter().filter(|step| *step <= vms) {
            let from = self.vms;
            let before = self.one.usage()?.resident + self.others.usage()?.resident;
            if step > from {
                self.say(&format!("defining VMs until there are {step}"));
                self.records.fill(from..step, &self.crowd.names)?;
                self.vms = step;
                self.settle()?;
            }
            let after = self.one.usage()?.resident + self.others.usage()?.resident;
            if step == sample && step > from {
                meter::guard(after.saturating_sub(before), step - from, vms - from, meter::available()?)?;
            }
        }
        Ok(())
    }

    /// Waits until every agent has seen everything written so far, and the measured daemon is idle.
    fn settle(&mut self) -> Result<()> {
        let last = fill::uuid(self.vms.saturating_sub(1));
        self.everyone_sees(&last, &format!("the last of {}", self.vms))?;
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut before = self.one.usage()?.processor;
        loop {
            sleep(Duration::from_secs(1));
            let now = self.one.usage()?.processor;
            if now.saturating_sub(before) < Duration::from_millis(300) || Instant::now() > deadline {
                return Ok(());
            }
            before = now;
        }
    }

    /// Changes a VM, and waits until all agents have seen it. Returns when each did, in microseconds after the change
    /// began.
    fn everyone_sees(&mut self, uuid: &uuid::Uuid, description: &str) -> Result<Vec<Duration>> {
        let question = Question::Seen(*uuid, description.to_owned());
        self.others.ask(&question)?;
        self.one.ask(&question)?;
        let begin = now();
        self.records.describe_at_last(uuid, description)?;
        let mut times = self.others.times()?;
        times.extend(self.one.times()?);
        Ok(times.into_iter().map(|at| Duration::from_micros(at.saturating_sub(begin))).collect())
    }

    /// Processor time per second of the measured daemon while nothing happens.
    fn at_rest(&mut self, during: Duration) -> Result<f64> {
        let (before, begin) = (self.one.usage()?.processor, Instant::now());
        sleep(during);
        let used = self.one.usage()?.processor.saturating_sub(before);
        Ok(used.as_secs_f64() / begin.elapsed().as_secs_f64())
    }

    fn memory_of_one(&mut self, what: &str) -> Result<u64> {
        let Usage { resident, .. } = self.one.usage()?;
        let detail = format!("{} all others together", Figure::Memory(self.others.usage()?.resident));
        self.row(what, Figure::Memory(resident), detail);
        Ok(resident)
    }

    /// Total processor time of the ensemble so far.
    pub(super) fn time_of_ensemble(&self) -> Result<Duration> {
        let time = |pid| Process::of(i32::try_from(pid).unwrap_or_default())?.processor_time();
        self.ensemble.processes().into_iter().map(time).sum()
    }

    fn steady(&mut self, when: &str) -> Result<()> {
        self.say("watching it do nothing");
        let members = self.ensemble.addresses();
        let (before, time, begin) = (meter::requests(&members)?, self.time_of_ensemble()?, Instant::now());
        let share = self.at_rest(WINDOW)?;
        let seconds = begin.elapsed().as_secs_f64();
        let requests = (meter::requests(&members)? - before) as f64 / seconds;
        let ensemble = self.time_of_ensemble()?.saturating_sub(time).as_secs_f64() / seconds;
        let during = format!("over {} s", WINDOW.as_secs());
        self.row(
            &format!("processor time of one daemon, of one core, {when}"),
            Figure::Share(100.0 * share),
            during.clone(),
        );
        self.target(Figure::Share(0.5));
        self.row(
            &format!("requests to the ensemble in a second, {when}"),
            Figure::Count(requests.round() as u64),
            format!("{during}; the three members together use {} of one core", Figure::Share(100.0 * ensemble)),
        );
        self.memory_of_one(&format!("resident memory of one daemon, {when}")).map(|_| ())
    }

    /// Processor time that some work takes in the measured daemon, without its idle load, and the duration of each
    /// request.
    fn spent(
        &mut self,
        idle: f64,
        count: usize,
        act: impl Fn(&Client, usize) -> Result<()>,
    ) -> Result<(Duration, Samples)> {
        let (before, begin) = (self.one.usage()?.processor, Instant::now());
        let mut times = Vec::new();
        for n in 0..count {
            let start = Instant::now();
            act(&self.client, n)?;
            times.push(start.elapsed());
        }
        let in_any_case = begin.elapsed().mul_f64(idle);
        let used = self.one.usage()?.processor.saturating_sub(before).saturating_sub(in_any_case);
        Ok((used.div_f64(count as f64), Samples::new(times)?))
    }

    fn changes(&mut self) -> Result<Costs> {
        self.say("defining and changing VMs, one after the other");
        let idle = self.at_rest(Duration::from_secs(10))?;
        let first = self.beyond();
        self.more += CHANGES;
        let define = self.spent(idle, CHANGES, |client, n| {
            block_on(client.define_vm(&DefineVm { xml: definitions::xml(first + n), ..DefineVm::default() }))
                .map(|_| ())
        })?;
        let detail =
            |(_, wall): &(Duration, Samples)| format!("{} until it is answered, {}", wall.median(), wall.range());
        self.row("processor time of the daemon that defines a VM", Figure::Time(define.0), detail(&define));
        let meta = self.spent(idle, CHANGES, |client, n| {
            let change = of_priority(first % 1000 + n + 1);
            block_on(client.set_vm_meta(&definitions::name(n), &change)).map(|_| ())
        })?;
        self.row("processor time of the daemon that changes metadata", Figure::Time(meta.0), detail(&meta));
        let elsewhere = Samples::new((0..ROUNDS).map(|round| self.elsewhere(round)).collect::<Result<_>>()?)?;
        let (count, pause) = ELSEWHERE;
        let detail = format!("{}; {count} changes, {} ms apart, {ROUNDS} times", elsewhere.range(), pause.as_millis());
        self.row("processor time of a daemon for a change elsewhere", elsewhere.median(), detail);
        Ok(Costs { define, meta, elsewhere })
    }

    /// Cost of each of some changes on other nodes, compared to an idle period of the same length.
    fn elsewhere(&mut self, round: u32) -> Result<Duration> {
        let (count, pause) = ELSEWHERE;
        let idle = self.at_rest(pause * count)?;
        let (before, begin) = (self.one.usage()?.processor, Instant::now());
        for n in 0..count {
            sleep(pause);
            let description = format!("changed as number {n} of round {round} among {}", self.vms);
            self.records.describe(&fill::uuid(n as usize % self.vms), &description)?;
        }
        sleep(pause);
        let in_any_case = begin.elapsed().mul_f64(idle);
        Ok(self.one.usage()?.processor.saturating_sub(before).saturating_sub(in_any_case) / count)
    }

    fn ratios(&mut self, few: &Costs, many: &Costs) -> Result<()> {
        let times = |few: Duration, many: Duration| Figure::Ratio(many.as_secs_f64() / few.as_secs_f64());
        let detail = format!("{} VMs against {FEW}", self.vms);
        let walls = |few: &Samples, many: &Samples| format!("{detail}; until it is answered: {}", many.against(few));
        let (define, meta) = (walls(&few.define.1, &many.define.1), walls(&few.meta.1, &many.meta.1));
        self.row("**many VMs against few**, defining one", times(few.define.0, many.define.0), define);
        self.target(Figure::Ratio(1.5));
        self.row("**many VMs against few**, metadata", times(few.meta.0, many.meta.0), meta);
        self.row("**many VMs against few**, a change elsewhere", many.elsewhere.against(&few.elsewhere), detail);
        Ok(())
    }

    fn lists(&mut self) -> Result<()> {
        self.say("asking for lists");
        let api = self.one.ready.api.clone().unwrap_or_default();
        for parameter in ["", "?xml=false"] {
            let path = format!("/api/v1/vm{parameter}");
            let before = self.one.usage()?.processor;
            let answers = Requests { path: path.clone(), warm_up: 2, count: 20 }.of(&api, &self.token)?;
            let used = self.one.usage()?.processor.saturating_sub(before) / 22;
            let (first, whole) = (Samples::new(answers.first_byte)?, Samples::new(answers.whole)?);
            self.row(&format!("`GET {path}` until its first byte"), first.median(), first.range());
            self.target(Figure::ms(20));
            let what = format!("`GET {path}`, all {}", Figure::Memory(answers.size));
            let detail = format!("{}; {} of the daemon's processor time", whole.range(), Figure::Time(used));
            self.row(&what, whole.median(), detail);
        }
        let command = self.place.program.with_file_name("drover").display().to_string();
        let (url, token) = (format!("DROVER_API=http://{api}"), format!("DROVER_TOKEN={}", self.token));
        let argv = ["env", &url, &token, &command, "vm", "list"].map(str::to_owned).to_vec();
        let listed = Samples::new(Runs { argv, count: 5 }.run()?)?;
        self.row("`drover vm list`", listed.median(), listed.range());
        self.target(Figure::ms(100));
        Ok(())
    }

    pub(super) fn set_states(&self, numbers: impl Iterator<Item = usize>, state: PowerOrder) -> Result<()> {
        let set =
            async |n: usize| self.client.set_vm_state(&definitions::name(n), SetVmState::to(state)).await.map(|_| ());
        block_on(stream::iter(numbers).map(set).buffer_unordered(IN_FLIGHT).try_collect())
    }

    fn starts(&mut self) -> Result<()> {
        self.say(&format!("starting {STARTS} VMs"));
        self.others.ask(&Question::Running((0..STARTS).map(fill::uuid).collect()))?;
        let begin = now();
        self.set_states(0..STARTS, PowerOrder::Start)?;
        let ordered = Duration::from_micros(now() - begin);
        let took = self.since(begin)?;
        let detail = format!("{} until all were ordered, {IN_FLIGHT} at once", Figure::Time(ordered));
        self.row(&format!("starting {STARTS} VMs, until all run"), Figure::Time(took), detail);
        Ok(())
    }

    fn since(&mut self, begin: u64) -> Result<Duration> {
        let at = self.others.times()?.into_iter().max().unwrap_or_default();
        Ok(Duration::from_micros(at.saturating_sub(begin)))
    }

    fn flush(&mut self) -> Result<()> {
        let nodes = self.crowd.names.len();
        // The VMs of the first node: every nth one.
        let own: Vec<usize> = (0..self.vms).step_by(nodes).take(FLUSHED).collect();
        let Some(name) = self.crowd.names.first().cloned() else { return Ok(()) };
        self.say(&format!("flushing a node with {} running VMs", own.len()));
        self.others.ask(&Question::Running(own.iter().copied().map(fill::uuid).collect()))?;
        self.set_states(own.iter().copied().filter(|n| *n >= STARTS), PowerOrder::Start)?;
        self.others.times()?;
        let (moves_per_source, moves_per_target, moves) = (Some(100), Some(100), Some(100));
        let limits = ChangeConfig { moves_per_source, moves_per_target, moves, ..ChangeConfig::default() };
        block_on(self.client.set_config(&limits))?;
        self.others.ask(&Question::Flushed(name.clone()))?;
        let begin = now();
        block_on(self.client.set_domain_state(name.as_str(), SetDomainState::to(DomainOrder::Flush)))?;
        let took = self.since(begin)?;
        let detail = "with all limits of moves at 100".to_owned();
        self.row(&format!("flushing a node with {} running VMs", own.len()), Figure::Time(took), detail);
        Ok(())
    }

    fn daemon_again(&mut self) -> Result<()> {
        self.say("restarting the one daemon");
        self.one.end()?;
        self.one = Helper::start(self.place.program, &self.alone)?;
        self.client = client(&self.one, &self.token)?;
        let (loaded, used) = (self.one.ready.loaded, self.one.ready.usage.processor);
        let detail = format!("{} of processor time", Figure::Time(used));
        self.row("a daemon's start, until it has read everything and reported", Figure::Time(loaded), detail);
        self.memory_of_one("resident memory of one daemon that has just been started").map(|_| ())
    }

    fn ensemble_again(&mut self) -> Result<()> {
        self.say("restarting the ensemble");
        for member in 0..3 {
            self.ensemble.kill_member(member)?;
        }
        for member in 0..3 {
            self.ensemble.start_member(member)?;
        }
        self.ensemble.wait_serving()?;
        let (before, all) = (self.one.usage()?.processor, self.others.usage()?.processor);
        let ensemble = self.time_of_ensemble()?;
        let last = fill::uuid(self.vms.saturating_sub(1));
        let times = Samples::new(self.everyone_sees(&last, "after the ensemble was gone")?)?;
        let used = self.one.usage()?.processor.saturating_sub(before);
        let all = self.others.usage()?.processor.saturating_sub(all);
        let ensemble = self.time_of_ensemble()?.saturating_sub(ensemble);
        let detail = format!(
            "median {}; processor time: one daemon {}, all others {}, the ensemble {}",
            times.median(),
            Figure::Time(used),
            Figure::Time(all),
            Figure::Time(ensemble)
        );
        self.row("the ensemble was gone: until the slowest view is current again", times.percentile(100), detail);
        self.target(Figure::ms(10_000));
        Ok(())
    }
}
