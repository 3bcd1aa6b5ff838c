//! Frames between nodes: a length, a checksum, what it is, which exchange it belongs to, a body.
//!
//! ```text
//! length u32 | crc32c u32 | kind u8 | version u8 | exchange u32 | body
//! ```
//!
//! The length counts everything behind itself, the checksum covers everything behind itself. Requests are numbered by
//! whoever dialed; an answer carries the number of its request. What a frame may be long is an argument: a few hundred
//! bytes before the proof, and what the carrier has room for afterwards.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// A connection between nodes begins with these. As a Kafka length they are negative, so no client sends them, and they
/// begin no TLS record either.
pub const MAGIC: [u8; 4] = [0xfe, b'S', b'L', b'P'];
/// Bytes of the length in front of a frame, which it does not count.
pub const LENGTH_BYTES: usize = 4;
/// What stands between length and body.
pub const HEAD_BYTES: usize = 10;
/// The longest frame of a peer that has not proved itself.
pub const PROOF_FRAME_BYTES_MAX: usize = 1 << 10;
/// The longest frame of the metadata plane: an append of [`super::raft::ENTRIES_BYTES_MAX`] with room to spare.
pub const METADATA_FRAME_BYTES_MAX: usize = 16 << 20;
/// The version of every kind of frame so far.
pub const VERSION: u8 = 1;

