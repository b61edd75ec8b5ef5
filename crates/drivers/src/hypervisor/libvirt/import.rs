//! Domains that are not Drover's yet: what they are, and the mark that makes them Drover's.

use super::{CallError, ffi, find, migrate, observe};
use drover_model::{
    RunState,
    domain::{Candidate, Mark, written},
};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain, error::ErrorNumber};
use virt_sys as sys;

type Outcome<T> = Result<T, CallError>;

/// A domain by its UUID, or else by its name. In libvirt 9.0.0 none of this waits for the guest's monitor, but for the
/// question whether it is being migrated, which is not asked while that is occupied.
pub(super) fn inspect(connection: &Connect, which: &str) -> Outcome<Option<Candidate>> {
    let by_uuid = match Uuid::parse_str(which) {
        Ok(uuid) => find(connection, uuid)?,
        Err(_) => None,
    };
    let domain = match by_uuid {
        Some(domain) => domain,
        None => match Domain::lookup_by_name(connection, which) {
            Ok(domain) => domain,
            Err(error) if error.code() == ErrorNumber::NoDomain => return Ok(None),
            Err(error) => return Err(error.into()),
        },
    };
    let uuid = domain.get_uuid_string()?;
    let uuid = Uuid::parse_str(&uuid).map_err(|_| CallError::Refused(format!("its UUID is {uuid:?}")))?;
    let (state, _) = domain.get_state()?;
    let run = observe::run_state(state, domain.get_id().is_some());
    // Its passwords are part of what it is started from.
    let secrets = sys::VIR_DOMAIN_XML_SECURE;
    let live = if run == RunState::Off { None } else { Some(domain.get_xml_desc(secrets)?) };
    Ok(Some(Candidate {
        uuid,
        name: domain.get_name()?,
        xml: domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | secrets)?,
        run,
        persistent: domain.is_persistent()?,
        sending: live.is_some() && migrate::is_leaving(&domain)?,
        live,
        autostart: domain.get_autostart()?,
        saved: domain.has_managed_save(0)?,
        snapshots: ffi::snapshots(&domain)?,
        checkpoints: ffi::checkpoints(&domain)?,
    }))
}

/// Gives a domain that has no mark the mark of an imported one. As with every mark, QEMU takes no part.
pub(super) fn mark(connection: &Connect, uuid: Uuid) -> Outcome<()> {
    let Some(domain) = find(connection, uuid)? else {
        return Err(CallError::Refused("there is no such domain".to_owned()));
    };
    let xml = domain.get_xml_desc(0)?;
    if Mark::read(&xml).is_some() {
        return Ok(());
    }
    // With its definition, which goes when it is Drover's, libvirt would delete that too.
    if domain.has_managed_save(0)? {
        return Err(CallError::Refused(
            "its memory was saved meanwhile: start it ('virsh start'), or give that up ('virsh managedsave-remove')"
                .to_owned(),
        ));
    }
    // libvirt must not start it when this machine is back, and another node may have it by then.
    if domain.get_autostart()? {
        domain.set_autostart(false)?;
    }
    let live = if domain.is_active()? { sys::VIR_DOMAIN_AFFECT_LIVE } else { 0 };
    let config = if domain.is_persistent()? { sys::VIR_DOMAIN_AFFECT_CONFIG } else { 0 };
    observe::set_mark(&domain, Mark::IMPORTED, &written(&xml), live | config)?;
    // It may have been started in between.
    match Mark::read(&domain.get_xml_desc(0)?) {
        Some(_) => Ok(()),
        None => Err(CallError::Refused("it was started meanwhile".to_owned())),
    }
}
