//! The invariants that hold after every entry, whatever was asked.

use super::*;

/// What led to an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    Request(&'a ControllerRequest),
    Activation,
}

/// Members of the in-sync set that count for the min ISR.
pub(super) fn counted(partition: &PartitionRegistration) -> usize {
    partition.isr.iter().filter(|member| !partition.adding.contains(member)).count()
}

/// The invariants of one batch.
pub(super) fn check(before: &MetadataImage, after: &MetadataImage, asked: Asked<'_>, rules: &SettingsRules) {
    for broker in after.brokers() {
        let old = before.broker(broker.id);
        assert!(old.is_none_or(|old| old.epoch <= broker.epoch), "the epoch of a broker grows");
        // Incarnations are numbered in the order in which their processes began.
        assert!(old.is_none_or(|old| old.incarnation <= broker.incarnation), "{asked:?} brings back an older process");
        if let (Some(old), Asked::Request(ControllerRequest::RegisterBroker(_))) = (old, asked)
            && old.epoch == broker.epoch
        {
            assert_eq!(old.directories, broker.directories, "{asked:?} changes what the first try settled");
        }
    }
    for (topic, index, partition) in after.partitions() {
        let key = TopicPartition { topic_id: topic.id, partition: index };
        let told = || format!("{key} after {asked:?}: {:?} became {partition:?}", before.partition(key));
        let is_member = |broker: &BrokerId| partition.isr.contains(broker) || partition.elr.contains(broker);
        assert!(partition.leader.is_none_or(|leader| partition.isr.contains(&leader)), "{}", told());
        assert!(partition.isr.iter().chain(&partition.elr).all(|b| partition.replicas.contains(b)), "{}", told());
        assert!(partition.isr.iter().all(|member| !partition.elr.contains(member)), "{}", told());
        assert_eq!(partition.directories.len(), partition.replicas.len(), "{}", told());
        assert!(partition.cut.iter().all(|member| partition.elr.contains(member)), "{}", told());
        let min_isr = rules.min_insync_replicas(after, &topic.name, partition.settled_count());
        assert!(counted(partition) < min_isr || partition.elr.is_empty(), "min ISR {min_isr}: {}", told());
        // The last member stays, fenced as its registration has it, until it is unfenced.
        let is_last = partition.isr.len() == 1;
        let is_up = |member: &BrokerId| after.broker(*member).is_some_and(|broker| !broker.fenced);
        assert!(is_last || partition.isr.iter().all(is_up), "{}", told());
        assert!(partition.isr.iter().chain(&partition.elr).all(|b| after.broker(*b).is_some()), "{}", told());
        let Some(old) = before.partition(key) else { continue };
        assert!(old.leader_epoch <= partition.leader_epoch && old.partition_epoch <= partition.partition_epoch);
        assert!(old.leader_epoch == partition.leader_epoch || old.partition_epoch < partition.partition_epoch);
        check_damage(after, old, partition, key, asked);
        check_places(old, partition, min_isr, key, asked);
        check_cut(after, old, partition, key, asked);
        check_left(old, partition, asked);
        let was_member = |broker: BrokerId| old.isr.contains(&broker) || old.elr.contains(&broker);
        let is_new = partition.leader.filter(|leader| Some(*leader) != old.leader);
        if let Some(leader) = is_new
            && rules.is_strict(after, &topic.name)
            && !matches!(asked, Asked::Request(ControllerRequest::AcceptLoss(_) | ControllerRequest::AlterPartition(_)))
        {
            assert!(was_member(leader) && is_member(&leader), "an unclean election: {}", told());
        }
    }
    if let Asked::Request(ControllerRequest::Heartbeat(beat)) = asked
        && before.broker(beat.id).is_some_and(|broker| broker.fenced)
        && after.is_active(beat.id)
        && crate::controller::entry::tests::RECORDS_MAX.get() == RECORDS_PER_ENTRY_MAX
    {
        whoever_can_lead_leads(after, Some(beat.id));
    }
    assert!(after.indexes_are_true());
    let again = MetadataImage::from_records(after.index(), &after.to_records()).unwrap();
    assert!(again == *after && again.indexes_are_true(), "a snapshot is the image");
}

/// A damaged replica keeps no place while another one has one.
fn check_damage(
    after: &MetadataImage,
    old: &PartitionRegistration,
    partition: &PartitionRegistration,
    key: TopicPartition,
    asked: Asked<'_>,
) {
    let is_member = |broker: &BrokerId| partition.isr.contains(broker) || partition.elr.contains(broker);
    match asked {
        Asked::Request(ControllerRequest::AlterPartition(request)) if old != partition => {
            for wish in request.partitions.iter().filter(|wish| wish.partition == key) {
                assert!(!wish.damaged.iter().any(is_member), "{wish:?}: {old:?} became {partition:?}");
                let own = wish.isr.iter().find(|member| member.broker == request.broker).unwrap();
                let stays = partition.leader == Some(request.broker) || own.is_whole || !wish.hand_over;
                assert!(stays || !is_member(&request.broker), "{wish:?}: {old:?} became {partition:?}");
            }
        }
        Asked::Request(ControllerRequest::RegisterBroker(request)) => {
            let registered = after.broker(request.id).filter(|broker| broker.incarnation == request.incarnation);
            let home = partition.directory_of(request.id);
            let verdict = registered.and_then(|broker| broker.verdict(key, home?));
            let alone = || partition.isr.iter().chain(&partition.elr).all(|member| *member == request.id);
            let is_damaged = verdict == Some(Verdict::Damaged) && registered.is_some_and(|broker| broker.fenced);
            assert!(!is_damaged || !is_member(&request.id) || alone(), "{request:?}: {old:?} became {partition:?}");
        }
        _ => {}
    }
}

