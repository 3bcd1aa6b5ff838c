//! Where the tasks of a run write down what happens: into the checker, and into a file if one is wanted.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::check::Checker;
use super::history::{Event, Header, HistoryWriter};

/// Shared by the tasks of one thread, so that the order of events is the order in real time.
#[derive(Clone, Debug)]
pub struct Recorder {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug)]
struct Inner {
    checker: Checker,
    file: Option<HistoryWriter>,
    batches: u64,
    commits: u64,
    acknowledged: u64,
    /// The first failure to write; later events are lost with it, so the run must end.
    broken: Option<io::Error>,
    /// Records by batch, to count what is acknowledged.
    counts: Vec<u32>,
}

impl Recorder {
    /// A recorder for one run.
    pub fn new(header: &Header, file: Option<HistoryWriter>) -> Recorder {
        let inner = Inner {
            checker: Checker::new(header),
            file,
            batches: 0,
            commits: 0,
            acknowledged: 0,
            broken: None,
            counts: Vec::new(),
        };
        Recorder { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Writes one event down.
    pub fn record(&self, event: Event) {
        let mut inner = self.inner.borrow_mut();
        match &event {
            Event::Send { count, .. } => inner.counts.push(*count),
            Event::Acked { id, .. } => inner.acknowledged += u64::from(inner.counts[*id as usize]),
            _ => {}
        }
        if let Some(file) = &mut inner.file
            && let Err(error) = file.write(&event)
        {
            inner.broken.get_or_insert(error);
        }
        inner.checker.on_event(&event);
    }

    /// The number of the next batch.
    pub fn next_batch(&self) -> u64 {
        let mut inner = self.inner.borrow_mut();
        inner.batches += 1;
        inner.batches - 1
    }

    /// The number of the next commit.
    pub fn next_commit(&self) -> u64 {
        let mut inner = self.inner.borrow_mut();
        inner.commits += 1;
        inner.commits - 1
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.inner.borrow().acknowledged
    }

    /// Whether writing failed.
    pub fn is_broken(&self) -> bool {
        self.inner.borrow().broken.is_some()
    }

    /// The checker with all that was recorded, once every task is done; else, or when writing failed, why not.
    pub fn into_checker(self) -> io::Result<Checker> {
        let inner = Rc::try_unwrap(self.inner).map_err(|_| io::Error::other("a task of the run still records"))?;
        let inner = inner.into_inner();
        match inner.broken {
            Some(error) => Err(error),
            None => Ok(inner.checker),
        }
    }
}
