//! Guests that are not where the claim says.

use super::*;
use drover_model::{ClusterView, RunState, Stray, VmStatus, WallTime};
use uuid::Uuid;

fn migrate(to: &str) -> VmState {
    VmState::Migrate { to: name(to), kind: MoveKind::Migrate, how: How::Live }
}

fn elsewhere(epoch: u64, alive: bool) -> Option<Elsewhere> {
    Some(Elsewhere { node: name("b"), epoch: Epoch(epoch), alive, paused: false })
}

#[test]
fn a_guest_without_a_claim_here_is_adopted_reported_or_an_older_one_and_removed() {
    use Step::*;
    use VmState as V;
    let rows: Vec<(VmState, &str, &str, Step)> = vec![
        // Another node holds the grant that it has: it hands it over.
        (V::Start, "b", "running", Wait),
        (V::Stop, "b", "running", Wait),
        (V::Start, "b>c", "paused", Wait),
        // The records are older than the guest.
        (V::Start, "b", "~running", Wait),
        // Nobody holds it: it is adopted, and what was ordered is carried out then.
        (V::Start, "-", "running", Adopt(V::Start)),
        (V::Stop, "-", "running", Adopt(V::Stop)),
        // It may be a copy that a migration left.
        (V::Stop, "-", "paused", Wait),
        (V::Start, "-", "paused", Wait),
        (V::Start, "b", "paused", Wait),
        (delete(), "-", "~running", Adopt(delete())),
        (fail(), "-", "running", Adopt(V::Start)),
        // The claim moved on; or it is a copy that a migration left.
        (V::Start, "b", "<running", Destroy),
        (V::Start, "-", "<running", Destroy),
        (V::Start, "-", "+running", Destroy),
        (V::Start, "-", "shutdown", Undefine),
    ];
    for (state, held, domain, step) in rows {
        for on in ["a", "b"] {
            let mut case = Case::new(state.clone(), on, held, domain);
            assert_eq!(case.decide().step, step, "{state:?} on {on}, held by {held}, domain {domain}");
            let Obs::Known(seen) = &case.domain else { panic!("{domain}") };
            let claim = case.claim.as_ref().map(|claim| &claim.value);
            let left_alone = matches!(step, Wait | Adopt(_));
            assert_eq!(is_stray(claim, &name("a"), seen), left_alone, "{state:?}, held by {held}, domain {domain}");
            let reported = !domain.ends_with("paused");
            assert_eq!(is_reported(claim, seen), reported, "{state:?}, held by {held}, domain {domain}");
        }
    }
}

#[test]
fn a_guest_of_a_vm_that_was_defined_again_is_adopted_whatever_its_grant_was() {
    for domain in ["<running", "running", "+running", "~paused"] {
        for (state, becomes) in [(VmState::Stop, VmState::Start), (shutdown(), shutdown())] {
            let mut case = Case::new(state, "b", "-", domain);
            case.claim = Some(Stored::new(Claim::new(Epoch(0)), Version(0)));
            assert_eq!(case.decide().step, Step::Adopt(becomes), "{domain}");
        }
    }
    // The node that it was defined on does not start it meanwhile.
    let mut case = Case { elsewhere: elsewhere(2, true), ..Case::new(VmState::Start, "a", "-", "absent") };
    case.claim = Some(Stored::new(Claim::new(Epoch(0)), Version(0)));
    assert_eq!(case.decide().step, Step::Wait);
}

#[test]
fn the_holder_marks_what_its_grant_took_over_and_removes_what_is_older() {
    use Step::*;
    let decide = |claim: Claim, domain| {
        let mut case = Case::new(VmState::Start, "a", "a", domain);
        case.claim = Some(Stored::new(claim, Version(2)));
        case.decide().step
    };
    let held = claim("a");
    assert_eq!(decide(held.clone(), "running"), Wait);
    assert_eq!(decide(held.clone(), "<running"), Destroy, "others had it meanwhile");
    assert_eq!(decide(Claim { epoch: Epoch(3), ..held.clone() }, "<running"), Remark, "nobody had it meanwhile");
    assert_eq!(decide(held.adopting(Epoch(2), &name("a")), "<running"), Remark);
    assert_eq!(decide(held.adopting(Epoch(9), &name("a")), "~paused"), Remark);
    assert_eq!(decide(held.clone(), "~running"), Regrant, "the records are older than the guest");
    assert_eq!(decide(held, "<shutdown"), Complete(VmState::Stop), "one that is off is no guest");
    // What is to stop needs no mark, which a guest that hangs may not get.
    let mut case = Case::new(VmState::Stop, "a", "a", "<running");
    case.claim = Some(Stored::new(claim("a").adopting(Epoch(2), &name("a")), Version(2)));
    assert_eq!(case.decide().step, Destroy);
}

