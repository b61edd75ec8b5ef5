//! A program of the administrator's that reads and switches the power: for a switched power strip, or a hypervisor
//! above.
//!
//! Two interfaces:
//!
//! * JSON: the program gets its arguments, and on its standard input one object: `{"action": "status"}`, or with `off`
//!   or `on`; with a password, also `"password"`. On `status` it prints `{"power": "on"}` or `{"power": "off"}`. It
//!   exits with 0; any other code is an error, and the last line of its standard error says which.
//! * The fence agents': everything is on the standard input, as `key=value` lines: the arguments, `password`, and
//!   `action` (`status`, `off`, `on`). Their exit code is 0 for on and for success, 2 for off. They exit with 2 also
//!   where the input is wrong (`EC_BAD_ARGS`; fence-agents 4.12.1, `fencing.py`): a state is believed only where they
//!   print the same, `Status: ON` or `Status: OFF`, and not the other too.

use super::{COMMAND_TIMEOUT, PowerError, run, words};
use drover_model::{Bmc, CommandInterface, PowerState};
use serde::Deserialize;
use std::{fmt::Write, path::Path};

/// What the fence agents need from the environment: some look for programs.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C.UTF-8")];

/// The program, and how it is spoken to.
pub(super) struct Access<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [String],
    pub(super) interface: CommandInterface,
}

/// What a program with the JSON interface prints on `status`.
#[derive(Deserialize)]
struct Status {
    power: PowerState,
}

pub(super) async fn state(bmc: &Bmc, access: Access<'_>) -> Result<PowerState, PowerError> {
    let said = ask(bmc, &access, "status").await?;
    let unusable = |answer: &str| PowerError::Unusable { bmc: bmc.to_string(), answer: words(bmc, answer) };
    match access.interface {
        CommandInterface::Json if said.code == Some(0) => match serde_json::from_str::<Status>(&said.stdout) {
            Ok(status) => Ok(status.power),
            Err(_) => Err(unusable(&said.stdout)),
        },
        CommandInterface::FenceAgent => {
            let prints = |line: &str| said.stdout.lines().any(|printed| printed.trim() == line);
            match (said.code, prints("Status: ON"), prints("Status: OFF")) {
                (Some(0), true, false) => Ok(PowerState::On),
                (Some(2), false, true) => Ok(PowerState::Off),
                (Some(0), false, false) => Err(unusable(&said.stdout)),
                (Some(0), _, true) => Err(unusable("it prints off, and its exit code says on")),
                (Some(2), true, _) => Err(unusable("it prints on, and its exit code says off")),
                _ => Err(failed(bmc, &said)),
            }
        }
        CommandInterface::Json => Err(failed(bmc, &said)),
    }
}

pub(super) async fn order(bmc: &Bmc, access: Access<'_>, order: &str) -> Result<(), PowerError> {
    let said = ask(bmc, &access, order).await?;
    if said.code == Some(0) { Ok(()) } else { Err(failed(bmc, &said)) }
}

async fn ask(bmc: &Bmc, access: &Access<'_>, action: &str) -> Result<run::Said, PowerError> {
    let password = bmc.password.as_ref().map(|password| password.reveal());
    let (arguments, input) = match access.interface {
        CommandInterface::Json => {
            let mut question = serde_json::json!({ "action": action });
            if let (Some(password), Some(object)) = (password, question.as_object_mut()) {
                object.insert("password".to_owned(), password.into());
            }
            (access.arguments.iter().map(String::as_str).collect(), format!("{question}\n"))
        }
        CommandInterface::FenceAgent => {
            let mut input = String::new();
            let password = password.map(|password| format!("password={password}"));
            for line in access.arguments.iter().chain(&password) {
                // Writing to a string does not fail.
                writeln!(input, "{line}").ok();
            }
            (Vec::new(), format!("{input}action={action}\n"))
        }
    };
    let name = || bmc.to_string();
    run::run(access.program, &arguments, &ENVIRONMENT, &input, COMMAND_TIMEOUT).await.map_err(|error| match error {
        run::NotRun::Timeout => PowerError::Timeout { bmc: name(), after: COMMAND_TIMEOUT },
        run::NotRun::TooMuch => PowerError::Unusable { bmc: name(), answer: "endless output".to_owned() },
        run::NotRun::Start(error) => PowerError::Local { bmc: name(), why: format!("it cannot be run: {error}") },
    })
}

fn failed(bmc: &Bmc, said: &run::Said) -> PowerError {
    let last = said.stderr.lines().rev().find(|line| !line.trim().is_empty());
    let code = said.code.map_or_else(|| "a signal ended it".to_owned(), |code| format!("exit code {code}"));
    let why = last.map_or_else(|| code.clone(), |line| format!("{} ({code})", words(bmc, line)));
    PowerError::Failed { bmc: bmc.to_string(), why }
}

