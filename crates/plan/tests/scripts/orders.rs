//! One order: its output, and its effect on the world.

use crate::{
    words::{self, node_is, number, options, vm_is, vm_named},
    world::{World, ordered, way},
};
use drover_model::{MoveKind, NodeName, NodeState, VmState, VmView, testing::But, wire};
use drover_plan::{
    admit::{self, Command, Guest},
    capacity::Ledger,
    drain::{self, Fate, Plan},
    moves::{self, Request, Turn},
    place::{self, Placement, Verdict, Wanted},
};
use std::fmt::Display;

type Said = Result<Vec<String>, String>;

fn refused(refusal: impl Display) -> Said {
    Ok(vec![format!("refused: {refusal}")])
}

/// A table of names and texts.
fn table<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> Vec<String> {
    let rows: Vec<_> = rows.into_iter().collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, said)| format!("{name:width$}  {said}")).collect()
}

/// Carries out one order.
///
/// # Errors
/// It is not a valid order, or it names something that does not exist.
pub(crate) fn carry_out(world: &mut World, order: &str) -> Said {
    let words: Vec<&str> = order.split_whitespace().collect();
    match words[..] {
        ["flush", node, ref rest @ ..] => {
            drain(world, node, false, options(rest, &["--force"], &[])?.contains_key("--force"))
        }
        ["ready", node] => drain(world, node, true, false),
        ["plan", node] => {
            let node = known(world, node)?;
            Ok(told(&World::plan(&world.view, &node).0))
        }
        ["orders", node] => {
            let node = known(world, node)?;
            let (plan, kind) = World::plan(&world.view, &node);
            let orders = plan.orders(&world.view, &node, kind, world.wall());
            Ok(if orders.is_empty() { vec!["none".to_owned()] } else { orders.iter().map(ordered).collect() })
        }
        ["report", node] => {
            let report = World::plan(&world.view, &known(world, node)?).0.report();
            let head = format!("{} left, {} of them under way", report.left, report.moving);
            let blocked = wire::Blocked::of(&report).into_iter();
            let blocked = blocked.map(|of| format!("{} is blocked: {}", of.vm, of.reason));
            Ok([head].into_iter().chain(blocked).collect())
        }
        ["migrate", vm, ref rest @ ..] => relocate(world, MoveKind::Migrate, vm, rest),
        ["move", vm, ref rest @ ..] => relocate(world, MoveKind::Move, vm, rest),
        ["unmigrate", vm, ref rest @ ..] => relocate(world, MoveKind::Unmigrate, vm, rest),
        ["start", vm] => command(world, vm, Command::Start { force: false }),
        ["start", vm, "--force"] => command(world, vm, Command::Start { force: true }),
        ["pause", vm] => command(world, vm, Command::Pause),
        ["resume", vm] => command(world, vm, Command::Resume),
        ["stop", vm] => command(world, vm, Command::Stop),
        ["shutdown", vm] => command(world, vm, Command::Shutdown(None)),
        ["restart", vm] => command(world, vm, Command::Restart(None)),
        ["disable", vm] => command(world, vm, Command::Disable { force: false }),
        ["cancel", vm] => command(world, vm, Command::CancelMove),
        ["explain", vm] => {
            let vm = vm_named(world, vm)?;
            Ok(judged(place::choose(&world.view, &Ledger::of(&world.view), &Wanted::moved(&vm)), true))
        }
        ["why", vm] => {
            let vm = vm_named(world, vm)?;
            let choice = |what: &str, choice: &Option<Box<drover_model::Placed>>| {
                choice.as_deref().map(|of| format!("{what} {} {}", of.to, wire::Placed::of(of)))
            };
            let going = choice("goes to", &vm.record.going).filter(|_| vm.record.state.destination().is_some());
            let said = [choice("placed on", &vm.record.placed), going];
            Ok(said.into_iter().flatten().collect())
        }
        ["define", vm, ..] => define(world, vm, order),
        ["turns"] => {
            let turns =
                world.view.moving().map(|vm| (vm.record.name.as_str(), moves::turn(&world.view, &vm.record.uuid)));
            Ok(table(turns.map(|(name, turn)| match turn {
                Turn::Go => (name, "goes".to_owned()),
                Turn::Wait(why) => (name, why),
                Turn::Unfit(why) => (name, format!("cannot go: {why}")),
            })))
        }
        ["show"] => Ok(table(world.view.vms.values().map(|vm| (vm.record.name.as_str(), shown(vm))))),
        ["show", vm] => Ok(vec![shown(&*vm_named(world, vm)?)]),
        ["step"] => Ok(world.round().told),
        ["steps"] => {
            let rounds = world.settle().ok_or("it comes to no end")?;
            let lines = (1..)
                .zip(rounds)
                .flat_map(|(n, round)| round.told.into_iter().map(move |told| format!("{n:2}  {told}")));
            Ok(lines.collect())
        }
        [_, "dies"] => change(world, words[0], "dead"),
        [_, "returns"] => {
            let node = known(world, words[0])?;
            world.view.change_node(&node, |n| n.session = drover_model::testing::node("x", 1).session);
            Ok(vec![])
        }
        [_, "is", ..] => change(world, words[0], order.split_once(" is ").map_or("", |(_, rest)| rest)),
        [vm, "can", "be", "sent"] => {
            world.unsendable.remove(&vm_named(world, vm)?.record.uuid);
            Ok(vec![])
        }
        [vm, "can", "start", "on", node] => {
            let at = (known(world, node)?, vm_named(world, vm)?.record.uuid);
            world.unstartable.remove(&at);
            Ok(vec![])
        }
        [vm, "cannot", "start", "on", node, ref why @ ..] => {
            let at = (known(world, node.trim_end_matches(':'))?, vm_named(world, vm)?.record.uuid);
            world.unstartable.insert(at, why.join(" "));
            Ok(vec![])
        }
        [vm, "cannot", "be", "sent:", ref why @ ..] => {
            world.unsendable.insert(vm_named(world, vm)?.record.uuid, why.join(" "));
            Ok(vec![])
        }
        _ => Err("this is no order".to_owned()),
    }
}

