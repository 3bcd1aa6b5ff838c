//! Committed entries become images.
//!
//! The image is in memory; snapshots make it durable. A batch decided on another image than the one it meets changes
//! nothing and is counted: with one batch outstanding that never happens, and a bug becomes a no-op instead of a
//! difference between nodes. An entry that does not fit its image ends the node: going on would make it differ.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use super::publisher::Publisher;
use super::snapshot_store::{SnapshotStore, decode_snapshot, encode_snapshot};
use super::type_config::{Entry, LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::metadata::MetadataImage;

/// How long a full disk is left alone before a snapshot is tried on it again.
const ROOM_LOOK_AGAIN: Duration = Duration::from_millis(500);

/// openraft's state machine.
pub struct StateMachine {
    last_applied: Option<LogId>,
    membership: StoredMembership,
    publisher: Arc<Publisher>,
    snapshots: SnapshotStore,
    stale_batches: Arc<AtomicU64>,
    /// Goes with the state machine: a snapshot that waits for space waits no longer than that.
    living: Arc<()>,
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
            living: Arc::new(()),
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
            living: Arc::downgrade(&self.living),
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
            let meta = meta.clone();
            save(&self.snapshots, &Arc::downgrade(&self.living), move || (meta.clone(), bytes.clone())).await?;
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
    living: Weak<()>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, image) = (self.meta.clone(), self.image.clone());
        let encoded = move || (meta.clone(), encode_snapshot(&meta, &image));
        save(&self.snapshots, &self.living, encoded).await
    }
}

/// Makes a snapshot durable, when there is space for it: a full disk ends nobody, the log waits for space as well. What
/// is to be written is made anew for each try, and takes no memory between them.
///
/// It runs on a thread of its own: it is rare, and long where the image is large; heartbeats and commits go on meanwhile.
#[allow(clippy::disallowed_methods, reason = "the metadata plane shares no pool with the data plane")]
async fn save(
    snapshots: &SnapshotStore,
    living: &Weak<()>,
    encoded: impl Fn() -> (SnapshotMeta, Bytes) + Clone + Send + 'static,
) -> Result<Snapshot, io::Error> {
    let mut said = false;
    loop {
        let (store, encoded) = (snapshots.clone(), encoded.clone());
        let saved = tokio::task::spawn_blocking(move || {
            let (meta, snapshot) = encoded();
            store.save(&meta, &snapshot).map(|()| Snapshot { meta, snapshot })
        });
        match saved.await.map_err(io::Error::other)? {
            Ok(saved) => return Ok(saved),
            Err(fault) if fault.is_temporary() => {
                if !std::mem::replace(&mut said, true) {
                    tracing::error!("a metadata snapshot waits: {fault}; free some, and it goes on by itself");
                }
            }
            Err(fault) => return Err(io::Error::other(fault)),
        }
        tokio::time::sleep(ROOM_LOOK_AGAIN).await;
        if living.strong_count() == 0 {
            return Err(io::Error::other("the node has stopped"));
        }
    }
}
