//! IPMI: ipmitool against OpenIPMI's simulator (2.0.33 in Debian 12), which has cipher suite 3 and refuses 17.

use drover_drivers::power::{CALL_TIMEOUT, Power, PowerControl, PowerError};
use drover_model::{Bmc, BmcAccess, PowerState, Secret};
use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

struct Simulator {
    folder: TempDir,
    process: Child,
    port: u16,
}

impl Simulator {
    fn start() -> Simulator {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let at = folder.path().display();
        let chassis = format!(
            "#!/bin/sh\ncd {at}\necho \"$2 $3 $4\" >> calls\ncase $2:$3 in\nget:power) echo power:$(cat power);;\n\
             set:power) (sleep 0.5; echo $4 > power) > /dev/null 2>&1 & ;;\nget:boot) echo boot:default;;\nesac\n"
        );
        let script = folder.path().join("chassis");
        fs::write(&script, chassis).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("power"), "1\n").unwrap();
        let auths: String = ["callback", "user", "operator", "admin"]
            .iter()
            .map(|role| format!("    allowed_auths_{role} none md2 md5 straight\n"))
            .collect();
        let lan = format!(
            "name \"hv1\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n\
             {auths}    guid a123456789abcdefa123456789000001\n  endlan\n  chassis_control \"{at}/chassis hv1\"\n  \
             user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  user 2 true \"operator\" \"s3cret\" operator \
             10 none md2 md5 straight\n"
        );
        fs::write(folder.path().join("lan"), lan).unwrap();
        let machine =
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n";
        fs::write(folder.path().join("emu"), machine).unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let path = |name: &str| folder.path().join(name);
        let process = Command::new("ipmi_sim")
            .args(["-n", "-c"])
            .arg(path("lan"))
            .arg("-f")
            .arg(path("emu"))
            .arg("-s")
            .arg(path("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ipmi_sim, of the package openipmi");
        let simulator = Simulator { folder, process, port };
        wait("the simulator listens", || UdpSocket::bind(("127.0.0.1", port)).is_err());
        simulator
    }

    fn bmc(&self, password: &str) -> Bmc {
        bmc(self.port, "operator", password)
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn bmc(port: u16, user: &str, password: &str) -> Bmc {
    let access = BmcAccess::Ipmi { address: "127.0.0.1".to_owned(), port, user: user.to_owned() };
    Bmc { access, password: Some(Secret::new(password.to_owned())) }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn until(power: &PowerControl, bmc: &Bmc, wanted: PowerState) {
    let end = Instant::now() + Duration::from_secs(10);
    while power.state(bmc).await != Ok(wanted) {
        assert!(Instant::now() < end, "the power does not become {wanted}");
    }
}

#[tokio::test]
async fn power_is_read_cut_and_restored() {
    let simulator = Simulator::start();
    let (power, bmc) = (PowerControl::default(), simulator.bmc("s3cret"));
    assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
    power.off(&bmc).await.unwrap();
    until(&power, &bmc, PowerState::Off).await;
    // Already off.
    power.off(&bmc).await.unwrap();
    power.on(&bmc).await.unwrap();
    until(&power, &bmc, PowerState::On).await;
    let calls = simulator.calls();
    assert!(calls.contains("set power 0") && calls.contains("set power 1"), "{calls}");
}

#[tokio::test]
async fn the_cipher_suite_that_worked_is_remembered() {
    let simulator = Simulator::start();
    let (power, bmc) = (PowerControl::default(), simulator.bmc("s3cret"));
    assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
    let known = format!("{power:?}");
    assert!(known.contains("\"3\"") && !known.contains("17"), "{known}");
}

#[tokio::test]
async fn refusals_and_silence_are_told_apart() {
    let simulator = Simulator::start();
    let power = PowerControl::default();
    for refused in [simulator.bmc("wrong"), bmc(simulator.port, "nobody", "s3cret")] {
        let error = power.state(&refused).await.unwrap_err();
        assert!(matches!(error, PowerError::Credentials { .. }), "{error:?}");
        assert!(!error.to_string().contains("s3cret") && !error.to_string().contains("wrong"), "{error}");
    }
    let start = Instant::now();
    let error = power.off(&bmc(free_port(), "operator", "s3cret")).await.unwrap_err();
    assert!(matches!(error, PowerError::Unreachable { .. }), "{error:?}");
    assert!(start.elapsed() < CALL_TIMEOUT, "{:?}", start.elapsed());
    assert!(!simulator.calls().contains("set"), "{}", simulator.calls());
}
