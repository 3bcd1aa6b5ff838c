//! One client connection: frames in, answers out in the order of their requests.
//!
//! A request is *started* in order and *answered* in order. Produce requests of one connection may wait for their
//! acknowledgements together (the client's `max.in.flight.requests.per.connection`); any other request is finished
//! before the next one is read, as Kafka does by muting the channel.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};
use stonelog_protocol::frame::{self, LENGTH_BYTES};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::limits::{Credit, FRAME_TIME_MAX, Limits, PIPELINE_MAX, Place, READ_BUFFER_BYTES, WRITE_STALL_MAX};

/// Frames of at least this size are read into a buffer of their own, so that the batch inside can be kept as it lies.
const OWN_BUFFER_BYTES: usize = 4 << 10;
/// A frame's buffer grows as its bytes arrive, by at most this much at a time.
const GROW_BYTES: usize = 1 << 20;

/// What a request is answered with.
#[derive(Debug)]
pub enum Answer {
    /// These pieces, one after the other: a whole frame.
    Frame(Vec<Bytes>),
    /// Nothing (`acks=0`).
    Nothing,
    /// The connection closes: the request cannot be answered (unknown key, malformed body, failed `acks=0`).
    Close,
}

/// An answer that may take its time.
pub type Answering = Pin<Box<dyn Future<Output = Answer>>>;

/// How the next request of the connection relates to one just started.
pub enum Started {
    /// The next request may start while this answer is awaited.
    Pipelined(Answering),
    /// The next request waits for this answer.
    Alone(Answering),
}

/// What turns frames into answers. Called in the order of the frames.
pub trait Service: 'static {
    /// Starts one request; whatever must happen in order happens before this returns.
    fn start(&self, frame: Bytes) -> Started;
    /// Waits while the broker cannot take more records.
    fn room(&self) -> impl Future<Output = ()>;
}

struct Pending {
    answering: Answering,
    _credit: Credit,
}

/// Serves one connection until either side ends it.
pub async fn serve(socket: TcpStream, peer: SocketAddr, limits: Arc<Limits>, place: Place, service: Rc<impl Service>) {
    let _place = place;
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, "cannot set TCP_NODELAY: {error}");
    }
    let (reader, writer) = socket.into_split();
    let (sender, receiver) = mpsc::channel(PIPELINE_MAX);
    tokio::select! {
        ended = read_requests(reader, &limits, &*service, sender) => {
            match ended {
                Ok(drained) => { if let Some(answers) = drained { answers.closed().await; } }
                Err(error) => tracing::debug!(%peer, "connection ended: {error}"),
            }
        }
        ended = write_answers(writer, receiver) => {
            if let Err(error) = ended {
                tracing::debug!(%peer, "connection ended: {error}");
            }
        }
    }
}

/// Reads frames until the peer closes. Returns the queue of answers still to be written.
async fn read_requests(
    mut reader: OwnedReadHalf,
    limits: &Limits,
    service: &impl Service,
    answers: mpsc::Sender<Pending>,
) -> io::Result<Option<mpsc::Sender<Pending>>> {
    let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
    loop {
        // The place in the pipeline first: a client that does not read its answers is not read from either.
        let Ok(slot) = answers.reserve().await else { return Ok(None) };
        let Some((frame, credit)) = read_frame(&mut reader, &mut buffer, limits).await? else {
            drop(slot);
            // A half-closed client still gets the answers it is owed.
            return Ok(Some(answers));
        };
        service.room().await;
        match service.start(frame) {
            Started::Pipelined(answering) => slot.send(Pending { answering, _credit: credit }),
            Started::Alone(answering) => {
                let answer = answering.await;
                slot.send(Pending { answering: Box::pin(std::future::ready(answer)), _credit: credit });
            }
        }
    }
}