#[test]
fn a_guest_that_was_called_back_is_marked_anew_and_what_the_send_left_is_older() {
    use Step::*;
    let with = |claim: &Claim, epoch, domain| {
        let mut case = Case::new(VmState::Start, "a", "a", domain);
        let Obs::Known(seen) = &mut case.domain else { panic!("{domain}") };
        seen.mark.epoch = epoch;
        case.claim = Some(Stored::new(claim.clone(), Version(2)));
        case.decide().step
    };
    let (mark, sending) = (Epoch(4), claim("a>b"));
    let back = sending.called_back(Some(mark));
    assert_eq!((back.node.clone(), back.to.clone(), back.epoch), (Some(name("a")), None, Epoch(6)));
    // At the holder: one that the migration left paused goes on first, then it is marked, then the claim says no more
    // of it.
    assert_eq!(with(&back, mark, "switching"), LetRun);
    assert_eq!(with(&back, mark, "running"), Remark);
    assert_eq!(with(&back, back.epoch, "running"), Settle);
    assert_eq!(with(&back.settled(), back.epoch, "running"), Wait);
    assert_eq!(with(&back, back.epoch, "paused"), Settle, "also while somebody has it paused");
    assert_eq!(with(&back.settled(), back.epoch, "paused"), Wait);
    // A copy that somebody's own migration left elsewhere before has the guest's mark, too.
    let Obs::Known(seen) = Case::new(VmState::Start, "a", "a", "paused").domain else { panic!("it is paused") };
    let copied = Seen { mark: Mark { epoch: mark, ..seen.mark }, ..seen };
    let elsewhere = Claim { node: Some(name("b")), ..back.clone() };
    assert!(!is_reported(Some(&elsewhere), &copied), "nobody follows it");
    assert!(is_reported(Some(&elsewhere), &Seen { run: RunState::Running, paused: None, ..copied }));
    assert!(!back.adopts_of_earlier(mark), "it is known from which definition it was started");
    assert!(claim("a").adopting(Epoch(1), &name("a")).adopts_of_earlier(Epoch(1)));
    assert!(claim("a").adopting(Epoch(9), &name("a")).adopts_of_earlier(Epoch(9)));
    // At the target of the send: its copy is removed, whoever has had the VM since, also while the next one comes.
    let copy = |claim: &Claim| {
        let there = |node: &str| name(if node == "a" { "b" } else { "a" });
        let swap = |node: &Option<drover_model::NodeName>| node.as_ref().map(|node| there(node.as_str()));
        with(&Claim { node: swap(&claim.node), to: swap(&claim.to), ..claim.clone() }, sending.sent(), "paused")
    };
    let mut claims = vec![back.clone(), back.settled(), back.sending_to(&name("b")), back.released(), back.freed()];
    claims.extend([back.granted_to(&name("a")), back.sending_to(&name("c")), back.followed_to(&name("c"), back.epoch)]);
    for claim in claims {
        assert_eq!(copy(&claim), Destroy, "{claim:?}");
    }
    assert_eq!(copy(&sending), Wait, "before, it is the guest that has arrived");
    // The node that is to start the VM anew, because its guest ended where it was, removes the copy that it has.
    let anew = sending.granted_above_sent(&name("a"));
    assert!(anew.is_held_by(&name("a")) && anew.to.is_none() && !anew.resume);
    assert_eq!(with(&anew, sending.sent(), "paused"), Destroy);
    // However often it is sent: no two sends, and no send and a grant that is not its own, have the same epoch.
    let mut given = vec![sending.epoch];
    let mut now = sending;
    for _ in 0..3 {
        given.push(now.sent());
        now = now.called_back(Some(now.epoch));
        given.push(now.epoch);
        now = now.settled().sending_to(&name("b"));
    }
    assert_eq!(now.handed_to(&name("b")).epoch, now.sent());
    assert!(given.is_sorted_by(|one, next| one < next), "{given:?}");
}

