//! Moves of VMs in the API: progress, outcome, and where VMs would go.

use super::Vm;
use crate::{view::VmView, vm::Progress};
use serde::{Deserialize, Serialize};

/// A VM's move that is under way. Sizes in MiB.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Migration {
    /// The target.
    pub to: String,
    /// Total amount of data, as far as known; 0: nothing is being sent yet, or it is moved while off.
    pub total: u64,
    /// Amount sent. Memory that the guest changes is sent again, so it can exceed the total.
    pub sent: u64,
    /// Amount left. It can grow, because the guest writes on.
    pub left: u64,
    /// Transfer rate per second.
    pub rate: u64,
    /// Time since the start of the transfer, in seconds.
    pub elapsed: u64,
    /// Estimated remaining time, in seconds, if the guest wrote nothing more; null: not known.
    pub estimate: Option<u64>,
}

impl Migration {
    /// A VM's move from the view: from the order until it is known at which end the guest is.
    pub fn of(vm: &VmView) -> Option<Migration> {
        let sent_to = || vm.claim.as_ref().and_then(|claim| claim.value.to.as_ref());
        let to = vm.record.value.state.destination().or_else(sent_to)?;
        let progress = vm.status.as_ref().and_then(|status| status.progress);
        let estimate = progress.and_then(|progress| progress.estimate_s());
        let Progress { total, sent, left, rate, elapsed_ms } = progress.unwrap_or_default();
        Some(Migration {
            to: to.to_string(),
            total: total.as_mib(),
            sent: sent.as_mib(),
            left: left.as_mib(),
            rate: rate.as_mib(),
            elapsed: elapsed_ms / 1000,
            estimate,
        })
    }

    /// Progress in percent; `None`: nothing is being sent.
    pub fn percent(&self) -> Option<u64> {
        let done = self.total.saturating_sub(self.left);
        (done * 100).checked_div(self.total)
    }
}

/// Outcome of a move, for clients that wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveOutcome {
    /// It is under way.
    UnderWay,
    /// The VM runs on the target.
    Arrived,
    /// It failed, for this reason.
    Failed(String),
    /// The VM is not on the target and is not going there any more. If its move failed, its node will report that soon;
    /// otherwise another order has replaced the move.
    Ended,
}

/// An ordered move, for clients that wait for it and must distinguish its outcome from earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveOrder {
    to: String,
    /// The version of the VM's record with the order.
    version: i64,
    /// Number of failures in a row that were reported before the order.
    failures: u32,
}

impl MoveOrder {
    /// An order that is in this version of a VM's record. `before`: the VM before the order.
    pub fn new(before: &Vm<'_>, to: &str, version: i64) -> MoveOrder {
        MoveOrder { to: to.to_owned(), version, failures: before.move_failures }
    }

    /// The outcome, by the VM's present state; `None`: that is older than the order.
    pub fn outcome(&self, now: &Vm<'_>) -> Option<MoveOutcome> {
        let to = self.to.as_str();
        if now.version < self.version {
            return None;
        }
        Some(match (now.state.as_str(), &now.migration) {
            ("migrate" | "migrate-live" | "unmigrate", Some(migration)) if migration.to == to => MoveOutcome::UnderWay,
            // It could not be started there, and goes back.
            ("migrate" | "unmigrate", Some(_)) if now.move_failures > self.failures => {
                MoveOutcome::Failed(format!("{}; it goes back", now.move_failed))
            }
            ("start", _) if now.node == to && now.is_settled() => MoveOutcome::Arrived,
            ("start", _) if now.node == to => MoveOutcome::UnderWay,
            // Cancelled on its way, and not yet known to be back.
            ("start", Some(migration)) if migration.to == to => MoveOutcome::UnderWay,
            ("start", _) if now.move_failures > self.failures => {
                let why = now.move_failed.strip_prefix(&format!("to {to}: ")).unwrap_or(&now.move_failed);
                MoveOutcome::Failed(why.to_owned())
            }
            ("fail", _) => MoveOutcome::Failed(now.failed_reason.clone()),
            _ => MoveOutcome::Ended,
        })
    }
}

