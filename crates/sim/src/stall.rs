//! A process that stalls (SIGSTOP, an overcommitted hypervisor, a hanging disk): it does nothing while its machine
//! continues.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Stops and continues the futures that are wrapped with it. Clones share the switch.
#[derive(Clone, Default)]
pub(crate) struct Switch {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    wakers: Vec<Waker>,
}

impl Switch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
    }

    pub(crate) fn go_on(&self) {
        let wakers = {
            let mut state = self.lock();
            state.stopped = false;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wraps a future, which is not polled while the switch is stopped.
    pub(crate) fn wrap<F: Future + Send + 'static>(&self, work: F) -> impl Future<Output = F::Output> + Send + use<F> {
        Stoppable { switch: self.clone(), work: Box::pin(work) }
    }
}

struct Stoppable<F> {
    switch: Switch,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Stoppable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut state = self.switch.lock();
            if state.stopped {
                state.wakers.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.work.as_mut().poll(context)
    }
}
