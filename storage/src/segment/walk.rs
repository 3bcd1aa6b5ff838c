//! Walking over whole batches that lie one after the other in memory.

use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::header::HeaderError;

/// Iterates over the batches in `bytes`: where each begins, and its header. Ends at the first byte that begins no
/// whole batch; [`Batches::rest`] says where that is and why.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    at: usize,
    stopped: Option<HeaderError>,
}

impl<'a> Batches<'a> {
    /// Walks from the first byte, where a batch begins.
    pub fn of(bytes: &'a [u8]) -> Batches<'a> {
        Batches { bytes, at: 0, stopped: None }
    }

    /// Where the walk stands, and what stopped it there, if not the end of the bytes.
    pub fn rest(&self) -> (usize, Option<HeaderError>) {
        (self.at, self.stopped)
    }
}

impl Iterator for Batches<'_> {
    type Item = (usize, BatchHeader);

    fn next(&mut self) -> Option<(usize, BatchHeader)> {
        if self.at == self.bytes.len() || self.stopped.is_some() {
            return None;
        }
        match BatchHeader::read(&self.bytes[self.at..]) {
            Ok(header) => {
                let at = self.at;
                self.at += header.batch_bytes;
                Some((at, header))
            }
            Err(error) => {
                self.stopped = Some(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_batches::Batch;

    #[test]
    fn the_walk_visits_each_batch_and_names_where_a_torn_one_begins() {
        let first = Batch::at(5, 2).bytes();
        let second = Batch::at(7, 1).bytes();
        let mut bytes = [&first[..], &second[..]].concat();
        bytes.pop();
        let mut walk = Batches::of(&bytes);
        assert_eq!(walk.by_ref().map(|(at, header)| (at, header.base_offset.0)).collect::<Vec<_>>(), [(0, 5)]);
        assert_eq!(walk.rest(), (first.len(), Some(HeaderError::Short)));
    }
}
