//! What a node does first: it runs as PID 1 in its new namespaces, makes its own file system out of the host's, and
//! hands over to `tini`, which only reaps.
//!
//! The node sees the host's `/usr`, and its own `/etc` and `/var` (kept over a power cut in the lab's folder: its
//! "disk"), `/run`, `/tmp`, `/dev`, `/proc` and `/sys`. `/srv/bin` has the programs under test, `/srv/shared` is the
//! same folder in every node, as a file server would give it. The host's file system is not written to anywhere but in
//! the lab's folder.

use crate::{
    fabric::Net,
    lab::{Shape, Spec},
    tools::{Attempt, LabError, Result, run},
};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// What a node is told to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BootSpec {
    pub(crate) name: String,
    /// From 1.
    pub(crate) index: usize,
    pub(crate) lab: Spec,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The folder that all nodes share.
    pub(crate) shared: PathBuf,
    /// The folder of the programs under test.
    pub(crate) programs: PathBuf,
    /// A kernel to try KVM with, where the host has none in /boot.
    pub(crate) kernel: Option<PathBuf>,
}

/// Printed when the node's file system is complete, with the number that PID 1 has on the host.
pub(crate) const BOOTED: &str = "booted ";

/// Turns this process, PID 1 of new namespaces, into a node. Returns only if it fails.
pub fn boot(file: &Path) -> Result<std::convert::Infallible> {
    let text = fs::read_to_string(file).attempt(|| format!("cannot read {}", file.display()))?;
    let spec: BootSpec = serde_json::from_str(&text).attempt(|| format!("cannot read {}", file.display()))?;
    rustix::system::sethostname(spec.name.as_bytes()).attempt(|| "cannot set the host name".to_owned())?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .attempt(|| "cannot make the mounts private".to_owned())?;
    // As long as the host's /proc is there, it tells what the host calls this process.
    let pid = fs::read_link("/proc/self").attempt(|| "cannot read /proc/self".to_owned())?;
    file_system(&spec)?;
    libvirt_settings(&spec)?;
    println!("{BOOTED}{}", pid.display());
    // From here on nobody of the node holds the pipe to the one who waits for that line.
    let log = fs::File::create("/var/log/boot.log").attempt(|| "cannot write /var/log/boot.log".to_owned())?;
    rustix::stdio::dup2_stdout(&log).attempt(|| "cannot leave the terminal".to_owned())?;
    rustix::stdio::dup2_stderr(&log).attempt(|| "cannot leave the terminal".to_owned())?;
    let error = Command::new("tini").args(["-s", "--", "sleep", "infinity"]).env_remove("NOTIFY_SOCKET").exec();
    Err(LabError::new("cannot start tini", error))
}

fn bind(source: &Path, target: &str) -> Result<()> {
    mount_bind_recursive(source, target).attempt(|| format!("cannot mount {} at {target}", source.display()))
}

fn tmpfs(target: &str, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).attempt(|| "mount options".to_owned())?;
    mount("tmpfs", target, "tmpfs", MountFlags::empty(), options.as_c_str())
        .attempt(|| format!("cannot mount a file system in memory at {target}"))
}

fn folder(path: impl AsRef<Path>) -> Result<()> {
    fs::create_dir_all(path.as_ref()).attempt(|| format!("cannot make {}", path.as_ref().display()))
}

fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path.as_ref(), text).attempt(|| format!("cannot write {}", path.as_ref().display()))
}

fn file_system(spec: &BootSpec) -> Result<()> {
    // /srv first: it keeps the lab's folders in reach while the places where they may be are covered.
    tmpfs("/srv", "mode=755,size=1m")?;
    for (name, source) in [("node", &spec.folder), ("shared", &spec.shared), ("bin", &spec.programs)] {
        let target = format!("/srv/{name}");
        folder(&target)?;
        bind(source, &target)?;
    }
    if let Some(kernel) = &spec.kernel {
        write("/srv/kernel", "")?;
        bind(kernel, "/srv/kernel")?;
        tmpfs("/boot", "mode=755,size=1m")?;
        write("/boot/vmlinuz-lab", "")?;
        bind(Path::new("/srv/kernel"), "/boot/vmlinuz-lab")?;
    }
    mount("proc", "/proc", "proc", MountFlags::empty(), None).attempt(|| "cannot mount /proc".to_owned())?;
    if spec.lab.shape == Shape::Cluster {
        // A fresh one shows the network interfaces of this namespace.
        unmount("/sys", UnmountFlags::DETACH).ok();
        mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).attempt(|| "cannot mount /sys".to_owned())?;
    }
    etc(spec)?;
    var()?;
    devices(spec.lab.shape == Shape::Alone)?;
    for (path, options) in [("/run", "mode=755,size=256m"), ("/tmp", "mode=1777,size=512m")] {
        tmpfs(path, options)?;
    }
    for path in ["/run/lock", "/run/netns", "/run/libvirt"] {
        folder(path)?;
    }
    // The kernel's id of its boot, which is another one after each power cycle.
    write("/run/boot-id", format!("{}\n", uuid::Uuid::new_v4()))?;
    mount_bind("/run/boot-id", "/proc/sys/kernel/random/boot_id").attempt(|| "cannot give a boot id".to_owned())
}

