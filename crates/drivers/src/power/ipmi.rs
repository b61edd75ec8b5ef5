//! IPMI 2.0 over LAN, through `ipmitool` (1.8.19 in Debian 12).
//!
//! * The password is in its environment (`-E`, `IPMI_PASSWORD`), which only root reads; a program's arguments are seen
//!   by all.
//! * Cipher suites: 17 (SHA-256), and 3 (SHA-1) for BMCs that refuse it. Which one worked is remembered. Without `-C`
//!   ipmitool asks the BMC for its suites, which some answer only after ten seconds of retries.
//! * Privilege: operator (`-L`), which is what power control needs; so the user need not be an administrator.
//! * A user or password that is refused, and a BMC that is not there, end alike (`Unable to establish IPMI v2 / RMCP+
//!   session`); only with `-v` it says why. It prints keys only from `-vvv` on.
//! * `chassis power off` ends when the BMC accepted it, while the power is still on.

use super::{CALL_TIMEOUT, PowerError, run, words};
use drover_model::{Bmc, PowerState};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Where Debian has it.
const IPMITOOL: &str = "/usr/bin/ipmitool";
/// The cipher suites that are tried, best first.
const SUITES: [&str; 2] = ["17", "3"];
/// Maximum length of a password, in bytes (IPMI 2.0; ipmitool refuses a longer one).
pub const PASSWORD_MAX: usize = 20;
/// Maximum length of a user's name, in bytes (IPMI 2.0).
pub const USER_MAX: usize = 16;

/// The cipher suite that worked, of each BMC.
#[derive(Debug, Default)]
pub(super) struct Ipmi {
    known: Mutex<BTreeMap<(String, u16), &'static str>>,
}

/// A BMC's address, and its user.
pub(super) struct Access<'a> {
    pub(super) address: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
}

/// What an attempt with one cipher suite ended with.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// Its standard output.
    Done(String),
    /// It may be the cipher suite.
    Suite(PowerError),
    /// No other suite will change it.
    Failed(PowerError),
}

impl Ipmi {
    pub(super) async fn state(&self, bmc: &Bmc, access: Access<'_>) -> Result<PowerState, PowerError> {
        let said = self.ask(bmc, access, "status").await?;
        // Exactly this line and no other: anything else proves nothing.
        match said.trim() {
            "Chassis Power is on" => Ok(PowerState::On),
            "Chassis Power is off" => Ok(PowerState::Off),
            other => Err(PowerError::Unusable { bmc: bmc.to_string(), answer: words(bmc, other) }),
        }
    }

    pub(super) async fn order(&self, bmc: &Bmc, access: Access<'_>, order: &'static str) -> Result<(), PowerError> {
        self.ask(bmc, access, order).await.map(|_| ())
    }

