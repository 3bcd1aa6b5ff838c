//! What a compacted log must serve: every record at its offset as it was appended, and of each key at least the newest.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stonelog_protocol::batch::{BatchHeader, Records, crc_matches, open_records};

use super::model::State;

/// A record: its key and its value, if it has one.
type Record = (Vec<u8>, Option<Vec<u8>>);

/// The records of one batch, by offset.
fn records(batch: &[u8]) -> Result<Vec<(i64, Record)>, String> {
    let header = BatchHeader::read(batch).map_err(|error| format!("{error:?}"))?;
    if !crc_matches(batch) {
        return Err(format!("a wrong CRC at {}", header.base_offset));
    }
    let section = open_records(batch, &header, 1 << 20).map_err(|error| format!("{error:?}"))?;
    let mut all = Vec::new();
    for record in Records::new(&section, header.records_count) {
        let record = record.map_err(|error| format!("{error:?}"))?;
        let offset = header.base_offset.0 + i64::from(record.offset_delta);
        let owned = (record.key.unwrap_or(b"").to_vec(), record.value.map(<[u8]>::to_vec));
        all.push((offset, owned));
    }
    Ok(all)
}

impl State {
    /// As [`State::follow`], for a log that may be compacted.
    pub fn follow_keyed(&self, from: i64, runs: &[Bytes]) -> Result<i64, String> {
        let mut next = from;
        let mut served: BTreeMap<i64, Record> = BTreeMap::new();
        for run in runs {
            let mut rest = &run[..];
            while !rest.is_empty() {
                let header = BatchHeader::read(rest).map_err(|error| format!("{error:?} behind {next}"))?;
                let (batch, more) = rest.split_at(header.batch_bytes);
                for (offset, record) in records(batch)? {
                    if served.last_key_value().is_some_and(|(last, _)| *last >= offset) {
                        return Err(format!("offset {offset} out of order"));
                    }
                    served.insert(offset, record);
                }
                next = header.next_offset().0.max(next);
                rest = more;
            }
        }
        let mut newer: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut expected = BTreeSet::new();
        for batch in self.batches.iter().rev() {
            if batch.next <= from {
                break;
            }
            for (offset, record) in records(&batch.bytes)?.into_iter().rev() {
                let is_newest = newer.insert(record.0.clone());
                match served.get(&offset) {
                    Some(found) if *found == record => {
                        expected.insert(offset);
                    }
                    Some(found) => return Err(format!("{found:?} at {offset}, which was {record:?}")),
                    None if is_newest && (from.max(self.log_start)..next).contains(&offset) => {
                        return Err(format!("the newest record of {:?}, at {offset}, is gone", record.0));
                    }
                    None => {}
                }
            }
        }
        if let Some(surplus) = served.keys().find(|offset| !expected.contains(offset)) {
            return Err(format!("a record at {surplus} that was not appended, in {from}..{next} of {}", self.end));
        }
        Ok(next)
    }
}
