//! Which replica a consumer best reads from: KIP-392 with Kafka's `RackAwareReplicaSelector`, asked of the leader.
//!
//! The leader itself, where it is in the reader's rack or nobody in step is; else the member of the in-sync set in that
//! rack that has come farthest. Whom it names is in sync, up, and has what is read there: it may have heard of a lower
//! high watermark, and answers when it knows the one the reader knew. Pure.

use std::sync::Arc;

use stonelog_protocol::{BrokerId, Offset};

use super::leader::Leader;
use crate::metadata::MetadataImage;
use crate::progress::Progress;

/// Where a consumer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadsNear {
    /// Its `client.rack`.
    pub rack: Arc<str>,
    /// The listener it has reached: the other broker must have one of that name.
    pub listener: Arc<str>,
}

/// Who should answer a read at `from` in the leader's stead.
pub fn preferred(
    (leader, me): (&Leader, BrokerId),
    progress: &Progress,
    image: &MetadataImage,
    reader: &ReadsNear,
    from: Offset,
) -> Option<BrokerId> {
    let is_near =
        |broker: BrokerId| image.broker(broker).and_then(|broker| broker.rack.as_deref()) == Some(&*reader.rack);
    let is_within = progress.log_start_offset <= from && from <= progress.high_watermark;
    if !is_within || is_near(me) {
        return None;
    }
    let is_reached = |broker| image.broker(broker).is_some_and(|broker| broker.endpoint(&reader.listener).is_some());
    let near = leader.may_serve(from).filter(|(broker, _, _)| is_near(*broker) && is_reached(*broker));
    near.max_by_key(|(broker, at, caught_up_at)| (*at, *caught_up_at, *broker)).map(|(broker, _, _)| broker)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use stonelog_protocol::peer::stream::{Stamps, StreamGeneration, StreamId, StreamReport};
    use stonelog_protocol::{BrokerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicPartition, Uuid};
    use stonelog_storage::LogGeneration;

    use super::super::leader::{Beginning, Positions};
    use super::super::{Leadership, Member};
    use super::*;
    use crate::metadata::MetadataRecord;
    use crate::metadata::broker::{Endpoint, SecurityProtocol};
    use crate::metadata::record::RegisterBroker;
    use crate::progress::Role;

    const ME: BrokerId = BrokerId(1);

    fn id() -> TopicPartition {
        TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) }
    }

    fn place(rack: &str) -> ReadsNear {
        ReadsNear { rack: rack.into(), listener: "PLAINTEXT".into() }
    }

    /// Brokers 1 to 4 in racks a, b, b and c; the fourth has another listener only.
    fn image() -> MetadataImage {
        let racks = [(1, "a", "PLAINTEXT"), (2, "b", "PLAINTEXT"), (3, "b", "PLAINTEXT"), (4, "c", "INSIDE")];
        let protocol = SecurityProtocol::Plaintext;
        let records = racks.map(|(broker, rack, listener)| {
            MetadataRecord::RegisterBroker(RegisterBroker {
                id: BrokerId(broker),
                incarnation: Uuid([broker as u8; 16]),
                epoch: Some(BrokerEpoch(1)),
                endpoints: vec![Endpoint { listener: listener.into(), host: "h".into(), port: 1, protocol }],
                rack: Some(rack.into()),
                fenced: false,
                in_controlled_shutdown: false,
                directories: Vec::new(),
                differing: Vec::new(),
                unfenced_with: Vec::new(),
            })
        });
        MetadataImage::from_records(5, &records).unwrap()
    }

    fn member(broker: i32) -> Member {
        Member {
            broker_epoch: BrokerEpoch(1),
            directory: Uuid([broker as u8; 16]),
            is_active: true,
            is_adding: false,
            is_eligible: false,
        }
    }

    fn leadership(isr: &[i32]) -> Leadership {
        Leadership {
            leader_epoch: LeaderEpoch(5),
            partition_epoch: PartitionEpoch(9),
            isr: isr.iter().map(|id| BrokerId(*id)).collect(),
            elr: Default::default(),
            min_isr: 1,
            strict: true,
            image_index: 50,
            members: (1..=4).map(|broker| (BrokerId(broker), member(broker))).collect(),
        }
    }

    fn start() -> Instant {
        crate::runtime::clock::Clock.mono()
    }

    /// Broker 1 leads a log of 100 durable records.
    fn leader(isr: &[i32], now: Instant) -> Leader {
        let own = Positions { written: Offset(100), durable: Offset(100) };
        let at = Beginning { own, high_watermark: Offset(50), epoch_start: Offset(0) };
        Leader::begin(ME, leadership(isr), at, now)
    }

    fn follow(leader: &mut Leader, broker: i32, durable: i64, log_start: i64, is_whole: bool, now: Instant) {
        let stamps = Stamps {
            partition: id(),
            leader_epoch: LeaderEpoch(5),
            leader: ME,
            leader_broker_epoch: BrokerEpoch(1),
            follower: BrokerId(broker),
            follower_broker_epoch: BrokerEpoch(1),
            follower_directory: Uuid([broker as u8; 16]),
            generation: StreamGeneration { recovery_epoch: 1, counter: 0 },
        };
        let (written, durable, log_start) = (Offset(100), Offset(durable), Offset(log_start));
        let report = StreamReport { written, durable, probe: 0, log_start, is_whole };
        leader.on_opened(StreamId(1), stamps, report, Offset(100), now);
    }

    fn progress(leader: &Leader) -> Progress {
        Progress {
            partition: id(),
            generation: LogGeneration { recovery_epoch: 1, counter: 1 },
            role: Role::Leader,
            leader_epoch: LeaderEpoch(5),
            log_start_offset: Offset(0),
            written: Offset(100),
            durable: Offset(100),
            log_end_offset: Offset(100),
            high_watermark: leader.high_watermark(),
            last_stable_offset: leader.high_watermark(),
            isr_size: 1,
            min_isr: 1,
            strict: true,
            serves_as_follower: false,
        }
    }

    fn chosen(leader: &Leader, place: &ReadsNear, from: i64) -> Option<i32> {
        preferred((leader, ME), &progress(leader), &image(), place, Offset(from)).map(|broker| broker.0)
    }

    #[test]
    fn a_reader_is_sent_to_the_replica_of_its_rack_that_has_come_farthest() {
        let now = start();
        let mut leader = leader(&[1, 2, 3], now);
        follow(&mut leader, 2, 90, 0, true, now);
        follow(&mut leader, 3, 80, 0, true, now);
        assert_eq!(chosen(&leader, &place("b"), 60), Some(2));
        assert_eq!(chosen(&leader, &place("a"), 60), None, "the leader itself is there");
        assert_eq!(chosen(&leader, &place("z"), 60), None, "nobody is there");
        assert_eq!(chosen(&leader, &place("b"), 81), None, "the leader says what lies beyond the high watermark");
    }

    #[test]
    fn among_equals_who_was_caught_up_last_is_chosen() {
        let now = start();
        let mut leader = leader(&[1, 2, 3], now);
        follow(&mut leader, 2, 100, 0, true, now + Duration::from_secs(1));
        follow(&mut leader, 3, 100, 0, true, now);
        assert_eq!(chosen(&leader, &place("b"), 60), Some(2));
    }

    #[test]
    fn only_who_is_in_sync_up_whole_and_reached_is_chosen() {
        let now = start();
        let mut one = leader(&[1, 3, 4], now);
        follow(&mut one, 2, 100, 0, true, now);
        follow(&mut one, 3, 90, 20, true, now);
        follow(&mut one, 4, 100, 0, true, now);
        assert_eq!(chosen(&one, &place("b"), 60), Some(3), "broker 2 is out of sync");
        assert_eq!(chosen(&one, &place("b"), 19), None, "what it has begins later");
        assert_eq!(chosen(&one, &place("c"), 60), None, "broker 4 has no such listener");
        let mut fenced = leadership(&[1, 3, 4]);
        fenced.members.get_mut(&BrokerId(3)).unwrap().is_active = false;
        one.on_leadership(fenced, Offset(0), now);
        assert_eq!(chosen(&one, &place("b"), 60), None, "it is fenced");
        let mut damaged = leader(&[1, 3], now);
        follow(&mut damaged, 3, 90, 0, false, now);
        assert_eq!(chosen(&damaged, &place("b"), 60), None, "it knows of damage in its log");
    }
}
