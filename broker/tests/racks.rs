//! Consumers read from the replica in their own rack (KIP-392): whom the leader sends where, what a follower shows and
//! refuses, and that it goes on through the death of the leader.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use stonelog_protocol::Timestamp;
use stonelog_protocol::batch::{BatchBuilder, Batches, NewRecord};
use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::fetch_response::PartitionData;
use stonelog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{
    DescribeClusterRequest, FetchRequest, FetchResponse, ListOffsetsRequest, MetadataRequest, ProduceRequest,
};

use support::cluster::Cluster;
use support::{BlockingClient, LIMIT, text, topic_name};

const OUT_OF_RANGE: i16 = 1;
const NOT_LEADER: i16 = 6;
const FENCED_EPOCH: i16 = 74;
const UNKNOWN_EPOCH: i16 = 75;
const OFFSET_NOT_AVAILABLE: i16 = 78;

/// By name, and the first that a follower answers.
const BY_NAME: i16 = 11;
const BY_ID: i16 = 16;

/// Three brokers, each in a rack of its own: `a`, `b` and `c`.
fn started(selector: Option<&str>) -> Cluster {
    let mut cluster = Cluster::begin();
    for (own, rack) in cluster.own_settings.iter_mut().zip(["a", "b", "c"]) {
        own.push(format!("broker.rack={rack}"));
    }
    let selector = selector.map(|class| format!("replica.selector.class=org.apache.kafka.common.replica.{class}"));
    cluster.settings.extend(selector);
    for node in 0..3 {
        cluster.start(node);
    }
    for node in 0..3 {
        cluster.wait_until_ready(node);
    }
    cluster.ask_until(0, 1, &DescribeClusterRequest::default().with_endpoint_type(1), |r| r.brokers.len() == 3);
    cluster
}

/// The end of what has been produced.
fn produce(cluster: &Cluster, node: usize, records: usize) -> i64 {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(NewRecord::new(Timestamp(1), None, Some(b"v")));
    }
    let partition = PartitionProduceData::default().with_records(Some(builder.build().unwrap().into()));
    let topic = TopicProduceData::default().with_name(topic_name("t")).with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    let answered =
        cluster.ask_until(node, 10, &request, |response| response.responses[0].partition_responses[0].error_code == 0);
    answered.responses[0].partition_responses[0].base_offset + records as i64
}

/// What a consumer in a rack wants of `t-0`.
fn wanted(rack: &str, id: uuid::Uuid, offset: i64, epoch: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(epoch);
    let topic = FetchTopic::default().with_topic(topic_name("t")).with_topic_id(id).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_rack_id(text(rack))
        .with_topics(vec![topic])
}

fn data(response: &FetchResponse) -> &PartitionData {
    &response.responses[0].partitions[0]
}

/// The end of what was read, or 0.
fn end_of(data: &PartitionData) -> i64 {
    let records = data.records.clone().unwrap_or_default();
    Batches::new(&records).map(|batch| batch.unwrap().0.next_offset().0).last().unwrap_or(0)
}

fn leader_of(cluster: &Cluster, node: usize) -> i32 {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    cluster.ask(node, 9, &request).topics[0].partitions[0].leader_id.0
}

