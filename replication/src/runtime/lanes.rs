//! All lanes of a broker, and how work reaches the one that owns a partition.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use stonelog_protocol::TopicPartition;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::abort::AbortOnPanic;
use super::lane::Lane;
use super::node::Node;

type Message = Box<dyn FnOnce(Rc<Lane>) + Send>;

thread_local! {
    /// The lane this thread runs, if it runs one.
    static HERE: RefCell<Option<Rc<Lane>>> = const { RefCell::new(None) };
}

/// A handle on every lane; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Lanes {
    inboxes: Arc<[mpsc::UnboundedSender<Message>]>,
}

/// The lanes' threads.
pub struct LaneThreads {
    threads: Vec<JoinHandle<()>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Lanes {
    /// Starts the node's lanes.
    ///
    /// Inboxes are unbounded as queues but not in bytes: what a message carries was paid for with byte credit when its
    /// frame was read, and a lane always drains its inbox.
    pub fn start(node: Arc<Node>) -> std::io::Result<(LaneThreads, Lanes)> {
        let count = node.lane_count;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel::<Message>()).unzip();
        let lanes = Lanes { inboxes: senders.into() };
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let mut threads = Vec::with_capacity(count);
        for (index, mut inbox) in receivers.into_iter().enumerate() {
            let (node, lanes, mut stopping) = (Arc::clone(&node), lanes.clone(), stopping.clone());
            let thread = std::thread::Builder::new().name(format!("lane-{index}"));
            threads.push(thread.spawn(move || {
                let _guard = AbortOnPanic { what: "a lane" };
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        tracing::error!("cannot start a lane's runtime: {error}");
                        std::process::abort();
                    }
                };
                let local = LocalSet::new();
                local.block_on(&runtime, async move {
                    let lane = Lane::new(index, node, lanes);
                    HERE.set(Some(Rc::clone(&lane)));
                    lane.start_tasks();
                    loop {
                        tokio::select! {
                            message = inbox.recv() => match message {
                                Some(message) => message(Rc::clone(&lane)),
                                None => break,
                            },
                            _ = stopping.wait_for(|stop| *stop) => break,
                        }
                    }
                    HERE.set(None);
                });
            })?);
        }
        Ok((LaneThreads { threads, stop }, lanes))
    }

    /// How many lanes there are.
    pub fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// The lane that owns a partition.
    pub fn owner(&self, partition: TopicPartition) -> usize {
        let [.., a, b, c, d] = partition.topic_id.0;
        let topic = u32::from_le_bytes([a, b, c, d]);
        // Neighbouring partitions of one topic alternate between lanes.
        topic.wrapping_add(partition.partition.0 as u32) as usize % self.inboxes.len()
    }

    /// Runs `work` on a lane and waits for nothing; in order with [`Lanes::call`].
    pub fn send(&self, lane: usize, work: impl FnOnce(Rc<Lane>) + Send + 'static) {
        match here().filter(|here| here.index() == lane) {
            Some(here) => work(here),
            // A lane that has ended does nothing any more: the broker is stopping.
            None => drop(self.inboxes[lane].send(Box::new(work))),
        }
    }

    /// Runs `work` on a lane and resolves with what its future yields.
    ///
    /// The closure itself runs before any later `call` from the same thread to the same lane: at once when this thread
    /// is that lane, else when the message is taken from the inbox. So what must happen in order (appends of one
    /// connection) belongs in the closure, what may wait in the future it returns. Dropping the returned future cancels
    /// the wait, not the closure.
    pub fn call<R, F, W>(&self, lane: usize, work: W) -> impl Future<Output = R> + use<R, F, W>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
        W: FnOnce(Rc<Lane>) -> F + Send + 'static,
    {
        enum Started<F, R> {
            Here(F),
            There(oneshot::Receiver<R>),
        }
        let inbox = self.inboxes[lane].clone();
        let started = match here().filter(|here| here.index() == lane) {
            Some(here) => Started::Here(work(here)),
            None => {
                let (mut sender, receiver) = oneshot::channel();
                let message: Message = Box::new(move |lane| {
                    let future = work(lane);
                    spawn_here(async move {
                        tokio::select! {
                            result = future => { let _ = sender.send(result); }
                            () = sender.closed() => {}
                        }
                    });
                });
                // A lane that has ended answers nobody: the broker is stopping.
                let _ = inbox.send(message);
                Started::There(receiver)
            }
        };
        async move {
            match started {
                Started::Here(future) => future.await,
                Started::There(receiver) => match receiver.await {
                    Ok(result) => result,
                    Err(_) if inbox.is_closed() => std::future::pending().await,
                    // Its panic goes on here, so that whoever asked does not wait for ever.
                    Err(_) => panic!("the task on lane {lane} has panicked"),
                },
            }
        }
    }
}

impl LaneThreads {
    /// Ends the lanes; what is queued in their inboxes is dropped.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// The lane this thread runs, if it runs one.
pub fn here() -> Option<Rc<Lane>> {
    HERE.with_borrow(Clone::clone)
}

/// Starts a task that everybody depends on: if it panics the process ends.
pub fn spawn_vital(what: &'static str, task: impl Future<Output = ()> + 'static) {
    spawn_here(async move {
        let _guard = AbortOnPanic { what };
        task.await;
    });
}

/// Starts a task on the lane of the calling thread. A panic ends this task only, unless a partition was being changed.
#[allow(clippy::disallowed_methods, reason = "the one place that spawns on a lane")]
pub fn spawn_here(task: impl Future<Output = ()> + 'static) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_local(task)
}