impl Vm<'_> {
    /// Where it is and in which state, for the end of a sentence.
    pub fn whereabouts(&self) -> String {
        let node = [&self.claim.node, &self.node].into_iter().find(|node| !node.is_empty());
        let on = node.map(|node| format!(" on {node}")).unwrap_or_default();
        match self.run_state.as_str() {
            "running" => format!("it runs{on}"),
            "absent" | "off" => format!("it is off{on} (state {})", self.state),
            run => format!("it is {run}{on} (state {})", self.state),
        }
    }
}

/// Where a VM would go if it were moved now, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explained {
    /// The VM's name.
    pub name: String,
    /// The node that it is assigned to; empty: none.
    pub node: String,
    /// Selector of the scores.
    pub selector: String,
    /// See [`Vm::paused_reason`](super::Vm::paused_reason): a guest that does not execute is not moved.
    #[serde(default)]
    pub paused_reason: String,
    /// See [`Vm::older_disks`](super::Vm::older_disks): it is moved live only.
    #[serde(default)]
    pub older_disks: String,
    /// The chosen node; empty: no node can take it.
    pub chosen: String,
    /// Every node, by name.
    pub nodes: Vec<Judged>,
    /// The placement that brought it to its node; absent if not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<super::Placed>,
}

/// Result for one node in a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Judged {
    /// Its name.
    pub node: String,
    /// Whether it can take the VM.
    pub fits: bool,
    /// Score by the selector; the highest wins. Null: it cannot take the VM.
    pub score: Option<i64>,
    /// Memory that it could still promise with the VM on it, in MiB. Null: it cannot take the VM.
    pub memory_left: Option<u64>,
    /// Why it cannot take the VM; empty: it can.
    pub reason: String,
}

