//! Which transactions a compaction meets, and how they ended.
//!
//! Data of an aborted transaction is dropped and supersedes nothing. A marker may go only after all data of its
//! transaction: it is told apart by producer, never by a key. Source: `CleanedTransactionMetadata`, KIP-534.

use std::collections::{HashMap, HashSet};

use stonelog_protocol::batch::{BatchHeader, Records};
use stonelog_protocol::{Offset, ProducerId};

/// Batches of open transactions that the first pass remembers; with more, the compaction ends before the oldest open one.
pub(super) const PENDING_BATCHES_COUNT_MAX: usize = 1 << 20;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Abort,
    Commit,
}

/// Reads a control batch's records: key `version i16, type i16`. `None` for a type this release does not know, and for
/// an empty batch.
pub(super) fn marker_of(section: &[u8], header: &BatchHeader) -> Option<Marker> {
    let key = Records::new(section, header.records_count).next()?.ok()?.key?;
    match key.get(2..4)? {
        [0, 0] => Some(Marker::Abort),
        [0, 1] => Some(Marker::Commit),
        _ => None,
    }
}

/// Where a batch lies, to be read once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchAt {
    pub(super) source: usize,
    pub(super) position: u64,
    pub(super) bytes: u64,
}

/// The first pass: open transactions wait for their marker.
#[derive(Debug, Default)]
pub(super) struct Open {
    by_producer: HashMap<ProducerId, (Offset, Vec<BatchAt>)>,
    pending_count: usize,
    aborted: Aborted,
}

impl Open {
    /// A batch of a transaction; `false` when there are too many to remember.
    pub(super) fn on_data(&mut self, header: &BatchHeader, at: BatchAt) -> bool {
        let open = self.by_producer.entry(header.producer_id).or_insert((header.base_offset, Vec::new()));
        open.1.push(at);
        self.pending_count += 1;
        self.pending_count <= PENDING_BATCHES_COUNT_MAX
    }

    /// The batches of a producer's open transaction.
    pub(super) fn batches(&self, header: &BatchHeader) -> Vec<BatchAt> {
        self.by_producer.get(&header.producer_id).map_or_else(Vec::new, |(_, batches)| batches.clone())
    }

    /// A marker ends its producer's transaction; of a committed one every key is mapped by then.
    pub(super) fn on_marker(&mut self, header: &BatchHeader, marker: Marker) {
        let Some((first, batches)) = self.by_producer.remove(&header.producer_id) else { return };
        self.pending_count -= batches.len();
        if marker == Marker::Abort {
            self.aborted.ranges.entry(header.producer_id).or_default().push((first, header.base_offset));
        }
    }

    /// Where the oldest open transaction begins.
    pub(super) fn first_offset(&self) -> Option<Offset> {
        self.by_producer.values().map(|(first, _)| *first).min()
    }

    pub(super) fn into_aborted(self) -> Aborted {
        self.aborted
    }
}

/// The aborted transactions, each from its first offset to its marker.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    ranges: HashMap<ProducerId, Vec<(Offset, Offset)>>,
}

impl Aborted {
    fn holds(&self, header: &BatchHeader) -> bool {
        let ranges = self.ranges.get(&header.producer_id);
        ranges.is_some_and(|ranges| {
            ranges.iter().any(|(first, marker)| *first <= header.base_offset && header.base_offset < *marker)
        })
    }
}

/// The second pass: which transactions still have data in front of their marker.
#[derive(Debug, Default)]
pub(super) struct Met {
    aborted: Aborted,
    with_data: HashSet<ProducerId>,
}

impl Met {
    pub(super) fn new(aborted: Aborted) -> Met {
        Met { aborted, ..Met::default() }
    }

    /// A data batch; whether it belongs to an aborted transaction.
    pub(super) fn on_data(&mut self, header: &BatchHeader) -> bool {
        if !header.is_transactional() {
            return false;
        }
        self.with_data.insert(header.producer_id);
        self.aborted.holds(header)
    }

    /// A marker; whether no batch of its transaction came before it.
    pub(super) fn on_marker(&mut self, header: &BatchHeader) -> bool {
        !self.with_data.remove(&header.producer_id)
    }
}
