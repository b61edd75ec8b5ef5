//! Requests about nodes.

use super::{
    CommandError, Commands, Result,
    update::{Outcome, Write},
};
use crate::{belongings, events::About, records};
use drover_model::{
    AfterProof, Claim, ClusterView, NodeName, NodeRecord, NodeSession, NodeState, OnReturn, Only, Primary, RecordKind,
    RecordPath, Stored, Version, VmRecord,
    wire::{NodePolicies, OwnAfterProof, OwnOnReturn, OwnPowerOn, SetNodePolicies},
};
use drover_plan::{
    drain, node, primary,
    returning::{self, Next},
};
use drover_store::Op;
use uuid::Uuid;

impl From<drain::Refusal> for CommandError {
    fn from(refusal: drain::Refusal) -> CommandError {
        CommandError::Refused(refusal.to_string())
    }
}

impl From<primary::admit::Refusal> for CommandError {
    fn from(refusal: primary::admit::Refusal) -> CommandError {
        CommandError::Refused(refusal.to_string())
    }
}

impl Commands {
    /// Drains a node, or makes it ready again. Replaces a request of this kind that is under way.
    pub async fn set_domain_state(&self, name: NodeName, ready: bool, force: bool) -> Result<NodeState> {
        let name = &name;
        self.update(About::Node(name.clone()), || async move {
            let old = records::read::<NodeRecord>(&*self.ctx.store, name).await?;
            let view = self.view()?;
            known(&view, name)?;
            let Some(old) = old else { return Err(CommandError::NotFound(format!("there is no node {name}"))) };
            let next = drain::request(&view, name, old.value.domain_state, ready, force)?;
            let new = returning::ordered(&old.value, next);
            if new == old.value {
                return Ok(Outcome::Unchanged(next));
            }
            let log = match next == old.value.domain_state {
                true => format!("it stays {next} when it is back"),
                false => format!("its wanted state is {next} (was {})", old.value.domain_state),
            };
            replaced(&old, &new, next, log)
        })
        .await
    }

    /// Makes this node, which is back, ready as its policy says, in the same way as a request for it. `listed`: the
    /// domains of Drover's that its hypervisor has. Returns whether something has to end first.
    pub(crate) async fn return_to_service(&self, listed: Vec<Uuid>) -> Result<bool> {
        let (name, listed) = (self.ctx.me(), &listed);
        self.update(About::Node(name.clone()), || async move {
            let old = records::read::<NodeRecord>(&*self.ctx.store, name).await?;
            // Without the session, the node may be off by now for the others.
            let session = records::read_report::<NodeSession>(&*self.ctx.store, name).await?;
            let session = session.filter(|session| session.value.instance == self.ctx.options.instance);
            let view = self.view()?;
            let (Some(old), Some(session)) = (old, session) else { return Ok(Outcome::Unchanged(true)) };
            let was = old.value.domain_state;
            let (next, log) = match returning::next(&view, &old.value, listed.iter().copied(), self.ctx.wall()) {
                Next::Nothing => return Ok(Outcome::Unchanged(false)),
                Next::Waits => return Ok(Outcome::Unchanged(true)),
                Next::Stays => (was, format!("it is back, and stays {was}, as its policy says by now")),
                Next::Ready => {
                    let next = drain::request(&view, name, was, true, false)?;
                    (next, format!("it is back, and its wanted state is {next} (was {was}), as its policy says"))
                }
            };
            let mut outcome = replaced(&old, &returning::ordered(&old.value, next), false, log)?;
            if let Outcome::Write(write) = &mut outcome {
                write.ops.push(Op::Check(NodeSession::path(name), session.version));
            }
            Ok(outcome)
        })
        .await
    }

    /// Changes a node's own policies. Returns them, as far as the cluster's configuration is known here.
    pub async fn set_node_policies(&self, name: NodeName, change: SetNodePolicies) -> Result<NodePolicies> {
        let name = &name;
        self.update(About::Node(name.clone()), || async move {
            let old = records::read::<NodeRecord>(&*self.ctx.store, name).await?;
            let view = self.view()?;
            known(&view, name)?;
            let Some(old) = old else { return Err(CommandError::NotFound(format!("there is no node {name}"))) };
            let new = NodeRecord {
                after_proof: change.after_proof.map_or(old.value.after_proof, OwnAfterProof::own),
                power_on: change.power_on.map_or(old.value.power_on, OwnPowerOn::own),
                on_return: change.on_return.map_or(old.value.on_return, OwnOnReturn::own),
                ..old.value.clone()
            };
            let answer = NodePolicies::of(&new, &view.config);
            if new == old.value {
                return Ok(Outcome::Unchanged(answer));
            }
            let said = |record: &NodeRecord| {
                let power_on = record.power_on.map_or("inherit", |on| if on { "true" } else { "false" });
                let after_proof = record.after_proof.map_or("inherit", AfterProof::word);
                let on_return = record.on_return.map_or("inherit", OnReturn::word);
                format!("after_proof {after_proof}, power_on {power_on}, on_return {on_return}")
            };
            let log = format!("its policies are {} (were {})", said(&new), said(&old.value));
            replaced(&old, &new, answer, log)
        })
        .await
    }

