//! `[fence]`: how other nodes cut this node's power, if it falls silent: by its BMC, or by a command.
//!
//! Passwords are not in the configuration file, which many read: each is in a file of its own that only root reads, or
//! in an environment variable of the daemon.

use drover_agent::{BmcOptions, ClusterKey};
use drover_drivers::power::{ipmi, tls};
use drover_model::{Bmc, BmcAccess, CommandInterface, Secret, Trust, bmc::IPMI_PORT};
use serde::{Deserialize, de::IgnoredAny};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Maximum length of a file that is read here, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// `[fence]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "expected a section: [fence]")]
pub(crate) struct Fence {
    /// File with the cluster's key, the same on all nodes.
    pub(crate) key_file: PathBuf,
    ipmi: Option<Ipmi>,
    redfish: Option<Redfish>,
    command: Option<Command>,
}

impl Default for Fence {
    fn default() -> Fence {
        Fence { key_file: "/etc/drover/cluster.key".into(), ipmi: None, redfish: None, command: None }
    }
}

/// `[fence.ipmi]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "expected a section: [fence.ipmi]")]
struct Ipmi {
    /// Host name or address of the BMC.
    address: String,
    /// UDP port. Default: 623.
    #[serde(default = "ipmi_port")]
    port: u16,
    /// User with the privilege of an operator.
    user: String,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    password_env: Option<String>,
    /// Refused, by a message that does not show it.
    #[serde(default)]
    password: Option<IgnoredAny>,
}

fn ipmi_port() -> u16 {
    IPMI_PORT
}

/// `[fence.redfish]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "expected a section: [fence.redfish]")]
struct Redfish {
    /// `https://host` or `https://host:port`.
    url: String,
    /// Path of the system. Default: the only one of the service.
    #[serde(default)]
    system: Option<String>,
    user: String,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    password_env: Option<String>,
    /// Refused, by a message that does not show it.
    #[serde(default)]
    password: Option<IgnoredAny>,
    /// SHA-256 of the service's certificate, in hexadecimal; colons are accepted.
    #[serde(default)]
    certificate: Option<String>,
    /// PEM file of the authority that signed it.
    #[serde(default)]
    authority: Option<PathBuf>,
}

/// `[fence.command]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "expected a section: [fence.command]")]
struct Command {
    /// Absolute path, the same on all coordinators: they run it.
    program: PathBuf,
    #[serde(default)]
    arguments: Vec<String>,
    /// `json` or `fence-agent`.
    interface: CommandInterface,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    password_env: Option<String>,
    /// Refused, by a message that does not show it.
    #[serde(default)]
    password: Option<IgnoredAny>,
}

impl Fence {
    /// Checks what can be checked without reading other files.
    pub(super) fn check(&self) -> Result<(), String> {
        let sections =
            [("ipmi", self.ipmi.is_some()), ("redfish", self.redfish.is_some()), ("command", self.command.is_some())];
        let given: Vec<&str> = sections.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if let [first, second, ..] = given.as_slice() {
            return Err(format!("there are [fence.{first}] and [fence.{second}]; accepted is one of them"));
        }
        if !self.key_file.is_absolute() {
            return Err(format!("fence.key_file is {}; accepted are absolute paths", self.key_file.display()));
        }
        self.ipmi.as_ref().map_or(Ok(()), Ipmi::check)?;
        self.redfish.as_ref().map_or(Ok(()), Redfish::check)?;
        self.command.as_ref().map_or(Ok(()), Command::check)
    }

    /// This node's BMC with its password, and the cluster's key. `clustered`: there are other nodes,
    /// which need the password.
    pub(crate) fn load(&self, clustered: bool) -> Result<BmcOptions, String> {
        let bmc = match self {
            Fence { ipmi: Some(ipmi), .. } => Some(ipmi.load()?),
            Fence { redfish: Some(redfish), .. } => Some(redfish.load()?),
            Fence { command: Some(command), .. } => Some(command.load()?),
            _ => None,
        };
        let file = self.key_file.display();
        let key = match read_private("fence.key_file", &self.key_file) {
            Ok(text) => Some(ClusterKey::parse(&text).map_err(|why| format!("fence.key_file: {file}: {why}"))?),
            Err(Unread::Absent) if bmc.is_none() || !clustered => None,
            Err(Unread::Absent) => {
                return Err(format!(
                    "fence.key_file: {file} is not there; the BMC's password is given to the other nodes sealed with \
                     the cluster's key. Make one with 'droverd --new-cluster-key' on one node, and copy the file to \
                     all others"
                ));
            }
            Err(Unread::Bad(why)) => return Err(why),
        };
        Ok(BmcOptions { bmc, key })
    }
}

