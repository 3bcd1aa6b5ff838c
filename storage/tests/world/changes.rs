//! What the world changes besides appending: epochs, cuts, log starts, modes, resets, drops.

use super::*;

impl World {
    pub(super) fn begin_epoch(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        if self.log(id).is_changing() {
            return;
        }
        let epoch = self.epochs.get_mut(&id).expect("every log has one");
        *epoch += 1;
        let epoch = *epoch;
        let process = self.process();
        let ticket = process.ticket(id);
        let entry = process.hosted(id).log.begin_epoch(LeaderEpoch(epoch), ticket);
        process.enqueue(entry);
        self.model.push(id, Change::Epoch { epoch });
    }

    pub(super) fn truncate(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let log = self.log(id);
        let (start, end) = (log.log_start().0, log.log_end().0);
        if log.is_changing() || start == end || !matches!(self.process().hosted(id).rebuild, Slot::Idle) {
            return;
        }
        let far = self.below(3) == 0;
        let behind = 1 + if far { self.below((end - start) as u64) } else { self.below(12) } as i64;
        let to = (end - behind).max(start);
        if self.stable.get(&id).is_some_and(|stable| to < *stable) {
            return;
        }
        let durable = self.log(id).durable().0;
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        let hosted = process.hosted(id);
        let is_flushing = !matches!(hosted.flush, Slot::Idle);
        match hosted.log.truncate_to(Offset(to), ticket) {
            Truncation::Nothing => panic!("the end is above {to}"),
            Truncation::Done(entry) => {
                process.enqueue(entry);
                self.coverage.hit("truncation in memory");
                self.coverage.hit_if(to < durable, "truncation of durable records");
                self.truncated(id, to, is_flushing);
            }
            Truncation::Rebuild(job) => {
                hosted.rebuild = Slot::Planned(job);
                self.cuts.insert(id, to);
            }
        }
    }

    pub(super) fn truncated(&mut self, id: TopicPartition, to: i64, is_flushing: bool) {
        self.coverage.hit_if(is_flushing, "truncation under a flush in flight");
        let expected = self.model.now(id).cut_at(to);
        assert_eq!(self.log(id).log_end().0, expected, "seed {}: {id} was cut at {to}", self.seed);
        self.model.push(id, Change::Truncate { end: to });
        self.note(&[to as u64]);
    }

    /// Moves a cut into segments on by one step.
    pub(super) fn rebuild(&mut self) -> Result<(), Fault> {
        let ids = self.process().ids();
        let Some(id) = ids.into_iter().find(|id| !matches!(self.process().hosted(*id).rebuild, Slot::Idle)) else {
            return Ok(());
        };
        let is_full = self.is_full(75);
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        let access = process.access.clone();
        let hosted = process.hosted(id);
        match std::mem::take(&mut hosted.rebuild) {
            Slot::Idle => {}
            Slot::Planned(job) => match job.run(&access) {
                Ok(done) => hosted.rebuild = Slot::Done(done),
                // Deleted, or cut, since it was planned: planned again then.
                Err(Fault::Foreign { .. } | Fault::Damage { .. }) => self.coverage.hit("cut planned again"),
                Err(fault) => return Err(fault),
            },
            Slot::Done(rebuilt) => {
                if is_full {
                    hosted.rebuild = Slot::Done(rebuilt);
                    return Ok(());
                }
                let is_flushing = !matches!(hosted.flush, Slot::Idle);
                let start = hosted.log.log_start().0;
                match hosted.log.truncate_into_segments(rebuilt, ticket) {
                    None => self.coverage.hit("cut planned again"),
                    Some(entry) => {
                        process.enqueue(entry);
                        self.coverage.hit("truncation into segments");
                        let to = self.cuts[&id].max(start);
                        self.truncated(id, to, is_flushing);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn raise_log_start(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let log = self.log(id);
        let (start, upper) = (log.log_start().0, if log.is_strict() { log.durable() } else { log.written() }.0);
        let to = start + self.below((upper - start).max(0) as u64 + 1) as i64;
        self.move_log_start(id, to, "log start raised");
    }

    pub(super) fn retain(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let week = 8 * 24 * 3600 * 1000;
        let now = if self.below(8) == 0 { stonelog_protocol::Timestamp(NOW.0 + week) } else { NOW };
        let log = self.log(id);
        let upper = if log.is_strict() { log.durable() } else { log.written() };
        if let Some(to) = log.plan_retention(now, upper) {
            self.move_log_start(id, to.0, "retention");
        }
    }

    pub(super) fn move_log_start(&mut self, id: TopicPartition, to: i64, mark: &'static str) {
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        if let Some(entry) = process.hosted(id).log.advance_log_start(Offset(to), ticket) {
            process.enqueue(entry);
            self.model.push(id, Change::LogStart { to });
            self.coverage.hit(mark);
            self.note(&[to as u64]);
        }
    }

    pub(super) fn change_mode(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let strict = !self.log(id).is_strict();
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        if let Some(entry) = process.hosted(id).log.set_mode(strict, ticket) {
            process.enqueue(entry);
            self.model.push(id, Change::Mode { strict });
            self.coverage.hit(if strict { "made strict" } else { "made relaxed" });
        }
    }

    pub(super) fn reset(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        // Only a log whose creation is in the journal, and heard of.
        let is_known = match self.fresh.get(&id) {
            None => true,
            Some(place) => *place <= self.model.durable && self.log(id).written() > self.log(id).log_start(),
        };
        if self.log(id).is_changing() || !is_known {
            return;
        }
        let start = self.log(id).log_end().0 + self.below(20) as i64 - 5;
        let start = start.max(0);
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        let entry = process.hosted(id).log.reset(Offset(start), ticket);
        process.enqueue(entry);
        self.model.push(id, Change::Reset { start });
        self.coverage.hit("reset");
        self.note(&[start as u64]);
    }

    /// The process is gone, and with it what only it knew.
    pub(super) fn bury(&mut self) {
        self.process = None;
        self.reads.clear();
        self.cuts.clear();
        self.fresh.clear();
        (self.compaction, self.compacted) = (None, None);
    }
}
