//! Beginning to vote: when a node starts as a member of the quorum, or when it is made one while it runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use stonelog_protocol::ClusterId;
use stonelog_protocol::peer::probe::{ListedVoter, Member, ProbeAnswer};
use stonelog_protocol::peer::proof::Hello;
use stonelog_storage::log_dir::MemberMark;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::asking::{Arrivals, Asker, News};
use super::member::JoinError;
use super::serving::Active;
use super::{MetadataOptions, OwnLog, Submission};
use crate::quorum::control::ControlSession;
use crate::quorum::controllers::Controllers;
use crate::quorum::link::PeerSession;
use crate::quorum::node::{QuorumNode, QuorumOptions};
use crate::quorum::publisher::Publisher;
use crate::quorum::removed::until_removed;
use crate::quorum::replaced;
use crate::quorum::services::NodeServices;
use crate::quorum::snapshot_store::SnapshotStore;
use crate::runtime::peers::TcpDialer;

/// What a node needs to vote. Its directory's and its cluster's id are durable.
pub(super) struct Candidacy {
    pub(super) quorum: QuorumOptions,
    /// The log directory that holds the metadata log.
    pub(super) log_dir: PathBuf,
    pub(super) cluster: ClusterId,
    pub(super) listed: Vec<ListedVoter>,
    pub(super) metadata: MetadataOptions,
    pub(super) publisher: Arc<Publisher>,
    pub(super) services: Arc<NodeServices>,
    pub(super) dialer: TcpDialer,
    pub(super) own_log: OwnLog,
    pub(super) controllers: Arc<Controllers>,
    pub(super) requests: mpsc::Sender<Submission>,
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) arrivals: Arc<Arrivals>,
}

impl Candidacy {
    /// Votes from here on, over a log that is open already, or a new one. `founders` are written as the first membership.
    pub(super) async fn begin(
        self,
        opened: Option<QuorumNode>,
        founders: Option<&[Member]>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Active, JoinError> {
        let Candidacy { quorum, log_dir, cluster, listed, metadata, publisher, services, dialer, .. } = self;
        let voter = quorum.voter.clone();
        let node = match opened {
            Some(node) => node,
            None => {
                let snapshots = SnapshotStore::new(quorum.disk.clone(), quorum.directory.clone());
                snapshots.forget_if_of_another_directory(quorum.node_id, &voter)?;
                replaced::begin_anew(&quorum).await?;
                QuorumNode::start_voter(quorum.clone(), publisher.clone(), dialer.clone()).await?
            }
        };
        // From here on it is a member, and never empty again; the log's file is there, so it is not lost either.
        let is_member = ProbeAnswer::Member { cluster: cluster.clone(), members: Vec::new(), leader: None };
        services.answer_probes(is_member);
        let mark = MemberMark { directory_id: metadata.directory_id, may_have_voted: true };
        mark.write(&*quorum.disk, &log_dir)?;
        let node = Arc::new(node);
        self.own_log.is_of(&node);
        services.serve_quorum(&node);
        if let Some(founders) = founders {
            node.initialize(founders).await?;
        }
        let tending = node.clone();
        tasks.spawn(async move { tending.tend(voter, &listed).await });
        let (saying, controllers) = (node.clone(), self.controllers);
        tasks.spawn(async move { saying.say_voters(&controllers).await });
        let (left, own, told) = (node.clone(), (quorum.node_id, metadata.directory_id), publisher.clone());
        tasks.spawn(async move {
            until_removed(&left, own, &cluster, &dialer).await;
            told.publish_removed();
        });
        let (asked, requests, news, arrivals) = (Arc::downgrade(&node), self.requests, self.news, self.arrivals);
        let (published, connections) = (publisher.clone(), AtomicU64::new(0));
        services.serve_control(move |hello: &Hello| -> Box<dyn PeerSession> {
            let asker = Asker {
                from: hello.from.node,
                connection: connections.fetch_add(1, Ordering::Relaxed) + 1,
                arrivals: arrivals.clone(),
                requests: requests.clone(),
                publisher: published.clone(),
                news: news.clone(),
                spoke_as: Mutex::default(),
            };
            Box::new(ControlSession::new(asked.clone(), Arc::new(asker), hello.from.node))
        });
        Ok(Active::new(node, publisher, metadata).with_lease())
    }
}
