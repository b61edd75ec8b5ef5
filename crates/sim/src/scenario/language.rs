//! The language of scenarios: lines of text to values. `docs/scenarios.md` describes it.
//!
//! A line that is not understood is an error that says where it is, and what is accepted there.

use super::{
    commands::{Command, Mood, config, not_a_setting},
    expect::{self, Expectation},
};
use drover_agent::ConfigChange;
use drover_model::{Bytes, NodeName, VmName};
use std::time::Duration;

/// Step of a scenario's time: whatever happens is seen, and every time is given, in this.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// What a line means, or what is wrong with it.
pub(super) type Read<T> = Result<T, String>;

/// A scenario.
#[derive(Debug, Default)]
pub(super) struct Scenario {
    pub(super) nodes: Vec<Node>,
    pub(super) vms: Vec<Vm>,
    pub(super) settings: Settings,
    /// In the order of their times.
    pub(super) commands: Vec<Timed>,
    pub(super) expectations: Vec<Expectation>,
    /// A part of the message of the invariant that is violated, if one is to be.
    pub(super) violation: Option<String>,
    pub(super) end: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) memory: Bytes,
    pub(super) bmc: Option<Mood>,
    /// The timeout of its watchdog.
    pub(super) watchdog: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(super) struct Vm {
    pub(super) name: VmName,
    pub(super) on: Option<NodeName>,
    pub(super) memory: Bytes,
    pub(super) priority: Option<i32>,
    pub(super) limit: Vec<NodeName>,
    pub(super) autostart: bool,
    pub(super) off: bool,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) session: Duration,
    /// How long a guest is on its way to another node.
    pub(super) transfer: Duration,
    /// How long a guest needs to power off.
    pub(super) power_off: Duration,
    pub(super) config: ConfigChange,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            session: Duration::from_secs(5),
            transfer: Duration::from_secs(2),
            power_off: Duration::from_secs(2),
            config: ConfigChange::default(),
        }
    }
}

/// A command, and when it is given.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) at: Duration,
    /// As it is written.
    pub(super) text: String,
    pub(super) command: Command,
    /// Whether it is to be refused.
    pub(super) refused: bool,
}

/// `10s`, `1.5s`, `2min`: a multiple of [`TICK`].
pub(super) fn time(word: &str) -> Read<Duration> {
    let wrong = || format!("{word:?} is not a time; accepted are times as 10s, 1.5s and 2min, in steps of 0.1s");
    let (number, unit) = match word.strip_suffix("min") {
        Some(number) => (number, 60_000.0),
        None => (word.strip_suffix('s').ok_or_else(wrong)?, 1000.0),
    };
    let ms = number.parse::<f64>().map_err(|_| wrong())? * unit;
    if !(0.0..86_400_000.0).contains(&ms) || (ms / 100.0 - (ms / 100.0).round()).abs() > 1e-6 {
        return Err(wrong());
    }
    // It was rounded to tenths of seconds, below a day.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(TICK * ((ms / 100.0).round() as u32))
}

fn memory(number: &str, unit: &str) -> Option<Bytes> {
    let n: u64 = number.parse().ok()?;
    match unit {
        "GiB" => Some(Bytes::mib(n.checked_mul(1024)?)),
        "MiB" => Some(Bytes::mib(n)),
        _ => None,
    }
}

/// The lines of a file, read.
pub(super) fn read(file: &str, text: &str) -> Read<Scenario> {
    let mut scenario = Scenario::default();
    let mut ended = false;
    for (n, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let at = |why: String| format!("{file}:{n}: {why}");
        if ended {
            return Err(at("'end' is the last line".to_owned()));
        }
        ended = scenario.line(n, line).map_err(at)?;
    }
    if !ended {
        return Err(format!("{file}: there is no end; accepted is 'end TIME' as the last line"));
    }
    let last = scenario.commands.last().map(|command| command.at).unwrap_or_default();
    if scenario.nodes.is_empty() || last > scenario.end {
        return Err(format!("{file}: a scenario has nodes, and ends after its last command"));
    }
    let (end, late) = (scenario.end, |expected: &&Expectation| expected.last().is_some_and(|at| at > scenario.end));
    match scenario.expectations.iter().find(late) {
        Some(late) => Err(format!("{file}:{}: that is after the end, which is at {} s", late.line, end.as_secs_f64())),
        None => Ok(scenario),
    }
}

