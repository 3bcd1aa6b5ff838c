//! The active controller on a real quorum of one: order, restarts, limits.

use std::path::Path;

use stonelog_protocol::ProducerId;
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log_dir::RecordedEpochs;

use super::*;
use crate::controller::{
    AllocateProducerIds, BrokerHeartbeat, CreateTopics, DeleteTopics, FenceBroker, NewTopic, RegisterBrokerRequest,
    ReportedDirectory, SettingsRules, TopicReference, UnregisterBrokerRequest,
};
use crate::metadata::{MetadataDelta, Verdict};
use stonelog_protocol::{BrokerEpoch, LeaderEpoch, Uuid};

const DIRECTORY: DirectoryId = Uuid([7; 16]);
const NODE: BrokerId = BrokerId(1);

fn cluster() -> ClusterId {
    ClusterId("test-cluster".into())
}

fn rules() -> Arc<dyn ConfigRules> {
    Arc::new(SettingsRules { static_broker: Default::default(), broker_key: |_| None, group_key: |_| None })
}

fn options(dir: &Path) -> MetadataOptions {
    MetadataOptions::new(Arc::new(RealDisk), dir.join("metadata"), NODE, cluster(), DIRECTORY, rules())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn register(handle: &MetadataHandle, incarnation: u8) -> ControllerRequest {
    registration(handle.image().broker(NODE).map(|broker| broker.epoch), incarnation)
}

fn registration(replaces: Option<BrokerEpoch>, incarnation: u8) -> ControllerRequest {
    let recorded = RecordedEpochs { last: replaces, follows: None };
    ControllerRequest::RegisterBroker(RegisterBrokerRequest {
        id: NODE,
        cluster_id: cluster(),
        incarnation: Uuid([incarnation; 16]),
        endpoints: Vec::new(),
        rack: None,
        directories: vec![ReportedDirectory { id: DIRECTORY, verdict: Verdict::Proved, recorded }],
        differing: Vec::new(),
        replaces,
    })
}

/// Registers and unfences the one broker; its epoch.
async fn bring_up(handle: &MetadataHandle, incarnation: u8) -> BrokerEpoch {
    let answer = handle.submit(register(handle, incarnation)).await.unwrap();
    let ControllerResponse::RegisterBroker(registered) = answer else { panic!("{answer:?}") };
    let metadata_index = handle.image().index();
    let heartbeat = BrokerHeartbeat {
        id: NODE,
        epoch: registered.epoch,
        metadata_index,
        want_fence: false,
        want_shutdown: false,
        online_directories: None,
    };
    handle.submit(ControllerRequest::Heartbeat(heartbeat)).await.unwrap();
    assert!(handle.image().is_active(NODE));
    registered.epoch
}

fn create(name: &str, partitions: i32) -> ControllerRequest {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: vec![("retention.ms".to_owned(), Some("1000".to_owned()))],
    };
    ControllerRequest::CreateTopics(CreateTopics { topics: vec![topic], validate_only: false })
}

#[test]
fn new_cluster_begins_with_its_id_and_this_controller() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    let image = handle.image();
    assert_eq!(image.cluster_id(), Some(&cluster()));
    assert_eq!(image.controller(), Some(NODE));
    handle.shut_down();
}

#[test]
fn restart_keeps_everything_and_starts_a_new_leader_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    let (first, before) = block_on(async {
        let first = bring_up(&handle, 1).await;
        handle.submit(create("orders", 3)).await.unwrap();
        (first, handle.image())
    });
    handle.shut_down();

    let handle = start(options(dir.path())).unwrap();
    assert_eq!(*handle.image(), *before);
    block_on(async {
        let second = bring_up(&handle, 2).await;
        assert!(second > first);
        let image = handle.image();
        let topic = image.topic_by_name("orders").unwrap();
        assert_eq!(topic.partitions.len(), 3);
        for partition in &topic.partitions {
            assert_eq!((partition.leader, partition.leader_epoch), (Some(NODE), LeaderEpoch(1)));
            assert_eq!(partition.isr, [NODE]);
        }
    });
    handle.shut_down();
}

#[test]
fn a_lone_nodes_configuration_takes_effect_at_its_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let started_with = |own: &[(&str, &str)]| {
        let static_broker = own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let rules = Arc::new(SettingsRules { static_broker, broker_key: |_| None, group_key: |_| None });
        start(MetadataOptions { rules, ..options(dir.path()) }).unwrap()
    };
    for own in [&[("min.insync.replicas", "2")][..], &[("log.flush.interval.messages", "5")], &[]] {
        let handle = started_with(own);
        let recorded = handle.image().recorded_config().clone();
        let recorded: Vec<_> = recorded.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(recorded, own);
        handle.shut_down();
    }
}

