//! Brokers come, live and go: registration, fencing, controlled shutdown (KIP-631, KIP-841, rules 4, 11 and 12).
//!
//! Liveness itself (sessions, connections) is the carrier's; only fence and unfence are facts.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId, TopicPartition};

use super::change::Planner;
use super::entry::fitting;
use super::request::{BrokerHeartbeat, RegisterBrokerRequest, ReportedDirectory, UnregisterBrokerRequest};
use super::response::{ControllerResponse, HeartbeatState, RegisteredBroker, RegisteredDirectory};
use super::rules::ConfigRules;
use super::{Decision, Inputs, Reject, after, fencing};
use crate::metadata::broker::ReplicaReport;
use crate::metadata::record::{BrokerRegistrationChange, RegisterBroker, UnregisterBroker};
use crate::metadata::{
    BrokerRegistration, DirectoryRegistration, MetadataImage, MetadataRecord, PartitionRegistration, Verdict,
};

/// Refuses a broker that is not registered, or that acts under an older registration.
pub(super) fn check_epoch(
    image: &MetadataImage,
    id: BrokerId,
    epoch: BrokerEpoch,
) -> Result<&BrokerRegistration, Reject> {
    let Some(broker) = image.broker(id) else {
        let message = format!("broker ID {id} is not currently registered");
        return Err(Reject::new(ErrorCode::StaleBrokerEpoch, message));
    };
    if broker.epoch != epoch {
        let message = format!("Expected broker epoch {epoch}, but found broker epoch {}", broker.epoch);
        return Err(Reject::new(ErrorCode::StaleBrokerEpoch, message));
    }
    Ok(broker)
}

pub(super) fn decide_register(
    image: &MetadataImage,
    request: &RegisterBrokerRequest,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    check_registration(image, request, inputs)?;
    let old = image.broker(request.id);
    let same_incarnation = old.filter(|old| old.incarnation == request.incarnation);
    let known = known_directories(image, request, inputs);
    let is_old_copy = |id: DirectoryId| known.iter().any(|directory| directory.id == id && directory.is_old_copy);
    let verdict_of = |reported: &ReportedDirectory| match is_old_copy(reported.id) {
        true => Verdict::Lost,
        false => reported.verdict,
    };
    // In an old copy whatever a replica could say of itself is old as well.
    let stands = |report: &&ReplicaReport| !report.directory.is_some_and(is_old_copy);
    let mut record = RegisterBroker {
        id: request.id,
        incarnation: request.incarnation,
        epoch: None,
        endpoints: request.endpoints.clone(),
        rack: request.rack.clone(),
        fenced: true,
        in_controlled_shutdown: false,
        directories: request
            .directories
            .iter()
            .map(|reported| DirectoryRegistration { id: reported.id, verdict: verdict_of(reported) })
            .collect(),
        differing: request.differing.iter().filter(stands).copied().collect(),
        unfenced_with: Vec::new(),
    };
    if let Some(old) = same_incarnation {
        // A retry: what it was told before holds, and so do the states it has reached since. What its directories are
        // changes by heartbeats, which settle what follows; the list it began with may be older than those.
        record.fenced = old.fenced;
        record.in_controlled_shutdown = old.in_controlled_shutdown;
        let mut directories = known;
        if !off!(RetryKeepsDirectories) {
            record.directories = old.directories.clone();
            record.differing = old.differing.to_vec();
            // That the metadata was the old copy shows no more: this registration's epoch is later than all of them.
            for (known, reported) in directories.iter_mut().zip(&request.directories) {
                let settled = old.directories.iter().find(|settled| settled.id == known.id);
                let is_lost = settled.is_some_and(|settled| settled.verdict == Verdict::Lost);
                known.is_old_copy |= is_lost && reported.verdict != Verdict::Lost;
            }
        }
        let answer = RegisteredBroker {
            epoch: old.epoch,
            is_new: false,
            may_lack_records: Vec::new(),
            offline: Vec::new(),
            directories,
        };
        let records = vec![MetadataRecord::RegisterBroker(record)];
        return Ok(Decision::new(records, ControllerResponse::RegisterBroker(answer)));
    }
    let register = MetadataRecord::RegisterBroker(record);
    let registered = after(image, inputs.next_index, std::slice::from_ref(&register));
    let mut answer = RegisteredBroker {
        epoch: BrokerEpoch(i64::try_from(inputs.next_index).expect("a log has fewer than 2^63 entries")),
        is_new: true,
        may_lack_records: Vec::new(),
        offline: Vec::new(),
        directories: known,
    };
    let changes = settle_replicas(&registered, inputs.rules, request.id, &mut answer);
    let (mut records, is_whole) = fitting(std::iter::once(register).chain(changes.iter().cloned()), 0);
    if is_whole {
        return Ok(Decision::new(records, ControllerResponse::RegisterBroker(answer)));
    }
    if changes.is_empty() {
        let message = format!("broker {} reports more replicas apart from their directories than fit", request.id);
        return Err(Reject::new(ErrorCode::InvalidRegistration, message));
    }
    // What the new incarnation lacks leaves ISR and ELR first; it is registered in the last entry. Meanwhile the one
    // before it, which is gone, is elected and joins nowhere.
    records = fitting(changes, 1).0;
    records.extend(old.filter(|old| old.is_active()).map(|old| fencing::leaving(old)));
    Ok(Decision::part(records, ControllerResponse::RegisterBroker(answer)))
}

