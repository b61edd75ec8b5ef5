//! Whether another machine answers on the network, whatever runs on it: a second witness beside its daemon's session.
//! The trait [`Presence`], its implementation by TCP, and a fake.
//!
//! A machine's kernel answers a connection to a port where nothing listens with a reset. So the address of its daemon's
//! API tells of a machine whose daemon is down; and a daemon that hangs is connected to by its kernel. A packet filter
//! on that machine must let the port through, as it must for the API itself.

use async_trait::async_trait;
use std::{io, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// How long an answer is waited for. Linux repeats an unanswered SYN after 1 s (`TCP_TIMEOUT_INIT` in
/// include/net/tcp.h), so one lost packet is no silence.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// What a machine does on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It answers. How, for users.
    Some(String),
    /// It does not answer.
    Silent,
    /// It could not be asked. Why, for users.
    Unknown(String),
}

/// Asks machines on the network.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Whether the machine with this address (`address:port`, of its daemon's API) answers. Ends within
    /// [`ANSWER_TIMEOUT`] and a look-up of the name, and may be cancelled by dropping its future.
    async fn answers(&self, api: &str) -> Answer;
}

/// [`Presence`] by connecting to the API's port.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpPresence;

#[async_trait]
impl Presence for TcpPresence {
    async fn answers(&self, api: &str) -> Answer {
        match timeout(ANSWER_TIMEOUT, TcpStream::connect(api)).await {
            Ok(Ok(_)) => Answer::Some("it takes connections".to_owned()),
            Ok(Err(error)) => judge(&error),
            Err(_) => Answer::Silent,
        }
    }
}

/// What a failed attempt to connect says.
fn judge(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::Some("it refuses connections".to_owned()),
        io::ErrorKind::ConnectionReset => Answer::Some("it resets connections".to_owned()),
        // Nobody on the link has the address, or a router says that it cannot deliver.
        io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => Answer::Silent,
        // Also NetworkUnreachable: this node has no route.
        _ => Answer::Unknown(format!("cannot connect: {error}")),
    }
}

/// Fakes for tests and simulation.
#[cfg(any(test, feature = "testing"))]
pub mod fake {
    use super::{ANSWER_TIMEOUT, Answer, Presence};
    use async_trait::async_trait;
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex, PoisonError},
    };

    /// [`Presence`] of machines that answer unless they were made silent. Clones are the same network.
    #[derive(Debug, Clone, Default)]
    pub struct FakePresence {
        silent: Arc<Mutex<BTreeSet<String>>>,
    }

    impl FakePresence {
        /// Whether the machine with this address is silent from now on.
        pub fn set_silent(&self, api: &str, silent: bool) {
            let mut all = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            if silent {
                all.insert(api.to_owned());
            } else {
                all.remove(api);
            }
        }

        /// Whether it is silent.
        pub fn is_silent(&self, api: &str) -> bool {
            self.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(api)
        }
    }

    #[async_trait]
    impl Presence for FakePresence {
        async fn answers(&self, api: &str) -> Answer {
            if !self.is_silent(api) {
                return Answer::Some("it refuses connections".to_owned());
            }
            tokio::time::sleep(ANSWER_TIMEOUT).await;
            Answer::Silent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_machine_answers_with_and_without_a_daemon() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap().to_string();
        assert_eq!(TcpPresence.answers(&api).await, Answer::Some("it takes connections".to_owned()));
        drop(listener);
        assert_eq!(TcpPresence.answers(&api).await, Answer::Some("it refuses connections".to_owned()));
        assert!(matches!(TcpPresence.answers("no port").await, Answer::Unknown(_)));
    }

    #[test]
    fn only_silence_is_silence() {
        let says = |errno| judge(&io::Error::from_raw_os_error(errno));
        assert_eq!(says(nix::libc::EHOSTUNREACH), Answer::Silent);
        assert_eq!(says(nix::libc::ETIMEDOUT), Answer::Silent);
        assert!(matches!(says(nix::libc::ENETUNREACH), Answer::Unknown(_)));
        assert!(matches!(says(nix::libc::EMFILE), Answer::Unknown(_)));
        assert!(matches!(says(nix::libc::ECONNREFUSED), Answer::Some(_)));
    }
}