#[test]
fn snapshot_and_purge_then_restart_gives_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    let before = block_on(async {
        bring_up(&handle, 1).await;
        handle.submit(create("orders", 3)).await.unwrap();
        handle.submit(create("payments", 2)).await.unwrap();
        handle.image()
    });
    handle.shut_down();
    block_on(async {
        let publisher = Arc::new(Publisher::default());
        let node = QuorumNode::start_alone(quorum_options(dir.path()), publisher.clone()).await.unwrap();
        node.compact().await.unwrap();
        node.stop().await;
        assert_eq!(*publisher.image(), *before);
    });
    let handle = start(options(dir.path())).unwrap();
    assert_eq!(*handle.image(), *before);
    handle.shut_down();
}

fn quorum_options(dir: &Path) -> QuorumOptions {
    QuorumOptions {
        disk: Arc::new(RealDisk),
        directory: dir.join("metadata"),
        node_id: NODE,
        voter: Voter { directory: DIRECTORY.0, host: String::new(), port: 0 },
        request_within: REQUEST_WITHIN_DEFAULT,
    }
}

#[test]
fn subscriber_sees_every_image_from_a_whole_one_on() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    block_on(async {
        bring_up(&handle, 1).await;
        handle.submit(create("a", 1)).await.unwrap();
        let mut images = handle.subscribe();
        let answer = handle.submit(create("b", 1)).await.unwrap();
        assert!(matches!(answer, ControllerResponse::CreateTopics(results) if results[0].result.is_ok()));
        let first = images.try_recv().unwrap();
        assert_eq!(*first.delta, MetadataDelta::between(&MetadataImage::empty(), &first.image));
        assert!(first.image.topic_by_name("a").is_some());
        let second = images.try_recv().unwrap();
        let created: Vec<_> = second.delta.topics_created.iter().map(|topic| &*topic.name).collect();
        assert_eq!((created, second.delta.from_index), (vec!["b"], first.image.index()));
        assert!(images.try_recv().is_err());
    });
    handle.shut_down();
}

#[test]
fn requests_decided_together_see_each_other_and_are_answered_after_their_entry() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    block_on(async {
        bring_up(&handle, 1).await;
        // All are queued before the controller's thread gets to decide the second.
        let answers = futures_util::future::join_all((0..50).map(|_| handle.submit(create("same", 1)))).await;
        let made = answers
            .into_iter()
            .filter(|answer| {
                let Ok(ControllerResponse::CreateTopics(results)) = answer else { panic!("{answer:?}") };
                match &results[0].result {
                    Ok(_) => true,
                    Err(reject) => {
                        assert_eq!(reject.code, ErrorCode::TopicAlreadyExists);
                        false
                    }
                }
            })
            .count();
        assert_eq!(made, 1);
    });
    handle.shut_down();
}

#[test]
fn broker_is_not_unfenced_by_the_entry_that_fences_it() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    let epoch = block_on(bring_up(&handle, 1));
    handle.shut_down();
    block_on(async {
        let mut active = start_alone(options(dir.path()), Arc::new(Publisher::default())).await.unwrap();
        let submission = |request| {
            let (answer, answered) = oneshot::channel();
            (Submission::new(request, answer), answered)
        };
        let (fence, mut fenced) = submission(ControllerRequest::FenceBroker(FenceBroker { id: NODE, epoch }));
        let (beat, _beaten) = submission(ControllerRequest::Heartbeat(BrokerHeartbeat {
            id: NODE,
            epoch,
            metadata_index: u64::MAX >> 1,
            want_fence: false,
            want_shutdown: false,
            online_directories: None,
        }));
        let (mut own, (_sender, mut queue)) = (VecDeque::from([beat]), mpsc::channel(1));
        let mut waiting = Waiting { own: &mut own, queue: &mut queue, admit: &mut Some };
        let left = active.serve(fence, &mut waiting, |_, _| SoftFacts::ALONE).await.unwrap();
        assert_eq!(fenced.try_recv(), Ok(Ok(ControllerResponse::FenceBroker { is_fenced: true })));
        assert!(!active.publisher.image().is_active(NODE), "everybody sees it");
        assert!(active.serve(left, &mut waiting, |_, _| SoftFacts::ALONE).await.is_none());
        assert!(active.publisher.image().is_active(NODE));
        active.node.stop().await;
    });
}

