//! The commands for VMs.

use super::{Asking, LogLines, OneVm, Waiting};
use crate::complete;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use drover_model::{MigrationMethod, Selector, VmState};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// List VMs
    ///
    /// Examples: drover vm list; drover vm list '^web' --state start; drover vm list --node hv1 --negate
    List {
        /// Only VMs whose name matches this regular expression
        limit: Option<String>,
        /// Only VMs assigned to this node
        #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
        node: Option<String>,
        /// Only VMs in this state
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(VmState::WORDS))]
        state: Option<String>,
        /// Only VMs with this tag
        #[arg(long)]
        tag: Option<String>,
        /// The VMs that the other filters leave out
        #[arg(long)]
        negate: bool,
    },
    /// Show a VM
    Info(OneVm),
    /// Print a VM's libvirt domain XML
    Dump(OneVm),
    /// Define a VM from a libvirt domain XML; it stays off until it is started
    ///
    /// The XML must have a name, memory and vcpu; a missing uuid is made up. What Drover does not know in it is kept to
    /// the letter.
    ///
    /// Examples: drover vm define web.xml --start --wait; drover vm define db.xml --limit hv1,hv2 --method live
    /// --priority 10
    Define {
        /// The file with the XML; - for standard input
        file: PathBuf,
        /// The node to run it on; if not given, the best one by its selector
        #[arg(long, alias = "target", add = ArgValueCompleter::new(complete::nodes))]
        node: Option<String>,
        #[command(flatten)]
        meta: MetaOptions,
        /// Start it too
        #[arg(long)]
        start: bool,
        /// Wait until it runs, showing what happens
        #[arg(short, long, requires = "start")]
        wait: bool,
    },
    /// Change a VM's definition, in an editor or from a file
    ///
    /// Shows what changes and asks before it is sent. Somebody else's change in between is never overwritten.
    ///
    /// Examples: drover vm modify web; drover vm modify web new.xml --restart --yes
    Modify {
        #[command(flatten)]
        vm: OneVm,
        /// The file with the new XML; - for standard input; if not given, $VISUAL or $EDITOR
        file: Option<PathBuf>,
        /// Restart a running VM, so that it takes the definition up at once
        #[arg(short, long)]
        restart: bool,
        #[command(flatten)]
        confirm: Asking,
    },
    /// Give a VM that is off a new name
    Rename {
        #[command(flatten)]
        vm: OneVm,
        /// The new name
        new_name: String,
    },
    /// Show or change what is said of a VM beside its definition: where it may run, how it is moved
    ///
    /// Without options it is shown. What is not given stays as it is.
    ///
    /// Examples: drover vm meta web; drover vm meta web --limit hv1,hv2 --method live; drover vm meta web --limit ''
    Meta {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        change: MetaOptions,
    },
    /// A VM's tags, by which lists are filtered ('drover vm list --tag TAG')
    #[command(subcommand)]
    Tag(Tag),
    /// Bring a VM to another node for a while; it remembers its home
    ///
    /// A running VM goes live where its method allows it; one that is off is only assigned elsewhere. 'drover vm
    /// unmigrate' brings it home.
    ///
    /// Examples: drover vm migrate web --to hv2 --wait; drover vm migrate web --cancel
    Migrate {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        how: MoveOptions,
        /// Also if it is away from its home already
        #[arg(long)]
        force: bool,
        /// Take back the move of the VM that is under way; it stays where it is
        #[arg(long, conflicts_with_all = ["to", "live", "force"])]
        cancel: bool,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Bring a VM to another node for good; that is its home then
    ///
    /// Example: drover vm move web --to hv2 --wait
    Move {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        how: MoveOptions,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Bring a VM home that was migrated away
    Unmigrate {
        #[command(flatten)]
        vm: OneVm,
        /// Live or not at all, whatever its method says
        #[arg(long, alias = "force-live")]
        live: bool,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Show where a VM would go if it were moved now, and why not to the other nodes
    ///
    /// Example: drover vm explain web
    Explain(OneVm),
    /// Start a VM; takes back a shutdown or a move that is under way
    Start {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Ask a VM's guest to power off
    ///
    /// Presses the guest's power button (ACPI). If it has not powered off by the deadline, its power is cut.
    Shutdown {
        #[command(flatten)]
        vm: OneVm,
        /// Seconds that the guest has (180)
        #[arg(short, long, value_name = "SECONDS")]
        timeout: Option<u32>,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Cut a VM's power now; what its guest has not written is lost
    Stop {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        wait: Waiting,
        #[command(flatten)]
        confirm: Asking,
    },
    /// Ask a VM's guest to power off, and start it again
    Restart {
        #[command(flatten)]
        vm: OneVm,
        /// Seconds that the guest has (180)
        #[arg(short, long, value_name = "SECONDS")]
        timeout: Option<u32>,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Keep a VM off; a running one is shut down first
    Disable {
        #[command(flatten)]
        vm: OneVm,
        /// Cut its power instead of asking its guest
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: Waiting,
    },
    /// Forget a VM, but keep its disks; a running one has its power cut
    Undefine {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        confirm: Asking,
    },
    /// Delete a VM with its disks; a running one has its power cut
    ///
    /// Only disks that Drover keeps are deleted; files elsewhere stay.
    Remove {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        confirm: Asking,
    },
    /// Show a VM's console log
    Log {
        #[command(flatten)]
        vm: OneVm,
        #[command(flatten)]
        log: LogLines,
    },
}

/// What is said of a VM beside its definition.
#[derive(Debug, Args)]
pub(crate) struct MetaOptions {
    /// The nodes that it may run on, with commas in between or repeated; '' lets it run on all
    #[arg(short, long, value_name = "NODE,...", add = ArgValueCompleter::new(complete::node_lists))]
    pub(crate) limit: Vec<String>,
    /// By what its node is chosen; none: by the cluster's default
    ///
    /// mem: the most memory left. memprov: the most memory left if all VMs that are assigned ran. load: the least load.
    /// vcpus: the fewest vCPUs. vms: the fewest VMs.
    #[arg(short, long, alias = "node-selector", value_name = "SELECTOR", value_parser = clap::builder::PossibleValuesParser::new(["none"].iter().chain(Selector::WORDS)))]
    pub(crate) selector: Option<String>,
    /// Start it when its node becomes ready; holds once
    #[arg(short, long, overrides_with = "no_autostart")]
    pub(crate) autostart: bool,
    /// Do not start it when its node becomes ready
    #[arg(short = 'A', long, overrides_with = "autostart")]
    pub(crate) no_autostart: bool,
    /// How it is moved while it runs
    ///
    /// none: live, and if that fails, cold. live: live or not at all. shutdown: it is shut down and started on the
    /// other node.
    #[arg(short, long, value_name = "METHOD", value_parser = clap::builder::PossibleValuesParser::new(MigrationMethod::WORDS))]
    pub(crate) method: Option<String>,
    /// The longest pause of its guest at the end of a live migration (300 ms)
    #[arg(long, value_name = "MS")]
    pub(crate) max_downtime: Option<u32>,
    /// The higher, the sooner it is moved or started (0)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// The profile that it was built from
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Add a tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Add a tag that cannot be removed; may be repeated
    #[arg(long = "protected-tag", value_name = "TAG")]
    pub(crate) protected_tags: Vec<String>,
}

/// How a VM gets to another node.
#[derive(Debug, Args)]
pub(crate) struct MoveOptions {
    /// The node that it goes to; if not given, the best one (see 'drover vm explain')
    #[arg(short, long, alias = "target", value_name = "NODE", add = ArgValueCompleter::new(complete::nodes))]
    pub(crate) to: Option<String>,
    /// Live or not at all, whatever its method says
    #[arg(long, alias = "force-live")]
    pub(crate) live: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tag {
    /// List a VM's tags
    List(OneVm),
    /// Add a tag to a VM, or change whether it is protected
    ///
    /// Example: drover vm tag add db backup --protected
    Add {
        #[command(flatten)]
        vm: OneVm,
        /// The tag: letters, digits, '-', '_', '.' and ':'
        tag: String,
        /// It cannot be removed, unless it is added again without this
        #[arg(short, long)]
        protected: bool,
    },
    /// Remove a tag from a VM
    Remove {
        #[command(flatten)]
        vm: OneVm,
        /// The tag
        tag: String,
    },
}
