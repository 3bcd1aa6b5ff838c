//! Replays the journal onto the logs that the checkpoint describes.

use std::collections::HashMap;

use stonelog_protocol::{Timestamp, TopicPartition};

use super::Loss;
use crate::Fault;
use crate::checkpoint::Checkpoint;
use crate::job::FileAccess;
use crate::journal::{Change, JournalPosition, ReplayedEntry};
use crate::log::{FIRST_TICKET, Log, LogConfig, Replayed, TICKETS_COUNT};

/// Logs in the making.
pub(super) struct Replay<'a> {
    config: LogConfig,
    now: Timestamp,
    access: &'a FileAccess,
    logs: HashMap<TopicPartition, Building>,
    /// Covered positions of logs that were dropped, so that their older entries stay covered.
    dropped: HashMap<TopicPartition, JournalPosition>,
    /// Where each commit that was replayed begins, rising.
    commits: Vec<JournalPosition>,
    ticket: u64,
    fault: Option<Fault>,
}

/// A log as replay left it.
pub(super) struct Found {
    pub(super) log: Log,
    /// Why it may lack something that no hole names.
    pub(super) loss: Option<Loss>,
    /// The last entry that said where the log ended; nothing that was lost before it can have been behind its end.
    pub(super) end_known_at: JournalPosition,
}

struct Building {
    log: Log,
    covered: JournalPosition,
    loss: Option<Loss>,
    /// The last entry that said where the log ended.
    end_known_at: JournalPosition,
}

impl<'a> Replay<'a> {
    /// Begins with what the checkpoint says.
    pub(super) fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: LogConfig,
        now: Timestamp,
        access: &'a FileAccess,
    ) -> Replay<'a> {
        let mut logs = HashMap::with_capacity(checkpoint.replicas.len());
        for state in &checkpoint.replicas {
            let covered = state.covered.unwrap_or(checkpoint.covered_default);
            let (log, loss) = match Log::from_checkpoint(state, covered, config.clone(), now) {
                Some(log) => (log, None),
                None => {
                    tracing::error!(partition = %state.replica.partition, "the checkpoint contradicts itself");
                    (Log::unusable(state, covered, config.clone()), Some(Loss::Checkpoint))
                }
            };
            let end_known_at = JournalPosition::default();
            logs.insert(state.replica.partition, Building { log, covered, loss, end_known_at });
        }
        Replay { config, now, access, logs, dropped: HashMap::new(), commits: Vec::new(), ticket: 0, fault: None }
    }

    /// Applies one entry, unless it is covered.
    pub(super) fn apply(&mut self, found: &ReplayedEntry) {
        if self.fault.is_some() {
            return;
        }
        let partition = found.entry.replica.partition;
        let known = self.logs.get_mut(&partition);
        // A log that no checkpoint names is covered nowhere, unless it was dropped before the checkpoint.
        let covered = match &known {
            Some(building) => building.covered,
            None => self.dropped.get(&partition).copied().unwrap_or_default(),
        };
        if found.commit_position < covered {
            return;
        }
        if self.commits.last() != Some(&found.commit_position) {
            self.commits.push(found.commit_position);
        }
        self.ticket += TICKETS_COUNT;
        assert!(self.ticket < FIRST_TICKET, "a journal holds fewer entries than that");
        let replayed = Replayed {
            entry: &found.entry,
            commit_position: found.commit_position,
            payload_position: found.payload_position,
            batches_damaged: found.batches_damaged,
            ticket: self.ticket,
            now: self.now,
        };
        match (&found.entry.change, known) {
            (Change::Create { start, strict }, _) => {
                let log = Log::replay_create(&replayed, self.config.clone(), *start, *strict);
                let end_known_at = found.position;
                self.logs.insert(partition, Building { log, covered, loss: None, end_known_at });
            }
            (Change::Drop, _) => {
                self.logs.remove(&partition);
                self.dropped.insert(partition, found.commit_position);
            }
            // The rest of a log whose drop or creation lies in a covered part.
            (_, None) => {}
            (_, Some(building)) => match building.log.replay(&replayed, self.access) {
                Ok(Ok(())) if says_where_the_log_ends(&found.entry.change) => building.end_known_at = found.position,
                Ok(Ok(())) => {}
                Ok(Err(contradiction)) => {
                    tracing::error!(%partition, position = found.position.0, ?contradiction, "replay");
                    building.loss = building.loss.or(Some(Loss::Contradiction(contradiction)));
                }
                Err(fault @ Fault::Damage { .. } | fault @ Fault::Foreign { .. }) => {
                    tracing::error!(%partition, position = found.position.0, %fault, "replay of a truncation");
                    building.loss = building.loss.or(Some(Loss::SegmentDamage));
                }
                Err(fault) => self.fault = Some(fault),
            },
        }
    }

    /// Ends the replay of a journal whose last commit ends at `journal_end`.
    /// The logs, which of them have lost something, the dropped ones, and how many entries were applied.
    pub(super) fn finish(
        self,
        recovery_epoch: u32,
        journal_end: JournalPosition,
    ) -> Result<(Vec<Found>, Vec<TopicPartition>, u64), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let gone = self.dropped.into_keys().filter(|partition| !self.logs.contains_key(partition)).collect();
        let mut logs = Vec::with_capacity(self.logs.len());
        for mut building in self.logs.into_values() {
            building.log.finish_replay(recovery_epoch, &self.commits, journal_end);
            logs.push(Found { log: building.log, loss: building.loss, end_known_at: building.end_known_at });
        }
        Ok((logs, gone, self.ticket / TICKETS_COUNT))
    }
}

fn says_where_the_log_ends(change: &Change) -> bool {
    match change {
        Change::Append { .. }
        | Change::Truncate { .. }
        | Change::Reset { .. }
        | Change::Create { .. }
        | Change::EpochStart { .. } => true,
        Change::LogStart { .. } | Change::Mode { .. } | Change::Drop => false,
    }
}
