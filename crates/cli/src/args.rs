//! The commands and their options, with the help that teaches them.

use crate::{
    complete,
    failure::EXIT_CODES,
    output::{Colour, Format},
};
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCompleter;
use std::path::PathBuf;

/// Manages a Drover cluster
#[derive(Debug, Parser)]
#[command(name = "drover", version, propagate_version = true, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The connection to use (see 'drover connection list')
    #[arg(short, long, global = true, value_name = "NAME", env = "DROVER_CONNECTION")]
    pub(crate) connection: Option<String>,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// Whether to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", alias = "color")]
    pub(crate) colour: Colour,
    /// Print data and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the cluster as a whole
    Status,
    /// Virtual machines
    #[command(subcommand)]
    Vm(Vm),
    /// The cluster's nodes
    #[command(subcommand)]
    Node(Node),
    /// What a person should look at
    #[command(subcommand)]
    Fault(Fault),
    /// Tokens for the API
    #[command(subcommand)]
    Token(Token),
    /// Connections to clusters
    #[command(subcommand)]
    Connection(Connection),
    /// Print the line that switches on completion in a shell
    ///
    /// Example: echo "$(drover completion bash)" >> ~/.bashrc
    Completion {
        /// The shell
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
}

/// A VM, by name or UUID.
#[derive(Debug, Args)]
pub(crate) struct OneVm {
    /// The VM's name or UUID
    #[arg(value_name = "VM", add = ArgValueCompleter::new(complete::vms))]
    pub(crate) vm: String,
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Wait until it is done, showing what happens
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogLines {
    /// How many of the last lines
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    pub(crate) lines: usize,
    /// Go on with what is written, until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Asking {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

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
        #[arg(long)]
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
    /// The XML must have a name, memory and vcpu; a missing uuid is made up. What Drover does not know in it is kept to the letter.
    ///
    /// Example: drover vm define web.xml --start --wait
    Define {
        /// The file with the XML; - for standard input
        file: PathBuf,
        /// The node to run it on; if not given, the one with the most free memory
        #[arg(long, add = ArgValueCompleter::new(complete::nodes))]
        node: Option<String>,
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
    /// Start a VM; takes back a shutdown that is under way
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

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List nodes
    List {
        /// Only nodes whose name matches this regular expression
        limit: Option<String>,
        /// Only nodes whose daemon is in this state
        #[arg(long)]
        daemon_state: Option<String>,
        /// Only nodes that play this part
        #[arg(long)]
        coordinator_state: Option<String>,
        /// Only nodes in this state
        #[arg(long)]
        domain_state: Option<String>,
    },
    /// Show a node
    Info {
        /// The node's name
        #[arg(add = ArgValueCompleter::new(complete::nodes))]
        node: String,
    },
    /// Remove a node that is gone for good, so that another machine may take its name
    ///
    /// Its daemon must be stopped or dead, and no VM may be assigned to it or held by it.
    Remove {
        /// The node's name
        #[arg(add = ArgValueCompleter::new(complete::nodes))]
        node: String,
        #[command(flatten)]
        confirm: Asking,
    },
    /// Show the log of a node's daemon
    Log {
        /// The node's name
        #[arg(add = ArgValueCompleter::new(complete::nodes))]
        node: String,
        #[command(flatten)]
        log: LogLines,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fault {
    /// List faults
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List tokens, without themselves
    List,
    /// Make a token; it is printed this once
    Create {
        /// Its name, by which it is revoked
        name: String,
    },
    /// Revoke a token
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        confirm: Asking,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connection {
    /// List the connections
    List,
    /// Add a connection, or change it
    ///
    /// The token is read from standard input, so that it is in no history and no process list, or each time from a file.
    ///
    /// Example: drover connection add prod http://10.0.0.1:7370 < token
    Add {
        /// Its name
        name: String,
        /// The API of any node of the cluster
        url: String,
        /// Read the token from this file each time, instead of keeping it
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// Remove a connection
    Remove {
        /// Its name
        name: String,
    },
    /// Use a connection when none is named
    Default {
        /// Its name; 'local' for this machine's node
        name: String,
    },
}
