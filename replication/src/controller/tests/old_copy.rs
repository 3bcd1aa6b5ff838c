//! A directory proves nothing unless it was there for the last incarnation that was unfenced with it (rule 11).

use super::*;

/// The other directory of broker 1.
const SECOND: DirectoryId = Uuid([101; 16]);

/// Broker 1 starts with these directories, each with the epochs recorded in it.
fn start(incarnation: u8, found: &[(DirectoryId, RecordedEpochs)]) -> RegisterBrokerRequest {
    let report = |(id, recorded): &(DirectoryId, RecordedEpochs)| ReportedDirectory {
        id: *id,
        verdict: Verdict::Proved,
        recorded: *recorded,
    };
    RegisterBrokerRequest {
        directories: found.iter().map(report).collect(),
        ..registration(1, incarnation, Verdict::Proved)
    }
}

/// Registers; the image, the answer, and what the broker now records in each directory.
fn register(
    image: &MetadataImage,
    request: RegisterBrokerRequest,
) -> (MetadataImage, RegisteredBroker, Vec<(DirectoryId, RecordedEpochs)>) {
    let (image, decision) = run(image, ControllerRequest::RegisterBroker(request));
    let ControllerResponse::RegisterBroker(answer) = decision.response.settled_at(image.index()) else {
        panic!("wrong answer")
    };
    let recorded = answer.directories.iter().map(|known| {
        let follows = known.unfenced_epoch.filter(|_| !known.is_old_copy);
        (known.id, RecordedEpochs { last: Some(answer.epoch), follows })
    });
    let recorded = recorded.collect();
    (image, answer, recorded)
}

/// Broker 1 with two directories, each with one strict partition of `t`; what is recorded in them.
fn two_directories() -> (MetadataImage, Vec<(DirectoryId, RecordedEpochs)>) {
    let image = MetadataImage::from_records(INDEX, &bootstrap_records(&cluster())).unwrap();
    let fresh = [directory(1), SECOND].map(|id| (id, RecordedEpochs::default()));
    let request = start(1, &fresh);
    let (image, _, recorded) = register(&image, request);
    let image = run(&unfence(&image, 1), create(vec![new_topic("t", 2, 1)])).0;
    let homes: Vec<_> = t(&image).partitions.iter().map(|partition| partition.directories[0]).collect();
    assert_eq!(homes, [directory(1), SECOND]);
    (image, recorded)
}

fn key(index: i32) -> TopicPartition {
    TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(index) }
}

fn leaders(image: &MetadataImage) -> Vec<Option<BrokerId>> {
    t(image).partitions.iter().map(|partition| partition.leader).collect()
}

const LED: Option<BrokerId> = Some(BrokerId(1));

#[test]
fn an_old_copy_of_one_directory_takes_its_strict_replicas_offline_and_is_named() {
    let (image, old) = two_directories();
    let (image, answer, newer) = register(&image, start(2, &old));
    assert_eq!((answer.offline, leaders(&image)), (vec![], vec![LED, LED]), "a normal restart");
    let image = unfence(&image, 1);

    let request = RegisterBrokerRequest {
        // What a replica says of itself is as old as its directory.
        differing: vec![ReplicaReport {
            partition: key(1),
            verdict: Verdict::Proved,
            last_epoch: LeaderEpoch(0),
            log_end_offset: Offset(9),
            directory: Some(old[1].0),
            was_strict: None,
        }],
        ..start(3, &[newer[0], old[1]])
    };
    let unfenced_epoch = newer[0].1.last;
    let (image, answer, recorded) = register(&image, request);
    assert_eq!(answer.offline, [key(1)]);
    let named = [
        RegisteredDirectory { id: directory(1), unfenced_epoch, is_old_copy: false },
        RegisteredDirectory { id: SECOND, unfenced_epoch, is_old_copy: true },
    ];
    assert_eq!(answer.directories, named);
    let image = unfence(&image, 1);
    assert_eq!(leaders(&image), [LED, None]);
    let offline = &t(&image).partitions[1];
    assert_eq!((&offline.isr, &offline.elr), (&ids(&[]), &ids(&[])));

    // From here on it is the directory of this incarnation; what it lost stays lost.
    let (image, answer, _) = register(&image, start(4, &recorded));
    assert!(answer.directories.iter().all(|known| !known.is_old_copy));
    assert_eq!(leaders(&unfence(&image, 1)), [LED, None]);
}