#[cfg(test)]
mod tests {
    use super::super::{Power, PowerControl};
    use super::*;
    use drover_model::{BmcAccess, Secret};
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    struct Script {
        folder: tempfile::TempDir,
        interface: CommandInterface,
    }

    impl Script {
        fn new(interface: CommandInterface, text: &str) -> Script {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("program");
            fs::write(&file, format!("#!/bin/sh\ncd {}\n{text}", folder.path().display())).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            Script { folder, interface }
        }

        fn bmc(&self) -> Bmc {
            let access = BmcAccess::Command {
                program: self.folder.path().join("program"),
                arguments: vec!["plug=7".to_owned()],
                interface: self.interface,
            };
            Bmc { access, password: Some(Secret::new("hunter2".to_owned())) }
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
        }
    }

    #[tokio::test]
    async fn a_program_speaks_json() {
        let text = r#"read q; echo "$1 $q" >> asked
            case $q in *status*) echo "{\"power\":\"$(cat power)\"}";; *off*) echo off > power;;
            *) echo hunter2 busy >&2; exit 7;; esac"#;
        let script = Script::new(CommandInterface::Json, text);
        let power = PowerControl::default();
        fs::write(script.folder.path().join("power"), "on").unwrap();
        assert_eq!(power.state(&script.bmc()).await, Ok(PowerState::On));
        power.off(&script.bmc()).await.unwrap();
        assert_eq!(power.state(&script.bmc()).await, Ok(PowerState::Off));
        let error = power.on(&script.bmc()).await.unwrap_err().to_string();
        assert!(error.ends_with("could not do it: ... busy (exit code 7)"), "{error}");
        let asked = script.read("asked");
        assert!(asked.starts_with(r#"plug=7 {"action":"status","password":"hunter2"}"#), "{asked}");
    }

    #[tokio::test]
    async fn answers_that_say_nothing_prove_nothing() {
        let power = PowerControl::default();
        for text in
            ["echo off", "echo '{\"power\":\"Off\"}'", "echo '{}'", "true", "echo '{\"power\":\"off\"}'; exit 1"]
        {
            let error = power.state(&Script::new(CommandInterface::Json, text).bmc()).await.unwrap_err();
            assert!(matches!(error, PowerError::Unusable { .. } | PowerError::Failed { .. }), "{text}: {error:?}");
        }
        let access = BmcAccess::Command {
            program: PathBuf::from("/nowhere"),
            arguments: Vec::new(),
            interface: CommandInterface::Json,
        };
        let error = power.state(&Bmc { access, password: None }).await.unwrap_err();
        assert!(matches!(error, PowerError::Local { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_fence_agent_gets_lines_and_answers_by_exit_code() {
        let text = r#"cat > asked; . ./asked; case $action in
            status) echo "Status: $(cat power)"; grep -q OFF power && exit 2; exit 0;;
            off) grep -q OFF power && echo "Success: Already OFF"; echo OFF > power;;
            on) echo "Unable to connect" >&2; exit 4;; esac"#;
        let script = Script::new(CommandInterface::FenceAgent, text);
        let power = PowerControl::default();
        fs::write(script.folder.path().join("power"), "ON").unwrap();
        assert_eq!(power.state(&script.bmc()).await, Ok(PowerState::On));
        assert_eq!(script.read("asked"), "plug=7\npassword=hunter2\naction=status\n");
        power.off(&script.bmc()).await.unwrap();
        power.off(&script.bmc()).await.unwrap();
        assert_eq!(power.state(&script.bmc()).await, Ok(PowerState::Off));
        let error = power.on(&script.bmc()).await.unwrap_err().to_string();
        assert!(error.ends_with("could not do it: Unable to connect (exit code 4)"), "{error}");
    }

    /// Exit code 2 is also that of wrong arguments.
    #[tokio::test]
    async fn a_fence_agent_with_wrong_arguments_is_not_off() {
        let text = "cat > /dev/null; echo 'Parse error: unknown option plug' >&2; exit 2";
        let error = PowerControl::default().state(&Script::new(CommandInterface::FenceAgent, text).bmc()).await;
        assert!(matches!(error, Err(PowerError::Failed { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_fence_agent_is_believed_only_if_it_prints_what_its_exit_code_says() {
        for text in [
            "true",
            "echo hello",
            "echo 'Status: UNKNOWN'",
            "echo 'Status: OFF'",
            "echo 'Status: ON'; echo 'Status: OFF'",
            "echo 'Status: ON'; exit 2",
            "echo 'Status: ON'; echo 'Status: OFF'; exit 2",
        ] {
            let text = format!("cat > /dev/null; {text}");
            let error = PowerControl::default().state(&Script::new(CommandInterface::FenceAgent, &text).bmc()).await;
            assert!(matches!(error, Err(PowerError::Unusable { .. })), "{text}: {error:?}");
        }
    }
}