/// Which of the directories were there for the last incarnation that was unfenced with them (rule 11).
///
/// A directory that has recorded an epoch the metadata has never given out says that the metadata log is the old copy;
/// then nothing it says of the other directories proves anything either.
fn known_directories(
    image: &MetadataImage,
    request: &RegisterBrokerRequest,
    inputs: &Inputs<'_>,
) -> Vec<RegisteredDirectory> {
    let broker = image.broker(request.id);
    let newest = broker.map_or(inputs.next_index.saturating_sub(1), |broker| broker.epoch.0.try_into().unwrap_or(0));
    let is_ahead = |epoch: BrokerEpoch| u64::try_from(epoch.0).is_ok_and(|epoch| epoch > newest);
    let metadata_is_old = request.directories.iter().any(|directory| directory.recorded.last.is_some_and(is_ahead));
    let known = request.directories.iter().map(|reported| {
        let unfenced_epoch = broker.and_then(|broker| broker.last_unfenced_with(reported.id));
        let is_old_copy = metadata_is_old || !reported.recorded.were_there_for(unfenced_epoch);
        RegisteredDirectory { id: reported.id, unfenced_epoch, is_old_copy }
    });
    known.collect()
}

fn check_registration(
    image: &MetadataImage,
    request: &RegisterBrokerRequest,
    inputs: &Inputs<'_>,
) -> Result<(), Reject> {
    if request.cluster_id != *inputs.cluster_id {
        let message = format!("Expected cluster ID {}, but got cluster ID {}", inputs.cluster_id, request.cluster_id);
        return Err(Reject::new(ErrorCode::InconsistentClusterId, message));
    }
    let old = image.broker(request.id);
    let is_retry = old.is_some_and(|old| old.incarnation == request.incarnation);
    if !is_retry && old.map(|old| old.epoch) != request.replaces && !off!(LateRegistration) {
        let message = match old {
            Some(old) => format!(
                "broker {} is registered with epoch {} by an incarnation that this one had not seen when it asked",
                old.id, old.epoch
            ),
            None => format!("broker {} is not registered any more", request.id),
        };
        return Err(Reject::new(ErrorCode::StaleBrokerEpoch, message));
    }
    if !is_retry && old.is_some_and(|old| !old.fenced) && !inputs.previous_is_gone && !off!(PreviousIsGone) {
        let message = "Another broker is registered with that broker id.";
        return Err(Reject::new(ErrorCode::DuplicateBrokerRegistration, message));
    }
    let refused = |message: String| Reject::new(ErrorCode::InvalidRegistration, message);
    for (place, directory) in request.directories.iter().enumerate() {
        if directory.id.is_zero() {
            return Err(refused("Reserved directory ID in request".to_owned()));
        }
        if request.directories[..place].iter().any(|other| other.id == directory.id) {
            return Err(refused("Duplicate directory ID in request".to_owned()));
        }
        let owner = image.brokers().find(|other| other.id != request.id && other.has_directory(directory.id));
        if let Some(owner) = owner {
            return Err(refused(format!("Broker {} is already registered with directory {}", owner.id, directory.id)));
        }
    }
    Ok(())
}

