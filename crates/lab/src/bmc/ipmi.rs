//! A BMC that speaks IPMI: OpenIPMI's `ipmi_sim`. Its chassis control cuts and restores the node's power.

use super::{BMC_PASSWORD, BMC_USER};
use crate::{
    node::Node,
    process,
    tools::{Attempt, Result, find, run},
};
use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Duration,
};

/// Description of the simulated controller (`ipmi_sim`'s emulator commands).
const EMULATOR: &str =
    "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n";

impl Node<'_> {
    /// Starts the node's BMC for IPMI, and waits until it answers. It is taken down with the lab.
    ///
    /// # Errors
    /// If `ipmi_sim` (package `openipmi`) or `ipmitool` is missing, or a step fails.
    pub fn start_bmc(&self) -> Result<()> {
        let failed = || format!("{}: cannot start the BMC", self.name());
        let (folder, address) = (self.bmc_folder(), self.bmc_address());
        fs::create_dir_all(folder.join("state")).attempt(failed)?;
        let program = fs::canonicalize(self.lab().folder().join("programs/drover-lab")).attempt(failed)?;
        // ipmi_sim calls it with the name, `get` or `set`, what, and the value. It waits for it; a real BMC answers
        // before the power is gone, so the work is done behind.
        let script = format!(
            "#!/bin/sh\nlab() {{ setsid {program} --dir {lab} power $1 {name} </dev/null >>{log} 2>&1 & }}\n\
             case $2:$3:$4 in\nget:power:*) if read -r pid start 2>/dev/null <{power} && kill -0 \"$pid\" 2>/dev/null; \
             then echo power:1; else echo power:0; fi;;\nset:power:0) lab off;;\nset:power:1) lab on;;\n\
             set:reset:*) lab cycle;;\nget:boot:*) echo boot:default;;\nesac\n",
            program = program.display(),
            lab = self.lab().folder().display(),
            name = self.name(),
            log = folder.join("chassis.log").display(),
            power = self.power_file().display(),
        );
        let chassis = folder.join("chassis");
        fs::write(&chassis, script).attempt(failed)?;
        fs::set_permissions(&chassis, Permissions::from_mode(0o755)).attempt(failed)?;
        let allowed: String = ["callback", "user", "operator", "admin"]
            .iter()
            .map(|role| format!("    allowed_auths_{role} none md2 md5 straight\n"))
            .collect();
        let network = format!(
            "name \"{name}\"\nset_working_mc 0x20\n  startlan 1\n    addr {address} 623\n    priv_limit admin\n\
             {allowed}    guid a123456789abcdefa12345678900000{index}\n  endlan\n  chassis_control \"{chassis} \
             {name}\"\n  user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  user 2 true \"{BMC_USER}\" \
             \"{BMC_PASSWORD}\" operator 10 none md2 md5 straight\n",
            name = self.name(),
            index = self.index(),
            chassis = chassis.display(),
        );
        fs::write(folder.join("lan"), network).attempt(failed)?;
        fs::write(folder.join("emu"), EMULATOR).attempt(failed)?;
        let switch = self.lab().fabric().netns("switch");
        self.plug_bmc()?;
        let log = File::create(folder.join("log")).attempt(failed)?;
        let started = Command::new("setsid")
            .args(["--fork", "nsenter", &format!("--net=/run/netns/{switch}")])
            .arg(find("ipmi_sim").unwrap_or_else(|| "ipmi_sim".into()))
            .arg("-c")
            .arg(folder.join("lan"))
            .arg("-f")
            .arg(folder.join("emu"))
            .arg("-s")
            .arg(folder.join("state"))
            .arg("-n")
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env(process::MARK, self.bmc_mark())
            .stdin(Stdio::null())
            .stdout(log.try_clone().attempt(failed)?)
            .stderr(log)
            .status();
        started.attempt(failed)?;
        let what = format!("{}: its BMC does not answer; see {}", self.name(), folder.join("log").display());
        crate::Lab::until(&what, Duration::from_secs(20), || self.bmc("status").ok()).map(|_| ())
    }

    /// What the node's BMC for IPMI says to `chassis power` and this word, asked from the switch.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub fn bmc(&self, action: &str) -> Result<String> {
        let switch = format!("--net=/run/netns/{}", self.lab().fabric().netns("switch"));
        let password = format!("IPMI_PASSWORD={BMC_PASSWORD}");
        let address = self.bmc_address();
        let ask = ["nsenter", &switch, "env", &password, "ipmitool", "-I", "lanplus", "-H", &address, "-U", BMC_USER];
        let ask = [&ask[..], &["-E", "-L", "OPERATOR", "-C", "3", "-N", "1", "-R", "2", "chassis", "power", action]];
        run(&ask.concat()).map(|said| said.trim().to_owned())
    }
}
