//! Guests that are sent to another node: libvirt's peer-to-peer migration, in which the two libvirtds talk to each
//! other and both ends are cleaned up by them, whatever happens to this daemon.

use super::{Shared, Trouble, ffi, find, keeper::KEEPALIVE, lock};
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

/// How long the call is waited for. It is stopped by [`abort`] long before that, if it does not come to its end.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long it is waited until libvirt has put away the job by which a guest came.
const ARRIVED_BY_THEN: Duration = Duration::from_secs(10);
/// How often it is looked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Whether a call of ours sends the guest.
pub(super) fn is_sending(shared: &Shared, uuid: Uuid) -> bool {
    lock(&shared.lanes).get(&uuid) == Some(&WHAT)
}

/// Sends a guest, and returns when it is there or when it is not. On a connection of its own: libvirtd serves only five
/// calls of one connection at once (max_client_requests), and this one lasts.
pub(super) fn send(uri: &str, uuid: Uuid, how: &Sending) -> Result<(), Trouble> {
    let mut connection = Connect::open(Some(uri))?;
    // A connection to a local libvirtd may have no keepalive.
    connection.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1).ok();
    let sent = send_on(&connection, uuid, how).map_err(|trouble| match trouble {
        // What our libvirtd says of its connection to the other one looks like trouble with ours. If ours is whole, it
        // was an answer.
        Trouble::Broken(why) if connection.is_alive().unwrap_or(false) => Trouble::Said(why),
        trouble => trouble,
    });
    // The connection is closed in any case.
    connection.close().ok();
    sent
}

fn send_on(connection: &Connect, uuid: Uuid, how: &Sending) -> Result<(), Trouble> {
    let Some(domain) = find(connection, uuid)? else { return Err(Trouble::Said("there is no such domain".to_owned())) };
    let marked = |flags| {
        let xml = domain.get_xml_desc(flags)?;
        how.mark.rewrite(&xml).ok_or_else(|| Trouble::Said("the domain has no mark of Drover's".to_owned()))
    };
    let parameters = MigrateParameters {
        dest_xml: Some(marked(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_MIGRATABLE)?),
        persist_xml: Some(marked(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE)?),
        ..MigrateParameters::default()
    };
    let mut flags = sys::VIR_MIGRATE_LIVE
        | sys::VIR_MIGRATE_PEER2PEER
        | sys::VIR_MIGRATE_PERSIST_DEST
        | sys::VIR_MIGRATE_UNDEFINE_SOURCE
        | sys::VIR_MIGRATE_AUTO_CONVERGE;
    if how.post_copy {
        flags |= sys::VIR_MIGRATE_POSTCOPY;
    }
    if how.shared_files {
        flags |= sys::VIR_MIGRATE_UNSAFE;
    }
    domain.migrate_set_max_downtime(u64::try_from(how.max_downtime.as_millis()).unwrap_or(u64::MAX), 0)?;
    let deadline = Instant::now() + ARRIVED_BY_THEN;
    loop {
        match domain.migrate_to_uri3(Some(&how.uri), parameters.clone(), flags) {
            // A guest that has just come: libvirt has not put away the job yet by which it came, and has no event for
            // that.
            Err(error) if is_arriving(&error) && Instant::now() < deadline => thread::park_timeout(LOOK_AGAIN),
            sent => return Ok(sent?),
        }
    }
}

/// Whether libvirt refuses because the domain's migration to here is not put away yet.
fn is_arriving(error: &virt::error::Error) -> bool {
    error.code() == ErrorNumber::OperationInvalid
        && error.message().contains("another migration job is already running")
}

/// Whether a domain that runs is being sent, by whomever.
pub(super) fn is_leaving(domain: &Domain) -> Result<bool, Trouble> {
    Ok(leaving(domain)?.is_some())
}

/// libvirt's figures of a domain's migration, if there is one.
fn leaving(domain: &Domain) -> Result<Option<ffi::Job>, Trouble> {
    match ffi::job(domain) {
        Ok(job) => Ok(job.filter(|job| job.operation == Some(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT))),
        // It went between two questions.
        Err(error) if matches!(error.code(), ErrorNumber::OperationInvalid | ErrorNumber::NoDomain) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How far the sending of a guest is.
pub(super) fn progress(connection: &Connect, uuid: Uuid) -> Result<Option<Progress>, Trouble> {
    let Some(domain) = find(connection, uuid)? else { return Ok(None) };
    Ok(leaving(&domain)?.map(|job| Progress {
        total: Bytes(job.total),
        sent: Bytes(job.processed),
        left: Bytes(job.remaining),
        rate: Bytes(job.rate),
        elapsed_ms: job.elapsed,
    }))
}

/// Stops sending a guest.
pub(super) fn abort(connection: &Connect, uuid: Uuid) -> Result<(), Trouble> {
    let Some(domain) = find(connection, uuid)? else { return Ok(()) };
    match ffi::abort_job(&domain) {
        // There is nothing to be stopped.
        Err(error) if error.code() == ErrorNumber::OperationInvalid => Ok(()),
        done => Ok(done?),
    }
}

/// Lets a guest that is being sent go on at its target.
pub(super) fn post_copy(connection: &Connect, uuid: Uuid) -> Result<(), Trouble> {
    match find(connection, uuid)? {
        Some(domain) => Ok(ffi::start_post_copy(&domain)?),
        None => Ok(()),
    }
}
