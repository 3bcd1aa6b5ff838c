//! Walks a body by its shape. No allocation, no recursion deeper than the shape.

use thiserror::Error;

use super::shape::{Kind, Shape};
use crate::varint;

/// Where and why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{problem} at byte {at}")]
pub struct BoundsError {
    /// Position in the body, in bytes.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The body ends inside a field.
    #[error("the body ends early")]
    Short,
    /// A text or blob announces a length below -1, or more than the body has left.
    #[error("a length of {0} does not fit the body")]
    Length(i64),
    /// An array announces a count below -1, or more elements than the body can hold.
    #[error("a count of {0} does not fit the body")]
    Count(i64),
    /// More array elements than the limit given here.
    #[error("the message has more than {0} elements")]
    TooManyElements(usize),
    /// A variable-length number does not end or does not fit 32 bits.
    #[error("a variable-length number is malformed")]
    Varint,
    /// Tagged fields are not in strictly ascending order.
    #[error("tag {0} is out of order")]
    TagOrder(u32),
    /// A known tagged field announces another size than it has.
    #[error("the size of tag {0} is wrong")]
    TagSize(u32),
    /// More unknown tagged fields than the limit given here.
    #[error("the message has more than {0} unknown tagged fields")]
    TooManyTags(usize),
    /// Bytes are left over.
    #[error("{0} bytes follow the body")]
    Trailing(usize),
}

/// What one message may cost beyond its own bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Array elements over all arrays.
    pub(super) elements_max: usize,
    /// Tagged fields without a known shape.
    pub(super) unknown_tags_max: usize,
}

/// Walks `body` and proves that it begins with one instance of `shape`. Returns how many bytes follow it.
pub(super) fn check(
    shape: &Shape,
    version: i16,
    flexible: bool,
    limits: Limits,
    body: &[u8],
) -> Result<usize, BoundsError> {
    let mut walker = Walker { body, at: 0, version, flexible, limits, elements: 0, unknown_tags: 0 };
    walker.shape(shape).map_err(|problem| BoundsError { at: walker.at, problem })?;
    Ok(body.len() - walker.at)
}

struct Walker<'a> {
    body: &'a [u8],
    /// Everything before this byte is proved. `at <= body.len()`.
    at: usize,
    version: i16,
    flexible: bool,
    limits: Limits,
    /// Array elements announced so far.
    elements: usize,
    /// Unknown tagged fields seen so far.
    unknown_tags: usize,
}

