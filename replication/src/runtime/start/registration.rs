//! Registration: what recovery proved goes to the controller, and the epoch it answers into every online directory.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, TopicPartition, Uuid};
use stonelog_storage::Fault;
use stonelog_storage::recovery::Verdict as Recovered;
use tokio::time::Instant;

use super::directories::{OpenDirectory, RecoveredDirectory};
use super::{StartError, StartOptions};
use crate::controller::{
    ControllerError, ControllerRequest, ControllerResponse, MetadataHandle, RegisterBrokerRequest, RegisteredBroker,
    RegisteredDirectory, ReportedDirectory,
};
use crate::metadata::broker::ReplicaReport;
use crate::metadata::{MetadataImage, Verdict};
use crate::quorum::saying::Saying;
use crate::runtime::directory::AbsentDirectory;
use crate::settings::cluster_keys::{Overruled, overruled};

/// How long a starting broker that the controller refuses for now goes on asking (Kafka's default of
/// `initial.broker.registration.timeout.ms`).
const REFUSED_WITHIN: Duration = Duration::from_secs(60);
/// Before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Leaves out the directories that the metadata know to be old copies, before they are registered: a replica that was
/// registered as lost would stay so when the newest copy is put back. Only what this node's metadata are newer than is
/// known here; the controller judges the rest. The directory that holds the metadata cannot be left out, and one that
/// somebody has reopened is wanted as it is.
pub(super) fn leave_out_old_copies(
    node_id: BrokerId,
    image: &MetadataImage,
    recovered: Vec<RecoveredDirectory>,
    absent: &mut Vec<AbsentDirectory>,
) -> Vec<RecoveredDirectory> {
    let broker = image.broker(node_id);
    let newest_of = |open: &OpenDirectory| broker.and_then(|broker| broker.last_unfenced_with(open.meta.directory_id));
    let is_kept = |directory: &RecoveredDirectory| {
        let open = &directory.open;
        // Epochs rise, and a directory that was there for the newest has recorded it or a later one.
        let is_older = open.meta.recorded_epochs().last < newest_of(open);
        open.holds_metadata || open.was_reopened || !is_older
    };
    let (kept, old): (Vec<_>, Vec<_>) = recovered.into_iter().partition(is_kept);
    for RecoveredDirectory { open, .. } in old {
        let path = open.log_dir.path();
        let reason = format!(
            "it is an old copy: the last broker epoch it recorded is {}, and the last one in use with it is {}, so it \
             lacks what was acknowledged since; put the newest copy back, or, if there is none, give up what is missing: \
             stop the broker, run `stonelog storage reopen {}`, and start again",
            text(open.meta.broker_epoch),
            text(newest_of(&open)),
            path.display()
        );
        tracing::error!("log directory {} is left out: {reason}", path.display());
        absent.push(AbsentDirectory { path: path.to_owned(), id: Some(open.meta.directory_id), reason });
    }
    kept
}

fn text(epoch: Option<BrokerEpoch>) -> String {
    epoch.map_or("none".to_owned(), |epoch| epoch.to_string())
}

/// Returns when this node has applied everything that was committed before it asked.
///
/// A registration is made from the image: which registration it replaces, in which directory a replica belongs, where
/// several replicas are. One made from an old image would leave out what decides an election (rule 11). What is committed
/// between this and the registration changes none of that: this broker is fenced, or what it says is refused for the
/// incarnation it does not name, so it joins no in-sync set, and its replicas change their directory at its own wish
/// only. A partition that it gets meanwhile, or that gets its second replica, holds nothing acknowledged that it lacks.
pub(super) async fn catch_up(metadata: &MetadataHandle) -> Result<(), StartError> {
    until_answered(metadata, || ControllerRequest::ReadBarrier).await?;
    Ok(())
}

/// Registers this incarnation with what recovery proved, directory by directory.
pub(super) async fn register(
    options: &StartOptions,
    cluster_id: &ClusterId,
    metadata: &MetadataHandle,
    recovered: &[RecoveredDirectory],
) -> Result<RegisteredBroker, StartError> {
    name_overruled(options, &metadata.image());
    let request = || ControllerRequest::RegisterBroker(request(options, cluster_id, &metadata.image(), recovered));
    match until_answered(metadata, request).await? {
        ControllerResponse::RegisterBroker(registered) => Ok(registered),
        _ => unreachable!("the answer's variant is the request's"),
    }
}

