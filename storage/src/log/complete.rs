//! Completions from the journal: what was queued is written, then durable.

use super::Log;
use super::tail::CommitSpan;
use crate::LogGeneration;

impl Log {
    /// The write at `span` holds everything of this log up to `ticket` that was not written before. The lane reports
    /// each write of the journal by itself and in order. Returns whether the report was of this generation.
    pub fn on_written(&mut self, generation: LogGeneration, ticket: u64, span: CommitSpan) -> bool {
        if generation != self.key.generation {
            return false;
        }
        self.tail.on_written(ticket, span);
        true
    }

    /// Everything of this log up to `ticket`, all of it reported written before, is durable; `ticket` is the last one
    /// of a write. Returns whether the report was of this generation.
    pub fn on_durable(&mut self, generation: LogGeneration, ticket: u64) -> bool {
        if generation != self.key.generation {
            return false;
        }
        self.tail.on_durable(ticket);
        if self.changing.is_some_and(|changing| changing <= ticket) {
            self.changing = None;
            if let Some(settling) = self.settling.take() {
                self.settle(*settling);
            }
        }
        self.cover_controls();
        true
    }
}
