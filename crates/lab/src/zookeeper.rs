//! ZooKeeper members: in the nodes of a lab, or as an [`Ensemble`] on this host for tests of the store alone.
//!
//! The small heap and the short tick (500 ms: session timeouts of 1 s to 10 s) suit several members on a small machine.
//! The scripts of Debian's package are not used, because they expect a service manager.

use crate::tools::{Attempt, LabError, Result};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Settings of a member.
#[derive(Debug, Clone)]
pub(crate) struct Member<'a> {
    /// Index of the member, from 1.
    pub(crate) index: usize,
    /// Address for clients.
    pub(crate) client: SocketAddr,
    /// Lines `server.N=address:port:port` of all members; empty for a standalone server.
    pub(crate) ensemble: &'a str,
    /// The member's folder, as the member sees it.
    pub(crate) folder: &'a str,
    /// Maximum size of the Java heap in MiB.
    pub(crate) heap: u32,
}

/// Heap size in MiB for the records of a small cluster.
pub(crate) const SMALL_HEAP: u32 = 64;

impl Member<'_> {
    /// Writes the settings into the member's folder; `folder` is its path as the caller sees it.
    pub(crate) fn prepare(&self, folder: &Path) -> Result<()> {
        let failed = || format!("cannot set up a ZooKeeper member in {}", folder.display());
        fs::create_dir_all(folder.join("data")).attempt(failed)?;
        fs::create_dir_all(folder.join("conf")).attempt(failed)?;
        fs::write(folder.join("data/myid"), format!("{}\n", self.index)).attempt(failed)?;
        let quorum = if self.ensemble.is_empty() { "" } else { "standaloneEnabled=false\n" };
        let settings = format!(
            "tickTime=500\ninitLimit=20\nsyncLimit=6\ndataDir={}/data\nclientPort={}\nclientPortAddress={}\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\nautopurge.purgeInterval=1\n\
             preAllocSize=4096\n{quorum}{}",
            self.folder,
            self.client.port(),
            self.client.ip(),
            self.ensemble,
        );
        fs::write(folder.join("conf/zoo.cfg"), settings).attempt(failed)?;
        let log = format!(
            "log4j.rootLogger=INFO, F\nlog4j.appender.F=org.apache.log4j.RollingFileAppender\n\
             log4j.appender.F.File={}/zookeeper.log\nlog4j.appender.F.MaxFileSize=5MB\n\
             log4j.appender.F.layout=org.apache.log4j.PatternLayout\n\
             log4j.appender.F.layout.ConversionPattern=%d{{ISO8601}} %-5p %m%n\n",
            self.folder
        );
        fs::write(folder.join("conf/log4j.properties"), log).attempt(failed)
    }

    /// The command that runs the member.
    pub(crate) fn command(&self) -> Vec<String> {
        const JARS: &str = "/usr/share/java";
        const OPTIONS: [&str; 8] = [
            "-Xms24m",
            "-Xss256k",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:ReservedCodeCacheSize=24m",
            "-XX:MaxMetaspaceSize=48m",
            "-Dzookeeper.electionPortBindRetry=0",
            "-Dzookeeper.cnxTimeout=1000",
        ];
        let classes =
            format!("{}/conf:{JARS}/zookeeper.jar:{JARS}/slf4j-log4j12.jar:{JARS}/log4j-1.2.jar", self.folder);
        let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
        let mut argv = vec!["java".to_owned(), format!("-Xmx{}m", self.heap)];
        argv.extend(OPTIONS.map(str::to_owned));
        argv.extend(["-cp".to_owned(), classes, main.to_owned(), format!("{}/conf/zoo.cfg", self.folder)]);
        argv
    }
}

/// Queries a member's mode: `leader`, `follower` or `standalone`; `None` if it does not answer.
pub(crate) fn mode(member: SocketAddr) -> Option<String> {
    let mut connection = TcpStream::connect_timeout(&member, Duration::from_secs(1)).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    connection.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    parse_mode(&answer)
}

/// The mode in a member's answer to the command `srvr`.
pub(crate) fn parse_mode(answer: &str) -> Option<String> {
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
}

