//! The demo, which newcomers see first: one node without configuration on the host's network, with one guest.

use crate::{
    domain::Domain,
    lab::{Lab, Progress, Shape, Spec},
    node::{Node, Service},
    tools::{Attempt, LabError, Result},
};
use std::{fs, path::Path, time::Duration};

/// Name of the demo's VM.
const VM: &str = "demo";

/// Brings the demo up, or starts what is missing. Once its node is up it stays up even if a later step fails, so that
/// the cause can be found; [`demo_down`] removes it.
pub fn demo_up(folder: &Path, program: &Path, progress: Progress<'_>) -> Result<()> {
    let spec = Spec { daemon: false, ..Spec::alone() };
    let lab = Lab::up(folder, spec, program, progress)?.keep();
    debug_assert_eq!(lab.spec().shape, Shape::Alone);
    show(&lab, program, progress).map_err(|error| {
        let log = lab.folder().join("nodes/hv1/var/log/droverd.out");
        LabError::new(error.to_string(), format!("see the node's log {}", log.display()))
    })
}

/// Takes the demo down and removes its folder.
pub fn demo_down(folder: &Path) -> Result<()> {
    Lab::remove(folder)
}

fn show(lab: &Lab, program: &Path, progress: Progress<'_>) -> Result<()> {
    let node = lab.node("hv1")?;
    if node.pid(Service::Drover).is_none() {
        progress("starting droverd");
        node.start_drover()?;
    }
    let xml = Domain::new(VM).xml(&lab.guest());
    let file = lab.shared().join("demo.xml");
    fs::write(&file, xml).attempt(|| format!("cannot write {}", file.display()))?;
    if drover(&node, &["vm", "info", VM]).is_err() {
        progress("drover vm define /srv/shared/demo.xml");
        drover(&node, &["vm", "define", "/srv/shared/demo.xml"])?;
    }
    progress("drover vm start demo --wait");
    let mut start = node.command(&["drover", "vm", "start", VM, "--wait"])?;
    let started = start.status().attempt(|| "cannot run drover".to_owned())?;
    if !started.success() {
        return Err(LabError::new("the VM does not start", started));
    }
    progress("waiting until the guest has booted");
    let booted = || drover(&node, &["vm", "log", VM, "-n", "100000"]).ok().filter(|log| log.contains("BOOTED "));
    Lab::until("the guest has not booted", Duration::from_secs(90), booted)?;
    for command in [&["vm", "list"][..], &["vm", "info", VM], &["vm", "log", VM, "-n", "5"]] {
        println!("\n$ drover {}", command.join(" "));
        print!("{}", drover(&node, command)?);
    }
    let programs = program.parent().unwrap_or(Path::new("."));
    let token = node.folder().join("var/lib/drover/admin.token");
    let environment = format!(
        "export PATH=\"{}:$PATH\"\nexport DROVER_API=http://127.0.0.1:7370\nexport DROVER_TOKEN_FILE=\"{}\"\n",
        programs.display(),
        token.display()
    );
    let file = lab.folder().join("env");
    fs::write(&file, environment).attempt(|| format!("cannot write {}", file.display()))?;
    println!(
        "\nThe cluster stays up. Next steps, in this shell:\n\
         \n  . {}\n  drover vm log {VM} --follow\n  drover vm shutdown {VM} --wait\n  drover --help\n\n\
         'make demo-down' removes everything.",
        file.display()
    );
    Ok(())
}

fn drover(node: &Node<'_>, arguments: &[&str]) -> Result<String> {
    node.exec(&[&["drover"], arguments].concat())
}
