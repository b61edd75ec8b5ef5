//! The turns of starts on this node. A start takes its turn before it takes the VM's claim, so that the claim is not
//! written long before the guest runs, and the start's deadline does not count a queue. (A VM that was given to this
//! node is taken over at once, which is its claim; its start is a further grant, with the turn.) After a power cut, or
//! when many VMs of a dead node come here, those with a higher priority are first.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};
use tokio::sync::watch;

/// Starts under way at once. Fewer than libvirt's threads for changes, so that other changes need not wait.
pub(crate) const STARTS: usize = 6;

/// What orders those that wait: higher priorities first, then whoever came first.
type Place = (Reverse<i32>, u64);

#[derive(Default)]
struct Queue {
    under_way: usize,
    waiting: BTreeSet<Place>,
    came: u64,
}

/// The queue. Clones share it.
#[derive(Clone)]
pub(crate) struct Starts(Arc<watch::Sender<Queue>>);

/// A turn; it ends when this is dropped.
pub(crate) struct StartTurn(Starts);

/// A place in the queue; it is left when this is dropped.
struct Waiting<'a>(&'a Starts, Place);

impl Starts {
    pub(crate) fn new() -> Starts {
        Starts(Arc::new(watch::channel(Queue::default()).0))
    }

    /// A turn at once, if nobody waits and not too many are under way.
    pub(crate) fn at_once(&self) -> Option<StartTurn> {
        self.take(|queue| queue.waiting.is_empty())
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self, priority: i32) -> StartTurn {
        let mut place = (Reverse(priority), 0);
        self.0.send_modify(|queue| {
            queue.came += 1;
            place.1 = queue.came;
            queue.waiting.insert(place);
        });
        let _waiting = Waiting(self, place);
        let mut queue = self.0.subscribe();
        loop {
            if let Some(turn) = self.take(|queue| queue.waiting.first() == Some(&place)) {
                return turn;
            }
            // The sender is in `self`.
            queue.changed().await.ok();
        }
    }

    fn take(&self, is_next: impl FnOnce(&Queue) -> bool) -> Option<StartTurn> {
        let taken = self.0.send_if_modified(|queue| {
            let taken = queue.under_way < STARTS && is_next(queue);
            queue.under_way += usize::from(taken);
            taken
        });
        taken.then(|| StartTurn(self.clone()))
    }
}

impl Drop for StartTurn {
    fn drop(&mut self) {
        self.0.0.send_modify(|queue| queue.under_way -= 1);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|queue| {
            queue.waiting.remove(&self.1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future::BoxFuture};

    fn waiter(starts: &Starts, priority: i32) -> BoxFuture<'static, StartTurn> {
        let starts = starts.clone();
        async move { starts.turn(priority).await }.boxed()
    }

    #[test]
    fn higher_priorities_are_first_and_nobody_overtakes_who_waits() {
        let starts = Starts::new();
        let mut turns: Vec<_> = (0..STARTS).map(|_| starts.at_once().unwrap()).collect();
        assert!(starts.at_once().is_none());
        let (mut low, mut high, mut later) = (waiter(&starts, 0), waiter(&starts, 5), waiter(&starts, 5));
        for waiter in [&mut low, &mut high, &mut later] {
            assert!(waiter.now_or_never().is_none());
        }
        turns.pop();
        assert!(starts.at_once().is_none(), "others wait");
        assert!((&mut low).now_or_never().is_none() && (&mut later).now_or_never().is_none());
        let turn = (&mut high).now_or_never().expect("it is the first");
        assert!((&mut later).now_or_never().is_none(), "all turns are taken");
        drop(turn);
        drop(later);
        assert!((&mut low).now_or_never().is_some(), "who gave up is not waited for");
    }
}
