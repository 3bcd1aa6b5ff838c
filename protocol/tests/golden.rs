//! Golden bytes: what Kafka 4.3.1 itself writes, and what it was seen to read whole and write again unchanged.
//!
//! `golden/Golden.java` made the batches and `errors.txt` with Kafka's classes. `requests.txt`, `responses.txt` and
//! `fetch-responses.txt` are ours, checked by it line by line; after `GOLDEN_WRITE=1` has written them anew, they have
//! to be checked again.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseKind};
use stonelog_protocol::api::{self, APIS, ApiName};
use stonelog_protocol::batch::{
    BatchBuilder, BatchHeader, BatchRules, Compression, HEADER_BYTES, NewRecord, crc_matches, open_records,
    validate_produced,
};
use stonelog_protocol::bounds::{check_response, sample_request, sample_response};
use stonelog_protocol::codec::decode_request;
use stonelog_protocol::codec::fetch::{
    AbortedTransaction, CurrentLeader, EpochEnd, FetchPartition, FetchResponse, FetchTopic, NodeEndpoint,
    encode_fetch_response,
};
use stonelog_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, Uuid,
};

const CODECS: [(Compression, &str); 5] = [
    (Compression::None, "batch-none.bin"),
    (Compression::Gzip, "batch-gzip.bin"),
    (Compression::Snappy, "batch-snappy.bin"),
    (Compression::Lz4, "batch-lz4.bin"),
    (Compression::Zstd, "batch-zstd.bin"),
];

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("golden files lie beside this test")
}

/// The lines of a golden text, written anew on demand.
fn golden_text(name: &str, ours: impl FnOnce() -> String) -> String {
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(path(name), ours()).expect("the golden directory can be written");
    }
    String::from_utf8(golden(name)).expect("golden texts are UTF-8")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits")).collect()
}

fn builder() -> BatchBuilder {
    let mut builder = BatchBuilder::new().by_producer(ProducerId(4242), ProducerEpoch(3), 17);
    let headers: &[(&[u8], Option<&[u8]>)] = &[(b"same", Some(b"1")), (b"same", None), (b"", Some(b""))];
    let first = Timestamp(1_700_000_000_000);
    builder.push(NewRecord { timestamp: first, key: Some(b"key"), value: Some(b"value"), headers });
    builder.push(NewRecord::new(Timestamp(1_700_000_000_400), None, Some(b"")));
    builder.push(NewRecord::new(Timestamp(1_699_999_999_000), Some(b""), None));
    let long = b"0123456789".repeat(400);
    builder.push(NewRecord::new(Timestamp(1_700_000_000_100), Some(b"long"), Some(&long)));
    builder
}

#[test]
fn an_uncompressed_batch_is_built_as_kafka_builds_it() {
    assert_eq!(hex(&builder().build().unwrap()), hex(&golden("batch-none.bin")));
}

#[test]
fn kafkas_batches_of_every_codec_open_to_the_same_records_and_are_accepted() {
    let plain = golden("batch-none.bin");
    for (codec, name) in CODECS {
        let batch = golden(name);
        let header = BatchHeader::read(&batch).unwrap();
        assert!(crc_matches(&batch), "{name}");
        assert_eq!(header.compression(), Some(codec));
        assert_eq!(&*open_records(&batch, &header, 10_000).unwrap(), &plain[HEADER_BYTES..], "{name}");
        let produced = validate_produced(&batch, 9, &BatchRules::default(), Timestamp(1_700_000_000_000)).unwrap();
        assert_eq!(produced.max_timestamp, header.max_timestamp);
    }
}

#[test]
fn a_transaction_marker_is_built_as_kafka_builds_it() {
    let mut builder = BatchBuilder::new()
        .by_producer(ProducerId(4242), ProducerEpoch(3), -1)
        .transactional()
        .control()
        .at(Offset(100), LeaderEpoch(5));
    let (commit, coordinator_epoch_9) = ([0, 0, 0, 1], [0, 0, 0, 0, 0, 9]);
    builder.push(NewRecord::new(Timestamp(1_700_000_000_000), Some(&commit), Some(&coordinator_epoch_9)));
    assert_eq!(hex(&builder.build().unwrap()), hex(&golden("commit-marker.bin")));
}

#[test]
fn error_codes_names_and_retriability_are_kafkas() {
    let ours = ErrorCode::ALL.iter().fold(String::new(), |mut text, error| {
        let _ = writeln!(text, "{} {} {}", error.code(), error.name(), error.is_retriable());
        text
    });
    assert_eq!(ours, String::from_utf8(golden("errors.txt")).unwrap());
}

