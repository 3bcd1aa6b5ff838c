//! Nodes with empty directories find each other over TCP and form one cluster, whatever happens on the way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::probe::{ListedVoter, Member, Part, ProbeAnswer};
use stonelog_protocol::peer::proof::{Identity, Purpose};
use stonelog_protocol::peer::raft;
use stonelog_protocol::{BrokerId, ClusterId, DirectoryId, Uuid};
use stonelog_storage::disk::{Disk, RealDisk};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster::{PATIENCE, block_on, until};
use crate::quorum::bootstrap::{Bootstrap, BootstrapError, OnDisk, Step};
use crate::quorum::form::find_cluster;
use crate::quorum::link::{LinkError, PeerDialer, PeerLink, PeerSession, Served, Target};
use crate::quorum::log_store;
use crate::quorum::node::{QuorumNode, QuorumOptions, REQUEST_WITHIN_DEFAULT};
use crate::quorum::services::NodeServices;
use crate::quorum::type_config::Voter;
use crate::runtime::peers::{ClusterSecret, TcpDialer, serve};

/// What a node keeps: the directory's id and the cluster's are written before they are acted on.
#[derive(Clone)]
struct Kept {
    directory: DirectoryId,
    cluster: Option<ClusterId>,
    path: PathBuf,
}

struct Booted {
    node: Option<Arc<QuorumNode>>,
    step: Step,
    cluster: ClusterId,
    accepting: JoinSet<()>,
}

/// Where a node stops on its way, to be started again.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    Running,
    /// The cluster's id is durable, and nothing else.
    Formatted,
}

fn options(id: i32, disk: &Kept, port: u16) -> QuorumOptions {
    QuorumOptions {
        disk: Arc::new(RealDisk) as Arc<dyn Disk>,
        directory: disk.path.join("metadata"),
        node_id: BrokerId(id),
        voter: Voter { directory: disk.directory.0, host: "127.0.0.1".to_owned(), port },
        request_within: REQUEST_WITHIN_DEFAULT,
    }
}

/// Starts a node as its step says, on what its disk says.
async fn boot(id: i32, kept: &mut Kept, listed: &[ListedVoter], until: Until) -> Booted {
    let booted = boot_on(id, kept, listed, until).await;
    kept.cluster = Some(booted.cluster.clone());
    booted
}

async fn boot_on(id: i32, disk: &Kept, listed: &[ListedVoter], until: Until) -> Booted {
    let own = &listed.iter().find(|voter| voter.node.0 == id);
    let port = own.map_or(0, |own| own.port);
    let (cluster, incarnation) = (disk.cluster.clone(), disk.directory);
    let identity = Identity { node: BrokerId(id), directory: disk.directory, cluster, incarnation };
    let services = NodeServices::new(identity.clone());
    let (known, identities) = watch::channel(identity.clone());
    let dialer = TcpDialer::new(Arc::new(move || identities.borrow().clone()), None, BTreeMap::new());
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let mut accepting = JoinSet::new();
    accepting.spawn(serve(listener, None, services.clone()));

    let start =
        async || QuorumNode::start_voter(options(id, disk, port), Arc::default(), dialer.clone()).await.unwrap();
    let mut opened = None;
    let mut on_disk = disk.cluster.clone().map_or(OnDisk::Empty, OnDisk::Formatted);
    if log_store::exists(&RealDisk, &disk.path.join("metadata")).unwrap() {
        let node = start().await;
        assert!(node.is_initialized().await.unwrap());
        on_disk = OnDisk::Log { cluster: disk.cluster.clone().unwrap(), members: node.members().await.unwrap() };
        opened = Some(node);
    }
    let bootstrap = Bootstrap::new(BrokerId(id), disk.directory, listed.to_vec(), on_disk);
    let finding = find_cluster(bootstrap, &dialer, &services, |_| ());
    let step = tokio::time::timeout(PATIENCE, finding).await.expect("a cluster is found").unwrap();
    let cluster = match &step {
        Step::Initialize { cluster, .. } => cluster.clone().unwrap_or(ClusterId(format!("made by {id}").into())),
        Step::Vote(cluster) | Step::Observe(cluster) | Step::PutAside(cluster) => cluster.clone(),
        Step::Ask(_) => unreachable!("it is found"),
    };
    let mut booted = Booted { node: None, step, cluster: cluster.clone(), accepting };
    if until == Until::Formatted || matches!(booted.step, Step::Observe(_) | Step::PutAside(_)) {
        return booted;
    }
    let identity = Identity { cluster: Some(cluster), ..identity };
    known.send_replace(identity.clone());
    services.set_identity(identity);
    let node = match opened {
        Some(node) => node,
        None => start().await,
    };
    let node = Arc::new(node);
    services.serve_quorum(&node);
    if let Step::Initialize { members, .. } = &booted.step {
        node.initialize(members).await.unwrap();
    }
    booted.node = Some(node);
    booted
}

