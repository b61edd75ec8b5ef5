//! The request to bring a domain of this node's hypervisor under Drover.
//!
//! Nothing is done to the domain before the VM's records are there: they are the order, in one transaction that is
//! refused if the name or the UUID is taken. The VM's task carries it out (`plan::vm`, the step *import*), whichever
//! daemon of this node comes to it, and whatever has become of the domain by then.

use super::{Change, CommandError, Commands, Result, vm::clashes};
use drover_drivers::hypervisor::HypervisorError;
use drover_model::{
    Claim, ClusterView, Placed, PlacedBy, Stored, Version, VmMeta, VmName, VmRecord, VmState, VmView,
    domain::{Candidate, devices::Devices},
    placed::Reasons,
};
use drover_plan::{
    admit,
    capacity::Ledger,
    clash, import,
    place::{self, Placement, Wanted},
};
use uuid::Uuid;

/// A domain of this node that is to become a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// Its UUID or its name in the hypervisor.
    pub domain: String,
    /// Only say what would become of it.
    pub dry_run: bool,
    /// Do not ask the hypervisor whether it accepts the definition.
    pub no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk.
    pub force: bool,
}

/// A domain that has become a VM, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The VM; for a dry run with the version that it would have.
    pub now: Change,
    /// It was one before.
    pub already: bool,
    /// What changes, in sentences.
    pub changes: Vec<String>,
    /// What an administrator should know, in sentences.
    pub notes: Vec<String>,
    /// Which nodes it could move to as it is now: live if it runs.
    pub moves: Placement,
}

impl Commands {
    /// Makes a VM of a domain of this node's hypervisor. The guest, if it runs, is not disturbed.
    pub async fn import(&self, request: Import) -> Result<Imported> {
        let (view, me) = (self.view()?, self.ctx.me().clone());
        let candidate = match self.candidate(&request.domain).await? {
            Some(candidate) => candidate,
            None => match self.known_of(&view, &request.domain, None) {
                Some(known) => return Ok(known),
                None => return Err(self.no_domain(&request.domain).await),
            },
        };
        let import::Import { definition, state, mark, changes, mut notes } =
            match import::import(&view, &me, &candidate) {
                Ok(import) => import,
                Err(refusal @ import::Refusal::Known(_)) => {
                    let known = self.known_of(&view, &request.domain, Some(candidate.uuid));
                    return known.ok_or(CommandError::Refused(refusal.to_string()));
                }
                Err(refusal) => return Err(CommandError::Refused(refusal.to_string())),
            };
        let devices = Devices::read(&definition.xml);
        let clash = clash::of_definition(&view, (&definition.uuid, Some(&me)), &devices, &Devices::default());
        if let Some(clash) = clash.filter(|_| !request.force) {
            return Err(clashes(&definition.name, "imported", &clash));
        }
        if let Err(lack) = place::has_for_new(&view, &me, &devices) {
            notes.push(format!("node {me} lacks what its next start needs: {lack}"));
        }
        let unchecked = if request.no_check { None } else { self.checked(&view, &definition, Some(&me)).await? };
        notes.extend(unchecked.map(|why| format!("its definition was not checked by the hypervisor: {why}")));
        let (by, at, to, how, reasons) = (PlacedBy::Define, self.ctx.wall(), me.clone(), None, Reasons::default());
        let placed = Some(Box::new(Placed { by, at, to, how, reasons }));
        let record = VmRecord { state, placed, ..admit::define(&definition, Some(me.clone())) };
        let claim = |fresh: Claim| match record.state {
            VmState::Start => self.ctx.identified(fresh.adopting(mark, &me), &me),
            _ => fresh.for_domain(mark),
        };
        let fresh = Claim::new(drover_model::Epoch(0));
        let moves = self.could_move(&record, claim(fresh));
        let now = match request.dry_run {
            true => Change { record, version: Version::NEW },
            false => self.add(record.clone(), claim, "imported").await?,
        };
        Ok(Imported { now, already: false, changes, notes, moves })
    }

    /// The domain, as the hypervisor has it now.
    async fn candidate(&self, domain: &str) -> Result<Option<Candidate>> {
        match self.ctx.hypervisor.inspect(domain.to_owned()).await {
            Ok(candidate) => Ok(candidate),
            Err(error @ HypervisorError::Refused { .. }) => Err(CommandError::Refused(error.to_string())),
            Err(error) => Err(CommandError::Unavailable(format!("node {}: {error}", self.ctx.me()))),
        }
    }

    /// The answer if the domain is a VM of this node by now: whoever asks twice gets what was asked for. (The domain
    /// of a VM that is off is gone from the hypervisor.)
    fn known_of(&self, view: &ClusterView, domain: &str, uuid: Option<Uuid>) -> Option<Imported> {
        let by_name = || VmName::new(domain).ok().and_then(|name| view.names.get(&name).copied());
        let uuid = uuid.or_else(|| Uuid::parse_str(domain).ok()).or_else(by_name)?;
        let vm = view.vms.get(&uuid).filter(|vm| vm.record.value.node.as_ref() == Some(self.ctx.me()))?;
        let now = Change { record: vm.record.value.clone(), version: vm.record.version };
        Some(Imported { now, already: true, changes: Vec::new(), notes: Vec::new(), moves: self.explain(vm) })
    }

    async fn no_domain(&self, domain: &str) -> CommandError {
        let me = self.ctx.me();
        let listed = self.ctx.hypervisor.domains().await.unwrap_or_default();
        let names: Vec<String> = listed.foreign.into_iter().map(|domain| domain.name).take(NAMED).collect();
        let others = match names[..] {
            [] => "it has none that are not Drover's".to_owned(),
            _ => format!("not Drover's are {}", names.join(", ")),
        };
        let domain: String = domain.chars().take(80).collect();
        CommandError::NotFound(format!("node {me} has no domain {domain:?} (by name or UUID); {others}"))
    }

    /// Which nodes such a VM could move to.
    fn could_move(&self, record: &VmRecord, claim: Claim) -> Placement {
        let (view, meta) = (self.ctx.views.latest(), VmMeta::default());
        let vm = VmView {
            claim: Some(Stored::new(claim, Version::NEW).into()),
            ..VmView::of(Stored::new(record.clone(), Version::NEW))
        };
        let how = if record.state == VmState::Start { drover_model::How::Live } else { place::how(meta.method) };
        place::choose(&view, &Ledger::of(&view), &Wanted::moved(&vm).by(how))
    }
}

/// How many domains are named in an error.
const NAMED: usize = 10;
