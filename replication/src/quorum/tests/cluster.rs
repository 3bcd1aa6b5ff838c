//! Three voters in one process, over real TCP on the loopback interface, with links that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::probe::{ListedVoter, Member, Part};
use stonelog_protocol::peer::proof::{Identity, Purpose, Verdict};
use stonelog_protocol::{BrokerId, ClusterId, Timestamp, Uuid};
use stonelog_storage::disk::{Disk, RealDisk};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::metadata::record::ConfigRecord;
use crate::metadata::{ConfigResource, MetadataImage, MetadataRecord, RecordBatch};
use crate::quorum::link::{LinkError, PeerDialer, PeerLink, Target};
use crate::quorum::node::{QuorumNode, QuorumOptions, REQUEST_WITHIN_DEFAULT, StartError};
use crate::quorum::publisher::Publisher;
use crate::quorum::services::NodeServices;
use crate::quorum::type_config::{Outcome, Voter};
use crate::runtime::peers::dial::TcpLink;
use crate::runtime::peers::{ClusterSecret, TcpDialer, serve};

/// A cluster that has not come to it by then never will.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

/// Directions in which nothing passes.
type Cuts = Arc<Mutex<BTreeSet<(i32, i32)>>>;

/// Real links, some of them cut.
#[derive(Clone)]
struct CutDialer {
    own: i32,
    tcp: TcpDialer,
    cuts: Cuts,
    pre_votes: Arc<AtomicUsize>,
}

struct CutLink {
    own: i32,
    to: i32,
    tcp: TcpLink,
    cuts: Cuts,
    pre_votes: Arc<AtomicUsize>,
}

impl PeerDialer for CutDialer {
    type Link = CutLink;

    fn link(&self, target: Target, purpose: Purpose) -> CutLink {
        let to = target.node.0;
        let tcp = self.tcp.link(target, purpose);
        CutLink { own: self.own, to, tcp, cuts: self.cuts.clone(), pre_votes: self.pre_votes.clone() }
    }
}

impl CutLink {
    fn is_cut(&self, from: i32, to: i32) -> bool {
        self.cuts.lock().unwrap().contains(&(from, to))
    }
}

impl PeerLink for CutLink {
    async fn exchange(&mut self, kind: Kind, body: Bytes, within: Duration) -> Result<Frame, LinkError> {
        if kind == Kind::PreVote {
            self.pre_votes.fetch_add(1, Ordering::Relaxed);
        }
        // A request that is lost on the way looks like an answer that is lost, but was not served.
        if self.is_cut(self.own, self.to) {
            tokio::time::sleep(within).await;
            return Err(LinkError::TimedOut);
        }
        let answer = self.tcp.exchange(kind, body, within).await;
        if self.is_cut(self.to, self.own) { Err(LinkError::TimedOut) } else { answer }
    }
}

pub(super) struct Site {
    pub(super) id: i32,
    dir: TempDir,
    directory: [u8; 16],
    pub(super) address: SocketAddr,
    running: Option<Running>,
}

pub(super) struct Running {
    pub(super) node: Arc<QuorumNode>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) services: Arc<NodeServices>,
    /// How often it asked another whether it would get a vote.
    pre_votes: Arc<AtomicUsize>,
    accepting: JoinSet<()>,
}

pub(super) struct Cluster {
    pub(super) sites: Vec<Site>,
    cuts: Cuts,
    pub(super) secret: ClusterSecret,
}

pub(super) fn cluster_id() -> ClusterId {
    ClusterId("test".into())
}

/// A node with its first directory.
pub(super) fn identity(id: i32) -> Identity {
    let directory = Uuid([id as u8; 16]);
    Identity { node: BrokerId(id), directory, cluster: Some(cluster_id()), incarnation: Uuid([id as u8 + 100; 16]) }
}

impl Site {
    pub(super) fn voter(&self) -> Voter {
        Voter { directory: self.directory, host: self.address.ip().to_string(), port: self.address.port() }
    }

