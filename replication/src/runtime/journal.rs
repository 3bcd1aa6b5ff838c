//! The journal's two threads: one writes commits, one flushes them.
//!
//! Lanes submit the entries of a turn; the writer gathers everything queued, of all lanes and partitions, into one
//! commit and says *written*; the flusher syncs whatever has been written and says *durable*. A flush begins when the
//! previous one ends and anything is written: no timer. Writing runs ahead of the flush in progress, so that a relaxed
//! acknowledgement never waits for one.
//!
//! Order is everything here: one queue in, commits in queue order, completions per lane in ticket order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use stonelog_storage::Fault;
use stonelog_storage::journal::{
    Change, CommitReceipt, JournalEntry, JournalFlusher, JournalMaintenance, JournalPosition, JournalWriter,
};
use stonelog_storage::log::CommitSpan;
use tokio::sync::Notify;

use super::abort::AbortOnPanic;
use super::space::Space;

/// After this long without entries an empty commit names the last one durable (rule 6), so that a later failure of its
/// check is seen as damage and not as a torn tail.
const IDLE_COMMIT_AFTER: Duration = Duration::from_millis(20);

/// How long the writer waits before it looks again whether a full journal has been freed.
const FULL_LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long the writer waits for a checkpoint to free a full journal before it goes beyond the limit for a change that
/// holds the journal itself: a drop, a truncation or a reset. Long beside a checkpoint.
const BEYOND_LIMIT_AFTER: Duration = Duration::from_secs(1);

/// Entries gathered into one commit stop at this many bytes, which bounds how long one flush takes.
const GATHER_BYTES_MAX: usize = 4 << 20;

/// One lane's entries of one turn, in order.
pub struct Submission {
    /// The lane.
    pub lane: usize,
    /// Ticket of the first entry; the others follow by one each.
    pub first_ticket: u64,
    /// The entries.
    pub entries: Vec<JournalEntry>,
    /// Whether the lane wants to hear *written* at once (a relaxed topic) or together with *durable*.
    pub hurry_written: bool,
}

/// What happened to a lane's entries.
#[derive(Clone, Debug)]
pub enum JournalEvent {
    /// All entries up to and including this ticket, and after the previous such event, were written together.
    Written {
        /// The last one.
        last_ticket: u64,
        /// Where they lie.
        span: CommitSpan,
    },
    /// All entries up to and including this ticket survive a power cut.
    Durable {
        /// The last one.
        last_ticket: u64,
    },
    /// The directory failed: nothing becomes durable any more.
    Failed(Arc<Fault>),
}

/// Where the journal's threads leave events for one lane.
#[derive(Default)]
pub struct LaneSignal {
    events: Mutex<Vec<JournalEvent>>,
    notify: Notify,
}

