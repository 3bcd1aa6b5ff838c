//! Compactions of the world's keyed logs, one at a time and step by step, as the cleaner of a directory has them.

use stonelog_protocol::batch::{BatchBuilder, Compression, NewRecord};
use stonelog_storage::compaction::{
    CompactJob, CompactionConfig, CompactionLimits, Mapped, Pace, Replacement, Rewriting, Step, SweepJob,
};
use stonelog_storage::log::LogConfig;
use stonelog_storage::segment::delete::DeleteJob;

use super::process::Slot;
use super::*;

/// Keys that a log has.
const KEYS_COUNT: u64 = 7;

/// A compaction between two steps.
pub(super) enum Compaction {
    SweepPlanned(SweepJob),
    SweepDone(TopicPartition),
    Planned(CompactJob),
    Rewriting(Box<Rewriting>),
    Replacing(Box<Rewriting>, Replacement),
    Ended(Option<Offset>),
}

struct Unpaced;

impl Pace for Unpaced {
    fn spent(&mut self, _: u64) -> bool {
        true
    }
}

/// What a keyed log is opened with.
pub(super) fn keyed_config(config: &LogConfig) -> LogConfig {
    let compaction = CompactionConfig { dirty_ratio_min: 0.0, ..CompactionConfig::default() };
    LogConfig { delete: false, compaction: Some(compaction), ..config.clone() }
}

impl World {
    /// A batch for a keyed log, without offset.
    pub(super) fn keyed_batch(&mut self) -> bytes::BytesMut {
        let mut builder = BatchBuilder::new().compressed(Compression::None, None);
        for _ in 0..1 + self.below(4) {
            let key = [b'a' + self.below(KEYS_COUNT) as u8];
            let filler = self.below(self.options.filler_bytes / 3) as usize;
            let mut random = Random(self.random.next());
            let value: Vec<u8> = (0..filler).map(|_| random.next() as u8).collect();
            let value = (self.below(6) != 0).then_some(&value[..]);
            builder.push(NewRecord::new(NOW, Some(&key), value));
        }
        bytes::BytesMut::from(&builder.build().unwrap()[..])
    }

    /// Moves the compaction on by one step, or begins one.
    pub(super) fn compact(&mut self) -> Result<(), Fault> {
        let Some((id, compaction)) = self.compaction.take() else {
            self.begin_compaction();
            return Ok(());
        };
        let process = self.process.as_mut().expect("the process runs");
        let access = process.access.clone();
        let log = &mut process.hosted(id).log;
        let next = match compaction {
            Compaction::SweepPlanned(job) => {
                job.run(&access)?;
                Some(Compaction::SweepDone(id))
            }
            Compaction::SweepDone(_) => {
                log.on_swept(true);
                self.coverage.hit("sweep");
                None
            }
            Compaction::Planned(job) => Some(match job.map_keys(&access, &mut Unpaced)? {
                Mapped::Ready(rewriting) => Compaction::Rewriting(rewriting),
                Mapped::Stopped => Compaction::Ended(None),
            }),
            Compaction::Rewriting(mut rewriting) => Some(match rewriting.step(&access, &mut Unpaced) {
                Ok(Step::Replace(done)) => Compaction::Replacing(rewriting, done),
                Ok(Step::Done(clean_end)) => Compaction::Ended(Some(clean_end)),
                Ok(Step::Stopped | Step::NoRoom(_)) => Compaction::Ended(None),
                Err(fault) if fault.is_out_of_space() => {
                    self.coverage.hit("no space for a compaction");
                    Compaction::Ended(None)
                }
                Err(fault) => return Err(fault),
            }),
            Compaction::Replacing(rewriting, done) => Some(match log.on_compacted(&done) {
                true => {
                    process.hosted(id).uncheckpointed = true;
                    self.coverage.hit("segment compacted");
                    Compaction::Rewriting(rewriting)
                }
                false => {
                    let unwanted = DeleteJob { partition: id, segments: vec![done.segment.name()] };
                    unwanted.run(&access)?;
                    self.coverage.hit("compaction that came too late");
                    Compaction::Ended(None)
                }
            }),
            Compaction::Ended(clean_end) => {
                let replica = self.compacted.take().expect("whose compaction it is");
                log.on_compaction_ended(replica, clean_end, false);
                process.hosted(id).uncheckpointed = true;
                self.coverage.hit_if(clean_end.is_some(), "compaction ended");
                None
            }
        };
        self.compaction = next.map(|next| (id, next));
        Ok(())
    }

    fn begin_compaction(&mut self) {
        let Some(id) = self.any_log() else { return };
        if !self.model.now(id).keyed {
            return;
        }
        let process = self.process.as_mut().expect("the process runs");
        let hosted = process.hosted(id);
        // Nothing is compacted for the sake of what is about to be cut off.
        let cut = if matches!(hosted.rebuild, Slot::Idle) { None } else { self.cuts.get(&id).copied() };
        let last_stable = cut.map_or(hosted.log.durable(), |to| Offset(to).min(hosted.log.durable()));
        if let Some(job) = hosted.log.plan_sweep(NOW, last_stable) {
            self.compaction = Some((id, Compaction::SweepPlanned(job)));
            return;
        }
        let limits = CompactionLimits { map_bytes_max: 1 << 16, map_load_factor: 0.9, hash_seeds: [1, 2] };
        if let Some(job) = hosted.log.plan_compaction(NOW, last_stable, limits) {
            let stable = self.stable.entry(id).or_default();
            *stable = (*stable).max(last_stable.0);
            self.compacted = Some(hosted.log.key());
            self.compaction = Some((id, Compaction::Planned(job)));
        }
    }
}
