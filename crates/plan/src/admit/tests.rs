//! What each order becomes in each state of a VM, and which are refused.

use super::*;
use drover_model::Epoch;
use drover_model::domain::Written;

const XML: &str = "<domain><name>vm</name><memory unit='MiB'>64</memory><vcpu>1</vcpu></domain>";

fn definition(xml: &str) -> Definition {
    Definition::parse(xml, Uuid::from_u128(1)).unwrap()
}

fn vm(state: VmState) -> VmRecord {
    VmRecord { state, ..define(&definition(XML), Some(NodeName::new("a").unwrap())) }
}

#[test]
fn commands_by_state() {
    use VmState::*;
    let down = |timeout_s, then| Shutdown { timeout_s, then };
    let again = Restart { timeout_s: 180 };
    let failed = Fail { reason: "x".to_owned() };
    let to = NodeName::new("b").unwrap();
    let away = Migrate { to, kind: drover_model::MoveKind::Move, how: drover_model::How::Live };
    for (state, given, wanted) in [
        (Stop, Command::Start { force: false }, Some(Start)),
        (Start, Command::Start { force: false }, Some(Start)),
        (down(180, AtRest::Stop), Command::Start { force: false }, Some(Start)),
        (again.clone(), Command::Start { force: false }, Some(again.clone())),
        (failed.clone(), Command::Start { force: false }, Some(Start)),
        (Start, Command::Shutdown(None), Some(down(180, AtRest::Stop))),
        (down(180, AtRest::Stop), Command::Shutdown(Some(5)), Some(down(5, AtRest::Stop))),
        (Stop, Command::Shutdown(None), Some(Stop)),
        (failed.clone(), Command::Shutdown(None), None),
        (Start, Command::Shutdown(Some(0)), None),
        (Start, Command::Shutdown(Some(SHUTDOWN_TIMEOUT_MAX_S + 1)), None),
        (Start, Command::Restart(None), Some(again.clone())),
        (Stop, Command::Restart(None), None),
        (again, Command::Stop, Some(Stop)),
        (Disable, Command::Stop, Some(Stop)),
        (Start, Command::Disable { force: false }, Some(down(180, AtRest::Disable))),
        (Start, Command::Disable { force: true }, Some(Disable)),
        (failed, Command::Disable { force: false }, Some(Disable)),
        (Delete { disks: false }, Command::Start { force: false }, None),
        (away.clone(), Command::CancelMove, Some(Start)),
        (away, Command::Restart(None), None),
        (Start, Command::CancelMove, None),
        (Stop, Command::CancelMove, None),
    ] {
        let got = command(&vm(state.clone()), &Guest::default(), given).map(|r| r.state);
        assert_eq!(got.clone().ok(), wanted, "{state:?} {given:?}: {got:?}");
    }
    let homeless = VmRecord { node: None, ..vm(Stop) };
    assert_eq!(
        command(&homeless, &Guest::default(), Command::Start { force: false }),
        Err(Refusal::NoNode(homeless.name.clone()))
    );
}