/// Nobody loses a place by what says nothing of its log, while the set that counts is below min ISR.
fn check_places(
    old: &PartitionRegistration,
    partition: &PartitionRegistration,
    min_isr: usize,
    key: TopicPartition,
    asked: Asked<'_>,
) {
    let excused: Vec<BrokerId> = match asked {
        Asked::Request(ControllerRequest::AlterPartition(request)) => {
            let wishes = request.partitions.iter().filter(|wish| wish.partition == key);
            wishes.flat_map(|wish| wish.damaged.iter().copied().chain([request.broker])).collect()
        }
        Asked::Request(ControllerRequest::FenceBroker(_) | ControllerRequest::BalanceLeaders) => Vec::new(),
        Asked::Request(ControllerRequest::AlterReassignments(_)) => Vec::new(),
        Asked::Request(ControllerRequest::Heartbeat(beat)) if beat.online_directories.is_none() => Vec::new(),
        _ => return,
    };
    let mut members = old.isr.iter().chain(&old.elr).filter(|member| !excused.contains(member));
    let keeps = |member: &BrokerId| {
        let is_same = partition.directory_of(*member) == old.directory_of(*member);
        !is_same || partition.isr.contains(member) || partition.elr.contains(member)
    };
    assert!(counted(partition) >= min_isr || members.all(keeps), "{key} after {asked:?}: {old:?} became {partition:?}");
}

/// What was strict when nobody was left to lead it is led by a member, or by whoever somebody accepts the loss for.
fn check_left(old: &PartitionRegistration, partition: &PartitionRegistration, asked: Asked<'_>) {
    assert!(partition.leader.is_none() || partition.left_strict.is_none(), "{partition:?}");
    let was_member = |leader: &BrokerId| old.isr.contains(leader) || old.elr.contains(leader);
    let was_left = old.leader.is_none() && old.left_strict == Some(true);
    if was_left && partition.leader.is_some_and(|leader| !was_member(&leader)) {
        assert!(matches!(asked, Asked::Request(ControllerRequest::AcceptLoss(_))), "{old:?} {partition:?}");
    }
}

/// A cut member leads only when none that has registered is whole or reaches further.
fn check_cut(
    after: &MetadataImage,
    old: &PartitionRegistration,
    partition: &PartitionRegistration,
    key: TopicPartition,
    asked: Asked<'_>,
) {
    let leader = partition.leader.filter(|leader| old.leader.is_none() && old.cut.contains(leader));
    let Some(leader) = leader else { return };
    if matches!(asked, Asked::Request(ControllerRequest::AcceptLoss(_) | ControllerRequest::ElectLeaders(_))) {
        return;
    }
    let end_of = |broker: BrokerId| {
        let report = after.broker(broker).and_then(|broker| broker.report(key, partition.directory_of(broker.id)?));
        report.map(|report| (report.last_epoch, report.log_end_offset))
    };
    for member in old.elr.iter().copied().filter(|member| *member != leader) {
        let Some(broker) = after.broker(member) else { continue };
        let Some(verdict) = partition.directory_of(member).and_then(|home| broker.verdict(key, home)) else { continue };
        let home = partition.directory_of(member).unwrap();
        // Its registration is under way in several entries: what it says is decided on, and not recorded yet.
        if let Asked::Request(ControllerRequest::RegisterBroker(request)) = asked
            && request.id == member
            && request.incarnation != broker.incarnation
        {
            continue;
        }
        let is_coming = broker.fenced && broker.last_unfenced_with(home) != Some(broker.epoch);
        if !is_coming || matches!(verdict, Verdict::Lost | Verdict::Damaged) {
            continue;
        }
        let is_cut = verdict == Verdict::Cut || old.cut.contains(&member);
        assert!(
            is_cut && end_of(member) <= end_of(leader),
            "{member} was better for {key} after {asked:?}: {old:?} became {partition:?}"
        );
    }
}

/// After leaders were looked for, among partitions with a replica on one broker or all: nobody who could lead is left
/// out.
pub(super) fn whoever_can_lead_leads(image: &MetadataImage, of: Option<BrokerId>) {
    for (topic, index, partition) in image.partitions() {
        if of.is_some_and(|broker| !partition.replicas.contains(&broker)) {
            continue;
        }
        let is_up = |leader: BrokerId| image.broker(leader).is_some_and(|broker| !broker.fenced);
        let can_lead = |member: &&BrokerId| {
            let home = partition.directory_of(**member);
            image.is_active(**member)
                && image.broker(**member).is_some_and(|b| home.is_some_and(|id| b.has_directory(id)))
        };
        let whole = partition.elr.iter().filter(|member| !partition.cut.contains(member));
        let able: Vec<_> = partition.isr.iter().chain(whole).filter(can_lead).collect();
        let told = || format!("{}-{index}: {able:?} can lead, {partition:?}", topic.name);
        assert!(partition.leader.is_some_and(is_up) || able.is_empty(), "{}", told());
    }
}
