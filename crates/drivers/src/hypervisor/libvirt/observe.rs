//! Maps libvirt's state of domains to ours.

use super::{
    CallError, Shared, capabilities,
    ffi::{self, Happened},
    find, lanes, lock, migrate, processes,
};
use crate::hypervisor::{Domain, Host, Listing};
use drover_model::{
    DiskError, DiskProblem, Foreign, Obs, OffReason, Paused, PausedBy, RunState, Transit,
    domain::{Mark, Written, started_with, written},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;
use virt::connect::Connect;
use virt_sys as sys;

type Outcome<T> = std::result::Result<T, CallError>;

/// Cache of what a running domain's XML said. Also keyed by the hypervisor's id of the run, which is never reused. Only
/// for lists: its disks may have changed since, of which libvirt sends no event.
#[derive(Debug, Default)]
pub(super) struct Known {
    runs: BTreeMap<Uuid, Run>,
    /// Disks with errors of guests that were paused because of them.
    disks: BTreeMap<Uuid, Vec<DiskError>>,
}

/// How guests that are off, or nearly, began to end, as libvirt said when it happened. It does not say so later: a
/// domain that is off has the reason *shutdown* for a guest's power-off and for a signal alike (libvirt 9.0.0,
/// `processMonitorEOFEvent`).
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<Uuid, OffReason>);

impl Ends {
    pub(super) fn happened(&mut self, uuid: Uuid, what: Happened) {
        match what {
            Happened::Ending { own_wish } => {
                self.0.insert(uuid, if own_wish { OffReason::Shutdown } else { OffReason::Ended });
            }
            Happened::Began | Happened::Undefined => self.forget(uuid),
            Happened::Other => {}
        }
    }

    /// A new guest begins: the word on the last one is not of it.
    pub(super) fn forget(&mut self, uuid: Uuid) {
        self.0.remove(&uuid);
    }

    /// Why a domain is off of which libvirt says this.
    fn reason(&self, uuid: Uuid, said: OffReason) -> OffReason {
        match said {
            OffReason::Shutdown => self.0.get(&uuid).copied().unwrap_or(OffReason::ShutdownOrEnded),
            other => other,
        }
    }
}

/// One run of a domain: its id, and what its XML says.
type Run = (u32, Facts);

/// What a domain's XML says. All but its present disks stays the same while it runs.
#[derive(Debug, Clone, Default)]
struct Facts {
    mark: Option<Mark>,
    vnc: Option<(String, u16)>,
    started_with: Written,
    disks: Written,
}

impl Facts {
    fn read(xml: &str) -> Facts {
        Facts { mark: Mark::read(xml), vnc: vnc(xml), started_with: started_with(xml), disks: written(xml) }
    }
}

impl Known {
    pub(super) fn forget(&mut self, uuid: Uuid) {
        self.runs.remove(&uuid);
        self.disks.remove(&uuid);
    }
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.disks.clear();
    }
    fn disks(&self, uuid: Uuid) -> Vec<DiskError> {
        self.disks.get(&uuid).cloned().unwrap_or_default()
    }
    fn set_disks(&mut self, uuid: Uuid, disks: Vec<DiskError>) {
        self.disks.insert(uuid, disks);
    }
}

