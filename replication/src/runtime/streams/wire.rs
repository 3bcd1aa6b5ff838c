//! One connection that carries streams, as the lanes see it: who has something to say on it.
//!
//! Nothing is queued but names of partitions, each once, and short answers: what a partition has to say is asked of it
//! when the connection can take it. So what waits is bounded by the partitions there are, however slow the other end is,
//! and everything that moved meanwhile is said in one message.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use stonelog_protocol::peer::stream::StreamMessage;
use stonelog_protocol::{BrokerId, TopicPartition};
use tokio::sync::{Notify, Semaphore};

/// Answers that wait to be sent on one connection. They are short, and who sends so many requests without reading the
/// answers is cut off.
const ANSWERS_COUNT_MAX: usize = 1 << 16;

/// Reads from one directory for one connection that are under way, or done and not pushed: a follower that catches up takes its
/// turn in the directory's pool like anybody else, and holds so much memory.
const CATCH_UP_READS_COUNT_MAX: usize = 2;

/// Which end of the streams this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) enum Side {
    /// It dialed: the other end leads.
    Follower,
    /// It accepted: the other end follows.
    Leader,
}

/// A connection, for every lane whose partitions it carries.
pub(in crate::runtime) struct Wire {
    /// Names it in this process.
    pub(super) id: u64,
    /// The node that has proved to be at the other end.
    pub(super) peer: BrokerId,
    pub(super) side: Side,
    /// By lane: whether it has something to say.
    speaks: Box<[AtomicBool]>,
    /// Wakes the task that writes.
    pub(super) wake: Notify,
    closed: AtomicBool,
    /// Wakes the tasks that read and write once it is closed.
    pub(super) ended: Notify,
}

impl Wire {
    pub(super) fn new(peer: BrokerId, side: Side, lanes: usize) -> Arc<Wire> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Wire {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            peer,
            side,
            speaks: (0..lanes).map(|_| AtomicBool::new(false)).collect(),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            ended: Notify::new(),
        })
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.ended.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A lane has something to say.
    pub(super) fn speak(&self, lane: usize) {
        self.speaks[lane].store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// The lanes that have something to say, each asked about once for each time it said so.
    pub(super) fn take_speaking(&self) -> Vec<usize> {
        (0..self.speaks.len()).filter(|lane| self.speaks[*lane].swap(false, Ordering::AcqRel)).collect()
    }
}

/// One lane's end of a [`Wire`].
pub(in crate::runtime) struct Port {
    pub(super) wire: Arc<Wire>,
    lane: usize,
    /// Turns of reads from disk for the other end, by the directory's place.
    catching_up: RefCell<HashMap<usize, Arc<Semaphore>>>,
    queue: RefCell<Queue>,
}

#[derive(Default)]
struct Queue {
    answers: VecDeque<StreamMessage>,
    waiting: VecDeque<TopicPartition>,
    is_waiting: HashSet<TopicPartition>,
}

impl Port {
    pub(super) fn new(wire: Arc<Wire>, lane: usize) -> Rc<Port> {
        Rc::new(Port { wire, lane, catching_up: RefCell::default(), queue: RefCell::default() })
    }

    /// Turns of reads from one directory for the other end: a disk that hangs holds up nobody who reads from another.
    pub(super) fn turns_in(&self, directory_place: usize) -> Arc<Semaphore> {
        let mut catching_up = self.catching_up.borrow_mut();
        let turns =
            catching_up.entry(directory_place).or_insert_with(|| Arc::new(Semaphore::new(CATCH_UP_READS_COUNT_MAX)));
        Arc::clone(turns)
    }

    /// Nobody who waits for a turn gets one any more.
    pub(super) fn end_turns(&self) {
        self.catching_up.borrow().values().for_each(|turns| turns.close());
    }

    /// A partition has something to say, or may.
    pub(in crate::runtime) fn mark(&self, partition: TopicPartition) {
        let mut queue = self.queue.borrow_mut();
        if queue.is_waiting.insert(partition) {
            queue.waiting.push_back(partition);
        }
        self.speak();
    }

    /// Says this, before what partitions have to say.
    pub(super) fn answer(&self, message: StreamMessage) {
        let mut queue = self.queue.borrow_mut();
        if queue.answers.len() >= ANSWERS_COUNT_MAX {
            tracing::warn!(node = %self.wire.peer, "a node asks and does not read: its connection is closed");
            self.wire.close();
            return;
        }
        queue.answers.push_back(message);
        self.speak();
    }

    pub(super) fn next_answer(&self) -> Option<StreamMessage> {
        self.queue.borrow_mut().answers.pop_front()
    }

    pub(super) fn next_waiting(&self) -> Option<TopicPartition> {
        let mut queue = self.queue.borrow_mut();
        let next = queue.waiting.pop_front()?;
        queue.is_waiting.remove(&next);
        Some(next)
    }

    /// How many partitions wait.
    pub(super) fn waiting_count(&self) -> usize {
        self.queue.borrow().waiting.len()
    }

    fn speak(&self) {
        self.wire.speak(self.lane);
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;

    fn id(partition: i32) -> TopicPartition {
        TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(partition) }
    }

    #[test]
    fn a_partition_waits_once_however_often_it_moves_and_again_after_it_was_asked() {
        let port = Port::new(Wire::new(BrokerId(2), Side::Leader, 2), 1);
        for partition in [3, 4, 3, 3] {
            port.mark(id(partition));
        }
        assert_eq!(port.wire.take_speaking(), [1]);
        assert_eq!(port.wire.take_speaking(), [0usize; 0]);
        assert_eq!(port.waiting_count(), 2);
        assert_eq!(port.next_waiting(), Some(id(3)));
        port.mark(id(3));
        assert_eq!([port.next_waiting(), port.next_waiting(), port.next_waiting()], [Some(id(4)), Some(id(3)), None]);
        assert_eq!(port.wire.take_speaking(), [1]);
    }

    #[test]
    fn turns_of_one_directory_are_not_those_of_another_and_end_with_the_connection() {
        let port = Port::new(Wire::new(BrokerId(2), Side::Leader, 1), 0);
        let taken: Vec<_> = (0..CATCH_UP_READS_COUNT_MAX).map(|_| port.turns_in(0).try_acquire_owned()).collect();
        assert!(taken.iter().all(Result::is_ok));
        assert!(port.turns_in(0).try_acquire_owned().is_err(), "its disk may hang");
        assert!(port.turns_in(1).try_acquire_owned().is_ok());
        port.end_turns();
        assert!(port.turns_in(1).try_acquire_owned().is_err(), "nobody reads for a connection that is gone");
    }
}