    async fn ask(&self, bmc: &Bmc, access: Access<'_>, action: &'static str) -> Result<String, PowerError> {
        let end = Instant::now() + CALL_TIMEOUT;
        let key = (access.address.to_owned(), access.port);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known().get(&key).copied();
        // One that worked first; the others follow, because the BMC may have a new configuration.
        let suites = last.into_iter().chain(SUITES.into_iter().filter(|suite| Some(*suite) != last));
        let mut failed = None;
        for suite in suites {
            match attempt(bmc, &access, suite, action, end).await {
                Attempt::Done(said) => {
                    known().insert(key, suite);
                    return Ok(said);
                }
                Attempt::Failed(error) => return Err(error),
                Attempt::Suite(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| PowerError::Timeout { bmc: bmc.to_string(), after: CALL_TIMEOUT }))
    }
}

/// The arguments of ipmitool. It is not given the password: all users can read a program's arguments, if only until
/// ipmitool (1.8.19) has overwritten that of `-P`.
fn arguments<'a>(access: &Access<'a>, port: &'a str, suite: &'a str, action: &'a str) -> Vec<&'a str> {
    let session = ["-v", "-I", "lanplus", "-H", access.address, "-p", port, "-U", access.user, "-E", "-L", "OPERATOR"];
    // The wait for an answer grows with each repetition: it ends after 6 s if there is none. With -R 3 it is 12 s.
    let command = ["-C", suite, "-N", "1", "-R", "2", "chassis", "power", action];
    session.into_iter().chain(command).collect()
}

async fn attempt(bmc: &Bmc, access: &Access<'_>, suite: &str, action: &str, end: Instant) -> Attempt {
    let port = access.port.to_string();
    let arguments = arguments(access, &port, suite, action);
    let password = bmc.password.as_ref().map_or("", |password| password.reveal());
    let environment = [("IPMI_PASSWORD", password), ("LC_ALL", "C")];
    let left = end.saturating_duration_since(Instant::now());
    let name = || bmc.to_string();
    match run::run(Path::new(IPMITOOL), &arguments, &environment, "", left).await {
        Ok(said) if said.code == Some(0) => Attempt::Done(said.stdout),
        Ok(said) => judge(bmc, &said.stderr),
        Err(run::NotRun::Timeout) => Attempt::Failed(PowerError::Timeout { bmc: name(), after: CALL_TIMEOUT }),
        Err(run::NotRun::TooMuch) => {
            Attempt::Failed(PowerError::Unusable { bmc: name(), answer: "endless output of ipmitool".to_owned() })
        }
        Err(run::NotRun::Start(error)) => {
            let why = format!("{IPMITOOL} cannot be run ({error}); install the package ipmitool");
            Attempt::Failed(PowerError::Local { bmc: name(), why })
        }
    }
}

/// What the errors of an attempt mean.
fn judge(bmc: &Bmc, errors: &str) -> Attempt {
    let line = |part: &str| errors.lines().find(|line| line.contains(part)).map(str::trim);
    let after = |part: &str| line(part).and_then(|line| line.split_once(part)).map(|(_, rest)| words(bmc, rest));
    let name = bmc.to_string();
    // The BMC says "Command not supported in present state" (0xd5) where the power is as it should be already.
    if line("Set Chassis Power Control to").is_some_and(|line| line.contains("not supported in present state")) {
        return Attempt::Done(String::new());
    }
    let refusals =
        ["RAKP 2 HMAC is invalid", "unauthorized name", "RAKP 4 message has invalid", "invalid integrity check value"];
    if refusals.iter().any(|text| line(text).is_some()) {
        return Attempt::Failed(PowerError::Credentials { bmc: name });
    }
    if line("unauthorized role requested").is_some() || line("insufficient resources for role").is_some() {
        let why = "the user may not control the power; it needs the privilege of an operator".to_owned();
        return Attempt::Failed(PowerError::Failed { bmc: name, why });
    }
    if let Some(why) = after("Error in open session response message :") {
        return Attempt::Suite(PowerError::Unreachable { bmc: name, why: format!("it opens no session: {why}") });
    }
    if line("Get Auth Capabilities error").is_some() {
        return Attempt::Failed(PowerError::Unreachable { bmc: name, why: "no answer".to_owned() });
    }
    if let Some(why) = line("Address lookup for") {
        return Attempt::Failed(PowerError::Unreachable { bmc: name, why: words(bmc, why) });
    }
    if let Some(why) = line("Set Chassis Power Control to").or_else(|| line("Unable to get Chassis Power Status")) {
        return Attempt::Failed(PowerError::Failed { bmc: name, why: words(bmc, why) });
    }
    let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    // A BMC that drops what it does not know says nothing about the suite.
    Attempt::Suite(PowerError::Unreachable { bmc: name, why: words(bmc, last) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{BmcAccess, Secret};

    fn bmc() -> Bmc {
        let access = BmcAccess::Ipmi { address: "10.0.0.9".to_owned(), port: 623, user: "admin".to_owned() };
        Bmc { access, password: Some(Secret::new("hunter2".to_owned())) }
    }

    #[test]
    fn the_password_comes_from_the_environment() {
        let access = Access { address: "10.0.0.9", port: 623, user: "admin" };
        let given = arguments(&access, "623", "17", "status");
        assert!(given.contains(&"-E") && !given.iter().any(|one| ["-P", "-f", "-k", "-y"].contains(one)), "{given:?}");
    }

    /// The texts are ipmitool 1.8.19's, against OpenIPMI 2.0.33's simulator and by its source.
    #[test]
    fn errors_of_ipmitool_are_told_apart() {
        let session = "Error: Unable to establish IPMI v2 / RMCP+ session";
        for (errors, says) in [
            ("> RAKP 2 HMAC is invalid\n", "IPMI 10.0.0.9 refuses the user or the password"),
            ("RAKP 2 message indicates an error : unauthorized name\n", "refuses the user or the password"),
            ("RAKP 2 message indicates an error : unauthorized role requested\n", "needs the privilege of an operator"),
            ("Get Auth Capabilities error\n", "IPMI 10.0.0.9 cannot be reached: no answer"),
            ("Address lookup for x failed\nCould not open socket!\n", "cannot be reached: Address lookup for x failed"),
            ("Set Chassis Power Control to Down/Off failed: Node busy\n", "could not do it: Set Chassis Power Control"),
        ] {
            let Attempt::Failed(error) = judge(&bmc(), &format!("{errors}{session}\n")) else { panic!("{errors}") };
            assert!(error.to_string().contains(says), "{error}");
        }
        let errors = format!("Error in open session response message : no matching cipher suite\n\n{session}\n");
        let Attempt::Suite(error) = judge(&bmc(), &errors) else { panic!("{errors}") };
        assert!(error.to_string().ends_with("it opens no session: no matching cipher suite"), "{error}");
        let already = "Set Chassis Power Control to Down/Off failed: Command not supported in present state";
        assert_eq!(judge(&bmc(), already), Attempt::Done(String::new()));
        let Attempt::Suite(error) = judge(&bmc(), "I was given hunter2") else { panic!() };
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
