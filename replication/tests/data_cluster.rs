//! Three data planes in one process follow each other over loopback TCP, with real journals and one controller: what is
//! acknowledged is durable on every member, members die and come back, leaders move, histories part and meet again.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod data_cluster_support;
mod support;

use std::collections::BTreeSet;

use data_cluster_support::*;
use futures_util::FutureExt as _;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, Offset, Timestamp};
use stonelog_replication::partition::Reject;
use stonelog_replication::runtime::find_offset::OffsetQuery;
use stonelog_storage::Fault;
use support::*;

fn ids(ids: &[i32]) -> BTreeSet<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

#[tokio::test]
async fn what_is_acknowledged_is_durable_on_every_member_of_the_in_sync_set() {
    let cluster = Cluster::start().await;
    let topic = cluster.create_topic("t").await;
    for number in 0..30 {
        for index in 0..PARTITIONS {
            let to = partition(topic, index);
            let offset = produce(cluster.leader(to), to, value(index, number, 300)).await.unwrap();
            assert_eq!(offset, Offset(number));
            for member in cluster.isr(to) {
                let durable = cluster.node(member).log(to, |log| log.durable()).await;
                assert!(durable > offset, "{to} on {member} is durable up to {durable} only");
            }
        }
    }
    for index in 0..PARTITIONS {
        let of = partition(topic, index);
        assert_eq!(cluster.isr(of), ids(&[1, 2, 3]));
        cluster.assert_equal(of, 30).await;
        for _ in 0..3 {
            assert_eq!(cluster.node(cluster.leader_id(of).unwrap()).confirms(of).await, Ok(()));
        }
    }
    cluster.stop();
}

#[tokio::test]
async fn a_member_that_dies_leaves_the_set_and_catches_up_from_disk_before_it_is_back() {
    let mut cluster = Cluster::start().await;
    let topic = cluster.create_topic("t").await;
    let to = cluster.led_by(topic, 1);
    produce(cluster.leader(to), to, value(0, 0, 300)).await.unwrap();

    cluster.kill(3);
    // Nobody fences it: the set shrinks because it says nothing, and what waits for it is acknowledged then.
    assert_eq!(produce(cluster.leader(to), to, value(0, 1, 300)).await, Ok(Offset(1)));
    assert_eq!(cluster.isr(to), ids(&[1, 2]));
    // More than the leader keeps in memory.
    for number in 2..80 {
        assert_eq!(produce(cluster.leader(to), to, value(0, number, 16 << 10)).await, Ok(Offset(number)));
    }
    cluster.restart(3).await;
    cluster.until(|cluster| cluster.isr(to) == ids(&[1, 2, 3])).await;
    assert_eq!(produce(cluster.leader(to), to, value(0, 80, 300)).await, Ok(Offset(80)));
    cluster.assert_equal(to, 81).await;
    cluster.stop();
}

#[tokio::test]
async fn a_deposed_leader_cuts_what_nobody_acknowledged_and_follows() {
    let mut cluster = Cluster::start().await;
    let topic = cluster.create_topic("t").await;
    let to = cluster.led_by(topic, 1);
    for number in 0..5 {
        produce(cluster.leader(to), to, value(0, number, 300)).await.unwrap();
    }
    // Nobody reaches the leader any more; it goes on appending for a while.
    cluster.node(BrokerId(1)).link.cut();
    let unacknowledged: Vec<_> = (0..3).map(|_| cluster.append(to, b"in vain".to_vec())).collect();
    for append in unacknowledged {
        append.await.unwrap();
    }
    cluster.node(BrokerId(1)).until(to, |log| log.durable() == Offset(8)).await;
    // Nobody tells it that it leads, and then it does not.
    let alone = cluster.node(BrokerId(1)).confirms(to);
    cluster.fence(1).await;
    assert_eq!(alone.await.map_err(|reject| reject.error_code()), Err(ErrorCode::NotLeaderOrFollower));
    cluster.until(|cluster| cluster.leader_id(to) != Some(BrokerId(1))).await;
    assert_eq!(produce(cluster.node(BrokerId(1)).started(), to, vec![1]).await, Err(ErrorCode::NotLeaderOrFollower));
    for number in 5..9 {
        assert_eq!(produce(cluster.leader(to), to, value(0, number, 300)).await, Ok(Offset(number)));
    }
    // It dials the new leader by itself, cuts, and is in sync once it is unfenced.
    cluster.unfence(1).await;
    cluster.until(|cluster| cluster.isr(to) == ids(&[1, 2, 3])).await;
    cluster.assert_equal(to, 9).await;
    let values: Vec<_> = (0..9).map(|number| value(0, number, 300)).collect();
    assert_eq!(read_values(cluster.leader(to), to).await, values);
    cluster.node(BrokerId(1)).link.heal();

    // Once more, with a leader that dies with what it has, and comes back as a follower.
    let second = cluster.leader_id(to).unwrap();
    cluster.node(second).link.cut();
    cluster.append(to, b"in vain".to_vec()).await.unwrap();
    cluster.node(second).until(to, |log| log.durable() == Offset(10)).await;
    cluster.kill(second.0);
    cluster.fence(second.0).await;
    cluster.until(|cluster| cluster.leader_id(to).is_some_and(|leader| leader != second)).await;
    assert_eq!(produce(cluster.leader(to), to, value(0, 9, 300)).await, Ok(Offset(9)));
    cluster.restart(second.0).await;
    cluster.until(|cluster| cluster.isr(to) == ids(&[1, 2, 3])).await;
    cluster.assert_equal(to, 10).await;
    cluster.stop();
}

