//! Committed entries become images.
//!
//! The image is in memory; snapshots make it durable. A batch decided on another image than the one it meets changes
//! nothing and is counted: with one batch outstanding that never happens, and a bug becomes a no-op instead of a
//! difference between nodes. An entry that does not fit its image ends the node: going on would make it differ.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use stonelog_storage::Fault;

use super::publisher::Publisher;
use super::snapshot_store::{SnapshotStore, decode_snapshot, encode_snapshot};
use super::type_config::{Entry, LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::metadata::MetadataImage;

/// openraft's state machine.
pub struct StateMachine {
    last_applied: Option<LogId>,
    membership: StoredMembership,
    publisher: Arc<Publisher>,
    snapshots: SnapshotStore,
    stale_batches: Arc<AtomicU64>,
}

impl StateMachine {
    /// An empty state machine; openraft installs the newest snapshot and applies the log behind it.
    pub fn new(publisher: Arc<Publisher>, snapshots: SnapshotStore, stale_batches: Arc<AtomicU64>) -> StateMachine {
        StateMachine {
            last_applied: None,
            membership: StoredMembership::default(),
            publisher,
            snapshots,
            stale_batches,
        }
    }

    /// Applies one committed entry; what comes of it for whoever proposed it.
    pub(super) fn apply_entry(&mut self, entry: &Entry) -> Result<Outcome, io::Error> {
        let id = entry.log_id;
        let outcome = match &entry.payload {
            EntryPayload::Blank => Outcome::Nothing,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
                Outcome::Nothing
            }
            EntryPayload::Normal(proposal) => {
                let image = self.publisher.image();
                let batch = &proposal.0;
                if !image.is_base_of(batch) || batch.controller_term != id.leader_id.term {
                    self.stale_batches.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(entry = %id, base = batch.base_index, image = image.index(), "stale batch ignored");
                    Outcome::Stale
                } else {
                    let next = image.apply(id.index, batch).map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, format!("metadata entry {id}: {error}"))
                    })?;
                    self.publisher.publish(next);
                    Outcome::Applied
                }
            }
        };
        self.last_applied = Some(id);
        Ok(outcome)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_entry(&entry)?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            meta: SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() },
            image: self.publisher.image(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Bytes) -> Result<(), io::Error> {
        let (found, image) =
            decode_snapshot(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if found != *meta {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a snapshot covers something else than it says"));
        }
        let stored = self.snapshots.newest().map_err(io::Error::other)?;
        if stored.is_none_or(|(stored, _, _)| stored != *meta) {
            let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
            aside(move || snapshots.save(&meta, &bytes)).await?;
        }
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let controller = self.publisher.image().controller();
        self.publisher.publish(image.with_controller(controller));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let newest = self.snapshots.newest().map_err(io::Error::other)?;
        Ok(newest.map(|(meta, _, bytes)| Snapshot { meta, snapshot: bytes }))
    }
}

/// Writes out one image.
pub struct SnapshotBuilder {
    meta: SnapshotMeta,
    image: Arc<MetadataImage>,
    snapshots: SnapshotStore,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, image, snapshots) = (self.meta.clone(), self.image.clone(), self.snapshots.clone());
        let written = aside(move || {
            let bytes = encode_snapshot(&meta, &image);
            snapshots.save(&meta, &bytes).map(|()| Snapshot { meta, snapshot: bytes })
        });
        written.await
    }
}

/// Runs a snapshot's work on a thread of its own: it is rare, and long where the image is large; heartbeats and commits
/// go on meanwhile.
#[allow(clippy::disallowed_methods, reason = "the metadata plane shares no pool with the data plane")]
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, io::Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?.map_err(io::Error::other)
}
