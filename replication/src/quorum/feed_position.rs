//! How far an observer has come, and what it makes of the answers it gets: pure.
//!
//! Entries are taken only exactly behind the last one applied, a snapshot only from its beginning, in order, and only if
//! it leads further. Whatever else comes changes nothing, and the observer turns to another voter.

use bytes::{Bytes, BytesMut};
use stonelog_protocol::peer::feed::{Content, Pull, Pulled};
use stonelog_protocol::peer::raft::LogId;

use super::codec::decode_entry;
use super::type_config::Entry;
use super::wire::id_out;

/// Where an observer is.
#[derive(Debug, Default)]
pub(super) struct FeedPosition {
    applied: Option<LogId>,
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    last: LogId,
    total_bytes: u64,
    bytes: BytesMut,
}

/// What to do with an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Advance {
    /// Apply these, in order.
    Apply(Vec<Entry>),
    /// Install this snapshot, which covers everything up to an entry.
    Install(LogId, Bytes),
    /// Ask the same voter again.
    Again,
    /// Ask another voter: this one is behind, or makes no sense.
    Elsewhere(&'static str),
}

impl FeedPosition {
    /// An observer that has applied everything up to an entry.
    pub(super) fn at(applied: Option<LogId>) -> FeedPosition {
        FeedPosition { applied, partial: None }
    }

    /// What to ask for.
    pub(super) fn pull(&self, wait_ms: u32) -> Pull {
        let snapshot = self.partial.as_ref().map(|partial| (partial.last, partial.bytes.len() as u64));
        Pull { applied: self.applied, snapshot, wait_ms, may_vote: true }
    }

    /// What was to be installed could not be read: as if it had not come.
    pub(super) fn on_unreadable(&mut self, applied: Option<LogId>) {
        *self = FeedPosition::at(applied);
    }

    /// What to do with an answer. What is to be applied or installed counts as applied from here on.
    pub(super) fn on_pulled(&mut self, pulled: Pulled) -> Advance {
        match pulled.content {
            Content::Entries(entries) if entries.is_empty() => Advance::Again,
            Content::Entries(entries) => self.on_entries(&entries),
            Content::Snapshot { last, total_bytes, position, bytes } => {
                self.on_piece(last, total_bytes, position, &bytes)
            }
            Content::Ahead => Advance::Elsewhere("it is behind, or knows another history"),
        }
    }

    fn on_entries(&mut self, encoded: &[Bytes]) -> Advance {
        let mut entries = Vec::with_capacity(encoded.len());
        let mut before = self.applied;
        for bytes in encoded {
            let Ok(entry) = decode_entry(bytes) else { return Advance::Elsewhere("its entries cannot be read") };
            let id = id_out(entry.log_id);
            let follows = match before {
                Some(before) => before.index.checked_add(1) == Some(id.index) && before.term <= id.term,
                None => id.index == 0,
            };
            if !follows {
                return Advance::Elsewhere("its entries do not follow what is applied");
            }
            before = Some(id);
            entries.push(entry);
        }
        self.partial = None;
        self.applied = before;
        Advance::Apply(entries)
    }