    pub(super) fn listed(&self) -> ListedVoter {
        ListedVoter { node: BrokerId(self.id), host: "127.0.0.1".into(), port: self.address.port() }
    }

    pub(super) fn member(&self) -> Member {
        Member { voter: self.listed(), directory: Uuid(self.directory), part: Part::Votes }
    }

    async fn start(&mut self, listener: TcpListener, cuts: &Cuts, secret: &ClusterSecret) -> Result<(), StartError> {
        let directory = Uuid(self.directory);
        let identity = Identity { directory, ..identity(self.id) };
        let services = NodeServices::new(identity.clone());
        let tcp = TcpDialer::new(Arc::new(move || identity.clone()), Some(secret.clone()), BTreeMap::new());
        let pre_votes = Arc::new(AtomicUsize::new(0));
        let dialer = CutDialer { own: self.id, tcp, cuts: cuts.clone(), pre_votes: pre_votes.clone() };
        let publisher = Arc::new(Publisher::default());
        let options = QuorumOptions {
            disk: Arc::new(RealDisk) as Arc<dyn Disk>,
            directory: self.dir.path().join("metadata"),
            node_id: BrokerId(self.id),
            voter: self.voter(),
            request_within: REQUEST_WITHIN_DEFAULT,
        };
        let node = Arc::new(QuorumNode::start_voter(options, publisher.clone(), dialer).await?);
        services.serve_quorum(&node);
        let mut accepting = JoinSet::new();
        accepting.spawn(serve(listener, Some(secret.clone()), services.clone()));
        self.running = Some(Running { node, publisher, services, pre_votes, accepting });
        Ok(())
    }
}

impl Cluster {
    pub(super) async fn form(sites: i32) -> Cluster {
        let secret = ClusterSecret::new(b"a secret of sixteen bytes or more").unwrap();
        let mut cluster = Cluster { sites: Vec::new(), cuts: Cuts::default(), secret };
        for id in 1..=sites {
            cluster.add(id).await;
        }
        let members: Vec<Member> = cluster.sites.iter().map(Site::member).collect();
        cluster.node(1).initialize(&members).await.unwrap();
        cluster
    }

    async fn add(&mut self, id: i32) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site { id, dir, directory: [id as u8; 16], address, running: None };
        site.start(listener, &self.cuts, &self.secret).await.unwrap();
        self.sites.push(site);
    }

    pub(super) fn site(&mut self, id: i32) -> &mut Site {
        self.sites.iter_mut().find(|site| site.id == id).unwrap()
    }

    pub(super) fn running(&self, id: i32) -> &Running {
        self.sites.iter().find(|site| site.id == id).unwrap().running.as_ref().unwrap()
    }

    pub(super) fn node(&self, id: i32) -> &Arc<QuorumNode> {
        &self.running(id).node
    }

    pub(super) fn image(&self, id: i32) -> Arc<MetadataImage> {
        self.running(id).publisher.image()
    }

    pub(super) async fn stop(&mut self, id: i32) {
        let Running { node, mut accepting, .. } = self.site(id).running.take().unwrap();
        accepting.shutdown().await;
        node.stop().await;
    }

    pub(super) async fn start(&mut self, id: i32) -> Result<(), StartError> {
        let (cuts, secret) = (self.cuts.clone(), self.secret.clone());
        let site = self.site(id);
        let listener = TcpListener::bind(site.address).await.unwrap();
        site.start(listener, &cuts, &secret).await
    }

    /// Cuts a node off from all others, in both directions.
    fn isolate(&self, id: i32) {
        let mut cuts = self.cuts.lock().unwrap();
        for other in self.sites.iter().map(|site| site.id).filter(|other| *other != id) {
            cuts.extend([(id, other), (other, id)]);
        }
    }

    fn heal(&self) {
        self.cuts.lock().unwrap().clear();
    }

    /// Waits for one of these to lead surely; returns it.
    pub(super) async fn leader_among(&self, ids: &[i32]) -> i32 {
        until(|| ids.iter().copied().find(|id| self.node(*id).leads_surely())).await
    }

    /// Proposes one setting at the leader, whoever it is by then; returns the index.
    pub(super) async fn write(&self, ids: &[i32], key: &str) -> u64 {
        loop {
            let leader = self.leader_among(ids).await;
            if let Ok((index, Outcome::Applied)) = self.propose(leader, key).await {
                return index;
            }
        }
    }

    pub(super) async fn propose(
        &self,
        id: i32,
        key: &str,
    ) -> Result<(u64, Outcome), crate::quorum::node::ProposeError> {
        let node = self.node(id);
        let Some(term) = node.leading_term() else { return Err(crate::quorum::node::ProposeError::NotLeader(None)) };
        let base_index = self.image(id).index();
        node.propose(RecordBatch {
            base_index,
            controller_term: term,
            created: Timestamp(0),
            records: vec![setting(key)],
        })
        .await
    }

    /// Waits until a node's image has all these settings.
    pub(super) async fn sees(&self, id: i32, keys: &[&str]) {
        until(|| {
            let image = self.image(id);
            keys.iter().all(|key| has(&image, key)).then_some(())
        })
        .await;
    }

    pub(super) async fn end(mut self) {
        let ids: Vec<i32> = self.sites.iter().filter(|site| site.running.is_some()).map(|site| site.id).collect();
        for id in ids {
            assert_eq!(self.node(id).stale_batches(), 0, "node {id} met a batch decided on another image");
            self.stop(id).await;
        }
    }
}