#[test]
fn a_guest_that_cannot_be_marked_can_be_ended_and_blocks_no_flush() {
    use Step::*;
    let case = |state: VmState, tries: u32| {
        let mut case = Case::new(state, "a", "a", "running");
        let Obs::Known(seen) = &mut case.domain else { panic!("it runs") };
        seen.mark.epoch = Epoch(4);
        case.claim = Some(Stored::new(claim("a>b").called_back(Some(Epoch(4))), Version(2)));
        (0..tries).for_each(|_| case.memory.mark_failed(Epoch(4), "no room for it".to_owned(), Mono(0)));
        case.now = Mono(3_600_000);
        case.decide()
    };
    for tries in [0, 9] {
        assert_eq!(case(VmState::Start, tries).step, Remark);
        assert_eq!(case(shutdown(), tries).step, PressButton);
        assert_eq!(case(restart(), tries).step, PressButton);
        assert_eq!(case(VmState::Stop, tries).step, Destroy);
    }
    assert_eq!(case(migrate("b"), 2).step, Remark);
    let GiveUpMove(why) = case(migrate("b"), 3).step else { panic!("it is given up") };
    assert!(why.ends_with("no room for it"), "{why}");
    // It is not tried at full speed.
    let mut soon = Case::new(VmState::Start, "a", "a", "running");
    let Obs::Known(seen) = &mut soon.domain else { panic!("it runs") };
    seen.mark.epoch = Epoch(4);
    soon.claim = Some(Stored::new(claim("a>b").called_back(Some(Epoch(4))), Version(2)));
    soon.memory.mark_failed(Epoch(4), "no room for it".to_owned(), soon.now);
    let waits = soon.decide();
    assert!(waits.step == Wait && waits.doing.contains("could not be marked (1×)"), "{waits:?}");
    // Another guest, another matter.
    let running = Obs::Known(Seen { mark: Mark { epoch: Epoch(6), ..seen_mark(&soon) }, ..seen_of(&soon) });
    soon.memory.absorb(None, None, &running, soon.now);
    assert_eq!(soon.memory.mark_failures, None);
}

fn seen_of(case: &Case) -> Seen {
    *case.domain.known().unwrap()
}

fn seen_mark(case: &Case) -> Mark {
    seen_of(case).mark
}

/// Somebody had it paused before Drover took it over, or in between.
#[test]
fn a_paused_guest_that_a_grant_takes_over_is_marked_and_not_destroyed() {
    for (epoch, mark) in [(4, 9), (4, 4), (5, 4)] {
        let held = Claim { epoch: Epoch(epoch), ..claim("a") };
        let granted = held.granted_above(Epoch(mark), &name("a"));
        assert!(granted.epoch > Epoch(mark) && granted.epoch > held.epoch && granted.adopts == Some(Epoch(mark)));
        assert!(!granted.adopts_of_earlier(Epoch(mark)), "it is known from which definition it was started");
        let mut case = Case::new(VmState::Start, "a", "a", "paused");
        let Obs::Known(seen) = &mut case.domain else { panic!("it is paused") };
        seen.mark.epoch = Epoch(mark);
        case.claim = Some(Stored::new(granted.clone(), Version(2)));
        assert_eq!(case.decide().step, Step::Remark, "{granted:?}");
    }
}

#[test]
fn a_grant_for_a_guest_is_above_its_mark_and_above_all_earlier_grants() {
    for (epoch, mark, becomes) in [(4, 2, 5), (4, 4, 5), (4, 9, 10), (0, 7, 8)] {
        let claim = Claim { epoch: Epoch(epoch), ..Claim::new(Epoch(0)) }.adopting(Epoch(mark), &name("a"));
        assert_eq!((claim.epoch, claim.adopts), (Epoch(becomes), Some(Epoch(mark))));
        assert!(claim.is_held_by(&name("a")));
        assert_eq!(claim.granted_to(&name("b")).adopts, None);
        assert_eq!(claim.on("m", "b").released(), Claim { epoch: Epoch(becomes), ..Claim::new(Epoch(0)) });
    }
}