/// What a new incarnation's verdicts mean for the partitions it replicates.
///
/// `image` has the registration applied, so the partitions it led have their new epoch. Where it is the last member and
/// proved, nothing is written: a start writes nothing per partition.
fn settle_replicas(
    image: &MetadataImage,
    rules: &dyn ConfigRules,
    broker: BrokerId,
    answer: &mut RegisteredBroker,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    let mut planner = Planner::new(image, rules);
    for (topic, index, partition) in image.partitions_with_member(broker) {
        let key = TopicPartition { topic_id: topic.id, partition: index };
        let home = partition.directory_of(broker);
        let verdict = home.and_then(|id| image.broker(broker)?.verdict(key, id));
        // What its journal says, if it says something: the settings may have been changed since, and promises are kept as
        // they were given.
        let report = image.broker(broker).and_then(|registered| registered.report(key, home?));
        let was_strict = report.and_then(|report| report.was_strict).filter(|_| !off!(RecordedMode));
        let mut plan = || planner.plan(topic, index, partition).recorded(was_strict);
        let change = match verdict {
            Some(Verdict::Lost) => {
                let plan = plan().lost(broker);
                let is_promised = plan.is_promised();
                on_lost(key, partition, is_promised, broker, answer).then(|| plan.finish()).flatten()
            }
            // The only copy there is serves what it has (rule 9); otherwise it is out until it is whole.
            Some(Verdict::Damaged) if is_last(partition, broker) => None,
            Some(Verdict::Damaged) => plan().lost(broker).finish(),
            _ if keeps_its_place(image, partition, broker, verdict) => None,
            Some(Verdict::Cut) => plan().cut(broker).finish(),
            _ if partition.isr.contains(&broker) => plan().without(broker).finish(),
            _ => None,
        };
        records.extend(change.map(MetadataRecord::PartitionChange));
    }
    // What entries before this one took offline, where it took several.
    for (topic, index, partition) in image.leaderless_partitions() {
        let key = TopicPartition { topic_id: topic.id, partition: index };
        let is_empty = partition.isr.is_empty() && partition.elr.is_empty() && partition.last_known_elr == [broker];
        let verdict = || partition.directory_of(broker).and_then(|id| image.broker(broker)?.verdict(key, id));
        let is_promised = || partition.left_strict.unwrap_or_else(|| rules.is_strict(image, &topic.name));
        if is_empty && verdict() == Some(Verdict::Lost) && is_promised() {
            answer.offline.push(key);
        }
    }
    records
}

/// Whether the broker stays the whole in-sync set: nobody else is there to lead, and it has everything, or as much as
/// anybody.
fn keeps_its_place(
    image: &MetadataImage,
    partition: &PartitionRegistration,
    broker: BrokerId,
    verdict: Option<Verdict>,
) -> bool {
    let is_alone = partition.isr == [broker];
    let others_eligible = partition.elr.iter().any(|member| *member != broker && image.is_active(*member));
    match verdict {
        Some(Verdict::Proved) => is_alone && !others_eligible,
        Some(Verdict::Cut) => is_alone && partition.elr.is_empty(),
        Some(Verdict::Lost | Verdict::Damaged) | None => false,
    }
}

/// Whether nobody else is in ISR or ELR.
fn is_last(partition: &PartitionRegistration, broker: BrokerId) -> bool {
    partition.isr.iter().chain(&partition.elr).all(|member| *member == broker)
}