fn known(world: &World, node: &str) -> Result<NodeName, String> {
    let name: NodeName = number(node)?;
    if world.view.nodes.contains_key(&name) { Ok(name) } else { Err(format!("there is no node {node}")) }
}

/// Something happens to a node or a VM.
fn change(world: &mut World, what: &str, phrases: &str) -> Said {
    if let Ok(name) = known(world, what) {
        for phrase in phrases.split(", ") {
            let node = node_is((*world.view.nodes[&name]).clone(), phrase)?;
            world.view.put_node(&node);
        }
    } else {
        let vm = (*vm_named(world, what)?).clone().but(|vm| vm.record.version = vm.record.version.next());
        world.put_vm(&vm_is(vm, phrases)?);
    }
    Ok(vec![])
}

fn drain(world: &mut World, node: &str, ready: bool, force: bool) -> Said {
    let name: NodeName = number(node)?;
    let now = world.view.nodes.get(&name).map_or(NodeState::Ready, |node| node.record.domain_state);
    match drain::request(&world.view, &name, now, ready, force) {
        Ok(state) => {
            world.set_state(&name, state);
            let plan = World::plan(&world.view, &name).0;
            Ok([format!("{name} is in state {state}")].into_iter().chain(told(&plan)).collect())
        }
        Err(refusal) => refused(refusal),
    }
}

