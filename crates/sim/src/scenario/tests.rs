//! Scenarios fail when what they expect does not hold, and lines that are wrong are refused.
#![allow(clippy::unwrap_used, reason = "tests end by panicking")]

use super::play;

const CUT: &str = "nodes hv1 hv2 hv3\nvm web on hv3\nat 5s power off hv3\n";

fn failures(text: &str) -> Vec<String> {
    play("t", text).unwrap().failures
}

#[test]
fn what_does_not_hold_is_told_with_its_line_once() {
    let of = |expected: &str| failures(&format!("{CUT}expect {expected}\nend 20s\n"));
    assert_eq!(of("within 10s: web runs on hv1 or hv2"), Vec::<String>::new());
    for (expected, at) in [
        ("within 2s: web runs on hv1 or hv2", "7.0"),
        ("within 10s: web runs on hv3", "5.0"),
        ("always: web runs", "5.0"),
        ("until 4s: web runs nowhere", "0.0"),
        ("from 10s: hv3 is on", "10.0"),
        ("from 2s until 8s: web runs", "5.0"),
        ("from 6s until 19s: web runs nowhere", "10.2"),
        ("never: hv2 hv3 were fenced", "10.1"),
        ("finally: hv3 is ready", "20.0"),
        ("within 15s: fault fence-held is raised", "20.0"),
    ] {
        let wrong = of(expected);
        if expected == "within 10s: web runs on hv3" {
            // It runs there until the very moment of the command.
            assert_eq!(wrong.len(), 1, "{expected}");
            continue;
        }
        assert_eq!(wrong, [format!("line 4: after {at} s this does not hold: expect {expected}")]);
    }
}

#[test]
fn an_order_is_refused_if_and_only_if_that_is_said() {
    let of = |order: &str| failures(&format!("nodes hv1 hv2 hv3\nvm web on hv3\nat 5s {order}\nend 10s\n"));
    assert_eq!(of("refused confirm-off hv3"), Vec::<String>::new());
    assert!(of("confirm-off hv3")[0].contains("'confirm-off hv3' is refused: "));
    assert_eq!(of("refused shutdown web"), ["after 5.1 s: 'shutdown web' is not refused"]);
    assert_eq!(of("thaw hv2"), Vec::<String>::new());
    assert_eq!(
        failures("nodes hv1 hv2\nat 5s power off hv2\nat 6s freeze hv2\nend 9s\n"),
        ["after 6.0 s: freeze hv2: no daemon of hv2 runs"]
    );
}

#[test]
fn the_invariants_are_checked_whatever_is_expected() {
    let lies = "nodes hv1 hv2\nnodes hv3, bmc lies-off\nvm web on hv3\nat 5s cut off hv3\n";
    let found = failures(&format!("{lies}expect finally: hv1 is on\nend 30s\n"));
    assert!(found.len() == 1 && found[0].contains("VM web runs on hv3, but the claim is hv1's"), "{found:?}");
    assert_eq!(failures(&format!("{lies}expect violation: VM web runs on\nend 30s\n")), Vec::<String>::new());
    let none = failures(&format!("{CUT}expect violation: VM web runs on\nend 30s\n"));
    assert_eq!(none, ["nothing is violated, and this was expected: VM web runs on"]);
}

#[test]
fn a_wrong_line_is_refused_with_its_place_and_what_is_accepted() {
    let nodes = "# A title.\nnodes hv1 hv2\nvm web on hv1\n";
    for (line, says) in [
        ("power off hv1", "t:4: \"power\" begins no line; accepted are node, nodes, vm"),
        ("node hv1", "t:4: hv1 is there already"),
        ("node hv3, 3 apples", "t:4: a node is not \"3 apples\"; accepted are 16 GiB"),
        ("node hv3, bmc drunk", "t:4: a BMC is not \"drunk\"; accepted are ok, dead, "),
        ("vm db on hv7", "t:4: \"hv7\" is not a node; there are hv1, hv2"),
        ("vm db, huge", "t:4: a VM is not \"huge\"; accepted are 1 GiB"),
        ("vm", "t:4: which VM?"),
        ("set colour blue", "t:4: \"colour blue\" is not a setting with its value; accepted are after-proof"),
        ("at 10 power off hv1", "t:4: \"10\" is not a time; accepted are times as 10s"),
        ("at 0.05s power off hv1", "t:4: \"0.05s\" is not a time"),
        ("at 10s explode hv1", "t:4: \"explode hv1\" is not a command; accepted are power off|on NODE"),
        ("at 10s power off", "t:4: which node?"),
        ("at 10s policy hv1 power-on perhaps", "t:4: \"power-on perhaps\" is not a policy with its value"),
        ("at 10s policy hv1 on-return flush", "t:4: \"on-return flush\" is not a policy with its value"),
        ("at 10s policy hv7 power-on true", "t:4: \"hv7\" is not a node; there are hv1, hv2"),
        ("at 10s start mail", "t:4: \"mail\" is not a VM; there are web"),
        ("at 10s flush hv1\nat 5s ready hv1", "t:5: the command before is later"),
        ("expect web runs", "t:4: \"web runs\" does not say when; accepted are within TIME:, "),
        ("expect soon: web runs", "t:4: \"soon: web runs\" does not say when"),
        ("expect always: web sings", "t:4: \"web sings\" cannot be expected; accepted are NODE is on"),
        ("expect always: hv1 runs", "t:4: \"hv1\" is not a VM; there are web"),
        ("expect within 99s: web runs", "t:4: that is after the end, which is at 50 s"),
        ("end 40s", "t:5: 'end' is the last line"),
        ("at 60s flush hv1", "t: a scenario has nodes, and ends after its last command"),
    ] {
        let why = play("t", &format!("{nodes}{line}\nend 50s\n")).unwrap_err();
        assert!(why.starts_with(says), "{line}: {why}");
    }
    assert!(play("t", nodes).unwrap_err().starts_with("t: there is no end; accepted is"));
}
