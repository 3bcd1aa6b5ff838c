//! One client connection: frames in, answers out in the order of their requests.
//!
//! A request is *started* in order and *answered* in order; one that needs a job before it can begin holds up those
//! behind it. Produce requests of one connection may wait for their acknowledgements together (the client's
//! `max.in.flight.requests.per.connection`); any other request is finished before the next one is read, as Kafka does by
//! muting the channel. Both directions are one task: nobody is woken to hand an answer from one to the other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::frames::Frames;
use super::limits::{Credit, Limits, PIPELINE_MAX, Place, WRITE_STALL_MAX};

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
    /// It has not begun: the next request waits until it has.
    Preparing(Pin<Box<dyn Future<Output = Started>>>),
}

/// What turns frames into answers. Called in the order of the frames.
pub trait Service: 'static {
    /// Starts one request; whatever must happen in order happens before this returns.
    fn start(&self, frame: Bytes) -> Started;
}

struct Pending {
    answering: Answering,
    _credit: Credit,
}

/// Answers on their way from the reading half of a connection to the writing one. Both are one task, and whoever polls
/// them ([`serve`]) polls the other after a change, so nobody is woken.
#[derive(Default)]
struct Pipeline {
    waiting: RefCell<VecDeque<Pending>>,
    /// How many have been taken out.
    taken: Cell<u64>,
    /// No more will be put in.
    closed: Cell<bool>,
}

