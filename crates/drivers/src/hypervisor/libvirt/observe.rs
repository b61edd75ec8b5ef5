//! What libvirt says of domains, in our words.

use super::{Shared, Trouble, find, lock, migrate};
use crate::hypervisor::{Domain, Host};
use drover_model::{Obs, OffReason, RunState, domain::Mark};
use std::collections::BTreeMap;
use uuid::Uuid;
use virt::connect::Connect;
use virt_sys as sys;

type Outcome<T> = std::result::Result<T, Trouble>;

/// What does not change while a domain runs, read from its XML once. Keyed by the hypervisor's own number of the run
/// too, which is never given twice.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<Uuid, Run>);

/// One run of a domain: its number, and what its XML says.
type Run = (u32, Option<Mark>, Option<(String, u16)>);

impl Known {
    pub(super) fn forget(&mut self, uuid: Uuid) {
        self.0.remove(&uuid);
    }
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Looks at one domain.
pub(super) fn one(connection: &Connect, shared: &Shared, uuid: Uuid) -> Outcome<Obs<Domain>> {
    let Some(domain) = find(connection, uuid)? else { return Ok(Obs::Absent) };
    let seen = look(&domain, shared, uuid)?;
    match seen {
        // Only of one that executes: a guest that is coming has a job too, and asking for it waits until that is over,
        // with one of the few calls that libvirtd serves of a connection at once.
        Obs::Known(seen) if matches!(seen.run, RunState::Running | RunState::ShuttingDown) => {
            let sending = migrate::is_leaving(&domain)?;
            Ok(Obs::Known(Domain { sending, ..seen }))
        }
        // A guest that comes or goes by migration is here for a moment without being defined for good.
        Obs::Known(seen) if seen.run == RunState::Off && !domain.is_persistent()? => {
            Ok(Obs::Unknown("it is just coming or going".to_owned()))
        }
        seen => Ok(seen),
    }
}

/// Looks at every domain of ours.
pub(super) fn all(connection: &Connect, shared: &Shared) -> Outcome<Vec<(Uuid, Obs<Domain>)>> {
    let mut out = Vec::new();
    for domain in connection.list_all_domains(0)? {
        let Ok(uuid) = Uuid::parse_str(&domain.get_uuid_string()?) else { continue };
        let seen = match shared.lane(uuid) {
            Some(why) => Obs::Unknown(why),
            None => match look(&domain, shared, uuid) {
                Ok(Obs::Unknown(_) | Obs::Absent) => continue,
                Ok(known) => known,
                Err(Trouble::Said(why)) => Obs::Unknown(why),
                Err(broken) => return Err(broken),
            },
        };
        out.push((uuid, seen));
    }
    out.sort_by_key(|(uuid, _)| *uuid);
    Ok(out)
}

fn look(domain: &virt::domain::Domain, shared: &Shared, uuid: Uuid) -> Outcome<Obs<Domain>> {
    let (state, reason) = domain.get_state()?;
    // No number: it does not run.
    let id = domain.get_id();
    let known = id.and_then(|id| lock(&shared.known).0.get(&uuid).filter(|(of, ..)| *of == id).cloned());
    let (mark, vnc) = match known {
        Some((_, mark, vnc)) => (mark, vnc),
        None => {
            let xml = domain.get_xml_desc(0)?;
            let found = (Mark::read(&xml), vnc(&xml));
            if let Some(id) = id {
                lock(&shared.known).0.insert(uuid, (id, found.0, found.1.clone()));
            }
            found
        }
    };
    let Some(mark) = mark else {
        return Ok(Obs::Unknown("a domain with the VM's UUID runs here that is not Drover's; remove it".to_owned()));
    };
    let run = run_state(state, id.is_some());
    let off = (run == RunState::Off).then(|| off_reason(reason));
    Ok(Obs::Known(Domain { uuid, name: domain.get_name()?, run, off, mark, vnc, sending: false }))
}

/// libvirt's `virDomainState`. A domain that crashed and was preserved is still in memory, so it counts as paused.
fn run_state(state: sys::virDomainState, active: bool) -> RunState {
    match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED | sys::VIR_DOMAIN_NOSTATE if active => RunState::Running,
        sys::VIR_DOMAIN_SHUTDOWN if active => RunState::ShuttingDown,
        _ if active => RunState::Paused,
        _ => RunState::Off,
    }
}

/// libvirt's `virDomainShutoffReason`.
fn off_reason(reason: i32) -> OffReason {
    match u32::try_from(reason).unwrap_or(0) {
        sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => OffReason::Shutdown,
        sys::VIR_DOMAIN_SHUTOFF_DESTROYED => OffReason::Destroyed,
        sys::VIR_DOMAIN_SHUTOFF_CRASHED => OffReason::Crashed,
        sys::VIR_DOMAIN_SHUTOFF_MIGRATED => OffReason::Migrated,
        sys::VIR_DOMAIN_SHUTOFF_FAILED => OffReason::Failed,
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
    let mut domain_types: Vec<String> = roxmltree::Document::parse(&capabilities)
        .map(|d| {
            let found = d.descendants().filter(|n| n.has_tag_name("domain")).filter_map(|n| n.attribute("type"));
            found.map(str::to_owned).collect()
        })
        .unwrap_or_default();
    domain_types.sort();
    domain_types.dedup();
    let cpus = connection.get_node_info()?.cpus;
    Ok(Host { version: format!("{kind} {hypervisor}, libvirt {own}"), cpus, domain_types })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_in_our_words() {
        assert_eq!(run_state(sys::VIR_DOMAIN_RUNNING, true), RunState::Running);
        assert_eq!(run_state(sys::VIR_DOMAIN_PAUSED, true), RunState::Paused);
        assert_eq!(run_state(sys::VIR_DOMAIN_CRASHED, true), RunState::Paused);
        assert_eq!(run_state(sys::VIR_DOMAIN_CRASHED, false), RunState::Off);
        assert_eq!(run_state(sys::VIR_DOMAIN_SHUTOFF, false), RunState::Off);
        assert_eq!(off_reason(1), OffReason::Shutdown);
        assert_eq!(off_reason(-1), OffReason::Unknown);
    }

    #[test]
    fn finds_the_display() {
        let xml = "<domain><devices><graphics type='vnc' port='5901' listen='127.0.0.1'/></devices></domain>";
        assert_eq!(vnc(xml), Some(("127.0.0.1".to_owned(), 5901)));
        assert_eq!(vnc("<domain><devices><graphics type='vnc' port='-1'/></devices></domain>"), None);
    }
}