#[test]
fn commands_by_what_the_guest_can_hear() {
    use Command as C;
    let guest = |by: PausedBy| Guest { run: Some(RunState::Paused), paused: Some(by.into()), ..Guest::default() };
    let runs = Guest { run: Some(RunState::Running), ..Guest::default() };
    let paused = guest(PausedBy::Administrator);
    let again = VmState::Restart { timeout_s: 180 };
    // A refusal names the reason and the way on.
    for (state, guest, given, wanted) in [
        (VmState::Start, runs.clone(), C::Pause, Ok(VmState::Pause)),
        (VmState::Start, Guest { sent: true, ..runs.clone() }, C::Pause, Err("on its way")),
        (VmState::Start, Guest::default(), C::Pause, Err("does not run")),
        (VmState::Stop, Guest::default(), C::Pause, Err("needs it to be running")),
        (VmState::Start, paused.clone(), C::Pause, Ok(VmState::Start)),
        (VmState::Start, guest(PausedBy::IoError), C::Pause, Err("an I/O error")),
        (VmState::Pause, runs.clone(), C::Resume, Ok(VmState::Resume)),
        (VmState::Start, runs.clone(), C::Resume, Ok(VmState::Start)),
        (VmState::Start, Guest::default(), C::Resume, Err("in memory")),
        (VmState::Start, paused.clone(), C::Resume, Ok(VmState::Resume)),
        (VmState::Start, paused.clone(), C::Start { force: false }, Ok(VmState::Resume)),
        (VmState::Pause, runs.clone(), C::Start { force: false }, Ok(VmState::Resume)),
        (VmState::Start, guest(PausedBy::IoError), C::Start { force: false }, Ok(VmState::Resume)),
        (VmState::Start, guest(PausedBy::Asleep), C::Start { force: false }, Ok(VmState::Resume)),
        (VmState::Start, guest(PausedBy::Crashed), C::Start { force: false }, Err("'drover vm stop vm'")),
        (VmState::Start, guest(PausedBy::Busy), C::Start { force: false }, Ok(VmState::Start)),
        (VmState::Start, paused.clone(), C::Shutdown(None), Err("'drover vm resume vm'")),
        (VmState::Start, guest(PausedBy::Asleep), C::Restart(None), Err("'drover vm start vm' wakes")),
        (VmState::Start, guest(PausedBy::Crashed), C::Disable { force: false }, Err("has crashed")),
        (VmState::Start, guest(PausedBy::Crashed), C::Disable { force: true }, Ok(VmState::Disable)),
        (VmState::Start, paused.clone(), C::Stop, Ok(VmState::Stop)),
        (VmState::Start, guest(PausedBy::Busy), C::Restart(None), Ok(again)),
    ] {
        let got = command(&vm(state.clone()), &guest, given).map(|r| r.state);
        match (&got, &wanted) {
            (Err(refusal), Err(why)) => assert!(refusal.to_string().contains(why), "{refusal}"),
            (Ok(state), Ok(wanted)) => assert_eq!(state, wanted, "{state:?} {given:?}"),
            _ => panic!("{state:?} {guest:?} {given:?}: {got:?}"),
        }
    }
    let by_itself = VmMeta { resume_after_io_error: true, ..VmMeta::default() };
    let resumed = VmRecord { meta: by_itself, ..vm(VmState::Start) };
    let refusal = command(&resumed, &guest(PausedBy::IoError), C::Pause).unwrap_err().to_string();
    assert!(refusal.contains("'drover vm meta vm --no-resume-after-io-error'"), "{refusal}");
    let xml = XML.replace("64", "128");
    assert!(modify(&vm(VmState::Start), &paused, &definition(&xml), true).is_err());
    assert!(modify(&vm(VmState::Start), &paused, &definition(&xml), false).is_ok());
}

#[test]
fn nothing_starts_with_older_data_unless_it_is_forced() {
    use VmState::*;
    let disk = |path: &str| Written::from([("vda".to_owned(), path.to_owned())]);
    let guest = |of| Guest {
        replaced: Replaced::between(Epoch(of), &disk("/a"), &disk("/s")),
        epoch: Epoch(4),
        ..Guest::default()
    };
    let with = |path: &str| {
        let disk = format!("<devices><disk><source file='{path}'/><target dev='vda'/></disk></devices>");
        XML.replace("</domain>", &format!("{disk}</domain>"))
    };
    let vm = |state| VmRecord { xml: with("/a"), ..vm(state) };
    let start = |force| Command::Start { force };
    let failed = Fail { reason: String::new() };
    for (state, order, done) in [
        (Stop, start(false), Err(())),
        (Disable, start(false), Err(())),
        (failed.clone(), start(false), Err(())),
        (failed, start(true), Ok(Some(Epoch(4)))),
        (Stop, start(true), Ok(Some(Epoch(4)))),
        (Start, Command::Restart(None), Err(())),
        // The guest goes on, if it has not gone off by then.
        (Shutdown { timeout_s: 9, then: AtRest::Stop }, start(false), Ok(None)),
        (Start, Command::Shutdown(None), Ok(None)),
        (Start, Command::Stop, Ok(None)),
    ] {
        let got = command(&vm(state.clone()), &guest(3), order);
        assert_eq!(got.clone().map(|vm| vm.older_disks).map_err(|_| ()), done, "{state:?} {order:?}: {got:?}");
    }
    // Once, for the guests up to then.
    let forced = command(&vm(Stop), &guest(3), start(true)).unwrap();
    let stopped = VmRecord { state: Stop, ..forced };
    assert!(command(&stopped, &guest(4), start(false)).is_ok());
    let refused = command(&stopped, &guest(5), start(false)).unwrap_err().to_string();
    assert!(refused.contains("disk vda is /s, and the definition has /a"), "{refused}");
    // There is nothing to accept.
    let forced = command(&vm(Stop), &Guest::default(), start(true)).unwrap();
    assert_eq!(forced.older_disks, None);
    for (path, restarts) in [("/a", false), ("/s", true), ("/other", true)] {
        let new = definition(&with(path));
        assert_eq!(modify(&vm(Start), &guest(3), &new, true).is_ok(), restarts, "{path}");
        assert!(modify(&vm(Start), &guest(3), &new, false).is_ok(), "{path}");
    }
}

