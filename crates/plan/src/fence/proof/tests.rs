use super::*;
use drover_model::testing::name;

fn at(seconds: u64) -> Mono {
    Mono(0).after(Duration::from_secs(seconds))
}

fn found(power: Option<PowerState>, presence: Presence, order: Option<Result<(), String>>) -> Found {
    let reading = power.map_or(Reading::None("mute".to_owned()), |power| Reading::Power("B".to_owned(), power));
    Found { reading, presence, order }
}

fn silent() -> Presence {
    Presence::Silent("c:7370".to_owned())
}

fn attempts(found: Found) -> Attempts {
    Attempts { boot: "b1".to_owned(), last: None, failed: 0 }.ended(at(10), found)
}

#[test]
fn what_was_found_about_another_boot_or_long_ago_is_looked_up_again() {
    let off = attempts(found(Some(PowerState::Off), silent(), None));
    let on = attempts(found(Some(PowerState::On), silent(), None));
    let decide = |attempts: Option<&Attempts>, boot: &str, now| next(&name("c"), boot, attempts, false, at(now));
    assert_eq!(decide(Some(&off), "b1", 14), Next::Proved("B reads off".to_owned()));
    assert_eq!(decide(Some(&on), "b1", 14), Next::Cut);
    for attempts in [&off, &on] {
        assert_eq!(decide(Some(attempts), "b1", 15), Next::Ask);
        assert_eq!(decide(Some(attempts), "b2", 11), Next::Ask);
        let under_way = Attempts { last: None, ..attempts.clone() };
        assert_eq!(decide(Some(&under_way), "b1", 900), Next::Await, "one at a time");
    }
    assert_eq!(decide(None, "b1", 11), Next::Ask);
}

#[test]
fn the_pause_grows_while_there_is_no_proof() {
    let mut attempts = attempts(found(None, silent(), None));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let Next::Unproved(_, again) = next(&name("c"), "b1", Some(&attempts), false, at(10)) else { panic!() };
        pauses.push(again.since(at(10)).as_secs());
        assert_eq!(next(&name("c"), "b1", Some(&attempts), false, again), Next::Ask);
        attempts = attempts.ended(at(10), found(None, silent(), None));
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    let many = Attempts { failed: u32::MAX, ..attempts };
    assert!(matches!(next(&name("c"), "b1", Some(&many), false, at(11)), Next::Unproved(_, again) if again == at(70)));
}

#[test]
fn power_is_not_cut_on_a_guess() {
    let unknown = || Presence::Unknown("the network of a is down".to_owned());
    let on = found(Some(PowerState::On), unknown(), None);
    assert_eq!(judge(&on), Verdict::None);
    let Next::Unproved(why, _) = next(&name("c"), "b1", Some(&attempts(on)), false, at(11)) else { panic!() };
    assert!(why.len() == 2 && why[1].ends_with("the network of a is down"), "{why:?}");
    // The BMC may be that of another machine, which would answer if the network were there.
    let off = found(Some(PowerState::Off), unknown(), None);
    assert_eq!(judge(&off), Verdict::None);
    let Next::Unproved(why, _) = next(&name("c"), "b1", Some(&attempts(off)), false, at(11)) else { panic!() };
    assert!(why[0].contains("reads off, which is no proof") && why.len() == 2, "{why:?}");
    let failed = found(Some(PowerState::On), silent(), Some(Err("it is busy".to_owned())));
    let Next::Unproved(why, _) = next(&name("c"), "b1", Some(&attempts(failed)), false, at(11)) else { panic!() };
    assert_eq!(why, ["B was ordered to cut the power and did not, and reads on: it is busy"]);
}

#[test]
fn what_was_found_is_told_in_words() {
    let found = |reading, presence, order| Found { reading, presence, order }.to_string();
    let (at, how) = ("c:7370".to_owned(), "it refuses connections".to_owned());
    let off = Reading::Power("B".to_owned(), PowerState::Off);
    let told = found(off, Presence::Silent(at.clone()), Some(Ok(())));
    assert_eq!(told, "B reads off; its machine does not answer at c:7370; it was ordered to cut the power");
    let told = found(Reading::None("B is mute".to_owned()), Presence::Answers(at, how), Some(Err("no".to_owned())));
    let says =
        "B is mute; its machine answers at c:7370 (it refuses connections); the order to cut the power failed: no";
    assert_eq!(told, says);
}
