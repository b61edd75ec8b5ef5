//! The program `drover-lab`: a lab on the command line.

use clap::{Parser, Subcommand};
use drover_lab::{Cut, Domain, Lab, LabError, Net, Quirk, Rounds, Spec, guest};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

/// Run a real Drover cluster on one machine: nodes are Linux namespaces, everything else is real.
///
/// Needs root. Example: drover-lab up; drover-lab sh hv1 drover status; drover-lab power off hv2; drover-lab down
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    /// The lab's folder; each folder is a separate lab [default: 'lab' beside the folder of this program]
    #[arg(long, global = true, env = "DROVER_LAB_DIR", value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Bring the lab up, or start what is missing
    Up {
        /// Number of nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// Do not start droverd
        #[arg(long)]
        no_droverd: bool,
    },
    /// Take the lab down and remove every trace of it
    Down,
    /// Show the nodes
    Status,
    /// Switch a node's power
    Power {
        #[command(subcommand)]
        power: Power,
    },
    /// Cut a node's link to a network
    ///
    /// silent: the switch drops all packets; carrier: the link goes down; in: drops packets to the node; out: drops
    /// packets from the node; store: drops ZooKeeper's packets; loss:P: drops P percent of the packets. A cut replaces
    /// an earlier one.
    Cut {
        /// The node
        node: String,
        /// cluster, upstream or storage
        net: Net,
        /// silent, carrier, in, out, store, loss:P
        #[arg(default_value = "silent")]
        how: Cut,
    },
    /// Undo cuts
    Heal {
        /// The node
        node: String,
        /// cluster, upstream or storage [default: all]
        net: Option<Net>,
    },
    /// Run a command in a node
    Sh {
        /// The node
        node: String,
        /// The command [default: a shell]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a command on the client in the upstream network, 203.0.113.100
    Client {
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Build the guest image (kernel and initramfs)
    Guest,
    /// Print a domain XML for a guest
    Domain {
        /// The VM's name
        name: String,
        /// Memory in MiB
        #[arg(long, default_value_t = 96)]
        memory: u64,
        /// Options for the guest's kernel command line, such as poweroff_after=10
        #[arg(long, default_value = "")]
        options: String,
    },
    /// Run one node without configuration on the host's network, with one guest
    Demo {
        #[command(subcommand)]
        demo: Demo,
    },
    /// Run rounds of random faults on a lab of their own, and check from outside that no guest suffers
    ///
    /// In each round a move, a flush or a handoff of the primary may be under way. One or two faults come: a node loses
    /// its power, hangs, or is cut off; droverd, libvirtd or ZooKeeper's leader is killed or stopped; a BMC is dead or
    /// slow. Then all is healed, and the cluster must become as it was. Meanwhile a watcher checks: no guest executes
    /// in two QEMU processes, no guest of a node without a fault stops, no floating address is on two nodes for longer
    /// than a handoff. The same seed gives the same rounds. The lab is taken down at the end, unless something was
    /// found: then it stays as it is ('drover-lab --dir FOLDER sh hv1', 'drover-lab --dir FOLDER down').
    Rounds {
        /// Decides what happens
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many rounds
        #[arg(long, default_value_t = 20)]
        rounds: u64,
        /// Number of the first round
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Number of nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
        nodes: u8,
        /// Number of guests
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=20))]
        guests: u8,
        /// Leave the lab up
        #[arg(long)]
        keep: bool,
    },
    /// Make a node's BMC for Redfish misbehave
    ///
    /// none; slow:SECONDS; conflict: answers orders by 409 "already off"; deaf: accepts orders; both follow none; dies:
    /// does not answer when its node has lost its power; locked: refuses the user.
    Quirk {
        /// The node
        node: String,
        /// none, slow:SECONDS, conflict, deaf, dies, locked
        quirk: Quirk,
    },
    /// Be the BMC of a node (internal)
    #[command(hide = true)]
    Redfish { node: String },
    /// Be the watchdog of a node (internal)
    #[command(hide = true)]
    Watchdog { node: String },
    /// Turn this process into a node (internal)
    #[command(hide = true)]
    BootNode { spec: PathBuf },
}

#[derive(Subcommand)]
enum Power {
    /// Switch a node on, and wait until it is ready
    On { node: String },
    /// Cut a node's power
    Off { node: String },
    /// Cut a node's power, and switch it on again
    Cycle { node: String },
}

