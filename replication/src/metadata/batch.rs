//! One entry of the metadata log: the records of one decision, applied whole or not at all.

use stonelog_protocol::Timestamp;

use super::codec::{DecodeError, Reader, Writer};
use super::record::MetadataRecord;

/// The version of the layout below.
const BATCH_FORMAT: u8 = 1;

/// The records decided together, and what they were decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    /// The index of the last batch the decider had applied (0: none). A batch decided on anything else than the state
    /// it is applied to changes nothing.
    pub base_index: u64,
    /// The controller's term.
    pub controller_term: u64,
    /// When it was decided, by the controller's clock.
    pub created: Timestamp,
    /// The facts, in order.
    pub records: Vec<MetadataRecord>,
}

impl RecordBatch {
    /// Its bytes: see "Metadata log and snapshot" in `docs/formats.md`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(BATCH_FORMAT);
        out.u64(self.base_index);
        out.u64(self.controller_term);
        out.i64(self.created.0);
        out.count(self.records.len());
        for record in &self.records {
            record.encode(&mut out);
        }
        out.finish()
    }

    /// Reads what [`RecordBatch::encode`] wrote; every byte must belong.
    pub fn decode(bytes: &[u8]) -> Result<RecordBatch, DecodeError> {
        let mut input = Reader::new(bytes);
        let format = input.u8()?;
        if format != BATCH_FORMAT {
            return Err(DecodeError::UnknownVersion { what: "record batch", version: format });
        }
        let base_index = input.u64()?;
        let controller_term = input.u64()?;
        let created = Timestamp(input.i64()?);
        let count = input.count(MetadataRecord::ENCODED_LEN_MIN)?;
        let records = (0..count).map(|_| MetadataRecord::decode(&mut input)).collect::<Result<Vec<_>, _>>()?;
        input.end()?;
        Ok(RecordBatch { base_index, controller_term, created, records })
    }
}
