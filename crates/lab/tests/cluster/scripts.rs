//! What scripts rely on: a command that succeeds prints one JSON document, and the options that mean "this node".

use crate::support::Cluster;
use drover_lab::Domain;
use std::fs;

#[test]
fn every_command_that_succeeds_prints_one_json_document() {
    let cluster = Cluster::up(2);
    for (file, memory) in [("small.xml", 96), ("large.xml", 128)] {
        let xml = Domain { memory, ..Domain::new("web") }.xml(&cluster.lab.guest());
        fs::write(cluster.lab.shared().join(file), xml).unwrap();
    }
    for command in [
        "vm define /srv/shared/small.xml --node hv1 --start --wait",
        "status",
        "vm list",
        "vm info web",
        "vm explain web",
        "vm dump web",
        "vm meta web --priority 3",
        "vm pause web --wait",
        "vm resume web --wait",
        "vm migrate web --wait",
        "vm unmigrate web --wait",
        "vm move web --to hv2 --wait",
        "vm shutdown web --wait",
        "vm modify web /srv/shared/large.xml --yes",
        "vm start web --wait",
        "vm restart web --wait",
        "vm stop web --yes --wait",
        "vm rename web new",
        "vm disable new --wait",
        "vm start new --wait",
        "node list",
        "node info hv2",
        "node flush hv2 --plan",
        "node flush hv2 --wait",
        "node ready hv2 --wait",
        "vm undefine new --yes",
        "fault list",
        "token list",
        "token create x",
        "token revoke x --yes",
        "config show",
        "config set --moves 4",
        "cluster maintenance on --for 2h",
        "cluster maintenance off",
    ] {
        // A guest hears its power button only when it has booted, and one that QEMU emulates may not survive a move
        // while its kernel measures the speed of its clocks. It boots once on each node.
        if command.starts_with("vm pause") {
            cluster.console_until("hv1", "web", "HB ");
        } else if command.starts_with("vm restart") {
            cluster.console_until("hv2", "web", "BOOTED");
        }
        // It fails on anything beside one document.
        cluster.json("hv1", &command.split(' ').collect::<Vec<_>>());
    }
}

#[test]
fn is_primary_without_a_name_means_the_node_that_answers() {
    let cluster = Cluster::up(2);
    let primary = cluster.json("hv1", &["status"])["primary_node"].as_str().unwrap_or_default().to_owned();
    assert!(["hv1", "hv2"].contains(&primary.as_str()), "{primary:?}");
    for node in ["hv1", "hv2"] {
        let result = cluster.try_drover(node, &["node", "is-primary"]);
        assert_eq!(result.code == 0, node == primary, "{node}: {result:?}");
    }
}
