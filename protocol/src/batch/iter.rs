//! Walks a run of batches, as a Fetch response or a log segment holds them.

use super::header::{BatchHeader, HeaderError};

/// Iterates over whole batches. Bytes at the end that are too few for a batch end it quietly: a Fetch response may cut
/// its last batch. A length or magic that no batch has is an error, after which it ends.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Starts at the first batch of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches { rest: bytes }
    }

    /// What has not been walked: after the end, the bytes of a cut batch.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    /// The header and the bytes of exactly one batch.
    type Item = Result<(BatchHeader, &'a [u8]), HeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        match BatchHeader::read(self.rest) {
            Ok(header) => {
                let (batch, rest) = self.rest.split_at(header.batch_bytes);
                self.rest = rest;
                Some(Ok((header, batch)))
            }
            Err(HeaderError::Short) => None,
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, NewRecord};
    use crate::{LeaderEpoch, Offset, Timestamp};

    fn batch(base_offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new().at(Offset(base_offset), LeaderEpoch(1));
        builder.push(NewRecord::new(Timestamp(1), None, Some(b"v")));
        builder.build().unwrap()
    }

    #[test]
    fn whole_batches_are_yielded_and_a_cut_one_is_left() {
        let mut run = [batch(0), batch(1), batch(2)].concat();
        run.truncate(run.len() - 1);
        let mut batches = Batches::new(&run);
        let offsets: Vec<_> = batches.by_ref().map(|batch| batch.unwrap().0.base_offset.0).collect();
        assert_eq!(offsets, [0, 1]);
        assert_eq!(batches.rest().len(), batch(2).len() - 1);
    }

    #[test]
    fn an_older_magic_is_an_error_and_the_end() {
        let mut run = [batch(0), batch(1)].concat();
        let second = batch(0).len();
        run[second + 16] = 1;
        let read: Vec<_> = Batches::new(&run).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], Err(HeaderError::Magic(1)));
    }
}
