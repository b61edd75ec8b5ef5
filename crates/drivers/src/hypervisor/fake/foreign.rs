//! Domains of a fake machine that somebody else made.

use super::{FakeDomain, FakeMachine, Inner, connection::Phase};
use drover_model::{
    Foreign, OffReason, RunState,
    domain::{Candidate, Mark, written},
};
use uuid::Uuid;

/// What is said of a domain with the UUID that is asked for.
pub(super) const IS_FOREIGN: &str = "the domain with the VM's UUID here is not Drover's";

impl FakeMachine {
    /// Somebody makes a domain without a mark, or replaces it.
    pub fn set_foreign(&self, domain: Candidate) {
        let inner = &mut *self.lock();
        let (uuid, runs) = (domain.uuid, domain.run != RunState::Off);
        inner.foreign.insert(uuid, domain);
        if runs {
            inner.notify(uuid, Mark::IMPORTED, true);
        }
    }

    /// Domains without a mark.
    pub fn foreign(&self) -> Vec<Foreign> {
        let inner = self.lock();
        let listed = |d: &Candidate| Foreign { uuid: d.uuid, name: d.name.clone(), running: d.run != RunState::Off };
        let mut all: Vec<Foreign> = inner.foreign.values().map(listed).collect();
        all.sort();
        all
    }

    /// A domain by its UUID, or else by its name. (Of ours, as little as is needed to see that they are.)
    pub(super) fn inspect(&self, which: &str) -> Option<Candidate> {
        let inner = self.lock();
        let is = |uuid: &Uuid, name: &str| Uuid::parse_str(which) == Ok(*uuid) || name == which;
        let foreign = inner.foreign.values().find(|domain| is(&domain.uuid, &domain.name));
        foreign.cloned().or_else(|| {
            let (uuid, ours) = inner.domains.iter().find(|(uuid, domain)| is(uuid, &domain.name))?;
            let Mark { epoch, generation } = ours.mark;
            let xml = format!(
                "<domain><name>{}</name><uuid>{uuid}</uuid><metadata><vm xmlns='urn:drover:domain:1' epoch='{epoch}' \
                 generation='{}'/></metadata><memory unit='MiB'>64</memory><vcpu>1</vcpu></domain>",
                ours.name, generation.0
            );
            Some(Candidate {
                uuid: *uuid,
                name: ours.name.clone(),
                live: (ours.run != RunState::Off).then(|| xml.clone()),
                xml,
                run: ours.run,
                persistent: !ours.transient,
                sending: ours.sending.is_some(),
                autostart: false,
                saved: false,
                snapshots: 0,
                checkpoints: 0,
            })
        })
    }
}

impl Inner {
    /// The power of the machine is cut: what has no definition is gone.
    pub(super) fn foreign_end(&mut self) {
        let ran = |domain: &Candidate| domain.run != RunState::Off;
        let ended: Vec<Uuid> = self.foreign.iter().filter(|(_, domain)| ran(domain)).map(|(uuid, _)| *uuid).collect();
        self.foreign.retain(|_, domain| domain.persistent || !ran(domain));
        for domain in self.foreign.values_mut() {
            (domain.run, domain.live) = (RunState::Off, None);
        }
        ended.into_iter().for_each(|uuid| self.notify(uuid, Mark::IMPORTED, false));
    }
}

/// Makes a domain ours.
pub(super) fn import(uuid: Uuid) -> Phase {
    Box::new(move |inner: &mut Inner| {
        if inner.domains.contains_key(&uuid) {
            return Ok(());
        }
        let Some(domain) = inner.foreign.remove(&uuid) else { return Err("there is no such domain".to_owned()) };
        let xml = domain.live.as_ref().unwrap_or(&domain.xml);
        let known = written(xml);
        let ours = FakeDomain::off(domain.name, Mark::IMPORTED, known.clone(), known);
        let off = (domain.run == RunState::Off).then_some(OffReason::Shutdown);
        inner.domains.insert(uuid, FakeDomain { run: domain.run, off, transient: !domain.persistent, ..ours });
        if domain.run != RunState::Off {
            inner.notify(uuid, Mark::IMPORTED, true);
        }
        Ok(())
    })
}