pub(super) fn setting(key: &str) -> MetadataRecord {
    MetadataRecord::Config(ConfigRecord {
        resource: ConfigResource::Group("g".into()),
        key: key.to_owned(),
        value: Some("v".to_owned()),
    })
}

pub(super) fn has(image: &MetadataImage, key: &str) -> bool {
    image.to_records().contains(&setting(key))
}

/// Looks again and again until there is an answer.
pub(super) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.expect("the cluster comes to it")
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(super) const ALL: [i32; 3] = [1, 2, 3];

pub(super) fn others(id: i32) -> Vec<i32> {
    ALL.into_iter().filter(|other| *other != id).collect()
}

#[test]
fn three_voters_elect_a_leader_and_all_apply_what_it_commits() {
    block_on(async {
        let cluster = Cluster::form(3).await;
        let leader = cluster.leader_among(&ALL).await;
        cluster.propose(leader, "a").await.unwrap();
        for id in ALL {
            cluster.sees(id, &["a"]).await;
            let leading = cluster.node(id).leading().unwrap();
            assert_eq!(leading.node, BrokerId(leader));
            assert_eq!(cluster.node(id).leads_surely(), id == leader);
            assert_eq!(cluster.node(id).voters().await.unwrap().len(), 3);
        }
        cluster.node(leader).read_barrier().await.unwrap();
        assert!(cluster.node(others(leader)[0]).read_barrier().await.is_err());
        // Who does not lead writes nothing.
        assert!(cluster.propose(others(leader)[0], "b").await.is_err());
        cluster.end().await;
    });
}

#[test]
fn killed_leader_is_followed_by_another_and_catches_up_when_it_returns() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let first = cluster.leader_among(&ALL).await;
        cluster.propose(first, "before").await.unwrap();
        let term = cluster.node(first).leading().unwrap().term;
        cluster.stop(first).await;
        cluster.write(&others(first), "meanwhile").await;
        let second = cluster.leader_among(&others(first)).await;
        assert!(cluster.node(second).leading().unwrap().term > term);
        cluster.start(first).await.unwrap();
        for id in ALL {
            cluster.sees(id, &["before", "meanwhile"]).await;
        }
        cluster.write(&ALL, "after").await;
        for id in ALL {
            cluster.sees(id, &["after"]).await;
        }
        cluster.end().await;
    });
}

