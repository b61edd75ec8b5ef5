//! The processes of guests, so that none is forgotten which libvirt has given up.
//!
//! A QEMU that waits in the kernel for its storage does not end before that answers, whatever signal it gets. libvirt
//! 9.0.0 gives such a process up after 40 s, and then says that the domain is off: `virProcessKillPainfullyDelay`
//! reports the error, but returns 0, so `virDomainDestroy` succeeds. The process may still write to the guest's disks
//! when its storage answers. If its guest were started elsewhere meanwhile, there would be two.
//!
//! libvirt passes a domain's UUID to QEMU (`-uuid`), by which its process is found, by this daemon or by a later one.
//! Whose process it is does not matter: which user QEMU runs as is libvirt's configuration, and a VM that waits, with
//! the process named, is better than two guests.

use std::{collections::BTreeMap, fs};
use uuid::Uuid;

/// A process, which is not taken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// When it was started, in ticks since the machine's boot (proc(5), `stat`).
    started: u64,
}

impl Process {
    fn of(pid: u32) -> Option<Process> {
        let (started, _) = stat(pid)?;
        Some(Process { pid, started })
    }

    /// Whether it has not ended. One whose first thread has ended may have others that have not.
    fn lives(self) -> bool {
        let Some((started, ended)) = stat(self.pid) else { return false };
        let threads = || fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        started == self.started && (!ended || threads() > 1)
    }
}

/// When a process was started, and whether it has ended and only its parent has not noticed yet.
fn stat(pid: u32) -> Option<(u64, bool)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    // Fields 3 and 22 of proc(5).
    Some((fields.nth(18)?.parse().ok()?, matches!(state, "Z" | "X")))
}

/// The UUID of the guest of a process with these arguments.
fn guest(arguments: &[u8]) -> Option<Uuid> {
    let mut arguments = arguments.split(|byte| *byte == 0);
    arguments.find(|argument| *argument == b"-uuid")?;
    Uuid::try_parse_ascii(arguments.next()?).ok()
}

/// The processes of this machine's guests.
#[derive(Debug, Default)]
pub(super) struct Processes(BTreeMap<Uuid, Process>);

impl Processes {
    /// Looks for them.
    pub(super) fn find() -> Processes {
        let mut found = Processes::default();
        found.refresh();
        found
    }

    /// Adds those of guests that have none that lives.
    fn refresh(&mut self) {
        self.0.retain(|_, process| process.lives());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has just ended has none.
            let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
            if let (Some(uuid), Some(process)) = (guest(&arguments), Process::of(pid)) {
                self.0.entry(uuid).or_insert(process);
            }
        }
    }

    /// A new run of this guest was seen.
    pub(super) fn began(&mut self, uuid: Uuid) {
        if !self.0.get(&uuid).is_some_and(|process| process.lives()) {
            self.refresh();
        }
    }

    /// The process of a guest that is off for libvirt, if it lives.
    pub(super) fn left_over(&mut self, uuid: Uuid) -> Option<Process> {
        let process = *self.0.get(&uuid)?;
        if process.lives() {
            return Some(process);
        }
        self.0.remove(&uuid);
        None
    }

    /// All guests whose processes live, except those that are active for libvirt.
    pub(super) fn others(&mut self, active: impl Fn(&Uuid) -> bool) -> Vec<(Uuid, Process)> {
        self.0.retain(|_, process| process.lives());
        self.0.iter().filter(|(uuid, _)| !active(uuid)).map(|(uuid, process)| (*uuid, *process)).collect()
    }
}

/// What is said of a guest that is off for libvirt.
pub(super) fn given_up(process: Process) -> String {
    let pid = process.pid;
    format!("libvirt has given its QEMU up, but process {pid} has not ended: it may still write to the VM's disks")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process with a guest's arguments, which ends with its input.
    pub(crate) fn process(uuid: Uuid) -> Child {
        let arguments = ["-c", "read x; true", "qemu", "-uuid", &uuid.to_string()];
        let child = Command::new("sh").args(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // The new program's arguments are there a moment later than the new process.
        let shown = || fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| guest(&line) == Some(uuid));
        while !shown() {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn a_guests_process_is_found_until_it_has_ended() {
        let (uuid, other) = (Uuid::new_v4(), Uuid::new_v4());
        let mut child = process(uuid);
        let mut processes = Processes::find();
        assert_eq!(processes.left_over(uuid).map(|process| process.pid), Some(child.id()));
        assert_eq!(processes.left_over(other), None);
        assert_eq!(processes.others(|_| false).len(), processes.0.len());
        drop(child.stdin.take());
        // It has ended, also before its parent has noticed.
        let ended = || stat(child.id()).is_none_or(|(_, ended)| ended);
        while !ended() {
            std::thread::yield_now();
        }
        assert_eq!(processes.left_over(uuid), None);
        child.wait().unwrap();
        let mut later = process(uuid);
        processes.began(uuid);
        assert_eq!(processes.left_over(uuid).map(|process| process.pid), Some(later.id()));
        // Another process with its id is not it.
        let mut gone = Processes(BTreeMap::from([(uuid, Process { pid: later.id(), started: 1 })]));
        assert_eq!(gone.left_over(uuid), None);
        drop(later.stdin.take());
        later.wait().unwrap();
    }

    #[test]
    fn the_guest_is_read_from_the_arguments_that_libvirt_passes() {
        let uuid = Uuid::from_u128(7);
        let line = |text: &str| guest(text.replace(' ', "\0").as_bytes());
        assert_eq!(line(&format!("/usr/bin/qemu-system-x86_64 -name guest=a -uuid {uuid} -display none")), Some(uuid));
        for text in ["", "-uuid", "-uuid x", &format!("qemu {uuid}")] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
