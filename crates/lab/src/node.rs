//! A node of a lab, from outside: its power, its services, commands in it.

use crate::{
    boot::{BOOTED, BootSpec},
    fabric::Net,
    lab::{Lab, Shape},
    process::{self, Process},
    tools::{Attempt, LabError, Result, stdout},
    zookeeper::{self, Member, SMALL_HEAP},
};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::{fd::AsRawFd, unix::net::UnixDatagram},
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Timeout for the start and the stop of a service.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout for a command in a node, in seconds. A `drover` that waits for a guest's power-off may take a minute: the
/// guest is asked again after half of one.
const COMMAND_TIMEOUT_S: &str = "180";

/// A service of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// libvirtd and virtlogd.
    Libvirt,
    /// The node's ZooKeeper member.
    ZooKeeper,
    /// `droverd`.
    Drover,
}

impl Service {
    /// The PID file, as a path in the node.
    fn pid_file(self) -> &'static str {
        match self {
            Service::Libvirt => "/run/libvirtd.pid",
            Service::ZooKeeper => "/run/zookeeper.pid",
            Service::Drover => "/run/droverd.pid",
        }
    }
}

/// A node of a lab.
#[derive(Debug)]
pub struct Node<'a> {
    lab: &'a Lab,
    name: String,
    index: usize,
}

impl<'a> Node<'a> {
    pub(crate) fn new(lab: &'a Lab, index: usize) -> Node<'a> {
        Node { lab, name: format!("hv{index}"), index }
    }

    pub(crate) fn lab(&self) -> &Lab {
        self.lab
    }

    /// Name: `hv1`, `hv2`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index, from 1.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The node's folder, its "disk": `etc`, `var`, and the lab's own files about the node.
    pub fn folder(&self) -> PathBuf {
        self.lab.folder().join("nodes").join(&self.name)
    }

    pub(crate) fn power_file(&self) -> PathBuf {
        self.folder().join("power")
    }

    fn mark(&self) -> String {
        format!("{}/{}", self.lab.id(), self.name)
    }

    /// The node's PID 1.
    pub(crate) fn init(&self) -> Option<Process> {
        Process::load(&self.power_file())
    }

    /// Whether the node is switched on.
    pub fn is_on(&self) -> bool {
        self.init().is_some()
    }

    /// Boots the node without services: its namespaces, links, file system and PID 1. Does nothing if it is on.
    pub(crate) fn boot(&self) -> Result<()> {
        let _turn = self.turn()?;
        if self.is_on() {
            return Ok(());
        }
        self.bmc_with_power()?;
        let failed = || format!("cannot boot {}", self.name);
        // Remains of an unfinished boot or power-off.
        for process in process::marked(&self.mark()) {
            process.kill()?;
        }
        let folder = self.folder();
        fs::create_dir_all(&folder).attempt(failed)?;
        let programs = fs::canonicalize(self.lab.folder().join("programs")).attempt(failed)?;
        let clustered = self.lab.spec().shape == Shape::Cluster;
        let no_kernel = fs::read_dir("/boot").map_or(true, |mut entries| {
            !entries.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("vmlinuz-")))
        });
        let spec = BootSpec {
            name: self.name.clone(),
            index: self.index,
            lab: self.lab.spec().clone(),
            folder: folder.clone(),
            shared: self.lab.shared(),
            programs: programs.clone(),
            kernel: (!clustered && no_kernel).then(|| self.lab.shared().join("guest/vmlinuz")),
        };
        let file = folder.join("boot.json");
        fs::write(&file, serde_json::to_string_pretty(&spec).attempt(failed)?).attempt(failed)?;

