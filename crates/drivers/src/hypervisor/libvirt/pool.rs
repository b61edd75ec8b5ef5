//! Threads for libvirt's blocking calls, separate from the rest of the daemon, each with its own connection.
//!
//! libvirtd 9.0.0 serves only five calls per connection at once (`max_client_requests`). Until one of them ends it
//! reads nothing more from that connection, not even keepalive replies. So five hanging calls, each on another guest's
//! monitor, would block everybody who shares their connection. Here no connection is shared.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};
use virt::connect::Connect;

/// A blocking call. Its argument is the thread's connection, or why there is none.
pub(super) type Job = Box<dyn FnOnce(Result<&Connect, String>) + Send>;

/// A fixed number of threads that take jobs in order.
pub(super) struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts the threads. They end when the pool is dropped and the jobs are done.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(super) fn start(name: &str, threads: usize, uri: &str, keepalive: (i32, u32)) -> std::io::Result<Pool> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..threads {
            let (queue, mut connection) = (queue.clone(), Lazy { uri: uri.to_owned(), keepalive, open: None });
            thread::Builder::new().name(format!("{name}-{n}")).spawn(move || work(&queue, &mut connection))?;
        }
        Ok(Pool { jobs })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// When the threads are gone; the job is dropped then.
    pub(super) fn give(&self, job: Job) -> std::io::Result<()> {
        self.jobs.send(job).map_err(|_| std::io::Error::other("its threads are gone"))
    }
}

/// Runs one job on a thread of its own.
///
/// # Errors
/// When the operating system gives no thread; the job is dropped then.
pub(super) fn alone(name: &str, uri: &str, keepalive: (i32, u32), job: Job) -> std::io::Result<()> {
    let mut connection = Lazy { uri: uri.to_owned(), keepalive, open: None };
    thread::Builder::new().name(name.to_owned()).spawn(move || run(job, &mut connection)).map(|_| ())
}

/// A thread's connection, opened on demand.
struct Lazy {
    uri: String,
    keepalive: (i32, u32),
    open: Option<Connect>,
}

impl Lazy {
    fn connection(&mut self) -> Result<&Connect, String> {
        if self.open.as_ref().is_some_and(|open| !open.is_alive().unwrap_or(false)) {
            self.close();
        }
        match &mut self.open {
            Some(open) => Ok(open),
            empty => {
                let made = Connect::open(Some(&self.uri)).map_err(|error| error.message().to_owned())?;
                // Drivers without a daemon (test:///) know no keepalive and need none.
                made.set_keep_alive(self.keepalive.0, self.keepalive.1).ok();
                Ok(empty.insert(made))
            }
        }
    }

    fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            // Errors on closing do not matter.
            open.close().ok();
        }
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(queue: &Mutex<Receiver<Job>>, connection: &mut Lazy) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        run(job, connection);
    }
}

fn run(job: Job, connection: &mut Lazy) {
    // The binding panics on a few impossible answers; that must fail one call, not end a thread.
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(connection.connection()))).is_err() {
        tracing::error!("a libvirt call failed in the binding; its outcome will be looked up");
    }
}
