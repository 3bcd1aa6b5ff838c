//! Frames as they arrive: head, bounds, and the body of every (key, version). Nothing may panic or allocate by a count.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use stonelog_protocol::RequestHead;
use stonelog_protocol::api::APIS;
use stonelog_protocol::codec::decode_request;

fuzz_target!(|input: &[u8]| {
    let frame = Bytes::copy_from_slice(input);
    if let Ok((head, body)) = RequestHead::read(frame.clone())
        && !head.is_newer_api_versions()
    {
        let _ = decode_request(head.name(), head.api_version, body);
    }
    // The same bytes as the body that the first two choose, so that no header has to be guessed.
    if frame.len() >= 2 {
        let api = &APIS[usize::from(frame[0]) % APIS.len()];
        let versions = (api.accepted.end() - api.accepted.start() + 1) as u8;
        let version = api.accepted.start() + i16::from(frame[1] % versions);
        let _ = decode_request(api.name, version, frame.slice(2..));
    }
});