    /// Makes a node the primary, or has it hand the role over. Returns whether that changes anything.
    pub async fn set_coordinator_state(&self, name: &NodeName, primary: bool) -> Result<bool> {
        self.update(About::Other("the role of the primary".to_owned()), || async move {
            let old = records::read::<Primary>(&*self.ctx.store, &Only).await?;
            let view = self.view()?;
            known(&view, name)?;
            let Some(old) = old else { return Err(primary::admit::Refusal::Vacant.into()) };
            let next = if primary {
                primary::admit::make_primary(&old.value, &view, name)?
            } else {
                primary::admit::make_secondary(&old.value, &view, name)?
            };
            let Some(next) = next else { return Ok(Outcome::Unchanged(false)) };
            let ops = vec![records::set_op(&Only, &old, &next)?];
            let log = format!("node {name} is to be {}", if primary { "the primary" } else { "a secondary" });
            let version = old.version.next();
            let newer = move |view: &ClusterView| view.primary.as_ref().is_some_and(|shown| shown.version >= version);
            Ok(Outcome::Write(Write { ops, answer: true, log, shows: Box::new(newer), taken: Vec::new() }))
        })
        .await
    }

    /// What draining a node would do now.
    pub fn plan_flush(&self, name: &NodeName) -> Result<drain::Plan> {
        let view = self.view()?;
        known(&view, name)?;
        Ok(drain::evacuate(&view, name))
    }

    /// What making a node ready would do now.
    pub fn plan_ready(&self, name: &NodeName) -> Result<drain::Plan> {
        let view = self.view()?;
        known(&view, name)?;
        Ok(drain::bring_home(&view, name))
    }

    /// Removes a node permanently, which frees its name.
    pub async fn remove_node(&self, name: NodeName) -> Result<()> {
        known(&*self.view()?, &name)?;
        let name = &name;
        self.update(About::Node(name.clone()), || async move {
            let store = &*self.ctx.store;
            // Read before the decision: a change since then is a conflict, and it is decided again.
            let record = records::read::<NodeRecord>(store, name).await?;
            let view = self.view_of_now().await?;
            node::remove(&view, name).map_err(|refusal| CommandError::Refused(refusal.to_string()))?;
            let session = store.get(&NodeSession::path(name)).await?;
            let record = record.filter(|_| session.is_none()).ok_or_else(|| {
                CommandError::Conflict(format!("node {name} has just changed or come back; check its state"))
            })?;
            let ops = belongings::of_node(store, name, &record, self.ctx.wall()).await?;
            let (gone, taken) = (name.clone(), Vec::new());
            let shows = Box::new(move |view: &ClusterView| !view.nodes.contains_key(&gone));
            Ok(Outcome::Write(Write { ops, answer: (), log: "removed".to_owned(), shows, taken }))
        })
        .await
    }

    /// Assigns a VM at rest to a node, if its own is not in the cluster any more.
    pub(crate) async fn give_to_heir(&self, uuid: Uuid, gone: &NodeName, heir: NodeName) -> Result<()> {
        let (heir, what) = (&heir, self.about(&uuid));
        let done = self.update(what, || async move {
            // A view may show the VM of a new node before the node.
            let node = records::read::<NodeRecord>(&*self.ctx.store, gone).await?;
            let old = self.read(&uuid).await?.record;
            let is_orphan = node.is_none() && old.value.node.as_ref() == Some(gone);
            let node = if is_orphan { Some(heir.clone()) } else { old.value.node.clone() };
            let new = VmRecord { node, ..old.value.clone() };
            super::vm::replaced(&old, new, format!("assigned to {heir}, because {gone} was removed"))
        });
        done.await.map(|_| ())
    }
}

/// Number of VMs that are decoded at once.
const YIELD_AFTER: usize = 64;

impl Commands {
    /// The view, with every VM that was defined or changed before this moment as it is in the store: a view may be
    /// behind. (VMs that were deleted since may still be in it.)
    async fn view_of_now(&self) -> Result<ClusterView> {
        let store = &*self.ctx.store;
        store.sync().await?;
        let names = match VmRecord::path(&Uuid::nil()).parent() {
            Some(folder) => store.children(&folder).await?,
            None => Vec::new(),
        };
        let uuids = names.iter().filter_map(|name| name.parse().ok());
        let paths: Vec<(RecordPath, bool)> =
            uuids.flat_map(|uuid| [(VmRecord::path(&uuid), false), (Claim::path(&uuid), false)]).collect();
        let found = store.read_many(&paths).await?;
        let mut view = ClusterView::clone(&*self.view()?);
        for (n, ((path, _), (record, _))) in paths.iter().zip(&found).enumerate() {
            // Decoding 10,000 takes a while: others go on meanwhile.
            if n % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
            if let Some(record) = record {
                view.apply(path, Some((&record.data, record.version)));
            }
        }
        Ok(view)
    }
}

/// A change of a node's record.
fn replaced<A>(old: &Stored<NodeRecord>, new: &NodeRecord, answer: A, log: String) -> Result<Outcome<A>> {
    let name = new.name.clone();
    let (ops, version) = (vec![records::set_op(&name, old, new)?], old.version.next());
    let newer = move |view: &ClusterView| view.nodes.get(&name).is_none_or(|node| node.record.version >= version);
    Ok(Outcome::Write(Write { ops, answer, log, shows: Box::new(newer), taken: Vec::new() }))
}

/// The version of a node's record.
pub(super) fn known(view: &ClusterView, name: &NodeName) -> Result<Version> {
    view.nodes.get(name).map(|node| node.record.version).ok_or_else(|| {
        let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
        CommandError::NotFound(format!("there is no node {name}; there are {}", known.join(", ")))
    })
}
