//! What some seeds end with: two of three nodes are cut off, and somebody accepts the loss of what only they have. The
//! replica that leads from then on lacks committed records, which no rule would let happen; what still has to hold is that
//! those two, who know that the records were committed, stop and keep them (rule 9).

use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::{BrokerId, TopicPartition};
use stonelog_replication::controller::{AcceptLoss, ControllerRequest};

use super::Cluster;
use super::network::CONTROLLER;

/// Microseconds within which a session is over and everybody knows.
const UNTIL_FENCED: u64 = 14_000_000;
const LONG: u64 = 1_000_000_000;

/// Lives through it where the cluster is made for it.
pub fn accept_loss(cluster: &mut Cluster) {
    let Some(id) = cluster.partitions().first().copied() else { return };
    let Some(registration) = cluster.log.newest().partition(id).cloned() else { return };
    let is_fit = cluster.options.nodes == 3
        && !cluster.ever_relaxed
        && cluster.options.min_isr.is_none_or(|min| min == 2)
        && registration.isr.len() == 3;
    let (Some(leader), true) = (registration.leader, is_fit) else { return };
    let Some(left) = cluster.ids().into_iter().find(|node| *node != leader) else { return };
    let others: Vec<BrokerId> = cluster.ids().into_iter().filter(|node| *node != left).collect();
    // One falls behind and is fenced; then it is the only one that the controller hears.
    isolate(cluster, left, &[&others[..], &[CONTROLLER]].concat());
    pass(cluster, UNTIL_FENCED);
    cluster.network.heal();
    isolate(cluster, left, &others);
    others.iter().for_each(|other| isolate(cluster, *other, &[CONTROLLER]));
    pass(cluster, UNTIL_FENCED);
    let topic = cluster.log.newest().topic_by_id(id.topic_id).map(|topic| topic.name.to_string());
    let left_leaderless = cluster.log.newest().partition(id).filter(|now| now.leader.is_none()).cloned();
    let (Some(topic), Some(now)) = (topic, left_leaderless) else { return };
    cluster.loss_accepted = true;
    let shown =
        PartitionShown { topic_id: id.topic_id, leader_epoch: now.leader_epoch, partition_epoch: now.partition_epoch };
    let request = AcceptLoss { topic, partition: id.partition, replica: left, shown };
    cluster.request(ControllerRequest::AcceptLoss(request));
    pass(cluster, 1_000_000);
    cluster.network.heal();
    pass(cluster, 5_000_000);
    cluster.coverage.hit_if(leads(cluster, id, left), "led by one that lacks committed records");
}

fn isolate(cluster: &mut Cluster, node: BrokerId, from: &[BrokerId]) {
    let until = cluster.now + LONG;
    for other in from {
        cluster.network.cut(node, *other, until);
        cluster.network.cut(*other, node, until);
    }
}

fn pass(cluster: &mut Cluster, time: u64) {
    let end = cluster.now + time;
    cluster.run_until(end);
}

fn leads(cluster: &Cluster, id: TopicPartition, node: BrokerId) -> bool {
    cluster.log.newest().partition(id).is_some_and(|now| now.leader == Some(node))
}
