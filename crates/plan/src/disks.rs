//! Which disk files are deleted with their VM: those that are certain to be needed by nobody else.
//!
//! The decision is made by the VM's node, in this order:
//!
//! 1. The order to delete the VM with its disks is written, together with the VM's UUID in
//!    [`Departed`](drover_model::Departed).
//! 2. The node synchronises with the store and reads all VM records anew. If one cannot be read, it waits.
//! 3. It looks at the files themselves: those to delete, those that other VMs name, and the images in Drover's folder,
//!    with their backing files. [`verdicts`] compares.
//! 4. It deletes files, and then the VM's records.
//!
//! *Why a definition through another node cannot slip between.* A definition is one transaction that checks
//! [`Departed`](drover_model::Departed)'s version, which it read before it looked for orders of deletion
//! ([`goes_away`]). The store puts that transaction and the order (1) one after the other. If the definition is first,
//! the node's synchronised read (2) shows it, and the file is kept. If the order is first, either the definition has
//! seen it and is refused, or its check fails, and it is decided again. A definition that reaches the same file by a
//! link or a backing file, which only a node that has the file can tell, is seen in (3) if it is written before (2);
//! written later, it names what was ordered to be deleted before the VM existed.

use drover_model::{
    Replaced, VmName, VmRecord, VmState,
    domain::{Named, devices::Devices, named, plain},
    image::{FileAt, Image, Looked},
};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

/// What another VM needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The VM.
    pub vm: VmName,
    /// All that its definition names, and that its guest uses.
    pub named: BTreeSet<Named>,
}

impl Needs {
    /// What a VM needs; `None`: its definition cannot be read.
    pub fn of(vm: &VmRecord) -> Option<Needs> {
        // What can be salvaged of an unreadable record need not be all.
        let readable = vm.state != VmState::Unreadable;
        readable.then(|| named(&vm.xml))?.map(|named| Needs { vm: vm.name.clone(), named })
    }

    /// Also what the VM's guest writes to, or has written to, instead of its definition's disks: an overlay needs what
    /// is below it, and is needed itself.
    #[must_use]
    pub fn and(mut self, replaced: Option<&Replaced>) -> Needs {
        let live = replaced.into_iter().flat_map(|replaced| &replaced.disks).map(|disk| Path::new(&disk.live));
        self.named.extend(live.filter(|path| path.is_absolute()).map(|path| Named::File(plain(path))));
        self
    }

    /// Whether it names this file, to the letter but for `//`, `.` and `..`.
    fn names(&self, file: &FileAt) -> bool {
        self.named.iter().any(|named| match named {
            Named::File(path) => *path == file.path,
            Named::Tree(folder) => file.path.starts_with(folder),
            Named::Volume(name) => file.path.file_name().is_some_and(|last| last == name.as_str()),
        })
    }
}

/// Why a file is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A VM needs it.
    By(VmName),
    /// An image that no VM need have yet is made of it.
    For(PathBuf),
    /// It is not certain whether anything else needs it.
    Uncertain(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::By(vm) => write!(f, "VM {vm} needs it"),
            Kept::For(image) => write!(f, "image {} needs it", image.display()),
            Kept::Uncertain(why) => write!(f, "it is not certain that nothing else needs it: {why}"),
        }
    }
}

/// The disk files that could go with a VM: those that its guest writes to.
pub fn own(vm: &VmRecord) -> Vec<PathBuf> {
    let disks = Devices::read(&vm.xml).disks.into_iter();
    disks.filter(|d| d.kind == "file" && !d.read_only && !d.name.is_empty()).map(|d| d.name.as_str().into()).collect()
}

/// The paths that others name, to be looked at.
pub fn paths(others: &[Needs]) -> Vec<PathBuf> {
    let named = others.iter().flat_map(|needs| &needs.named);
    let paths: BTreeSet<&PathBuf> = named
        .filter_map(|named| match named {
            Named::File(path) | Named::Tree(path) => Some(path),
            Named::Volume(_) => None,
        })
        .collect();
    paths.into_iter().cloned().collect()
}

/// The file of a VM that is being deleted with its disks which a new definition names too, if any.
pub fn goes_away(leaving: &VmRecord, definition: &Needs) -> Option<PathBuf> {
    if !matches!(leaving.state, VmState::Delete { disks: true }) {
        return None;
    }
    own(leaving).into_iter().find(|file| definition.names(&FileAt { path: plain(file), inode: None }))
}

/// What others, of these, need a file of the VM, as far as their definitions tell.
pub fn shared<'a>(vm: &VmRecord, others: impl Iterator<Item = &'a VmRecord>) -> Vec<(PathBuf, VmName)> {
    let files: Vec<PathBuf> = own(vm);
    let others = others.filter(|other| other.uuid != vm.uuid).filter_map(Needs::of);
    let of = |other: Needs| {
        let shared = files.iter().filter(|file| other.names(&FileAt { path: plain(file), inode: None }));
        shared.map(|file| (file.clone(), other.vm.clone())).collect::<Vec<_>>()
    };
    others.flat_map(of).collect()
}

/// For each file of the VM why it is kept; `None`: it is deleted.
pub fn verdicts(others: &[Needs], looked: &Looked) -> Vec<(PathBuf, Option<Kept>)> {
    looked.own.iter().map(|image| (image.path.clone(), keep(image, others, looked))).collect()
}

fn keep(image: &Image, others: &[Needs], looked: &Looked) -> Option<Kept> {
    let own = image.files.first()?;
    let spelled = FileAt { path: plain(&image.path), inode: None };
    if let Some(other) = others.iter().find(|other| other.names(own) || other.names(&spelled)) {
        return Some(Kept::By(other.vm.clone()));
    }
    let uses = |other: &Image| other.files.iter().any(|file| file.is_same(own));
    // The folders that other VMs share with their guests are compared after all links, too.
    let within = |named: &Named| match named {
        Named::Tree(folder) => {
            let found = looked.named.iter().find(|image| image.path == *folder);
            found.and_then(|image| image.files.first()).is_some_and(|folder| own.path.starts_with(&folder.path))
        }
        Named::File(path) => looked.named.iter().any(|image| image.path == *path && uses(image)),
        Named::Volume(_) => false,
    };
    if let Some(other) = others.iter().find(|other| other.named.iter().any(within)) {
        return Some(Kept::By(other.vm.clone()));
    }
    let goes = |other: &Image| {
        let first = other.files.first();
        first.is_some_and(|file| looked.own.iter().filter_map(|own| own.files.first()).any(|own| own.is_same(file)))
    };
    if let Some(other) = looked.folder.iter().find(|other| !goes(other) && uses(other)) {
        return Some(Kept::For(other.path.clone()));
    }
    let problem = |image: &Image| image.problem.as_ref().map(|why| format!("{}: {why}", image.path.display()));
    let others = looked.named.iter().chain(looked.folder.iter().filter(|image| !goes(image)));
    let problem = looked.problem.clone().or_else(|| problem(image)).or_else(|| others.into_iter().find_map(problem));
    problem.map(Kept::Uncertain)
}

#[cfg(test)]
mod tests;