/// A copy of the host's `/etc` with what is this node's own.
fn etc(spec: &BootSpec) -> Result<()> {
    let own = Path::new("/srv/node/etc");
    if !own.join("hostname").exists() {
        // There may be a half-made one, or none.
        fs::remove_dir_all(own).ok();
        run(&["cp", "-a", "/etc", "/srv/node/etc"])?;
        // The host's networks and guests are not this node's.
        fs::remove_dir_all(own.join("libvirt")).ok();
        // There may be none.
        fs::remove_dir_all(own.join("drover")).ok();
        for made in ["machine-id", "hosts", "hostname", "mtab"] {
            // There may be none.
            fs::remove_file(own.join(made)).ok();
        }
        write(own.join("machine-id"), format!("{}\n", uuid::Uuid::new_v4().simple()))?;
        let peers = (1..=spec.lab.nodes).map(|i| format!("{} hv{i}\n", Net::Cluster.address(i)));
        let peers: String = if spec.lab.shape == Shape::Cluster { peers.collect() } else { String::new() };
        write(own.join("hosts"), format!("127.0.0.1 localhost {}\n{peers}", spec.name))?;
        folder(own.join("libvirt"))?;
        folder(own.join("drover"))?;
        if let Some(config) = &spec.lab.config_of(spec.index) {
            write(own.join("drover/drover.toml"), config)?;
        }
        write(own.join("hostname"), format!("{}\n", spec.name))?;
    }
    bind(own, "/etc")
}

fn var() -> Result<()> {
    let own = Path::new("/srv/node/var");
    for path in
        ["lib", "cache", "log", "tmp", "lib/libvirt", "lib/zookeeper", "lib/drover", "cache/libvirt", "log/libvirt"]
    {
        folder(own.join(path))?;
    }
    // It may be there already.
    symlink("/run", own.join("run")).ok();
    bind(own, "/var")
}

/// A `/dev` of its own. A cluster's nodes have no KVM: they stand for machines that are alike, and it may be there and
/// not work.
fn devices(kvm: bool) -> Result<()> {
    const DEVICES: [(&str, u32, u32); 8] = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("fuse", 10, 229),
        ("net/tun", 10, 200),
    ];
    folder("/srv/node/dev")?;
    tmpfs("/srv/node/dev", "mode=755,size=1m")?;
    let dev = Path::new("/srv/node/dev");
    for path in ["net", "pts", "shm", "mqueue", "hugepages"] {
        folder(dev.join(path))?;
    }
    let kvm = (kvm && Path::new("/dev/kvm").exists()).then_some(("kvm", 10, 232));
    for (name, major, minor) in DEVICES.into_iter().chain(kvm) {
        mknodat(CWD, dev.join(name), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
            .attempt(|| format!("cannot make the device {name}"))?;
        run(&["chmod", "666", &dev.join(name).to_string_lossy()])?;
    }
    for (target, name) in
        [("pts/ptmx", "ptmx"), ("/proc/self/fd", "fd"), ("fd/0", "stdin"), ("fd/1", "stdout"), ("fd/2", "stderr")]
    {
        symlink(target, dev.join(name)).attempt(|| format!("cannot make /dev/{name}"))?;
    }
    mount("devpts", "/srv/node/dev/pts", "devpts", MountFlags::empty(), c"newinstance,ptmxmode=0666,mode=620,gid=5")
        .attempt(|| "cannot mount /dev/pts".to_owned())?;
    tmpfs("/srv/node/dev/shm", "mode=1777,size=512m")?;
    bind(dev, "/dev")
}

/// libvirt's settings: those without which it does not work in a node of this kind, and for moving guests.
fn libvirt_settings(spec: &BootSpec) -> Result<()> {
    // Two libvirtds that say the same id refuse to move a guest between them.
    let id = Path::new("/srv/node/uuid");
    if !id.exists() {
        write(id, uuid::Uuid::new_v4().to_string())?;
    }
    let id = fs::read_to_string(id).attempt(|| "cannot read the node's uuid".to_owned())?;
    let address = Net::Cluster.address(spec.index);
    let network = format!("listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"{address}\"\nauth_tcp = \"none\"\n");
    let moving = format!("migration_host = \"{address}\"\nmigration_address = \"{address}\"\n");
    let (network, moving) = if spec.lab.shape == Shape::Cluster { (network, moving) } else { Default::default() };
    write(
        "/etc/libvirt/libvirtd.conf",
        format!(
            "{network}auth_unix_rw = \"none\"\nunix_sock_group = \"root\"\nhost_uuid = \"{id}\"\nkeepalive_interval = 2\nkeepalive_count = 3\nlog_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n"
        ),
    )?;
    write(
        "/etc/libvirt/qemu.conf",
        format!(
            "{moving}namespaces = [ ]\nuser = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = \"none\"\ncgroup_controllers = [ ]\nseccomp_sandbox = 0\nmax_core = 0\nkeepalive_interval = 2\nkeepalive_count = 3\n"
        ),
    )
}
