//! Elections and requests, from a view.

use super::{name, record};
use crate::primary::{
    admit::{Refusal, make_primary, make_secondary},
    election::{heir, standing},
};
use drover_model::{ClusterView, Phase, Role, Version};
use serde_json::json;

/// Nodes in short form: `a` runs, `b!` has a network problem, `c-` is down, `d*` is a hypervisor.
fn view(nodes: &[&str]) -> ClusterView {
    let mut view = ClusterView::default();
    for node in nodes {
        let (name, marks) = node.split_at(1);
        let role = if marks.contains('*') { "hypervisor" } else { "coordinator" };
        let problems: Vec<&str> = if marks.contains('!') { vec!["no carrier"] } else { vec![] };
        let record = json!({"schema": 1, "name": name, "role": role, "api": "", "domain_state": "ready"});
        let status = json!({
            "schema": 1, "daemon": "run", "version": "", "kernel": "", "os": "", "arch": "",
            "cpus": 1, "memory_total": 1, "memory_free": 1,
            "load": 0.0, "domains": [], "updated": 0, "network_problems": problems,
        });
        let session = json!({"schema": 1, "instance": uuid::Uuid::nil(), "machine": name, "boot": "", "started": 0});
        let mut put = |path: String, value: &serde_json::Value| {
            view.apply(&path.parse().unwrap(), Some((value.to_string().as_bytes(), Version(1))));
        };
        put(format!("/nodes/{name}"), &record);
        put(format!("/nodes/{name}/status"), &status);
        if !marks.contains('-') {
            put(format!("/nodes/{name}/session"), &session);
        }
    }
    assert!(view.broken.is_empty(), "{:?}", view.broken);
    view
}

#[test]
fn the_best_coordinator_comes_first() {
    let all = view(&["a", "b!", "c", "d*", "e-"]);
    assert_eq!(heir(&all, &name("a")), Some(name("c")));
    assert_eq!(heir(&all, &name("c")), Some(name("a")));
    assert_eq!(heir(&view(&["a", "d*", "e-"]), &name("a")), None);
    let ranks = ["a", "b", "c"].map(|me| {
        let problems = if me == "b" { vec!["no carrier".to_owned()] } else { vec![] };
        standing(&all, &name(me), Role::Coordinator, &problems, false).rank
    });
    assert_eq!(ranks, [0, 2, 1]);
}

#[test]
fn reasons_to_give_the_role_away() {
    let problem = ["no carrier".to_owned()];
    let of = |nodes: &[&str], role, problems: &[String], stopping| {
        standing(&view(nodes), &name("a"), role, problems, stopping)
    };
    let well = of(&["a", "b"], Role::Coordinator, &[], false);
    assert!(well.eligible && well.leave.is_none());
    let ails = of(&["a!", "b"], Role::Coordinator, &problem, false);
    assert_eq!((ails.leave.as_deref(), ails.urgent, ails.heir), (Some("no carrier"), false, Some(name("b"))));
    assert_eq!(of(&["a!", "b!"], Role::Coordinator, &problem, false).leave, None, "the other is no better");
    let stops = of(&["a", "b"], Role::Coordinator, &[], true);
    assert!(stops.urgent && !stops.eligible && !stops.quit);
    assert!(of(&["a*", "b"], Role::Hypervisor, &[], false).quit);
}

#[test]
fn requests_are_accepted_or_refused() {
    let all = view(&["a", "b", "c-", "d*"]);
    let primary = |at: &str, node: &str| {
        make_primary(&record(at), &all, &name(node))
            .map(|new| new.map(|r| (r.holder, r.handoff.map(|h| (h.to, h.phase)))))
    };
    let passes = |holder: &str, to: &str, phase| Ok(Some((Some(name(holder)), Some((name(to), phase)))));
    assert_eq!(primary("a", "a"), Ok(None));
    assert_eq!(primary("a", "b"), passes("a", "b", Phase::Lock));
    assert_eq!(primary("a", "c"), Err(Refusal::Away(name("c"))));
    assert_eq!(primary("a", "d"), Err(Refusal::NoCoordinator(name("d"))));
    assert_eq!(primary("-", "b"), Err(Refusal::Vacant));
    assert_eq!(primary("a>b take", "b"), Ok(None), "it is under way");
    assert_eq!(primary("a>b lock", "a"), Ok(Some((Some(name("a")), None))), "taken back before it began");
    assert_eq!(primary("c>b lock", "a"), passes("c", "a", Phase::Lock), "replaced before it began");
    assert_eq!(primary("a>b back", "b"), Err(Refusal::Busy { to: name("b"), phase: Phase::Back }));

    let secondary = |at: &str, node: &str| {
        make_secondary(&record(at), &all, &name(node))
            .map(|new| new.map(|r| (r.holder, r.handoff.map(|h| (h.to, h.phase)))))
    };
    assert_eq!(secondary("a", "a"), passes("a", "b", Phase::Lock));
    assert_eq!(secondary("a", "b"), Ok(None));
    assert_eq!(secondary("a", "d"), Err(Refusal::NoCoordinator(name("d"))));
    assert_eq!(secondary("a>b take", "b"), passes("a", "b", Phase::Back));
    assert_eq!(secondary("a>b drop", "b"), Err(Refusal::Busy { to: name("b"), phase: Phase::Drop }));
    assert_eq!(secondary("a>b drop", "a"), Ok(None), "it is giving it away");
    let alone = view(&["a", "d*"]);
    assert_eq!(make_secondary(&record("a"), &alone, &name("a")), Err(Refusal::NoHeir(name("a"))));
}
