//! A seeded mutation fuzzer over every (API, version) and over record batches, with a cap on allocation.
//!
//! Every byte handed out by the allocator while bytes from the wire are read is counted per thread, and compared with a
//! cap that depends on the input's length alone. A failure prints what replays it. `HOSTILE_ROUNDS` sets the mutations
//! per seed body for longer runs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ResponseKind};
use stonelog_protocol::api::{APIS, ApiName};
use stonelog_protocol::batch::{
    BatchBuilder, BatchHeader, BatchRules, Batches, Compression, HEADER_BYTES, NewRecord, Records, validate_produced,
};
use stonelog_protocol::bounds::{check_request, check_response, sample_request, sample_response};
use stonelog_protocol::codec::decode_request;
use stonelog_protocol::{RequestHead, Timestamp};

/// Allocation that any decode may do, whatever its input.
const ALLOCATED_BYTES_BASE: usize = 4 << 20;
/// Allocation per byte of input.
const ALLOCATED_BYTES_RATIO: usize = 200;

struct Counting;

thread_local! {
    static ALLOCATED_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // A thread that is ending has no counter any more, and nobody who reads it.
    let _ = ALLOCATED_BYTES.try_with(|allocated| allocated.set(allocated.get().saturating_add(bytes)));
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises about `layout` hold for the system's allocator as well.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from the system's allocator, by `alloc` or `realloc` above and below.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: as for `dealloc`; the new size is passed on unchanged.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and holds what it allocated against the cap for `input_bytes`.
fn bounded<T>(input_bytes: usize, name: &dyn Fn() -> String, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED_BYTES.get();
    let result = work();
    let allocated = ALLOCATED_BYTES.get() - before;
    let cap = ALLOCATED_BYTES_BASE + ALLOCATED_BYTES_RATIO * input_bytes;
    assert!(allocated <= cap, "{}: {allocated} bytes allocated for {input_bytes}, cap {cap}", name());
    result
}

fn rounds(default: u64) -> u64 {
    std::env::var("HOSTILE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

/// A splitmix sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Values that lengths and counts are most likely to be mishandled at.
const NUMBERS: [&[u8]; 9] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x80],
    &[0, 0, 0, 0],
    &[0x00, 0x10, 0, 0],
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let length = random.below(16);
                let inserted = random.bytes(length);
                bytes.splice(at..at, inserted);
            }
            4 => {
                let end = (at + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + random.below(64)).min(bytes.len());
                let copied = bytes[at..end].to_vec();
                bytes.splice(end..end, copied);
            }
            _ => {
                let number = NUMBERS[random.below(NUMBERS.len())];
                let end = (at + number.len()).min(bytes.len());
                bytes.splice(at..end, number.iter().copied());
            }
        }
    }
}

#[test]
fn mutated_requests_decode_or_fail_within_the_cap() {
    let rounds = rounds(400);
    let mut decoded = 0;
    for api in APIS {
        for version in api.accepted.clone() {
            for seed in 0..rounds {
                let mut random = Random(seed);
                let mut body = sample_request(api.name, version, seed % 8);
                mutate(&mut random, &mut body);
                let length = body.len();
                let body = Bytes::from(body);
                let name = || format!("{} v{version} seed {seed}", api.name);
                decoded += usize::from(bounded(length, &name, || decode_request(api.name, version, body)).is_ok());
            }
        }
    }
    // Mutants that change only content still decode: without any, the fuzzer would only test the first check.
    assert!(decoded > 100, "{decoded}");
}

#[test]
fn mutated_responses_decode_or_fail_within_the_cap() {
    let mut decoded = 0;
    for api in APIS {
        let key = ApiKey::try_from(api.key()).unwrap();
        for version in api.accepted.clone() {
            for seed in 0..rounds(100) {
                let mut random = Random(seed);
                let mut body = sample_response(api.name, version, seed % 8);
                mutate(&mut random, &mut body);
                let length = body.len();
                let mut body = Bytes::from(body);
                let name = || format!("{} response v{version} seed {seed}", api.name);
                let is_decoded = bounded(length, &name, || {
                    check_response(api.name, version, &body).is_ok()
                        && ResponseKind::decode(key, &mut body, version).is_ok()
                });
                decoded += usize::from(is_decoded);
            }
        }
    }
    assert!(decoded > 100, "{decoded}");
}

#[test]
fn random_bytes_decode_or_fail_within_the_cap() {
    for api in APIS {
        for version in api.accepted.clone() {
            for seed in 0..rounds(100) {
                let mut random = Random(seed);
                let length = random.below(300);
                let body = Bytes::from(random.bytes(length));
                let name = || format!("{} v{version} seed {seed}", api.name);
                let _ = bounded(length, &name, || decode_request(api.name, version, body));
            }
        }
    }
}