impl Walker<'_> {
    fn rest(&self) -> &[u8] {
        &self.body[self.at..]
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Problem> {
        if bytes > self.rest().len() {
            return Err(Problem::Short);
        }
        self.at += bytes;
        Ok(())
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = *self.rest().first_chunk().ok_or(Problem::Short)?;
        self.at += N;
        Ok(bytes)
    }

    fn uvarint(&mut self) -> Result<u32, Problem> {
        let (value, length) = varint::read_u32(self.rest()).ok_or(Problem::Varint)?;
        self.at += length;
        Ok(value)
    }

    /// A compact length: 0 is null, else one more than the length.
    fn compact_length(&mut self) -> Result<i64, Problem> {
        Ok(i64::from(self.uvarint()?) - 1)
    }

    fn shape(&mut self, shape: &Shape) -> Result<(), Problem> {
        for field in shape.fields(self.version) {
            self.kind(&field.kind)?;
        }
        if self.flexible { self.tags(shape) } else { Ok(()) }
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), Problem> {
        match kind {
            Kind::Bool => self.skip(1),
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => {
                let length = match self.flexible {
                    true => self.compact_length()?,
                    false => i64::from(i16::from_be_bytes(self.array_of()?)),
                };
                self.content(length)
            }
            Kind::Blob => {
                let length = match self.flexible {
                    true => self.compact_length()?,
                    false => i64::from(i32::from_be_bytes(self.array_of()?)),
                };
                self.content(length)
            }
            Kind::Array(element) => self.array(element),
            Kind::Struct(shape) => self.shape(shape),
            Kind::OptionStruct(shape) => match self.array_of()? {
                [1] => self.shape(shape),
                _ => Ok(()),
            },
        }
    }

    fn content(&mut self, length: i64) -> Result<(), Problem> {
        match usize::try_from(length) {
            Ok(bytes) => self.skip(bytes).map_err(|_| Problem::Length(length)),
            Err(_) if length == -1 => Ok(()),
            Err(_) => Err(Problem::Length(length)),
        }
    }

    fn array(&mut self, element: &Kind) -> Result<(), Problem> {
        let count = match self.flexible {
            true => self.compact_length()?,
            false => i64::from(i32::from_be_bytes(self.array_of()?)),
        };
        if count == -1 {
            return Ok(());
        }
        let announced = usize::try_from(count).map_err(|_| Problem::Count(count))?;
        let element_bytes_min = element.bytes_min(self.version, self.flexible);
        assert!(element_bytes_min > 0, "an element without bytes cannot be bounded by the body");
        if announced > self.rest().len() / element_bytes_min {
            return Err(Problem::Count(count));
        }
        self.elements += announced;
        if self.elements > self.limits.elements_max {
            return Err(Problem::TooManyElements(self.limits.elements_max));
        }
        if let Kind::Fixed(bytes) = element {
            return self.skip(announced * bytes);
        }
        for _ in 0..announced {
            self.kind(element)?;
        }
        Ok(())
    }

    fn tags(&mut self, shape: &Shape) -> Result<(), Problem> {
        let count = self.uvarint()?;
        let mut lowest_next = 0u64;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if u64::from(tag) < lowest_next {
                return Err(Problem::TagOrder(tag));
            }
            lowest_next = u64::from(tag) + 1;
            let size = self.uvarint()? as usize;
            if size > self.rest().len() {
                return Err(Problem::Length(size as i64));
            }
            let end = self.at + size;
            match shape.tags.iter().find(|known| known.tag == tag && known.since <= self.version) {
                // The decoder does not look at the size of a tag it knows, so it has to be right.
                Some(known) => self.kind(&known.kind)?,
                None => {
                    self.unknown_tags += 1;
                    if self.unknown_tags > self.limits.unknown_tags_max {
                        return Err(Problem::TooManyTags(self.limits.unknown_tags_max));
                    }
                    self.at = end;
                }
            }
            if self.at != end {
                return Err(Problem::TagSize(tag));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ELEMENTS_MAX, UNKNOWN_TAGS_MAX, check_request, check_response};
    use super::*;
    use crate::api::ApiName;

    fn refused(api: ApiName, version: i16, body: &[u8]) -> Problem {
        check_request(api, version, body).unwrap_err().problem
    }

    #[test]
    fn four_bytes_cannot_announce_two_billion_topics() {
        assert_eq!(refused(ApiName::Metadata, 1, &i32::MAX.to_be_bytes()), Problem::Count(i64::from(i32::MAX)));
        assert_eq!(refused(ApiName::Metadata, 1, &(-2i32).to_be_bytes()), Problem::Count(-2));
        assert_eq!(check_request(ApiName::Metadata, 1, &(-1i32).to_be_bytes()), Ok(()));
    }

    #[test]
    fn elements_beyond_the_limit_are_refused_although_the_bytes_are_there() {
        let mut body = vec![0xff, 0xff, 0x7f];
        body.resize(3 + 2_097_151, 1);
        assert_eq!(refused(ApiName::DeleteGroups, 2, &body), Problem::TooManyElements(ELEMENTS_MAX));
    }

    #[test]
    fn tags_must_ascend_and_known_ones_have_their_size() {
        // FindCoordinator v4: key type, no keys, then tags.
        assert_eq!(check_request(ApiName::FindCoordinator, 4, &[0, 1, 2, 5, 0, 6, 0]), Ok(()));
        assert_eq!(refused(ApiName::FindCoordinator, 4, &[0, 1, 2, 6, 0, 6, 0]), Problem::TagOrder(6));
        // Fetch v12 without topics; tag 0 is the cluster id, a compact text of 2 bytes here.
        let mut fetch = vec![0; 4 + 4 + 4 + 4 + 1 + 4 + 4];
        fetch.extend([1, 1, 1, 1, 0, 3, 3, b'i', b'd']);
        assert_eq!(check_request(ApiName::Fetch, 12, &fetch), Ok(()));
        let size_at = fetch.len() - 4;
        fetch[size_at] = 2;
        assert_eq!(refused(ApiName::Fetch, 12, &fetch), Problem::TagSize(0));
    }

    #[test]
    fn unknown_tags_beyond_the_limit_are_refused() {
        let mut body = vec![0, 1];
        let mut tags = Vec::new();
        varint::put_u64(&mut tags, UNKNOWN_TAGS_MAX as u64 + 1);
        for tag in 0..=UNKNOWN_TAGS_MAX as u64 {
            varint::put_u64(&mut tags, tag);
            tags.push(0);
        }
        body.extend(tags);
        assert_eq!(refused(ApiName::FindCoordinator, 4, &body), Problem::TooManyTags(UNKNOWN_TAGS_MAX));
    }

    #[test]
    fn bytes_after_a_request_are_passed_over_and_after_a_response_refused() {
        // librdkafka's Metadata request for all topics: where a count of four bytes would have been, one byte says null.
        assert_eq!(check_request(ApiName::Metadata, 12, &[0, 0, 0, 0, 0, 0, 0]), Ok(()));
        let problem = check_response(ApiName::Heartbeat, 0, &[0, 0, 0]).map_err(|error| error.problem);
        assert_eq!(problem, Err(Problem::Trailing(1)));
    }
}