#[test]
fn isolated_leader_commits_nothing_and_gives_way() {
    block_on(async {
        let cluster = Cluster::form(3).await;
        let first = cluster.leader_among(&ALL).await;
        cluster.propose(first, "before").await.unwrap();
        cluster.isolate(first);
        // Begun while it may still believe that it leads.
        let lost = tokio::time::timeout(Duration::from_secs(1), cluster.propose(first, "lost")).await;
        assert!(!matches!(lost, Ok(Ok(_))), "{lost:?}");
        cluster.write(&others(first), "meanwhile").await;
        until(|| (!cluster.node(first).leads_surely()).then_some(())).await;
        assert!(!has(&cluster.image(first), "meanwhile"));
        cluster.heal();
        cluster.sees(first, &["before", "meanwhile"]).await;
        for id in ALL {
            assert!(!has(&cluster.image(id), "lost"), "node {id}");
        }
        cluster.end().await;
    });
}

#[test]
fn leader_that_is_not_heard_gives_way_although_it_hears_the_others() {
    block_on(async {
        let cluster = Cluster::form(3).await;
        let first = cluster.leader_among(&ALL).await;
        let term = cluster.node(first).leading().unwrap().term;
        // One way only: what it sends is lost, what the others send arrives.
        cluster.cuts.lock().unwrap().extend(others(first).into_iter().map(|other| (first, other)));
        cluster.write(&others(first), "meanwhile").await;
        let second = cluster.leader_among(&others(first)).await;
        assert!(cluster.node(second).leading().unwrap().term > term);
        cluster.heal();
        cluster.sees(first, &["meanwhile"]).await;
        cluster.end().await;
    });
}

#[test]
fn follower_that_comes_back_from_isolation_does_not_unseat_the_leader() {
    block_on(async {
        let cluster = Cluster::form(3).await;
        let leader = cluster.leader_among(&ALL).await;
        let leading = cluster.node(leader).leading().unwrap();
        let lonely = others(leader)[0];
        cluster.isolate(lonely);
        // It would have stood for election several times, had it not asked first.
        let pre_votes = &cluster.running(lonely).pre_votes;
        let asked = pre_votes.load(Ordering::Relaxed);
        until(|| (pre_votes.load(Ordering::Relaxed) >= asked + 6).then_some(())).await;
        cluster.propose(leader, "meanwhile").await.unwrap();
        cluster.heal();
        cluster.sees(lonely, &["meanwhile"]).await;
        for id in ALL {
            assert_eq!(cluster.node(id).leading(), Some(leading), "node {id}");
        }
        cluster.end().await;
    });
}

#[test]
fn leadership_moves_to_the_voter_that_is_asked_to_lead() {
    block_on(async {
        let cluster = Cluster::form(3).await;
        let first = cluster.leader_among(&ALL).await;
        cluster.write(&ALL, "before").await;
        let next = others(first)[1];
        cluster.sees(next, &["before"]).await;
        cluster.node(first).transfer_leader(BrokerId(next)).await.unwrap();
        assert_eq!(cluster.leader_among(&[next]).await, next);
        cluster.write(&[next], "after").await;
        cluster.sees(first, &["after"]).await;
        cluster.end().await;
    });
}

#[test]
fn voter_that_missed_what_is_gone_from_the_log_gets_a_snapshot_in_pieces() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let leader = cluster.leader_among(&ALL).await;
        let late = others(leader)[0];
        cluster.stop(late).await;
        // More than one piece of a snapshot.
        let value = "v".repeat(300 << 10);
        for index in 0..6 {
            let record = MetadataRecord::Config(ConfigRecord {
                resource: ConfigResource::Group("g".into()),
                key: format!("large-{index}"),
                value: Some(value.clone()),
            });
            let node = cluster.node(leader);
            let batch = RecordBatch {
                base_index: cluster.image(leader).index(),
                controller_term: node.leading_term().unwrap(),
                created: Timestamp(0),
                records: vec![record],
            };
            node.propose(batch).await.unwrap();
        }
        cluster.node(leader).compact().await.unwrap();
        cluster.start(late).await.unwrap();
        let expected = cluster.image(leader).to_records();
        until(|| (cluster.image(late).to_records() == expected).then_some(())).await;
        cluster.write(&ALL, "after").await;
        cluster.sees(late, &["after"]).await;
        // It is durable there as well.
        cluster.stop(late).await;
        cluster.start(late).await.unwrap();
        cluster.sees(late, &["after"]).await;
        assert!(cluster.image(late).to_records().len() >= 7);
        cluster.end().await;
    });
}

