//! Snapshots on disk: `snapshot-<index>-<term>.snap`, written aside and renamed, the newest two kept.
//!
//! A snapshot is the records of an image behind what it covers: see "Metadata log and snapshot" in `docs/formats.md`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::BrokerId;
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use stonelog_storage::small_file::{Envelope, EnvelopeKind, read_small_file, remove_small_file, write_small_file};

use super::codec::{read_log_id, read_stored_membership, write_log_id, write_stored_membership};
use super::type_config::{SnapshotMeta, Voter};
use crate::metadata::codec::{DecodeError, Reader, Writer};
use crate::metadata::{ApplyError, MetadataImage, MetadataRecord};

/// What the file is.
const SNAPSHOT_KIND: EnvelopeKind = EnvelopeKind { magic: *b"SLMETASN", format: 1, what: "metadata snapshot" };
/// How many snapshots stay: the newest, and the one before until the log it needs is surely gone.
const SNAPSHOTS_KEPT: usize = 2;

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Its envelope or contents cannot be read.
    #[error("{0}")]
    Envelope(#[from] stonelog_storage::small_file::EnvelopeError),
    /// Its contents are no metadata.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// Its records do not make an image.
    #[error("{0}")]
    Apply(#[from] ApplyError),
}

/// A snapshot's bytes, complete with envelope.
pub fn encode_snapshot(meta: &SnapshotMeta, image: &MetadataImage) -> Bytes {
    let mut out = Writer::new();
    out.option(meta.last_log_id.as_ref(), write_log_id);
    write_stored_membership(&mut out, &meta.last_membership);
    out.u64(image.index());
    out.list(&image.to_records(), |out, record| record.encode(out));
    let version = meta.last_log_id.map_or(0, |id| id.index);
    Envelope::seal(&SNAPSHOT_KIND, version, &out.finish()).into()
}

/// Reads what [`encode_snapshot`] wrote.
pub fn decode_snapshot(bytes: &[u8]) -> Result<(SnapshotMeta, MetadataImage), SnapshotError> {
    let (_, payload) = Envelope::open(&SNAPSHOT_KIND, bytes)?;
    let mut input = Reader::new(payload);
    let last_log_id = input.option(read_log_id)?;
    let last_membership = read_stored_membership(&mut input)?;
    let index = input.u64()?;
    let records = input.list(MetadataRecord::ENCODED_LEN_MIN, MetadataRecord::decode)?;
    input.end()?;
    let image = MetadataImage::from_records(index, &records)?;
    Ok((SnapshotMeta { last_log_id, last_membership }, image))
}

/// The snapshots of one directory.
#[derive(Clone)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

impl SnapshotStore {
    /// The snapshots in a directory, which exists.
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> SnapshotStore {
        SnapshotStore { disk, directory }
    }

    /// Makes a snapshot durable; older ones go, except the one before.
    pub fn save(&self, meta: &SnapshotMeta, bytes: &[u8]) -> Result<(), Fault> {
        let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let name = format!("snapshot-{index:020}-{term}.snap");
        write_small_file(&*self.disk, &self.directory, &name, bytes)?;
        for old in self.names()?.iter().rev().skip(SNAPSHOTS_KEPT) {
            remove_small_file(&*self.disk, &self.directory, old)?;
        }
        Ok(())
    }

    /// The newest snapshot that can be read. A damaged one is reported and passed over; whether the log still reaches
    /// back to the one before is for openraft to see.
    pub fn newest(&self) -> Result<Option<(SnapshotMeta, MetadataImage, Bytes)>, Fault> {
        for name in self.names()?.iter().rev() {
            let path = self.directory.join(name);
            let Some(bytes) = read_small_file(&*self.disk, &path)? else { continue };
            match decode_snapshot(&bytes) {
                Ok((meta, image)) => return Ok(Some((meta, image, bytes.into()))),
                Err(error) => tracing::error!(path = %path.display(), %error, "damaged metadata snapshot passed over"),
            }
        }
        Ok(None)
    }

    /// Before a node begins to vote with an empty log: snapshots that know it as a voter with another directory, which it
    /// had before it was emptied, go. It would take itself for that voter.
    pub fn forget_if_of_another_directory(&self, node: BrokerId, voter: &Voter) -> Result<(), Fault> {
        if !matches!(self.disk.exists(&self.directory), Ok(true)) {
            return Ok(());
        }
        let Some((meta, _, _)) = self.newest()? else { return Ok(()) };
        let known = meta.last_membership.membership().get_node(&super::wire::node(node));
        if known.is_none_or(|known| known.directory == voter.directory) {
            return Ok(());
        }
        for name in self.names()? {
            remove_small_file(&*self.disk, &self.directory, &name)?;
        }
        Ok(())
    }

    /// The snapshots' names, oldest first: the index in a name has all its digits.
    fn names(&self) -> Result<Vec<String>, Fault> {
        let entries = self.disk.list(&self.directory).map_err(|source| Fault::Io {
            operation: "list",
            path: self.directory.clone(),
            position: None,
            source,
        })?;
        let is_snapshot = |name: &String| name.starts_with("snapshot-") && name.ends_with(".snap");
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).filter(is_snapshot).collect();
        names.sort();
        Ok(names)
    }
}
