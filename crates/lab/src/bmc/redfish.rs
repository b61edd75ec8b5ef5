//! A BMC that speaks Redfish over HTTPS: a program of the lab, which can be told to misbehave.

use super::{BMC_PASSWORD, BMC_USER};
use crate::{
    https::{self, Answer, Identity, Request},
    lab::Lab,
    node::Node,
    process,
    redfish::Service,
    tools::{Attempt, LabError, Result},
};
use std::{
    convert::Infallible,
    fmt,
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

/// How long it takes until the program listens.
const START: Duration = Duration::from_secs(20);
/// What the program prints when it listens.
const LISTENING: &str = "listening";

/// How a BMC misbehaves. Orders and questions that are under way are not affected by a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quirk {
    /// Not at all.
    #[default]
    None,
    /// Every answer takes so many seconds.
    Slow(u8),
    /// Every order is answered by 409 "already off", and not followed.
    Conflict,
    /// Every order is accepted, and not followed.
    Deaf,
    /// When the node loses its power (not when the BMC cuts it), nothing answers at the BMC's address any more.
    Dies,
    /// It refuses the user.
    Locked,
}

impl FromStr for Quirk {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Quirk, String> {
        let slow = |text: &str| text.strip_prefix("slow:")?.parse().ok();
        match text {
            "none" => Ok(Quirk::None),
            "conflict" => Ok(Quirk::Conflict),
            "deaf" => Ok(Quirk::Deaf),
            "dies" => Ok(Quirk::Dies),
            "locked" => Ok(Quirk::Locked),
            _ => slow(text).map(Quirk::Slow).ok_or_else(|| {
                format!("{text:?} is not a quirk; accepted are none, slow:SECONDS, conflict, deaf, dies, locked")
            }),
        }
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quirk::None => f.write_str("none"),
            Quirk::Slow(seconds) => write!(f, "slow:{seconds}"),
            Quirk::Conflict => f.write_str("conflict"),
            Quirk::Deaf => f.write_str("deaf"),
            Quirk::Dies => f.write_str("dies"),
            Quirk::Locked => f.write_str("locked"),
        }
    }
}

impl Quirk {
    /// The service as it behaves.
    fn service(self, on: bool) -> Service {
        let good = Service::new(BMC_USER, BMC_PASSWORD, if on { "On" } else { "Off" });
        match self {
            Quirk::None | Quirk::Slow(_) | Quirk::Dies => good,
            Quirk::Conflict => Service { order_status: 409, obeys: false, ..good },
            Quirk::Deaf => Service { obeys: false, ..good },
            Quirk::Locked => Service { password: format!("not {BMC_PASSWORD}"), ..good },
        }
    }
}

impl Node<'_> {
    fn quirk_file(&self) -> PathBuf {
        self.bmc_folder().join("quirk")
    }

    /// Makes the node's BMC for Redfish misbehave.
    ///
    /// # Errors
    /// If the node has no such BMC.
    pub fn set_quirk(&self, quirk: Quirk) -> Result<()> {
        self.bmc_identity()?;
        let failed = || format!("{}: cannot set the quirk", self.name());
        // By a rename, because the BMC may be reading it.
        let temporary = self.quirk_file().with_extension("new");
        fs::write(&temporary, quirk.to_string()).attempt(failed)?;
        fs::rename(&temporary, self.quirk_file()).attempt(failed)?;
        // It may be dead.
        self.plug_bmc()
    }

    fn quirk(&self) -> Quirk {
        fs::read_to_string(self.quirk_file()).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The BMC after the node has lost its power.
    pub(crate) fn bmc_without_power(&self) {
        if self.quirk() == Quirk::Dies {
            self.unplug_bmc();
        }
    }

    /// The BMC when the node gets power again.
    pub(crate) fn bmc_with_power(&self) -> Result<()> {
        if self.quirk() == Quirk::Dies { self.plug_bmc() } else { Ok(()) }
    }

    /// Whether it has a BMC for Redfish.
    pub fn has_redfish(&self) -> bool {
        self.bmc_folder().join("identity.json").exists()
    }

    /// What the BMC proves itself by.
    pub(super) fn bmc_identity(&self) -> Result<Identity> {
        let what = || format!("{}: it has no BMC for Redfish", self.name());
        let text = fs::read_to_string(self.bmc_folder().join("identity.json")).attempt(what)?;
        serde_json::from_str(&text).attempt(what)
    }

    /// Starts the node's BMC for Redfish, and waits until it listens. It is the same one after each start.
    pub(super) fn start_redfish(&self) -> Result<()> {
        let failed = || format!("{}: cannot start the BMC", self.name());
        let folder = self.bmc_folder();
        fs::create_dir_all(&folder).attempt(failed)?;
        if !self.has_redfish() {
            let identity = serde_json::to_string(&Identity::new(&self.bmc_address())?).attempt(failed)?;
            fs::write(folder.join("identity.json"), identity).attempt(failed)?;
        }
        self.plug_bmc()?;
        let program = fs::canonicalize(self.lab().folder().join("programs/drover-lab")).attempt(failed)?;
        let file = folder.join("log");
        let log = File::create(&file).attempt(failed)?;
        let started = Command::new("setsid")
            .args(["--fork", "nsenter", &format!("--net=/run/netns/{}", self.lab().fabric().netns("switch"))])
            .arg(program)
            .arg("--dir")
            .arg(self.lab().folder())
            .args(["redfish", self.name()])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env(process::MARK, self.bmc_mark())
            .stdin(Stdio::null())
            .stdout(log.try_clone().attempt(failed)?)
            .stderr(log)
            .status();
        started.attempt(failed)?;
        let what = format!("{}: its BMC does not listen; see {}", self.name(), file.display());
        let listens = || fs::read_to_string(&file).is_ok_and(|log| log.contains(LISTENING)).then_some(());
        Lab::until(&what, START, listens)
    }
}

