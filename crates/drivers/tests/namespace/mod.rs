//! Network namespaces for tests: one for the test, and one for a peer at the other end of a veth pair. Each belongs to
//! a thread.

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Uid, gettid},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::Read,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};

pub(crate) const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];

/// Timeout for expected events.
const LONG: Duration = Duration::from_secs(30);
/// All protocols (`ETH_P_ALL` in linux/if_ether.h).
const ALL_PROTOCOLS: u16 = 3;

fn runtime() -> Runtime {
    // Polls for I/O after each poll of a task, even if there is always a task that is ready.
    Builder::new_current_thread().event_interval(1).enable_all().build().unwrap()
}

/// Runs a test in its own network namespace. Skips it without root.
pub(crate) fn in_namespace<F: AsyncFnOnce() + Send + 'static>(test: F) {
    if !Uid::effective().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        runtime().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the calling thread's namespace, and returns its output.
pub(crate) fn ip(arguments: &str) -> String {
    let output =
        Command::new("ip").args(arguments.split_whitespace()).output().expect("ip(8) of iproute2 is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "ip {arguments}: {err}");
    out.into_owned()
}

/// Polls a condition every 10 ms until it holds. Panics after a timeout.
pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The other end of the veth pair: a thread in its own namespace, which runs jobs.
pub(crate) struct Peer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Connects `near` in this namespace to `far` in the peer's. Both are up, without addresses.
    pub(crate) fn connected() -> Peer {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (send_tid, tid) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            send_tid.send(gettid()).unwrap();
            for job in queue {
                job();
            }
        });
        let peer = Peer { jobs: Some(jobs), thread: Some(thread) };
        let tid = tid.recv_timeout(LONG).unwrap();
        ip(&format!(
            "link add near address 02:00:00:00:00:0a type veth peer name far address 02:00:00:00:00:0b netns {tid}"
        ));
        ip("link set near addrgenmode none");
        peer.ip("link set far addrgenmode none");
        peer.ip("link set far up");
        ip("link set near up");
        // Until the state is up, frames are dropped although there is a carrier.
        wait_for("the near link", || ip("-o link show near").contains("state UP"));
        wait_for("the far link", || peer.ip("-o link show far").contains("state UP"));
        peer
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (send, result) = mpsc::channel();
        let job = move || drop(send.send(job()));
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        result
    }

    /// Runs `ip` in the peer's namespace.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments)).recv_timeout(LONG).expect("the peer's thread runs")
    }

    /// Runs a future in the peer's namespace; the receiver gets its result.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> mpsc::Receiver<()> {
        self.run(move || runtime().block_on(work))
    }

    /// Captures frames that arrive at the peer from us, from now on.
    pub(crate) fn capture(&self) -> Capture {
        let open = || {
            let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
            Socket::new(Domain::PACKET, Type::RAW.cloexec(), Some(protocol)).unwrap()
        };
        let socket = self.run(open).recv_timeout(LONG).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Capture { socket }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet capture at the peer.
pub(crate) struct Capture {
    socket: Socket,
}

impl Capture {
    fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + LONG;
        let mut frame = vec![0; 2048];
        while Instant::now() < deadline {
            let length = self.socket.read(&mut frame).expect("a frame arrives");
            let from_us = length >= 42 && frame[6..12] == NEAR_MAC;
            if from_us && wanted(&frame[..length]) {
                frame.truncate(length);
                return frame;
            }
        }
        panic!("the expected frame did not arrive");
    }

    /// The next ARP packet.
    pub(crate) fn arp(&mut self) -> Vec<u8> {
        self.next(|frame| frame[12..14] == [8, 6])
    }

    /// The next ICMPv6 packet of this type.
    pub(crate) fn icmp6(&mut self, kind: u8) -> Vec<u8> {
        self.next(|frame| frame[12..14] == [0x86, 0xdd] && frame.len() >= 78 && frame[20] == 58 && frame[54] == kind)
    }
}
