//! Files of disks as a node has them: what a path leads to, and what an image is made of.

use std::path::PathBuf;

/// What a path leads to on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAt {
    /// The path after all symbolic links, as far as it exists.
    pub path: PathBuf,
    /// Device and inode; `None`: there is nothing.
    pub inode: Option<(u64, u64)>,
}

impl FileAt {
    /// Whether both are the same file, by whatever path.
    pub fn is_same(&self, other: &FileAt) -> bool {
        self.path == other.path || (self.inode.is_some() && self.inode == other.inode)
    }
}

/// An image, or any other file that may be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The path that was looked at.
    pub path: PathBuf,
    /// The file itself, and then all that it is made of: backing files, and theirs; files with its data.
    pub files: Vec<FileAt>,
    /// Why `files` may not be all of them.
    pub problem: Option<String>,
}

/// What a node found when it was to delete disks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// The files to delete.
    pub own: Vec<Image>,
    /// The files that other VMs name.
    pub named: Vec<Image>,
    /// All files in the folder of Drover's disks.
    pub folder: Vec<Image>,
    /// Why this may not be all.
    pub problem: Option<String>,
}
