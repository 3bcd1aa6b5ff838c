//! Answers of a broker that may be anything, as our own client reads them.

#![no_main]

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ResponseKind};
use libfuzzer_sys::fuzz_target;
use stonelog_protocol::api::APIS;
use stonelog_protocol::bounds::check_response;

fuzz_target!(|input: &[u8]| {
    let [first, second, body @ ..] = input else { return };
    let api = &APIS[usize::from(*first) % APIS.len()];
    let versions = (api.accepted.end() - api.accepted.start() + 1) as u8;
    let version = api.accepted.start() + i16::from(second % versions);
    if check_response(api.name, version, body).is_ok()
        && let Ok(key) = ApiKey::try_from(api.key())
    {
        let _ = ResponseKind::decode(key, &mut Bytes::copy_from_slice(body), version);
    }
});