/// Asks until the controller has decided. In a cluster there may be none for any time, and this node may be the voter that
/// others need for one: that never ends a start. What a controller refuses for now, because the incarnation before this one
/// may not be known to be gone, does when it lasts.
pub(super) async fn until_answered(
    metadata: &MetadataHandle,
    request: impl Fn() -> ControllerRequest,
) -> Result<ControllerResponse, ControllerError> {
    let (began, mut saying) = (Instant::now(), Saying::default());
    let mut refused_since = None;
    loop {
        let request = request();
        let error = match metadata.submit(request.clone()).await {
            Err(error) if is_passing(&request, &error) => error,
            answer => return answer,
        };
        let reason = if let ControllerError::Rejected(_) = error {
            let since = *refused_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= REFUSED_WITHIN {
                return Err(error);
            }
            format!("the controller does not take this broker yet: {error}")
        } else {
            refused_since = None;
            format!("waiting for an active controller to take this broker: {error}")
        };
        if saying.is_due(began.elapsed(), &reason) {
            tracing::warn!("{reason}");
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn is_passing(request: &ControllerRequest, error: &ControllerError) -> bool {
    match error {
        ControllerError::Rejected(reject) => match reject.code {
            ErrorCode::DuplicateBrokerRegistration => true,
            // It was asked with an older image than the controller's.
            ErrorCode::StaleBrokerEpoch => matches!(request, ControllerRequest::RegisterBroker(_)),
            _ => false,
        },
        ControllerError::NotController(_) | ControllerError::Unknown => true,
        ControllerError::Stopped => false,
    }
}

fn request(
    options: &StartOptions,
    cluster_id: &ClusterId,
    image: &MetadataImage,
    recovered: &[RecoveredDirectory],
) -> RegisterBrokerRequest {
    let mut registrations = Vec::new();
    let mut differing = Vec::new();
    for directory in recovered {
        let verdict = match &directory.recovered.journal_end {
            // Damage that names its ranges is the named replicas' own.
            end if end.hurts_everyone() => Verdict::Lost,
            end if end.torn_tail.is_some() => Verdict::Cut,
            _ => Verdict::Proved,
        };
        let recorded = directory.open.meta.recorded_epochs();
        registrations.push(ReportedDirectory { id: directory.open.meta.directory_id, verdict, recorded });
        let reports = reports(options.node_id, image, directory);
        let me = options.node_id;
        differing.extend(reports.filter(|report| tells(report, verdict, me, image)));
    }
    RegisterBrokerRequest {
        id: options.node_id,
        cluster_id: cluster_id.clone(),
        incarnation: Uuid::from_random(options.random.incarnation),
        endpoints: options.endpoints.clone(),
        rack: options.rack.clone(),
        directories: registrations,
        differing,
        replaces: image.broker(options.node_id).map(|registered| registered.epoch),
    }
}

/// Whether a replica's report goes with its directory's. Where a cut replica ends decides only where another member could
/// lead instead; what this node does not know may have others. A replica that an earlier start cut, and that has not been
/// in sync since, tells it again however this start finds it: it is still one of those that are compared (rule 11). A lost
/// one always tells in which mode it was written: which one its topic has when the registration is decided, nobody here
/// knows.
fn tells(report: &ReplicaReport, of_directory: Verdict, me: BrokerId, image: &MetadataImage) -> bool {
    let is_cut = image.partition(report.partition).is_some_and(|partition| partition.cut.contains(&me));
    if is_cut && !off!(CutMembersTell) {
        return true;
    }
    match report.verdict {
        Verdict::Lost if !off!(LostTellsMode) => true,
        Verdict::Cut if of_directory == Verdict::Cut => {
            image.partition(report.partition).is_none_or(|partition| partition.replicas.len() > 1)
        }
        of_replica => of_replica != of_directory,
    }
}

/// Says which lines of this broker's own configuration have no effect, for the whole cluster has agreed on others.
fn name_overruled(options: &StartOptions, image: &MetadataImage) {
    for Overruled { key, own, recorded } in overruled(&options.node.broker_defaults, image) {
        tracing::warn!(
            "{key}={own} in this broker's configuration has no effect: the key holds for all brokers, and the cluster has \
             {} for it; set it in the controllers' configuration, or for all brokers while they run",
            recorded.as_deref().unwrap_or("no value")
        );
    }
}

/// Makes this incarnation's epoch durable in a directory, which comes before unfencing (rule 11).
pub(super) fn record_epoch(open: &OpenDirectory, epoch: BrokerEpoch, known: &RegisteredDirectory) -> Result<(), Fault> {
    assert_eq!(known.id, open.meta.directory_id, "directories are answered in the order they were reported");
    if known.is_old_copy {
        tracing::error!(
            "log directory {} is an old copy, or the metadata log is: it last recorded broker epoch {}, and the last \
             one in use with it is {}; its replicas may lack acknowledged records",
            open.log_dir.path().display(),
            text(open.meta.broker_epoch),
            text(known.unfenced_epoch),
        );
    }
    // An old copy follows nothing: until it is unfenced it stays one.
    let follows = known.unfenced_epoch.filter(|_| !known.is_old_copy);
    open.log_dir.record_broker_epoch(epoch, follows)
}

/// What recovery says of each replica of a directory, those left out that the metadata has in another one.
fn reports<'a>(
    node_id: BrokerId,
    image: &'a MetadataImage,
    directory: &'a RecoveredDirectory,
) -> impl Iterator<Item = ReplicaReport> + 'a {
    let id = directory.open.meta.directory_id;
    let is_elsewhere = move |partition: TopicPartition| {
        let home = image.partition(partition).and_then(|registration| registration.directory_of(node_id));
        home.is_some_and(|home| home != id)
    };
    directory.recovered.logs.iter().filter(move |found| !is_elsewhere(found.log.key().partition)).map(move |found| {
        let partition = found.log.key().partition;
        ReplicaReport {
            partition,
            verdict: match found.verdict {
                Recovered::Proved => Verdict::Proved,
                Recovered::Cut => Verdict::Cut,
                Recovered::Damaged => Verdict::Damaged,
                Recovered::Lost(loss) => {
                    tracing::warn!(%partition, "replica may lack records: {loss:?}");
                    Verdict::Lost
                }
            },
            last_epoch: found.log.latest_epoch().unwrap_or(stonelog_protocol::LeaderEpoch::NONE),
            log_end_offset: found.log.log_end(),
            directory: Some(id),
            was_strict: Some(found.log.is_strict()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::record::{PartitionRecord, TopicRecord};
    use crate::metadata::{MetadataRecord, PartitionRegistration, RecoveryState};
    use stonelog_protocol::{LeaderEpoch, Offset, PartitionEpoch, PartitionIndex};

    const KNOWN: Uuid = Uuid([1; 16]);

    /// One topic, each partition with one replica more than the one before.
    fn image() -> MetadataImage {
        let topic = MetadataRecord::Topic(TopicRecord { id: KNOWN, name: "t".into() });
        let partition = |index: i32| {
            let replicas: Vec<BrokerId> = (1..=index + 1).map(BrokerId).collect();
            let registration = PartitionRegistration {
                directories: replicas.iter().map(|_| Uuid([9; 16])).collect(),
                isr: replicas.clone(),
                elr: Vec::new(),
                last_known_elr: Vec::new(),
                adding: Vec::new(),
                removing: Vec::new(),
                leader: Some(BrokerId(1)),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: PartitionEpoch(0),
                recovering: RecoveryState::Recovered,
                cut: Vec::new(),
                left_strict: None,
                replicas,
            };
            let index = PartitionIndex(index);
            MetadataRecord::Partition(PartitionRecord { topic_id: KNOWN, index, registration })
        };
        MetadataImage::from_records(5, &[topic, partition(0), partition(1)]).unwrap()
    }

    fn cut(topic_id: Uuid, partition: i32) -> ReplicaReport {
        ReplicaReport {
            partition: TopicPartition { topic_id, partition: PartitionIndex(partition) },
            verdict: Verdict::Cut,
            last_epoch: LeaderEpoch(3),
            log_end_offset: Offset(100),
            directory: Some(Uuid([9; 16])),
            was_strict: Some(true),
        }
    }

    #[test]
    fn end_of_a_cut_replica_is_told_unless_it_is_known_to_be_the_only_one() {
        let image = image();
        let tells = |report: &ReplicaReport, of_directory| tells(report, of_directory, BrokerId(1), &image);
        assert!(!tells(&cut(KNOWN, 0), Verdict::Cut));
        assert!(tells(&cut(KNOWN, 1), Verdict::Cut));
        let unknown = Uuid([2; 16]);
        assert!(tells(&cut(unknown, 0), Verdict::Cut), "the image may be older than the topic");
        assert!(tells(&cut(KNOWN, 0), Verdict::Proved));
    }

    #[test]
    fn a_member_that_was_cut_says_where_it_ends_however_often_it_starts() {
        let mut records = image().to_records();
        for record in &mut records {
            if let MetadataRecord::Partition(PartitionRecord { registration, .. }) = record {
                let all = std::mem::take(&mut registration.isr);
                (registration.elr, registration.cut, registration.leader) = (all, vec![BrokerId(1)], None);
            }
        }
        let image = MetadataImage::from_records(6, &records).unwrap();
        let whole = ReplicaReport { verdict: Verdict::Proved, ..cut(KNOWN, 1) };
        assert!(tells(&whole, Verdict::Proved, BrokerId(1), &image), "it is still compared");
        assert!(!tells(&whole, Verdict::Proved, BrokerId(2), &image));
    }

    #[test]
    fn mode_of_a_lost_replica_is_told_whatever_its_topic_has_here() {
        let lost = ReplicaReport { verdict: Verdict::Lost, ..cut(KNOWN, 0) };
        for of_directory in [Verdict::Lost, Verdict::Proved, Verdict::Cut] {
            assert!(tells(&lost, of_directory, BrokerId(1), &image()), "its owner may be relaxing it right now");
        }
    }
}
