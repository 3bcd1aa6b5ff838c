//! Damage done to valid bytes, the same for the same seed.

use crate::random::Random;

/// Values at which lengths and counts are most likely to be mishandled, as fixed and as variable-length numbers.
const NUMBERS: [&[u8]; 8] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x80],
    &[0, 0, 0, 0],
    &[0x00, 0x10, 0, 0],
];

/// Damages `bytes` in one to four places.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let length = random.below(16) as usize;
        let end = (at + length).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => {
                let inserted = random.bytes(length);
                bytes.splice(at..at, inserted);
            }
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copied = bytes[at..end].to_vec();
                bytes.splice(end..end, copied);
            }
            _ => {
                let number = NUMBERS[random.below(NUMBERS.len() as u64) as usize];
                let end = (at + number.len()).min(bytes.len());
                bytes.splice(at..end, number.iter().copied());
            }
        }
    }
}
