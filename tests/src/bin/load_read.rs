//! A reading load for benchmarks: connections that fetch a topic's partitions from their start, over and over.
//!
//! Prints one line of JSON: bytes per second and the latency of a fetch. It measures and judges nothing.
//!
//! ```text
//! load_read --addr 127.0.0.1:9092 --topic t --partitions 100 --connections 4 --fetch-bytes 65536 --seconds 5
//! ```

use std::rc::Rc;
use std::time::Instant;

use stonelog_protocol::StrBytes;
use stonelog_protocol::batch::Batches;
use stonelog_protocol::codec::{decode_response, encode_request};
use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::{BrokerId, FetchRequest, TopicName};
use stonelog_tests::generator::{Arguments, Latencies, micros_since, run_connections};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The last Fetch version that names topics.
const VERSION: i16 = 12;

struct Plan {
    addr: String,
    topic: String,
    partitions: i32,
    connections: i32,
    fetch_bytes: i32,
    seconds: u64,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    bytes: u64,
    micros: Vec<u32>,
}

fn main() {
    let plan = Rc::new(plan());
    let seen = run_connections(plan.connections as usize, plan.seconds, |index, until| {
        connection(Rc::clone(&plan), index as i32, until)
    });
    let bytes: u64 = seen.iter().map(|seen| seen.bytes).sum();
    let latencies = Latencies::of(seen.into_iter().flat_map(|seen| seen.micros));
    println!(
        "{{\"megabytes_per_s\":{:.1},\"fetches_per_s\":{},\"p50_us\":{},\"p99_us\":{}}}",
        bytes as f64 / plan.seconds as f64 / 1e6,
        latencies.count() / plan.seconds,
        latencies.percentile(0.50),
        latencies.percentile(0.99),
    );
}

fn plan() -> Plan {
    let arguments = Arguments::read();
    Plan {
        addr: arguments.text("--addr", "127.0.0.1:9092"),
        topic: arguments.text("--topic", "load"),
        partitions: arguments.number("--partitions", 1),
        connections: arguments.number("--connections", 4),
        fetch_bytes: arguments.number("--fetch-bytes", 65536),
        seconds: arguments.number("--seconds", 5),
    }
}

/// Reads partition `index`, then the one `connections` further, and so on, each to its end.
#[allow(clippy::disallowed_methods, reason = "a load generator measures time")]
async fn connection(plan: Rc<Plan>, index: i32, until: Instant) -> Seen {
    let mut socket = TcpStream::connect(&plan.addr).await.expect("a broker at --addr");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    let mut seen = Seen::default();
    let (mut partition, mut offset) = (index % plan.partitions, 0);
    while Instant::now() < until {
        let begun = Instant::now();
        socket.write_all(&request(&plan, partition, offset)).await.expect("a connection");
        let mut frame = vec![0; socket.read_u32().await.expect("an answer") as usize];
        socket.read_exact(&mut frame).await.expect("an answer");
        seen.micros.push(micros_since(begun));
        let (_, response) = decode_response::<FetchRequest>(VERSION, frame.into()).expect("a Fetch response");
        let answered = &response.responses[0].partitions[0];
        assert_eq!(answered.error_code, 0, "partition {partition} at {offset}");
        let records = answered.records.clone().unwrap_or_default();
        seen.bytes += records.len() as u64;
        let next = Batches::new(&records).filter_map(Result::ok).map(|(header, _)| header.next_offset().0).last();
        match next {
            Some(next) => offset = next,
            None => (partition, offset) = ((partition + plan.connections) % plan.partitions, 0),
        }
    }
    seen
}

fn request(plan: &Plan, partition: i32, offset: i64) -> Vec<u8> {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(plan.fetch_bytes);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_string(plan.topic.clone())))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_max_bytes(plan.fetch_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    encode_request(VERSION, 0, Some("load"), &request).expect("a request").to_vec()
}