#[test]
fn the_holder_hands_the_claim_to_the_node_that_its_guest_was_taken_to() {
    use Step::*;
    let states = [VmState::Start, VmState::Stop, shutdown(), restart(), delete(), migrate("c")];
    for state in states {
        let mut case = Case::new(state.clone(), "a", "a", "absent");
        case.elsewhere = elsewhere(4, true);
        assert_eq!(case.decide().step, Follow(name("b"), Epoch(4)), "{state:?}");
        case.elsewhere = elsewhere(9, true);
        assert_eq!(case.decide().step, Follow(name("b"), Epoch(9)), "{state:?}: the records are older than the guest");
        case.elsewhere = elsewhere(4, false);
        assert_eq!(case.decide().step, Wait, "{state:?}: its daemon is dead");
        case.elsewhere = elsewhere(4, true);
        case.domain = seen("migrated");
        assert_eq!(case.decide().step, Undefine, "{state:?}");
        // The guest of the grant is here: another with that mark is not it.
        case.domain = seen("running");
        assert_ne!(case.decide().step, Follow(name("b"), Epoch(4)), "{state:?}");
        // An older guest elsewhere is no reason to wait.
        case.domain = seen("absent");
        case.elsewhere = elsewhere(3, true);
        assert_ne!(case.decide().step, Follow(name("b"), Epoch(3)), "{state:?}");
    }
}

/// It has the mark of the grant before, or an older one.
#[test]
fn a_guest_that_is_taken_on_before_it_has_the_grants_mark_is_followed_again() {
    let followed = claim("a").followed_to(&name("b"), Epoch(4));
    assert_eq!((followed.epoch, followed.adopts), (Epoch(6), Some(Epoch(4))));
    assert!(!followed.adopts_of_earlier(Epoch(4)), "it is known from which definition it was started");
    let at = |claim: Claim, domain: &str, epoch| {
        let mut case = Case::new(VmState::Start, "a", "a", domain);
        if let Obs::Known(seen) = &mut case.domain {
            seen.mark.epoch = Epoch(epoch);
        }
        case.claim = Some(Stored::new(claim, Version(2)));
        case
    };
    // Where it is by now, it is not taken for one of an earlier grant.
    assert_eq!(at(followed.clone(), "running", 4).decide().step, Step::Wait);
    // At the holder that it has left, its definition says where to; or nothing is left of it.
    let held = Claim { node: Some(name("a")), ..followed };
    let gone = |domain| Case { was_in_memory: true, ..at(held.clone(), domain, 4) };
    for domain in ["migrated", "absent"] {
        assert_eq!(gone(domain).decide().step, Step::Wait, "{domain}: none is started before others have reported");
    }
    let mut reported = Case { elsewhere: elsewhere(4, true), ..gone("absent") };
    assert_eq!(reported.decide().step, Step::Follow(name("b"), Epoch(4)));
    // A copy of the guest before, which is paused, is not what a grant for another one starts with.
    assert_eq!(at(claim("a"), "paused", 3).decide().step, Step::Wait);
    assert_eq!(at(claim("a"), "running", 3).decide().step, Step::Remark);
    assert_eq!(at(Claim { adopts: Some(Epoch(3)), ..claim("a") }, "paused", 3).decide().step, Step::Remark);
}

#[test]
fn a_guest_that_vanished_is_waited_for_and_not_started_again() {
    let mut case = Case { was_in_memory: true, ..Case::new(VmState::Start, "a", "a", "absent") };
    let t0 = case.now;
    let decision = case.decide();
    assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(t0.after(LOOK_AGAIN))));
    // What cannot be seen meanwhile changes nothing.
    case.domain = seen("unknown");
    case.decide();
    case.domain = seen("absent");
    case.now = t0.after(LOOK_ELSEWHERE);
    let Step::Complete(VmState::Fail { reason }) = case.decide().step else { panic!("it was given up") };
    assert!(reason.contains("vanished from a"), "{reason}");
    // What is to be off is off.
    for (state, step) in [
        (VmState::Stop, Step::Release),
        (delete(), Step::DeleteRecords),
        (shutdown(), Step::Complete(VmState::Stop)),
        (fail(), Step::Release),
    ] {
        case.record = Some(Stored::new(record(state, "a"), Version(8)));
        assert_eq!(case.decide().step, step);
    }
    // libvirt says that it was migrated, whatever was reported.
    let mut case = Case::new(VmState::Start, "a", "a", "migrated");
    assert_eq!(case.decide().step, Step::Wait);
    // It was not in memory, and it is not gone.
    assert_eq!(Case::new(VmState::Start, "a", "a", "absent").decide().step, Step::Start);
    let mut case = Case { was_in_memory: true, ..Case::new(VmState::Start, "a", "a", "destroyed") };
    assert_eq!(case.decide().step, Step::Start);
    // A move of Drover's own is another matter.
    let mut case = Case { was_in_memory: true, ..Case::new(VmState::Start, "a", "a>b", "absent") };
    assert_eq!(case.decide().step, Step::HandOver(name("b")));
}

