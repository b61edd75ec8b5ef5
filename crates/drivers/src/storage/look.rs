//! Looks at disk files: where a path leads, and what an image is made of.
//!
//! `qemu-img info` without `--backing-chain` of QEMU 7.2 opens the image without its backing file
//! (`BDRV_O_NO_BACKING`, qemu-img.c) and names that file. So the chain is followed one image at a time, and one whose
//! backing file is gone can still be read. `-U` also reads an image that a running QEMU writes to.
//!
//! Whether a QEMU has a file to delete open is asked of its locks, so that no such file counts as unneeded, whatever
//! the records say. `qemu-img` without `-U` cannot tell: it fails on a qcow2 image that a QEMU writes to, but not on a
//! raw one, nor on one that is open for reading, as a backing file is.

use drover_model::{
    domain::{paths_in, plain},
    image::{FileAt, Image, Looked},
};
use futures_util::{StreamExt, stream};
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};
use serde_json::Value;
use std::{
    fs::File,
    io::Read,
    ops::Range,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// Deadline of the whole look.
const DEADLINE: Duration = Duration::from_secs(60);
/// Number of images that are looked at at the same time.
const AT_ONCE: usize = 4;
/// Maximum number of files that one image is made of.
const CHAIN_MAX: usize = 256;
/// The bytes that QEMU locks in an image that it has open: each a permission that it has (from 100), or that it does
/// not share (from 200). QEMU 7.2, block/file-posix.c.
const QEMU_LOCKS: Range<i64> = 100..300;
/// Beginnings of the formats whose images can be made of other files: qcow and qcow2, QED, VMDK.
const MADE_OF_OTHERS: [&[u8]; 5] = [b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"# Di"];

/// Looks at files, and at all in the folder.
pub(super) async fn look(folder: PathBuf, own: Vec<PathBuf>, named: Vec<PathBuf>) -> Looked {
    let paths = own.clone();
    let looking = async {
        let listed = tokio::task::spawn_blocking(move || list(&folder)).await;
        let (listed, problem) = match listed {
            Ok(Ok(listed)) => (listed, None),
            Ok(Err(error)) => (Vec::new(), Some(format!("Drover's folder of disks cannot be read: {error}"))),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let own = images(own, true).await;
        Looked { own, named: images(named, false).await, folder: images(listed, false).await, problem }
    };
    timeout(DEADLINE, looking).await.unwrap_or_else(|_| {
        let own = paths.into_iter();
        let own =
            own.map(|path| Image { files: vec![FileAt { path: plain(&path), inode: None }], path, problem: None });
        let problem = Some(format!("looking at all images took more than {} s", DEADLINE.as_secs()));
        Looked { own: own.collect(), problem, ..Looked::default() }
    })
}

async fn images(paths: Vec<PathBuf>, unused: bool) -> Vec<Image> {
    stream::iter(paths).map(|path| image(path, unused)).buffered(AT_ONCE).collect().await
}

/// All files below a folder; none if there is no folder.
fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut todo, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = todo.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // Of the entry itself: a link to a folder is not followed.
            if entry.file_type()?.is_dir() { todo.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    Ok(files)
}

/// What a path leads to, and whether that may be made of other files.
fn at(path: &Path) -> std::io::Result<(FileAt, bool)> {
    let real = match path.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // What is there of it: a missing file is where its folder is.
            let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
            let missing = match (folder, path.file_name()) {
                (Some(folder), Some(name)) => folder.join(name),
                _ => plain(path),
            };
            return Ok((FileAt { path: missing, inode: None }, false));
        }
        real => real?,
    };
    let about = std::fs::metadata(&real)?;
    let inode = Some((about.dev(), about.ino()));
    let mut made = false;
    if about.is_file() || about.file_type().is_block_device() {
        let mut begin = Vec::new();
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&real)?;
        file.take(4).read_to_end(&mut begin)?;
        made = MADE_OF_OTHERS.contains(&&*begin);
    }
    Ok((FileAt { path: real, inode }, made))
}

/// Whether a QEMU has a file open. It asks for a lock that no other lock allows, and takes none.
fn is_open(path: &Path) -> std::io::Result<bool> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: QEMU_LOCKS.start,
        l_len: QEMU_LOCKS.end - QEMU_LOCKS.start,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as i16)
}