/// Observes one domain. `sending`: it is known to be migrating, so libvirt need not be asked.
pub(super) fn one(connection: &Connect, shared: &Shared, uuid: Uuid, sending: bool) -> Outcome<Obs<Domain>> {
    let Some(domain) = find(connection, uuid)? else { return Ok(if_ended(shared, uuid, Obs::Absent)) };
    let mut seen = match look(&domain, shared, uuid, Xml::Anew)? {
        Some(Obs::Known(seen)) if seen.run != RunState::Off => Domain { transient: !domain.is_persistent()?, ..seen },
        // A guest that arrives or leaves by migration is briefly here without a persistent definition.
        Some(Obs::Known(_)) if !domain.is_persistent()? => {
            return Ok(Obs::Unknown("it is just coming or going".to_owned()));
        }
        Some(other) => return Ok(other),
        None => {
            let foreign = "the domain with the VM's UUID here is not Drover's; undefine it ('virsh undefine')";
            return Ok(Obs::Unknown(foreign.to_owned()));
        }
    };
    // Whether it is leaving is asked of one that may: until shortly before it is here, a guest that is coming is not
    // persistent; in post-copy its state says it.
    if !sending && !is_torn(&seen) && (seen.run != RunState::Paused || !seen.transient) {
        seen.sending = migrate::is_leaving(&domain)?;
    }
    if let Some(paused) = &mut seen.paused
        && paused.by == PausedBy::IoError
    {
        paused.disks = failed_disks(&domain, shared, uuid)?;
    }
    Ok(Obs::Known(seen))
}

/// What is seen of a guest that is off for libvirt: that, if its process has ended.
fn if_ended(shared: &Shared, uuid: Uuid, seen: Obs<Domain>) -> Obs<Domain> {
    let left_over = lock(&shared.processes).left_over(uuid).map(processes::given_up);
    match left_over {
        Some(why) => {
            lock(&shared.given_up).insert(uuid, why.clone());
            Obs::Unknown(why)
        }
        None => {
            lock(&shared.given_up).remove(&uuid);
            seen
        }
    }
}

/// Observes all domains.
pub(super) fn all(connection: &Connect, shared: &Shared) -> Outcome<Listing> {
    let (mut out, mut foreign, mut active) = (Vec::new(), Vec::new(), BTreeSet::new());
    for domain in connection.list_all_domains(0)? {
        let Ok(uuid) = Uuid::parse_str(&domain.get_uuid_string()?) else { continue };
        active.extend(domain.get_id().map(|_| uuid));
        let seen = match lock(&shared.lanes).change(uuid) {
            Some(what) => Obs::Unknown(lanes::busy(what)),
            None => match look(&domain, shared, uuid, Xml::Known) {
                Ok(None) => {
                    foreign.push(Foreign { uuid, name: domain.get_name()?, running: domain.get_id().is_some() });
                    continue;
                }
                Ok(Some(seen)) => seen,
                Err(CallError::Refused(why)) => Obs::Unknown(why),
                Err(broken) => return Err(broken),
            },
        };
        out.push((uuid, seen));
    }
    // Those whose processes have not ended, although they are off for libvirt.
    active.extend(out.iter().filter(|(_, seen)| matches!(seen, Obs::Unknown(_))).map(|(uuid, _)| *uuid));
    let others = lock(&shared.processes).others(|uuid| active.contains(uuid));
    out.retain(|(uuid, _)| !others.iter().any(|(other, _)| other == uuid));
    out.extend(others.into_iter().map(|(uuid, process)| (uuid, Obs::Unknown(processes::given_up(process)))));
    out.sort_by_key(|(uuid, _)| *uuid);
    foreign.sort();
    Ok(Listing { ours: out, foreign })
}

/// Replaces the mark of a domain, live and in its definition. libvirt (9.0.0, `virDomainObjSetMetadata`) changes its
/// own memory and files only; QEMU takes no part.
pub(super) fn mark(domain: &virt::domain::Domain, from: Mark, to: Mark) -> Outcome<()> {
    let xml = domain.get_xml_desc(0)?;
    let is = Mark::read(&xml);
    if is != Some(from) && is != Some(to) {
        return Err(CallError::Refused("it is another guest by now".to_owned()));
    }
    if domain.get_autostart()? {
        domain.set_autostart(false)?;
    }
    if !domain.is_persistent()? {
        // `virsh migrate` without --persistent, or `virsh undefine`: without a definition nobody sees how it ended.
        let definition = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE)?;
        virt::domain::Domain::define_xml(&domain.get_connect()?, &definition)?;
    }
    let live = if domain.is_active()? { sys::VIR_DOMAIN_AFFECT_LIVE } else { 0 };
    set_mark(domain, to, &started_with(&xml), live | sys::VIR_DOMAIN_AFFECT_CONFIG)
}

