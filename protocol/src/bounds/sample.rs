//! Valid bodies made from the shapes: seeds for tests and fuzzers.
//!
//! A body made here has every field of its version, several elements in every array and every known tag. That it is
//! truly valid is proved against kafka-protocol, which decodes it and encodes the same bytes again.

use super::shape::{Kind, Shape};
use super::{requests, responses};
use crate::api::ApiName;
use crate::varint;

/// A valid request body of (`api`, `version`), the same for the same `seed`. `version` is one that the API accepts.
pub fn sample_request(api: ApiName, version: i16, seed: u64) -> Vec<u8> {
    sample(requests::shape(api), version, api.api().is_flexible(version), seed)
}

/// A valid response body of (`api`, `version`), the same for the same `seed`. `version` is one that the API accepts.
pub fn sample_response(api: ApiName, version: i16, seed: u64) -> Vec<u8> {
    sample(responses::shape(api), version, api.api().is_flexible(version), seed)
}

fn sample(shape: &Shape, version: i16, flexible: bool, seed: u64) -> Vec<u8> {
    let mut sampler = Sampler { out: Vec::new(), version, flexible, state: seed ^ 0x9e37_79b9_7f4a_7c15 };
    sampler.shape(shape);
    sampler.out
}

struct Sampler {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    state: u64,
}

impl Sampler {
    /// The next of a xorshift sequence.
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, bound: u64) -> usize {
        (self.next() % bound) as usize
    }

    fn shape(&mut self, shape: &Shape) {
        for field in shape.fields(self.version) {
            self.kind(&field.kind);
        }
        if self.flexible {
            self.tags(shape);
        }
    }

    fn kind(&mut self, kind: &Kind) {
        match kind {
            Kind::Bool => {
                let bit = self.below(2) as u8;
                self.out.push(bit);
            }
            Kind::Fixed(bytes) => {
                for _ in 0..*bytes {
                    // Never 0, so that no number is by chance the default of a tagged field, which is left out.
                    let byte = 1 + self.below(255) as u8;
                    self.out.push(byte);
                }
            }
            Kind::Text => {
                let length = 1 + self.below(12);
                self.length(length, 2);
                for _ in 0..length {
                    let letter = b'a' + self.below(26) as u8;
                    self.out.push(letter);
                }
            }
            Kind::Blob => {
                let length = self.below(40);
                self.length(length, 4);
                for _ in 0..length {
                    let byte = self.next() as u8;
                    self.out.push(byte);
                }
            }
            Kind::Array(element) => {
                let count = 2 + self.below(3);
                self.length(count, 4);
                for _ in 0..count {
                    self.kind(element);
                }
            }
            Kind::Struct(shape) => self.shape(shape),
            Kind::OptionStruct(shape) => {
                self.out.push(1);
                self.shape(shape);
            }
        }
    }

    fn length(&mut self, length: usize, plain_bytes: usize) {
        match (self.flexible, plain_bytes) {
            (true, _) => varint::put_u64(&mut self.out, length as u64 + 1),
            (false, 2) => self.out.extend((length as i16).to_be_bytes()),
            (false, _) => self.out.extend((length as i32).to_be_bytes()),
        }
    }

    /// Every known tag of this version, then an unknown one.
    fn tags(&mut self, shape: &Shape) {
        let known: Vec<_> = shape.tags.iter().filter(|tag| tag.since <= self.version).collect();
        varint::put_u64(&mut self.out, known.len() as u64 + 1);
        for tag in known {
            varint::put_u64(&mut self.out, u64::from(tag.tag));
            let before = std::mem::take(&mut self.out);
            match tag.kind {
                // The default of a tagged field is left out.
                Kind::Bool => self.out.push(1),
                _ => self.kind(&tag.kind),
            }
            let value = std::mem::replace(&mut self.out, before);
            varint::put_u64(&mut self.out, value.len() as u64);
            self.out.extend(value);
        }
        let unknown = 1_000 + self.next() % 1_000;
        varint::put_u64(&mut self.out, unknown);
        self.out.extend([2, 0xab, 0xcd]);
    }
}
