//! Network namespaces for tests: one for the test, one for the far end of its cable, each that of a thread.

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

/// When a test gives up waiting.
const LONG: Duration = Duration::from_secs(30);
/// All protocols (`ETH_P_ALL` in linux/if_ether.h).
const EVERYTHING: u16 = 3;

fn runtime() -> Runtime {
    // It looks for events after each step of a task, so that it does even when there is always a task to run.
    Builder::new_current_thread().event_interval(1).enable_all().build().unwrap()
}

/// Runs a test in a namespace of its own, if we may make one.
pub(crate) fn in_namespace<F: AsyncFnOnce() + Send + 'static>(test: F) {
    if !Uid::effective().is_root() {
        println!("skipped: it needs root, for network namespaces");
        return;
    }
    let done = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        runtime().block_on(test());
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the calling thread's namespace, and gives what it prints.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip (of iproute2) runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "ip {arguments}: {err}");
    out.into_owned()
}

/// Looks again and again, until it is so.
pub(crate) fn wait_for(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < end, "still waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The far end of the cable: a thread in a namespace of its own, which does what it is told.
pub(crate) struct Peer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Makes a cable from `near`, here, to `far`, there. Both are up, and there is no address on them.
    pub(crate) fn connected() -> Peer {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            for job in todo {
                job();
            }
        });
        let peer = Peer { jobs: Some(jobs), thread: Some(thread) };
        let tid = told.recv_timeout(LONG).unwrap();
        ip(&format!(
            "link add near address 02:00:00:00:00:0a type veth peer name far address 02:00:00:00:00:0b netns {tid}"
        ));
        ip("link set near addrgenmode none");
        peer.ip("link set far addrgenmode none");
        peer.ip("link set far up");
        ip("link set near up");
        // Before that, what is sent is dropped, though there is a carrier.
        wait_for("the near link", || ip("-o link show near").contains("state UP"));
        wait_for("the far link", || peer.ip("-o link show far").contains("state UP"));
        peer
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (tell, told) = mpsc::channel();
        let job = move || drop(tell.send(job()));
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        told
    }

    /// Runs `ip` there.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments)).recv_timeout(LONG).expect("the peer is there")
    }

    /// Begins something there; the receiver hears when it is done.
    pub(crate) fn begin(&self, work: impl Future<Output = ()> + Send + 'static) -> mpsc::Receiver<()> {
        self.run(move || runtime().block_on(work))
    }

    /// Hears there what comes from us, from now on.
    pub(crate) fn ear(&self) -> Ear {
        let open = || {
            let protocol = Protocol::from(i32::from(EVERYTHING.to_be()));
            Socket::new(Domain::PACKET, Type::RAW.cloexec(), Some(protocol)).unwrap()
        };
        let socket = self.run(open).recv_timeout(LONG).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Ear { socket }
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

/// What comes in at the far end.
pub(crate) struct Ear {
    socket: Socket,
}

impl Ear {
    fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let end = Instant::now() + LONG;
        let mut frame = vec![0; 2048];
        while Instant::now() < end {
            let length = self.socket.read(&mut frame).expect("a frame comes");
            let from_us = length >= 42 && frame[6..12] == NEAR_MAC;
            if from_us && wanted(&frame[..length]) {
                frame.truncate(length);
                return frame;
            }
        }
        panic!("no such frame came");
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
