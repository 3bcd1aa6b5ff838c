//! A reading load for benchmarks: connections that fetch a topic's partitions from their start, over and over.
//!
//! Prints one line of JSON: bytes per second and the latency of a fetch. It measures and judges nothing.
//!
//! ```text
//! load_read --addr 127.0.0.1:9092 --topic t --partitions 100 --connections 4 --fetch-bytes 65536 --seconds 5
//! ```

use std::rc::Rc;
use std::time::{Duration, Instant};

use stonelog_protocol::StrBytes;
use stonelog_protocol::batch::Batches;
use stonelog_protocol::codec::{decode_response, encode_request};
use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::{BrokerId, FetchRequest, TopicName};
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let seen = tokio::task::LocalSet::new().block_on(&runtime, run(Rc::clone(&plan)));
    let bytes: u64 = seen.iter().map(|seen| seen.bytes).sum();
    let mut micros: Vec<u32> = seen.into_iter().flat_map(|seen| seen.micros).collect();
    micros.sort_unstable();
    let percentile = |p: f64| micros.get((micros.len() as f64 * p) as usize).copied().unwrap_or(0);
    println!(
        "{{\"megabytes_per_s\":{:.1},\"fetches_per_s\":{},\"p50_us\":{},\"p99_us\":{}}}",
        bytes as f64 / plan.seconds as f64 / 1e6,
        micros.len() as u64 / plan.seconds,
        percentile(0.50),
        percentile(0.99),
    );
}

fn plan() -> Plan {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let get = |name: &str, default: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).cloned().unwrap_or_else(|| default.to_owned())
    };
    let number = |name: &str, default: &str| get(name, default).parse::<i32>().expect("a number");
    Plan {
        addr: get("--addr", "127.0.0.1:9092"),
        topic: get("--topic", "load"),
        partitions: number("--partitions", "1"),
        connections: number("--connections", "4"),
        fetch_bytes: number("--fetch-bytes", "65536"),
        seconds: number("--seconds", "5") as u64,
    }
}

#[allow(clippy::disallowed_methods, reason = "a load generator measures time and runs its own tasks")]
async fn run(plan: Rc<Plan>) -> Vec<Seen> {
    let until = Instant::now() + Duration::from_secs(plan.seconds);
    let tasks: Vec<_> = (0..plan.connections)
        .map(|index| tokio::task::spawn_local(connection(Rc::clone(&plan), index, until)))
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.expect("a connection's task"));
    }
    seen
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
        seen.micros.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
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
