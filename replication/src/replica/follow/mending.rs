//! A follower whose log has damage in it: what it asks for, and what becomes of it (rule 9).

use super::*;

impl Follower {
    /// Whether this replica is in the in-sync set or the ELR, and if not, whether two others at least are in sync: then a
    /// log with damage in it that cannot be mended is dropped and fetched again whole (rule 9), which a new stream begins.
    pub fn set_standing(&mut self, counts: bool, in_sync_count: usize, log: &Log, now: Instant) {
        let is_spare = !counts && in_sync_count >= 2;
        self.counts = counts;
        if is_spare && !self.is_spare && self.is_beyond_repair(log) && !matches!(self.state, State::Stopped) {
            self.leave(now);
        }
        self.is_spare = is_spare;
    }

    /// Whether the log is dropped and fetched again whole. The image here may be behind the leader's, which knows whom it
    /// has proposed; and whoever says that it is damaged is not proposed.
    pub(super) fn begins_anew(&self, news: &StreamNews, counts: bool, log: &Log) -> bool {
        let counts = counts && !off!(SpareByLeader);
        self.is_spare && !counts && news.is_whole && self.is_beyond_repair(log)
    }

    /// Whether there is damage in the log that nothing but another copy of all of it mends.
    fn is_beyond_repair(&self, log: &Log) -> bool {
        !log.holes().is_empty() && !self.repair.is_under_way() && self.repair.is_given_up()
    }

    /// Bytes that leaders have sent once more for what is damaged here.
    pub fn repaired_bytes(&self) -> u64 {
        self.repair.fetched_bytes()
    }

    /// Begins to mend what is damaged, if it can be mended; [`Follower::say`] asks the leader for it. Whether it did.
    pub fn begin_repair(&mut self, log: &mut Log, now: Instant) -> bool {
        self.is_streaming() && self.repair.begin(log, now)
    }

    /// Whether another partition may have its turn to be mended: this one's is over, or takes too long.
    pub fn may_pass_repair_on(&mut self, now: Instant) -> bool {
        self.repair.may_pass_on(now)
    }

    /// What became of an [`Effect::Mend`].
    pub fn on_mended(&mut self, is_mended: bool, now: Instant) {
        if self.repair.is_under_way() {
            self.repair.on_written(is_mended, now);
        }
        self.on_repair_over(now);
    }

    /// A spare replica that cannot be mended is fetched again whole: the next stream begins that.
    fn on_repair_over(&mut self, now: Instant) {
        if self.repair.is_given_up() && self.is_spare && self.is_streaming() {
            self.leave(now);
        }
    }

    pub(super) fn on_filled(&mut self, filled: &Filled, now: Instant) -> Vec<Effect> {
        match self.repair.on_filled(filled, now) {
            Step::Ask => Vec::new(),
            Step::Write(plan, fetched) => vec![Effect::Mend(plan, fetched)],
            Step::Failed => {
                self.on_repair_over(now);
                Vec::new()
            }
            Step::Incompatible(cleaned_end) => {
                // Of what is whole here something goes: not before the leader says that it counts on none of it.
                self.incompatible = Some(cleaned_end);
                self.leave(now);
                Vec::new()
            }
            Step::Stale => self.fenced(),
        }
    }
}