#[test]
fn a_consumer_reads_from_the_replica_in_its_rack() {
    let mut cluster = started(Some("RackAwareReplicaSelector"));
    let id = cluster.create("t", &[&[1, 2, 3]], &[]);
    let end = produce(&cluster, 0, 3);

    // The leader sends a reader to its rack, and reads nothing for it; in its own rack, and in none, it reads.
    for version in [BY_NAME, BY_ID] {
        let sent = cluster.ask_until(0, version, &wanted("b", id, 0, 0), |r| data(r).preferred_read_replica.0 == 2);
        let data = data(&sent);
        assert_eq!((data.error_code, data.high_watermark, end_of(data)), (0, end, 0));
    }
    for rack in ["a", "nowhere", ""] {
        let response = cluster.ask(0, BY_ID, &wanted(rack, id, 0, 0));
        assert_eq!((data(&response).preferred_read_replica.0, end_of(data(&response))), (-1, end), "rack {rack}");
    }
    let response = cluster.ask(0, BY_ID, &wanted("b", id, end + 1, 0));
    assert_eq!(data(&response).error_code, OUT_OF_RANGE, "the leader says what nobody has");

    // The follower shows what is committed, to those who may know that it follows.
    for version in [BY_NAME, BY_ID] {
        let read = cluster.ask_until(1, version, &wanted("b", id, 0, 0), |r| end_of(data(r)) == end);
        assert_eq!((data(&read).error_code, data(&read).high_watermark), (0, end));
        assert_eq!((data(&read).log_start_offset, data(&read).preferred_read_replica.0), (0, -1));
    }
    assert_eq!(data(&cluster.ask(1, BY_NAME - 1, &wanted("", id, 0, 0))).error_code, NOT_LEADER);
    assert_eq!(data(&cluster.ask(1, BY_ID, &wanted("b", id, 0, 7))).error_code, UNKNOWN_EPOCH);
    assert_eq!(data(&cluster.ask(1, BY_ID, &wanted("b", id, 100, 0))).error_code, OFFSET_NOT_AVAILABLE);
    let latest = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
    let latest = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![latest]);
    let latest = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![latest]);
    assert_eq!(cluster.ask(1, 7, &latest).topics[0].partitions[0].error_code, NOT_LEADER);

    // Who waits there is answered when the follower hears that more is committed.
    let waits = wanted("b", id, end, 0).with_min_bytes(1).with_max_wait_ms(2 * LIMIT.as_millis() as i32);
    let address = ("127.0.0.1", cluster.ports[1]);
    let waiting = std::thread::spawn(move || {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        BlockingClient(stream).ask(BY_ID, &waits)
    });
    let end = produce(&cluster, 0, 1);
    assert_eq!(end_of(data(&waiting.join().unwrap())), end);

    // The leader dies: what a reader of the old epoch is told, and that all is there.
    cluster.kill(0);
    for node in [1, 2] {
        cluster.ask_until(node, BY_ID, &wanted("b", id, 0, 0), |r| data(r).error_code == FENCED_EPOCH);
        let read = cluster.ask_until(node, BY_ID, &wanted("", id, 0, -1), |r| end_of(data(r)) == end);
        assert_eq!(data(&read).error_code, 0);
    }
    let (leader, rack) = if leader_of(&cluster, 1) == 2 { (1, "c") } else { (2, "b") };
    let end = produce(&cluster, leader, 2);
    let follower = 3 - leader;
    let sent = |r: &FetchResponse| data(r).preferred_read_replica.0 == follower as i32 + 1;
    cluster.ask_until(leader, BY_ID, &wanted(rack, id, 0, -1), sent);
    cluster.ask_until(follower, BY_ID, &wanted(rack, id, 0, -1), |r| end_of(data(r)) == end);

    // Nobody in rack a is up; once its broker is back, an incremental session hears of it.
    let stream = std::net::TcpStream::connect(("127.0.0.1", cluster.ports[leader])).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut client = BlockingClient(stream);
    let first = client.ask(BY_ID, &wanted("a", id, end, -1).with_session_epoch(0));
    assert_eq!((data(&first).error_code, data(&first).preferred_read_replica.0), (0, -1));
    assert!(first.session_id > 0);
    let again = |epoch| {
        wanted("a", id, end, -1).with_topics(Vec::new()).with_session_id(first.session_id).with_session_epoch(epoch)
    };
    assert!(client.ask(BY_ID, &again(1)).responses.is_empty(), "nothing is new");
    cluster.start(0);
    cluster.wait_until_ready(0);
    let told = (2..1_000).find_map(|epoch| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let response = client.ask(BY_ID, &again(epoch));
        response.responses.first().map(|topic| topic.partitions[0].preferred_read_replica.0).filter(|id| *id >= 0)
    });
    assert_eq!(told, Some(1));
}

#[test]
fn without_a_selector_nobody_is_sent_anywhere_and_a_follower_out_of_sync_serves_nobody() {
    let mut cluster = started(None);
    cluster.kill(2);
    let id = cluster.create("t", &[&[1, 2, 3]], &[("flush.messages", "1000")]);
    let end = produce(&cluster, 0, 3);
    cluster.ask_until(1, BY_ID, &wanted("b", id, 0, 0), |r| end_of(data(r)) == end);
    let response = cluster.ask(0, BY_ID, &wanted("b", id, 0, 0));
    assert_eq!((data(&response).preferred_read_replica.0, end_of(data(&response))), (-1, end));

    // Without its leader's word nothing that it shows is sure: it sends its readers back.
    cluster.kill(0);
    let response = cluster.ask_until(1, BY_ID, &wanted("b", id, 0, -1), |r| data(r).error_code == NOT_LEADER);
    assert_eq!(end_of(data(&response)), 0);
}