#[test]
fn a_guest_that_is_to_be_adopted_and_was_taken_elsewhere_meanwhile_is_adopted_there() {
    let lost = Claim { began: Epoch(5), ..Claim::new(Epoch(8)) };
    let adopting = |by: &str| lost.adopting(Epoch(4), &name(by));
    let case = |claim: Claim, domain| {
        let mut case = Case::new(VmState::Start, "a", "-", domain);
        case.claim = Some(Stored::new(claim, Version(2)));
        case
    };
    // Where it is, it is left alone and reported.
    let mut at_guest = case(adopting("b"), "running");
    assert_eq!(at_guest.decide().step, Step::Wait);
    let Obs::Known(seen) = &at_guest.domain else { panic!("it runs") };
    assert!(is_stray(Some(&adopting("b")), &name("a"), seen));
    // The node that was to adopt it starts nothing before it is reported, and hands the claim over then.
    let mut at_holder = Case { was_in_memory: true, ..case(adopting("a"), "absent") };
    assert_eq!(at_holder.decide().step, Step::Wait);
    at_holder.elsewhere = elsewhere(4, true);
    assert_eq!(at_holder.decide().step, Step::Follow(name("b"), Epoch(4)));
    assert_eq!(case(adopting("b").followed_to(&name("a"), Epoch(4)), "running").decide().step, Step::Remark);
    // One that was shut down, to be started on another node, is not looked for there.
    assert_eq!(adopting("b").handed_to(&name("a")).adopts, None);
}

#[test]
fn a_running_guest_whose_definition_was_removed_gets_it_back() {
    let transient = |state: VmState, held: &str, domain| {
        let mut case = Case::new(state, "a", held, domain);
        let Obs::Known(seen) = &mut case.domain else { panic!("{domain}") };
        seen.transient = true;
        case.decide().step
    };
    assert_eq!(transient(VmState::Start, "a", "running"), Step::Remark);
    assert_eq!(transient(VmState::Start, "a", "paused"), Step::Remark);
    assert_eq!(transient(VmState::Start, "a", "sending"), Step::AbortMigration, "not while it is on its way");
    // What is to end needs none, and one of another node is not touched.
    assert_eq!(transient(VmState::Stop, "a", "running"), Step::Destroy);
    assert_eq!(transient(VmState::Start, "b", "running"), Step::Wait);
}

#[test]
fn a_guest_was_here_if_the_last_report_of_this_grant_and_this_boot_says_so() {
    let claim = claim("a").on("m", "boot 1");
    let mut status = VmStatus::new(name("a"), Epoch(4), WallTime(0));
    status.run = Some(RunState::Running);
    let was = |claim: &Claim, status: &VmStatus| was_in_memory(claim, status, &name("a"), "boot 1");
    assert!(was(&claim, &status));
    assert!(was(&claim.on("", ""), &status), "an older daemon's grant");
    assert!(!was(&claim.on("m", "boot 0"), &status), "it ended with the machine");
    assert!(!was(&claim, &VmStatus { run: Some(RunState::Off), ..status.clone() }));
    assert!(!was(&claim, &VmStatus { run: None, ..status.clone() }));
    assert!(!was(&claim, &VmStatus { epoch: Epoch(3), ..status.clone() }));
    assert!(!was(&claim, &VmStatus { node: name("b"), ..status.clone() }));
    // Nothing was reported yet of a guest that is adopted.
    let adopting = Claim { adopts: Some(Epoch(2)), ..claim };
    assert!(was(&adopting, &VmStatus { epoch: Epoch(3), run: None, ..status.clone() }));
    assert!(!was(&adopting.on("m", "boot 0"), &VmStatus { epoch: Epoch(3), run: None, ..status.clone() }));
    // Or only while it could not be seen.
    assert!(was(&adopting, &VmStatus { run: None, unknown: true, ..status.clone() }));
    assert!(!was(&adopting, &VmStatus { run: None, unknown: false, ..status.clone() }));
    assert!(!was(&adopting, &VmStatus { run: Some(RunState::Off), ..status }));
    assert_eq!(reported(Some(RunState::Paused), true, None), Some(RunState::Paused));
    assert_eq!(reported(Some(RunState::Running), false, None), None);
}

