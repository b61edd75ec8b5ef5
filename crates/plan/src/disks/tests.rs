//! Tests of the decision.

use super::*;
use crate::admit;
use drover_model::{Definition, Epoch};
use uuid::Uuid;

fn vm(n: u128, devices: &str) -> VmRecord {
    let xml =
        format!("<domain><name>vm{n}</name><memory>65536</memory><vcpu>1</vcpu><devices>{devices}</devices></domain>");
    admit::define(&Definition::parse(&xml, Uuid::from_u128(n)).unwrap(), None)
}

fn disk(file: &str) -> String {
    format!("<disk type='file'><source file='{file}'/></disk>")
}

fn image(path: &str, files: &[(&str, u64)]) -> Image {
    let files = files.iter().map(|(path, inode)| FileAt { path: path.into(), inode: Some((1, *inode)) }).collect();
    Image { path: path.into(), files, problem: None }
}

/// The fate of `/d/own`, inode 7.
fn fate(others: &[VmRecord], named: Vec<Image>, folder: Vec<Image>) -> Option<Kept> {
    let others: Vec<Needs> = others.iter().map(|vm| Needs::of(vm).unwrap()).collect();
    let looked = Looked { own: vec![image("/d/own", &[("/d/own", 7)])], named, folder, problem: None };
    let verdicts = verdicts(&others, &looked);
    assert_eq!(verdicts.len(), 1);
    verdicts.into_iter().next().unwrap().1
}

#[test]
fn candidates_are_files_that_the_guest_writes() {
    let vm = vm(
        1,
        "<disk type='file'><source file='/d/own'/></disk><disk type='file' device='cdrom'><source file='/d/cd'/></disk>\
         <disk type='file'><source file='/d/ro'/><readonly/></disk><disk type='file' device='floppy'/>\
         <disk type='network'><source protocol='rbd' name='p/own'/></disk>",
    );
    assert_eq!(own(&vm), [PathBuf::from("/d/own")]);
}

#[test]
fn a_file_that_nobody_else_needs_is_deleted() {
    let other = image("/d/other", &[("/d/other", 8), ("/d/base", 9)]);
    assert_eq!(fate(&[], vec![], vec![]), None);
    assert_eq!(fate(&[vm(2, &disk("/d/other"))], vec![other.clone()], vec![other]), None);
}

#[test]
fn a_file_that_another_vm_needs_is_kept() {
    let by = Some(Kept::By(VmName::new("vm2").unwrap()));
    for (devices, named) in [
        (disk("/d/own"), vec![]),
        (disk("//d/./x/../own"), vec![]),
        ("<disk type='volume'><source pool='p' volume='own'/></disk>".to_owned(), vec![]),
        ("<filesystem><source dir='/d'/></filesystem>".to_owned(), vec![]),
        // A link to it, a second name of it, a folder by a link, and an image on top of it.
        (disk("/l/link"), vec![image("/l/link", &[("/d/own", 7)])]),
        (disk("/l/hard"), vec![image("/l/hard", &[("/l/hard", 7)])]),
        ("<filesystem><source dir='/l'/></filesystem>".to_owned(), vec![image("/l", &[("/d", 3)])]),
        (disk("/d/top"), vec![image("/d/top", &[("/d/top", 8), ("/d/middle", 9), ("/d/own", 7)])]),
    ] {
        assert_eq!(fate(&[vm(2, &devices)], named, vec![]), by, "{devices}");
    }
}

#[test]
fn an_image_that_no_vm_has_yet_keeps_its_backing_file() {
    let clone = image("/d/clone", &[("/d/clone", 8), ("/d/own", 7)]);
    assert_eq!(fate(&[], vec![], vec![clone]), Some(Kept::For("/d/clone".into())));
    // Itself does not keep it.
    assert_eq!(fate(&[], vec![], vec![image("/d/own", &[("/d/own", 7)])]), None);
}

#[test]
fn nothing_is_deleted_in_doubt() {
    let broken = Image { problem: Some("broken".to_owned()), ..image("/d/x", &[("/d/x", 8)]) };
    let uncertain = |kept: Option<Kept>| matches!(kept, Some(Kept::Uncertain(why)) if why.contains("/d/x: broken"));
    assert!(uncertain(fate(&[vm(2, &disk("/d/x"))], vec![broken.clone()], vec![])));
    assert!(uncertain(fate(&[], vec![], vec![broken])));
    let looked = Looked {
        own: vec![image("/d/own", &[("/d/own", 7)])],
        problem: Some("too slow".to_owned()),
        ..Looked::default()
    };
    assert!(matches!(&verdicts(&[], &looked)[..], [(_, Some(Kept::Uncertain(_)))]));
    let unreadable = VmRecord { state: VmState::Unreadable, ..vm(2, "") };
    assert_eq!(Needs::of(&unreadable), None);
    assert_eq!(Needs::of(&VmRecord { xml: "<domain>".to_owned(), ..vm(2, "") }), None);
}

#[test]
fn a_definition_names_no_file_that_goes_away() {
    let leaving = VmRecord { state: VmState::Delete { disks: true }, ..vm(1, &disk("/d/./own")) };
    let names = |devices: &str| goes_away(&leaving, &Needs::of(&vm(2, devices)).unwrap());
    assert_eq!(names(&disk("/d//own")), Some("/d/./own".into()));
    assert_eq!(names(&disk("/d/other")), None);
    let staying = VmRecord { state: VmState::Delete { disks: false }, ..leaving.clone() };
    assert_eq!(goes_away(&staying, &Needs::of(&vm(2, &disk("/d/own"))).unwrap()), None);
}

#[test]
fn what_a_guest_uses_instead_of_its_definitions_disks_is_needed() {
    let disks = |path: &str| [("vda".to_owned(), path.to_owned())].into();
    let needs = |live: &str| {
        let replaced = Replaced::between(Epoch(1), &disks("/d/two"), &disks(live));
        vec![Needs::of(&vm(2, &disk("/d/two"))).unwrap().and(replaced.as_ref())]
    };
    let fate = |others: &[Needs], named: Vec<Image>| {
        let looked = Looked { own: vec![image("/d/own", &[("/d/own", 7)])], named, folder: vec![], problem: None };
        verdicts(others, &looked).into_iter().next().unwrap().1
    };
    let by = Some(Kept::By(VmName::new("vm2").unwrap()));
    assert_eq!(fate(&needs("/d/./own"), vec![]), by);
    assert_eq!(paths(&needs("/d/snap")), [PathBuf::from("/d/snap"), PathBuf::from("/d/two")]);
    assert_eq!(fate(&needs("/d/snap"), vec![image("/d/snap", &[("/d/snap", 8), ("/d/own", 7)])]), by);
    assert_eq!(fate(&needs("rbd:p/i"), vec![]), None);
}
