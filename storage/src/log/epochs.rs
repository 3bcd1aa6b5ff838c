//! At which offset each leader epoch began (KIP-101; Kafka's `LeaderEpochFileCache`).
//!
//! Invariant: epochs and start offsets both rise strictly from one entry to the next.

use stonelog_protocol::{LeaderEpoch, Offset};

/// One leader epoch and the first offset that may have been written in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The log end offset when it began.
    pub start: Offset,
}

/// Where an epoch ended, as OffsetForLeaderEpoch answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The greatest known epoch that is not above the one asked for, or [`LeaderEpoch::NONE`].
    pub epoch: LeaderEpoch,
    /// The offset after that epoch's last record, or [`Offset::NONE`].
    pub end: Offset,
}

impl EpochEnd {
    /// "Not known here."
    pub const UNKNOWN: EpochEnd = EpochEnd { epoch: LeaderEpoch::NONE, end: Offset::NONE };
}

/// The history of leader epochs of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<EpochEntry>,
}

impl Epochs {
    /// A history read from a checkpoint; `None` when the entries do not rise strictly.
    pub fn from_entries(entries: Vec<EpochEntry>) -> Option<Epochs> {
        let rising = entries.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start);
        rising.then_some(Epochs { entries })
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest epoch, or `None` when none is known.
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// The epoch in which the record at `offset` was written, or `None` when it lies before the first entry.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// Notes that `epoch` begins at `start`. An epoch that is not newer than the newest changes nothing. An epoch that
    /// nothing was written in (it began at or after `start`) is forgotten, as in Kafka.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch.0 < 0 || self.latest().is_some_and(|latest| latest.epoch >= epoch) {
            return;
        }
        while self.latest().is_some_and(|latest| latest.start >= start) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start });
    }

    /// A batch of `epoch` lies at `base`. A later epoch that began there or behind, so that nothing was written in it, is
    /// forgotten: this replica led in it and then followed one that never heard of it (KAFKA-15510).
    pub fn on_batch(&mut self, epoch: LeaderEpoch, base: Offset) {
        while self.latest().is_some_and(|latest| latest.epoch > epoch && latest.start >= base) {
            self.entries.pop();
        }
        self.assign(epoch, base);
    }

    /// A batch of `epoch` lies at `base`, below the log's end, where nobody knew which epochs began: what was lost there is
    /// back. Nothing changes where that contradicts what is known.
    pub(super) fn learn(&mut self, epoch: LeaderEpoch, base: Offset) {
        if epoch.0 < 0 || self.epoch_at(base) == Some(epoch) {
            return;
        }
        let mut entries = self.entries.clone();
        let at = entries.partition_point(|entry| entry.epoch < epoch);
        entries.truncate(entries[..at].partition_point(|entry| entry.start < base));
        entries.push(EpochEntry { epoch, start: base });
        entries.extend(self.entries[at..].iter().filter(|entry| entry.epoch > epoch));
        if let Some(learnt) = Epochs::from_entries(entries) {
            *self = learnt;
        }
    }

    /// Where `requested` ended, in a log that ends at `log_end` (`LeaderEpochFileCache.endOffsetFor`).
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end: Offset) -> EpochEnd {
        let Some(latest) = self.latest() else { return EpochEnd::UNKNOWN };
        if requested == LeaderEpoch::NONE || requested > latest.epoch {
            return EpochEnd::UNKNOWN;
        }
        if requested == latest.epoch {
            return EpochEnd { epoch: requested, end: log_end };
        }
        // Not above the newest, so a higher one exists.
        let higher = self.entries.partition_point(|entry| entry.epoch <= requested);
        let end = self.entries[higher].start;
        match higher.checked_sub(1) {
            None => EpochEnd { epoch: requested, end },
            Some(floor) => EpochEnd { epoch: self.entries[floor].epoch, end },
        }
    }

    /// The log was cut at `end`: forgets epochs that began at or after it.
    pub fn truncate_from_end(&mut self, end: Offset) {
        let keep = self.entries.partition_point(|entry| entry.start < end);
        self.entries.truncate(keep);
    }

    /// The log now begins at `start`: the epoch in force there begins there.
    pub fn truncate_from_start(&mut self, start: Offset) {
        let older = self.entries.partition_point(|entry| entry.start <= start);
        if let Some(in_force) = older.checked_sub(1) {
            self.entries.drain(..in_force);
            self.entries[0].start = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let entries =
            entries.iter().map(|&(epoch, start)| EpochEntry { epoch: LeaderEpoch(epoch), start: Offset(start) });
        Epochs::from_entries(entries.collect()).expect("rising")
    }

    fn end(epochs: &Epochs, requested: i32) -> (i32, i64) {
        let end = epochs.end_offset_for(LeaderEpoch(requested), Offset(100));
        (end.epoch.0, end.end.0)
    }

    #[test]
    fn end_of_an_epoch_is_the_start_of_the_next_higher_one() {
        let given = epochs(&[(2, 10), (4, 30), (7, 60)]);
        assert_eq!(end(&given, -1), (-1, -1), "unknown");
        assert_eq!(end(&given, 7), (7, 100), "the newest ends at the log's end");
        assert_eq!(end(&given, 8), (-1, -1), "larger than any");
        assert_eq!(end(&given, 1), (1, 10), "smaller than all");
        assert_eq!(end(&given, 2), (2, 30));
        assert_eq!(end(&given, 3), (2, 30), "the floor epoch answers");
        assert_eq!(end(&given, 6), (4, 60));
        assert_eq!(end(&Epochs::default(), 0), (-1, -1));
    }

    #[test]
    fn an_epoch_nothing_was_written_in_is_replaced() {
        let mut given = epochs(&[(2, 10), (4, 30)]);
        given.assign(LeaderEpoch(5), Offset(30));
        assert_eq!(given, epochs(&[(2, 10), (5, 30)]));
        given.assign(LeaderEpoch(4), Offset(50));
        assert_eq!(given, epochs(&[(2, 10), (5, 30)]), "an older epoch changes nothing");
    }

    #[test]
    fn an_empty_epoch_gives_way_to_a_batch_of_an_older_one() {
        let mut given = epochs(&[(2, 10), (5, 30)]);
        given.on_batch(LeaderEpoch(4), Offset(30));
        assert_eq!(given, epochs(&[(2, 10), (4, 30)]));
        given.on_batch(LeaderEpoch(4), Offset(31));
        given.on_batch(LeaderEpoch(7), Offset(40));
        assert_eq!(given, epochs(&[(2, 10), (4, 30), (7, 40)]));
    }

    #[test]
    fn truncation_forgets_epochs_on_its_side_only() {
        let mut given = epochs(&[(2, 10), (4, 30), (7, 60)]);
        given.truncate_from_end(Offset(60));
        assert_eq!(given, epochs(&[(2, 10), (4, 30)]));
        given.truncate_from_start(Offset(40));
        assert_eq!(given, epochs(&[(4, 40)]));
        given.truncate_from_start(Offset(5));
        assert_eq!(given, epochs(&[(4, 40)]), "a start below the first epoch changes nothing");
    }

    #[test]
    fn the_epoch_of_an_offset_is_the_one_in_force_there() {
        let given = epochs(&[(2, 10), (4, 30)]);
        assert_eq!(given.epoch_at(Offset(9)), None);
        assert_eq!(given.epoch_at(Offset(29)), Some(LeaderEpoch(2)));
        assert_eq!(given.epoch_at(Offset(30)), Some(LeaderEpoch(4)));
    }

    #[test]
    fn entries_that_do_not_rise_are_refused() {
        let entry = |epoch, start| EpochEntry { epoch: LeaderEpoch(epoch), start: Offset(start) };
        assert_eq!(Epochs::from_entries(vec![entry(1, 5), entry(1, 6)]), None);
        assert_eq!(Epochs::from_entries(vec![entry(1, 5), entry(2, 5)]), None);
    }
}