impl Ipmi {
    fn check(&self) -> Result<(), String> {
        host("fence.ipmi.address", &self.address)?;
        if self.port == 0 {
            return Err("fence.ipmi.port is 0; accepted are 1 to 65535".to_owned());
        }
        user("fence.ipmi.user", &self.user, ipmi::USER_MAX)?;
        one_password("fence.ipmi", self.password_file.as_deref(), self.password_env.as_deref(), self.password, true)
    }

    fn load(&self) -> Result<Bmc, String> {
        let password = password("fence.ipmi", self.password_file.as_deref(), self.password_env.as_deref())?;
        if let Some(long) = password.as_ref().map(|p| p.reveal().len()).filter(|len| *len > ipmi::PASSWORD_MAX) {
            return Err(format!(
                "fence.ipmi: the password has {long} bytes; accepted are at most {}, which is IPMI's limit",
                ipmi::PASSWORD_MAX
            ));
        }
        let access = BmcAccess::Ipmi { address: self.address.clone(), port: self.port, user: self.user.clone() };
        Ok(Bmc { access, password })
    }
}

impl Redfish {
    fn check(&self) -> Result<(), String> {
        let authority = self.url.strip_prefix("https://").filter(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@'))
        });
        if authority.is_none() {
            return Err(format!(
                "fence.redfish.url is {:?}; accepted are \"https://host\" and \"https://host:port\"",
                self.url
            ));
        }
        if let Some(system) = self.system.as_ref().filter(|path| !path.starts_with("/redfish/") || path.contains(".."))
        {
            return Err(format!(
                "fence.redfish.system is {system:?}; accepted are paths such as \"/redfish/v1/Systems/1\""
            ));
        }
        user("fence.redfish.user", &self.user, 255)?;
        if self.user.contains(':') {
            return Err("fence.redfish.user has a colon, which HTTP does not allow".to_owned());
        }
        one_password(
            "fence.redfish",
            self.password_file.as_deref(),
            self.password_env.as_deref(),
            self.password,
            true,
        )?;
        match (&self.certificate, &self.authority) {
            (Some(pin), None) => fingerprint(pin).map(|_| ()),
            (None, Some(_)) => Ok(()),
            _ => Err("fence.redfish must have either certificate (the SHA-256 of the service's certificate) or \
            authority (a PEM file)"
                .to_owned()),
        }
    }

    fn load(&self) -> Result<Bmc, String> {
        let trust = match (&self.certificate, &self.authority) {
            (Some(pin), _) => Trust::Certificate(fingerprint(pin)?),
            (None, Some(file)) => {
                let bad = |why: String| format!("fence.redfish.authority: {}: {why}", file.display());
                let pem = fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
                tls::roots(&pem).map_err(bad)?;
                Trust::Authority(pem)
            }
            (None, None) => return Err("fence.redfish has neither certificate nor authority".to_owned()),
        };
        let password = password("fence.redfish", self.password_file.as_deref(), self.password_env.as_deref())?;
        let (url, system, user) = (self.url.clone(), self.system.clone(), self.user.clone());
        Ok(Bmc { access: BmcAccess::Redfish { url, system, user, trust }, password })
    }
}

impl Command {
    fn check(&self) -> Result<(), String> {
        if !self.program.is_absolute() {
            return Err(format!("fence.command.program is {}; accepted are absolute paths", self.program.display()));
        }
        for argument in &self.arguments {
            let control = argument.chars().any(char::is_control);
            let key = argument.split_once('=').map(|(key, _)| key).unwrap_or_default();
            let good_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            let own = matches!(key, "action" | "password" | "passwd" | "option");
            match self.interface {
                CommandInterface::FenceAgent if own => {
                    return Err(format!(
                        "fence.command.arguments sets {key:?}, which Drover sets itself; the password is that of \
                         password_file or password_env"
                    ));
                }
                CommandInterface::FenceAgent if !good_key || control => {
                    return Err(format!(
                        "fence.command.arguments has {argument:?}; accepted by a fence agent are lines such as \
                         \"plug=7\""
                    ));
                }
                CommandInterface::Json if argument.contains('\0') => {
                    return Err("fence.command.arguments has a zero byte".to_owned());
                }
                _ => {}
            }
        }
        one_password("fence.command", self.password_file.as_deref(), self.password_env.as_deref(), self.password, false)
    }

