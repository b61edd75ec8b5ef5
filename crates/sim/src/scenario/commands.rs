//! The commands of scenarios: words to values.

use super::language::{Read, Scenario, time};
use drover_agent::{ConfigChange, Maintenance};
use drover_model::{AfterProof, NodeName, OffReason, OnReturn, VmName, wire::SetNodePolicies};
use std::time::Duration;

/// How a BMC behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mood {
    Ok,
    Dead,
    DeadWithHost,
    Slow,
    WrongPassword,
    AcceptsOnly,
    /// It does nothing, and reads what was ordered last.
    Lies,
    /// It does nothing, and reads off.
    LiesOff,
    /// It does nothing, and reads on.
    LiesOn,
    Nonsense,
    RefusesAlready,
    /// It controls that machine.
    Controls(NodeName),
}

const MOODS: &str = "ok, dead, dead-with-host, slow, wrong-password, accepts-only, lies, lies-off, lies-on, nonsense, \
                     refuses-already, controls NODE";

/// What happens to the machines, or is done to them.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Power {
        node: NodeName,
        on: bool,
    },
    /// `store`, `network`: what it is cut off from.
    Cut {
        node: NodeName,
        store: bool,
        network: bool,
    },
    Reconnect(NodeName),
    Freeze {
        node: NodeName,
        frozen: bool,
    },
    Daemon {
        node: NodeName,
        does: Daemon,
    },
    ShutDownNode(NodeName),
    Bmc {
        node: NodeName,
        mood: Mood,
    },
    Store {
        up: bool,
    },
    Guest {
        vm: VmName,
        reason: OffReason,
    },
    Order(Order),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Daemon {
    Crashes,
    Stops,
    Starts,
    Restarts,
}

