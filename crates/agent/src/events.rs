//! This node's history: what it decided and did, and why, for people. Bounded, in memory and in two files beside the
//! daemon's own state (`file`), never in the store: it must not cost the cluster anything, and a node can tell what it
//! did while it was cut off.
//!
//! Telling an event never blocks or fails: the files are written by a thread of their own.

mod file;

use crate::{context::Context, operation};
pub(crate) use drover_model::wire::EventKind;
use drover_model::{
    NodeName, Operation, VmRecord, WallTime,
    wire::{Cursor, Event},
};
use file::Journal;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use uuid::Uuid;

/// Events in memory, for those who follow. Older ones are read from the files.
const RECENT: usize = 128;
/// Longest text of an event, and of a detail, in characters.
const TEXT_MAX: usize = 1000;
/// Details of an event.
const DETAILS_MAX: usize = 16;

/// What an event or a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A VM.
    Vm(String, Uuid),
    /// A node.
    Node(NodeName),
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            About::Vm(name, _) => write!(f, "VM {name}"),
            About::Node(name) => write!(f, "node {name}"),
            About::Other(what) => f.write_str(what),
        }
    }
}

impl From<&VmRecord> for About {
    fn from(vm: &VmRecord) -> About {
        About::Vm(vm.name.to_string(), vm.uuid)
    }
}

/// An event that is told.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Event);

impl Entry {
    pub(crate) fn new(about: impl Into<About>, kind: EventKind, what: impl Into<String>) -> Entry {
        let event = Event { kind: kind.word().to_owned(), what: shortened(what.into()), ..Event::default() };
        Entry(match about.into() {
            About::Vm(vm, uuid) => Event { vm, uuid: uuid.to_string(), ..event },
            About::Node(node) => Event { about: node.to_string(), ..event },
            About::Other(_) => event,
        })
    }

    /// Of the cluster as a whole.
    pub(crate) fn of_cluster(kind: EventKind, what: impl Into<String>) -> Entry {
        Entry::new(About::Other(String::new()), kind, what)
    }

    /// Of this operation, instead of that of the work that is done now.
    pub(crate) fn of(self, operation: Operation) -> Entry {
        let Operation { id, by } = operation;
        Entry(Event { operation: id.into(), by, ..self.0 })
    }

    /// A detail. Empty ones are omitted.
    pub(crate) fn with(mut self, key: &str, value: impl fmt::Display) -> Entry {
        let value = shortened(value.to_string());
        if !value.is_empty() && self.0.details.len() < DETAILS_MAX {
            self.0.details.insert(key.to_owned(), value);
        }
        self
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Events of this node, in the order in which it recorded them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The events.
    pub events: Vec<Event>,
    /// The position after them: nothing that was asked for is before it and not among them, but what was forgotten.
    pub last: u64,
}

struct Recent {
    next: u64,
    events: VecDeque<Arc<Event>>,
}

/// The history of a node.
pub struct Events {
    recent: Mutex<Recent>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
    journal: Option<Journal>,
}

impl Events {
    /// Only in memory: for simulations and tests.
    pub fn in_memory() -> Arc<Events> {
        Events::of(1, None)
    }

    /// In files in this folder, which exists. The events there are kept. If the files cannot be used, only in memory:
    /// a node without a history is better than none.
    pub fn open(folder: &Path, now: WallTime) -> Arc<Events> {
        let (journal, last) = match Journal::open(folder) {
            Ok((journal, last)) => (Some(journal), last),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "events are kept in memory only");
                (None, 0)
            }
        };
        // What was told and not written before a loss of power had numbers too. They are not used again, because they
        // are below the time, unless there was more than one event in each millisecond, or the clock was set back.
        Events::of(now.0.max(last.saturating_add(1)), journal)
    }

    fn of(next: u64, journal: Option<Journal>) -> Arc<Events> {
        let recent = Mutex::new(Recent { next, events: VecDeque::new() });
        Arc::new(Events { recent, newest: watch::channel(next.saturating_sub(1)).0, journal })
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, me: &NodeName, at: WallTime, Entry(event): Entry) {
        let mut recent = self.recent();
        let seq = recent.next;
        recent.next = seq.saturating_add(1);
        let event = Arc::new(Event { node: me.to_string(), seq, at: at.0, ..event });
        if let Some(journal) = &self.journal {
            journal.append(&event);
        }
        recent.events.push_back(event);
        if recent.events.len() > RECENT {
            recent.events.pop_front();
        }
        // While the lock is held, so that it never goes back.
        self.newest.send_replace(seq);
    }

    /// Notifies of new events.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// At most `limit` events that `wanted` accepts: the first after this position, or without one the last. May read
    /// files, of 1 MiB together.
    pub fn page(&self, me: &str, after: Option<&Cursor>, limit: usize, wanted: impl Fn(&Event) -> bool) -> Page {
        let (last, recent): (u64, Vec<Arc<Event>>) = {
            let recent = self.recent();
            (recent.next.saturating_sub(1), recent.events.iter().cloned().collect())
        };
        let from = after.and_then(|cursor| cursor.nodes.get(me)).copied();
        let since = after.filter(|_| from.is_none()).map_or(0, |cursor| cursor.since);
        let wanted = |event: &Event| {
            event.seq <= last && from.is_none_or(|from| event.seq > from) && event.at >= since && wanted(event)
        };
        let mut found: BTreeMap<u64, Event> = BTreeMap::new();
        let mut find = |event: &Event| {
            if wanted(event) {
                found.insert(event.seq, event.clone());
            }
            if found.len() > limit {
                // Those at the other end are over the limit.
                if after.is_some() {
                    found.pop_last()
                } else {
                    found.pop_first()
                };
            }
        };
        recent.iter().for_each(|event| find(event));
        let all_recent = match (from, recent.first()) {
            (Some(from), _) if from >= last => true,
            (Some(from), Some(first)) => first.seq <= from.saturating_add(1),
            _ => false,
        };
        if let Some(journal) = self.journal.as_ref().filter(|_| !all_recent) {
            journal.read(find);
        }
        let events: Vec<Event> = found.into_values().collect();
        // Those after the limit are still to come.
        let cut = after.is_some() && events.len() >= limit;
        let last = if cut { events.last().map_or(last, |event| event.seq) } else { last };
        Page { events, last }
    }
}

impl Context {
    /// Records an event in this node's history, as part of the operation of the work that is done now, if any.
    pub(crate) fn tell(&self, told: Entry) {
        let told = match operation::current() {
            Some(operation) if told.0.operation.is_empty() => told.of(operation),
            _ => told,
        };
        self.options.events.tell(self.me(), self.wall(), told);
    }
}

#[cfg(test)]
mod tests;
