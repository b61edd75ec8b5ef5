//! Parsing of nodes and VMs in phrases separated by commas: `node hv1 8 GiB, flushed`. See `README.md`.

use crate::world::World;
use drover_model::{
    Bytes, DaemonState, DomainType, How, MoveKind, NodeState, NodeView, Replaced, Unreadable, VmName, VmState, VmView,
    testing::*,
};
use std::{collections::BTreeMap, str::FromStr, sync::Arc};

type Result<T> = std::result::Result<T, String>;

pub(crate) fn number<T: FromStr>(word: &str) -> Result<T> {
    word.parse().map_err(|_| format!("{word:?} is not valid here"))
}

fn size(number_of: &str, unit: &str) -> Result<Bytes> {
    let n: u64 = number(number_of)?;
    match unit {
        "GiB" => Ok(Bytes::mib(n * 1024)),
        "MiB" => Ok(Bytes::mib(n)),
        _ => Err(format!("{unit:?} is not a valid unit")),
    }
}

/// A declaration.
pub(crate) fn declare(world: &mut World, line: &str) -> Result<()> {
    let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
    match what {
        "limits" => limits(world, rest),
        "selector" => {
            world.view.config.selector = number(rest)?;
            Ok(())
        }
        _ => {
            let (name_of, phrases) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
            if what == "node" {
                let node = be(node(name_of, 16), phrases, node_is)?;
                world.view.put_node(&node);
            } else {
                let n = u128::try_from(world.view.vms.len()).unwrap_or_default() + 1;
                let vm = vm_of(vm(n, 1024).named(name_of), phrases)?;
                world.put_vm(&vm);
            }
            Ok(())
        }
    }
}

/// `limits per-source 2, per-target 2, cluster 8`.
fn limits(world: &mut World, rest: &str) -> Result<()> {
    for phrase in rest.split(',') {
        let (which, n) = phrase.trim().split_once(' ').ok_or("a limit has a number")?;
        let limits = &mut world.view.config.limits;
        *match which {
            "per-source" => &mut limits.per_source,
            "per-target" => &mut limits.per_target,
            "cluster" => &mut limits.cluster,
            _ => return Err(format!("{which:?} is not a valid limit")),
        } = number(n)?;
    }
    Ok(())
}

fn be<T>(thing: T, phrases: &str, is: fn(T, &str) -> Result<T>) -> Result<T> {
    let phrases = phrases.split(", ").map(str::trim).filter(|phrase| !phrase.is_empty());
    phrases.into_iter().try_fold(thing, is)
}

/// A node is also that.
pub(crate) fn node_is(node: NodeView, phrase: &str) -> Result<NodeView> {
    let words: Vec<&str> = phrase.split_whitespace().collect();
    Ok(match words[..] {
        [n, unit @ ("GiB" | "MiB")] => {
            let size = size(n, unit)?;
            node.reporting(|r| r.memory_total = size)
        }
        [n, "cpus"] => {
            let n = number(n)?;
            node.reporting(|r| r.cpus = n)
        }
        ["load", load] => {
            let load = number(load)?;
            node.reporting(|r| r.load = load)
        }
        ["ready" | "flush" | "flushed" | "unflush"] => node.in_state(number::<NodeState>(phrase)?),
        ["dead"] => node.dead(),
        ["stopped"] => node.dead().reporting(|r| r.daemon = DaemonState::Stop),
        ["stopping"] => node.reporting(|r| r.daemon = DaemonState::Shutdown),
        ["not", "reported"] => node.unreported(),
        ["unreadable"] => {
            let newer = Some((2, 1));
            let problem =
                Unreadable { version: Default::default(), newer, why: String::new(), document: Default::default() };
            node.but(|n| n.unreadable = Some(Arc::new(problem)))
        }
        ["bridges", ref bridges @ ..] => node.bridged(bridges),
        ["shares", ref folders @ ..] => node.sharing(folders),
        ["kvm", model] => node.kvm(model),
        ["emulation"] => node.reporting(|r| r.domain_type = Some(DomainType::Qemu)),
        ["stray", n] => {
            let stray = uuid::Uuid::from_u128(number(n)?);
            node.reporting(|r| r.domains.push(stray))
        }
        ["no", "hypervisor"] => node.without_hypervisor("no libvirtd"),
        _ => return Err(format!("a node is not {phrase:?}")),
    })
}

/// A VM, which runs where it is unless it is said otherwise.
fn vm_of(vm: VmView, phrases: &str) -> Result<VmView> {
    let on = phrases.split(", ").find_map(|phrase| phrase.trim().strip_prefix("on "));
    let vm = match on {
        Some(on) => vm.on(on).held_by(on).wanted(VmState::Start),
        None => vm,
    };
    vm_is(vm, phrases)
}

/// A VM is also that.
pub(crate) fn vm_is(vm: VmView, phrases: &str) -> Result<VmView> {
    be(vm, phrases, one)
}

fn free(vm: VmView) -> VmView {
    vm.but(|vm| {
        if let Some(claim) = &mut vm.claim {
            claim.node = None;
        }
    })
}

