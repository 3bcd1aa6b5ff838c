//! Makes written commits durable: one `fdatasync` per call, also while the writer goes on writing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::JournalPosition;
use super::shared::Shared;
use crate::Fault;

/// A point of the journal up to which something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Durable {
    /// Sequence of the last commit included; 0 for none.
    pub sequence: u64,
    /// Where that commit ends.
    pub position: JournalPosition,
}

/// The journal's one flushing end.
pub struct JournalFlusher {
    pub(super) shared: Arc<Shared>,
}

impl JournalFlusher {
    /// Makes everything durable that was written when the call began. Does nothing when that already is.
    ///
    /// After any failure this and every other part of the journal refuse: a second `fdatasync` would say OK while the
    /// bytes are gone (rule 8).
    pub fn sync(&self) -> Result<Durable, Fault> {
        self.shared.check()?;
        let (written, durable, files) = {
            let state = self.shared.state();
            (state.written, state.durable, state.dirty.clone())
        };
        if written == durable {
            return Ok(durable);
        }
        for live in &files {
            #[cfg(feature = "mutants")]
            if crate::mutants::Guard::JournalFdatasync.is_off_for(&self.shared.directory) {
                continue;
            }
            let synced = live.file.sync_data().map_err(|e| Fault::io("fdatasync", &live.path, e));
            self.shared.stick(synced)?;
        }
        let mut state = self.shared.state();
        state.durable = written;
        // The last file may have been written again since; those before it were full when the call began.
        let full = files.len().saturating_sub(1);
        state.dirty.drain(..full);
        if state.written == written {
            state.dirty.clear();
        }
        drop(state);
        self.shared.durable_sequence.store(written.sequence, Ordering::Release);
        Ok(written)
    }

    /// What is durable now, without flushing.
    pub fn durable(&self) -> Durable {
        self.shared.state().durable
    }
}
