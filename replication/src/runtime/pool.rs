//! Plain threads that run jobs: bodies that touch the disk, handed over as values and never awaited on a lane.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::abort::AbortOnPanic;

type Work = Box<dyn FnOnce() + Send>;

/// A fixed set of threads draining one queue in order.
///
/// Who submits bounds what is queued: a read holds its connection's response credit, a flush its journal space.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    stopping: bool,
}

impl Pool {
    /// Starts `threads` threads called `name`.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared { queue: Mutex::default(), arrived: Condvar::new() });
        let mut handles = Vec::with_capacity(threads);
        for index in 0..threads {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("{name}-{index}"));
            handles.push(thread.spawn(move || {
                let _guard = AbortOnPanic { what: "a job" };
                shared.drain();
            })?);
        }
        Ok(Pool { shared, threads: Mutex::new(handles) })
    }

    /// Queues a job; the receiver yields its result. A job that panics takes the process with it (see `runtime`).
    pub fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> oneshot::Receiver<R> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Box::new(move || {
            // Nobody waits any more when the connection is gone: the result is dropped with it.
            let _ = sender.send(job());
        }));
        receiver
    }

    /// As [`Pool::run`], but a job whose receiver is gone before it begins is not run: nobody would see what it did.
    pub fn run_wanted<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> oneshot::Receiver<R> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Box::new(move || {
            if !sender.is_closed() {
                let _ = sender.send(job());
            }
        }));
        receiver
    }

    fn queue(&self, work: Work) {
        self.shared.lock().work.push_back(work);
        self.shared.arrived.notify_one();
    }

    /// Finishes what is queued and ends the threads.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.arrived.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(work) = queue.work.pop_front() {
                drop(queue);
                work();
                queue = self.lock();
            } else if queue.stopping {
                return;
            } else {
                queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn job_nobody_waits_for_any_more_is_not_begun() {
        let pool = Pool::start("test", 1).unwrap();
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let first = pool.run(move || held.recv());
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        drop(pool.run_wanted(move || begins.store(true, Ordering::SeqCst)));
        let wanted = pool.run_wanted(|| 7);
        let_go.send(()).unwrap();
        pool.stop();
        assert!(!begun.load(Ordering::SeqCst));
        assert_eq!(wanted.blocking_recv(), Ok(7));
        assert!(first.blocking_recv().unwrap().is_ok());
    }

    #[test]
    fn pool_finishes_what_is_queued_before_it_stops() {
        let pool = Pool::start("test", 2).unwrap();
        let results: Vec<_> = (0..100).map(|n| pool.run(move || n * 2)).collect();
        pool.stop();
        let sum: i32 = results.into_iter().map(|receiver| receiver.blocking_recv().unwrap()).sum();
        assert_eq!(sum, (0..100).map(|n| n * 2).sum::<i32>());
    }
}
