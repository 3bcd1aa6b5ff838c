//! Hostile clients against a broker process: it stays up, a good client is served, and memory stays bounded.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use stonelog_protocol::api::{APIS, Api, ApiName};
use stonelog_protocol::bounds::sample_request;
use stonelog_tests::broker::{Broker, Spec};
use stonelog_tests::mutate::mutate;
use stonelog_tests::random::Random;
use tempfile::TempDir;

/// An answer that does not come within this never comes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// A broker that was attacked holds no more than this: a build without optimisation idles at some 50 MiB.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;
/// UNSUPPORTED_VERSION.
const UNSUPPORTED_VERSION: [u8; 2] = 35i16.to_be_bytes();

struct Victim {
    broker: Broker,
    spec: Spec,
    _directory: TempDir,
}

impl Victim {
    fn start() -> Victim {
        let directory = tempfile::tempdir().unwrap();
        let binary = env!("CARGO_BIN_EXE_stonelog-under-test").into();
        let mut spec = Spec::new(binary, directory.path().join("data")).unwrap();
        spec.settings.push("num.partitions=1".to_owned());
        let broker = Broker::start(&spec).unwrap();
        Victim { broker, spec, _directory: directory }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.spec.address()).unwrap();
        stream.set_read_timeout(Some(ANSWERED_WITHIN)).unwrap();
        stream.set_write_timeout(Some(ANSWERED_WITHIN)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The broker lives, holds little, and serves a client that writes, reads and checks.
    fn expect_well(&mut self) {
        self.broker.expect_running().unwrap();
        let resident = self.broker.resident_bytes().unwrap();
        assert!(resident <= RESIDENT_BYTES_MAX, "{} MiB resident", resident >> 20);
        let address = self.spec.address();
        let arguments = ["verify", "--brokers", &address, "--records", "500", "--partitions", "2", "--groups", "0"];
        let output = Command::new(&self.spec.binary).args(arguments).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "a good client failed:\n{report}{errors}\n{}", self.broker.output());
    }
}

/// A frame of (`key`, `version`) with its length.
fn frame(key: i16, version: i16, header_version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7i32.to_be_bytes());
    frame.extend(4i16.to_be_bytes());
    frame.extend(b"evil");
    if header_version >= 2 {
        frame.push(0);
    }
    frame.extend(body);
    let mut framed = (frame.len() as i32).to_be_bytes().to_vec();
    framed.extend(frame);
    framed
}

fn frame_of(api: &Api, version: i16, body: &[u8]) -> Vec<u8> {
    frame(api.key(), version, api.request_header_version(version), body)
}

/// Sends `bytes`, says that nothing follows, and reads what comes until the broker closes.
fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    // The broker may have closed, and reset, before everything was sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(error) => panic!("neither an answer nor an end: {error}"),
    }
    answer
}

#[test]
fn lengths_that_cannot_be_end_the_connection() {
    let mut victim = Victim::start();
    let http = i32::from_be_bytes(*b"GET ");
    for length in [-1, i32::MIN, i32::MAX, http, 0, 1, 2, 3, 4, 7, 200 << 20] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([0; 64]);
        assert_eq!(exchange(victim.connect(), &bytes), b"", "length {length}");
    }
    victim.expect_well();
}

#[test]
fn huge_counts_are_refused_before_anything_is_allocated() {
    let mut victim = Victim::start();
    for api in APIS {
        for version in api.accepted.clone() {
            let fixed = [0x7f, 0xff, 0xff, 0xff].repeat(16);
            let compact = [0xff, 0xff, 0xff, 0xff, 0x07].repeat(16);
            for body in [fixed, compact] {
                // Some of these are legal bodies of other fields; whatever comes, the connection ends and nothing grows.
                let mut stream = victim.connect();
                stream.write_all(&frame_of(api, version, &body)).unwrap();
            }
        }
    }
    let metadata = ApiName::Metadata.api();
    for version in 0..=1 {
        let answer = exchange(victim.connect(), &frame_of(metadata, version, &i32::MAX.to_be_bytes()));
        assert_eq!(answer, b"", "2,147,483,647 topics in four bytes");
    }
    victim.expect_well();
}