/// What a flush of a node would do with one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fate {
    /// The VM's name.
    pub vm: String,
    /// The VM's UUID.
    pub uuid: String,
    /// `moves`; `shutdown`: it is shut down, and started when the node is ready; `waits`: another operation on it is
    /// under way; `blocked`: nothing can be done; `away`: it was to come, and its
    /// holder is away, so nobody waits for it.
    pub fate: String,
    /// The target; empty: it does not move.
    pub to: String,
    /// How it moves: `live`, `live-else-cold`, `cold`; empty: it does not.
    pub how: String,
    /// Why it does not move; empty: it does.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;
    use crate::{
        name::NodeName,
        units::Bytes,
        view::ClusterView,
        vm::{Claim, How, MoveKind, RunState, VmState},
    };
    use serde_json::{Value, json};
    use std::sync::Arc;
    use uuid::Uuid;

    const RUNS: Option<RunState> = Some(RunState::Running);

    fn name(n: &str) -> NodeName {
        NodeName::new(n).unwrap()
    }

    fn held(node: &str) -> Claim {
        Claim::new(crate::Epoch(0)).granted_to(&name(node))
    }

    fn sending(node: &str) -> Claim {
        held(node).sending_to(&name("b"))
    }

    /// A cluster of three nodes, whose daemons run, so that their reports count; and the VM in it.
    fn cluster(
        state: &VmState,
        on: &str,
        claim: &Claim,
        run: Option<RunState>,
        failures: u32,
    ) -> (ClusterView, Arc<VmView>) {
        let mut view = ClusterView::default();
        let mut put = |path: &str, value: Value| {
            view.apply(&path.parse().unwrap(), Some((value.to_string().as_bytes(), Version(1))));
        };
        for node in ["a", "b", "c"] {
            let record = json!({"schema": 1, "name": node, "role": "coordinator", "api": "", "domain_state": "ready"});
            put(&format!("/nodes/{node}"), record);
            let session = json!({"schema": 1, "instance": Uuid::nil(), "machine": "", "boot": "", "started": 0});
            put(&format!("/nodes/{node}/session"), session);
        }
        let uuid = Uuid::from_u128(1);
        let vm =
            json!({"schema": 1, "uuid": uuid, "name": "web", "state": state, "node": on, "xml": "", "generation": 1});
        put(&format!("/vms/{uuid}"), vm);
        put(&format!("/vms/{uuid}/claim"), json!(claim));
        let failure =
            (failures > 0).then(|| json!({"to": "b", "reason": "no room", "count": failures / 2, "told": failures}));
        let status = json!({"schema": 1, "node": on, "epoch": 1, "run": run, "since": 0, "move_failure": failure});
        put(&format!("/vms/{uuid}/status"), status);
        assert!(view.broken.is_empty(), "{:?}", view.broken);
        let vm = view.vm("web").unwrap().clone();
        (view, vm)
    }

    #[test]
    fn outcomes_of_moves() {
        use MoveOutcome::*;
        let order = |to: &str| VmState::Migrate { to: name(to), kind: MoveKind::Migrate, how: How::Live };
        let (start, free) = (VmState::Start, Claim::new(crate::Epoch(0)));
        let failed = VmState::Fail { reason: "no disk".to_owned() };
        // One move had failed before this one, or could not even be tried.
        let (view, vm) = cluster(&VmState::Start, "a", &held("a"), RUNS, 1);
        let ordered = |version| MoveOrder::new(&Vm::of(&view, &vm), "b", version);
        for (what, state, on, claim, run, failures, outcome) in [
            ("ordered", order("b"), "a", held("a"), RUNS, 1, UnderWay),
            ("being sent", order("b"), "a", sending("a"), RUNS, 1, UnderWay),
            ("arrived", start.clone(), "b", held("b"), RUNS, 0, Arrived),
            ("there, still to be started", start.clone(), "b", held("b"), None, 0, UnderWay),
            ("there, and cannot be started", failed, "b", free.clone(), None, 0, Failed("no disk".to_owned())),
            ("failed", start.clone(), "a", held("a"), RUNS, 2, Failed("no room".to_owned())),
            ("ended, its node has not said why yet", start.clone(), "a", held("a"), RUNS, 1, Ended),
            ("taken back while it is being sent", start, "a", sending("a"), RUNS, 1, UnderWay),
            ("on its way elsewhere", order("c"), "a", held("a"), RUNS, 1, Ended),
            ("off by its own wish", VmState::Stop, "a", free, None, 1, Ended),
        ] {
            let (view, vm) = cluster(&state, on, &claim, run, failures);
            assert_eq!(ordered(1).outcome(&Vm::of(&view, &vm)), Some(outcome), "{what}");
        }
        let (view, vm) = cluster(&VmState::Start, "b", &held("b"), RUNS, 0);
        assert_eq!(ordered(2).outcome(&Vm::of(&view, &vm)), None, "that was before the order");
    }

    #[test]
    fn a_vm_is_not_settled_while_it_may_be_at_either_end() {
        let settled = |state: VmState, claim: &Claim| {
            let (view, vm) = cluster(&state, "a", claim, RUNS, 0);
            Vm::of(&view, &vm).is_settled()
        };
        assert!(settled(VmState::Start, &held("a")));
        assert!(!settled(VmState::Start, &sending("a")));
        for kind in [MoveKind::Migrate, MoveKind::Move, MoveKind::Unmigrate] {
            let order = VmState::Migrate { to: name("b"), kind, how: How::LiveElseCold };
            assert!(!settled(order, &held("a")), "{kind:?}");
        }
    }

    #[test]
    fn figures_are_in_mib_and_percent() {
        let (_, vm) = cluster(&VmState::Start, "a", &sending("a"), RUNS, 0);
        let mut vm = VmView::clone(&vm);
        assert_eq!(Migration::of(&vm).unwrap().percent(), None, "nothing is known of it yet");
        vm.status.as_mut().unwrap().progress = Some(Progress {
            total: Bytes::mib(1000),
            sent: Bytes::mib(1500),
            left: Bytes::mib(250),
            rate: Bytes::mib(100),
            elapsed_ms: 15_400,
        });
        let shown = Migration::of(&vm).unwrap();
        assert_eq!((shown.total, shown.sent, shown.left, shown.rate, shown.elapsed), (1000, 1500, 250, 100, 15));
        assert_eq!((shown.percent(), shown.estimate, shown.to.as_str()), (Some(75), Some(2), "b"));
        vm.claim = None;
        assert_eq!(Migration::of(&vm), None);
    }
}
