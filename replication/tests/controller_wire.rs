//! Every controller request and response to bytes and back, and hostile bytes, with a cap on allocation.
//!
//! Samples are generated: empty, extreme, and many at random, so that each field is present somewhere and absent
//! somewhere.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod wire_samples;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use stonelog_replication::controller::wire::{
    Decided, ELEMENTS_MAX, Kind, decode_decided, decode_request, encode_decided, encode_request,
};
use stonelog_replication::controller::{ConfigResult, ControllerResponse};
use stonelog_replication::metadata::ConfigResource;
use wire_samples::{Samples, request, response};

/// Allocation per byte of input: an element in memory is bigger than the least it takes on the wire, a growing vector
/// is copied, and a map of settings is made of a list of them.
const ALLOCATED_BYTES_RATIO: usize = 100;
/// Allocation that any decode may do, whatever its input.
const ALLOCATED_BYTES_BASE: usize = 1 << 10;

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

/// Decodes, and holds what that allocates against the cap; what could be decoded has to encode to the same bytes.
fn judge(name: &str, bytes: &[u8], read: fn(&[u8]) -> Option<Vec<u8>>) -> bool {
    let written = read(bytes);
    if let Some(written) = &written {
        assert_eq!(written, bytes, "{name}: what was read is written as other bytes");
    }
    written.is_some()
}

fn bounded<T>(input: &[u8], work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED_BYTES.get();
    let result = work();
    let allocated = ALLOCATED_BYTES.get() - before;
    let cap = ALLOCATED_BYTES_BASE + ALLOCATED_BYTES_RATIO * input.len();
    assert!(allocated <= cap, "{allocated} bytes allocated to read {}: {input:?}", input.len());
    result
}

fn read_request(bytes: &[u8]) -> Option<Vec<u8>> {
    let request = bounded(bytes, || decode_request(bytes)).ok()?;
    Some(encode_request(&request).unwrap().to_vec())
}

fn read_decided(bytes: &[u8]) -> Option<Vec<u8>> {
    let decided = bounded(bytes, || decode_decided(bytes)).ok()?;
    Some(encode_decided(&decided).to_vec())
}

/// The bytes of every sample: requests, or responses.
fn samples(requests: bool) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        for seed in 0..Samples::COUNT {
            let mut samples = Samples::new(seed);
            let name = format!("{kind:?}, sample {seed}");
            let bytes = if requests {
                let request = request(*kind, &mut samples);
                assert_eq!(request.kind(), *kind);
                let bytes = encode_request(&request).unwrap();
                assert_eq!(decode_request(&bytes), Ok(request), "{name}");
                bytes
            } else {
                let decided = Decided { at: samples.number() as u64, response: response(*kind, &mut samples) };
                assert_eq!(decided.response.kind(), *kind);
                let bytes = encode_decided(&decided);
                assert_eq!(decode_decided(&bytes), Ok(decided), "{name}");
                bytes
            };
            all.push((name, bytes.to_vec()));
        }
    }
    all
}

fn attack(requests: bool) {
    let read = if requests { read_request } else { read_decided };
    let (mut refused, mut other) = (0, 0);
    for (name, bytes) in samples(requests) {
        assert!(judge(&name, &bytes, read), "{name} cannot be read");
        for len in 0..bytes.len() {
            assert!(!judge(&name, &bytes[..len], read), "{name}: {len} bytes of {}", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(!judge(&name, &longer, read), "{name}: with a byte more");
        // The long texts of the extreme samples are letters, every one as good as the other.
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes.len() < 4_000 || bytes[*at] != b'x').collect();
        let mut hostile = bytes.clone();
        for at in places {
            for bit in 0..8 {
                hostile[at] ^= 1 << bit;
                if judge(&name, &hostile, read) {
                    other += 1
                } else {
                    refused += 1
                }
                hostile[at] ^= 1 << bit;
            }
        }
    }
    // Neither is rare, or the samples say nothing.
    assert!(refused > 1_000 && other > 1_000, "{refused} refused, {other} read as something else");
}

#[test]
fn every_request_survives_truncation_and_flipped_bits() {
    attack(true);
}

#[test]
fn every_response_survives_truncation_and_flipped_bits() {
    attack(false);
}

#[test]
fn count_beyond_the_bytes_at_hand_allocates_nothing() {
    for kind in 0..=u8::MAX {
        for promised in [1_000_000u32, u32::MAX] {
            // A count in every place where one may be.
            for zeroes in 0..40 {
                let mut bytes = vec![1, kind];
                bytes.extend(vec![0; zeroes]);
                bytes.extend(promised.to_be_bytes());
                bytes.extend([0; 8]);
                judge("a false count", &bytes, read_request);
                judge("a false count", &bytes, read_decided);
            }
        }
    }
}

#[test]
fn unknown_versions_and_kinds_are_refused() {
    for (version, kind) in [(0, 1), (2, 1), (1, 0), (1, 18), (1, 255)] {
        let bytes = [&[version, kind][..], &[0; 64]].concat();
        assert!(decode_request(&bytes).is_err() && decode_decided(&bytes).is_err(), "version {version} kind {kind}");
    }
}

#[test]
fn more_warnings_than_can_be_read_do_not_cost_the_answer() {
    let result =
        ConfigResult { resource: ConfigResource::Broker(None), result: Ok(vec!["w".into(); ELEMENTS_MAX + 1]) };
    let whole = Decided { at: 7, response: ControllerResponse::IncrementalAlterConfigs(vec![result.clone()]) };
    let read = decode_decided(&encode_decided(&whole)).unwrap();
    let ControllerResponse::IncrementalAlterConfigs(results) = read.response else { panic!("{:?}", read.response) };
    assert_eq!(results[0].resource, result.resource);
    assert_eq!(results[0].result.as_ref().unwrap().len(), ELEMENTS_MAX);
}