/// Sets the mark of a domain, with those disks. `affects`: `VIR_DOMAIN_AFFECT_LIVE`, `VIR_DOMAIN_AFFECT_CONFIG` or
/// both.
pub(super) fn set_mark(domain: &virt::domain::Domain, mark: Mark, disks: &Written, affects: u32) -> Outcome<()> {
    let (element, prefix, namespace) = mark.metadata(disks);
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or(2);
    domain.set_metadata(kind, Some(&element), Some(prefix), Some(namespace), affects)?;
    Ok(())
}

/// Whether the XML of a running domain is read each time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Xml {
    /// It is. libvirt 9.0.0 (`qemuDomainGetXMLDesc`) needs neither a job nor the monitor for it, so a guest that hangs
    /// does not delay it.
    Anew,
    /// Only if it was not read before.
    Known,
}

/// Looks at a domain, but not whether it is being sent, or is transient. `None`: it is not ours.
fn look(domain: &virt::domain::Domain, shared: &Shared, uuid: Uuid, xml: Xml) -> Outcome<Option<Obs<Domain>>> {
    let (state, reason) = domain.get_state()?;
    // No id: it does not run.
    let id = domain.get_id();
    let known = id.and_then(|id| lock(&shared.known).runs.get(&uuid).filter(|(of, _)| *of == id).cloned());
    let facts = match known.filter(|_| xml == Xml::Known) {
        Some((_, facts)) => facts,
        None => {
            let facts = Facts::read(&domain.get_xml_desc(0)?);
            if let Some(id) = id {
                lock(&shared.given_up).remove(&uuid);
                lock(&shared.processes).began(uuid);
                lock(&shared.known).runs.insert(uuid, (id, facts.clone()));
            }
            facts
        }
    };
    let Facts { mark, vnc, started_with, disks } = facts;
    let Some(mark) = mark else { return Ok(None) };
    let run = run_state(state, id.is_some());
    let off = (run == RunState::Off).then(|| lock(&shared.ends).reason(uuid, off_reason(reason)));
    let paused = (run == RunState::Paused).then(|| Paused::from(paused_by(state, reason)));
    let (name, sending, transit, transient) = (domain.get_name()?, false, transit(state, reason), false);
    let seen = Obs::Known(Domain {
        uuid,
        name,
        run,
        off,
        paused,
        mark,
        vnc,
        sending,
        transit,
        transient,
        started_with,
        disks,
    });
    Ok(Some(if run == RunState::Off { if_ended(shared, uuid, seen) } else { seen }))
}

/// The disks that returned an error to a guest that is paused because of it. While QEMU's monitor is occupied, those
/// that are known already.
fn failed_disks(domain: &virt::domain::Domain, shared: &Shared, uuid: Uuid) -> Outcome<Vec<DiskError>> {
    // As with jobs, a query could wait for ever.
    if ffi::is_occupied(domain)? {
        return Ok(lock(&shared.known).disks(uuid));
    }
    let error =
        |error| if error == sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE { DiskProblem::NoSpace } else { DiskProblem::Failed };
    let mut disks: Vec<DiskError> =
        ffi::disk_errors(domain)?.into_iter().map(|(disk, code)| DiskError { disk, error: error(code) }).collect();
    disks.sort();
    lock(&shared.known).set_disks(uuid, disks.clone());
    Ok(disks)
}