#[test]
fn wiped_voter_is_refused_until_it_is_replaced() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let leader = cluster.write_leader("before").await;
        let wiped = others(leader)[0];
        cluster.stop(wiped).await;
        {
            let site = cluster.site(wiped);
            site.dir = tempfile::tempdir().unwrap();
            site.directory = [0x77; 16];
        }
        cluster.start(wiped).await.unwrap();
        // Nobody speaks to it, and it stands for nothing: it has no membership.
        cluster.propose(leader, "meanwhile").await.unwrap();
        let target = Target {
            node: BrokerId(wiped),
            directory: Some(Uuid([wiped as u8; 16])),
            host: "127.0.0.1".to_owned(),
            port: cluster.site(wiped).address.port(),
        };
        let own = identity(leader);
        let dialer = TcpDialer::new(Arc::new(move || own.clone()), Some(cluster.secret.clone()), BTreeMap::new());
        let mut link = dialer.link(target, Purpose::Quorum);
        let refused = link.exchange(Kind::Append, Bytes::new(), PATIENCE).await;
        assert_eq!(refused, Err(LinkError::Refused(Verdict::OtherDirectory)));
        assert!(!cluster.node(wiped).is_initialized().await.unwrap());
        assert_eq!(cluster.image(wiped).index(), 0);
        // Replaced, it is a voter again, under its new directory.
        let wished: BTreeMap<_, _> = cluster.sites.iter().map(|site| (BrokerId(site.id), site.voter())).collect();
        cluster.node(leader).change_voters(&wished).await.unwrap();
        assert_eq!(cluster.node(leader).voters().await.unwrap(), wished);
        cluster.sees(wiped, &["before", "meanwhile"]).await;
        // Its vote counts: the third one goes, and the two that are left go on.
        let third = others(leader).into_iter().find(|id| *id != wiped).unwrap();
        cluster.stop(third).await;
        cluster.write(&[leader, wiped], "with two").await;
        cluster.sees(wiped, &["with two"]).await;
        cluster.end().await;
    });
}

/// The first entry of a term is all that comes, and it changes no image.
#[test]
fn voter_that_returns_to_a_quiet_cluster_hears_that_it_is_up_to_date() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let leader = cluster.write_leader("a").await;
        let late = others(leader)[0];
        cluster.sees(late, &["a"]).await;
        cluster.stop(late).await;
        cluster.start(late).await.unwrap();
        tokio::time::timeout(PATIENCE, cluster.node(late).term_applied()).await.unwrap();
        assert!(cluster.node(late).has_applied_term());
        cluster.sees(late, &["a"]).await;
        cluster.end().await;
    });
}

#[test]
fn voter_with_anothers_log_does_not_start() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let leader = cluster.write_leader("a").await;
        let other = others(leader)[0];
        cluster.sees(other, &["a"]).await;
        cluster.stop(other).await;
        cluster.site(other).directory = [0x55; 16];
        let refused = cluster.start(other).await;
        assert!(matches!(refused, Err(StartError::OtherOwner { .. })), "{:?}", refused.err());
        cluster.site(other).directory = [other as u8; 16];
        cluster.start(other).await.unwrap();
        cluster.end().await;
    });
}

impl Cluster {
    /// Has a setting committed; returns who led.
    pub(super) async fn write_leader(&self, key: &str) -> i32 {
        self.write(&ALL, key).await;
        self.leader_among(&ALL).await
    }
}