struct Fresh {
    disks: Vec<Kept>,
    listed: Vec<ListedVoter>,
    _dirs: Vec<TempDir>,
}

async fn fresh() -> Fresh {
    let mut made = Fresh { disks: Vec::new(), listed: Vec::new(), _dirs: Vec::new() };
    for id in 1..=3u8 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        made.disks.push(Kept { directory: Uuid([id; 16]), cluster: None, path });
        made._dirs.push(dir);
        // A port that is free, and stays so for the moment it takes.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        made.listed.push(ListedVoter { node: BrokerId(i32::from(id)), host: "127.0.0.1".into(), port });
    }
    made
}

async fn leads(nodes: &[&Booted]) -> Vec<Member> {
    let node = until(|| nodes.iter().filter_map(|booted| booted.node.as_ref()).find(|node| node.leads_surely())).await;
    node.members().await.unwrap()
}

async fn stop(booted: Booted) {
    let Booted { node, mut accepting, .. } = booted;
    accepting.shutdown().await;
    if let Some(node) = node {
        node.stop().await;
    }
}

#[test]
fn three_empty_nodes_form_one_cluster_in_any_order() {
    block_on(async {
        let Fresh { disks, listed, _dirs } = fresh().await;
        let [mut one, mut two, mut three] = <[Kept; 3]>::try_from(disks).ok().unwrap();
        let (a, b, c) = tokio::join!(
            boot(1, &mut one, &listed, Until::Running),
            boot(2, &mut two, &listed, Until::Running),
            boot(3, &mut three, &listed, Until::Running),
        );
        assert!(matches!(a.step, Step::Initialize { .. }));
        assert!(matches!((&b.step, &c.step), (Step::Vote(_), Step::Vote(_))));
        assert_eq!((&a.cluster, &b.cluster), (&b.cluster, &c.cluster));
        let members = leads(&[&a, &b, &c]).await;
        let directories: Vec<_> = members.iter().map(|member| member.directory).collect();
        assert_eq!(directories, [1, 2, 3].map(|id| Uuid([id; 16])));
        for booted in [a, b, c] {
            stop(booted).await;
        }
    });
}

#[test]
fn initializer_that_stops_half_way_forms_the_same_cluster_later() {
    block_on(async {
        let Fresh { disks, listed, _dirs } = fresh().await;
        let [mut one, mut two, mut three] = <[Kept; 3]>::try_from(disks).ok().unwrap();
        let first = async {
            let half = boot(1, &mut one, &listed, Until::Formatted).await;
            let id = half.cluster.clone();
            stop(half).await;
            let whole = boot(1, &mut one, &listed, Until::Running).await;
            assert_eq!(whole.cluster, id);
            assert!(matches!(whole.step, Step::Initialize { .. }));
            whole
        };
        let (a, b, c) = tokio::join!(
            first,
            boot(2, &mut two, &listed, Until::Running),
            boot(3, &mut three, &listed, Until::Running),
        );
        assert_eq!((&a.cluster, &b.cluster), (&b.cluster, &c.cluster));
        leads(&[&a, &b, &c]).await;
        for booted in [a, b, c] {
            stop(booted).await;
        }
    });
}