#[tokio::test]
async fn a_leader_whose_followers_are_out_of_the_set_knows_by_itself_that_it_leads() {
    let mut cluster = Cluster::start().await;
    // One replica is enough for either, also once the others are dead.
    let two = cluster.create_topic_on("two", &[1, 3], 1).await;
    let three = cluster.create_topic_on("three", &[1, 2, 3], 1).await;
    assert_eq!(cluster.node(BrokerId(1)).confirms(two).await, Ok(()));
    cluster.kill(3);
    // Until the metadata says so nobody knows whether it leads by now.
    let asked = [two, three].map(|of| cluster.node(BrokerId(1)).confirms(of));
    cluster.fence(3).await;
    for asked in asked {
        assert_eq!(asked.await, Ok(()));
    }
    for of in [two, three] {
        assert_eq!(cluster.node(BrokerId(1)).confirms(of).await, Ok(()));
    }
    assert_eq!(cluster.isr(two), ids(&[1]));
    cluster.stop();
}

#[tokio::test]
async fn a_leader_that_knows_less_than_its_log_holds_does_not_say_that_nothing_is_there() {
    let mut cluster = Cluster::start().await;
    let to = cluster.create_topic_on("t", &[1, 2], 2).await;
    for number in 0..5 {
        assert_eq!(produce(cluster.leader(to), to, value(0, number, 300)).await, Ok(Offset(number)));
    }
    // A record that nobody else has, and then an epoch that begins behind it, without the other.
    cluster.node(BrokerId(1)).link.cut();
    cluster.append(to, value(0, 5, 300)).await.unwrap();
    cluster.node(BrokerId(1)).until(to, |log| log.durable() == Offset(6)).await;
    cluster.fence(2).await;
    cluster.kill(1);
    cluster.restart(1).await;
    cluster.until(|cluster| cluster.leader_id(to) == Some(BrokerId(1))).await;
    let later = OffsetQuery::AtOrAfter(Timestamp(1_800_000_000_000));
    for query in [OffsetQuery::Latest, OffsetQuery::MaxTimestamp, later] {
        let found = cluster.node(BrokerId(1)).finds(to, query).await;
        assert_eq!(found, Err(Reject::OffsetNotAvailable), "{query:?}");
    }
    cluster.stop();
}

#[tokio::test]
async fn records_are_deleted_when_whoever_may_lead_next_has_deleted_them() {
    let mut cluster = Cluster::start().await;
    let to = cluster.create_topic("t").await;
    let to = cluster.led_by(to, 1);
    for number in 0..5 {
        assert_eq!(produce(cluster.leader(to), to, value(0, number, 300)).await, Ok(Offset(number)));
    }
    cluster.node(BrokerId(1)).link.cut();
    let mut deleting = Box::pin(cluster.node(BrokerId(1)).deletes(to, Offset(3)));
    // A second one finds nothing to do, and has nothing to say before the first.
    let mut again = Box::pin(cluster.node(BrokerId(1)).deletes(to, Offset(3)));
    cluster.node(BrokerId(1)).until(to, |log| log.durable_log_start() == Offset(3)).await;
    assert_eq!((deleting.as_mut().now_or_never(), again.as_mut().now_or_never()), (None, None));
    cluster.node(BrokerId(1)).link.heal();
    assert_eq!((deleting.await, again.await), (Ok(Offset(3)), Ok(Offset(3))));
    for node in [1, 2, 3] {
        let start = cluster.node(BrokerId(node)).log(to, |log| log.durable_log_start()).await;
        assert_eq!(start, Offset(3), "on {node}");
    }
    cluster.kill(1);
    cluster.fence(1).await;
    cluster.until(|cluster| cluster.leader_id(to).is_some_and(|leader| leader != BrokerId(1))).await;
    let leader = cluster.node(cluster.leader_id(to).unwrap());
    assert_eq!(leader.finds(to, OffsetQuery::Earliest).await, Ok(Offset(3)));
    cluster.stop();
}

#[tokio::test]
async fn what_was_committed_is_read_after_a_restart_below_min_isr() {
    let mut cluster = Cluster::start().await;
    let topic = cluster.create_topic("t").await;
    let to = cluster.led_by(topic, 1);
    for number in 0..5 {
        assert_eq!(produce(cluster.leader(to), to, value(0, number, 300)).await, Ok(Offset(number)));
    }
    cluster.until_checkpointed(1, to, Offset(5)).await;
    for dead in [3, 2] {
        cluster.kill(dead);
        cluster.fence(dead).await;
    }
    assert_eq!(cluster.isr(to), ids(&[1]));
    cluster.kill(1);
    cluster.restart(1).await;
    cluster.until(|cluster| cluster.leader_id(to) == Some(BrokerId(1))).await;
    let values: Vec<_> = (0..5).map(|number| value(0, number, 300)).collect();
    assert_eq!(read_values(cluster.leader(to), to).await, values);
    let refused = produce(cluster.leader(to), to, value(0, 5, 300)).await;
    assert_eq!(refused, Err(ErrorCode::NotEnoughReplicas), "and no more is committed");
    cluster.stop();
}

