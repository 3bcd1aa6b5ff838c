//! Several data planes on one controller, each behind a link that can be cut.

#![allow(clippy::disallowed_methods, reason = "what links and accepts here is on no lane")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::peer::proof::Identity;
use stonelog_protocol::{BrokerId, ClusterId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, Uuid};
use stonelog_replication::controller::{
    self, BrokerHeartbeat, ControllerRequest, ControllerResponse, CreateTopics, FenceBroker, MetadataHandle,
    MetadataOptions, NewTopic, SettingsRules,
};
use stonelog_replication::metadata::{Endpoint, SecurityProtocol};
use stonelog_replication::partition::{Acks, Reject};
use stonelog_replication::quorum::services::NodeServices;
use stonelog_replication::runtime::find_offset::OffsetQuery;
use stonelog_replication::runtime::lane::{Append, Appended};
use stonelog_replication::runtime::node::NodeSettings;
use stonelog_replication::runtime::peers::{self, TcpDialer};
use stonelog_replication::runtime::start::{self, StartOptions, Started};
use stonelog_replication::runtime::streams::{self, PROVED_LEN_MAX, StreamsOptions};
use stonelog_storage::checkpoint::Checkpoint;
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log::{Log, Read};
use stonelog_storage::segment::read::ReadDone;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::support::{PARTITIONS, Upkeep, batch_of, options, partition};

/// `replica.lag.time.max.ms`: long enough for a busy machine's disk, short enough for a test.
const LAG_MAX: Duration = Duration::from_secs(3);
const LISTENER: &str = "INTERNAL";

fn cluster_id() -> ClusterId {
    ClusterId("streams".into())
}

/// See the module's comment.
pub(crate) struct Cluster {
    directory: TempDir,
    metadata: MetadataHandle,
    nodes: BTreeMap<BrokerId, Node>,
    starts: u8,
}

/// One data plane.
pub(crate) struct Node {
    started: Option<Started>,
    pub(crate) link: Link,
    accepting: JoinHandle<()>,
}