        let mut command = Command::new("setsid");
        command.arg("--fork");
        if clustered {
            self.lab.fabric().plug_node(&self.name, self.index)?;
            command.args(["nsenter", &format!("--net=/run/netns/{}", self.lab.fabric().netns(&self.name))]);
        }
        command.args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]);
        command.arg(programs.join("drover-lab")).arg("boot-node").arg(&file);
        self.environment(&mut command);
        let errors = File::create(folder.join("boot-errors")).attempt(failed)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn().attempt(failed)?;
        let lines = child.stdout.take().map(|pipe| BufReader::new(pipe).lines().map_while(std::result::Result::ok));
        child.wait().attempt(failed)?;
        let pid = lines.and_then(|mut lines| lines.find_map(|line| line.strip_prefix(BOOTED)?.parse().ok()));
        let Some(init) = pid.and_then(Process::of) else {
            let why = fs::read_to_string(folder.join("boot-errors")).unwrap_or_default();
            return Err(LabError::new(failed(), why.trim()));
        };
        init.save(&self.power_file())
    }

    /// Switches the node on, starts its services, and waits until they are ready.
    pub fn power_on(&self) -> Result<()> {
        self.boot()?;
        for service in self.services() {
            self.start_if_down(service)?;
        }
        self.wait_libvirt()
    }

    /// The node loses its power, and so does its BMC if it has that quirk.
    pub fn power_off(&self) -> Result<()> {
        self.bmc_without_power();
        self.cut_power()
    }

    /// Cuts the node's power. The links are removed first, because the kernel would close the connections of killed
    /// processes, which a machine without power does not do.
    pub(crate) fn cut_power(&self) -> Result<()> {
        let _turn = self.turn()?;
        self.lab.fabric().unplug_node(&self.name);
        if let Some(init) = self.init() {
            init.kill()?;
        }
        for process in process::marked(&self.mark()) {
            process.kill()?;
        }
        // Absent if the node was off.
        fs::remove_file(self.power_file()).ok();
        self.lab.fabric().remove_node(&self.name)
    }

    /// Whoever changes the node's power: its BMC and others may do so at the same time.
    fn turn(&self) -> Result<File> {
        let failed = || format!("{}: cannot lock its power", self.name);
        fs::create_dir_all(self.folder()).attempt(failed)?;
        let turn = File::create(self.folder().join("power.lock")).attempt(failed)?;
        turn.lock().attempt(failed)?;
        Ok(turn)
    }

    fn environment(&self, command: &mut Command) {
        let terminal = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
        command
            .env_clear()
            .env("PATH", "/srv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/srv/node")
            .env("LANG", "C.UTF-8")
            .env("TERM", terminal)
            .env("PS1", format!("{}# ", self.name))
            .env(process::MARK, self.mark());
    }

    /// A command in the node, which the caller runs.
    ///
    /// # Errors
    /// If the node is off.
    pub fn command(&self, argv: &[&str]) -> Result<Command> {
        let hint = format!("switch it on with: drover-lab power on {}", self.name);
        let init = self.init().ok_or_else(|| LabError::new(format!("{} is off", self.name), hint))?;
        let mut command = Command::new("nsenter");
        let target = init.pid().to_string();
        command.args(["-t", &target, "-m", "-u", "-i", "-n", "-p", "--wd=/", "--"]).args(argv);
        self.environment(&mut command);
        Ok(command)
    }

    /// Runs a command in the node, with a timeout of three minutes, and returns its status and output.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        let argv = [&["timeout", "-k", "1", COMMAND_TIMEOUT_S], argv].concat();
        let output = self.command(&argv)?.stdin(Stdio::null()).output();
        output.attempt(|| format!("{}: {}", self.name, argv.join(" ")))
    }

    /// Like [`Node::output`], but returns only standard output, and fails if the command fails.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        stdout(&self.output(argv)?, || format!("{}: {}", self.name, argv.join(" ")))
    }

    fn shell(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-c", script])
    }

    /// The process of a service, if it runs.
    fn process(&self, service: Service) -> Option<Process> {
        let pid: i32 = self.exec(&["cat", service.pid_file()]).ok()?.trim().parse().ok()?;
        process::marked(&self.mark()).into_iter().find(|p| p.namespaced_pid() == Some(pid))
    }

    /// PID of a service on the host, if it runs; for measurements.
    pub fn pid(&self, service: Service) -> Option<i32> {
        self.process(service).map(|p| p.pid())
    }

    /// Starts a service if it does not run. Waits until it is ready only for `droverd`.
    pub fn start_if_down(&self, service: Service) -> Result<()> {
        if self.process(service).is_some() {
            return Ok(());
        }
        match service {
            Service::Libvirt => {
                let listen = if self.lab.spec().shape == Shape::Cluster { "--listen" } else { "" };
                self.shell(&format!("test -e /run/virtlogd.pid || virtlogd -d; libvirtd -d {listen}")).map(|_| ())
            }
            Service::ZooKeeper => self.start_zookeeper(),
            Service::Drover => self.start_drover().map(|_| ()),
        }
    }

    /// Sends a signal to a service.
    ///
    /// # Errors
    /// If the service does not run.
    pub fn signal(&self, service: Service, signal: Signal) -> Result<()> {
        match self.process(service) {
            Some(process) => process.signal(signal),
            None => Err(LabError::new(format!("{}: cannot signal {service:?}", self.name), "it is not running")),
        }
    }

    /// Sends SIGKILL to a service, and waits until it has ended. Succeeds if it does not run.
    pub fn kill(&self, service: Service) -> Result<()> {
        match self.process(service) {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Sends SIGTERM to a service, and waits until it has ended. Succeeds if it does not run.
    pub fn stop(&self, service: Service) -> Result<()> {
        let Some(process) = self.process(service) else { return Ok(()) };
        process.signal(Signal::TERM)?;
        process.wait_ended(SERVICE_TIMEOUT)
    }

    /// Starts `droverd` as a service manager does: with a socket on which it notifies that it is ready (sd_notify(3)),
    /// and with systemd's usual limit of open files.
    pub fn launch_drover(&self) -> Result<Launch<'_>> {
        let failed = || format!("{}: cannot start droverd", self.name);
        let folder = self.folder();
        // The socket of an earlier start, if there is one.
        fs::remove_file(folder.join("notify")).ok();
        // A short path, because that of a socket has at most 107 bytes.
        let opened = File::open(&folder).attempt(failed)?;
        let path = format!("/proc/self/fd/{}/notify", opened.as_raw_fd());
        let socket = UnixDatagram::bind(path).attempt(failed)?;
        let start = Instant::now();
        self.shell(
            "ulimit -Sn 1024; NOTIFY_SOCKET=/srv/node/notify setsid droverd </dev/null >>/var/log/droverd.out 2>&1 & \
             echo $! >/run/droverd.pid",
        )?;
        Ok(Launch { node: self, socket, start })
    }

    /// Starts `droverd` and waits until it is ready. Returns the time that this took.
    pub fn start_drover(&self) -> Result<Duration> {
        self.launch_drover()?.wait()
    }

    /// The last lines of `droverd`'s output.
    pub fn drover_log(&self, lines: usize) -> String {
        self.exec(&["tail", "-n", &lines.to_string(), "/var/log/droverd.out"]).unwrap_or_default()
    }

    /// Waits until libvirtd answers.
    pub fn wait_libvirt(&self) -> Result<()> {
        let answers = || self.exec(&["virsh", "-q", "-c", "qemu:///system", "list"]).ok();
        Lab::until(&format!("{}: libvirtd does not answer", self.name), SERVICE_TIMEOUT, answers).map(|_| ())
    }

    /// Mode of the node's ZooKeeper member, such as `leader` or `follower`; `None` if it does not answer.
    pub fn zookeeper_mode(&self) -> Option<String> {
        let query = format!("exec 3<>/dev/tcp/{}/2181; echo srvr >&3; cat <&3", Net::Cluster.address(self.index));
        zookeeper::parse_mode(&self.exec(&["timeout", "2", "bash", "-c", &query]).ok()?)
    }

    fn start_zookeeper(&self) -> Result<()> {
        let address = Net::Cluster.address(self.index);
        let client = format!("{address}:2181").parse().attempt(|| address)?;
        let members: Vec<(usize, String)> = self.lab.spec().members().collect();
        let servers: String = members.iter().map(|(i, a)| format!("server.{i}={a}:2888:3888\n")).collect();
        let ensemble = if members.len() > 1 { servers.as_str() } else { "" };
        let member = Member { index: self.index, client, ensemble, folder: "/var/lib/zookeeper", heap: SMALL_HEAP };
        member.prepare(&self.folder().join("var/lib/zookeeper"))?;
        let command = member.command().join(" ");
        self.shell(&format!("setsid {command} </dev/null >/var/log/zookeeper.out 2>&1 & echo $! >/run/zookeeper.pid"))
            .map(|_| ())
    }
}

/// A `droverd` that was started and may not be ready yet.
#[derive(Debug)]
pub struct Launch<'a> {
    node: &'a Node<'a>,
    socket: UnixDatagram,
    start: Instant,
}

impl Launch<'_> {
    /// Waits until `droverd` notifies that it is ready. Returns the time since its start.
    ///
    /// # Errors
    /// If it exits before, or after a timeout; with the end of its log.
    pub fn wait(self) -> Result<Duration> {
        let failed = || format!("{}: droverd has not become ready", self.node.name);
        // Checks every 500 ms whether the process still exists.
        self.socket.set_read_timeout(Some(Duration::from_millis(500))).attempt(failed)?;
        let mut message = [0; 256];
        while self.start.elapsed() < SERVICE_TIMEOUT {
            match self.socket.recv(&mut message) {
                Ok(n) if String::from_utf8_lossy(message.get(..n).unwrap_or_default()).contains("READY=1") => {
                    return Ok(self.start.elapsed());
                }
                Ok(_) => {}
                Err(_) if self.node.process(Service::Drover).is_none() => break,
                Err(_) => {}
            }
        }
        Err(LabError::new(failed(), format!("the end of its log:\n{}", self.node.drover_log(5).trim_end())))
    }
}
