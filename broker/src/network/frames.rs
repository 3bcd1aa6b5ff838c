//! Frames as they arrive on a connection.
//!
//! While a connection waits for a frame it holds no buffer: it reads into one that all connections of its lane share, and
//! keeps what came in memory of the right size. Nothing is sized by a length that was announced and has not come.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use stonelog_protocol::frame::{self, LENGTH_BYTES};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};
use tokio::net::tcp::ReadHalf;
use tokio::time::{Instant, Sleep, timeout};

use super::limits::{Credit, FRAME_TIME_MAX, Limits, READ_BUFFER_BYTES};

/// Frames of at least this size are read into a buffer of their own, so that the batch inside can be kept as it lies.
const OWN_BUFFER_BYTES: usize = 4 << 10;
/// The deadline of a connection that may idle for ever.
const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// What a frame's buffer begins with: of most frames the whole.
const FIRST_BYTES: usize = 64 << 10;
/// A frame's buffer grows as its bytes arrive, by what is there already or, if that is less, by this much.
const GROW_BYTES: usize = 1 << 20;

thread_local! {
    /// What the connections of this lane read into while they wait for a frame.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER_BYTES].into());
}

/// The frames of one connection.
pub(super) struct Frames<'a> {
    reader: ReadHalf<'a>,
    /// What has been read ahead; without memory when that is nothing.
    buffer: BytesMut,
    limits: &'a Limits,
    /// One timer for all waits between frames, moved only when it fires: most waits are short.
    idle: Pin<Box<Sleep>>,
}

/// What came when nothing had been read ahead.
enum First {
    /// The peer has closed, or has been idle for too long.
    End,
    /// One short frame, whole.
    Whole(Bytes),
    /// A long frame of so many bytes begins, in a buffer of its own.
    Long(BytesMut, usize),
    /// Anything else: it is in the connection's buffer.
    Buffered,
}

impl<'a> Frames<'a> {
    /// Of a connection of which `begun` has been read.
    pub(super) fn new(reader: ReadHalf<'a>, begun: BytesMut, limits: &'a Limits) -> Frames<'a> {
        let idle = Box::pin(tokio::time::sleep_until(after(limits.idle_max)));
        Frames { reader, buffer: begun, limits, idle }
    }

    /// The next frame without its length; `None` when the peer closed between frames.
    pub(super) async fn next(&mut self) -> io::Result<Option<(Bytes, Credit)>> {
        if self.buffer.is_empty() {
            // What it held belongs to frames that have been taken off it.
            self.buffer = BytesMut::new();
            match self.first().await? {
                First::End => return Ok(None),
                First::Whole(frame) => {
                    let credit = self.limits.credit(frame.len()).await;
                    return Ok(Some((frame, credit)));
                }
                First::Long(frame, length) => {
                    let mut credit = self.limits.credit(length).await;
                    let frame = in_time(self.rest_of(frame, length, &mut credit)).await?;
                    return Ok(Some((frame, credit)));
                }
                First::Buffered => {}
            }
        }
        while self.buffer.len() < LENGTH_BYTES {
            in_time(self.read_more()).await?;
        }
        let length = length([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]], self.limits)?;
        let mut credit = self.limits.credit(length).await;
        self.buffer.advance(LENGTH_BYTES);
        let frame = in_time(self.buffered(length, &mut credit)).await?;
        Ok(Some((frame, credit)))
    }

    /// Waits for the first bytes when nothing has been read ahead.
    async fn first(&mut self) -> io::Result<First> {
        let Frames { reader, buffer, limits, idle } = self;
        let mut latest = None;
        std::future::poll_fn(|context| {
            let came = SCRATCH.with_borrow_mut(|scratch| {
                let mut read = ReadBuf::new(scratch);
                Pin::new(&mut *reader).poll_read(context, &mut read).map_ok(|()| first(read.filled(), buffer, limits))
            });
            if let Poll::Ready(came) = came {
                return Poll::Ready(came.flatten());
            }
            let latest = *latest.get_or_insert_with(|| after(limits.idle_max));
            while idle.as_mut().poll(context).is_ready() {
                if Instant::now() >= latest {
                    return Poll::Ready(Ok(First::End));
                }
                idle.as_mut().reset(latest);
            }
            Poll::Pending
        })
        .await
    }

    async fn read_more(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BUFFER_BYTES);
        match self.reader.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// A frame of which a part, or more than all, has been read ahead.
    async fn buffered(&mut self, length: usize, credit: &mut Credit) -> io::Result<Bytes> {
        if length < OWN_BUFFER_BYTES {
            while self.buffer.len() < length {
                self.read_more().await?;
            }
            return Ok(self.buffer.split_to(length).freeze());
        }
        let mut frame = BytesMut::with_capacity(length.min(FIRST_BYTES));
        let here = self.buffer.len().min(length);
        frame.extend_from_slice(&self.buffer[..here]);
        self.buffer.advance(here);
        self.rest_of(frame, length, credit).await
    }

    /// The rest of a frame that has a buffer of its own. Never by the length alone: room is made as bytes arrive.
    async fn rest_of(&mut self, mut frame: BytesMut, length: usize, credit: &mut Credit) -> io::Result<Bytes> {
        while frame.len() < length {
            let missing = length - frame.len();
            self.limits.raise(credit, frame.len()).await;
            if frame.capacity() == frame.len() {
                frame.reserve(missing.min(frame.len().max(GROW_BYTES)));
            }
            let mut limited = (&mut self.reader).take(missing as u64);
            if limited.read_buf(&mut frame).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.limits.raise(credit, length).await;
        Ok(frame.freeze())
    }
}