#[test]
fn unknown_keys_and_versions_end_the_connection() {
    let mut victim = Victim::start();
    for key in [-1, 4, 5, 6, 7, 17, 24, 68, 99, 1_000, i16::MAX, i16::MIN] {
        assert_eq!(exchange(victim.connect(), &frame(key, 0, 1, &[0; 32])), b"", "key {key}");
    }
    for api in APIS {
        let (first, last) = (*api.accepted.start(), *api.accepted.end());
        for version in [-1, first - 1, last + 1, i16::MAX, i16::MIN] {
            if api.name == ApiName::ApiVersions && version > last {
                continue;
            }
            let answer = exchange(victim.connect(), &frame(api.key(), version, 1, &[0; 32]));
            assert_eq!(answer, b"", "{} v{version}", api.name);
        }
    }
    victim.expect_well();
}

#[test]
fn a_newer_api_versions_is_answered_in_version_0() {
    let victim = Victim::start();
    for version in [5, 9, i16::MAX] {
        let answer = exchange(victim.connect(), &frame(ApiName::ApiVersions.key(), version, 2, b"what may come"));
        assert_eq!(answer.get(4..8), Some(7i32.to_be_bytes().as_slice()), "v{version}: the correlation id");
        assert_eq!(answer.get(8..10), Some(UNSUPPORTED_VERSION.as_slice()), "v{version}: the error");
    }
}

#[test]
fn half_frames_hold_nobody_up() {
    let mut victim = Victim::start();
    let mut held = Vec::new();
    for index in 0..100 {
        let api = &APIS[index % APIS.len()];
        let version = *api.accepted.end();
        let whole = frame_of(api, version, &sample_request(api.name, version, index as u64));
        let half = &whole[..whole.len() / 2];
        let mut stream = victim.connect();
        stream.write_all(half).unwrap();
        if index % 2 == 0 {
            // The other half of them goes away in the middle of the frame.
            held.push(stream);
        }
    }
    // Announced in full, sent in part: memory follows what arrives.
    for _ in 0..50 {
        let mut stream = victim.connect();
        stream.write_all(&(100i32 << 20).to_be_bytes()).unwrap();
        stream.write_all(&[0, 0, 0, 3]).unwrap();
        held.push(stream);
    }
    victim.expect_well();
    drop(held);
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_answered() {
    let victim = Victim::start();
    let mut stream = victim.connect();
    for byte in frame(ApiName::ApiVersions.key(), 0, 1, &[]) {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..10], [0, 0, 0, 7, 0, 0]);
}

/// `WIRE_SEED` and `WIRE_REQUESTS` repeat and lengthen it.
#[test]
fn mutated_requests_leave_the_broker_standing() {
    const REQUESTS_PER_CONNECTION: u64 = 5;
    let number = |name, default| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    let (seed, requests): (u64, u64) = (number("WIRE_SEED", 1), number("WIRE_REQUESTS", 1_000));
    let mut victim = Victim::start();
    let mut random = Random::new(seed);
    let mut answered = 0;
    for connection in 0..requests / REQUESTS_PER_CONNECTION {
        let mut stream = victim.connect();
        for _ in 0..REQUESTS_PER_CONNECTION {
            let api = &APIS[random.below(APIS.len() as u64) as usize];
            let (first, last) = (*api.accepted.start(), *api.accepted.end());
            let version = first + random.below((last - first) as u64 + 1) as i16;
            let mut body = sample_request(api.name, version, random.below(8));
            // Legal nonsense gets further than what is refused at once, and readies the broker for what follows it.
            if random.below(2) == 0 {
                mutate(&mut random, &mut body);
            }
            if stream.write_all(&frame_of(api, version, &body)).is_err() {
                // Refused, and closed, as it should be.
                break;
            }
        }
        // Some of these are legal waits of any length: take what is there at once and go away.
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut some = [0; 1 << 14];
        answered += u64::from(stream.read(&mut some).is_ok_and(|read| read > 0));
        victim.broker.expect_running().unwrap_or_else(|error| panic!("seed {seed} connection {connection}: {error:#}"));
    }
    println!("seed {seed}: {answered} of {} connections were answered", requests / REQUESTS_PER_CONNECTION);
    assert!(answered > 0, "seed {seed}: nothing got past the first check");
    victim.expect_well();
}