/// Looks at one image. `unused`: it is a problem if a running QEMU has it open.
async fn image(path: PathBuf, unused: bool) -> Image {
    let (mut files, mut todo, mut problem) = (Vec::<FileAt>::new(), vec![path.clone()], None);
    while let Some(next) = todo.pop() {
        let asked = next.clone();
        let found = tokio::task::spawn_blocking(move || at(&asked)).await;
        let (file, made) = match found.map_err(std::io::Error::other).flatten() {
            Ok(found) => found,
            Err(error) => {
                problem = Some(format!("{} cannot be read: {error}", next.display()));
                (FileAt { path: plain(&next), inode: None }, false)
            }
        };
        if files.contains(&file) {
            continue;
        }
        let exists = file.inode.is_some();
        let folder = file.path.parent().map(Path::to_owned).unwrap_or_default();
        let at = file.path.clone();
        if unused && exists && files.is_empty() {
            let asked = at.clone();
            let open = tokio::task::spawn_blocking(move || is_open(&asked)).await;
            match open.map_err(std::io::Error::other).flatten() {
                Ok(false) => {}
                Ok(true) => problem = Some("a running QEMU has it open".to_owned()),
                Err(error) => problem = Some(format!("its locks cannot be read: {error}")),
            }
        }
        files.push(file);
        if files.len() > CHAIN_MAX {
            problem = Some(format!("it is made of more than {CHAIN_MAX} files"));
            break;
        }
        if exists && made {
            match info(&at).await {
                Ok(info) => todo.extend(made_of(&info, &folder)),
                Err(why) => problem = Some(why),
            }
        }
    }
    Image { path, files, problem }
}

/// What `qemu-img` says about an image.
async fn info(path: &Path) -> Result<Value, String> {
    let mut command = Command::new("qemu-img");
    command.args(["info", "--output=json", "-U", "--"]).arg(path);
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("qemu-img cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.chars().filter(|c| !c.is_control()).take(300).collect());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("qemu-img gives no usable answer: {error}"))
}

/// The files that an image is made of: its backing file, and files with its data.
fn made_of(info: &Value, folder: &Path) -> Vec<PathBuf> {
    let data = info.pointer("/format-specific/data");
    let extents = data.and_then(|data| data.get("extents")).and_then(Value::as_array).into_iter().flatten();
    let extents = extents.filter_map(|extent| extent.get("filename"));
    let backing = ["full-backing-filename", "backing-filename"].iter().find_map(|name| info.get(*name));
    let named = backing.into_iter().chain(data.and_then(|data| data.get("data-file"))).chain(extents);
    let mut out = Vec::new();
    for name in named.filter_map(Value::as_str) {
        // Relative to the image's own folder, unless it is absolute.
        out.push(folder.join(name));
        out.extend(paths_in(name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn qemu_img(arguments: &[&str]) {
        assert!(Command::new("qemu-img").args(arguments).stdout(Stdio::null()).status().await.unwrap().success());
    }

    #[tokio::test]
    async fn an_image_is_made_of_all_that_it_stands_on() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        let text = |name: &str| at(name).to_str().unwrap().to_owned();
        std::fs::write(at("base.raw"), [0; 512]).unwrap();
        qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", &text("middle")]).await;
        std::os::unix::fs::symlink("middle", at("link")).unwrap();
        let json = format!("json:{{\"driver\":\"qcow2\",\"file.filename\":\"{}\"}}", text("link"));
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &json, &text("top"), "1M"]).await;
        let looked = look(folder.path().to_owned(), vec![at("base.raw")], vec![at("./../x"), at("top")]).await;
        let top = &looked.named[1];
        assert_eq!(top.problem, None);
        for part in ["top", "middle", "base.raw"] {
            assert!(top.files.iter().any(|file| file.path == at(part)), "{part}: {top:?}");
        }
        let base = &looked.own[0];
        assert!(base.problem.is_none() && base.files[0].inode.is_some(), "{base:?}");
        assert_eq!(looked.named[0].files[0].inode, None);
        assert_eq!(looked.folder.len(), 4);
        // A backing file that is gone does not hide what the image says.
        std::fs::remove_file(at("base.raw")).unwrap();
        let top = image(at("top"), false).await;
        assert!(top.problem.is_none() && top.files.iter().any(|file| file.path == at("base.raw")), "{top:?}");
        // A lock as QEMU has it on its backing files.
        let locked = File::open(at("middle")).unwrap();
        let lock = libc::flock {
            l_type: libc::F_RDLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 100,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&locked, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert!(image(at("middle"), true).await.problem.is_some_and(|why| why.contains("running QEMU")));
        assert_eq!(image(at("middle"), false).await.problem, None);
        drop(locked);
        assert_eq!(image(at("middle"), true).await.problem, None);
        // One that cannot be read is a problem.
        std::fs::write(at("broken"), b"QFI\xfbno").unwrap();
        assert!(image(at("broken"), false).await.problem.is_some());
    }
}
