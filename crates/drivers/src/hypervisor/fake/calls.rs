//! The calls of [`Hypervisor`] on a fake machine, each as libvirt does it.

use super::{
    DEADLINE, FakeDomain, FakeHypervisor, Weather,
    connection::{Kind, Phase},
    foreign,
    migrate::{self, Leaving},
};
use crate::hypervisor::{
    Allowed, Connection, Domain, Event, Host, Hypervisor, HypervisorError, Listing, Result, Sending,
};
use async_trait::async_trait;
use drover_model::{
    Obs, OffReason, PausedBy, Progress, RunState, Transit,
    domain::{Candidate, Mark, started_with, written},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};
use uuid::Uuid;

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn domains(&self) -> Result<Listing> {
        if let Some(down) = self.down("list domains") {
            return Err(down);
        }
        let all = self.machine.defined();
        let ours = all.into_iter().map(|uuid| (uuid, self.look(uuid))).collect();
        Ok(Listing { ours, foreign: self.machine.foreign() })
    }

    async fn inspect(&self, which: String) -> Result<Option<Candidate>> {
        match self.down("inspect a domain") {
            Some(down) => Err(down),
            None => Ok(self.machine.inspect(&which)),
        }
    }

    async fn import(&self, uuid: Uuid) -> Result<()> {
        self.change(uuid, "import", vec![foreign::import(uuid)]).await
    }

    async fn mark(&self, uuid: Uuid, from: Mark, to: Mark) -> Result<()> {
        let mark: Phase = Box::new(move |inner| match inner.domains.get_mut(&uuid) {
            Some(d) if d.mark == from || d.mark == to => {
                let (was, seen, runs) = (d.mark, d.observed, d.run != RunState::Off);
                (d.mark, d.transient) = (to, false);
                // It is taken for the guest.
                let outdated = runs && d.outdated.load(Ordering::Relaxed);
                if let Some(observer) = inner.on_stale.as_ref().filter(|_| outdated) {
                    observer(uuid, to);
                }
                if seen && was != to {
                    inner.notify(uuid, to, true);
                }
                Ok(())
            }
            Some(_) => Err("it is another guest by now".to_owned()),
            None => Err("there is no such domain".to_owned()),
        });
        self.change(uuid, "mark", vec![mark]).await
    }

    async fn domain(&self, uuid: Uuid) -> Obs<Domain> {
        match self.down("look at a domain") {
            Some(down) => Obs::Unknown(down.to_string()),
            None => self.look(uuid),
        }
    }

    async fn check(&self, xml: String) -> Result<()> {
        let what = "check a definition";
        if let Some(down) = self.down(what) {
            return Err(down);
        }
        let (pause, hangs) = {
            let mut inner = self.machine.lock();
            let Weather { latency_ms, hang_per_mille, .. } = inner.weather.clone();
            (inner.dice.millis(&latency_ms), inner.dice.per_mille(hang_per_mille))
        };
        if hangs {
            sleep(DEADLINE).await;
            let why = format!("no answer in {} s", DEADLINE.as_secs());
            return Err(HypervisorError::Unknown { what: what.to_owned(), why });
        }
        if pause > Duration::ZERO {
            sleep(pause).await;
        }
        // A machine type that no QEMU has.
        if xml.contains("machine='none-such'") {
            let why = "unsupported configuration: unsupported machine type".to_owned();
            return Err(HypervisorError::BadDefinition { what: what.to_owned(), why });
        }
        Ok(())
    }

    async fn create(&self, uuid: Uuid, xml: String, allowed: Allowed) -> Result<()> {
        let Some(mark) = Mark::read(&xml) else {
            return Err(HypervisorError::Refused { what: "start".to_owned(), why: "the XML has no mark".to_owned() });
        };
        let broken = {
            let mut inner = self.machine.lock();
            let chance = inner.weather.broken_per_mille;
            inner.dice.per_mille(chance)
        };
        if broken {
            let why = "the connection broke".to_owned();
            return Err(HypervisorError::Unknown { what: "start".to_owned(), why });
        }
        let keeps = xml.contains("<tpm");
        let (started_with, disks) = (started_with(&xml), written(&xml));
        let withdrawn = Arc::new(AtomicBool::new(false));
        let withdraw = withdrawn.clone();
        let define: Phase = Box::new(move |inner| {
            if !allowed() {
                withdraw.store(true, Ordering::Relaxed);
                return Err("it is not allowed any more".to_owned());
            }
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
                return Err("domain is already active".to_owned());
            }
            if inner.foreign.contains_key(&uuid) {
                return Err(foreign::IS_FOREIGN.to_owned());
            }
            inner.domains.insert(uuid, FakeDomain::off(uuid.to_string(), mark, started_with, disks));
            Ok(())
        });
        let start: Phase = Box::new(move |inner| {
            // A dead daemon's call may have come first.
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
                return Err("domain is already active".to_owned());
            }
            let chance = inner.weather.refuse_per_mille;
            if inner.dice.per_mille(chance) {
                inner.domains.remove(&uuid);
                return Err("the fake refuses".to_owned());
            }
            let Some(domain) = inner.domains.get_mut(&uuid) else { return Err("no such domain".to_owned()) };
            (domain.run, domain.off) = (RunState::Running, None);
            let mark = domain.mark;
            if keeps {
                inner.kept.insert(uuid);
            }
            inner.notify(uuid, mark, true);
            Ok(())
        });
        match self.change(uuid, "start", vec![define, start]).await {
            Err(HypervisorError::Refused { what, .. }) if withdrawn.load(Ordering::Relaxed) => {
                Err(HypervisorError::Withdrawn { what })
            }
            answer => answer,
        }
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<()> {
        let hung = self.machine.hangs(uuid);
        self.call((uuid, self.kind(Kind::Question)), "shut down", vec![], hung).await?;
        self.machine.ask_to_power_off(uuid);
        Ok(())
    }

    async fn pause(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let pause: Phase = Box::new(move |inner| {
            let domain = inner.guest(uuid, mark)?;
            match domain.paused.as_ref().map(|paused| paused.by) {
                Some(PausedBy::Asleep) => return Err("domain is pmsuspended".to_owned()),
                Some(_) => {}
                None => domain.set_paused(Some(PausedBy::Administrator.into())),
            }
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Question)), "pause", vec![pause], false).await
    }

    async fn resume(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let resume: Phase = Box::new(move |inner| {
            let chance = inner.weather.still_broken_per_mille;
            let broken = inner.dice.per_mille(chance);
            let domain = inner.guest(uuid, mark)?;
            if domain.run == RunState::Paused {
                let arrives = domain.transient && domain.transit == Some(Transit::Switching);
                if domain.sending.is_some() || arrives {
                    return Err("it is being migrated".to_owned());
                }
                if matches!(domain.transit, Some(Transit::Split | Transit::Broken)) {
                    return Err("part of its memory is elsewhere".to_owned());
                }
            }
            match domain.paused.as_ref().map(|paused| paused.by) {
                None => return Err("domain is already running".to_owned()),
                Some(PausedBy::Asleep) => return Err("domain is pmsuspended".to_owned()),
                Some(PausedBy::IoError) if broken => {}
                Some(_) => {
                    domain.set_paused(None);
                    domain.transit = None;
                    if !domain.observed {
                        inner.notify(uuid, mark, true);
                    }
                }
            }
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Question)), "resume", vec![resume], false).await
    }

    async fn wake(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let wake: Phase = Box::new(move |inner| {
            let domain = inner.guest(uuid, mark)?;
            match domain.paused.as_ref().map(|paused| paused.by) {
                Some(PausedBy::Asleep) => domain.set_paused(None),
                _ => return Err("unable to wake up: guest is not in suspended state".to_owned()),
            }
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Question)), "wake", vec![wake], false).await
    }

    async fn destroy(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let destroy: Phase = Box::new(move |inner| {
            let chance = inner.weather.unkillable_per_mille;
            if inner.dice.per_mille(chance) {
                return Err("Failed to terminate process 1 with SIGKILL: Device or resource busy".to_owned());
            }
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off && d.mark != mark) {
                return Err("it is another guest by now".to_owned());
            }
            if inner.domains.get(&uuid).is_some_and(FakeDomain::is_half) {
                inner.halved.insert(uuid);
            }
            inner.switch_off(uuid, OffReason::Destroyed);
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Cut)), "destroy", vec![destroy], false).await
    }

    async fn undefine(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let undefine: Phase = Box::new(move |inner| match inner.domains.get(&uuid) {
            Some(d) if d.run != RunState::Off => Err("domain is active".to_owned()),
            Some(d) if d.mark != mark => Err("it is another guest by now".to_owned()),
            _ => {
                inner.domains.remove(&uuid);
                Ok(())
            }
        });
        self.change(uuid, "undefine", vec![undefine]).await
    }

    async fn erase(&self, uuid: Uuid, _xml: String, _nvram: bool) -> Result<()> {
        let erase: Phase = Box::new(move |inner| {
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
                return Err("domain is active".to_owned());
            }
            inner.domains.remove(&uuid);
            if inner.kept.remove(&uuid)
                && let Some(observer) = &inner.on_erased
            {
                observer(uuid);
            }
            Ok(())
        });
        self.change(uuid, "erase", vec![erase]).await
    }

    async fn migrate(&self, uuid: Uuid, how: Sending) -> Result<()> {
        migrate::send(self, uuid, how).await
    }

    async fn migration(&self, uuid: Uuid) -> Result<Option<Progress>> {
        let machine = self.machine.lock();
        Ok(machine.domains.get(&uuid).and_then(|d| d.sending.as_ref()).map(Leaving::progress))
    }

    async fn abort_migration(&self, uuid: Uuid) -> Result<()> {
        if let Some(down) = self.down("stop a migration") {
            return Err(down);
        }
        if let Some(leaving) = self.machine.lock().domains.get_mut(&uuid).and_then(|d| d.sending.as_mut()) {
            leaving.aborted = true;
        }
        Ok(())
    }

    async fn post_copy(&self, uuid: Uuid) -> Result<()> {
        let mut machine = self.machine.lock();
        match machine.domains.get_mut(&uuid).and_then(|d| d.sending.as_mut()).map(Leaving::switch) {
            Some(true) => Ok(()),
            _ => Err(HypervisorError::Refused { what: "post-copy".to_owned(), why: "it has not begun".to_owned() }),
        }
    }

    async fn host(&self) -> Result<Host> {
        let domain_types = vec!["qemu".to_owned()];
        Ok(Host { version: "fake".to_owned(), cpus: 4, domain_types, guests: None })
    }

    fn given_up(&self, _: Uuid) -> Option<String> {
        None
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.machine.events.subscribe()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
}
