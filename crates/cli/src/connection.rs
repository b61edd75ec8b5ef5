//! Selects the cluster to talk to: a named connection from a file, the environment, or this machine's own node.
//!
//! In order of precedence: `-c NAME` (or `DROVER_CONNECTION`); `DROVER_API` with `DROVER_TOKEN_FILE` or `DROVER_TOKEN`;
//! the default connection; `local`: this machine's node, with the token that its daemon keeps for this machine's
//! administrator.

use crate::failure::Failure;
use drover_client::Client;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Name of the built-in connection to this machine's node.
pub(crate) const LOCAL: &str = "local";
const LOCAL_URL: &str = "http://127.0.0.1:7370";
const LOCAL_TOKEN: &str = "/var/lib/drover/admin.token";

/// A named connection. Its token is stored here (the file is readable by its owner only), or in a file of its own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connection {
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Contents of the connections file.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Connections {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<String>,
    #[serde(rename = "connection", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) all: BTreeMap<String, Connection>,
}

/// Path of the connections file.
pub(crate) fn file() -> Result<PathBuf, Failure> {
    let folder = match (env::var_os("DROVER_CONFIG_DIR"), env::var_os("XDG_CONFIG_HOME"), env::var_os("HOME")) {
        (Some(own), ..) => PathBuf::from(own),
        (None, Some(config), _) => Path::new(&config).join("drover"),
        (None, None, Some(home)) => Path::new(&home).join(".config/drover"),
        (None, None, None) => return Err(Failure::new("neither HOME nor DROVER_CONFIG_DIR is set")),
    };
    Ok(folder.join("connections.toml"))
}

impl Connections {
    /// Reads the file; a missing file counts as an empty one.
    pub(crate) fn load(file: &Path) -> Result<Connections, Failure> {
        match fs::read_to_string(file) {
            Ok(text) => {
                toml::from_str(&text).map_err(|e| Failure::usage(format!("{}: {}", file.display(), e.message())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Connections::default()),
            Err(error) => Err(Failure::new(format!("cannot read {}: {error}", file.display()))),
        }
    }

    /// Writes the file atomically, readable by its owner only.
    pub(crate) fn save(&self, file: &Path) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::new(format!("cannot write {}: {e}", file.display()));
        let text = toml::to_string(self).map_err(|e| Failure::new(e.to_string()))?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let draft = file.with_extension("new");
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        if let Ok(out) = &mut out {
            // A draft left over from an earlier run may have other permissions.
            out.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
        out.and_then(|mut out| out.write_all(text.as_bytes())).map_err(failed)?;
        fs::rename(&draft, file).map_err(failed)
    }
}

fn read_token(file: &Path) -> Result<String, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => {
            Err(Failure { code: 6, message: format!("cannot read the token in {}: {error}", file.display()) })
        }
    }
}

/// A client for the chosen cluster. `named`: from `-c` or `DROVER_CONNECTION`.
pub(crate) fn client(named: Option<&str>) -> Result<Client, Failure> {
    if named.is_none()
        && let Ok(url) = env::var("DROVER_API")
    {
        let token = match env::var_os("DROVER_TOKEN_FILE") {
            Some(file) => Some(read_token(Path::new(&file))?),
            None => env::var("DROVER_TOKEN").ok(),
        };
        return Ok(Client::new(&url, token)?);
    }
    let file = file()?;
    let connections = Connections::load(&file)?;
    let name = named.map(str::to_owned).or(connections.default.clone()).unwrap_or_else(|| LOCAL.to_owned());
    match connections.all.get(&name) {
        Some(connection) => {
            let token = match (&connection.token, &connection.token_file) {
                (Some(token), _) => Some(token.clone()),
                (None, Some(file)) => Some(read_token(file)?),
                (None, None) => None,
            };
            Ok(Client::new(&connection.url, token)?)
        }
        None if name == LOCAL => {
            // Without a readable token file, there is no daemon here or we lack the permission: the error from the API
            // explains it better.
            Ok(Client::new(LOCAL_URL, fs::read_to_string(LOCAL_TOKEN).ok().map(|t| t.trim().to_owned()))?)
        }
        None => {
            let known: Vec<&str> = connections.all.keys().map(String::as_str).chain([LOCAL]).collect();
            Err(Failure::usage(format!(
                "there is no connection named {name:?}; there are {} (add one with 'drover connection add')",
                known.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_private_and_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/connections.toml");
        assert!(Connections::load(&file).unwrap() == Connections::default());
        let connection =
            Connection { url: "http://a:7370".to_owned(), token: Some("secret".to_owned()), token_file: None };
        let mut connections = Connections { default: Some("a".to_owned()), all: BTreeMap::new() };
        connections.all.insert("a".to_owned(), connection);
        connections.save(&file).unwrap();
        assert!(Connections::load(&file).unwrap() == connections);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "defualt = 'a'").unwrap();
        let error = Connections::load(&file).map(|_| ()).unwrap_err();
        assert!(error.message.contains("connections.toml: unknown field `defualt`"), "{error}");
    }
}