/// Adds to a VM's definition.
fn with_device(vm: VmView, add: impl FnOnce(&mut drover_model::domain::devices::Devices)) -> VmView {
    vm.but(|vm| add(Arc::make_mut(&mut vm.devices)))
}

fn one(vm: VmView, phrase: &str) -> Result<VmView> {
    let words: Vec<&str> = phrase.split_whitespace().collect();
    Ok(match words[..] {
        ["on", node] => vm.on(node),
        ["runs"] => vm.wanted(VmState::Start),
        ["off"] => free(vm.wanted(VmState::Stop)),
        ["waits", "to", "start"] => free(vm.wanted(VmState::Start)),
        ["disabled"] => free(vm.wanted(VmState::Disable)),
        ["failed"] => free(vm.wanted(fail())),
        ["stopping"] => vm.wanted(VmState::Stop),
        ["shutting", "down"] => vm.wanted(shutdown()),
        ["restarting"] => vm.wanted(restart()),
        ["deleting"] => vm.wanted(VmState::Delete { disks: true }),
        ["held", "by", node] => vm.held_by(node),
        ["free"] => free(vm),
        ["going", "to", node] => vm.going_to(node, MoveKind::Migrate, How::LiveElseCold),
        ["going", "to", node, "for", "good"] => vm.going_to(node, MoveKind::Move, How::LiveElseCold),
        ["going", "home", "to", node] => vm.going_to(node, MoveKind::Unmigrate, How::LiveElseCold),
        ["sent", "to", node] => vm.sent_to_node(node),
        ["awaited", "by", node] => {
            let of = vm.record.version;
            vm.answered(node, of, None)
        }
        ["refused", "by", node] => {
            let of = vm.record.version;
            vm.answered(node, of, Some("it is full"))
        }
        [n, unit @ ("GiB" | "MiB")] => {
            let size = size(n, unit)?;
            vm.but(|vm| vm.demand.memory = size)
        }
        [n, "vcpus"] => {
            let n = number(n)?;
            vm.but(|vm| vm.demand.vcpus = n)
        }
        ["priority", n] => vm.priority(number(n)?),
        ["method", method] => vm.method(number(method)?),
        ["selector", selector] => vm.selector(number(selector)?),
        ["limit", ref nodes @ ..] => vm.limited(nodes),
        ["home", node] => vm.away_from(node),
        ["autostart"] => vm.autostart(),
        ["failed", "to", node, n, "times"] => vm.failed(node, number(n)?),
        ["paused"] => vm.paused(),
        ["host", "cpu"] => with_device(vm, |devices| devices.cpu_mode = "host-passthrough".into()),
        ["bridge", bridge] => with_device(vm, |devices| {
            let network = drover_model::domain::devices::Interface {
                kind: "bridge".into(),
                source: bridge.into(),
                ..Default::default()
            };
            devices.networks.push(network);
        }),
        ["disk", dev, path, "replaced", "by", live] => {
            let is = |path: &str| [(dev.to_owned(), path.to_owned())].into();
            let vm = with_device(vm, |devices| devices.files.push(path.to_owned()));
            let disk = format!("<disk><source file='{path}'/><target dev='{dev}'/></disk>");
            let vm = vm.but(|vm| vm.record.xml = format!("<domain><devices>{disk}</devices></domain>"));
            let epoch = vm.claim.as_ref().map(|claim| claim.epoch).unwrap_or_default();
            vm.reported(|report| report.replaced = Replaced::between(epoch, &is(path), &is(live)))
        }
        ["uses", ..] => with_device(vm, |devices| devices.bound.push(phrase["uses ".len()..].to_owned())),
        ["passes", folder] => with_device(vm, |devices| {
            devices.files.push(folder.to_owned());
            devices.not_live = Some(format!("a folder of the host is passed through to the guest ({folder})"));
        }),
        ["file", file] => with_device(vm, |devices| devices.files.push(file.to_owned())),
        ["record", "unreadable"] => vm.wanted(VmState::Unreadable),
        ["claim", "unreadable"] => vm.but(|vm| (vm.claim, vm.claim_unreadable) = (None, true)),
        _ => return Err(format!("a VM is not {phrase:?}")),
    })
}

/// The options of an order: `--to hv3 --force`.
pub(crate) fn options<'a>(words: &[&'a str], flags: &[&str], valued: &[&str]) -> Result<BTreeMap<&'a str, &'a str>> {
    let (mut out, mut words) = (BTreeMap::new(), words.iter());
    while let Some(word) = words.next() {
        let value = if valued.contains(word) {
            *words.next().ok_or_else(|| format!("{word} needs a value"))?
        } else if flags.contains(word) {
            ""
        } else {
            return Err(format!("{word:?} is not a valid option here"));
        };
        out.insert(*word, value);
    }
    Ok(out)
}

/// A VM by its name.
pub(crate) fn vm_named(world: &World, named: &str) -> Result<Arc<VmView>> {
    let name = VmName::new(named).map_err(|bad| bad.to_string())?;
    let uuid = world.view.names.get(&name).ok_or_else(|| format!("there is no VM {named}"))?;
    Ok(world.view.vms[uuid].clone())
}