    fn load(&self) -> Result<Bmc, String> {
        let (program, arguments, interface) = (self.program.clone(), self.arguments.clone(), self.interface);
        let password = password("fence.command", self.password_file.as_deref(), self.password_env.as_deref())?;
        Ok(Bmc { access: BmcAccess::Command { program, arguments, interface }, password })
    }
}

/// A host name or an address, which cannot be taken for an option of a program.
fn host(key: &str, text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    if (1..=253).contains(&text.len()) && text.chars().all(good) && !text.starts_with('-') {
        return Ok(());
    }
    Err(format!("{key} is {text:?}; accepted are host names and addresses"))
}

fn user(key: &str, text: &str, longest: usize) -> Result<(), String> {
    if (1..=longest).contains(&text.len()) && !text.starts_with('-') && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("{key} is {text:?}; accepted are 1 to {longest} bytes, the first of which is not \"-\""))
}

/// The 64 hexadecimal digits of a SHA-256, in lower case.
fn fingerprint(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect::<String>().to_lowercase();
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err(format!(
        "fence.redfish.certificate is {text:?}; accepted is a SHA-256, as 'openssl x509 -fingerprint -sha256 -noout \
         -in FILE' prints it"
    ))
}

fn one_password(
    section: &str,
    file: Option<&Path>,
    variable: Option<&str>,
    inline: Option<IgnoredAny>,
    needed: bool,
) -> Result<(), String> {
    if inline.is_some() {
        return Err(format!(
            "{section}.password is not accepted, because others may read this file; put the password into a file of \
             its own: password_file = \"...\""
        ));
    }
    match (file, variable) {
        (Some(_), Some(_)) => Err(format!("{section} has password_file and password_env; accepted is one of them")),
        (None, None) if needed => Err(format!("{section} has no password; add password_file = \"...\"")),
        (Some(file), _) if !file.is_absolute() => {
            Err(format!("{section}.password_file is {}; accepted are absolute paths", file.display()))
        }
        _ => Ok(()),
    }
}

/// The password of a section, if it names one.
fn password(section: &str, file: Option<&Path>, variable: Option<&str>) -> Result<Option<Secret>, String> {
    let (what, text) = match (file, variable) {
        (Some(file), _) => {
            let what = format!("{section}.password_file");
            let text = read_private(&what, file).map_err(|error| match error {
                Unread::Absent => format!("{what}: {} is not there", file.display()),
                Unread::Bad(why) => why,
            })?;
            (what, text)
        }
        (None, Some(variable)) => {
            let what = format!("{section}.password_env");
            let text = std::env::var(variable);
            let text = text.map_err(|_| format!("{what}: the daemon's environment has no variable {variable:?}"))?;
            (what, text)
        }
        (None, None) => return Ok(None),
    };
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{what}: accepted is one line with the password"));
    }
    Ok(Some(Secret::new(text.to_owned())))
}

/// Why a file was not read.
enum Unread {
    Absent,
    Bad(String),
}

