//! From records that were read to what the checker wants to know of them.

use super::history::Run;
use super::value::{Content, Place, read_value};
use crate::client::batch::Record;

/// What one record is.
pub(super) fn content_of(run: &str, topic: &str, partition: i32, record: &Record) -> Content {
    read_value(&Place { run, topic, partition }, record.value.as_deref())
}

/// Consecutive values of this run, and the offsets of everything else.
pub(super) fn observe(run: &str, topic: &str, partition: i32, records: &[Record]) -> (Vec<Run>, Vec<i64>) {
    let (mut runs, mut others) = (Vec::<Run>::new(), Vec::new());
    for record in records {
        let Content::Ours { producer, sequence } = content_of(run, topic, partition, record) else {
            others.push(record.offset);
            continue;
        };
        match runs.last_mut() {
            Some(last)
                if last.producer == producer
                    && last.sequence + u64::from(last.count) == sequence
                    && last.offset + i64::from(last.count) == record.offset =>
            {
                last.count += 1;
            }
            _ => runs.push(Run { offset: record.offset, count: 1, producer, sequence }),
        }
    }
    (runs, others)
}

#[cfg(test)]
mod tests {
    use super::super::value::write_value;
    use super::*;

    #[test]
    fn consecutive_records_are_one_run_and_strangers_break_it() {
        let place = Place { run: "r", topic: "t", partition: 0 };
        let record = |offset: i64, value| Record { offset, timestamp_ms: 0, key: None, value, headers: Vec::new() };
        let ours = |offset: i64, producer, sequence| record(offset, Some(write_value(&place, producer, sequence, 0)));
        let records = [ours(5, 1, 7), ours(6, 1, 8), record(7, None), ours(8, 1, 9), ours(9, 2, 0)];
        let (runs, others) = observe("r", "t", 0, &records);
        let shape: Vec<_> = runs.iter().map(|run| (run.offset, run.count, run.producer, run.sequence)).collect();
        assert_eq!(shape, [(5, 2, 1, 7), (8, 1, 1, 9), (9, 1, 2, 0)]);
        assert_eq!(others, [7]);
    }
}