#[test]
fn another_machine_of_this_nodes_name_is_another_holder() {
    let decide = |machine: &str, domain| {
        let mut case = Case::new(VmState::Start, "a", "a", domain);
        case.claim = Some(Stored::new(claim("a").on(machine, "boot"), Version(2)));
        case.decide()
    };
    for machine in ["m", ""] {
        assert_eq!(decide(machine, "absent").step, Step::Start);
        assert_eq!(decide(machine, "running").doing, "");
    }
    let decision = decide("other", "absent");
    assert_eq!(decision.step, Step::Wait);
    assert!(decision.doing.contains("another machine (id other)"), "{decision:?}");
    assert_eq!(decide("other", "running").step, Step::Wait, "the guest of its grant");
    assert_eq!(decide("other", "<running").step, Step::Destroy);
}

#[test]
fn the_latest_guest_that_another_node_reports_is_found() {
    let stray = |n, epoch| Stray { uuid: Uuid::from_u128(n), epoch: Epoch(epoch), paused: false };
    let reporting = |n, strays| node(n, 4).reporting(|report| report.strays = strays);
    let (a, b) = (reporting("a", vec![stray(1, 9)]), reporting("b", vec![stray(1, 4)]));
    let c = reporting("c", vec![stray(2, 7), stray(1, 5)]);
    let find = |view: &ClusterView, n| Elsewhere::find(view, &name("a"), &Uuid::from_u128(n), |_| true);
    let view = cluster(vec![a.clone(), b.clone(), c.clone()], vec![]);
    assert_eq!(find(&view, 1), Some(Elsewhere { node: name("c"), epoch: Epoch(5), alive: true, paused: false }));
    assert_eq!(find(&view, 3), None);
    let found = find(&cluster(vec![a, b, c.dead()], vec![]), 1);
    assert!(found.is_some_and(|found| !found.alive), "what a dead one said may be true still");
    // A paused one may be a copy of the one that executes, and is not followed; unless nothing is known of the VM.
    let copy = reporting("b", vec![Stray { paused: true, ..stray(1, 4) }]);
    let original = reporting("c", vec![stray(1, 4)]);
    let both = find(&cluster(vec![copy.clone(), original], vec![]), 1).unwrap();
    assert_eq!((both.node, both.paused), (name("c"), false));
    let paused = find(&cluster(vec![copy], vec![]), 1).unwrap();
    assert!(!paused.counts(&claim("a")) && Elsewhere { paused: false, ..paused.clone() }.counts(&claim("a")));
    assert!(paused.counts(&Claim::new(Epoch(0))) && paused.counts(&Claim { began: Epoch(6), ..Claim::new(Epoch(9)) }));
}

