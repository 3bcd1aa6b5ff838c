//! The voter's side of the metadata feed: entries up to what it has applied, or its newest snapshot.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use stonelog_protocol::peer::feed::{Content, Pull, Pulled};
use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::raft::{self, CHUNK_BYTES_MAX};
use stonelog_protocol::{BrokerId, DirectoryId};

use super::codec::fitting_entries;
use super::link::{PeerSession, Served, Serving};
use super::log_store::Following;
use super::node::QuorumNode;
use super::type_config::LogId;
use super::wire::{id_in, id_out};

/// One observer's connection.
pub(super) struct FeedSession {
    node: Weak<QuorumNode>,
    /// Who has proved to be at the other end.
    from: (BrokerId, DirectoryId),
    /// The snapshot that the observer is taking, so that all its pieces are of one.
    snapshot: Option<(LogId, Bytes)>,
}

impl PeerSession for FeedSession {
    fn serve(&mut self, request: Frame) -> Serving<'_> {
        Box::pin(async move {
            if request.kind != Kind::Pull {
                return Served::Close(format!("a {:?} frame on a connection of the feed", request.kind));
            }
            match Pull::decode(request.body) {
                Ok(pull) => match self.answer(pull).await {
                    Ok(pulled) => Served::Answer(Kind::Pulled, pulled.encode()),
                    Err(why) => Served::Failed(why),
                },
                Err(error) => Served::Close(error.to_string()),
            }
        })
    }
}

impl FeedSession {
    pub(super) fn new(node: &std::sync::Arc<QuorumNode>, from: (BrokerId, DirectoryId)) -> FeedSession {
        FeedSession { node: std::sync::Arc::downgrade(node), from, snapshot: None }
    }

    async fn answer(&mut self, pull: Pull) -> Result<Pulled, String> {
        let node = self.node.upgrade().ok_or("this node is stopping")?;
        let after = pull.applied.map(id_in);
        let end = |id: Option<LogId>| id.map_or(0, |id| id.index + 1);
        node.on_pull(self.from, pull.may_vote, end(after), end(node.applied()));
        node.applied_beyond(after, Duration::from_millis(u64::from(pull.wait_ms))).await;
        let applied = node.applied();
        let content = match applied {
            // Whoever is ahead of this voter asks another one, or again.
            Some(upto) if after.is_none_or(|id| id.index <= upto.index) => match node.store.following(after, upto) {
                Following::Entries(entries) => {
                    self.snapshot = None;
                    Content::Entries(fitting_entries(&entries))
                }
                Following::Purged => self.piece(&node, pull.snapshot).await?,
                Following::Unknown => Content::Ahead,
            },
            None if after.is_none() => Content::Entries(Vec::new()),
            _ => Content::Ahead,
        };
        Ok(Pulled { leader: node.leading_surely(), applied: applied.map(id_out), content })
    }

    /// The next piece of the snapshot that was begun, or the first of the newest.
    async fn piece(&mut self, node: &QuorumNode, begun: Option<(raft::LogId, u64)>) -> Result<Content, String> {
        let position = match (&self.snapshot, begun) {
            (Some((held, bytes)), Some((id, position))) if id_out(*held) == id && position < bytes.len() as u64 => {
                position as usize
            }
            _ => {
                let newest = node.raft.get_snapshot().await.map_err(|error| error.to_string())?;
                let newest = newest.ok_or("the log was cut and there is no snapshot")?;
                let last = newest.meta.last_log_id.ok_or("the newest snapshot is empty")?;
                self.snapshot = Some((last, newest.snapshot));
                0
            }
        };
        let (last, bytes) = self.snapshot.as_ref().ok_or("there is no snapshot")?;
        let end = bytes.len().min(position + CHUNK_BYTES_MAX);
        Ok(Content::Snapshot {
            last: id_out(*last),
            total_bytes: bytes.len() as u64,
            position: position as u64,
            bytes: bytes.slice(position..end),
        })
    }
}

impl QuorumNode {
    /// The last entry that this node has applied.
    fn applied(&self) -> Option<LogId> {
        self.raft.metrics().borrow_watched().last_applied
    }

    /// Returns when this node has applied something behind `after`, or the time is up.
    async fn applied_beyond(&self, after: Option<LogId>, within: Duration) {
        let beyond = self.raft.wait(Some(within));
        // Whether it came to it is seen in what is applied.
        drop(beyond.metrics(|metrics| metrics.last_applied > after, "applied").await);
    }
}