/// What an administrator orders.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Vm {
        vm: VmName,
        what: VmOrder,
    },
    Flush(NodeName),
    Ready(NodeName),
    Primary {
        node: NodeName,
        primary: bool,
    },
    ConfirmOff {
        node: NodeName,
        for_good: bool,
    },
    Remove(NodeName),
    Config(ConfigChange),
    Policy {
        node: NodeName,
        change: SetNodePolicies,
    },
    /// For so long.
    MaintenanceFor(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VmOrder {
    Start,
    Stop,
    Shutdown,
    Restart,
    Disable,
    Delete,
    Cancel,
    Migrate(Option<NodeName>),
    Move(Option<NodeName>),
    Home,
}

const COMMANDS: &str = "power off|on NODE, cut off NODE, cut NODE from store|network, reconnect NODE, \
                        freeze|thaw NODE, \
                        crash|stop|start|restart daemon NODE, shut down node NODE, bmc NODE BEHAVIOUR, store down|up, \
                        guest VM crashes|powers off|is ended, start|stop|shutdown|restart|disable|delete|cancel VM, \
                        migrate|move VM [to NODE], unmigrate VM, flush|ready NODE, primary|secondary NODE, \
                        confirm-off NODE [for good], remove NODE, maintenance on [for TIME]|off, config SETTING VALUE, \
                         policy NODE after-proof|power-on|on-return VALUE";
const SETTINGS: &str = "after-proof recover|none, power-on true|false, on-return flushed|ready, tolerate 0|1|2|3, \
                         moves-per-source N, moves-per-target N";

impl Scenario {
    fn each(&self, nodes: &[&str], what: impl Fn(NodeName) -> Command) -> Read<Vec<Command>> {
        match nodes {
            [] => Err("which node?".to_owned()),
            nodes => nodes.iter().map(|node| Ok(what(self.node(node)?))).collect(),
        }
    }

    /// What a command's words mean. Several nodes are several commands.
    pub(super) fn meaning(&self, words: &[&str]) -> Read<Vec<Command>> {
        let order = |order: Order| Ok(vec![Command::Order(order)]);
        let vm_order = |vm: &str, what: VmOrder| Ok(vec![Command::Order(Order::Vm { vm: self.vm(vm)?, what })]);
        match *words {
            ["power", "off", ref nodes @ ..] => self.each(nodes, |node| Command::Power { node, on: false }),
            ["power", "on", ref nodes @ ..] => self.each(nodes, |node| Command::Power { node, on: true }),
            ["cut", "off", ref nodes @ ..] => {
                self.each(nodes, |node| Command::Cut { node, store: true, network: true })
            }
            ["cut", ref nodes @ .., "from", "store"] => {
                self.each(nodes, |node| Command::Cut { node, store: true, network: false })
            }
            ["cut", ref nodes @ .., "from", "network"] => {
                self.each(nodes, |node| Command::Cut { node, store: false, network: true })
            }
            ["reconnect", ref nodes @ ..] => self.each(nodes, Command::Reconnect),
            ["freeze", ref nodes @ ..] => self.each(nodes, |node| Command::Freeze { node, frozen: true }),
            ["thaw", ref nodes @ ..] => self.each(nodes, |node| Command::Freeze { node, frozen: false }),
            [verb @ ("crash" | "stop" | "start" | "restart"), "daemon", ref nodes @ ..] => {
                let does = match verb {
                    "crash" => Daemon::Crashes,
                    "stop" => Daemon::Stops,
                    "start" => Daemon::Starts,
                    _ => Daemon::Restarts,
                };
                self.each(nodes, |node| Command::Daemon { node, does })
            }
            ["shut", "down", "node", ref nodes @ ..] => self.each(nodes, Command::ShutDownNode),
            ["bmc", node, ref mood @ ..] => {
                let (node, mood) = (self.node(node)?, self.mood(mood)?);
                Ok(vec![Command::Bmc { node, mood }])
            }
            ["store", "down"] => Ok(vec![Command::Store { up: false }]),
            ["store", "up"] => Ok(vec![Command::Store { up: true }]),
            ["guest", vm, ref what @ ..] => {
                let reason = match *what {
                    ["crashes"] => OffReason::Crashed,
                    ["powers", "off"] => OffReason::Shutdown,
                    ["is", "ended"] => OffReason::Ended,
                    _ => return Err("a guest does not do that; accepted are crashes, powers off, is ended".to_owned()),
                };
                Ok(vec![Command::Guest { vm: self.vm(vm)?, reason }])
            }
            ["start", vm] => vm_order(vm, VmOrder::Start),
            ["stop", vm] => vm_order(vm, VmOrder::Stop),
            ["shutdown", vm] => vm_order(vm, VmOrder::Shutdown),
            ["restart", vm] => vm_order(vm, VmOrder::Restart),
            ["disable", vm] => vm_order(vm, VmOrder::Disable),
            ["delete", vm] => vm_order(vm, VmOrder::Delete),
            ["cancel", vm] => vm_order(vm, VmOrder::Cancel),
            ["migrate", vm] => vm_order(vm, VmOrder::Migrate(None)),
            ["migrate", vm, "to", node] => vm_order(vm, VmOrder::Migrate(Some(self.node(node)?))),
            ["move", vm] => vm_order(vm, VmOrder::Move(None)),
            ["move", vm, "to", node] => vm_order(vm, VmOrder::Move(Some(self.node(node)?))),
            ["unmigrate", vm] => vm_order(vm, VmOrder::Home),
            ["flush", node] => order(Order::Flush(self.node(node)?)),
            ["ready", node] => order(Order::Ready(self.node(node)?)),
            ["primary", node] => order(Order::Primary { node: self.node(node)?, primary: true }),
            ["secondary", node] => order(Order::Primary { node: self.node(node)?, primary: false }),
            ["confirm-off", node] => order(Order::ConfirmOff { node: self.node(node)?, for_good: false }),
            ["confirm-off", node, "for", "good"] => order(Order::ConfirmOff { node: self.node(node)?, for_good: true }),
            ["remove", node] => order(Order::Remove(self.node(node)?)),
            ["maintenance", "on", "for", span] => order(Order::MaintenanceFor(time(span)?)),
            ["maintenance", state @ ("on" | "off")] => {
                let maintenance = if state == "on" { Maintenance::On(None) } else { Maintenance::Off };
                let maintenance = Some(maintenance);
                order(Order::Config(ConfigChange { maintenance, ..ConfigChange::default() }))
            }
            ["policy", node, name, value] => {
                let (node, change) = (self.node(node)?, policy(name, value)?);
                order(Order::Policy { node, change })
            }
            ["config", name, value] => order(Order::Config(config(ConfigChange::default(), name, value)?)),
            _ => Err(format!("{:?} is not a command; accepted are {COMMANDS}", words.join(" "))),
        }
    }

    /// The behaviour of a BMC.
    pub(super) fn mood(&self, words: &[&str]) -> Read<Mood> {
        Ok(match *words {
            ["ok"] => Mood::Ok,
            ["dead"] => Mood::Dead,
            ["dead-with-host"] => Mood::DeadWithHost,
            ["slow"] => Mood::Slow,
            ["wrong-password"] => Mood::WrongPassword,
            ["accepts-only"] => Mood::AcceptsOnly,
            ["lies"] => Mood::Lies,
            ["lies-off"] => Mood::LiesOff,
            ["lies-on"] => Mood::LiesOn,
            ["nonsense"] => Mood::Nonsense,
            ["refuses-already"] => Mood::RefusesAlready,
            ["controls", node] => Mood::Controls(self.node(node)?),
            _ => return Err(format!("a BMC is not {:?}; accepted are {MOODS}", words.join(" "))),
        })
    }
}

/// A change of a node's own policies.
fn policy(name: &str, value: &str) -> Read<SetNodePolicies> {
    let wrong = "accepted are after-proof recover|none|inherit, power-on true|false|inherit, on-return \
                 flushed|ready|inherit";
    let wrong = || format!("{:?} is not a policy with its value; {wrong}", format!("{name} {value}"));
    let none = SetNodePolicies::default();
    match name {
        "after-proof" => Ok(SetNodePolicies { after_proof: Some(value.parse().map_err(|_| wrong())?), ..none }),
        "power-on" => Ok(SetNodePolicies { power_on: Some(value.parse().map_err(|_| wrong())?), ..none }),
        "on-return" => Ok(SetNodePolicies { on_return: Some(value.parse().map_err(|_| wrong())?), ..none }),
        _ => Err(wrong()),
    }
}

pub(super) fn not_a_setting(given: &str) -> String {
    let times = "session TIME, migration-time TIME, power-off-time TIME";
    format!("{given:?} is not a setting with its value; accepted are {SETTINGS}, and with 'set' also {times}")
}

/// The change with one more setting.
pub(super) fn config(change: ConfigChange, name: &str, value: &str) -> Read<ConfigChange> {
    let wrong = || not_a_setting(&format!("{name} {value}"));
    let number = || value.parse::<u32>().map_err(|_| wrong());
    Ok(match (name, value) {
        ("after-proof", "recover") => ConfigChange { after_proof: Some(AfterProof::Recover), ..change },
        ("after-proof", "none") => ConfigChange { after_proof: Some(AfterProof::None), ..change },
        ("power-on", "true" | "false") => ConfigChange { power_on: Some(value == "true"), ..change },
        ("on-return", "flushed") => ConfigChange { on_return: Some(OnReturn::Flushed), ..change },
        ("on-return", "ready") => ConfigChange { on_return: Some(OnReturn::Ready), ..change },
        ("tolerate", _) => ConfigChange { tolerate: Some(number()?), ..change },
        ("moves-per-source", _) => ConfigChange { moves_per_source: Some(number()?), ..change },
        ("moves-per-target", _) => ConfigChange { moves_per_target: Some(number()?), ..change },
        _ => return Err(wrong()),
    })
}
