//! Stream messages as bytes on a connection: whole frames out of what has arrived, and frames gathered into one write
//! without copying a batch.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use stonelog_protocol::peer::frame::{self, Frame, Kind, LENGTH_BYTES};
use stonelog_protocol::peer::stream::{StreamDecodeError, StreamMessage};

/// Room made before each read, at least.
const READ_BYTES_MIN: usize = 64 << 10;
/// What the buffer of a long frame grows by, at most: it grows as bytes arrive, never by what is announced.
const GROW_BYTES_MAX: usize = 512 << 10;

/// What arrived and is not dealt with.
pub(super) struct Arrived {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl Arrived {
    pub(super) fn new(ahead: Bytes, frame_bytes_max: usize) -> Arrived {
        Arrived { buffer: BytesMut::from(&ahead[..]), frame_bytes_max }
    }

    /// The next whole frame; `None` before all of it is here.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = frame::frame_length(*prefix, self.frame_bytes_max).map_err(invalid)?;
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Frame::decode(self.buffer.split_to(length).freeze()).map(Some).map_err(invalid)
    }

    /// Where more is read into.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let wanted = match self.buffer.first_chunk::<LENGTH_BYTES>() {
            Some(prefix) => LENGTH_BYTES + u32::from_be_bytes(*prefix) as usize,
            None => LENGTH_BYTES,
        };
        let missing = wanted.saturating_sub(self.buffer.len());
        self.buffer.reserve(missing.clamp(READ_BYTES_MIN, GROW_BYTES_MAX));
        &mut self.buffer
    }

    /// What has been read and belongs to nobody yet.
    pub(super) fn rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The message in a frame; `None` for one that only says that the other end is there, and for one of a kind or version
