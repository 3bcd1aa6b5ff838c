//! Frames over a socket. A frame's buffer grows as its bytes arrive, never by what it announces.

use std::io;

use bytes::{Bytes, BytesMut};
use stonelog_protocol::peer::frame::{Frame, LENGTH_BYTES, frame_length};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a frame's buffer begins with: of most frames the whole.
const FIRST_BYTES: usize = 16 << 10;
/// What it grows by, unless it is longer already.
const GROW_BYTES: usize = 256 << 10;

/// A socket, and what was read from it before it came here.
pub(super) struct PeerSocket {
    pub(super) socket: TcpStream,
    ahead: Bytes,
}

impl PeerSocket {
    /// A socket of which nothing has been read.
    pub(super) fn new(socket: TcpStream) -> PeerSocket {
        PeerSocket { socket, ahead: Bytes::new() }
    }

    /// A socket of which these bytes have been read, and are not dealt with.
    pub(super) fn with(socket: TcpStream, ahead: Bytes) -> PeerSocket {
        PeerSocket { socket, ahead }
    }

    /// The socket, and what was read from it and not dealt with.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.socket, self.ahead)
    }

    /// Whether the other end has neither closed it nor said anything, as far as this node has heard.
    pub(super) async fn is_quiet(&self) -> bool {
        // The runtime looks at its sockets before this goes on.
        tokio::task::yield_now().await;
        let unread = self.socket.try_read(&mut [0]);
        self.ahead.is_empty() && unread.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Appends what there is, at most so many bytes; 0 when the other end has closed.
    async fn read(&mut self, into: &mut BytesMut, bytes_max: usize) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return (&mut self.socket).take(bytes_max as u64).read_buf(into).await;
        }
        let len = self.ahead.len().min(bytes_max);
        into.extend_from_slice(&self.ahead.split_to(len));
        Ok(len)
    }

    /// Reads exactly so many bytes, which are few.
    pub(super) async fn read_few<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = BytesMut::with_capacity(N);
        while bytes.len() < N {
            let missing = N - bytes.len();
            if self.read(&mut bytes, missing).await? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        Ok(bytes.first_chunk::<N>().copied())
    }
}

/// Reads one frame; `None` when the other end closed between frames.
pub(super) async fn read_frame(socket: &mut PeerSocket, bytes_max: usize) -> io::Result<Option<Frame>> {
    let Some(prefix) = socket.read_few::<LENGTH_BYTES>().await? else { return Ok(None) };
    let length = frame_length(prefix, bytes_max).map_err(invalid)?;
    let mut frame = BytesMut::with_capacity(length.min(FIRST_BYTES));
    while frame.len() < length {
        let missing = length - frame.len();
        if frame.capacity() == frame.len() {
            frame.reserve(missing.min(frame.len().max(GROW_BYTES)));
        }
        if socket.read(&mut frame, missing).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Frame::decode(frame.freeze()).map(Some).map_err(invalid)
}

/// As [`read_frame`], where the other end owes one.
pub(super) async fn expect_frame(socket: &mut PeerSocket, bytes_max: usize) -> io::Result<Frame> {
    read_frame(socket, bytes_max).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Writes one frame.
pub(super) async fn write_frame(socket: &mut PeerSocket, frame: &Frame) -> io::Result<()> {
    socket.socket.write_all(&frame.encode()).await
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
