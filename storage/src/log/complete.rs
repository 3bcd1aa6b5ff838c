//! Completions from the journal: what was queued is written, then durable.

use super::Log;
use super::tail::CommitSpan;
use crate::LogGeneration;

impl Log {
    /// The write at `span` holds everything of this log up to `ticket` that was not written before. The lane reports
    /// each write of the journal by itself and in order. Returns whether the report was of this generation.
    pub fn on_written(&mut self, generation: LogGeneration, ticket: u64, span: CommitSpan) -> bool {
        if generation != self.key.generation {
            // A checkpoint must know where the creation lies all the same, or it would leave the log out.
            self.tail.on_creation_written(ticket, span);
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
        let is_changed = self.changing.is_some_and(|changing| changing <= ticket);
        if is_changed {
            self.changing = None;
        }
        if self.dropped {
            // Whatever it was that was not covered, the drop ends it; until then the checkpoint says what it said.
            return true;
        }
        if is_changed && let Some(settling) = self.settling.take() {
            self.settle(*settling);
        }
        self.cover_controls();
        true
    }
}