/// A port behind which a node is reached, or is not.
pub(crate) struct Link {
    port: u16,
    is_cut: Arc<AtomicBool>,
    passing: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Link {
    async fn to(behind: u16) -> Link {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_cut, passing) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (cut, all) = (Arc::clone(&is_cut), Arc::clone(&passing));
        let accepting = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let passes = tokio::spawn(async move {
                    let Ok(mut to) = TcpStream::connect(("127.0.0.1", behind)).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
                all.lock().unwrap().push(passes);
            }
        });
        Link { port, is_cut, passing, accepting }
    }

    /// Nothing passes any more.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.passing.lock().unwrap().drain(..).for_each(|passes| passes.abort());
    }

    pub(crate) fn heal(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Cluster {
    /// Three nodes, unfenced.
    pub(crate) async fn start() -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("controller")).unwrap();
        let rules = SettingsRules { static_broker: BTreeMap::new(), broker_key: |_| None, group_key: |_| None };
        let metadata = controller::start(MetadataOptions::new(
            Arc::new(RealDisk),
            directory.path().join("controller/metadata"),
            BrokerId(100),
            cluster_id(),
            Uuid([100; 16]),
            Arc::new(rules),
        ))
        .unwrap();
        let mut cluster = Cluster { directory, metadata, nodes: BTreeMap::new(), starts: 0 };
        for id in 1..=3 {
            cluster.restart(id).await;
        }
        cluster
    }

    /// Starts a node on what its directory holds.
    pub(crate) async fn restart(&mut self, id: i32) {
        self.starts += 1;
        let directory = self.directory.path().join(id.to_string());
        let node = Node::start(id, self.starts, &directory, &self.metadata).await;
        self.nodes.insert(BrokerId(id), node);
    }

    /// Ends a node; the controller is not told.
    pub(crate) fn kill(&mut self, id: i32) {
        let node = self.nodes.get_mut(&BrokerId(id)).unwrap();
        node.link.cut();
        node.accepting.abort();
        let started = node.started.take().unwrap();
        started.stop().unwrap();
    }

    pub(crate) fn stop(self) {
        for node in self.nodes.into_values() {
            node.link.accepting.abort();
            node.accepting.abort();
            if let Some(started) = node.started {
                started.stop().unwrap();
            }
        }
        self.metadata.shut_down();
    }

    pub(crate) fn node(&self, id: BrokerId) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn leader_id(&self, of: TopicPartition) -> Option<BrokerId> {
        self.metadata.image().partition(of).unwrap().leader
    }

    /// The node that leads.
    pub(crate) fn leader(&self, of: TopicPartition) -> &Started {
        self.node(self.leader_id(of).unwrap()).started()
    }

    pub(crate) fn isr(&self, of: TopicPartition) -> BTreeSet<BrokerId> {
        self.metadata.image().partition(of).unwrap().isr.iter().copied().collect()
    }

    /// A partition of the topic that a node leads.
    pub(crate) fn led_by(&self, topic: TopicId, leader: i32) -> TopicPartition {
        let led = (0..PARTITIONS).map(|index| partition(topic, index));
        led.into_iter().find(|of| self.leader_id(*of) == Some(BrokerId(leader))).unwrap()
    }

    /// Looks again until it is so.
    pub(crate) async fn until(&self, is_so: impl Fn(&Cluster) -> bool) {
        super::support::eventually(|| is_so(self)).await;
        self.applied().await;
    }

    /// Every lane has applied the newest image.
    async fn applied(&self) {
        let index = self.metadata.image().index();
        for node in self.nodes.values() {
            let Some(started) = &node.started else { continue };
            for lane in 0..started.lanes.count() {
                started.lanes.call(lane, move |lane| lane.applied(index)).await;
            }
        }
    }

    /// A topic on all three nodes, with two of them enough.
    pub(crate) async fn create_topic(&self, name: &str) -> TopicId {
        self.create_topic_with(name, &[]).await
    }

    /// The same, with more of its settings.
    pub(crate) async fn create_topic_with(&self, name: &str, settings: &[(&str, &str)]) -> TopicId {
        let all: Vec<_> = settings.iter().copied().chain([("min.insync.replicas", "2")]).collect();
        self.create(name, (PARTITIONS, 3), Vec::new(), &all).await
    }

    /// A topic of one partition on these nodes, the first of which leads it.
    pub(crate) async fn create_topic_on(&self, name: &str, nodes: &[i32], min_isr: i32) -> TopicPartition {
        let nodes = nodes.iter().map(|id| BrokerId(*id)).collect();
        let min_isr = min_isr.to_string();
        let settings = [("min.insync.replicas", min_isr.as_str())];
        partition(self.create(name, (-1, -1), vec![(PartitionIndex(0), nodes)], &settings).await, 0)
    }

    async fn create(
        &self,
        name: &str,
        (partitions, replication_factor): (i32, i16),
        assignments: Vec<(PartitionIndex, Vec<BrokerId>)>,
        settings: &[(&str, &str)],
    ) -> TopicId {
        let configs = settings.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect();
        let topic = NewTopic { name: name.into(), partitions, replication_factor, assignments, configs };
        let request = CreateTopics { topics: vec![topic], validate_only: false };
        let created = match self.metadata.submit(ControllerRequest::CreateTopics(request)).await.unwrap() {
            ControllerResponse::CreateTopics(mut results) => results.remove(0).result.unwrap().id,
            other => panic!("{other:?}"),
        };
        self.applied().await;
        created
    }

    /// The controller takes a node for dead.
    pub(crate) async fn fence(&self, id: i32) {
        let epoch = self.metadata.image().broker(BrokerId(id)).unwrap().epoch;
        let request = FenceBroker { id: BrokerId(id), epoch };
        self.metadata.submit(ControllerRequest::FenceBroker(request)).await.unwrap();
        self.applied().await;
    }

    /// A node says that it is there.
    pub(crate) async fn unfence(&self, id: i32) {
        let heartbeat = BrokerHeartbeat {
            id: BrokerId(id),
            epoch: self.metadata.image().broker(BrokerId(id)).unwrap().epoch,
            metadata_index: self.metadata.image().index(),
            want_fence: false,
            want_shutdown: false,
            online_directories: None,
        };
        self.metadata.submit(ControllerRequest::Heartbeat(heartbeat)).await.unwrap();
        self.applied().await;
    }

    /// Appends at the leader, and waits for nothing.
    pub(crate) async fn append(&self, to: TopicPartition, value: Vec<u8>) -> Result<Appended, Reject> {
        let batch = batch_of(&value);
        let header = BatchHeader::read(&batch).unwrap();
        let lanes = &self.leader(to).lanes;
        let append = Append { partition: to, batch, header, acks: Acks::All };
        lanes.call(lanes.owner(to), move |lane| std::future::ready(lane.append(append))).await
    }

    /// A node's checkpoint knows what is committed.
    pub(crate) async fn until_checkpointed(&self, id: i32, of: TopicPartition, high_watermark: Offset) {
        let directory = self.directory.path().join(id.to_string());
        let knows = || {
            let checkpoint = Checkpoint::read_only(&RealDisk, &directory);
            let mut replicas = checkpoint.iter().flat_map(|checkpoint| &checkpoint.replicas);
            replicas.any(|replica| replica.replica.partition == of && replica.high_watermark == high_watermark)
        };
        super::support::eventually(knows).await;
    }

    /// All three replicas hold the same bytes, up to there and no further.
    pub(crate) async fn assert_equal(&self, of: TopicPartition, end: i64) {
        let mut all = Vec::new();
        for node in self.nodes.values() {
            node.until(of, move |log| log.durable() == Offset(end) && log.log_end() == Offset(end)).await;
            all.push(node.bytes(of).await);
        }
        assert!(all[0] == all[1] && all[0] == all[2], "the replicas of {of} differ");
    }
}