#[test]
fn a_guest_is_removed_as_an_earlier_vms_only_if_that_was_deleted() {
    use Step::*;
    use VmState as V;
    // The store began with epoch 5, and the VM was defined after others had come to 8.
    let fresh = Claim { began: Epoch(5), ..Claim::new(Epoch(8)) };
    let granted = |to: &str| fresh.granted_to(&name(to));
    let rows: Vec<(VmState, Claim, u64, &str, Step)> = vec![
        (V::Start, granted("a"), 6, "running", Destroy),
        (V::Start, fresh.clone(), 8, "running", Destroy),
        (V::Start, granted("a"), 6, "shutdown", Undefine),
        // Of a store that was lost: nobody ordered that it ends.
        (V::Stop, fresh.clone(), 5, "running", Adopt(V::Start)),
        (delete(), fresh.clone(), 5, "running", Wait),
        (V::Start, granted("b"), 5, "running", Wait),
        (V::Start, granted("b"), 2, "paused", Wait),
        (V::Stop, granted("a").released(), 2, "running", Wait),
        (V::Stop, granted("a"), 2, "running", Wait),
        (V::Start, fresh.adopting(Epoch(2), &name("a")), 2, "running", Remark),
    ];
    for (state, claim, mark, domain, step) in rows {
        let mut case = Case::new(state.clone(), "a", "-", domain);
        let Obs::Known(seen) = &mut case.domain else { panic!("{domain}") };
        seen.mark.epoch = Epoch(mark);
        let seen = *seen;
        case.claim = Some(Stored::new(claim.clone(), Version(2)));
        assert_eq!(case.decide().step, step, "{state:?}, {claim:?}, mark {mark}, {domain}");
        let left_alone = matches!(step, Wait | Adopt(_));
        assert_eq!(is_stray(Some(&claim), &name("a"), &seen), left_alone, "{state:?}, {claim:?}, mark {mark}");
    }
    // No second guest is started beside one of a lost store; the VM can be stopped, and its records deleted.
    let rows = [
        (V::Start, granted("a"), Wait),
        (V::Start, granted("a").released(), Wait),
        (V::Delete { disks: true }, granted("a"), Wait),
        (V::Stop, granted("a"), Release),
        (delete(), granted("a"), DeleteRecords),
        (delete(), fresh.clone(), DeleteRecords),
    ];
    for (state, claim, step) in rows {
        let mut case = Case { elsewhere: elsewhere(3, true), ..Case::new(state.clone(), "a", "-", "absent") };
        case.claim = Some(Stored::new(claim.clone(), Version(2)));
        assert_eq!(case.decide().step, step, "{state:?}, {claim:?}");
    }
}

#[test]
fn an_imported_domain_is_marked_and_then_adopted_or_removed() {
    use Step::*;
    let case = |state: VmState, on: &str, claim: Claim, domain: &str| {
        let mut case = Case::new(state, on, "-", domain);
        case.claim = Some(Stored::new(claim, Version(2)));
        if let Obs::Known(seen) = &mut case.domain {
            seen.mark = Mark::IMPORTED;
        }
        case
    };
    let fresh = Claim::new(Epoch(3));
    let (free, held) = (fresh.for_domain(Epoch(0)), fresh.adopting(Epoch(0), &name("a")));
    // Whatever is ordered meanwhile: nothing else can be done before.
    for state in [VmState::Start, VmState::Stop, shutdown(), delete()] {
        assert_eq!(case(state.clone(), "a", held.clone(), "unknown").decide().step, Import, "{state:?}");
        assert_eq!(case(state.clone(), "a", free.clone(), "unknown").decide().step, Import, "{state:?}");
    }
    // Only here, only for an import, and only once.
    assert_eq!(case(VmState::Stop, "b", free.clone(), "unknown").decide().step, Wait);
    assert_eq!(case(VmState::Start, "a", fresh.adopting(Epoch(2), &name("a")), "unknown").decide().step, Wait);
    assert_eq!(case(VmState::Start, "a", held.on("another machine", "b"), "unknown").decide().step, Wait);
    for claim in [&free, &held] {
        let mut known = case(VmState::Stop, "a", claim.clone(), "unknown");
        known.memory.imported = Some(claim.epoch);
        assert_eq!(known.decide().step, Wait);
    }
    // The guest of the grant.
    assert_eq!(case(VmState::Start, "a", held.clone(), "running").decide().step, Remark);
    assert_eq!(case(VmState::Start, "a", held.clone(), "paused").decide().step, Remark);
    assert_eq!(case(VmState::Start, "a", held, "shutdown").decide().step, Complete(VmState::Stop));
    // It was off when it was asked for, and may run by now.
    assert_eq!(case(VmState::Stop, "a", free.clone(), "shutdown").decide().step, Undefine);
    assert_eq!(case(VmState::Start, "a", free.clone(), "shutdown").decide().step, Undefine, "and then it is started");
    assert_eq!(case(VmState::Stop, "a", free.clone(), "running").decide().step, Adopt(VmState::Start));
    assert_eq!(case(VmState::Stop, "a", free.clone(), "paused").decide().step, Adopt(VmState::Start));
    // What is kept of it is here: it is not as a new VM.
    assert_eq!(case(VmState::Stop, "a", free.clone(), "absent").decide().step, Release);
    assert!(fresh.is_fresh() && !free.is_fresh() && !free.freed().is_fresh());
    assert_eq!(case(VmState::Stop, "a", free.freed(), "absent").decide().step, Wait);
    assert_eq!(case(VmState::Stop, "a", free.freed(), "unknown").decide().step, Wait);
}
