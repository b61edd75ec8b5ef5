//! Live migration: libvirt's peer-to-peer mode, in which the two libvirtds talk to each other and clean up both ends,
//! whatever happens to this daemon.

use super::{CallError, ffi, find};
use crate::hypervisor::Sending;
use drover_model::{Bytes, Progress};
use std::{
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain, domain::MigrateParameters, error::ErrorNumber};
use virt_sys as sys;

/// The name of the lane.
pub(super) const WHAT: &str = "send a guest to another node";

/// Timeout for the call. A migration that does not finish is aborted ([`abort`]) long before that.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Speed of a migration before it is switched to post-copy, in MiB/s: so low that it does not end without that. (After
/// the switch QEMU, 7.2, has no limit unless one is set.)
const SLOWLY: u64 = 1;

/// Timeout for libvirt to end the job by which a guest arrived.
const ARRIVED_BY_THEN: Duration = Duration::from_secs(10);
/// Poll interval for that.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Migrates a guest. Returns when that has succeeded or failed.
pub(super) fn send(connection: &Connect, uuid: Uuid, how: &Sending) -> Result<(), CallError> {
    let Some(domain) = find(connection, uuid)? else {
        return Err(CallError::Refused("there is no such domain".to_owned()));
    };
    let marked = |flags| {
        let xml = domain.get_xml_desc(flags)?;
        how.mark.rewrite(&xml).ok_or_else(|| CallError::Refused("the domain has no mark of Drover's".to_owned()))
    };
    let parameters = MigrateParameters {
        dest_xml: Some(marked(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_MIGRATABLE)?),
        persist_xml: Some(marked(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE)?),
        bandwidth: how.post_copy.then_some(SLOWLY),
        ..MigrateParameters::default()
    };
    let mut flags = sys::VIR_MIGRATE_LIVE
        | sys::VIR_MIGRATE_PEER2PEER
        | sys::VIR_MIGRATE_PERSIST_DEST
        | sys::VIR_MIGRATE_UNDEFINE_SOURCE
        | sys::VIR_MIGRATE_AUTO_CONVERGE;
    // One excludes the other (libvirt 9.0.0, `qemuMigrationSrcBeginPhase`).
    flags |= if how.post_copy { sys::VIR_MIGRATE_POSTCOPY } else { sys::VIR_MIGRATE_PAUSED };
    if how.shared_files {
        flags |= sys::VIR_MIGRATE_UNSAFE;
    }
    super::reach::check(&how.uri).map_err(CallError::Refused)?;
    domain.migrate_set_max_downtime(u64::try_from(how.max_downtime.as_millis()).unwrap_or(u64::MAX), 0)?;
    let deadline = Instant::now() + ARRIVED_BY_THEN;
    loop {
        match domain.migrate_to_uri3(Some(&how.uri), parameters.clone(), flags) {
            // A guest that has just arrived: libvirt has not ended its incoming job yet, and has no event for that.
            Err(error) if is_arriving(&error) && Instant::now() < deadline => thread::park_timeout(LOOK_AGAIN),
            sent => return Ok(sent?),
        }
    }
}

/// Whether libvirt refuses because the domain's incoming migration has not ended yet.
fn is_arriving(error: &virt::error::Error) -> bool {
    error.code() == ErrorNumber::OperationInvalid
        && error.message().contains("another migration job is already running")
}

/// Whether a running domain is being migrated away, by anybody.
pub(super) fn is_leaving(domain: &Domain) -> Result<bool, CallError> {
    // A query for the job waits for the guest's monitor, possibly for ever. Whether the monitor is in use for anything
    // but a long job is answered without waiting.
    Ok(!ffi::is_occupied(domain)? && leaving(domain)?.is_some())
}

/// libvirt's figures of a domain's migration, if there is one.
fn leaving(domain: &Domain) -> Result<Option<ffi::Job>, CallError> {
    match ffi::job(domain) {
        Ok(job) => Ok(job.filter(|job| job.operation == Some(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT))),
        // It is coming, not leaving (libvirt 9.0.0, `qemuDomainGetJobStatsInternal`, says so without waiting).
        Err(error) if error.code() == ErrorNumber::OperationUnsupported => Ok(None),
        // It ended between two queries.
        Err(error) if matches!(error.code(), ErrorNumber::OperationInvalid | ErrorNumber::NoDomain) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Progress of a guest's migration.
pub(super) fn progress(connection: &Connect, uuid: Uuid) -> Result<Option<Progress>, CallError> {
    let Some(domain) = find(connection, uuid)? else { return Ok(None) };
    Ok(leaving(&domain)?.map(|job| Progress {
        total: Bytes(job.total),
        sent: Bytes(job.processed),
        left: Bytes(job.remaining),
        rate: Bytes(job.rate),
        elapsed_ms: job.elapsed,
    }))
}

/// Aborts a guest's migration.
pub(super) fn abort(connection: &Connect, uuid: Uuid) -> Result<(), CallError> {
    let Some(domain) = find(connection, uuid)? else { return Ok(()) };
    match ffi::abort_job(&domain) {
        // There is nothing to abort.
        Err(error) if error.code() == ErrorNumber::OperationInvalid => Ok(()),
        done => Ok(done?),
    }
}

/// Switches a migration to post-copy.
pub(super) fn post_copy(connection: &Connect, uuid: Uuid) -> Result<(), CallError> {
    match find(connection, uuid)? {
        Some(domain) => Ok(ffi::start_post_copy(&domain)?),
        None => Ok(()),
    }
}
