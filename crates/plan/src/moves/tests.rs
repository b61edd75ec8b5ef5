//! What happens to a home, and when a move has taken too long. Requests and the resulting records are tested by
//! `tests/scripts/move-*.txt`.

mod turns;

use super::*;
use drover_model::{
    ClusterConfig, ClusterView, How, MoveKind, NodeState, NodeView, Stall, VmRecord, VmState, VmView, testing::*,
};
use std::time::Duration;
use uuid::Uuid;

#[test]
fn a_home_is_kept_until_the_vm_is_there_again_or_moves_for_good() {
    use MoveKind::*;
    // Its node and home; the target and the kind of move; its home afterwards.
    for (on, home, to, kind, then) in [
        ("a", None, "b", Migrate, Some("a")),
        ("b", Some("a"), "c", Migrate, Some("a")),
        ("b", Some("a"), "a", Migrate, None),
        ("a", None, "a", Migrate, None),
        ("a", None, "b", Move, None),
        ("b", Some("a"), "c", Move, None),
        ("b", Some("a"), "a", Unmigrate, None),
    ] {
        let record = running(1, on, 64).record.value.clone();
        let record = VmRecord { last_node: home.map(name), ..record };
        let arrived = record.arrived(&name(to), kind);
        assert_eq!(arrived.node, Some(name(to)));
        assert_eq!(arrived.last_node, then.map(name), "{on}, home {home:?}, {kind:?} to {to}");
        assert_eq!(VmRecord { node: record.node.clone(), last_node: record.last_node.clone(), ..arrived }, record);
    }
}

#[test]
fn a_migration_is_given_up_or_sent_again_by_post_copy_at_its_deadline() {
    use Supervision::*;
    for (stall, elapsed_ms, sent, then) in [
        (Stall::Abort, 0, Sent::Whole, GoOn),
        (Stall::Abort, 59_999, Sent::Whole, GoOn),
        (Stall::Abort, 60_000, Sent::Whole, GiveUp),
        (Stall::PostCopy, 59_999, Sent::Whole, GoOn),
        (Stall::PostCopy, 60_000, Sent::Whole, SendAgain),
        // It is switched as soon as it can be, whatever the setting is by now.
        (Stall::PostCopy, 0, Sent::ByPostCopy, Switch),
        (Stall::Abort, 0, Sent::ByPostCopy, Switch),
        (Stall::PostCopy, 59_999, Sent::ByPostCopy, Switch),
        (Stall::PostCopy, 60_000, Sent::ByPostCopy, GiveUp),
        // Post-copy cannot be aborted.
        (Stall::PostCopy, 60_000, Sent::Switched, GoOn),
        (Stall::Abort, 600_000, Sent::Switched, GoOn),
    ] {
        let config = ClusterConfig { stall, migration_deadline_s: 60, ..ClusterConfig::default() };
        let elapsed = Duration::from_millis(elapsed_ms);
        assert_eq!(supervise(&config, elapsed, sent), then, "{stall}, after {elapsed:?}, {sent:?}");
    }
    // To switch has its own time: a short deadline is not enough to begin.
    let config = ClusterConfig { stall: Stall::PostCopy, migration_deadline_s: 2, ..ClusterConfig::default() };
    assert_eq!(supervise(&config, Duration::from_secs(59), Sent::ByPostCopy), Switch);
    assert_eq!(supervise(&config, Duration::from_secs(60), Sent::ByPostCopy), GiveUp);
}
