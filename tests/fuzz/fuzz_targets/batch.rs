//! Record batches: headers, the walk over records, and validation with every codec under a small output limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stonelog_protocol::Timestamp;
use stonelog_protocol::batch::{BatchHeader, BatchRules, Batches, HEADER_BYTES, Records, validate_produced};

/// Output that a compressed batch may have here.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    judge(input);
    // With length and CRC made right the input gets past the first checks.
    if input.len() >= HEADER_BYTES {
        let mut repaired = input.to_vec();
        let length = (repaired.len() - 12) as i32;
        repaired[8..12].copy_from_slice(&length.to_be_bytes());
        repaired[16] = 2;
        let crc = crc32c(&repaired[21..]);
        repaired[17..21].copy_from_slice(&crc.to_be_bytes());
        judge(&repaired);
    }
});

fn judge(bytes: &[u8]) {
    let _ = BatchHeader::read(bytes);
    for (header, batch) in Batches::new(bytes).flatten() {
        let walked = Records::new(&batch[HEADER_BYTES..], header.records_count).count();
        assert!(walked <= batch.len() + 1, "a walk ends");
    }
    let rules = BatchRules { decompressed_bytes_max: DECOMPRESSED_BYTES_MAX, ..BatchRules::default() };
    let _ = validate_produced(bytes, 13, &rules, Timestamp(1_000));
}

/// CRC-32C bit by bit: slow, and independent of the code under test.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