/// Why a frame is refused. The connection ends in every case: nothing behind it can be trusted to be a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is below [`HEAD_BYTES`].
    #[error("a frame of {0} bytes is too short")]
    TooShort(u32),
    /// The length is above the limit.
    #[error("a frame of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// What the peer announced.
        length: u32,
        /// What is allowed here.
        limit: usize,
    },
    /// What arrived is not what was sent.
    #[error("a frame's checksum does not match")]
    Checksum,
    /// This build knows no such frame.
    #[error("a frame of kind {0} is not known")]
    UnknownKind(u8),
    /// This build knows the kind, but not in this version.
    #[error("version {version} of {kind:?} is not known")]
    UnknownVersion {
        /// Which kind.
        kind: Kind,
        /// The version found.
        version: u8,
    },
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a frame holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            /// The number on the wire.
            pub fn code(self) -> u8 {
                match self { $(Kind::$name => $code,)* }
            }

            /// The kind with a number.
            pub fn from_code(code: u8) -> Option<Kind> {
                match code { $($code => Some(Kind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// [`super::proof::Hello`]: who dials, and what for.
    Hello = 1,
    /// [`super::proof::Challenge`]: who was reached.
    Challenge = 2,
    /// The dialer's tag.
    Proof = 3,
    /// [`super::proof::Verdict`] with the acceptor's tag.
    Verdict = 4,
    /// A request that could not be served; the body is a reason in words. The connection goes on.
    Failed = 15,
    /// [`super::probe::Probe`].
    Probe = 16,
    /// [`super::probe::ProbeAnswer`].
    ProbeAnswer = 17,
    /// [`super::raft::Append`].
    Append = 32,
    /// [`super::raft::AppendAnswer`].
    AppendAnswer = 33,
    /// [`super::raft::VoteRequest`] that counts.
    Vote = 34,
    /// [`super::raft::VoteRequest`] that asks what would be answered.
    PreVote = 35,
    /// [`super::raft::VoteAnswer`].
    VoteAnswer = 36,
    /// [`super::raft::SnapshotChunk`].
    Snapshot = 37,
    /// [`super::raft::SnapshotAnswer`].
    SnapshotAnswer = 38,
    /// [`super::raft::Transfer`].
    Transfer = 39,
    /// [`super::raft::TransferAnswer`].
    TransferAnswer = 40,
    /// [`super::control::Ask`].
    Ask = 48,
    /// [`super::control::Answer`].
    Answer = 49,
    /// [`super::feed::Pull`].
    Pull = 64,
    /// [`super::feed::Pulled`].
    Pulled = 65,
    /// A message of a replica stream, with a head of its own.
    Stream = 80,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// Which request it is, or answers.
    pub exchange: u32,
    /// The message, encoded as its kind has it.
    pub body: Bytes,
}

/// Judges the length in front of a frame before anything is allocated for it. Returns the bytes to read.
pub fn frame_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix);
    match length as usize {
        bytes if bytes < HEAD_BYTES => Err(FrameError::TooShort(length)),
        bytes if bytes > limit => Err(FrameError::TooLong { length, limit }),
        bytes => Ok(bytes),
    }
}

/// What stands in front of a body that lies in pieces, length included.
pub fn head(kind: Kind, exchange: u32, begins: &[u8], goes_on: &[Bytes]) -> [u8; LENGTH_BYTES + HEAD_BYTES] {
    let body = begins.len() + goes_on.iter().map(Bytes::len).sum::<usize>();
    let mut head = [0; LENGTH_BYTES + HEAD_BYTES];
    let mut put = |at: usize, value: &[u8]| head[at..at + value.len()].copy_from_slice(value);
    let length = u32::try_from(HEAD_BYTES + body).expect("a frame is shorter than 4 GiB");
    put(0, &length.to_be_bytes());
    put(8, &[kind.code(), VERSION]);
    put(10, &exchange.to_be_bytes());
    let of_head = crc32c::crc32c_append(crc32c::crc32c(&head[8..]), begins);
    let checksum = goes_on.iter().fold(of_head, |sum, piece| crc32c::crc32c_append(sum, piece));
    head[4..8].copy_from_slice(&checksum.to_be_bytes());
    head
}

impl Frame {
    /// The bytes on the wire, length included.
    pub fn encode(&self) -> Bytes {
        let length = HEAD_BYTES + self.body.len();
        let mut out = BytesMut::with_capacity(LENGTH_BYTES + length);
        out.put_u32(u32::try_from(length).expect("a frame is shorter than 4 GiB"));
        out.put_u32(0);
        out.put_u8(self.kind.code());
        out.put_u8(VERSION);
        out.put_u32(self.exchange);
        out.put_slice(&self.body);
        let checksum = crc32c::crc32c(&out[LENGTH_BYTES + 4..]);
        out[LENGTH_BYTES..LENGTH_BYTES + 4].copy_from_slice(&checksum.to_be_bytes());
        out.freeze()
    }

    /// Reads what stood behind a length that [`frame_length`] has judged. The body shares the memory.
    pub fn decode(mut bytes: Bytes) -> Result<Frame, FrameError> {
        if bytes.len() < HEAD_BYTES {
            return Err(FrameError::TooShort(bytes.len() as u32));
        }
        let checksum = bytes.get_u32();
        if crc32c::crc32c(&bytes) != checksum {
            return Err(FrameError::Checksum);
        }
        let code = bytes.get_u8();
        let version = bytes.get_u8();
        let exchange = bytes.get_u32();
        let kind = Kind::from_code(code).ok_or(FrameError::UnknownKind(code))?;
        if version != VERSION {
            return Err(FrameError::UnknownVersion { kind, version });
        }
        Ok(Frame { kind, exchange, body: bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(exchange: u32, body: &'static [u8]) -> Frame {
        Frame { kind: Kind::Pull, exchange, body: Bytes::from_static(body) }
    }

    #[test]
    fn frame_has_these_bytes() {
        let bytes = pull(7, b"ab").encode();
        let checksum = crc32c::crc32c(&[64, 1, 0, 0, 0, 7, b'a', b'b']).to_be_bytes();
        let mut golden = vec![0, 0, 0, 12];
        golden.extend_from_slice(&checksum);
        golden.extend_from_slice(&[64, 1, 0, 0, 0, 7, b'a', b'b']);
        assert_eq!(bytes, golden);
        assert_eq!(frame_length([0, 0, 0, 12], 12), Ok(12));
        assert_eq!(Frame::decode(bytes.slice(4..)), Ok(pull(7, b"ab")));
    }

    #[test]
    fn a_body_in_pieces_has_the_head_of_the_whole() {
        let whole = pull(7, b"a body in pieces").encode();
        let pieces = [Bytes::from_static(b"body "), Bytes::new(), Bytes::from_static(b"in pieces")];
        assert_eq!(head(Kind::Pull, 7, b"a ", &pieces), whole[..LENGTH_BYTES + HEAD_BYTES]);
    }

    #[test]
    fn magic_is_no_length_that_a_client_may_send() {
        assert!(i32::from_be_bytes(MAGIC) < 0);
        assert!(crate::frame::frame_length(MAGIC, i32::MAX as usize).is_err());
    }

    #[test]
    fn length_is_judged_before_it_sizes_anything() {
        assert_eq!(frame_length(9u32.to_be_bytes(), 100), Err(FrameError::TooShort(9)));
        assert_eq!(frame_length(100u32.to_be_bytes(), 100), Ok(100));
        let too_long = Err(FrameError::TooLong { length: u32::MAX, limit: 100 });
        assert_eq!(frame_length(u32::MAX.to_be_bytes(), 100), too_long);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let bytes = pull(7, b"some body").encode().slice(4..).to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(changed.into()), Err(FrameError::Checksum), "bit {bit}");
        }
    }

    #[test]
    fn kinds_have_distinct_numbers_that_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(*kind));
        }
        assert_eq!(Kind::from_code(0), None);
    }
}
