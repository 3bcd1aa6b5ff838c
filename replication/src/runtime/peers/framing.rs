//! Frames over a socket. A frame's buffer grows as its bytes arrive, never by what it announces.

use std::io;

use bytes::BytesMut;
use stonelog_protocol::peer::frame::{Frame, LENGTH_BYTES, frame_length};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a frame's buffer begins with: of most frames the whole.
const FIRST_BYTES: usize = 16 << 10;
/// What it grows by, unless it is longer already.
const GROW_BYTES: usize = 256 << 10;

/// Reads one frame; `None` when the other end closed between frames.
pub(super) async fn read_frame(socket: &mut TcpStream, bytes_max: usize) -> io::Result<Option<Frame>> {
    let mut prefix = [0; LENGTH_BYTES];
    if socket.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    socket.read_exact(&mut prefix[1..]).await?;
    let length = frame_length(prefix, bytes_max).map_err(invalid)?;
    let mut frame = BytesMut::with_capacity(length.min(FIRST_BYTES));
    while frame.len() < length {
        let missing = length - frame.len();
        if frame.capacity() == frame.len() {
            frame.reserve(missing.min(frame.len().max(GROW_BYTES)));
        }
        if (&mut *socket).take(missing as u64).read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Frame::decode(frame.freeze()).map(Some).map_err(invalid)
}

/// As [`read_frame`], where the other end owes one.
pub(super) async fn expect_frame(socket: &mut TcpStream, bytes_max: usize) -> io::Result<Frame> {
    read_frame(socket, bytes_max).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Writes one frame.
pub(super) async fn write_frame(socket: &mut TcpStream, frame: &Frame) -> io::Result<()> {
    socket.write_all(&frame.encode()).await
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