#[test]
fn a_crash_between_recording_and_unfencing_loses_nothing() {
    let (image, recorded) = two_directories();
    let (image, _, both) = register(&image, start(2, &recorded));
    // Once more, and once only the first directory had it recorded.
    let (image, answer, again) = register(&image, start(3, &[both[0], recorded[1]]));
    assert!(answer.directories.iter().all(|known| !known.is_old_copy), "{answer:?}");
    let (image, answer, _) = register(&image, start(4, &again));
    assert!(answer.directories.iter().all(|known| !known.is_old_copy), "{answer:?}");
    assert_eq!((answer.offline, leaders(&unfence(&image, 1))), (vec![], vec![LED, LED]));
}

#[test]
fn an_old_copy_stays_one_while_its_starts_are_not_unfenced() {
    let (image, old) = two_directories();
    let (image, _, newer) = register(&image, start(2, &old));
    let image = unfence(&image, 1);
    let (image, _, recorded) = register(&image, start(3, &[newer[0], old[1]]));
    // It has recorded the newest registration, which was never unfenced.
    let (_, answer, _) = register(&image, start(4, &recorded));
    let old_copies: Vec<_> = answer.directories.iter().map(|known| known.is_old_copy).collect();
    assert_eq!(old_copies, [false, true]);
}

#[test]
fn a_directory_that_was_away_returns_proved_and_an_older_copy_of_it_does_not() {
    let (image, first) = two_directories();
    let (image, _, second) = register(&image, start(2, &first));
    let image = unfence(&image, 1);
    let (image, answer, third) = register(&image, start(3, &second[..1]));
    assert_eq!((answer.offline, answer.directories.len()), (vec![], 1));
    let image = unfence(&image, 1);
    assert_eq!(leaders(&image), [LED, None], "absent, not lost");
    assert_eq!(t(&image).partitions[1].elr, ids(&[1]));

    let (back, answer, _) = register(&image, start(4, &[third[0], second[1]]));
    assert!(!answer.directories[1].is_old_copy);
    assert_eq!(leaders(&unfence(&back, 1)), [LED, LED]);
    let (back, answer, _) = register(&image, start(4, &[third[0], first[1]]));
    assert!(answer.directories[1].is_old_copy);
    assert_eq!(leaders(&unfence(&back, 1)), [LED, None]);
}

#[test]
fn a_directory_ahead_of_the_metadata_says_that_the_metadata_is_the_old_copy() {
    let (image, old) = two_directories();
    let (later, _, newer) = register(&image, start(2, &old));
    let (_, _, newest) = register(&unfence(&later, 1), start(3, &newer));
    // The other history has gone further than this one has got to by the first try, and less far than by the second.
    let ids = AllocateProducerIds { broker: BrokerId(1), broker_epoch: image.broker(BrokerId(1)).unwrap().epoch };
    let image = (0..4).fold(image, |image, _| run(&image, ControllerRequest::AllocateProducerIds(ids)).0);
    let request = start(4, &[old[0], newest[1]]);
    let (image, answer, _) = register(&image, request.clone());
    assert_eq!(answer.offline, [key(0), key(1)]);
    assert!(answer.directories.iter().all(|known| known.is_old_copy));
    assert!(newest[1].1.last < Some(answer.epoch));
    assert_eq!(
        register(&image, request).1.directories,
        answer.directories,
        "told once more, should the answer be lost"
    );
}

#[test]
fn what_directories_were_unfenced_with_is_in_a_snapshot_and_goes_with_their_replicas() {
    let (image, recorded) = two_directories();
    let (image, ..) = register(&image, start(2, &recorded));
    let again = MetadataImage::from_records(image.index(), &image.to_records()).unwrap();
    assert_eq!(again, image);
    let broker = again.broker(BrokerId(1)).unwrap();
    assert_eq!(broker.last_unfenced_with(SECOND), recorded[1].1.last);

    let (image, _, _) = register(&image, start(3, &recorded[..1]));
    assert!(image.broker(BrokerId(1)).unwrap().last_unfenced_with(SECOND).is_some(), "a replica waits for it");
    let delete = DeleteTopics { topics: vec![TopicReference::Name("t".to_owned())] };
    let image = run(&image, ControllerRequest::DeleteTopics(delete)).0;
    let (image, _, _) = register(&image, start(4, &recorded[..1]));
    assert_eq!(image.broker(BrokerId(1)).unwrap().last_unfenced_with(SECOND), None);
}