impl Node {
    async fn start(id: i32, start_number: u8, directory: &Path, metadata: &MetadataHandle) -> Node {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let link = Link::to(listener.local_addr().unwrap().port()).await;
        let base = options(Arc::new(RealDisk), vec![directory.to_owned()], Upkeep::AtOnce, start_number);
        let options = StartOptions {
            node_id: BrokerId(id),
            cluster_id: Some(cluster_id()),
            endpoints: vec![Endpoint {
                listener: LISTENER.into(),
                host: "127.0.0.1".into(),
                port: link.port,
                protocol: SecurityProtocol::Plaintext,
            }],
            // As many as no other has: partitions' messages hop between lanes.
            lanes: id as usize,
            node: NodeSettings { hangs_after: LAG_MAX, ..base.node.clone() },
            ..base
        };
        let started = start::start_on(options, metadata.clone()).await.unwrap();
        // What a start finds of the metadata log that another process keeps here.
        let _ = std::fs::create_dir(directory.join("metadata"));
        std::fs::write(directory.join("metadata/metadata.checkpoint"), []).unwrap();
        let (directory, cluster) = (started.node.directories[0].id, Some(cluster_id()));
        let identity = Identity { node: BrokerId(id), directory, cluster, incarnation: directory };
        let (proved, accepted) = tokio::sync::mpsc::channel(PROVED_LEN_MAX);
        let services = NodeServices::new(identity.clone());
        services.serve_streams(proved);
        let accepting = tokio::spawn(peers::serve(listener, None, services));
        let dialer = TcpDialer::new(Arc::new(move || identity.clone()), None, BTreeMap::new());
        let listener = LISTENER.into();
        let streams = StreamsOptions { dialer, listener, accepted, metadata: metadata.clone() };
        streams::start(&started.lanes, streams).await;
        Node { started: Some(started), link, accepting }
    }

    pub(crate) fn started(&self) -> &Started {
        self.started.as_ref().unwrap()
    }