impl Scenario {
    /// Reads a line. Whether it is the end.
    fn line(&mut self, n: usize, line: &str) -> Read<bool> {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "node" | "nodes" => self.declare_nodes(rest)?,
            "vm" | "vms" => self.declare_vms(rest)?,
            "set" => self.set(rest)?,
            "at" => self.command(rest)?,
            "expect" => self.expect(n, rest)?,
            "end" => {
                self.end = time(rest.trim())?;
                return Ok(true);
            }
            _ => {
                return Err(format!(
                    "{first:?} begins no line; accepted are node, nodes, vm, vms, set, at, expect, end, and #"
                ));
            }
        }
        Ok(false)
    }

    /// A node that was declared.
    pub(super) fn node(&self, name: &str) -> Read<NodeName> {
        let known = self.nodes.iter().map(|node| &node.name);
        let found = known.clone().find(|known| known.as_str() == name).cloned();
        found.ok_or_else(|| format!("{name:?} is not a node; there are {}", join(known)))
    }

    /// A VM that was declared.
    pub(super) fn vm(&self, name: &str) -> Read<VmName> {
        let known = self.vms.iter().map(|vm| &vm.name);
        let found = known.clone().find(|known| known.as_str() == name).cloned();
        found.ok_or_else(|| format!("{name:?} is not a VM; there are {}", join(known)))
    }

    fn declare_nodes(&mut self, rest: &str) -> Read<()> {
        let (names, phrases) = rest.split_once(',').unwrap_or((rest, ""));
        for name in names.split_whitespace() {
            let name = NodeName::new(name).map_err(|bad| bad.to_string())?;
            if self.node(name.as_str()).is_ok() {
                return Err(format!("{name} is there already"));
            }
            let memory = Bytes::mib(16384);
            self.nodes.push(Node { name, memory, bmc: Some(Mood::Ok), watchdog: None });
        }
        let from = self.nodes.len() - names.split_whitespace().count();
        for phrase in phrases.split(',').map(str::trim).filter(|phrase| !phrase.is_empty()) {
            let words: Vec<&str> = phrase.split_whitespace().collect();
            let change: Box<dyn Fn(&mut Node)> = match words[..] {
                ["no", "bmc"] => Box::new(|node| node.bmc = None),
                ["bmc", ref mood @ ..] => {
                    let mood = self.mood(mood)?;
                    Box::new(move |node| node.bmc = Some(mood.clone()))
                }
                ["watchdog"] => Box::new(|node| node.watchdog = Some(Duration::from_secs(10))),
                ["watchdog", timeout] => {
                    let timeout = time(timeout)?;
                    Box::new(move |node| node.watchdog = Some(timeout))
                }
                [number, unit] if memory(number, unit).is_some() => {
                    let memory = memory(number, unit).unwrap_or_default();
                    Box::new(move |node| node.memory = memory)
                }
                _ => {
                    let accepted = "16 GiB, 512 MiB, no bmc, bmc BEHAVIOUR, watchdog [TIME]";
                    return Err(format!("a node is not {phrase:?}; accepted are {accepted}"));
                }
            };
            self.nodes.iter_mut().skip(from).for_each(change);
        }
        Ok(())
    }

    fn declare_vms(&mut self, rest: &str) -> Read<()> {
        let (head, phrases) = rest.split_once(',').unwrap_or((rest, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        let (names, on) = match words[..] {
            [ref names @ .., "on", node] => (names, Some(self.node(node)?)),
            ref names => (names, None),
        };
        let [first, ..] = *names else { return Err("which VM?".to_owned()) };
        let name = VmName::new(first).map_err(|bad| bad.to_string())?;
        let mut vm =
            Vm { name, on, memory: Bytes::mib(1024), priority: None, limit: vec![], autostart: false, off: false };
        for phrase in phrases.split(',').map(str::trim).filter(|phrase| !phrase.is_empty()) {
            let words: Vec<&str> = phrase.split_whitespace().collect();
            match words[..] {
                ["priority", n] => vm.priority = Some(n.parse().map_err(|_| format!("{n:?} is not a whole number"))?),
                ["limit", ref nodes @ ..] => {
                    vm.limit = nodes.iter().map(|node| self.node(node)).collect::<Read<_>>()?;
                }
                ["autostart"] => vm.autostart = true,
                ["off"] => vm.off = true,
                [number, unit] if memory(number, unit).is_some() => {
                    vm.memory = memory(number, unit).unwrap_or_default();
                }
                _ => {
                    let accepted = "1 GiB, 512 MiB, priority N, limit NODE ..., autostart, off";
                    return Err(format!("a VM is not {phrase:?}; accepted are {accepted}"));
                }
            }
        }
        for name in names {
            let name = VmName::new(name).map_err(|bad| bad.to_string())?;
            if self.vm(name.as_str()).is_ok() {
                return Err(format!("{name} is there already"));
            }
            self.vms.push(Vm { name, ..vm.clone() });
        }
        Ok(())
    }

    fn set(&mut self, rest: &str) -> Read<()> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        match words[..] {
            ["session", span] => self.settings.session = time(span)?,
            ["migration-time", span] => self.settings.transfer = time(span)?,
            ["power-off-time", span] => self.settings.power_off = time(span)?,
            [name, value] => self.settings.config = config(self.settings.config, name, value)?,
            _ => return Err(not_a_setting(rest)),
        }
        Ok(())
    }

    fn command(&mut self, rest: &str) -> Read<()> {
        let (at, text) = rest.split_once(' ').ok_or("a command has a time: at 10s power off hv1")?;
        let at = time(at)?;
        if self.commands.last().is_some_and(|last| last.at > at) {
            return Err("the command before is later; accepted are commands in the order of their times".to_owned());
        }
        let text = text.trim();
        let (refused, text) = match text.strip_prefix("refused ") {
            Some(text) => (true, text.trim()),
            None => (false, text),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        // Several nodes or VMs are several commands.
        for command in self.meaning(&words)? {
            self.commands.push(Timed { at, text: text.to_owned(), command, refused });
        }
        Ok(())
    }

    fn expect(&mut self, n: usize, rest: &str) -> Read<()> {
        if let Some(what) = rest.strip_prefix("violation:") {
            self.violation = Some(what.trim().to_owned());
            return Ok(());
        }
        let after = self.commands.last().map(|command| command.at).unwrap_or_default();
        self.expectations.push(expect::read(self, n, after, rest)?);
        Ok(())
    }
}

fn join<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