/// A plan, in its order.
fn told(plan: &Plan) -> Vec<String> {
    let strays = plan.strays.iter().map(wire::Blocked::stray);
    let strays = strays.map(|stray| format!("{} is blocked: {}", stray.vm, stray.reason));
    if plan.fates.is_empty() && plan.strays.is_empty() {
        return vec!["nothing is to be done".to_owned()];
    }
    let fate = |fate: &Fate| match fate {
        Fate::Moves { to, how, .. } => format!("goes to {to}, {}", way(*how)),
        Fate::ShutDown(why) => format!("is shut down: {why}"),
        Fate::Starts => "starts".to_owned(),
        Fate::UnderWay => "is waited for".to_owned(),
        Fate::Blocked(why) => format!("is blocked: {why}"),
        Fate::Away(why) => format!("is not waited for: {why}"),
    };
    table(plan.fates.iter().map(|(_, name, of)| (name.as_str(), fate(of)))).into_iter().chain(strays).collect()
}

fn relocate(world: &mut World, kind: MoveKind, vm: &str, rest: &[&str]) -> Said {
    let options = options(rest, &["--force", "--live"], &["--to"])?;
    let to = options.get("--to").map(|to| number(to)).transpose()?;
    let (force, live_only) = (options.contains_key("--force"), options.contains_key("--live"));
    let vm = vm_named(world, vm)?;
    match moves::relocate(&world.view, &vm, &Request { kind, to, force, live_only }, world.wall()) {
        Ok(record) => {
            world.set_record(&vm.record.uuid, record);
            Ok(vec![shown(&world.view.vms[&vm.record.uuid])])
        }
        Err(refusal) => refused(refusal),
    }
}

fn command(world: &mut World, vm: &str, command: Command) -> Said {
    let vm = vm_named(world, vm)?;
    let guest = vm.claim.as_ref().map(|claim| Guest::of(&claim.value, vm.status.as_ref().map(|report| &report.value)));
    match admit::command(&vm.record.value, &guest.unwrap_or_default(), command) {
        Ok(record) => {
            world.set_record(&vm.record.uuid, record);
            Ok(vec![shown(&world.view.vms[&vm.record.uuid])])
        }
        Err(refusal) => refused(refusal),
    }
}

/// A new VM, whose node is chosen.
fn define(world: &mut World, name: &str, order: &str) -> Said {
    words::declare(world, &order.replacen("define", "vm", 1))?;
    let vm = vm_named(world, name)?;
    let placement =
        place::choose(&world.view, &Ledger::of(&world.view), &Wanted::new(vm.demand, &vm.record.meta, &vm.devices));
    if let Some(node) = placement.node().cloned() {
        world.view.change_vm(&vm.record.uuid, |vm| vm.record.node = Some(node));
    }
    Ok(judged(placement, false))
}

/// All nodes, and the chosen one.
fn judged(placement: Placement, moves: bool) -> Vec<String> {
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Fits { score, left } => format!("fits: {score} by {}, {left} would be left", placement.selector),
        Verdict::Rejected(why) => format!("no: {why}"),
    };
    let mut lines = table(placement.verdicts.iter().map(|(node, of)| (node.as_str(), verdict(of))));
    lines.push(match &placement.chosen {
        Some((node, how)) if moves => format!("chosen: {node}, {}", way(*how)),
        Some((node, _)) => format!("chosen: {node}"),
        None => "chosen: none".to_owned(),
    });
    lines
}

/// A VM's node and wanted state.
fn shown(vm: &VmView) -> String {
    let record = &vm.record;
    let node = record.node.as_ref().map_or("no node", NodeName::as_str);
    let mut said = match &record.state {
        VmState::Migrate { to, kind, how } => {
            let (goes, kind) = match kind {
                MoveKind::Move => ("goes", " for good"),
                MoveKind::Migrate => ("goes", " for a while"),
                MoveKind::Unmigrate => ("goes home", ""),
            };
            format!("{goes} from {node} to {to}{kind}, {}", way(*how))
        }
        state => format!("{state} on {node}"),
    };
    match vm.holder() {
        Some(holder) if Some(holder) != record.node.as_ref() => said += &format!("; held by {holder}"),
        None if record.state == VmState::Start => said += "; not started yet",
        _ => {}
    }
    if let Some(home) = &record.last_node {
        said += &format!("; home {home}");
    }
    if record.meta.autostart {
        said += "; autostart";
    }
    said
}