    fn on_piece(&mut self, last: LogId, total_bytes: u64, position: u64, bytes: &Bytes) -> Advance {
        if self.applied.is_some_and(|applied| last.index <= applied.index || last.term < applied.term) {
            self.partial = None;
            return Advance::Elsewhere("its snapshot leads back");
        }
        let mut partial = match self.partial.take() {
            _ if position == 0 => Partial { last, total_bytes, bytes: BytesMut::new() },
            Some(partial)
                if partial.last == last
                    && partial.total_bytes == total_bytes
                    && partial.bytes.len() as u64 == position =>
            {
                partial
            }
            _ => return Advance::Elsewhere("a piece of a snapshot out of order"),
        };
        partial.bytes.extend_from_slice(bytes);
        if (partial.bytes.len() as u64) < total_bytes {
            self.partial = Some(partial);
            return Advance::Again;
        }
        self.applied = Some(last);
        Advance::Install(last, partial.bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;

    use super::*;
    use crate::quorum::codec::encode_entry;
    use crate::quorum::wire::id_in;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry::new(id_in(id(term, index)), EntryPayload::Blank)
    }

    fn entries(ids: &[(u64, u64)]) -> Pulled {
        let entries = ids.iter().map(|(term, index)| encode_entry(&entry(*term, *index))).collect();
        Pulled { leader: None, applied: None, content: Content::Entries(entries) }
    }

    fn piece(last: LogId, position: u64, bytes: &'static [u8]) -> Pulled {
        let content = Content::Snapshot { last, total_bytes: 4, position, bytes: Bytes::from_static(bytes) };
        Pulled { leader: None, applied: None, content }
    }

    #[test]
    fn entries_are_applied_exactly_behind_the_last_one() {
        let mut at = FeedPosition::at(None);
        assert_eq!(at.on_pulled(entries(&[(1, 0), (1, 1)])), Advance::Apply(vec![entry(1, 0), entry(1, 1)]));
        assert_eq!(at.pull(5), Pull { applied: Some(id(1, 1)), snapshot: None, wait_ms: 5, may_vote: true });
        for wrong in [vec![(1, 1)], vec![(1, 3)], vec![(0, 2)], vec![(1, 2), (1, 4)], vec![(2, 2), (1, 3)]] {
            assert!(matches!(at.on_pulled(entries(&wrong)), Advance::Elsewhere(_)), "{wrong:?}");
            assert_eq!(at.pull(5).applied, Some(id(1, 1)), "{wrong:?}");
        }
        assert_eq!(at.on_pulled(entries(&[])), Advance::Again);
        assert_eq!(at.on_pulled(entries(&[(3, 2)])), Advance::Apply(vec![entry(3, 2)]));
    }

    #[test]
    fn snapshot_is_put_together_in_order_and_installed_once() {
        let mut at = FeedPosition::at(Some(id(1, 1)));
        assert_eq!(at.on_pulled(piece(id(2, 9), 0, b"ab")), Advance::Again);
        let begun = Some((id(2, 9), 2));
        assert_eq!(at.pull(0), Pull { applied: Some(id(1, 1)), snapshot: begun, wait_ms: 0, may_vote: true });
        let whole = Advance::Install(id(2, 9), Bytes::from_static(b"abcd"));
        assert_eq!(at.on_pulled(piece(id(2, 9), 2, b"cd")), whole);
        assert_eq!(at.pull(0), Pull { applied: Some(id(2, 9)), snapshot: None, wait_ms: 0, may_vote: true });
    }

    #[test]
    fn newer_snapshot_takes_the_place_of_one_begun() {
        let mut at = FeedPosition::at(None);
        assert_eq!(at.on_pulled(piece(id(2, 9), 0, b"ab")), Advance::Again);
        assert_eq!(at.on_pulled(piece(id(2, 12), 0, b"ef")), Advance::Again);
        let whole = Advance::Install(id(2, 12), Bytes::from_static(b"efgh"));
        assert_eq!(at.on_pulled(piece(id(2, 12), 2, b"gh")), whole);
    }

    #[test]
    fn pieces_out_of_order_and_snapshots_that_lead_back_are_not_taken() {
        let mut at = FeedPosition::at(Some(id(2, 5)));
        assert!(matches!(at.on_pulled(piece(id(2, 9), 2, b"cd")), Advance::Elsewhere(_)));
        assert_eq!(at.on_pulled(piece(id(2, 9), 0, b"ab")), Advance::Again);
        assert!(matches!(at.on_pulled(piece(id(2, 9), 3, b"d")), Advance::Elsewhere(_)));
        for back in [id(2, 5), id(2, 4), id(1, 9)] {
            assert!(matches!(at.on_pulled(piece(back, 0, b"abcd")), Advance::Elsewhere(_)), "{back:?}");
        }
        assert_eq!(at.pull(0).applied, Some(id(2, 5)));
    }
}