impl Pipeline {
    /// Waits until no more than so many wait.
    async fn at_most(&self, count: usize) {
        std::future::poll_fn(|_| match self.waiting.borrow().len() <= count {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    fn push(&self, pending: Pending) {
        self.waiting.borrow_mut().push_back(pending);
    }

    fn take(&self) -> Option<Pending> {
        let taken = self.waiting.borrow_mut().pop_front()?;
        self.taken.set(self.taken.get() + 1);
        Some(taken)
    }

    /// The next one; `None` when none will come.
    async fn next(&self) -> Option<Pending> {
        std::future::poll_fn(|_| match self.take() {
            None if !self.closed.get() => Poll::Pending,
            taken => Poll::Ready(taken),
        })
        .await
    }
}

/// Serves one connection, of which `begun` has been read, until either side ends it.
pub async fn serve(
    mut socket: TcpStream,
    begun: BytesMut,
    peer: SocketAddr,
    limits: Arc<Limits>,
    place: Place,
    service: Rc<impl Service>,
) {
    let _place = place;
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, "cannot set TCP_NODELAY: {error}");
    }
    let (reader, writer) = socket.split();
    let pipeline = Pipeline::default();
    let mut reading = std::pin::pin!(read_requests(reader, begun, &limits, &*service, &pipeline));
    let mut writing = std::pin::pin!(write_answers(writer, &pipeline));
    let ended = std::future::poll_fn(|context| {
        loop {
            let taken = pipeline.taken.get();
            if !pipeline.closed.get()
                && let Poll::Ready(ended) = reading.as_mut().poll(context)
            {
                // A half-closed client still gets the answers it is owed.
                pipeline.closed.set(true);
                if ended.is_err() {
                    return Poll::Ready(ended);
                }
            }
            if let Poll::Ready(ended) = writing.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            if pipeline.closed.get() || pipeline.taken.get() == taken {
                return Poll::Pending;
            }
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%peer, "connection ended: {error}");
    }
}

/// Reads frames until the peer closes, or answers can no longer be written.
async fn read_requests(
    reader: ReadHalf<'_>,
    begun: BytesMut,
    limits: &Limits,
    service: &impl Service,
    pipeline: &Pipeline,
) -> io::Result<()> {
    let mut frames = Frames::new(reader, begun, limits);
    loop {
        // A place in the pipeline first: a client that does not read its answers is not read from either.
        pipeline.at_most(PIPELINE_MAX - 1).await;
        let Some((frame, credit)) = frames.next().await? else { return Ok(()) };
        let mut started = service.start(frame);
        while let Started::Preparing(preparing) = started {
            started = preparing.await;
        }
        match started {
            Started::Preparing(_) => unreachable!("it has begun"),
            Started::Pipelined(answering) => pipeline.push(Pending { answering, _credit: credit }),
            Started::Alone(answering) => {
                let answer = answering.await;
                pipeline.push(Pending { answering: Box::pin(std::future::ready(answer)), _credit: credit });
                // Such an answer may be large: a client that does not read gets no second one made behind the one that
                // waits.
                pipeline.at_most(0).await;
            }
        }
    }
}

/// Writes answers in order; those that are ready together leave in one write.
async fn write_answers(mut writer: WriteHalf<'_>, pipeline: &Pipeline) -> io::Result<()> {
    let mut ready: VecDeque<Bytes> = VecDeque::new();
    // Of what is being written; their credit is given back when that is done.
    let mut written: Vec<Pending> = Vec::new();
    let mut head: Option<Pending> = None;
    loop {
        let mut pending = match head.take() {
            Some(pending) => pending,
            None => match pipeline.next().await {
                Some(pending) => pending,
                None => return Ok(()),
            },
        };
        let mut close = push(&mut ready, (&mut pending.answering).await);
        written.push(pending);
        // Whatever else is already answered goes along.
        while !close && let Some(mut next) = pipeline.take() {
            match poll_once(&mut next.answering).await {
                Some(answer) => {
                    close = push(&mut ready, answer);
                    written.push(next);
                }
                None => {
                    head = Some(next);
                    break;
                }
            }
        }
        write_all(&mut writer, &mut ready).await?;
        written.clear();
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

async fn write_all(writer: &mut WriteHalf<'_>, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut written = match try_write(writer, pieces) {
            // Only then a timer.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match timeout(WRITE_STALL_MAX, writer.writable()).await {
                    Ok(writable) => writable?,
                    Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no answers")),
                }
                continue;
            }
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            written => written?,
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

/// Writes what can be written without waiting.
fn try_write(writer: &WriteHalf<'_>, pieces: &VecDeque<Bytes>) -> io::Result<usize> {
    const SLICES_MAX: usize = 64;
    if let (Some(piece), 1) = (pieces.front(), pieces.len()) {
        return writer.try_write(piece);
    }
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut count = 0;
    for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
        *slice = IoSlice::new(piece);
        count += 1;
    }
    writer.try_write_vectored(&slices[..count])
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;

    const FRAME_BYTES: usize = 8;

    /// Answers a frame with itself. One that begins with 'p' is pipelined and waits until the test lets it go, one that
    /// begins with 'j' waits so before it begins; any other is answered at once with a large answer.
    #[derive(Default)]
    struct Echo {
        started: Cell<usize>,
        held: RefCell<VecDeque<oneshot::Receiver<()>>>,
        large_bytes: usize,
    }

    struct Shared(Rc<Echo>);

    impl Service for Shared {
        fn start(&self, frame: Bytes) -> Started {
            self.0.started.set(self.0.started.get() + 1);
            if frame[0] == b'j' {
                let held = self.0.held.borrow_mut().pop_front();
                return Started::Preparing(Box::pin(async move {
                    if let Some(held) = held {
                        let _ = held.await;
                    }
                    Started::Pipelined(Box::pin(std::future::ready(Answer::Frame(vec![frame]))))
                }));
            }
            if frame[0] == b'p' {
                let held = self.0.held.borrow_mut().pop_front();
                return Started::Pipelined(Box::pin(async move {
                    if let Some(held) = held {
                        let _ = held.await;
                    }
                    Answer::Frame(vec![frame])
                }));
            }
            let large = Bytes::from(vec![frame[0]; self.0.large_bytes.max(1)]);
            Started::Alone(Box::pin(std::future::ready(Answer::Frame(vec![large]))))
        }
    }

    fn frame(kind: u8, number: u8) -> Vec<u8> {
        let mut bytes = (FRAME_BYTES as u32).to_be_bytes().to_vec();
        bytes.extend([kind, number, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    /// A client's socket, connected to a connection that is served with `idle_max`.
    async fn connected(echo: &Rc<Echo>, idle_max: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        let limits = Limits::new(1 << 20, idle_max, 10, 10, 1 << 20);
        let place = limits.place(IpAddr::from([127, 0, 0, 1])).unwrap();
        let service = Rc::new(Shared(Rc::clone(echo)));
        #[allow(clippy::disallowed_methods, reason = "a test without lanes")]
        tokio::task::spawn_local(serve(socket, BytesMut::new(), peer, limits, place, service));
        client
    }

    #[tokio::test]
    async fn half_closed_client_gets_every_answer_it_is_owed_in_order() {
        let test = async {
            let echo = Rc::new(Echo::default());
            let (first, held_first) = oneshot::channel();
            let (second, held_second) = oneshot::channel();
            echo.held.borrow_mut().extend([held_first, held_second]);
            let mut client = connected(&echo, Duration::from_secs(60)).await;
            client.write_all(&[frame(b'p', 1), frame(b'p', 2)].concat()).await.unwrap();
            client.shutdown().await.unwrap();
            while echo.started.get() < 2 {
                tokio::task::yield_now().await;
            }
            second.send(()).unwrap();
            tokio::task::yield_now().await;
            first.send(()).unwrap();
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.unwrap();
            assert_eq!(answers, [&frame(b'p', 1)[4..], &frame(b'p', 2)[4..]].concat());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn request_behind_one_that_is_being_prepared_does_not_begin() {
        let test = async {
            let echo = Rc::new(Echo::default());
            let (let_go, held) = oneshot::channel();
            echo.held.borrow_mut().push_back(held);
            let mut client = connected(&echo, Duration::from_secs(60)).await;
            client.write_all(&[frame(b'j', 1), frame(b'p', 2)].concat()).await.unwrap();
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(echo.started.get(), 1);
            let_go.send(()).unwrap();
            let mut answers = vec![0; 2 * FRAME_BYTES];
            client.read_exact(&mut answers).await.unwrap();
            assert_eq!(answers, [&frame(b'j', 1)[4..], &frame(b'p', 2)[4..]].concat());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn connection_without_idle_limit_serves() {
        let test = async {
            let mut client = connected(&Rc::default(), Duration::MAX).await;
            client.write_all(&frame(b'a', 1)).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'a');
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn client_that_reads_no_answers_has_few_made_for_it() {
        let test = async {
            let echo = Rc::new(Echo { large_bytes: 16 << 20, ..Echo::default() });
            let mut client = connected(&echo, Duration::from_secs(60)).await;
            let count = 10;
            for number in 0..count {
                client.write_all(&frame(b'a', number)).await.unwrap();
            }
            // Everything that can happen without the client reading has happened by then.
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
            assert!(echo.started.get() <= 3, "{} answers were made", echo.started.get());
            let mut taken = vec![0; usize::from(count) * echo.large_bytes];
            client.read_exact(&mut taken).await.unwrap();
            assert_eq!(echo.started.get(), usize::from(count));
        };
        LocalSet::new().run_until(test).await;
    }
}
