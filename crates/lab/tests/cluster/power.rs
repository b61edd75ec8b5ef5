//! BMCs: what a node's daemon says about its own, who knows the password, and that it really cuts the node's power.

use crate::support::{Cluster, TIMEOUT};
use drover_lab::{BMC_PASSWORD, BMC_USER, Lab, Service};
use std::{fs, process::Command};

/// A password that the BMC refuses.
const WRONG: &str = "lab-wr0ng-s3cret";

fn restart(cluster: &Cluster, node: &str) {
    cluster.node(node).stop(Service::Drover).unwrap();
    cluster.node(node).start_drover().unwrap();
}

fn set_password(cluster: &Cluster, node: &str, password: &str) {
    let script = format!("umask 077; echo {password} > /etc/drover/bmc.password");
    cluster.node(node).exec(&["sh", "-c", &script]).unwrap();
}

/// Waits until the cluster's health has a message, or has it no more.
fn health_until(cluster: &Cluster, id: &str, there: bool) -> String {
    let messages = || {
        let status = cluster.json("hv1", &["status"]);
        let messages = status["cluster_health"]["messages"].as_array().unwrap().clone();
        let found = messages.iter().find(|message| message["id"] == id).map(|message| message["text"].to_string());
        (found.is_some() == there).then(|| found.unwrap_or_default())
    };
    Lab::until(&format!("health has the message {id}: {there}"), TIMEOUT, messages)
        .unwrap_or_else(|e| panic!("{e}\n{}\n{}", cluster.drover("hv1", &["-f", "json", "status"]), cluster.logs()))
}

/// The arguments of all processes of the machine.
fn arguments() -> String {
    let output = Command::new("ps").args(["-eo", "args", "-ww"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_bmc_is_checked_by_its_node_and_its_password_is_seen_nowhere() {
    let cluster = Cluster::up(3);
    let hv3 = cluster.node("hv3");
    hv3.start_bmc().unwrap();
    let fence = format!(
        "\n[fence.ipmi]\naddress = \"{}\"\nuser = \"{BMC_USER}\"\npassword_file = \"/etc/drover/bmc.password\"\n",
        hv3.bmc_address()
    );
    let file = hv3.folder().join("etc/drover/drover.toml");
    let old = fs::read_to_string(&file).unwrap();
    fs::write(&file, old + &fence).unwrap();
    set_password(&cluster, "hv3", BMC_PASSWORD);
    let check = hv3.output(&["droverd", "--check"]).unwrap();
    let says = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(!check.status.success() && says.contains("droverd --new-cluster-key"), "{says}");
    hv3.exec(&["droverd", "--new-cluster-key"]).unwrap();
    restart(&cluster, "hv3");

    let good = |node: &serde_json::Value| node["bmc"]["checked"].as_u64() > Some(0) && node["bmc"]["problem"] == "";
    let info = cluster.node_until("hv1", "hv3", "its BMC answers", good);
    assert_eq!(info["bmc"]["what"], format!("IPMI {}", hv3.bmc_address()));
    assert!(cluster.drover("hv1", &["node", "info", "hv3"]).contains("Power control"));

    // The others have no key yet: they could not use what they read.
    let text = health_until(&cluster, "cluster-key-hv2", true);
    assert!(text.contains("coordinator hv2 cannot read the BMC data of hv3"), "{text}");
    let key = hv3.exec(&["cat", "/etc/drover/cluster.key"]).unwrap();
    let give = format!("umask 077; echo {} > /etc/drover/cluster.key", key.trim());
    cluster.node("hv2").exec(&["sh", "-c", &give]).unwrap();
    restart(&cluster, "hv2");
    health_until(&cluster, "cluster-key-hv2", false);

    // A wrong password.
    set_password(&cluster, "hv3", WRONG);
    restart(&cluster, "hv3");
    let text = health_until(&cluster, "bmc-hv3", true);
    assert!(text.contains("refuses the user or the password"), "{text}");

    // Neither password nor the key is in any log, answer, argument or record.
    let mut seen = arguments();
    for node in cluster.lab.nodes() {
        seen += &node.exec(&["cat", "/var/log/drover/droverd.log", "/var/log/droverd.out"]).unwrap();
        seen += &cluster.drover(node.name(), &["-f", "json", "node", "info", "hv3"]);
    }
    seen += &cluster.drover("hv1", &["-f", "json", "status"]);
    assert!(seen.contains("refuses the user or the password"), "the search sees the log");
    for secret in [BMC_PASSWORD, WRONG, key.trim()] {
        assert!(!seen.contains(secret), "{secret} is shown");
        let found = cluster.node("hv1").output(&["grep", "-rqaF", secret, "/var/lib/zookeeper"]).unwrap();
        assert_eq!(found.status.code(), Some(1), "{secret} is in the store");
    }

    set_password(&cluster, "hv3", BMC_PASSWORD);
    restart(&cluster, "hv3");
    health_until(&cluster, "bmc-hv3", false);
}

#[test]
fn a_bmc_cuts_and_restores_the_power_of_its_node() {
    let cluster = Cluster::up(3);
    let hv3 = cluster.node("hv3");
    hv3.start_bmc().unwrap();
    assert_eq!(hv3.bmc("status").unwrap(), "Chassis Power is on");
    hv3.bmc("off").unwrap();
    Lab::until("hv3 is off", TIMEOUT, || (!hv3.is_on()).then_some(())).unwrap();
    assert_eq!(hv3.bmc("status").unwrap(), "Chassis Power is off");
    cluster.daemon_until("hv1", "hv3", "dead");
    // Already off.
    hv3.bmc("off").unwrap();
    hv3.bmc("on").unwrap();
    cluster.daemon_until("hv1", "hv3", "run");
    assert_eq!(hv3.bmc("status").unwrap(), "Chassis Power is on");
    hv3.stop_bmc().unwrap();
    assert!(hv3.bmc("status").is_err());
}
