//! A load generator for benchmarks: many connections, each with a fixed number of Produce requests in flight.
//!
//! Prints one line of JSON: acknowledged records and bytes per second, latency percentiles, and errors. It measures and
//! judges nothing; ratios are made of two runs against two settings of the same broker, interleaved.
//!
//! ```text
//! load --addr 127.0.0.1:9092 --topic t --partitions 100 --connections 16 --in-flight 4 \
//!      --batch-records 15 --record-bytes 1024 --acks -1 --seconds 10
//! ```

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use stonelog_protocol::batch::{BatchBuilder, NewRecord};
use stonelog_protocol::codec::{decode_response, encode_request};
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{ProduceRequest, TopicName};
use stonelog_protocol::{StrBytes, Timestamp};
use stonelog_tests::generator::{Arguments, Latencies, micros_since, run_connections};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The Produce version used; the last that names topics and is flexible.
const VERSION: i16 = 9;
/// Requests that a connection sends in turn.
const FRAMES_MIN: usize = 64;

/// What to do.
struct Plan {
    addr: String,
    topic: String,
    partitions: usize,
    connections: usize,
    in_flight: usize,
    batch_records: usize,
    record_bytes: usize,
    acks: i16,
    seconds: u64,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    requests: u64,
    errors: u64,
    micros: Vec<u32>,
}

fn main() {
    let plan = Rc::new(plan());
    let seen =
        run_connections(plan.connections, plan.seconds, |index, until| connection(Rc::clone(&plan), index, until));
    report(&plan, seen);
}

fn plan() -> Plan {
    let arguments = Arguments::read();
    Plan {
        addr: arguments.text("--addr", "127.0.0.1:9092"),
        topic: arguments.text("--topic", "load"),
        partitions: arguments.number("--partitions", 1),
        connections: arguments.number("--connections", 16),
        in_flight: arguments.number("--in-flight", 4),
        batch_records: arguments.number("--batch-records", 1),
        record_bytes: arguments.number("--record-bytes", 1024),
        acks: arguments.number("--acks", -1),
        seconds: arguments.number("--seconds", 5),
    }
}

#[allow(clippy::disallowed_methods, reason = "a load generator measures time")]
async fn connection(plan: Rc<Plan>, index: usize, until: Instant) -> Seen {
    let mut socket = TcpStream::connect(&plan.addr).await.expect("a broker at --addr");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    // One frame for each partition this connection writes to, and as many with few partitions, so that the processor's
    // caches hold no more of them; only the correlation id differs, which nobody reads.
    let own = (plan.partitions / plan.connections).max(1);
    let frames: Vec<Bytes> =
        (0..own.max(FRAMES_MIN)).map(|n| frame(&plan, (index * own + n % own) % plan.partitions)).collect();
    let mut seen = Seen::default();
    let mut sent: VecDeque<Instant> = VecDeque::new();
    let mut buffer = BytesMut::with_capacity(64 << 10);
    let mut next = 0;
    loop {
        let open = Instant::now() < until;
        while open && sent.len() < plan.in_flight {
            socket.write_all(&frames[next % frames.len()]).await.expect("a connection");
            sent.push_back(Instant::now());
            next += 1;
        }
        if sent.is_empty() {
            return seen;
        }
        while let Some(answer) = take_frame(&mut buffer) {
            let (_, response) = decode_response::<ProduceRequest>(VERSION, answer).expect("a Produce response");
            let failed = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            seen.errors += failed.filter(|partition| partition.error_code != 0).count() as u64;
            seen.requests += 1;
            if let Some(begun) = sent.pop_front() {
                seen.micros.push(micros_since(begun));
            }
        }
        if !sent.is_empty() && (sent.len() >= plan.in_flight || !open) {
            buffer.reserve(16 << 10);
            assert!(socket.read_buf(&mut buffer).await.expect("a connection") > 0, "the broker closed the connection");
        }
    }
}

fn take_frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(buffer.get(..4)?.try_into().ok()?) as usize;
    if buffer.len() < 4 + length {
        return None;
    }
    Some(buffer.split_to(4 + length).freeze().slice(4..))
}

fn frame(plan: &Plan, partition: usize) -> Bytes {
    let value = vec![b'x'; plan.record_bytes];
    let mut batch = BatchBuilder::new();
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
    for _ in 0..plan.batch_records {
        batch.push(NewRecord::new(Timestamp(now), None, Some(&value)));
    }
    let records = Bytes::from(batch.build().expect("an uncompressed batch"));
    let partition = PartitionProduceData::default().with_index(partition as i32).with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(plan.topic.clone())))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_acks(plan.acks).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    encode_request(VERSION, 0, Some("load"), &request).expect("a request").freeze()
}

fn report(plan: &Plan, seen: Vec<Seen>) {
    let requests: u64 = seen.iter().map(|seen| seen.requests).sum();
    let errors: u64 = seen.iter().map(|seen| seen.errors).sum();
    let latencies = Latencies::of(seen.into_iter().flat_map(|seen| seen.micros));
    let records = requests * plan.batch_records as u64;
    println!(
        "{{\"records_per_s\":{},\"megabytes_per_s\":{:.1},\"p50_us\":{},\"p99_us\":{},\"p999_us\":{},\"errors\":{errors}}}",
        records / plan.seconds,
        records as f64 * plan.record_bytes as f64 / plan.seconds as f64 / 1e6,
        latencies.percentile(0.50),
        latencies.percentile(0.99),
        latencies.percentile(0.999),
    );
}
