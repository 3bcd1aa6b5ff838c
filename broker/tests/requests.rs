//! Produce against a real broker process: what one connection sends is appended and answered in its order, whatever
//! each request costs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stonelog_protocol::batch::{BatchBuilder, Compression, NewRecord};
use stonelog_protocol::codec::{decode_response, encode_request};
use stonelog_protocol::messages::create_topics_request::CreatableTopic;
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{CreateTopicsRequest, ProduceRequest, TopicName};
use stonelog_protocol::{ProducerEpoch, ProducerId, Request, StrBytes, Timestamp};

const LIMIT: Duration = Duration::from_secs(60);

/// A broker process; dropping it kills it.
struct Broker {
    child: Child,
    address: String,
}

impl Broker {
    fn start(data_dir: &Path) -> Broker {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stonelog"))
            .args(["serve", "--data-dir"])
            .arg(data_dir)
            .args(["--set", "listeners=PLAINTEXT://127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, advertised)) = line.split_once(" → ") {
                address = Some(advertised.to_owned());
            }
            if line == "ready" {
                break;
            }
        }
        Broker { child, address: address.expect("the broker is ready") }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client(stream)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Client(TcpStream);

impl Client {
    fn answer<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        decode_response::<R>(version, frame.into()).unwrap()
    }

    fn create_topic(&mut self, name: &str) {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        self.0.write_all(&encode_request(4, 0, None, &request).unwrap()).unwrap();
        assert_eq!(self.answer::<CreateTopicsRequest>(4).1.topics[0].error_code, 0);
    }
}

fn batch(sequence: i32, value_bytes: usize) -> Vec<u8> {
    let mut builder =
        BatchBuilder::new().compressed(Compression::Zstd, None).by_producer(ProducerId(7), ProducerEpoch(0), sequence);
    builder.push(NewRecord::new(Timestamp(1), None, Some(&vec![0; value_bytes])));
    builder.build().unwrap()
}

fn produce(topic: &str, batch: Vec<u8>) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(batch.into()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

#[test]
fn requests_behind_a_large_compressed_batch_are_appended_and_answered_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut client = broker.connect();
    client.create_topic("t");
    // The sequence check notices any other order.
    let sizes = [100, 40 << 20, 100, 100, 20 << 20, 100];
    let mut frames = Vec::new();
    for (number, value_bytes) in (0..).zip(sizes) {
        let request = produce("t", batch(number, value_bytes));
        frames.extend(encode_request(9, number, None, &request).unwrap());
    }
    client.0.write_all(&frames).unwrap();
    for number in 0..sizes.len() as i32 {
        let (correlation_id, response) = client.answer::<ProduceRequest>(9);
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((correlation_id, partition.error_code), (number, 0));
        assert_eq!(partition.base_offset, i64::from(number));
    }
}

#[test]
fn client_that_leaves_while_its_batch_is_validated_leaves_the_broker_serving() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut client = broker.connect();
    client.create_topic("t");
    let large = encode_request(9, 1, None, &produce("t", batch(0, 60 << 20))).unwrap();
    for _ in 0..8 {
        broker.connect().0.write_all(&large).unwrap();
    }
    let small = produce("t", {
        let mut builder = BatchBuilder::new();
        builder.push(NewRecord::new(Timestamp(1), None, Some(b"v")));
        builder.build().unwrap()
    });
    client.0.write_all(&encode_request(9, 2, None, &small).unwrap()).unwrap();
    let (_, response) = client.answer::<ProduceRequest>(9);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}