#[test]
fn only_a_report_under_the_present_claim_tells_of_the_guest() {
    let (a, at) = (NodeName::new("a").unwrap(), drover_model::WallTime(0));
    let claim = Claim::new(Epoch(0)).granted_to(&a);
    let report = VmStatus { run: Some(RunState::Paused), ..VmStatus::new(a.clone(), claim.epoch, at) };
    assert_eq!(Guest::of(&claim, Some(&report)).paused, Some(Paused::default()));
    let next = claim.granted_to(&a);
    assert_eq!(Guest::of(&next, Some(&report)), Guest { epoch: next.epoch, ..Guest::default() });
    let unknown = VmStatus { unknown: true, ..report };
    assert_eq!(Guest::of(&claim, Some(&unknown)), Guest { epoch: claim.epoch, ..Guest::default() });
}

#[test]
fn a_new_definition_keeps_the_identity_and_counts() {
    let xml = XML.replace("64", "128");
    let running = vm(VmState::Start);
    let new = modify(&running, &Guest::default(), &definition(&xml), false).unwrap();
    assert_eq!((new.generation, &new.state, &new.xml), (Generation(2), &VmState::Start, &definition(&xml).xml));
    let same = modify(&running, &Guest::default(), &definition(XML), true).unwrap();
    assert_eq!((same.generation, same.state.word()), (Generation(1), "restart"));
    assert_eq!(modify(&vm(VmState::Stop), &Guest::default(), &definition(&xml), true).unwrap().state, VmState::Stop);
    for other in [
        XML.replace(">vm<", ">other<"),
        XML.replace("<memory", "<uuid>0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d</uuid><memory"),
    ] {
        assert!(matches!(
            modify(&running, &Guest::default(), &definition(&other), false),
            Err(Refusal::Identity { .. })
        ));
    }
}

#[test]
fn only_a_vm_that_is_off_and_released_is_renamed() {
    let renamed = definition(XML).renamed(&VmName::new("new").unwrap()).unwrap();
    let free = Claim::new(Epoch(0));
    let held = free.granted_to(&NodeName::new("a").unwrap());
    assert_eq!(rename(&vm(VmState::Stop), &free, &renamed).unwrap().name.as_str(), "new");
    for form in ["0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", "0F6A1D2C5B7E4A3F9C8D1E2F3A4B5C6D"] {
        let form = definition(XML).renamed(&VmName::new(form).unwrap()).unwrap();
        assert!(matches!(rename(&vm(VmState::Stop), &free, &form), Err(Refusal::NameIsUuid(_))));
    }
    assert!(rename(&vm(VmState::Stop), &held, &renamed).is_err());
    assert!(rename(&vm(VmState::Start), &free, &renamed).is_err());
}

#[test]
fn deleting_waits_for_whoever_may_have_something_of_the_vm() {
    let free = Claim::new(Epoch(0));
    let held = free.granted_to(&NodeName::new("a").unwrap());
    assert_eq!(delete(&vm(VmState::Stop), &free, false), Ok(Deletion::Now));
    for (claim, disks) in [(&held, false), (&free, true), (&held, true)] {
        let Ok(Deletion::ByNode(record)) = delete(&vm(VmState::Stop), claim, disks) else { panic!("{claim:?}") };
        assert_eq!(record.state, VmState::Delete { disks });
    }
}
