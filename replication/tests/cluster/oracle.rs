//! What has happened in truth, as no node can know it: every batch ever appended, and everything that was committed
//! (the true high watermark of KIP-966's specification).

use std::collections::BTreeMap;

use stonelog_protocol::{LeaderEpoch, TopicPartition};

/// One batch, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub base: i64,
    pub end: i64,
    pub epoch: LeaderEpoch,
    pub crc: u32,
}

/// What one replica's log holds, by base offset.
pub type Shadow = BTreeMap<i64, Entry>;

/// A batch below some leader's high watermark.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    pub entry: Entry,
    /// The epoch of the leader that committed it first.
    pub by: LeaderEpoch,
    /// Committed by durable positions, on a topic that has been strict ever since.
    strict: bool,
    /// How often the power had gone when it was committed: what is not strict survives processes, and no more than that.
    cuts: u64,
}

/// Up to where every member of the in-sync set has everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promised {
    pub written: i64,
    pub durable: i64,
}

#[derive(Default)]
pub struct Oracle {
    /// Every batch that was in any log: base and epoch say which it is (LogMatching).
    appended: BTreeMap<(TopicPartition, i64, LeaderEpoch), Entry>,
    committed: BTreeMap<TopicPartition, BTreeMap<i64, Committed>>,
    promised: BTreeMap<TopicPartition, Promised>,
    cuts: u64,
    pub acknowledged_count: u64,
    /// Batches committed: what members must have is no more than at the last look while this is the same.
    pub committed_count: u64,
}

impl Oracle {
    /// LogMatching: an offset and an epoch name one batch, in whichever log.
    pub fn on_appended(&mut self, id: TopicPartition, entry: Entry) -> Result<(), String> {
        let known = *self.appended.entry((id, entry.base, entry.epoch)).or_insert(entry);
        if known == entry { Ok(()) } else { Err(format!("LogMatching: {id} holds {entry:?} and {known:?}")) }
    }

    /// A leader's high watermark has passed these batches: whoever read them before read the same (ConsistentRead).
    /// `strict`: it is that of durable positions, and the topic is strict in truth.
    pub fn on_committed(
        &mut self,
        id: TopicPartition,
        (by, strict): (LeaderEpoch, bool),
        entries: &[Entry],
    ) -> Result<(), String> {
        let committed = self.committed.entry(id).or_default();
        let promised = self.promised.entry(id).or_default();
        for entry in entries {
            if let Some(known) = committed.get(&entry.base) {
                if known.entry != *entry {
                    return Err(format!("ConsistentRead: {id} committed {:?} and then {entry:?}", known.entry));
                }
                continue;
            }
            let overlaps = committed.range(..entry.end).next_back().filter(|(_, known)| known.entry.end > entry.base);
            if let Some((_, known)) = overlaps {
                return Err(format!("ConsistentRead: {id} committed {:?} and then {entry:?}", known.entry));
            }
            if strict {
                // The durable positions have passed what was committed before by written ones.
                committed.range_mut(..entry.base).rev().take_while(|(_, one)| !one.strict).for_each(|(_, one)| {
                    one.strict = true;
                });
                promised.durable = promised.durable.max(entry.end);
            }
            promised.written = promised.written.max(entry.end);
            committed.insert(entry.base, Committed { entry: *entry, by, strict, cuts: self.cuts });
            self.committed_count += 1;
        }
        Ok(())
    }

    /// The power of a node has gone: what is not strict may be lost on it.
    pub fn on_power_cut(&mut self) {
        self.cuts += 1;
        self.promised.values_mut().for_each(|promised| promised.written = promised.durable);
    }

    /// A topic is relaxed from now on, and with it what was committed before.
    pub fn on_relaxed(&mut self, id: TopicPartition) {
        let cuts = self.cuts;
        for one in self.committed.entry(id).or_default().values_mut().rev().take_while(|one| one.strict) {
            (one.strict, one.cuts) = (false, cuts);
        }
        self.promised.entry(id).or_default().durable = 0;
    }

    /// What every member of the in-sync set has.
    pub fn promised(&self, id: TopicPartition) -> Promised {
        self.promised.get(&id).copied().unwrap_or_default()
    }

    /// A leader begins without what only was written before a power cut: nobody will read it any more.
    pub fn forgive(&mut self, id: TopicPartition, shadow: &Shadow, start: i64, epoch: LeaderEpoch) {
        let cuts = self.cuts;
        if let Some(committed) = self.committed.get_mut(&id) {
            committed.retain(|base, one| {
                let is_kept = one.strict || one.cuts == cuts || one.by >= epoch || *base < start;
                is_kept || shadow.get(base) == Some(&one.entry)
            });
        }
    }

    /// Whether a log lacks anything that no power cut may take.
    pub fn lacks_promised(&self, id: TopicPartition, shadow: &Shadow, start: i64) -> bool {
        let is_promised = |one: &&Committed| (one.strict || one.cuts == self.cuts) && one.entry.base >= start;
        let mut promised = self.committed.get(&id).into_iter().flat_map(BTreeMap::values).filter(is_promised);
        promised.any(|one| shadow.get(&one.entry.base) != Some(&one.entry))
    }

    /// A client was told that its batch is safe.
    pub fn on_acknowledged(&mut self, id: TopicPartition, base: i64, crc: u32) -> Result<(), String> {
        self.acknowledged_count += 1;
        match self.committed.get(&id).and_then(|committed| committed.get(&base)) {
            Some(known) if known.entry.crc == crc => Ok(()),
            found => Err(format!("acknowledged and not committed: {id} at {base}, there is {found:?}")),
        }
    }

    /// What `shadow` lacks of what was committed before `epoch` (LeaderCompleteness), from the log's start on.
    pub fn missing(&self, id: TopicPartition, shadow: &Shadow, start: i64, epoch: LeaderEpoch) -> Option<Entry> {
        let committed = self.committed.get(&id)?;
        let of_before = committed.values().filter(|one| one.by < epoch && one.entry.base >= start);
        of_before.map(|one| one.entry).find(|entry| shadow.get(&entry.base) != Some(entry))
    }

    /// What was read is what somebody appended.
    pub fn on_read(&self, id: TopicPartition, entry: &Entry) -> Result<(), String> {
        match self.appended.get(&(id, entry.base, entry.epoch)) {
            Some(known) if known == entry => Ok(()),
            known => Err(format!("{id} serves {entry:?}, and what was appended there is {known:?}")),
        }
    }

    /// What is committed between two offsets.
    pub fn committed_between(&self, id: TopicPartition, from: i64, to: i64) -> impl Iterator<Item = Entry> + '_ {
        let committed = self.committed.get(&id).into_iter();
        committed.flat_map(move |all| all.range(from..to)).map(|(_, one)| one.entry)
    }

    /// Whether one batch is committed.
    pub fn is_committed(&self, id: TopicPartition, entry: &Entry) -> bool {
        self.committed.get(&id).and_then(|known| known.get(&entry.base)).is_some_and(|known| known.entry == *entry)
    }

    pub fn committed_of(&self, id: TopicPartition) -> usize {
        self.committed.get(&id).map_or(0, BTreeMap::len)
    }
}