#[derive(Subcommand)]
enum Demo {
    /// Bring the demo up, or start what is missing
    Up,
    /// Take the demo down and remove every trace of it
    Down,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("drover-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, LabError> {
    let program = std::env::current_exe().map_err(|e| LabError::new("cannot find this program's file", e))?;
    let beside = |name: &str| program.parent().and_then(Path::parent).unwrap_or(Path::new("/run")).join(name);
    let folder = arguments.dir.clone().unwrap_or_else(|| beside("lab"));
    let lab = || Lab::open(&folder);
    let start = Instant::now();
    let progress = |step: &str| eprintln!("[{:5.1} s] {step}", start.elapsed().as_secs_f32());
    match arguments.action {
        Action::BootNode { spec } => match drover_lab::boot_node_entry(&spec)? {},
        Action::Rounds { seed, rounds, first, nodes, guests, keep } => {
            let folder = arguments.dir.unwrap_or_else(|| beside("rounds"));
            let lab = Lab::up(&folder, Spec::cluster(nodes.into()), &program, &progress)?.keep();
            let wanted = Rounds { seed, first, count: rounds, guests: guests.into() };
            let report = lab.rounds(wanted, &|line| println!("{line}"))?;
            let longest = report.recovery.iter().max().copied().unwrap_or_default();
            println!(
                "seed {seed}: {} rounds, nothing was found; longest time to recover {:.1} s, longest time that an \
                 address was on two nodes {:.1} s",
                report.recovery.len(),
                longest.as_secs_f32(),
                report.longest_shared.as_secs_f32()
            );
            if !keep {
                Lab::remove(&folder)?;
            }
        }
        Action::Quirk { node, quirk } => lab()?.node(&node)?.set_quirk(quirk)?,
        Action::Redfish { node } => match drover_lab::redfish_bmc(lab()?, &node)? {},
        Action::Watchdog { node } => drover_lab::watchdog(&lab()?, &node)?,
        Action::Up { nodes, no_droverd } => {
            let spec = Spec { daemon: !no_droverd, ..Spec::cluster(nodes.into()) };
            let lab = Lab::up(&folder, spec, &program, &progress)?.keep();
            progress("the lab is up");
            status(&lab);
            let me = program.display();
            println!(
                "\nNext steps:\n  {me} sh hv1 drover status\n  {me} domain web | {me} sh hv1 drover vm define - \
                 --start --wait\n  {me} sh hv1\n  {me} power off hv2\n  {me} cut hv3 cluster\n  {me} down"
            );
        }
        Action::Down => Lab::remove(&folder)?,
        Action::Status => status(&lab()?),
        Action::Power { power } => {
            let lab = lab()?;
            match power {
                Power::On { node } => lab.node(&node)?.power_on()?,
                Power::Off { node } => lab.node(&node)?.power_off()?,
                Power::Cycle { node } => {
                    lab.node(&node)?.power_off()?;
                    lab.node(&node)?.power_on()?;
                }
            }
        }
        Action::Cut { node, net, how } => lab()?.cut(&node, net, how)?,
        Action::Heal { node, net } => {
            for net in Net::ALL.into_iter().filter(|n| net.is_none_or(|wanted| wanted == *n)) {
                lab()?.heal(&node, net)?;
            }
        }
        Action::Sh { node, command } => {
            let argv: Vec<&str> = command.iter().map(String::as_str).collect();
            let argv = if argv.is_empty() { vec!["bash", "--norc"] } else { argv };
            return foreground(lab()?.node(&node)?.command(&argv)?);
        }
        Action::Client { command } => {
            let argv: Vec<&str> = command.iter().map(String::as_str).collect();
            return foreground(lab()?.client(&argv));
        }
        Action::Guest => {
            let image = guest::build(&guest::cache(&program))?;
            println!("{}\n{}", image.kernel.display(), image.initrd.display());
        }
        Action::Domain { name, memory, options } => {
            let domain = Domain { name, uuid: None, memory, options };
            print!("{}", domain.xml(&drover_lab::guest::Guest::at(Path::new("/srv/shared/guest"))));
        }
        Action::Demo { demo } => {
            let folder = arguments.dir.unwrap_or_else(|| beside("demo"));
            match demo {
                Demo::Up => drover_lab::demo_up(&folder, &program, &progress)?,
                Demo::Down => drover_lab::demo_down(&folder)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on this terminal and returns its exit code.
fn foreground(mut command: Command) -> Result<ExitCode, LabError> {
    let status = command.status().map_err(|e| LabError::new("cannot run the command", e))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn status(lab: &Lab) {
    let row = |[node, power, cluster, upstream, storage, zookeeper]: [&str; 6]| {
        println!("{node:<6} {power:<6} {cluster:<12} {upstream:<14} {storage:<12} {zookeeper}");
    };
    row(["NODE", "POWER", "CLUSTER", "UPSTREAM", "STORAGE", "ZOOKEEPER"]);
    for node in lab.nodes() {
        let power = if node.is_on() { "on" } else { "off" };
        let [cluster, upstream, storage] = Net::ALL.map(|net| net.address(node.index()));
        let zookeeper = node.zookeeper_mode().unwrap_or_else(|| "-".to_owned());
        row([node.name(), power, &cluster, &upstream, &storage, &zookeeper]);
    }
}