/// An ensemble on 127.0.0.1, for tests of the store. Its members are killed when this value is dropped, or when the
/// thread that started them ends.
#[derive(Debug)]
pub struct Ensemble {
    folder: PathBuf,
    members: Vec<(SocketAddr, Vec<String>, Option<Child>)>,
}

impl Ensemble {
    /// Starts an ensemble of `members` members, with their files in a folder, and waits until it serves.
    pub fn start(folder: &Path, members: usize) -> Result<Ensemble> {
        Ensemble::start_with_heap(folder, members, SMALL_HEAP)
    }

    /// Like [`Ensemble::start`], with a heap of `heap` MiB for each member.
    pub fn start_with_heap(folder: &Path, members: usize, heap: u32) -> Result<Ensemble> {
        let failed = || "cannot find free ports".to_owned();
        // All are bound at the same time, so that no port is found twice.
        let free: Vec<TcpListener> = (0..members * 3)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<std::io::Result<_>>()
            .attempt(failed)?;
        let ports: Vec<SocketAddr> =
            free.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>().attempt(failed)?;
        drop(free);
        let (clients, peers) = ports.split_at(members);
        let quorum: String = peers
            .chunks(2)
            .enumerate()
            .filter_map(|(i, p)| {
                Some(format!("server.{}=127.0.0.1:{}:{}\n", i + 1, p.first()?.port(), p.get(1)?.port()))
            })
            .collect();
        let quorum = if members == 1 { String::new() } else { quorum };
        let mut ensemble = Ensemble { folder: folder.to_owned(), members: Vec::new() };
        for (i, client) in clients.iter().enumerate() {
            let own = ensemble.member_folder(i);
            let folder = &*own.to_string_lossy();
            let member = Member { index: i + 1, client: *client, ensemble: &quorum, folder, heap };
            member.prepare(&own)?;
            ensemble.members.push((*client, member.command(), None));
            ensemble.start_member(i)?;
        }
        ensemble.wait_serving()?;
        Ok(ensemble)
    }

    fn member_folder(&self, index: usize) -> PathBuf {
        self.folder.join(format!("member{}", index + 1))
    }

    /// Addresses of the members for clients, `address:port`.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|(address, ..)| address.to_string()).collect()
    }

    /// The process ids of the members that run.
    pub fn processes(&self) -> Vec<u32> {
        self.members.iter().filter_map(|(.., child)| child.as_ref().map(Child::id)).collect()
    }

    /// Starts a member that was killed. Indexes count from 0.
    pub fn start_member(&mut self, index: usize) -> Result<()> {
        let folder = self.member_folder(index);
        let Some((_, command, child)) = self.members.get_mut(index) else { return Ok(()) };
        let out = folder.join("out");
        let out = fs::File::create(&out).attempt(|| format!("cannot write {}", out.display()))?;
        // The kernel kills the member when our thread ends, however that happens.
        let mut start = Command::new("setpriv");
        start.args(["--pdeathsig", "KILL", "--"]).args(command).stdin(Stdio::null());
        start.stdout(Stdio::null()).stderr(out);
        *child = Some(start.spawn().attempt(|| "cannot start ZooKeeper".to_owned())?);
        Ok(())
    }

    /// Sends SIGKILL to a member, and waits until it has ended. Indexes count from 0.
    pub fn kill_member(&mut self, index: usize) -> Result<()> {
        if let Some(mut child) = self.members.get_mut(index).and_then(|(_, _, child)| child.take()) {
            child.kill().and_then(|()| child.wait()).attempt(|| "cannot kill a ZooKeeper member".to_owned())?;
        }
        Ok(())
    }

    /// Index (from 0) of the leader or the standalone server, if there is one.
    pub fn leader(&self) -> Option<usize> {
        self.members.iter().position(|(address, ..)| matches!(mode(*address).as_deref(), Some("leader" | "standalone")))
    }

    /// Waits until there is a leader, and returns its index.
    pub fn wait_serving(&self) -> Result<usize> {
        crate::Lab::until("ZooKeeper has no leader", Duration::from_secs(30), || self.leader()).map_err(|e| {
            let output = fs::read_to_string(self.member_folder(0).join("out")).unwrap_or_default();
            LabError::new(e.to_string(), output)
        })
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            if let Err(error) = self.kill_member(index) {
                eprintln!("{error}");
            }
        }
    }
}
