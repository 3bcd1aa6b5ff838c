//! Reads journal bytes in place, for recovered batches that are not in segments yet.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::JournalPosition;
use super::file::ended_early;
use super::shared::Shared;
use crate::Fault;

/// Reads at positions that recovery handed out. Serves several threads.
pub struct JournalReader {
    pub(super) shared: Arc<Shared>,
}

impl JournalReader {
    /// `len` bytes from a position; they must lie in one commit, as an entry's batches do.
    ///
    /// Recovery has checked these bytes; whoever serves them checks each batch again. A position whose file has been
    /// recycled is a [`Fault::Damage`]: its batches are in segments, and reading them here is the caller's mistake.
    pub fn read(&self, position: JournalPosition, len: usize) -> Result<Bytes, Fault> {
        let found = self.shared.state().live.range(..=position.0).next_back().map(|(base, live)| (*base, live.clone()));
        let (base, live) = found.ok_or_else(|| self.gone(position))?;
        let offset = position.0 - base;
        if offset.checked_add(len as u64).is_none_or(|end| end > live.header.len) {
            return Err(self.gone(position));
        }
        let mut bytes = BytesMut::zeroed(len);
        let read = live.file.read_at(offset, &mut bytes).map_err(|e| Fault::io_at("read", &live.path, offset, e))?;
        if read < len {
            return Err(ended_early(&live.path, offset + read as u64));
        }
        // A file recycled during the read may have been overwritten under it.
        match self.shared.state().live.get(&base) {
            Some(still) if Arc::ptr_eq(still, &live) => Ok(bytes.freeze()),
            _ => Err(self.gone(position)),
        }
    }

    fn gone(&self, position: JournalPosition) -> Fault {
        Fault::Damage {
            what: "journal range",
            path: self.shared.directory.clone(),
            position: position.0,
            detail: "no live file holds it".to_owned(),
        }
    }
}