/// Is the BMC of a node, until it is killed.
///
/// # Errors
/// If it cannot listen.
pub fn redfish_bmc(lab: Lab, name: &str) -> Result<Infallible> {
    let node = lab.node(name)?;
    let address = format!("{}:443", node.bmc_address());
    let listener = TcpListener::bind(&address).attempt(|| format!("cannot listen at {address}"))?;
    let identity = node.bmc_identity()?;
    drop(node);
    let owned = name.to_owned();
    https::serve(listener, &identity, move |request| answer(&lab, &owned, request))?;
    println!("{LISTENING}");
    loop {
        std::thread::park();
    }
}

fn answer(lab: &Lab, name: &str, request: &Request) -> Answer {
    let Ok(node) = lab.node(name) else { return Answer::new(500, "") };
    let quirk = node.quirk();
    if let Quirk::Slow(seconds) = quirk {
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
    let outcome = quirk.service(node.is_on()).answer(request);
    println!("{} {} {}: {}", request.method, request.path, request.body, outcome.answer.status);
    let done = match outcome.reset.as_deref() {
        None => return outcome.answer,
        Some("ForceOff") => node.cut_power(),
        // It answers before the node has booted, as a real one does.
        Some("On") => order(&node, "on"),
        Some(other) => Err(LabError::new("cannot reset", format!("{other} is not known"))),
    };
    done.map_or_else(|error| Answer::new(500, error.to_string()), |()| outcome.answer)
}

/// Has a program of its own do something with the node's power.
fn order(node: &Node<'_>, action: &str) -> Result<()> {
    let failed = || format!("{}: cannot switch its power", node.name());
    let program = std::env::current_exe().attempt(failed)?;
    let status = Command::new("setsid")
        .arg("--fork")
        .arg(program)
        .arg("--dir")
        .arg(node.lab().folder())
        .args(["power", action, node.name()])
        .stdin(Stdio::null())
        .status()
        .attempt(failed)?;
    if status.success() { Ok(()) } else { Err(LabError::new(failed(), status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, body: &str) -> Request {
        let user = Some((BMC_USER.to_owned(), BMC_PASSWORD.to_owned()));
        Request { method: method.to_owned(), path: path.to_owned(), user, body: body.to_owned() }
    }

    #[test]
    fn a_quirk_is_what_is_answered_and_what_is_done() {
        let off = request("POST", crate::redfish::RESET, r#"{"ResetType":"ForceOff"}"#);
        for (quirk, status, followed) in [
            ("none", 204, true),
            ("slow:3", 204, true),
            ("conflict", 409, false),
            ("deaf", 204, false),
            ("dies", 204, true),
            ("locked", 401, false),
        ] {
            let parsed: Quirk = quirk.parse().unwrap();
            assert_eq!(parsed.to_string(), quirk);
            let outcome = parsed.service(true).answer(&off);
            assert_eq!((outcome.answer.status, outcome.reset.is_some()), (status, followed), "{quirk}");
        }
        assert!("slow".parse::<Quirk>().is_err() && "slow:x".parse::<Quirk>().is_err());
    }

    #[test]
    fn the_power_is_what_the_node_has() {
        let get = request("GET", crate::redfish::SYSTEM, "");
        for (on, state) in [(true, "\"On\""), (false, "\"Off\"")] {
            assert!(Quirk::None.service(on).answer(&get).answer.body.contains(state));
        }
    }
}
