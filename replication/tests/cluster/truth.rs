//! What must be so in truth after every event, whatever the nodes believe: each member of the committed in-sync set has
//! everything committed, as durably as the topic promises. A late or false report, a member that joined too soon and a
//! position of the wrong kind show here at once, not only when that member happens to lead.

use stonelog_protocol::{BrokerId, TopicPartition};
use stonelog_replication::metadata::PartitionRegistration;

use super::metadata_log::MetadataLog;
use super::node::{Node, Role};
use super::oracle::Oracle;

/// ReplicationQuorumSuperset: a leader of the present epoch counts on everybody that is in sync.
pub fn check_superset(node: &Node, log: &MetadataLog) {
    let Some(up) = &node.up else { return };
    for (id, part) in &up.parts {
        let Role::Leader(leader) = &part.role else { continue };
        let Some(truth) = log.newest().partition(*id) else { continue };
        if truth.leader_epoch == leader.leadership().leader_epoch {
            let counted = leader.maximal_isr();
            let lacks = truth.isr.iter().find(|member| !counted.contains(member));
            assert_eq!(lacks, None, "ReplicationQuorumSuperset: {} leads {id} and counts {counted:?} only", node.id);
        }
    }
}

/// Every member of a committed in-sync set has what was committed; with `only`, this one has.
pub fn check_members(nodes: &[Node], log: &MetadataLog, oracle: &Oracle, only: Option<BrokerId>) {
    for (topic, index, registration) in log.newest().partitions() {
        let id = TopicPartition { topic_id: topic.id, partition: index };
        let promised = oracle.promised(id);
        if promised.written == 0 {
            continue;
        }
        let is_strict = log.is_strict(topic.id);
        for member in registration.isr.iter().filter(|member| only.is_none_or(|only| only == **member)) {
            let Some((written, durable)) = positions(nodes, log, *member, (id, registration)) else { continue };
            assert!(
                written >= promised.written,
                "member {member} of {id} has {written} of {} that were committed: {registration:?}",
                promised.written
            );
            assert!(
                !is_strict || durable >= promised.durable,
                "member {member} of {id} has {durable} durably of {} that were promised: {registration:?}",
                promised.durable
            );
        }
    }
}

/// Where a member's log stands, if it is alive under the registration that the metadata knows. What it holds before it
/// has registered, the metadata has not been told.
fn positions(
    nodes: &[Node],
    log: &MetadataLog,
    member: BrokerId,
    (id, registration): (TopicPartition, &PartitionRegistration),
) -> Option<(i64, i64)> {
    let node = nodes.iter().find(|node| node.id == member)?;
    let up = node.up.as_ref()?;
    let registered = log.newest().broker(member)?;
    let home = registration.directory_of(member)?;
    if registered.incarnation != up.incarnation || !registered.has_directory(home) || !up.directories.is_open(home) {
        return None;
    }
    if !up.directories.holds(home, id) {
        return Some((0, 0));
    }
    let log = up.directories.peek(home).log(id);
    Some((log.written().0, log.durable().0))
}
