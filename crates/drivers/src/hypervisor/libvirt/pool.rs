//! Threads for libvirt's blocking calls, apart from everything else of the daemon.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// A blocking call.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that take jobs in order.
pub(super) struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts the threads. They end when the pool is dropped and the jobs are done.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(super) fn start(threads: usize) -> std::io::Result<Pool> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..threads {
            let queue = queue.clone();
            thread::Builder::new().name(format!("libvirt-{n}")).spawn(move || work(&queue))?;
        }
        Ok(Pool { jobs })
    }

    /// Queues a job. It is dropped if the threads are gone.
    pub(super) fn run(&self, job: Job) {
        // It cannot fail: the threads live as long as the pool.
        self.jobs.send(job).ok();
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The binding panics on a few impossible answers; that must cost one call, not a thread.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a libvirt call failed in the binding; its outcome will be looked up");
        }
    }
}