/// Two of three have promised their first vote, and all stop before the first entry has reached them.
#[test]
fn founders_that_voted_and_stopped_before_their_first_entry_vote_again() {
    block_on(async {
        let Fresh { disks, listed, _dirs } = fresh().await;
        let [mut one, mut two, mut three] = <[Kept; 3]>::try_from(disks).ok().unwrap();
        let id = ClusterId("c".into());
        for (node, kept) in [(2, &mut two), (3, &mut three)] {
            kept.cluster = Some(id.clone());
            let voting = QuorumNode::start_voter(options(node, kept, 0), Arc::default(), Unreachable).await.unwrap();
            let vote = raft::Vote { term: 1, candidate: BrokerId(1), is_committed: false };
            let body = raft::VoteRequest { vote, last: None, is_transfer: false }.encode();
            let request = Frame { kind: Kind::Vote, exchange: 1, body };
            let Served::Answer(_, answer) = voting.session(BrokerId(1)).serve(request).await else {
                panic!("no answer")
            };
            assert!(raft::VoteAnswer::decode(answer).unwrap().is_granted);
            voting.stop().await;
        }
        one.cluster = Some(id.clone());
        let initializing = QuorumNode::start_voter(options(1, &one, 0), Arc::default(), Unreachable).await.unwrap();
        let founders = [&one, &two, &three].into_iter().zip(&listed);
        let founders: Vec<_> = founders
            .map(|(kept, voter)| (voter.clone(), kept.directory))
            .map(|(voter, directory)| Member { voter, directory, part: Part::Votes })
            .collect();
        initializing.initialize(&founders).await.unwrap();
        initializing.stop().await;
        let (a, b, c) = tokio::join!(
            boot(1, &mut one, &listed, Until::Running),
            boot(2, &mut two, &listed, Until::Running),
            boot(3, &mut three, &listed, Until::Running),
        );
        for booted in [&a, &b, &c] {
            assert_eq!(booted.step, Step::Vote(id.clone()));
        }
        // Once the first entry is on both, one can go: they are voters.
        leads(&[&a, &b, &c]).await;
        for booted in [&b, &c] {
            let node = booted.node.as_ref().unwrap();
            until(|| node.has_applied_term().then_some(())).await;
        }
        stop(a).await;
        leads(&[&b, &c]).await;
        for booted in [b, c] {
            stop(booted).await;
        }
    });
}

/// Nobody is reached.
#[derive(Clone)]
pub(super) struct Unreachable;

impl PeerDialer for Unreachable {
    type Link = Unreachable;

    fn link(&self, _target: Target, _purpose: Purpose) -> Unreachable {
        Unreachable
    }
}

impl PeerLink for Unreachable {
    async fn exchange(&mut self, _kind: Kind, _body: Bytes, _within: Duration) -> Result<Frame, LinkError> {
        Err(LinkError::Unreachable("nobody is".to_owned()))
    }
}

#[test]
fn voter_wiped_after_forming_joins_as_an_observer_and_forms_nothing() {
    block_on(async {
        let Fresh { disks, listed, _dirs } = fresh().await;
        let [mut one, mut two, mut three] = <[Kept; 3]>::try_from(disks).ok().unwrap();
        let (a, b, c) = tokio::join!(
            boot(1, &mut one, &listed, Until::Running),
            boot(2, &mut two, &listed, Until::Running),
            boot(3, &mut three, &listed, Until::Running),
        );
        leads(&[&a, &b, &c]).await;
        let id = a.cluster.clone();
        // The one that initialized, and would again.
        stop(a).await;
        let new = tempfile::tempdir().unwrap();
        let mut wiped = Kept { directory: Uuid([0x77; 16]), cluster: None, path: new.path().to_owned() };
        let again = boot(1, &mut wiped, &listed, Until::Running).await;
        assert_eq!((&again.step, again.node.is_none()), (&Step::Observe(id), true));
        leads(&[&b, &c]).await;
        for booted in [again, b, c] {
            stop(booted).await;
        }
    });
}