    /// Looks at a log on its lane.
    pub(crate) async fn log<R: Send + 'static>(
        &self,
        of: TopicPartition,
        look: impl FnOnce(&Log) -> R + Send + 'static,
    ) -> R {
        let lanes = &self.started().lanes;
        let look = move |lane: std::rc::Rc<stonelog_replication::runtime::lane::Lane>| {
            let found = lane.partition(of).unwrap();
            let seen = look(&found.replica().log);
            std::future::ready(seen)
        };
        lanes.call(lanes.owner(of), look).await
    }

    /// Bytes in the middle of the first segment go bad, and the scrub meets them.
    pub(crate) async fn damage(&self, of: TopicPartition) {
        let path = self.started().node.directories[0].path.join(format!("{}-{}", of.topic_id, of.partition.0));
        let path = path.join("00000000000000000000.log");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
        let lanes = &self.started().lanes;
        let found = lanes.call(lanes.owner(of), move |lane| lane.survey_segment(of, Offset(0))).await;
        assert!(!found.is_empty(), "nobody noticed");
    }

    /// Bytes that this follower has fetched again because its own were damaged.
    pub(crate) async fn repaired_bytes(&self, of: TopicPartition) -> u64 {
        let lanes = &self.started().lanes;
        let look = move |lane: std::rc::Rc<stonelog_replication::runtime::lane::Lane>| {
            let found = lane.partition(of).unwrap();
            let bytes = found.replica().follower.as_ref().map_or(0, |follower| follower.repaired_bytes());
            std::future::ready(bytes)
        };
        lanes.call(lanes.owner(of), look).await
    }

    /// Asks whether it leads; asked when this returns.
    pub(crate) fn confirms(&self, of: TopicPartition) -> impl Future<Output = Result<(), Reject>> {
        let lanes = &self.started().lanes;
        lanes.call(lanes.owner(of), move |lane| lane.confirm_leadership(of, Duration::from_secs(60)))
    }

    /// Looks an offset up.
    pub(crate) async fn finds(&self, of: TopicPartition, query: OffsetQuery) -> Result<Offset, Reject> {
        let lanes = &self.started().lanes;
        let find = move |lane: std::rc::Rc<stonelog_replication::runtime::lane::Lane>| {
            lane.find_offset(of, query, LeaderEpoch::NONE, false)
        };
        lanes.call(lanes.owner(of), find).await.map(|(offset, ..)| offset)
    }

    /// Deletes records; begun when this returns.
    pub(crate) fn deletes(&self, of: TopicPartition, before: Offset) -> impl Future<Output = Result<Offset, Reject>> {
        let lanes = &self.started().lanes;
        lanes.call(lanes.owner(of), move |lane| lane.delete_records(of, before))
    }

    /// Waits until a log is so.
    pub(crate) async fn until(&self, of: TopicPartition, is_so: impl Fn(&Log) -> bool + Clone + Send + 'static) {
        let waiting = async {
            while !self.log(of, is_so.clone()).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), waiting).await;
        if waited.is_err() {
            panic!(
                "it never came to be: {:?}",
                self.log(of, |log| (log.log_end(), log.durable(), log.is_changing())).await
            );
        }
    }

    /// All batches of a log.
    async fn bytes(&self, of: TopicPartition) -> Vec<u8> {
        let lanes = &self.started().lanes;
        let access = {
            let directory = Arc::clone(&self.started().node.directories[0]);
            Arc::clone(&directory.access)
        };
        let mut all = Vec::new();
        let mut from = Offset(0);
        loop {
            let look = move |lane: std::rc::Rc<stonelog_replication::runtime::lane::Lane>| {
                let found = lane.partition(of).unwrap();
                let log = &found.replica().log;
                std::future::ready(log.read(from, log.log_end(), 1 << 20, true))
            };
            let batches = match lanes.call(lanes.owner(of), look).await {
                Read::Ready(batches, _) => batches,
                Read::Job(job) => match job.run(&access).unwrap() {
                    ReadDone::Batches { batches, .. } => batches,
                    ReadDone::Moved => continue,
                    other => panic!("{other:?}"),
                },
                Read::Empty => return all,
                other => panic!("{other:?}"),
            };
            for piece in batches {
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let header = BatchHeader::read(rest).unwrap();
                    from = header.next_offset();
                    rest = &rest[header.batch_bytes..];
                }
                all.extend_from_slice(&piece);
            }
        }
    }
}