/// libvirt's `virDomainPausedReason`, and its states of domains in memory that do not execute.
fn paused_by(state: sys::virDomainState, reason: i32) -> PausedBy {
    match state {
        sys::VIR_DOMAIN_PMSUSPENDED => return PausedBy::Asleep,
        sys::VIR_DOMAIN_CRASHED => return PausedBy::Crashed,
        _ => {}
    }
    match u32::try_from(reason).unwrap_or(0) {
        // FROM_SNAPSHOT: somebody reverted to a snapshot of a paused guest, or asked for it to be paused.
        sys::VIR_DOMAIN_PAUSED_USER | sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT => PausedBy::Administrator,
        sys::VIR_DOMAIN_PAUSED_IOERROR => PausedBy::IoError,
        sys::VIR_DOMAIN_PAUSED_WATCHDOG => PausedBy::Watchdog,
        sys::VIR_DOMAIN_PAUSED_CRASHED => PausedBy::Crashed,
        sys::VIR_DOMAIN_PAUSED_SAVE
        | sys::VIR_DOMAIN_PAUSED_DUMP
        | sys::VIR_DOMAIN_PAUSED_SNAPSHOT
        | sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN
        | sys::VIR_DOMAIN_PAUSED_STARTING_UP => PausedBy::Busy,
        sys::VIR_DOMAIN_PAUSED_MIGRATION | sys::VIR_DOMAIN_PAUSED_POSTCOPY => PausedBy::Migrating,
        sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => PausedBy::PostCopyFailed,
        _ => PausedBy::Unknown,
    }
}

/// libvirt's `virDomainState`. A domain that crashed and was preserved is still in memory, so it counts as paused.
pub(super) fn run_state(state: sys::virDomainState, active: bool) -> RunState {
    match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED | sys::VIR_DOMAIN_NOSTATE if active => RunState::Running,
        sys::VIR_DOMAIN_SHUTDOWN if active => RunState::ShuttingDown,
        _ if active => RunState::Paused,
        _ => RunState::Off,
    }
}

/// What libvirt's `virDomainPausedReason` or `virDomainRunningReason` says of a migration. When one with the flag
/// *paused* is over, the reason at the target is `user` (9.0.0, `qemuMigrationDstComplete`).
fn transit(state: sys::virDomainState, reason: i32) -> Option<Transit> {
    match (state, u32::try_from(reason).ok()?) {
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_MIGRATION) => Some(Transit::Switching),
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_POSTCOPY)
        | (sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_RUNNING_POSTCOPY) => Some(Transit::Split),
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
        | (sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED) => Some(Transit::Broken),
        _ => None,
    }
}

fn is_torn(seen: &Domain) -> bool {
    matches!(seen.transit, Some(Transit::Split | Transit::Broken))
}

/// libvirt's `virDomainShutoffReason`.
fn off_reason(reason: i32) -> OffReason {
    match u32::try_from(reason).unwrap_or(0) {
        sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => OffReason::Shutdown,
        sys::VIR_DOMAIN_SHUTOFF_DESTROYED => OffReason::Destroyed,
        sys::VIR_DOMAIN_SHUTOFF_CRASHED => OffReason::Crashed,
        sys::VIR_DOMAIN_SHUTOFF_MIGRATED => OffReason::Migrated,
        sys::VIR_DOMAIN_SHUTOFF_FAILED => OffReason::Failed,
        sys::VIR_DOMAIN_SHUTOFF_SAVED => OffReason::Saved,
        _ => OffReason::Unknown,
    }
}

/// The address and port of a running domain's VNC server.
fn vnc(xml: &str) -> Option<(String, u16)> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let is_vnc = |n: &roxmltree::Node<'_, '_>| n.has_tag_name("graphics") && n.attribute("type") == Some("vnc");
    let graphics = document.descendants().find(is_vnc)?;
    let port = graphics.attribute("port")?.parse().ok().filter(|port| *port != 0)?;
    Some((graphics.attribute("listen").unwrap_or("").to_owned(), port))
}