/// Sorts what was read when nothing had been read ahead.
fn first(read: &[u8], buffer: &mut BytesMut, limits: &Limits) -> io::Result<First> {
    if read.is_empty() {
        return Ok(First::End);
    }
    if let Some((prefix, rest)) = read.split_first_chunk::<LENGTH_BYTES>() {
        let length = length(*prefix, limits)?;
        if length >= OWN_BUFFER_BYTES && rest.len() <= length {
            let mut frame = BytesMut::with_capacity(length.min(FIRST_BYTES));
            frame.extend_from_slice(rest);
            return Ok(First::Long(frame, length));
        }
        if length < OWN_BUFFER_BYTES && rest.len() == length {
            return Ok(First::Whole(Bytes::copy_from_slice(rest)));
        }
    }
    buffer.extend_from_slice(read);
    Ok(First::Buffered)
}

fn length(prefix: [u8; LENGTH_BYTES], limits: &Limits) -> io::Result<usize> {
    frame::frame_length(prefix, limits.frame_bytes_max)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// No part of a frame may take longer than this once it has begun.
async fn in_time<T>(reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(FRAME_TIME_MAX, reading).await {
        Ok(read) => read,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the frame did not arrive in time")),
    }
}

fn after(longest: Duration) -> Instant {
    Instant::now().checked_add(longest).unwrap_or_else(|| Instant::now() + FAR_AWAY)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn frame(length: usize, fill: u8) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.resize(LENGTH_BYTES + length, fill);
        bytes
    }

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn frames_come_out_whole_and_in_order_however_they_arrive() {
        let lengths = [8, 4_095, 4_096, 9, 20_000, 16_384, 100, 70_000, 8, 3_000_000, 10];
        let sent: Vec<Vec<u8>> = lengths.iter().zip(1..).map(|(length, fill)| frame(*length, fill)).collect();
        let all = sent.concat();
        // What was read before the connection began, and in pieces of which size the rest comes.
        for (begun, piece) in [(0, all.len()), (3, 1_000), (8, 16_383), (12, 65_536), (4_120, 5), (100, 4_099)] {
            let (mut client, mut socket) = connected().await;
            let limits = Limits::new(4 << 20, Duration::from_secs(600), 10, 10, 8 << 20);
            let mut frames = Frames::new(socket.split().0, BytesMut::from(&all[..begun]), &limits);
            // Small pieces only of what comes first, or this would take long.
            let (early, late) = all[begun..].split_at((piece * 2_000).min(all.len() - begun));
            let writing = async {
                for piece in early.chunks(piece).chain([late]) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let reading = async {
                for sent in &sent {
                    let (frame, _credit) = frames.next().await.unwrap().unwrap();
                    assert!(frame[..] == sent[LENGTH_BYTES..], "{begun} {piece} {}", sent.len());
                }
                assert!(frames.next().await.unwrap().is_none());
            };
            tokio::join!(writing, reading);
        }
    }

    #[tokio::test]
    async fn connection_that_waits_for_a_frame_holds_no_buffer() {
        let (mut client, mut socket) = connected().await;
        let limits = Limits::new(1 << 20, Duration::from_secs(600), 10, 10, 1 << 20);
        let mut frames = Frames::new(socket.split().0, BytesMut::with_capacity(READ_BUFFER_BYTES), &limits);
        for length in [100, 10_000] {
            client.write_all(&frame(length, 7)).await.unwrap();
            assert_eq!(frames.next().await.unwrap().unwrap().0.len(), length);
            {
                let mut waiting = std::pin::pin!(frames.next());
                let waits = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
                assert!(waits.await);
            }
            assert_eq!(frames.buffer.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn peer_that_ends_within_a_frame_is_an_error_and_an_idle_one_is_let_go() {
        let limits = Limits::new(1 << 20, Duration::from_millis(1), 10, 10, 1 << 20);
        for part in [2, 50, 9_000] {
            let (mut client, mut socket) = connected().await;
            client.write_all(&frame(10_000, 7)[..part]).await.unwrap();
            client.shutdown().await.unwrap();
            let generous = Limits::new(1 << 20, Duration::MAX, 10, 10, 1 << 20);
            let ended = Frames::new(socket.split().0, BytesMut::new(), &generous).next().await;
            assert_eq!(ended.map(|_| ()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        let (_client, mut socket) = connected().await;
        assert!(Frames::new(socket.split().0, BytesMut::new(), &limits).next().await.unwrap().is_none());
    }
}
