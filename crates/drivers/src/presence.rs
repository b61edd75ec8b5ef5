//! Whether another machine answers on the network, whatever runs on it: a second witness beside its daemon's session.
//! The trait [`Presence`], its implementation by TCP, and a fake.
//!
//! Two ports are tried at once. Any answer of either is a sign of life.
//!
//! * That of its daemon's API. Where nothing listens, the kernel answers with a reset. A packet filter on that machine
//!   must let the port through, as it must for the API itself.
//! * One where nothing listens ([`CLOSED_PORT`]). Linux drops a SYN to a socket whose queue of accepted connections is
//!   full (`tcp_conn_request` in net/ipv4/tcp_input.c; Linux 6.1), so that the API's port of a daemon that hangs is
//!   silent at some time. The reset of a closed port shows that the kernel is there.
//!
//! "Host unreachable" has two sources. Linux itself says so when nobody on the link has the address: after 3 requests,
//! 1 s each (`mcast_solicit`, `retrans_time`), counted from the first packet that waits for it, which may be another's.
//! Whoever tries then begins a new count. A packet filter that rejects (`icmp-host-prohibited`,
//! `icmp-admin-prohibited`) and a router say so too, in an ICMP message (`icmp_err_convert` in net/ipv4/icmp.c). So a
//! second attempt within [`ANSWER_TIMEOUT`] tells them apart: if it fails in the same way, somebody has answered.

use async_trait::async_trait;
use std::{io, pin::pin, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// How long an answer is waited for. Linux repeats an unanswered SYN after 1 s (`TCP_TIMEOUT_INIT` in
/// include/net/tcp.h), so one lost packet is no silence.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// A port where nothing listens: tcpmux, which no distribution starts by itself.
pub const CLOSED_PORT: u16 = 1;

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
    /// twice [`ANSWER_TIMEOUT`], and may be cancelled by dropping its future.
    async fn answers(&self, api: &str) -> Answer;

    /// The same by one attempt, on the API's port only: cheap enough for all nodes, all the time. Its silence may be
    /// that of a daemon.
    async fn answers_at_its_api(&self, api: &str) -> Answer {
        self.answers(api).await
    }
}

/// [`Presence`] by connecting to the API's port, and to one that is closed.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpPresence;

#[async_trait]
impl Presence for TcpPresence {
    async fn answers(&self, api: &str) -> Answer {
        let connect = async |address: &str| TcpStream::connect(address).await.map(drop);
        let Some((host, _)) = api.rsplit_once(':') else { return Answer::Unknown(format!("{api} has no port")) };
        let closed = format!("{host}:{CLOSED_PORT}");
        let (mut open, mut closed) = (pin!(probe(|| connect(api))), pin!(probe(|| connect(&closed))));
        tokio::select! {
            biased;
            answer = &mut open => either(answer, closed).await,
            answer = &mut closed => either(answer, open).await,
        }
    }

    async fn answers_at_its_api(&self, api: &str) -> Answer {
        probe(async || TcpStream::connect(api).await.map(drop)).await
    }
}

/// What two probes say, of which one has ended. A sign of life needs no second.
async fn either(first: Answer, other: impl Future<Output = Answer>) -> Answer {
    match first {
        Answer::Some(_) => first,
        Answer::Silent => other.await,
        Answer::Unknown(_) => match other.await {
            Answer::Silent => first,
            other => other,
        },
    }
}

/// Tries to connect; twice where "host unreachable" is said.
async fn probe<F: Future<Output = io::Result<()>>>(connect: impl Fn() -> F) -> Answer {
    let mut rejected = false;
    loop {
        return match timeout(ANSWER_TIMEOUT, connect()).await {
            Ok(Ok(())) => Answer::Some("it takes connections".to_owned()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::HostUnreachable && !rejected => {
                rejected = true;
                continue;
            }
            Ok(Err(error)) => judge(&error),
            Err(_) => Answer::Silent,
        };
    }
}

/// What a failed attempt to connect says.
fn judge(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::Some("it refuses connections".to_owned()),
        io::ErrorKind::ConnectionReset => Answer::Some("it resets connections".to_owned()),
        io::ErrorKind::TimedOut => Answer::Silent,
        // At the second time: see the module's documentation.
        io::ErrorKind::HostUnreachable => {
            Answer::Unknown("a packet filter or a router says that it cannot be reached".to_owned())
        }
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

    #[tokio::test]
    async fn a_daemon_that_hangs_with_a_full_queue_is_no_silence() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let api = listener.local_addr().unwrap().to_string();
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(&api)).await {
            waiting.push(connected.unwrap());
        }
        assert!(!waiting.is_empty());
        assert!(matches!(TcpPresence.answers(&api).await, Answer::Some(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_rejects_twice_at_once_is_there() {
        let unreachable = || io::Error::from_raw_os_error(nix::libc::EHOSTUNREACH);
        let rejects = probe(|| async { Err(unreachable()) }).await;
        assert!(matches!(rejects, Answer::Unknown(_)), "{rejects:?}");
        // The first attempt met the end of somebody else's count.
        let tried = std::sync::atomic::AtomicU32::new(0);
        let nobody = probe(async || {
            if tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            Err(unreachable())
        });
        assert_eq!(nobody.await, Answer::Silent);
    }

    #[test]
    fn only_silence_is_silence() {
        let says = |errno| judge(&io::Error::from_raw_os_error(errno));
        assert!(matches!(says(nix::libc::EHOSTUNREACH), Answer::Unknown(_)));
        assert_eq!(says(nix::libc::ETIMEDOUT), Answer::Silent);
        assert!(matches!(says(nix::libc::ENETUNREACH), Answer::Unknown(_)));
        assert!(matches!(says(nix::libc::EMFILE), Answer::Unknown(_)));
        assert!(matches!(says(nix::libc::ECONNREFUSED), Answer::Some(_)));
    }
}