pub(super) fn host(connection: &Connect) -> Outcome<Host> {
    // Both versions are 1,000,000 × major + 1,000 × minor + release.
    let version = |v: u32| format!("{}.{}.{}", v / 1_000_000, v / 1_000 % 1_000, v % 1_000);
    let kind = connection.get_type()?;
    let (own, hypervisor) = (version(connection.get_lib_version()?), version(connection.get_hyp_version()?));
    let capabilities = connection.get_capabilities()?;
    let (domain_types, guests) = capabilities::read(&capabilities);
    let cpus = connection.get_node_info()?.cpus;
    Ok(Host { version: format!("{kind} {hypervisor}, libvirt {own}"), cpus, domain_types, guests })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_mapped() {
        assert_eq!(run_state(sys::VIR_DOMAIN_RUNNING, true), RunState::Running);
        assert_eq!(run_state(sys::VIR_DOMAIN_PAUSED, true), RunState::Paused);
        assert_eq!(run_state(sys::VIR_DOMAIN_CRASHED, true), RunState::Paused);
        assert_eq!(run_state(sys::VIR_DOMAIN_CRASHED, false), RunState::Off);
        assert_eq!(run_state(sys::VIR_DOMAIN_SHUTOFF, false), RunState::Off);
        let paused = |reason: u32| paused_by(sys::VIR_DOMAIN_PAUSED, i32::try_from(reason).unwrap());
        assert_eq!(paused(sys::VIR_DOMAIN_PAUSED_USER), PausedBy::Administrator);
        assert_eq!(paused(sys::VIR_DOMAIN_PAUSED_IOERROR), PausedBy::IoError);
        assert_eq!(paused(99), PausedBy::Unknown);
        assert_eq!(paused_by(sys::VIR_DOMAIN_PAUSED, -1), PausedBy::Unknown);
        assert_eq!(paused_by(sys::VIR_DOMAIN_PMSUSPENDED, 0), PausedBy::Asleep);
        assert_eq!(paused_by(sys::VIR_DOMAIN_CRASHED, 1), PausedBy::Crashed);
        assert_eq!(off_reason(1), OffReason::Shutdown);
        assert_eq!(off_reason(-1), OffReason::Unknown);
    }

    #[test]
    fn who_ended_a_guest_is_what_was_said_of_this_one() {
        let (mut ends, uuid) = (Ends::default(), Uuid::from_u128(1));
        assert_eq!(ends.reason(uuid, OffReason::Shutdown), OffReason::ShutdownOrEnded);
        ends.happened(uuid, Happened::Ending { own_wish: false });
        ends.happened(uuid, Happened::Other);
        assert_eq!(ends.reason(uuid, OffReason::Shutdown), OffReason::Ended);
        assert_eq!(ends.reason(uuid, OffReason::Destroyed), OffReason::Destroyed);
        ends.happened(uuid, Happened::Began);
        assert_eq!(ends.reason(uuid, OffReason::Shutdown), OffReason::ShutdownOrEnded);
        ends.happened(uuid, Happened::Ending { own_wish: true });
        assert_eq!(ends.reason(uuid, OffReason::Shutdown), OffReason::Shutdown);
    }

    #[test]
    fn a_migration_shows_in_the_reason_of_a_state() {
        let paused = |reason| transit(sys::VIR_DOMAIN_PAUSED, reason);
        let running = |reason| transit(sys::VIR_DOMAIN_RUNNING, reason);
        assert_eq!([2, 12, 13].map(paused), [Transit::Switching, Transit::Split, Transit::Broken].map(Some));
        assert_eq!([1, 5].map(paused), [None; 2], "by a user, by an error of a disk");
        assert_eq!([4, 10, 11].map(running), [None, Some(Transit::Split), Some(Transit::Broken)]);
    }

    #[test]
    fn vnc_address_is_read() {
        let xml = "<domain><devices><graphics type='vnc' port='5901' listen='127.0.0.1'/></devices></domain>";
        assert_eq!(vnc(xml), Some(("127.0.0.1".to_owned(), 5901)));
        assert_eq!(vnc("<domain><devices><graphics type='vnc' port='-1'/></devices></domain>"), None);
    }
}