impl LaneSignal {
    /// Waits until there are events and moves them to `into`.
    pub async fn take(&self, into: &mut Vec<JournalEvent>) {
        loop {
            let notified = self.notify.notified();
            into.append(&mut lock(&self.events));
            if !into.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Moves the events that are there to `into`, without waiting.
    pub fn take_now(&self, into: &mut Vec<JournalEvent>) {
        into.append(&mut lock(&self.events));
    }

    fn put(&self, event: JournalEvent, wake: bool) {
        lock(&self.events).push(event);
        if wake {
            self.notify.notify_one();
        }
    }
}

/// The way in for lanes.
#[derive(Clone)]
pub struct JournalQueue {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Changes that hold the journal ([`Change::holds_journal`]) and are not written yet.
    holding: AtomicUsize,
    /// Commits written and not yet known durable, oldest first.
    written: Mutex<Written>,
    flush: Condvar,
    lanes: Vec<Arc<LaneSignal>>,
    space: Arc<Space>,
    /// Every commit that ends at or below this position is durable and has been reported to the lanes whose entries it
    /// holds.
    reported: AtomicU64,
    maintenance: Arc<JournalMaintenance>,
    chores: Mutex<Chores>,
    chore: Condvar,
    /// The first failure.
    failed: Mutex<Option<Arc<Fault>>>,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct Queue {
    submissions: Vec<Submission>,
    /// The file being written was removed: a new one is to be begun though nothing is queued.
    roll_wanted: bool,
    stopping: bool,
}

#[derive(Default)]
struct Chores {
    spare_wanted: bool,
    stopping: bool,
}

#[derive(Default)]
struct Written {
    commits: VecDeque<Commit>,
    stopping: bool,
}

/// A written commit that the lanes have been told of: its sequence, its end, and the last ticket of each lane in it.
struct Commit {
    sequence: u64,
    end: JournalPosition,
    tickets: Vec<(usize, u64)>,
}

/// The journal's threads. They are ordinary ones: they then find what a whole turn of the lanes has queued or written, and
/// commits are fewer and larger (decision 0012).
pub struct JournalThreads {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
    flusher: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl JournalThreads {
    /// Starts the threads; `lanes` hear of their own entries.
    pub fn start(
        writer: JournalWriter,
        flusher: JournalFlusher,
        maintenance: Arc<JournalMaintenance>,
        lanes: Vec<Arc<LaneSignal>>,
        space: Arc<Space>,
    ) -> std::io::Result<(JournalThreads, JournalQueue)> {
        let shared = Arc::new(Shared::new(&flusher, maintenance, lanes, space));
        let keeper = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("journal-spare".into()).spawn(move || {
                let _guard = AbortOnPanic { what: "the journal's spare files" };
                shared.keep_spares();
            })?
        };
        let writer_thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("journal-write".into()).spawn(move || {
                let _guard = AbortOnPanic { what: "the journal's writer" };
                shared.write_commits(writer);
            })?
        };
        let flusher_thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("journal-flush".into()).spawn(move || {
                let _guard = AbortOnPanic { what: "the journal's flusher" };
                shared.flush_commits(&flusher);
            })?
        };
        let queue = JournalQueue { shared: Arc::clone(&shared) };
        Ok((JournalThreads { shared, writer: writer_thread, flusher: flusher_thread, keeper }, queue))
    }

    /// Writes and flushes what is queued, then ends the threads. Fails when the journal has, also before: what is
    /// queued may not be durable then.
    pub fn stop(self) -> Result<(), Fault> {
        lock(&self.shared.queue).stopping = true;
        self.shared.arrived.notify_all();
        let _ = self.writer.join();
        lock(&self.shared.written).stopping = true;
        self.shared.flush.notify_all();
        let _ = self.flusher.join();
        lock(&self.shared.chores).stopping = true;
        self.shared.chore.notify_all();
        let _ = self.keeper.join();
        lock(&self.shared.failed).as_ref().map_or(Ok(()), |fault| Err(fault.repeat()))
    }
}

impl JournalQueue {
    /// Queues the entries of one lane's turn. After a failure they are dropped: nothing becomes of them.
    pub fn submit(&self, submission: Submission) {
        if self.shared.has_failed() {
            return;
        }
        self.shared.holding.fetch_add(count_holding(&submission.entries), Ordering::SeqCst);
        let mut queue = lock(&self.shared.queue);
        let was_empty = queue.submissions.is_empty();
        queue.submissions.push(submission);
        drop(queue);
        if was_empty {
            self.shared.arrived.notify_one();
        }
    }

    /// Ends the journal because something else of its directory has failed: nothing is acknowledged from now on.
    pub fn fail(&self, fault: Fault) {
        self.shared.fail(fault);
    }

    /// Everything below this position is durable and has been reported to the lanes whose entries it holds: what it
    /// says is in their signals. A checkpoint may cover no more (recovery would read a covered position beyond the
    /// journal's end as damage).
    pub fn reported(&self) -> JournalPosition {
        JournalPosition(self.shared.reported.load(Ordering::Acquire))
    }

    /// Has a spare file made, if one is wanted; when there was no space for one, this is how it is tried again.
    pub fn want_spare(&self) {
        lock(&self.shared.chores).spare_wanted = true;
        self.shared.chore.notify_one();
    }

    /// Has the writer begin a new file if somebody removed the one it writes.
    pub fn want_roll(&self) {
        lock(&self.shared.queue).roll_wanted = true;
        self.shared.arrived.notify_one();
    }