/// Reads one frame without its length; `None` when the peer closed between frames.
async fn read_frame(
    reader: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    limits: &Limits,
) -> io::Result<Option<(Bytes, Credit)>> {
    let idle_until = Instant::now() + limits.idle_max;
    while buffer.len() < LENGTH_BYTES {
        buffer.reserve(READ_BUFFER_BYTES);
        let waiting_for_first = buffer.is_empty();
        let until = if waiting_for_first { idle_until } else { Instant::now() + FRAME_TIME_MAX };
        match timeout_at(until, reader.read_buf(buffer)).await {
            Ok(Ok(0)) if waiting_for_first => return Ok(None),
            Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) if waiting_for_first => return Ok(None),
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the frame did not arrive in time")),
        }
    }
    let prefix = [buffer[0], buffer[1], buffer[2], buffer[3]];
    let length = frame::frame_length(prefix, limits.frame_bytes_max)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let credit = limits.credit(length).await;
    buffer.advance(LENGTH_BYTES);
    let until = Instant::now() + FRAME_TIME_MAX;
    let rest = match timeout_at(until, read_body(reader, buffer, length)).await {
        Ok(frame) => frame?,
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the frame did not arrive in time")),
    };
    Ok(Some((rest, credit)))
}

async fn read_body(reader: &mut OwnedReadHalf, buffer: &mut BytesMut, length: usize) -> io::Result<Bytes> {
    if length < OWN_BUFFER_BYTES {
        while buffer.len() < length {
            buffer.reserve(READ_BUFFER_BYTES);
            if reader.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        return Ok(buffer.split_to(length).freeze());
    }
    // Never by the length alone: room is made as bytes arrive.
    let mut frame = BytesMut::with_capacity(length.min(GROW_BYTES));
    let here = buffer.len().min(length);
    frame.extend_from_slice(&buffer[..here]);
    buffer.advance(here);
    while frame.len() < length {
        let missing = length - frame.len();
        if frame.capacity() == frame.len() {
            frame.reserve(missing.min(frame.len().max(GROW_BYTES)));
        }
        let mut limited = (&mut *reader).take(missing as u64);
        if limited.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(frame.freeze())
}

/// Writes answers in order; those that are ready together leave in one write.
async fn write_answers(mut writer: OwnedWriteHalf, mut answers: mpsc::Receiver<Pending>) -> io::Result<()> {
    let mut ready: VecDeque<Bytes> = VecDeque::new();
    let mut head: Option<Pending> = None;
    loop {
        let mut pending = match head.take() {
            Some(pending) => pending,
            None => match answers.recv().await {
                Some(pending) => pending,
                None => return Ok(()),
            },
        };
        let mut credits = Vec::new();
        let mut close = push(&mut ready, (&mut pending.answering).await);
        credits.push(pending);
        // Whatever else is already answered goes along.
        while !close && let Ok(mut next) = answers.try_recv() {
            match poll_once(&mut next.answering).await {
                Some(answer) => {
                    close = push(&mut ready, answer);
                    credits.push(next);
                }
                None => {
                    head = Some(next);
                    break;
                }
            }
        }
        write_all(&mut writer, &mut ready).await?;
        if close {
            writer.shutdown().await?;
            return Ok(());
        }
    }
}

fn push(ready: &mut VecDeque<Bytes>, answer: Answer) -> bool {
    match answer {
        Answer::Frame(pieces) => ready.extend(pieces.into_iter().filter(|piece| !piece.is_empty())),
        Answer::Nothing => {}
        Answer::Close => return true,
    }
    false
}

async fn poll_once(answering: &mut Answering) -> Option<Answer> {
    std::future::poll_fn(|context| match answering.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn write_all(writer: &mut OwnedWriteHalf, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
    const SLICES_MAX: usize = 64;
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let mut written = match timeout(WRITE_STALL_MAX, writer.write_vectored(&slices[..count])).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no answers")),
        };
        while let Some(piece) = pieces.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                break;
            }
            written -= piece.len();
            pieces.pop_front();
        }
    }
    Ok(())
}
