//! A node, from the outside: its power, its services, commands in it.

use crate::{
    boot::{BOOTED, BootSpec},
    fabric::Net,
    lab::{Lab, Shape},
    process::{self, Process},
    tools::{Attempt, LabError, Result, printed},
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

/// How long a service may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that runs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// libvirtd and virtlogd.
    Libvirt,
    /// A member of the ensemble.
    ZooKeeper,
    /// The daemon under test.
    Drover,
}

impl Service {
    /// The file with its pid, as the node sees it.
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

    /// `hv1`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From 1.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What is on its disk: its `etc` and `var`, and more.
    pub fn folder(&self) -> PathBuf {
        self.lab.folder().join("nodes").join(&self.name)
    }

    fn power_file(&self) -> PathBuf {
        self.folder().join("power")
    }

    fn mark(&self) -> String {
        format!("{}/{}", self.lab.id(), self.name)
    }

    /// Its PID 1, as the host sees it.
    fn init(&self) -> Option<Process> {
        Process::load(&self.power_file())
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.init().is_some()
    }

    /// Gives it power: namespaces, links, its file system, its PID 1. No service is started.
    pub(crate) fn boot(&self) -> Result<()> {
        if self.is_on() {
            return Ok(());
        }
        let failed = || format!("{} does not boot", self.name);
        // Of a life that ended half-way.
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
        let complaints = File::create(folder.join("boot-errors")).attempt(failed)?;
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints).spawn().attempt(failed)?;
        let said = child.stdout.take().map(|pipe| BufReader::new(pipe).lines().map_while(std::result::Result::ok));
        child.wait().attempt(failed)?;
        let pid = said.and_then(|mut lines| lines.find_map(|line| line.strip_prefix(BOOTED)?.parse().ok()));
        let Some(init) = pid.and_then(Process::of) else {
            let why = fs::read_to_string(folder.join("boot-errors")).unwrap_or_default();
            return Err(LabError::new(failed(), why.trim()));
        };
        init.save(&self.power_file())
    }

    /// Switches it on, starts its services, and waits until they are ready.
    pub fn power_on(&self) -> Result<()> {
        self.boot()?;
        for service in self.services() {
            self.start_if_down(service)?;
        }
        self.wait_libvirt()
    }

    /// Pulls its power cord. The links go first: a power cut sends nobody a farewell, but the kernel would, for the
    /// processes that it ends.
    pub fn power_off(&self) -> Result<()> {
        self.lab.fabric().unplug_node(&self.name);
        if let Some(init) = self.init() {
            init.kill()?;
        }
        for process in process::marked(&self.mark()) {
            process.kill()?;
        }
        // It may have been off.
        fs::remove_file(self.power_file()).ok();
        self.lab.fabric().remove_node(&self.name)
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

    /// A command in the node, to be run with input and output as one likes.
    pub fn command(&self, argv: &[&str]) -> Result<Command> {
        let init = self.init().ok_or_else(|| LabError::new(format!("{} is off", self.name), "switch it on"))?;
        let mut command = Command::new("nsenter");
        let target = init.pid().to_string();
        command.args(["-t", &target, "-m", "-u", "-i", "-n", "-p", "--wd=/", "--"]).args(argv);
        self.environment(&mut command);
        Ok(command)
    }

    /// Runs a command in the node to its end, for a minute at most.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        let argv = [&["timeout", "-k", "1", "60"], argv].concat();
        let output = self.command(&argv)?.stdin(Stdio::null()).output();
        output.attempt(|| format!("{}: {}", self.name, argv.join(" ")))
    }

    /// The same, and gives what it printed. Fails if the command does.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        printed(&self.output(argv)?, || format!("{}: {}", self.name, argv.join(" ")))
    }

    fn shell(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-c", script])
    }

    /// The process of a service, as the host sees it.
    fn process(&self, service: Service) -> Option<Process> {
        let pid: i32 = self.exec(&["cat", service.pid_file()]).ok()?.trim().parse().ok()?;
        process::marked(&self.mark()).into_iter().find(|p| p.namespaced_pid() == Some(pid))
    }

    /// Its number on the host, to look at what it uses.
    pub fn pid(&self, service: Service) -> Option<i32> {
        self.process(service).map(|p| p.pid())
    }

    /// Starts a service, if it does not run. Only for `droverd` this waits until it is ready.
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

    /// Sends a service a signal.
    pub fn signal(&self, service: Service, signal: Signal) -> Result<()> {
        match self.process(service) {
            Some(process) => process.signal(signal),
            None => Err(LabError::new(format!("{}: {service:?} does not run", self.name), "no such process")),
        }
    }

    /// SIGKILL for a service, and waits until it is gone.
    pub fn kill(&self, service: Service) -> Result<()> {
        match self.process(service) {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// SIGTERM for a service, and waits until it is gone.
    pub fn stop(&self, service: Service) -> Result<()> {
        let Some(process) = self.process(service) else { return Ok(()) };
        process.signal(Signal::TERM)?;
        process.wait_gone(PATIENCE)
    }

    /// Starts `droverd` as a service manager would, with a socket on which it says when it is ready.
    pub fn launch_drover(&self) -> Result<Launch<'_>> {
        let failed = || format!("{}: droverd cannot be started", self.name);
        let folder = self.folder();
        // There may be no old one.
        fs::remove_file(folder.join("notify")).ok();
        // By a short path: a socket's name may have 107 bytes.
        let here = File::open(&folder).attempt(failed)?;
        let path = format!("/proc/self/fd/{}/notify", here.as_raw_fd());
        let socket = UnixDatagram::bind(path).attempt(failed)?;
        let start = Instant::now();
        self.shell(
            "NOTIFY_SOCKET=/srv/node/notify setsid droverd </dev/null >>/var/log/droverd.out 2>&1 & echo $! >/run/droverd.pid",
        )?;
        Ok(Launch { node: self, socket, start })
    }

    /// Starts `droverd` and waits until it is ready. Returns how long that took.
    pub fn start_drover(&self) -> Result<Duration> {
        self.launch_drover()?.wait()
    }

    /// The last lines that `droverd` wrote.
    pub fn drover_log(&self, lines: usize) -> String {
        self.exec(&["tail", "-n", &lines.to_string(), "/var/log/droverd.out"]).unwrap_or_default()
    }

    /// Waits until its libvirtd answers.
    pub fn wait_libvirt(&self) -> Result<()> {
        let answers = || self.exec(&["virsh", "-q", "-c", "qemu:///system", "list"]).ok();
        Lab::until(&format!("{}: libvirtd does not answer", self.name), PATIENCE, answers).map(|_| ())
    }

    /// `leader`, `follower`: what its ZooKeeper says of itself, if it answers.
    pub fn zookeeper_mode(&self) -> Option<String> {
        let ask = format!("exec 3<>/dev/tcp/{}/2181; echo srvr >&3; cat <&3", Net::Cluster.address(self.index));
        zookeeper::read_mode(&self.exec(&["timeout", "2", "bash", "-c", &ask]).ok()?)
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

/// A `droverd` that was started and is not ready yet.
#[derive(Debug)]
pub struct Launch<'a> {
    node: &'a Node<'a>,
    socket: UnixDatagram,
    start: Instant,
}

impl Launch<'_> {
    /// Waits until it says that it is ready. Returns how long that took from its start.
    pub fn wait(self) -> Result<Duration> {
        let failed = || format!("{}: droverd is not ready", self.node.name);
        // Now and then a look whether it is still there to say anything.
        self.socket.set_read_timeout(Some(Duration::from_millis(500))).attempt(failed)?;
        let mut message = [0; 256];
        while self.start.elapsed() < PATIENCE {
            match self.socket.recv(&mut message) {
                Ok(n) if String::from_utf8_lossy(message.get(..n).unwrap_or_default()).contains("READY=1") => {
                    return Ok(self.start.elapsed());
                }
                Ok(_) => {}
                Err(_) if self.node.process(Service::Drover).is_none() => break,
                Err(_) => {}
            }
        }
        Err(LabError::new(failed(), format!("its last words are:\n{}", self.node.drover_log(5).trim_end())))
    }
}