    /// The journal's housekeeping end.
    pub fn maintenance(&self) -> &JournalMaintenance {
        &self.shared.maintenance
    }
}

impl Shared {
    fn new(
        flusher: &JournalFlusher,
        maintenance: Arc<JournalMaintenance>,
        lanes: Vec<Arc<LaneSignal>>,
        space: Arc<Space>,
    ) -> Shared {
        Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            holding: AtomicUsize::new(0),
            written: Mutex::default(),
            flush: Condvar::new(),
            lanes,
            space,
            reported: AtomicU64::new(flusher.durable().position.0),
            chores: Mutex::new(Chores { spare_wanted: maintenance.spare_wanted(), stopping: false }),
            maintenance,
            chore: Condvar::new(),
            failed: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// Keeps a zeroed file ready, so that the writer does not have to make one while everybody waits.
    fn keep_spares(&self) {
        let mut chores = lock(&self.chores);
        while !chores.stopping {
            if !std::mem::take(&mut chores.spare_wanted) {
                chores = self.chore.wait(chores).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(chores);
            while self.maintenance.spare_wanted() {
                let mut operation = self.space.under_way.begin();
                let prepared = self.maintenance.prepare_spare_telling(&mut || operation.goes_on());
                drop(operation);
                match prepared {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(fault) if fault.is_out_of_space() => {
                        // The next file of the journal is not there: time to refuse, while this one has room.
                        self.space.on_allocation_failed(&fault);
                        break;
                    }
                    Err(fault) if fault.is_temporary() => {
                        tracing::warn!("no spare journal file for now: {fault}");
                        break;
                    }
                    Err(fault) => {
                        self.fail(fault);
                        return;
                    }
                }
            }
            chores = lock(&self.chores);
        }
    }

    fn write_commits(&self, mut writer: JournalWriter) {
        let mut taken = Vec::new();
        let mut entries = Vec::new();
        let mut named_durable = true;
        // What is gathered must find room in a journal that is not empty.
        let gather_max = usize::try_from(self.maintenance.usage().bytes_max / 4).unwrap_or(usize::MAX);
        let gather_max = gather_max.min(GATHER_BYTES_MAX);
        while let Some(idle) = self.wait_for_submissions(&mut taken, named_durable) {
            if self.has_failed() {
                return;
            }
            if idle {
                if !writer.empty_commit_wanted() && !writer.must_roll() {
                    continue;
                }
                match writer.write_empty_commit() {
                    // Made durable like any other: only then does it outlive the power and tell damage from a torn tail.
                    Ok(told) => {
                        named_durable = !writer.has_unnamed();
                        let commit = Commit { sequence: told.sequence, end: told.end, tickets: Vec::new() };
                        lock(&self.written).commits.push_back(commit);
                        self.flush.notify_one();
                        continue;
                    }
                    Err(fault) if fault.is_temporary() => continue,
                    Err(fault) => return self.fail(fault),
                }
            }
            named_durable = false;
            let mut rest = taken.drain(..).flat_map(Submission::into_queued).peekable();
            while rest.peek().is_some() {
                let mut bytes = 0;
                let mut tickets: Vec<(usize, u64)> = Vec::with_capacity(self.lanes.len());
                let mut hurry = false;
                while let Some(next) = rest.next_if(|next| bytes == 0 || bytes + next.bytes() <= gather_max) {
                    bytes += next.bytes().max(1);
                    hurry |= next.hurry_written;
                    match tickets.iter_mut().find(|(lane, _)| *lane == next.lane) {
                        Some((_, ticket)) => *ticket = next.ticket,
                        None => tickets.push((next.lane, next.ticket)),
                    }
                    entries.push(next.entry);
                }
                let receipt = match self.write(&mut writer, &entries) {
                    Ok(receipt) => receipt,
                    Err(fault) => return self.fail(fault),
                };
                self.holding.fetch_sub(count_holding(&entries), Ordering::SeqCst);
                entries.clear();
                if self.maintenance.spare_wanted() {
                    lock(&self.chores).spare_wanted = true;
                    self.chore.notify_one();
                }
                for (lane, last_ticket) in &tickets {
                    let span = CommitSpan { start: receipt.start, end: receipt.end };
                    let event = JournalEvent::Written { last_ticket: *last_ticket, span };
                    self.lanes[*lane].put(event, hurry);
                }
                lock(&self.written).commits.push_back(Commit { sequence: receipt.sequence, end: receipt.end, tickets });
                self.flush.notify_one();
            }
        }
    }

    /// Writes one commit. While the journal is full, waits until a checkpoint has freed a part of it: what is queued was
    /// appended already and cannot be refused any more. A checkpoint cannot free what a queued change of a log holds; for
    /// that the journal grows beyond its limit. When stopping nobody is left who could make room, and nothing that waits
    /// was acknowledged.
    fn write(&self, writer: &mut JournalWriter, entries: &[JournalEntry]) -> Result<CommitReceipt, Fault> {
        let mut said = false;
        let mut waited = Duration::ZERO;
        loop {
            let is_held = waited >= BEYOND_LIMIT_AFTER && self.holding.load(Ordering::SeqCst) > 0;
            let operation = self.space.under_way.begin();
            let written = if is_held { writer.write_beyond_limit(entries) } else { writer.write(entries) };
            drop(operation);
            match written {
                Err(fault) if fault.is_temporary() && !lock(&self.queue).stopping && !self.has_failed() => {
                    if !self.maintenance.is_at_limit() {
                        self.space.on_journal_waits(&fault);
                    } else if !said {
                        tracing::warn!("the journal is full; producers wait for segments: {fault}");
                    }
                    self.space.set_journal_waits(true);
                    said = true;
                    std::thread::sleep(FULL_LOOK_AGAIN);
                    waited += FULL_LOOK_AGAIN;
                }
                done => {
                    if said {
                        self.space.set_journal_waits(false);
                        self.space.on_journal_goes_on();
                    }
                    return done;
                }
            }
        }
    }

    /// Moves what is queued to `taken`. `Some(true)` when nothing came for a while after a commit, or a new file is wanted
    /// without anything to write; `None` when stopping and everything has been taken.
    fn wait_for_submissions(&self, taken: &mut Vec<Submission>, named_durable: bool) -> Option<bool> {
        let mut queue = lock(&self.queue);
        loop {
            if !queue.submissions.is_empty() {
                std::mem::swap(&mut queue.submissions, taken);
                return Some(false);
            }
            if queue.stopping || self.has_failed() {
                return None;
            }
            if std::mem::take(&mut queue.roll_wanted) {
                return Some(true);
            }
            if named_durable {
                queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (guard, timeout) =
                self.arrived.wait_timeout(queue, IDLE_COMMIT_AFTER).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            if timeout.timed_out() && queue.submissions.is_empty() && !queue.stopping && !self.has_failed() {
                return Some(true);
            }
        }
    }

    fn flush_commits(&self, flusher: &JournalFlusher) {
        loop {
            {
                let mut written = lock(&self.written);
                while written.commits.is_empty() {
                    if written.stopping || self.has_failed() {
                        return;
                    }
                    written = self.flush.wait(written).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let operation = self.space.under_way.begin();
            let synced = flusher.sync();
            drop(operation);
            let durable = match synced {
                Ok(durable) => durable,
                Err(fault) => return self.fail(fault),
            };
            if self.has_failed() {
                // Something else has failed while the device was busy: what it may hold is not acknowledged any more.
                return;
            }
            let mut newest = vec![None; self.lanes.len()];
            let mut reported = None;
            let mut written = lock(&self.written);
            while let Some(commit) = written.commits.pop_front_if(|commit| commit.sequence <= durable.sequence) {
                for (lane, ticket) in commit.tickets {
                    newest[lane] = Some(ticket);
                }
                reported = Some(commit.end);
            }
            drop(written);
            for (lane, ticket) in newest.into_iter().enumerate() {
                if let Some(last_ticket) = ticket {
                    self.lanes[lane].put(JournalEvent::Durable { last_ticket }, true);
                }
            }
            // Not the durable position: it may include a commit of which the lanes have not even heard that it is written.
            if let Some(end) = reported {
                self.reported.store(end.0, Ordering::Release);
            }
        }
    }

    /// The first failure is kept; every lane hears of it, and the threads end.
    fn fail(&self, fault: Fault) {
        let fault = Arc::new(fault);
        {
            let mut failed = lock(&self.failed);
            if failed.is_some() {
                return;
            }
            *failed = Some(Arc::clone(&fault));
            self.has_failed.store(true, Ordering::SeqCst);
        }
        for lane in &self.lanes {
            lane.put(JournalEvent::Failed(Arc::clone(&fault)), true);
        }
        // Taken and let go, so that nobody is between its look at the failure and its wait.
        drop(lock(&self.queue));
        self.arrived.notify_all();
        drop(lock(&self.written));
        self.flush.notify_all();
    }
}

/// One entry on its way into a commit. Submissions are taken apart, so that one larger than the journal has room for is
/// written bit by bit.
struct Queued {
    lane: usize,
    ticket: u64,
    hurry_written: bool,
    entry: JournalEntry,
}

impl Submission {
    fn into_queued(self) -> impl Iterator<Item = Queued> {
        let Submission { lane, first_ticket, entries, hurry_written } = self;
        (first_ticket..).zip(entries).map(move |(ticket, entry)| Queued { lane, ticket, hurry_written, entry })
    }
}

impl Queued {
    fn bytes(&self) -> usize {
        match &self.entry.change {
            Change::Append { batches, .. } => batches.len(),
            _ => 0,
        }
    }
}

fn count_holding(entries: &[JournalEntry]) -> usize {
    entries.iter().filter(|entry| entry.change.holds_journal()).count()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