/// Whether a replica that may lack records leaves ISR and ELR. On a relaxed topic the last member, if it led last, goes
/// on leading, and the owner is told; on a strict one the partition is offline until somebody accepts the loss or another
/// copy returns.
fn on_lost(
    key: TopicPartition,
    partition: &PartitionRegistration,
    is_strict: bool,
    broker: BrokerId,
    answer: &mut RegisteredBroker,
) -> bool {
    let is_last = is_last(partition, broker);
    let led_last = partition.leader == Some(broker) || partition.last_known_elr == [broker];
    if is_last && !is_strict && led_last {
        answer.may_lack_records.push(key);
        return false;
    }
    if is_last && is_strict {
        answer.offline.push(key);
    }
    true
}

pub(super) fn decide_heartbeat(
    image: &MetadataImage,
    request: &BrokerHeartbeat,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let broker = check_epoch(image, request.id, request.epoch)?;
    let is_caught_up = i64::try_from(request.metadata_index).is_ok_and(|index| index >= broker.epoch.0);
    let mut state = HeartbeatState { is_caught_up, is_fenced: broker.fenced, should_shut_down: false };
    let is_news =
        |online: &&Vec<DirectoryId>| !broker.directories.iter().map(|known| known.id).eq(online.iter().copied());
    if let Some(online) = request.online_directories.as_ref().filter(is_news) {
        // First of all, and in entries of its own; what else it asks is decided on what that leaves.
        let records = fencing::change_directories(image, inputs, broker, online);
        return Ok(Decision::part(records, ControllerResponse::Heartbeat(state)));
    }
    let mut change = fencing::unchanged(broker);
    if broker.fenced {
        if request.want_shutdown {
            state.should_shut_down = true;
        } else if !request.want_fence && is_caught_up {
            change.fenced = Some(false);
            // It left and was not stopped, or was being fenced bit by bit.
            change.in_controlled_shutdown = broker.in_controlled_shutdown.then_some(false);
            state.is_fenced = false;
        }
        let records = fencing::with_effects(image, inputs, broker, change);
        return Ok(Decision::new(records, ControllerResponse::Heartbeat(state)));
    }
    if request.want_shutdown {
        decide_shutdown(image, inputs, broker, &mut change, &mut state);
    } else if request.want_fence {
        change.fenced = Some(true);
        state.is_fenced = true;
    } else if !off!(HalfFenced) {
        // It was being fenced bit by bit, and whoever did is not the controller any more, or it is heard again. If it is
        // to be fenced all the same, that is decided anew.
        change.in_controlled_shutdown = broker.in_controlled_shutdown.then_some(false);
    }
    if change.fenced == Some(true) {
        let (records, is_complete) = fencing::fence(image, inputs, broker, change);
        state.is_fenced = is_complete;
        state.should_shut_down &= is_complete;
        return Ok(Decision::new(records, ControllerResponse::Heartbeat(state)));
    }
    let records = fencing::with_effects(image, inputs, broker, change);
    Ok(Decision::new(records, ControllerResponse::Heartbeat(state)))
}

/// A broker may stop when it leads nothing that another could lead and, if it had to hand over, every active broker has
/// applied the moves. A lone broker stops as it is: nobody takes over.
fn decide_shutdown(
    image: &MetadataImage,
    inputs: &Inputs<'_>,
    broker: &BrokerRegistration,
    change: &mut BrokerRegistrationChange,
    state: &mut HeartbeatState,
) {
    let could_hand_over = |partition: &PartitionRegistration| {
        let other = |member: &BrokerId| *member != broker.id && image.is_active(*member);
        partition.leader == Some(broker.id) && partition.isr.iter().any(other)
    };
    if image.brokers().len() == 1 {
        state.should_shut_down = true;
    } else if image.partitions_with_member(broker.id).any(|(_, _, partition)| could_hand_over(partition)) {
        change.in_controlled_shutdown = (!broker.in_controlled_shutdown).then_some(true);
    } else if !broker.in_controlled_shutdown || inputs.moves_are_known {
        change.fenced = Some(true);
        state.is_fenced = true;
        state.should_shut_down = true;
    }
}