#[test]
fn every_truncation_of_a_request_is_refused() {
    for api in APIS {
        for version in api.accepted.clone() {
            let body = Bytes::from(sample_request(api.name, version, 5));
            for length in 0..body.len() {
                let cut = body.slice(..length);
                let name = || format!("{} v{version} cut at {length}", api.name);
                let result = bounded(length, &name, || decode_request(api.name, version, cut));
                assert!(result.is_err(), "{} v{version} cut at {length}", api.name);
            }
        }
    }
}

#[test]
fn the_densest_bodies_stay_within_the_cap() {
    // As many of the smallest elements as a mebibyte holds, where one byte of input costs the most memory.
    let count = 250_000u32;
    let mut empty_names = vec![0x91, 0xa1, 0x0f]; // 250,001 as a compact count is one more than the elements
    assert_eq!(count, 0x3d090);
    empty_names.extend(vec![1; count as usize]);
    empty_names.push(0);
    let length = empty_names.len();
    let name = || "DeleteGroups of empty names".to_string();
    let request = bounded(length, &name, || decode_request(ApiName::DeleteGroups, 2, Bytes::from(empty_names)));
    assert!(request.is_ok(), "{request:?}");

    let mut null_topics = vec![0x91, 0xa1, 0x0f];
    null_topics.extend([1, 0].repeat(count as usize)); // an empty name and no tags
    null_topics.extend([1, 0, 0, 0]);
    let length = null_topics.len();
    let name = || "Metadata of empty names".to_string();
    let request = bounded(length, &name, || decode_request(ApiName::Metadata, 9, Bytes::from(null_topics)));
    assert!(request.is_ok(), "{request:?}");
}

#[test]
fn mutated_frames_have_a_head_or_none() {
    let bytes = [0, 3, 0, 9, 0, 0, 0, 7, 0, 4, b'n', b'a', b'm', b'e', 1, 0, 2, 1, 1, 0, 0, 0, 0, 0];
    for seed in 0..rounds(20_000) {
        let mut random = Random(seed);
        let mut frame = bytes.to_vec();
        mutate(&mut random, &mut frame);
        let length = frame.len();
        if let Ok((head, body)) =
            bounded(length, &|| format!("frame seed {seed}"), || RequestHead::read(Bytes::from(frame)))
            && !head.is_newer_api_versions()
        {
            let _ = check_request(head.name(), head.api_version, &body);
        }
    }
}

fn batch(codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compressed(codec, None);
    let headers: &[(&[u8], Option<&[u8]>)] = &[(b"a", Some(b"1")), (b"a", None)];
    for index in 0..20u8 {
        let value = vec![index; 20 * usize::from(index)];
        builder.push(NewRecord { timestamp: Timestamp(1000), key: Some(&[index]), value: Some(&value), headers });
    }
    builder.build().expect("every codec has its default level")
}

/// Makes the CRC and the length right again, so that the mutation is seen by what comes after them.
fn repaired(mut batch: Vec<u8>) -> Vec<u8> {
    if batch.len() >= HEADER_BYTES {
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch
}

#[test]
fn mutated_batches_are_judged_within_the_cap() {
    // Codecs hold windows and hash tables of their own; output is bounded by the rules.
    let rules = BatchRules { decompressed_bytes_max: 1 << 20, ..BatchRules::default() };
    let codec_bytes = 12 << 20;
    let mut accepted = 0;
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let valid = batch(codec);
        assert!(validate_produced(&valid, 9, &rules, Timestamp(1000)).is_ok());
        for seed in 0..rounds(3_000) {
            let mut random = Random(seed);
            let mut bytes = valid.clone();
            mutate(&mut random, &mut bytes);
            let bytes = if seed % 4 == 0 { bytes } else { repaired(bytes) };
            let name = || format!("batch {codec:?} seed {seed}");
            let judged = bounded(codec_bytes / ALLOCATED_BYTES_RATIO + bytes.len(), &name, || {
                validate_produced(&bytes, 9, &rules, Timestamp(1000))
            });
            accepted += usize::from(judged.is_ok());
            for (header, batch) in Batches::new(&bytes).flatten() {
                let _ = Records::new(&batch[HEADER_BYTES..], header.records_count).count();
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn random_record_sections_end() {
    for seed in 0..rounds(20_000) {
        let mut random = Random(seed);
        let length = random.below(200);
        let bytes = random.bytes(length);
        let count = random.next() as i32;
        let walked = bounded(0, &|| format!("records seed {seed}"), || Records::new(&bytes, count).count());
        assert!(walked <= length + 1);
        let _ = BatchHeader::read(&bytes);
    }
}