#[tokio::test]
async fn a_damaged_replica_leaves_the_set_is_fetched_again_whole_and_is_back() {
    let cluster = Cluster::start().await;
    let topic = cluster.create_topic("t").await;
    let to = cluster.led_by(topic, 1);
    for number in 0..20 {
        produce(cluster.leader(to), to, value(0, number, 300)).await.unwrap();
    }
    let damaged = cluster.node(BrokerId(2));
    damaged.until(to, |log| log.segments().last().is_some_and(|segment| segment.end == Offset(20))).await;
    damaged.damage(to).await;
    cluster.until(|cluster| !cluster.isr(to).contains(&BrokerId(2))).await;
    assert_eq!(produce(cluster.leader(to), to, value(0, 20, 300)).await, Ok(Offset(20)));
    cluster.until(|cluster| cluster.isr(to) == ids(&[1, 2, 3])).await;
    assert!(damaged.log(to, |log| log.holes().is_empty()).await);
    cluster.assert_equal(to, 21).await;
    cluster.stop();
}

#[tokio::test]
async fn a_damaged_block_of_a_sealed_segment_is_fetched_again_and_nothing_beside_it() {
    const BLOCK_BYTES: u64 = 64 << 10;
    let mut cluster = Cluster::start().await;
    let topic = cluster.create_topic_with("t", &[("segment.bytes", "1048576")]).await;
    let to = cluster.led_by(topic, 1);
    for number in 0..150 {
        produce(cluster.leader(to), to, value(0, number, 16 << 10)).await.unwrap();
    }
    let names = |log: &stonelog_storage::log::Log| {
        log.segments().iter().map(|segment| (segment.base, segment.version)).collect::<Vec<_>>()
    };
    let damaged = cluster.node(BrokerId(2));
    damaged.until(to, |log| log.sealed_segments().count() >= 2).await;
    let (generation, before) = damaged.log(to, move |log| (log.key().generation, names(log))).await;
    damaged.damage(to).await;
    for number in 150..170 {
        assert_eq!(produce(cluster.leader(to), to, value(0, number, 300)).await, Ok(Offset(number)), "under load");
    }
    damaged.until(to, |log| log.holes().is_empty()).await;
    cluster.until(|cluster| cluster.isr(to) == ids(&[1, 2, 3])).await;
    let (same, after) = damaged.log(to, move |log| (log.key().generation, names(log))).await;
    assert_eq!(same, generation, "it was neither cut nor begun anew");
    assert_eq!((after[0], after[1]), ((before[0].0, before[0].1 + 1), before[1]));
    let fetched = damaged.repaired_bytes(to).await;
    assert!(fetched > 0 && fetched <= 2 * BLOCK_BYTES, "{fetched} bytes for one flipped");
    cluster.assert_equal(to, 170).await;
    // The checkpoint names the segment that was written anew.
    damaged.until(to, |log| log.segments()[0].end <= log.log_end()).await;
    cluster.kill(2);
    cluster.restart(2).await;
    cluster.until(|cluster| cluster.isr(to) == ids(&[1, 2, 3])).await;
    assert!(cluster.node(BrokerId(2)).log(to, |log| log.holes().is_empty()).await);
    cluster.assert_equal(to, 170).await;
    cluster.stop();
}

#[tokio::test]
async fn a_leader_whose_directory_fails_is_followed_by_another_with_everything_acknowledged() {
    let cluster = Cluster::start().await;
    let topic = cluster.create_topic("t").await;
    let to = cluster.led_by(topic, 1);
    for number in 0..10 {
        produce(cluster.leader(to), to, value(0, number, 300)).await.unwrap();
    }
    let failing = cluster.node(BrokerId(1)).started();
    let directory = &failing.node.directories[0];
    let fault = Fault::io("fdatasync", &directory.path, std::io::Error::from_raw_os_error(5));
    failing.node.take_offline(directory, &fault);
    cluster.until(|cluster| cluster.leader_id(to).is_some_and(|leader| leader != BrokerId(1))).await;
    let refused = produce(failing, to, vec![1]).await;
    assert!(matches!(refused, Err(ErrorCode::KafkaStorageError | ErrorCode::NotLeaderOrFollower)), "{refused:?}");
    assert_eq!(produce(cluster.leader(to), to, value(0, 10, 300)).await, Ok(Offset(10)));
    assert_eq!(cluster.isr(to), ids(&[2, 3]));
    let values: Vec<_> = (0..11).map(|number| value(0, number, 300)).collect();
    assert_eq!(read_values(cluster.leader(to), to).await, values);
    cluster.stop();
}
