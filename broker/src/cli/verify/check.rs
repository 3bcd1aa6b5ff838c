//! The checker: a history and a final scan go in, a verdict comes out. Pure; no clock, no network.
//!
//! The rules:
//! - an acknowledged record is in the scan, once, at the offset acknowledged;
//! - a refused record is not; one whose outcome is unknown may be, once, and whole batches only;
//! - a record lies after every record that was acknowledged before it was sent;
//! - what a member of a group has read is in the scan, at the offset where it was read; between two rebalances a member
//!   is given every record in order;
//! - a committed offset that is read is the last one acknowledged, or a later one whose outcome is unknown; an older one
//!   is excused only by an unanswered commit of just that offset, which may have arrived late;
//! - in a topic of our own, every offset holds a record of ours.

mod groups;
mod scan;

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::history::{Event, Header};
use super::value::Content;
use super::verdict::{Anomaly, Verdict};
use groups::Groups;
use scan::Scan;

/// How a batch fared, by the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No answer is in the history, or one that leaves it open.
    Unknown,
    Acked(Option<i64>),
    Refused,
}

#[derive(Clone, Debug)]
struct Batch {
    producer: u32,
    partition: i32,
    first: u64,
    count: u32,
    /// Largest offset acknowledged in the partition before the batch was sent; -1 if none.
    floor: i64,
    fate: Fate,
}

/// Judges one run. Feed it the events in order, then the scan, then ask for the verdict.
#[derive(Debug)]
pub struct Checker {
    header: Header,
    batches: Vec<Batch>,
    /// Records sent per producer and partition: the next sequence number.
    sent: HashMap<(u32, i32), u64>,
    /// Largest acknowledged offset by partition.
    acked: Vec<i64>,
    groups: Groups,
    scan: Scan,
    verdict: Verdict,
}

impl Checker {
    /// A checker for one run.
    pub fn new(header: &Header) -> Checker {
        let verdict = Verdict { run: header.run.clone(), topic: header.topic.clone(), ..Verdict::default() };
        Checker {
            header: header.clone(),
            batches: Vec::new(),
            sent: HashMap::new(),
            acked: vec![-1; header.partitions.max(0) as usize],
            groups: Groups::new(header.exclusive),
            scan: Scan::new(header),
            verdict,
        }
    }

    /// The run it judges.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Takes the next event of the history.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::Send { id, producer, partition, first, count } => {
                assert_eq!(*id, self.batches.len() as u64, "batches are numbered without gaps");
                let next = self.sent.entry((*producer, *partition)).or_insert(0);
                assert_eq!(*first, *next, "a producer numbers its records without gaps");
                *next += u64::from(*count);
                self.verdict.sent += u64::from(*count);
                self.batches.push(Batch {
                    producer: *producer,
                    partition: *partition,
                    first: *first,
                    count: *count,
                    floor: self.acked[*partition as usize],
                    fate: Fate::Unknown,
                });
            }
            Event::Acked { id, offset } => {
                let batch = &mut self.batches[*id as usize];
                batch.fate = Fate::Acked(*offset);
                let last = offset.map_or(-1, |offset| offset + i64::from(batch.count) - 1);
                let acked = &mut self.acked[batch.partition as usize];
                *acked = last.max(*acked);
            }
            Event::Failed { id, .. } => self.batches[*id as usize].fate = Fate::Refused,
            Event::Unknown { .. } => {}
            event => self.groups.on_event(event, &mut self.verdict),
        }
    }

    /// Begins the final scan of a partition, which reads `log_start..end`.
    pub fn on_scan_start(&mut self, partition: i32, log_start: i64, end: i64) {
        self.scan.start(partition, log_start, end);
    }

    /// Takes the next record of the final scan, in the order in which the cluster gives them.
    pub fn on_scanned(&mut self, partition: i32, offset: i64, content: Content) {
        let sent = match content {
            Content::Ours { producer, .. } => self.sent.get(&(producer, partition)).copied().unwrap_or(0),
            _ => 0,
        };
        self.scan.on_record(partition, offset, content, sent, &mut self.verdict);
    }

    /// Judges. Every partition has been scanned to its end.
    pub fn verdict(mut self) -> Verdict {
        self.scan.finish(&mut self.verdict);
        for batch in &self.batches {
            judge(batch, &self.header, &self.scan, &mut self.verdict);
        }
        self.groups.finish(&self.scan, &mut self.verdict);
        self.verdict
    }
}

/// Judges one batch by what the scan found of it.
fn judge(batch: &Batch, header: &Header, scan: &Scan, verdict: &mut Verdict) {
    let found: Vec<Option<i64>> = (batch.first..batch.first + u64::from(batch.count))
        .map(|sequence| scan.offset_of(batch.producer, batch.partition, sequence))
        .collect();
    let name = |index: usize| {
        format!(
            "{}-{} producer {} record {}",
            header.topic,
            batch.partition,
            batch.producer,
            batch.first + index as u64
        )
    };
    let present = found.iter().flatten().count() as u64;
    let count = u64::from(batch.count);
    match batch.fate {
        Fate::Acked(base) => {
            verdict.acknowledged += count;
            for (index, offset) in found.iter().enumerate() {
                let acked = base.map(|base| base + index as i64);
                match (offset, acked) {
                    (Some(offset), Some(acked)) if *offset != acked => verdict.add(Anomaly::WrongOffset, 1, || {
                        format!("{} was acknowledged at offset {acked} and is at {offset}", name(index))
                    }),
                    (Some(_), _) => {}
                    (None, _) if scan.may_have_expired(batch.partition, acked) => verdict.expired += 1,
                    (None, Some(acked)) => {
                        verdict.add(Anomaly::Lost, 1, || format!("{}, acknowledged at offset {acked}", name(index)))
                    }
                    (None, None) => verdict.add(Anomaly::Lost, 1, || format!("{}, acknowledged", name(index))),
                }
            }
        }
        Fate::Refused => {
            verdict.refused += count;
            if present > 0 {
                verdict.add(Anomaly::RefusedButStored, present, || format!("{} and what was sent with it", name(0)));
            }
        }
        Fate::Unknown => {
            verdict.unknown_present += present;
            verdict.unknown_absent += count - present;
            let smallest = found.iter().flatten().min().copied();
            let trimmed = scan.may_have_expired(batch.partition, smallest.map(|offset| offset - 1));
            if present > 0 && present < count && !trimmed {
                verdict.add(Anomaly::Torn, count - present, || {
                    format!("{}: only {present} of the {count} records of its batch are there", name(0))
                });
            }
        }
    }
    let offsets: Vec<i64> = found.into_iter().flatten().collect();
    if offsets.windows(2).any(|pair| pair[1] <= pair[0]) {
        verdict.add(Anomaly::Reordered, 1, || format!("{}: the records of its batch are out of order", name(0)));
    }
    if let Some(lowest) = offsets.iter().min()
        && *lowest <= batch.floor
    {
        let floor = batch.floor;
        verdict.add(Anomaly::Reordered, 1, || {
            format!("{} is at offset {lowest}, before {floor}, which was acknowledged before it was sent", name(0))
        });
    }
}
