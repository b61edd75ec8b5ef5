//! Boots a node from inside: runs as PID 1 of its new namespaces, sets up its file system from the host's, and executes
//! `tini`, which only reaps zombies.
//!
//! | path in the node | content |
//! |---|---|
//! | `/usr`, `/bin`, `/lib` ... | the host's |
//! | `/etc`, `/var` | its own, in the lab's folder: its "disk", which survives a power cut |
//! | `/run`, `/tmp`, `/dev`, `/proc`, `/sys` | its own, new at each boot |
//! | `/srv/bin` | the programs under test |
//! | `/srv/shared` | the same folder in all nodes, as if mounted from a file server |
//!
//! Nothing is written to the host's file system outside the lab's folder.

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

/// Parameters of a node's boot, passed in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BootSpec {
    pub(crate) name: String,
    /// Index of the node, from 1.
    pub(crate) index: usize,
    pub(crate) lab: Spec,
    /// The node's folder.
    pub(crate) folder: PathBuf,
    /// The folder that all nodes share.
    pub(crate) shared: PathBuf,
    /// The folder of the programs under test.
    pub(crate) programs: PathBuf,
    /// A kernel for the KVM probe, if the host has none in /boot.
    pub(crate) kernel: Option<PathBuf>,
}

/// Prefix of the line that is printed when the node's file system is complete; PID 1's PID on the host follows.
pub(crate) const BOOTED: &str = "booted ";

/// Turns this process, PID 1 of new namespaces, into a node. Returns only on failure.
pub fn boot(file: &Path) -> Result<std::convert::Infallible> {
    let text = fs::read_to_string(file).attempt(|| format!("cannot read {}", file.display()))?;
    let spec: BootSpec = serde_json::from_str(&text).attempt(|| format!("cannot read {}", file.display()))?;
    rustix::system::sethostname(spec.name.as_bytes()).attempt(|| "cannot set the host name".to_owned())?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .attempt(|| "cannot make the mounts private".to_owned())?;
    // The host's /proc is still mounted, so this is the PID on the host.
    let pid = fs::read_link("/proc/self").attempt(|| "cannot read /proc/self".to_owned())?;
    file_system(&spec)?;
    libvirt_settings(&spec)?;
    println!("{BOOTED}{}", pid.display());
    // Closes the pipe to the process that waits for that line.
    let log = fs::File::create("/var/log/boot.log").attempt(|| "cannot write /var/log/boot.log".to_owned())?;
    rustix::stdio::dup2_stdout(&log).attempt(|| "cannot redirect standard output".to_owned())?;
    rustix::stdio::dup2_stderr(&log).attempt(|| "cannot redirect standard error".to_owned())?;
    let error = Command::new("tini").args(["-s", "--", "sleep", "infinity"]).env_remove("NOTIFY_SOCKET").exec();
    Err(LabError::new("cannot start tini", error))
}

fn bind(source: &Path, target: &str) -> Result<()> {
    mount_bind_recursive(source, target).attempt(|| format!("cannot mount {} at {target}", source.display()))
}

fn tmpfs(target: &str, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).attempt(|| "invalid mount options".to_owned())?;
    mount("tmpfs", target, "tmpfs", MountFlags::empty(), options.as_c_str())
        .attempt(|| format!("cannot mount a tmpfs at {target}"))
}

fn folder(path: impl AsRef<Path>) -> Result<()> {
    fs::create_dir_all(path.as_ref()).attempt(|| format!("cannot create {}", path.as_ref().display()))
}

fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path.as_ref(), text).attempt(|| format!("cannot write {}", path.as_ref().display()))
}

fn file_system(spec: &BootSpec) -> Result<()> {
    // /srv first: the lab's folders stay reachable there when mounts hide their original paths.
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
        // A new sysfs shows the interfaces of this network namespace.
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
    // A new boot id at each boot, as the kernel would have it.
    write("/run/boot-id", format!("{}\n", uuid::Uuid::new_v4()))?;
    mount_bind("/run/boot-id", "/proc/sys/kernel/random/boot_id").attempt(|| "cannot set the boot id".to_owned())
}

