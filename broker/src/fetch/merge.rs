//! Puts together what several lanes read for one request, within its limits.
//!
//! Lanes read at the same time, each as if the whole budget were its own; here the request's order and limits decide
//! what is kept. The first partition with records keeps them whatever their size; after it the limits are hard
//! (`ReplicaManager.readFromLog`).

use bytes::Bytes;

/// Drops the records of partitions that no longer fit, in service order. Returns the bytes kept.
///
/// A partition is kept or dropped whole: what is dropped is read again by the next request.
pub fn keep_within<'a>(records: impl Iterator<Item = &'a mut Vec<Bytes>>, bytes_max: usize) -> usize {
    let mut kept = 0;
    for batches in records {
        let bytes: usize = batches.iter().map(Bytes::len).sum();
        if bytes == 0 {
            continue;
        }
        if kept == 0 || kept + bytes <= bytes_max {
            kept += bytes;
        } else {
            batches.clear();
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_partition_with_records_is_kept_whatever_its_size() {
        let mut records = [vec![], vec![Bytes::from_static(&[0; 100])], vec![Bytes::from_static(&[0; 10])]];
        assert_eq!(keep_within(records.iter_mut(), 50), 100);
        assert_eq!(records[2], Vec::<Bytes>::new());
    }

    #[test]
    fn later_partitions_fill_what_is_left_and_never_exceed_it() {
        let mut records = [30, 30, 15].map(|len| vec![Bytes::from(vec![0; len])]);
        assert_eq!(keep_within(records.iter_mut(), 50), 45);
        assert!(records[1].is_empty());
        assert_eq!(records[2].len(), 1);
    }
}