/// Partitions that are named when a broker cannot be forgotten for them.
const NAMED_MAX: usize = 5;

/// Forgets a broker: it leaves every ISR and ELR in the same entry, or in those before it. One that is alive is refused:
/// its copies, which may be the only ones, would lose their places while it is there to keep them, and it would go on
/// without a registration.
pub(super) fn decide_unregister(
    image: &MetadataImage,
    request: UnregisterBrokerRequest,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let Some(broker) = image.broker(request.id) else {
        let message = format!("Broker ID {} is not currently registered", request.id);
        return Err(Reject::new(ErrorCode::BrokerIdNotRegistered, message));
    };
    if !broker.fenced && !off!(UnregisterTheDead) {
        let message = format!(
            "Broker {} is alive: stop it first, and wait until it is fenced. Unregistering gives up what it holds",
            broker.id
        );
        return Err(Reject::new(ErrorCode::InvalidRequest, message));
    }
    if u64::try_from(broker.epoch.0).is_ok_and(|epoch| epoch >= inputs.next_index) && !off!(EpochIsGivenOut) {
        // The record would name it, and every node that applies the record must know it.
        let message = format!("Broker {} is registering: its epoch is not given out yet", broker.id);
        return Err(Reject::new(ErrorCode::RequestTimedOut, message));
    }
    if broker.is_starting() && !inputs.previous_is_gone && !off!(StartingIsAlive) {
        let message = format!("Broker {} is starting: stop it first. Unregistering gives up what it holds", broker.id);
        return Err(Reject::new(ErrorCode::RequestTimedOut, message));
    }
    refuse_hidden_loss(image, broker, inputs)?;
    let mut planner = Planner::new(image, inputs.rules);
    let changes = image
        .partitions_with_member(broker.id)
        .filter_map(|(topic, index, partition)| planner.plan(topic, index, partition).lost(broker.id).finish());
    let (mut records, is_whole) = fitting(changes.map(MetadataRecord::PartitionChange), 1);
    if !is_whole {
        return Ok(Decision::part(records, ControllerResponse::UnregisterBroker));
    }
    records.push(MetadataRecord::UnregisterBroker(UnregisterBroker { id: broker.id, epoch: broker.epoch }));
    Ok(Decision::new(records, ControllerResponse::UnregisterBroker))
}

/// Refuses to forget a broker while it is one of several members of a strict partition that nobody leads. It may be the
/// one that has everything, and without it another member would lead with what that has: a loss, which somebody has to
/// accept partition by partition. The only member may go: after it nobody leads by himself.
fn refuse_hidden_loss(image: &MetadataImage, broker: &BrokerRegistration, inputs: &Inputs<'_>) -> Result<(), Reject> {
    let members = image.partitions_with_member(broker.id);
    let waiting = members.filter(|(topic, _, partition)| {
        let has_others = partition.isr.iter().chain(&partition.elr).any(|member| *member != broker.id);
        let is_strict = || partition.left_strict == Some(true) || inputs.rules.is_strict(image, &topic.name);
        has_others && !image.is_led(partition) && is_strict()
    });
    let mut named: Vec<String> =
        waiting.take(NAMED_MAX + 1).map(|(topic, index, _)| format!("{}-{index}", topic.name)).collect();
    if named.is_empty() {
        return Ok(());
    }
    if named.len() > NAMED_MAX {
        named[NAMED_MAX] = "…".to_owned();
    }
    let message = format!(
        "Broker {} may have records that no other replica has, of partitions without a leader: {}. Bring it back, or \
         accept the loss of each first (stonelog partition accept-loss)",
        broker.id,
        named.join(", ")
    );
    Err(Reject::new(ErrorCode::PolicyViolation, message))
}