/// Mounts `/etc`: a copy of the host's, with the node's own settings.
fn etc(spec: &BootSpec) -> Result<()> {
    let own = Path::new("/srv/node/etc");
    if !own.join("hostname").exists() {
        // An unfinished copy of an earlier boot, if there is one.
        fs::remove_dir_all(own).ok();
        run(&["cp", "-a", "/etc", "/srv/node/etc"])?;
        // The host's own settings, networks and guests, where it has any.
        for folder in ["libvirt", "drover"] {
            fs::remove_dir_all(own.join(folder)).ok();
        }
        for file in ["machine-id", "hosts", "hostname", "mtab"] {
            fs::remove_file(own.join(file)).ok();
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
        // Last: it marks the copy as complete.
        write(own.join("hostname"), format!("{}\n", spec.name))?;
    }
    bind(own, "/etc")
}

/// Mounts `/var`, with the folders that services expect.
fn var() -> Result<()> {
    let own = Path::new("/srv/node/var");
    for path in [
        "lib",
        "cache",
        "log",
        "tmp",
        "lib/libvirt",
        "lib/swtpm-localca",
        "lib/zookeeper",
        "lib/drover",
        "cache/libvirt",
        "log/libvirt",
    ] {
        folder(own.join(path))?;
    }
    // It exists after the first boot.
    symlink("/run", own.join("run")).ok();
    bind(own, "/var")
}

/// Mounts `/dev`. The nodes of a cluster have no `/dev/kvm`: it may exist and not work, and guests must be able to move
/// between nodes that are alike.
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
            .attempt(|| format!("cannot create the device /dev/{name}"))?;
        run(&["chmod", "666", &dev.join(name).to_string_lossy()])?;
    }
    for (target, name) in
        [("pts/ptmx", "ptmx"), ("/proc/self/fd", "fd"), ("fd/0", "stdin"), ("fd/1", "stdout"), ("fd/2", "stderr")]
    {
        symlink(target, dev.join(name)).attempt(|| format!("cannot create /dev/{name}"))?;
    }
    mount("devpts", "/srv/node/dev/pts", "devpts", MountFlags::empty(), c"newinstance,ptmxmode=0666,mode=620,gid=5")
        .attempt(|| "cannot mount /dev/pts".to_owned())?;
    tmpfs("/srv/node/dev/shm", "mode=1777,size=512m")?;
    bind(dev, "/dev")
}

/// Writes libvirt's settings: what it needs to work in namespaces, and for migration.
fn libvirt_settings(spec: &BootSpec) -> Result<()> {
    // libvirt refuses a migration between two hosts with the same UUID.
    let id = Path::new("/srv/node/uuid");
    if !id.exists() {
        write(id, uuid::Uuid::new_v4().to_string())?;
    }
    let id = fs::read_to_string(id).attempt(|| "cannot read the node's uuid".to_owned())?;
    let address = Net::Cluster.address(spec.index);
    let listen = format!("listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"{address}\"\nauth_tcp = \"none\"\n");
    let migration = format!("migration_host = \"{address}\"\nmigration_address = \"{address}\"\n");
    let (listen, migration) = if spec.lab.shape == Shape::Cluster { (listen, migration) } else { Default::default() };
    write(
        "/etc/libvirt/libvirtd.conf",
        format!(
            "{listen}auth_unix_rw = \"none\"\nunix_sock_group = \"root\"\nhost_uuid = \"{id}\"\n\
             keepalive_interval = 2\nkeepalive_count = 3\nlog_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n"
        ),
    )?;
    write(
        "/etc/libvirt/qemu.conf",
        format!(
            "{migration}namespaces = [ ]\nuser = \"root\"\ngroup = \"root\"\nswtpm_user = \"root\"\n\
             swtpm_group = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = \"none\"\n\
             cgroup_controllers = [ ]\nseccomp_sandbox = 0\nmax_core = 0\nkeepalive_interval = 2\nkeepalive_count = 3\n"
        ),
    )
}