/// What finding a cluster comes to for node 1, whose voters are all reached at that of node 2; or what it says that
/// contains some words, if it says so first.
async fn finds(
    listed: &[ListedVoter],
    on_disk: OnDisk,
    secrets: [Option<&[u8]>; 2],
    answered: ProbeAnswer,
    words: &str,
) -> Result<Result<Step, BootstrapError>, String> {
    let [own, others] = secrets.map(|secret| secret.map(|secret| ClusterSecret::new(secret).unwrap()));
    let cluster_of = |answer: &ProbeAnswer| match answer {
        ProbeAnswer::Member { cluster, .. } => Some(cluster.clone()),
        ProbeAnswer::Empty { formatted, .. } => formatted.clone(),
    };
    let mut accepting = JoinSet::new();
    for voter in &listed[1..] {
        let cluster = cluster_of(&answered);
        let directory = Uuid([voter.node.0 as u8; 16]);
        let services = NodeServices::new(Identity { node: voter.node, directory, cluster, incarnation: directory });
        services.answer_probes(answered.clone());
        let listener = TcpListener::bind(("127.0.0.1", voter.port)).await.unwrap();
        accepting.spawn(serve(listener, others.clone(), services));
    }
    let bootstrap = Bootstrap::new(BrokerId(1), Uuid([1; 16]), listed.to_vec(), on_disk);
    let cluster = bootstrap.answer().and_then(|answer| cluster_of(&answer));
    let directory = Uuid([1; 16]);
    let identity = Identity { node: BrokerId(1), directory, cluster, incarnation: directory };
    let services = NodeServices::new(identity.clone());
    let dialer = TcpDialer::new(Arc::new(move || identity.clone()), own, BTreeMap::new());
    let (said, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let finding = find_cluster(bootstrap, &dialer, &services, |why| drop(said.send(why.to_owned())));
    let hearing = async {
        while let Some(why) = hears.recv().await {
            if why.contains(words) {
                return why;
            }
        }
        std::future::pending().await
    };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            found = finding => Ok(found),
            why = hearing => Err(why),
        }
    })
    .await
    .expect("it is found, or said")
}

#[test]
fn nodes_that_do_not_share_a_secret_say_so() {
    let (one, other): (&[u8], &[u8]) = (b"a secret of sixteen bytes or more", b"another secret of that many bytes");
    block_on(async {
        for (secrets, words) in [
            ([Some(one), Some(other)], "has another cluster secret"),
            ([Some(one), None], "one of the two has a cluster secret"),
        ] {
            let Fresh { listed, _dirs, .. } = fresh().await;
            let answer = ProbeAnswer::Empty { voters: listed.clone(), directory: Uuid([2; 16]), formatted: None };
            let why = finds(&listed, OnDisk::Empty, secrets, answer, words).await.unwrap_err();
            assert!(why.contains("no answer yet from node 2, 3; node 2: "), "{why}");
        }
    });
}

#[test]
fn used_node_that_reaches_the_voters_of_another_cluster_ends() {
    block_on(async {
        let Fresh { listed, _dirs, .. } = fresh().await;
        let (own, found) = (ClusterId("a".into()), ClusterId("b".into()));
        let answer = ProbeAnswer::Member { cluster: found.clone(), members: Vec::new(), leader: None };
        let ended =
            finds(&listed, OnDisk::Joined(own.clone()), [None, None], answer, "nothing of the kind").await.unwrap();
        let Err(BootstrapError::OtherCluster { own: named, found: other, .. }) = ended else { panic!("{ended:?}") };
        assert_eq!((named, other), (own, found));
    });
}