/// that this build does not know.
pub(super) fn message_in(frame: Frame) -> io::Result<Option<StreamMessage>> {
    if frame.kind != Kind::Stream {
        let why = format!("a {:?} frame on a connection for streams", frame.kind);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    if frame.body.is_empty() {
        return Ok(None);
    }
    match StreamMessage::decode(frame.body) {
        // A later build says what this one does not know. Its frame is whole, and what follows it may be understood.
        Err(error @ (StreamDecodeError::UnknownVersion(_) | StreamDecodeError::UnknownKind(_))) => {
            tracing::warn!("a message is left out: {error}");
            Ok(None)
        }
        decoded => decoded.map(Some).map_err(invalid),
    }
}

/// Frames that go out together.
#[derive(Default)]
pub(super) struct Gathered {
    pieces: VecDeque<Bytes>,
    /// Bytes in `pieces` that are not written.
    bytes: usize,
    /// The end of a piece that is still being filled.
    heads: BytesMut,
}

impl Gathered {
    /// Adds a message.
    pub(super) fn add(&mut self, message: &StreamMessage) {
        let begins = self.heads.len();
        self.heads.resize(begins + LENGTH_BYTES + frame::HEAD_BYTES, 0);
        message.encode_head(&mut self.heads);
        let head =
            frame::head(Kind::Stream, 0, &self.heads[begins + LENGTH_BYTES + frame::HEAD_BYTES..], message.batches());
        self.heads[begins..begins + head.len()].copy_from_slice(&head);
        self.bytes += self.heads.len() - begins;
        for batches in message.batches() {
            self.close_piece();
            self.bytes += batches.len();
            self.pieces.push_back(batches.clone());
        }
    }

    /// Adds the frame that says only that this end is there, and, as the first, for which of its lanes.
    pub(super) fn add_presence(&mut self, lane: u32) {
        let head = frame::head(Kind::Stream, lane, &[], &[]);
        self.heads.extend_from_slice(&head);
        self.bytes += head.len();
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Ready to be written.
    pub(super) fn finish(mut self) -> Gathered {
        self.close_piece();
        self
    }

    fn close_piece(&mut self) {
        if !self.heads.is_empty() {
            self.pieces.push_back(self.heads.split().freeze());
        }
    }
}

impl Buf for Gathered {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let count = into.len().min(self.pieces.len());
        for (slice, piece) in into.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        count
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while written > 0 {
            let front = self.pieces.front_mut().expect("no more is written than there was");
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::peer::stream::{Push, Stamps, StreamBody, StreamGeneration, StreamId, StreamNews};
    use stonelog_protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicPartition, Uuid};

    use super::*;

    fn message(body: StreamBody) -> StreamMessage {
        let stamps = Stamps {
            partition: TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(3) },
            leader_epoch: LeaderEpoch(5),
            leader: BrokerId(1),
            leader_broker_epoch: BrokerEpoch(70),
            follower: BrokerId(2),
            follower_broker_epoch: BrokerEpoch(71),
            follower_directory: Uuid([4; 16]),
            generation: StreamGeneration { recovery_epoch: 4, counter: 9 },
        };
        StreamMessage { stream: StreamId(11), stamps, body }
    }

    fn push(pieces: &[&'static [u8]]) -> StreamMessage {
        let news = StreamNews { high_watermark: Offset(4), log_start: Offset(0), probe: 0, is_whole: true };
        let batches = pieces.iter().map(|piece| Bytes::from_static(piece)).collect();
        message(StreamBody::Push(Push { number: 0, base: Offset(4), news, batches }))
    }

    #[test]
    fn gathered_frames_arrive_whole_however_they_are_cut() {
        let mut gathered = Gathered::default();
        gathered.add_presence(7);
        gathered.add(&message(StreamBody::Credit(5)));
        gathered.add(&push(&[b"first", b"second"]));
        gathered.add(&message(StreamBody::Close));
        let mut gathered = gathered.finish();
        let len = gathered.len();
        let sent = gathered.copy_to_bytes(len);
        for cut in 1..sent.len() {
            let mut arrived = Arrived::new(sent.slice(..cut), 1 << 20);
            let mut found = Vec::new();
            while let Some(frame) = arrived.next().unwrap() {
                found.push(frame);
            }
            arrived.room().extend_from_slice(&sent[cut..]);
            while let Some(frame) = arrived.next().unwrap() {
                found.push(frame);
            }
            assert_eq!(found[0].exchange, 7);
            let messages: Vec<_> = found.into_iter().map(|frame| message_in(frame).unwrap()).collect();
            let joined = push(&[b"firstsecond"]);
            let expected = [None, Some(message(StreamBody::Credit(5))), Some(joined), Some(message(StreamBody::Close))];
            assert_eq!(messages, expected, "cut at {cut}");
            assert!(arrived.rest().is_empty());
        }
    }

    #[test]
    fn a_message_of_a_later_build_is_left_out_and_one_that_is_wrong_ends_the_connection() {
        let with = |at: usize, byte: u8| {
            let mut body = BytesMut::from(&message(StreamBody::Credit(5)).encode()[..]);
            body[at] = byte;
            message_in(Frame { kind: Kind::Stream, exchange: 0, body: body.freeze() })
        };
        assert!(matches!(with(0, 200), Ok(None)), "its version");
        assert!(matches!(with(1, 200), Ok(None)), "its kind");
        assert!(with(1, 4).is_err(), "a close with something behind it");
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_has_arrived() {
        let mut arrived = Arrived::new(Bytes::from_static(&[0x7f, 0, 0, 0]), 1 << 20);
        assert!(arrived.next().is_err());
        let flipped = {
            let mut gathered = Gathered::default();
            gathered.add(&push(&[b"bytes"]));
            let mut gathered = gathered.finish();
            let mut bytes = BytesMut::from(&gathered.copy_to_bytes(gathered.len())[..]);
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            bytes.freeze()
        };
        assert!(Arrived::new(flipped, 1 << 20).next().is_err(), "the checksum covers the batches");
    }
}
