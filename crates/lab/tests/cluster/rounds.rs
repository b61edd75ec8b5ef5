//! Two rounds of random faults, so that their machinery is tested; `make rounds` runs more.

use drover_lab::{Lab, Rounds, Spec};
use std::{path::Path, sync::Mutex};

#[test]
fn a_cluster_survives_two_rounds_of_random_faults() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_drover-lab"));
    let lab = Lab::up(folder.path(), Spec::cluster(3), program, &|_| ()).unwrap();
    let said = Mutex::new(Vec::new());
    let say = |line: &str| said.lock().unwrap().push(line.to_owned());
    // guest3 moves from hv3 to hv2, which loses its power; then hv2 becomes the primary, while hv3 is cut off from the
    // store and droverd of hv2 is restarted.
    let rounds = Rounds { seed: 1159, first: 1, count: 2, guests: 3 };
    let report = lab.rounds(rounds, &say);
    let said = said.into_inner().unwrap().join("\n");
    println!("{said}");
    let report = report.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert_eq!(report.recovery.len(), 2);
    assert!(said.contains("hv2 loses its power"), "{said}");
    assert!(said.contains("round 2: all is as it was"), "{said}");
}