/// Started once more, so that the first entry of the new term lies between what was applied and what is written next: the
/// answers to a new incarnation's registration and to what was asked right behind it, and the metadata then.
async fn registering_behind_a_terms_first_entry(
    dir: &Path,
    behind: impl FnOnce(&ControllerRequest) -> ControllerRequest,
) -> (Vec<Result<ControllerResponse, ControllerError>>, Arc<MetadataImage>) {
    let mut active = start_alone(options(dir), Arc::new(Publisher::default())).await.unwrap();
    let replaces = active.publisher.image().broker(NODE).map(|broker| broker.epoch);
    let first = registration(replaces, 2);
    let second = behind(&first);
    let (answer, registered) = oneshot::channel();
    let (other, answered) = oneshot::channel();
    let (mut own, (_sender, mut queue)) = (VecDeque::from([Submission::new(second, other)]), mpsc::channel(1));
    let before = active.publisher.image().index();
    let mut next = Some(Submission::new(first, answer));
    while let Some(first) = next {
        let mut waiting = Waiting { own: &mut own, queue: &mut queue, admit: &mut Some };
        next = active.serve(first, &mut waiting, |_, _| SoftFacts::ALONE).await;
        next = next.or_else(|| own.pop_front());
    }
    let answers = vec![registered.await.unwrap(), answered.await.unwrap()];
    let image = active.publisher.image();
    assert!(image.index() > before + 1, "no entry lay between");
    active.node.stop().await;
    (answers, image)
}

#[test]
fn broker_that_is_forgotten_right_behind_its_registration_is_forgotten_by_the_epoch_it_got() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    block_on(bring_up(&handle, 1));
    handle.shut_down();
    block_on(async {
        let forget = |_: &_| ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: NODE });
        let (answers, image) = registering_behind_a_terms_first_entry(dir.path(), forget).await;
        assert_eq!(answers[1], Ok(ControllerResponse::UnregisterBroker));
        assert!(image.broker(NODE).is_none());
    });
    start(options(dir.path())).unwrap().shut_down();
}

#[test]
fn registration_that_comes_twice_at_once_is_answered_with_the_epoch_it_got() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    block_on(bring_up(&handle, 1));
    handle.shut_down();
    block_on(async {
        let (answers, image) = registering_behind_a_terms_first_entry(dir.path(), Clone::clone).await;
        let epochs: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer {
                Ok(ControllerResponse::RegisterBroker(registered)) => registered.epoch,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(epochs, [image.broker(NODE).unwrap().epoch; 2]);
    });
}

#[test]
fn producer_id_blocks_never_overlap_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut firsts = Vec::new();
    for incarnation in 1..=2 {
        let handle = start(options(dir.path())).unwrap();
        block_on(async {
            let broker_epoch = bring_up(&handle, incarnation).await;
            for _ in 0..2 {
                let request = AllocateProducerIds { broker: NODE, broker_epoch };
                let answer = handle.submit(ControllerRequest::AllocateProducerIds(request)).await.unwrap();
                let ControllerResponse::AllocateProducerIds(block) = answer else { panic!("{answer:?}") };
                firsts.push((block.first, block.len));
            }
        });
        handle.shut_down();
    }
    assert_eq!(firsts, [0, 1000, 2000, 3000].map(|first| (ProducerId(first), 1000)));
}

#[test]
fn topic_of_ten_thousand_partitions_is_created_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    block_on(async {
        bring_up(&handle, 1).await;
        let answer = handle.submit(create("wide", 10_000)).await.unwrap();
        let ControllerResponse::CreateTopics(results) = answer else { panic!("{answer:?}") };
        assert_eq!(results[0].result.as_ref().unwrap().partitions, 10_000);
        assert_eq!(handle.image().topic_by_name("wide").unwrap().partitions.len(), 10_000);
        let reject = handle.submit(create("wider", 10_001)).await.unwrap_err();
        assert_eq!(reject.code(), ErrorCode::PolicyViolation);
    });
    handle.shut_down();
    let handle = start(options(dir.path())).unwrap();
    block_on(async {
        let topics = vec![TopicReference::Name("wide".to_owned())];
        handle.submit(ControllerRequest::DeleteTopics(DeleteTopics { topics })).await.unwrap();
        assert_eq!(handle.image().topics().len(), 0);
    });
    handle.shut_down();
}

#[test]
fn log_of_another_cluster_or_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    start(options(dir.path())).unwrap().shut_down();
    let other_cluster = MetadataOptions { cluster_id: ClusterId("other".into()), ..options(dir.path()) };
    assert!(matches!(start(other_cluster), Err(StartError::OtherCluster { .. })));
    let other_directory = MetadataOptions { directory_id: Uuid([9; 16]), ..options(dir.path()) };
    assert!(matches!(start(other_directory), Err(StartError::OtherOwner { .. })));
    let other_node = MetadataOptions { node_id: BrokerId(2), ..options(dir.path()) };
    let refused = start(other_node).err();
    assert!(matches!(refused, Some(StartError::OtherVoters { .. })), "{refused:?}");
}

#[test]
fn submit_after_shut_down_says_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(options(dir.path())).unwrap();
    handle.clone().shut_down();
    let answer = block_on(handle.submit(create("late", 1)));
    assert_eq!(answer, Err(ControllerError::Stopped));
}
