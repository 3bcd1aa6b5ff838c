//! The final scan: what lies where, and whether the offsets themselves make sense.

use std::collections::HashMap;

use super::super::history::Header;
use super::super::value::Content;
use super::super::verdict::{Anomaly, Verdict};

/// "Not found", in the dense lists of offsets.
const ABSENT: i64 = -1;

#[derive(Clone, Debug, Default)]
struct Partition {
    log_start: i64,
    end: i64,
    /// The offset expected next.
    next: i64,
}

/// What was found where.
#[derive(Debug)]
pub(super) struct Scan {
    topic: String,
    exclusive: bool,
    partitions: Vec<Partition>,
    /// Offset by sequence number, per producer and partition.
    found: HashMap<(u32, i32), Vec<i64>>,
}

impl Scan {
    pub(super) fn new(header: &Header) -> Scan {
        Scan {
            topic: header.topic.clone(),
            exclusive: header.exclusive,
            partitions: vec![Partition::default(); header.partitions.max(0) as usize],
            found: HashMap::new(),
        }
    }

    pub(super) fn start(&mut self, partition: i32, log_start: i64, end: i64) {
        self.partitions[partition as usize] = Partition { log_start, end, next: log_start };
    }

    /// Takes one record; `sent` is how many records its producer has sent to this partition.
    pub(super) fn on_record(
        &mut self,
        partition: i32,
        offset: i64,
        content: Content,
        sent: u64,
        verdict: &mut Verdict,
    ) {
        verdict.scanned += 1;
        self.advance(partition, offset, verdict);
        let topic = &self.topic;
        match content {
            Content::Ours { producer, sequence } if sequence >= sent => {
                verdict.add(Anomaly::Phantom, 1, || {
                    format!(
                        "{topic}-{partition} offset {offset}: record {sequence} of producer {producer} was never sent"
                    )
                });
            }
            Content::Ours { producer, sequence } => {
                let found = self.found.entry((producer, partition)).or_default();
                let index = sequence as usize;
                if found.len() <= index {
                    found.resize(index + 1, ABSENT);
                }
                if found[index] == ABSENT {
                    found[index] = offset;
                } else {
                    let first = found[index];
                    verdict.add(Anomaly::Duplicated, 1, || {
                        format!(
                            "{topic}-{partition} producer {producer} record {sequence} is at {first} and at {offset}"
                        )
                    });
                }
            }
            Content::Foreign if !self.exclusive => verdict.foreign += 1,
            Content::Foreign | Content::Corrupt => {
                verdict.add(Anomaly::Corrupted, 1, || format!("{topic}-{partition} offset {offset}"));
            }
        }
    }

    fn advance(&mut self, partition: i32, offset: i64, verdict: &mut Verdict) {
        let Partition { next, .. } = &mut self.partitions[partition as usize];
        let (topic, expected) = (&self.topic, *next);
        if offset < expected {
            verdict.add(Anomaly::WentBackwards, 1, || {
                format!("{topic}-{partition}: a scan was given offset {offset} after {}", expected - 1)
            });
            return;
        }
        // Compaction, transactions and other writers leave gaps in topics that are not ours alone.
        if offset > expected && self.exclusive {
            let missing = (offset - expected) as u64;
            verdict.add(Anomaly::Gap, missing, || {
                format!("{topic}-{partition}: nothing at offsets {expected} to {}", offset - 1)
            });
        }
        *next = offset + 1;
    }

    /// Closes the scan: what lies between the last record and the end is a gap too.
    pub(super) fn finish(&self, verdict: &mut Verdict) {
        for (index, Partition { next, end, .. }) in self.partitions.iter().enumerate() {
            if self.exclusive && next < end {
                let (topic, missing) = (&self.topic, (end - next) as u64);
                verdict.add(Anomaly::Gap, missing, || {
                    format!("{topic}-{index}: nothing at offsets {next} to {}", end - 1)
                });
            }
        }
    }

    /// Where a record is.
    pub(super) fn offset_of(&self, producer: u32, partition: i32, sequence: u64) -> Option<i64> {
        let found = self.found.get(&(producer, partition))?.get(sequence as usize)?;
        Some(*found).filter(|offset| *offset != ABSENT)
    }

    /// Whether retention may have removed a record: never from a topic of our own, which keeps everything.
    pub(super) fn may_have_expired(&self, partition: i32, offset: Option<i64>) -> bool {
        let log_start = self.partitions[partition as usize].log_start;
        !self.exclusive && offset.map_or(log_start > 0, |offset| offset < log_start)
    }

    /// Name of a place, for examples.
    pub(super) fn place(&self, partition: i32, offset: i64) -> String {
        format!("{}-{partition} offset {offset}", self.topic)
    }
}
