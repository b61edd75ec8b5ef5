//! Failures: a message for people that says what to do next, and an exit code for scripts.

use drover_client::ClientError;
use std::fmt;

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For scripts: see [`EXIT_CODES`].
    pub(crate) code: u8,
    /// The message for people.
    pub(crate) message: String,
}

/// Exit codes, as shown by `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 changed by somebody else (or the name is taken),
            5 cluster not reachable, 6 not authorised";

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { code: 1, message: message.into() }
    }

    /// Ended by Ctrl-C; the code is that of a shell for a program that SIGINT ended.
    pub(crate) fn interrupted() -> Failure {
        Failure { code: 130, message: String::new() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let message = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Failure {
                code: 5,
                message: format!(
                    "{message}\nIs droverd running there? 'drover connection list' shows the known clusters; choose \
                     one with -c NAME."
                ),
            },
            ClientError::Unsure { .. } => Failure { code: 5, message },
            ClientError::BadAnswer { .. } => Failure::new(message),
            ClientError::Refused { status, .. } => {
                let code = match status {
                    401 | 403 => 6,
                    404 => 3,
                    409 => 4,
                    503 => 5,
                    _ => 1,
                };
                Failure { code, message }
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(error.to_string())
    }
}