#[test]
fn requests_that_kafka_reads_whole_decode_at_every_version() {
    let text = golden_text("requests.txt", || {
        let versions = APIS.iter().flat_map(|api| api.accepted.clone().map(move |version| (api, version)));
        versions.fold(String::new(), |mut text, (api, version)| {
            let body = sample_request(api.name, version, 0);
            let _ = writeln!(text, "{} {version} {}", api.key(), hex(&body));
            text
        })
    });
    for line in text.lines() {
        let mut parts = line.split(' ');
        let api = api::find(parts.next().unwrap().parse().unwrap()).unwrap();
        let version: i16 = parts.next().unwrap().parse().unwrap();
        let body = Bytes::from(unhex(parts.next().unwrap()));
        let request = decode_request(api.name, version, body);
        assert!(request.is_ok(), "{} v{version}: {request:?}", api.name);
    }
    let versions: usize = APIS.iter().map(|api| api.accepted.clone().count()).sum();
    assert_eq!(text.lines().count(), versions, "one line per accepted version");
}

#[test]
fn responses_that_kafka_reads_whole_are_encoded_the_same_at_every_version() {
    let text = golden_text("responses.txt", || {
        let versions = APIS.iter().flat_map(|api| api.accepted.clone().map(move |version| (api, version)));
        versions.fold(String::new(), |mut text, (api, version)| {
            let body = sample_response(api.name, version, 0);
            let _ = writeln!(text, "{} {version} {}", api.key(), hex(&body));
            text
        })
    });
    for line in text.lines() {
        let mut parts = line.split(' ');
        let key: i16 = parts.next().unwrap().parse().unwrap();
        let version: i16 = parts.next().unwrap().parse().unwrap();
        let body = Bytes::from(unhex(parts.next().unwrap()));
        check_response(api::find(key).unwrap().name, version, &body).unwrap();
        let response = ResponseKind::decode(ApiKey::try_from(key).unwrap(), &mut body.clone(), version).unwrap();
        let mut encoded = BytesMut::new();
        response.encode(&mut encoded, version).unwrap();
        assert_eq!(hex(&encoded), hex(&body), "key {key} v{version}");
    }
    assert_eq!(text.lines().count(), APIS.iter().map(|api| api.accepted.clone().count()).sum());
}

fn fetch_response() -> FetchResponse {
    let fenced = FetchPartition {
        current_leader: Some(CurrentLeader { leader: BrokerId(3), leader_epoch: LeaderEpoch(8) }),
        ..FetchPartition::of_error(PartitionIndex(1), ErrorCode::FencedLeaderEpoch)
    };
    let diverging = FetchPartition {
        diverging_epoch: Some(EpochEnd { epoch: LeaderEpoch(4), end_offset: Offset(12) }),
        preferred_read_replica: Some(BrokerId(2)),
        ..FetchPartition::of_error(PartitionIndex(2), ErrorCode::None)
    };
    let aborted = AbortedTransaction { producer_id: ProducerId(9), first_offset: Offset(50) };
    let full = FetchPartition {
        high_watermark: Offset(104),
        last_stable_offset: Offset(90),
        log_start_offset: Offset(3),
        aborted_transactions: Some(vec![aborted]),
        records: vec![golden("batch-gzip.bin").into(), golden("batch-zstd.bin").into()],
        ..FetchPartition::of_error(PartitionIndex(3), ErrorCode::None)
    };
    let topic = |name: &str, id, partitions| FetchTopic { name: name.into(), id: Uuid([id; 16]), partitions };
    FetchResponse {
        throttle_ms: 5,
        error: ErrorCode::None,
        session_id: 77,
        topics: vec![topic("orders", 1, vec![fenced, full]), topic("payments", 2, vec![diverging])],
        node_endpoints: vec![
            NodeEndpoint { node: BrokerId(3), host: "three".into(), port: 9093, rack: Some("r".into()) },
            NodeEndpoint { node: BrokerId(4), host: "four".into(), port: 9094, rack: None },
        ],
    }
}

#[test]
fn fetch_responses_that_kafka_reads_whole_are_written_at_every_version() {
    let ours = ApiName::Fetch.api().accepted.clone().fold(String::new(), |mut text, version| {
        let frame = encode_fetch_response(version, 1, fetch_response()).unwrap().concat();
        let head_bytes = if version >= 12 { 9 } else { 8 };
        let _ = writeln!(text, "1 {version} {}", hex(&frame[head_bytes..]));
        text
    });
    assert_eq!(golden_text("fetch-responses.txt", || ours.clone()), ours);
}