/// Reads a file that nobody else may read.
fn read_private(key: &str, file: &Path) -> Result<String, Unread> {
    let bad = |why: String| Unread::Bad(format!("{key}: {}: {why}", file.display()));
    let facts = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Absent),
        facts => facts.map_err(|error| bad(error.to_string()))?,
    };
    if !facts.is_file() || facts.len() > FILE_MAX {
        return Err(bad(format!("accepted is a regular file of at most {FILE_MAX} bytes")));
    }
    if facts.mode() & 0o077 != 0 {
        let mode = facts.mode() & 0o777;
        return Err(bad(format!(
            "others may use it (mode {mode:o}); accepted is mode 600: 'chmod 600 {}'",
            file.display()
        )));
    }
    let me = rustix::process::geteuid().as_raw();
    if facts.uid() != me && facts.uid() != 0 {
        return Err(bad(format!("it belongs to user {}; accepted are root and the daemon's user", facts.uid())));
    }
    fs::read_to_string(file).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn errors_name_the_key_and_what_is_accepted() {
        let ipmi = "[fence.ipmi]\naddress='10.0.0.9'\nuser='u'\n";
        let redfish = "[fence.redfish]\nurl='https://10.0.0.9'\nuser='u'\npassword_file='/p'\n";
        let agent = "[fence.command]\nprogram='/p'\ninterface='fence-agent'\n";
        for (text, says) in [
            (ipmi.to_owned(), "fence.ipmi has no password; add password_file"),
            (format!("{ipmi}password='x'"), "fence.ipmi.password is not accepted"),
            (format!("{ipmi}password_file='p'"), "fence.ipmi.password_file is p; accepted are absolute paths"),
            (format!("{ipmi}password_file='/p'\npassword_env='P'"), "accepted is one of them"),
            (ipmi.replace("10.0.0.9", "-f/etc/x"), "fence.ipmi.address is \"-f/etc/x\"; accepted are host names"),
            (ipmi.replace("'u'", "'-f'"), "fence.ipmi.user is \"-f\"; accepted are 1 to 16 bytes"),
            (format!("{ipmi}password_file='/p'\n{agent}"), "there are [fence.ipmi] and [fence.command]"),
            (redfish.to_owned(), "fence.redfish must have either certificate"),
            (format!("{redfish}certificate='ab:cd'"), "fence.redfish.certificate is \"ab:cd\"; accepted is a SHA-256"),
            (
                redfish.replace("https", "http"),
                "fence.redfish.url is \"http://10.0.0.9\"; accepted are \"https://host\"",
            ),
            (redfish.replace("10.0.0.9", "u:p@10.0.0.9"), "accepted are \"https://host\""),
            (format!("{redfish}system='1'"), "fence.redfish.system is \"1\"; accepted are paths"),
            (agent.replace("'/p'", "'p'"), "fence.command.program is p; accepted are absolute paths"),
            (agent.replace("fence-agent", "agent"), "unknown variant `agent`, expected `json` or `fence-agent`"),
            (format!("{agent}arguments=['--plug']"), "has \"--plug\"; accepted by a fence agent are lines"),
            (format!("{agent}arguments=['action=off']"), "sets \"action\", which Drover sets itself"),
            (format!("{agent}arguments=['plug=1\\naction=on']").replace('\'', "\""), "accepted by a fence agent"),
            ("[fence]\nkey_file='k'".to_owned(), "fence.key_file is k; accepted are absolute paths"),
        ] {
            let error = Config::parse(&text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        let error = Config::parse(&format!("{ipmi}password='hunter2'")).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    fn write(file: &Path, text: &str, mode: u32) {
        fs::write(file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn passwords_and_keys_are_in_private_files() {
        let folder = tempfile::tempdir().unwrap();
        let (password, key) = (folder.path().join("password"), folder.path().join("key"));
        let (password_file, key_file) = (password.display(), key.display());
        let text = format!(
            "[fence]\nkey_file='{key_file}'\n[fence.ipmi]\naddress='10.0.0.9'\nuser='u'\n\
             password_file='{password_file}'"
        );
        let config = Config::parse(&text).unwrap();
        let fails = |clustered: bool| config.fence.load(clustered).unwrap_err();
        assert!(fails(true).contains("password is not there"), "{}", fails(true));
        write(&password, "hunter2\n", 0o644);
        assert!(fails(true).contains("others may use it (mode 644); accepted is mode 600"), "{}", fails(true));
        write(&password, "a password that is too long\n", 0o600);
        assert!(fails(true).contains("has 27 bytes; accepted are at most 20"), "{}", fails(true));
        write(&password, "two\nlines\n", 0o600);
        assert!(fails(true).contains("accepted is one line") && !fails(true).contains("two"), "{}", fails(true));
        write(&password, "hunter2\n", 0o600);
        assert!(fails(true).contains("droverd --new-cluster-key"), "{}", fails(true));
        assert!(config.fence.load(false).unwrap().key.is_none());
        write(&key, "not a key", 0o600);
        assert!(fails(true).contains("it is not a cluster key"), "{}", fails(true));
        write(&key, &"0f".repeat(32), 0o640);
        assert!(fails(true).contains("others may use it"), "{}", fails(true));
        write(&key, &"0f".repeat(32), 0o600);
        let options = config.fence.load(true).unwrap();
        assert!(options.key.is_some());
        assert_eq!(options.bmc.as_ref().unwrap().password, Some(Secret::new("hunter2".to_owned())));
        assert!(!format!("{options:?}").contains("hunter2") && !format!("{options:?}").contains("0f0f"), "{options:?}");
    }
}
