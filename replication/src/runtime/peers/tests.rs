//! Connections between nodes on the loopback interface: proof, limits, hand-over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::frame::{Frame, HEAD_BYTES, Kind, MAGIC, METADATA_FRAME_BYTES_MAX, PROOF_FRAME_BYTES_MAX};
use stonelog_protocol::peer::proof::{Hello, Identity, Purpose, Verdict};
use stonelog_protocol::{BrokerId, ClusterId, Uuid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::accept::HANDED_OVER_LEN_MAX;
use super::unproved::UNPROVED_COUNT_MAX;
use super::{ClusterSecret, Door, HandedOver, TcpDialer, serve, serve_handed_over};
use crate::quorum::link::{LinkError, PeerDialer, PeerLink, PeerService, PeerSession, Served, Serving, Target};

const PATIENCE: Duration = Duration::from_secs(20);

fn identity(node: i32) -> Identity {
    let (directory, incarnation) = (Uuid([node as u8; 16]), Uuid([node as u8 + 100; 16]));
    Identity { node: BrokerId(node), directory, cluster: Some(ClusterId("c".into())), incarnation }
}

/// Says everything twice; does not know what a vote is.
struct Echo;

impl PeerService for Echo {
    fn identity(&self) -> Identity {
        identity(2)
    }

    fn admit(&self, hello: &Hello) -> Verdict {
        if hello.purpose == Purpose::Quorum { Verdict::Welcome } else { Verdict::NotServed }
    }

    fn session(&self, _hello: Hello) -> Box<dyn PeerSession> {
        Box::new(Echo)
    }
}

impl PeerSession for Echo {
    fn serve(&mut self, request: Frame) -> Serving<'_> {
        let twice = [&request.body[..], &request.body[..]].concat();
        Box::pin(std::future::ready(match request.kind {
            Kind::Append => Served::Answer(Kind::AppendAnswer, twice.into()),
            Kind::Vote => Served::Failed("no".to_owned()),
            _ => Served::Close("what?".to_owned()),
        }))
    }
}

fn secret(byte: u8) -> Option<ClusterSecret> {
    ClusterSecret::new(&[byte; 32])
}

fn dialer(secret: Option<ClusterSecret>) -> TcpDialer {
    TcpDialer::new(Arc::new(|| identity(1)), secret, BTreeMap::new())
}

fn target(port: u16) -> Target {
    Target { node: BrokerId(2), directory: Some(Uuid([2; 16])), host: "localhost".to_owned(), port }
}

async fn echo(secret: Option<ClusterSecret>) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, secret, Arc::new(Echo)));
    (port, serving)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_link_whose_other_end_has_gone_sends_nothing() {
    block_on(async {
        let (port, mut serving) = echo(secret(1)).await;
        let mut link = dialer(secret(1)).link(target(port), Purpose::Quorum);
        link.exchange(Kind::Append, Bytes::from_static(b"a"), PATIENCE).await.unwrap();
        serving.shutdown().await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let answer = link.exchange(Kind::Append, Bytes::from_static(b"b"), PATIENCE).await;
        assert!(matches!(answer, Err(LinkError::Unreachable(_))), "{answer:?}");
    });
}

#[test]
fn proved_connection_carries_exchanges_and_survives_a_failed_one_only_if_it_was_answered() {
    block_on(async {
        let (port, _serving) = echo(secret(1)).await;
        let mut link = dialer(secret(1)).link(target(port), Purpose::Quorum);
        for body in ["a", "bc"] {
            let answer = link.exchange(Kind::Append, body.into(), PATIENCE).await.unwrap();
            assert_eq!((answer.kind, answer.body), (Kind::AppendAnswer, Bytes::from(body.repeat(2))));
        }
        let failed = link.exchange(Kind::Vote, Bytes::new(), PATIENCE).await;
        assert_eq!(failed, Err(LinkError::Failed("no".to_owned())));
        let closed = link.exchange(Kind::Transfer, Bytes::new(), PATIENCE).await;
        assert!(matches!(closed, Err(LinkError::Broken(_))), "{closed:?}");
        // The next one has a connection of its own.
        assert!(link.exchange(Kind::Append, Bytes::new(), PATIENCE).await.is_ok());
        // An answer of more than a socket holds at once.
        let large = Bytes::from(vec![7; 3 << 20]);
        let answer = link.exchange(Kind::Append, large, PATIENCE).await.unwrap();
        assert_eq!(answer.body.len(), 6 << 20);
    });
}

#[test]
fn who_does_not_know_the_secret_is_served_nothing() {
    block_on(async {
        let (port, _serving) = echo(secret(1)).await;
        for other in [secret(2), None] {
            let mut link = dialer(other).link(target(port), Purpose::Quorum);
            let refused = link.exchange(Kind::Append, Bytes::new(), PATIENCE).await;
            assert!(matches!(refused, Err(LinkError::Unreachable(_))), "{refused:?}");
        }
        let mut link = dialer(secret(1)).link(target(port), Purpose::Feed);
        let refused = link.exchange(Kind::Pull, Bytes::new(), PATIENCE).await;
        assert_eq!(refused, Err(LinkError::Refused(Verdict::NotServed)));
    });
}

#[test]
fn bytes_that_are_no_proof_end_the_connection_without_an_answer() {
    block_on(async {
        let (port, _serving) = echo(secret(1)).await;
        let append = Frame { kind: Kind::Append, exchange: 1, body: Bytes::new() };
        let announced = |length: usize| [&MAGIC[..], &(length as u32).to_be_bytes()].concat();
        let openings = [
            b"\0\0\0\x20no node at all".to_vec(),
            [&MAGIC[..], &append.encode()].concat(),
            announced(PROOF_FRAME_BYTES_MAX + 1),
            announced(METADATA_FRAME_BYTES_MAX),
            announced(HEAD_BYTES - 1),
        ];
        for opening in openings {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.write_all(&opening).await.unwrap();
            let mut answer = Vec::new();
            // A reset is an end too.
            let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap();
            assert_eq!(answer, b"", "{opening:?}");
        }
        // Others are served all the same.
        let mut link = dialer(secret(1)).link(target(port), Purpose::Quorum);
        assert!(link.exchange(Kind::Append, Bytes::new(), PATIENCE).await.is_ok());
    });
}

#[test]
fn node_that_never_says_anything_is_given_up_in_time() {
    block_on(async {
        // Accepts, and never says anything.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut link = dialer(secret(1)).link(target(port), Purpose::Quorum);
        let within = Duration::from_millis(50);
        let first = link.exchange(Kind::Append, Bytes::new(), within).await;
        assert!(matches!(first, Err(LinkError::Unreachable(_))), "{first:?}");
    });
}

#[test]
fn connections_that_prove_nothing_keep_no_node_out() {
    block_on(async {
        let (port, _serving) = echo(secret(1)).await;
        let mut silent = Vec::new();
        for _ in 0..2 * UNPROVED_COUNT_MAX {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.write_all(&MAGIC).await.unwrap();
            silent.push(socket);
        }
        let mut link = dialer(secret(1)).link(target(port), Purpose::Quorum);
        assert!(link.exchange(Kind::Append, Bytes::new(), PATIENCE).await.is_ok());
        // The oldest of them went for it, long before its time was up.
        let mut nothing = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, silent[0].read_to_end(&mut nothing)).await.unwrap();
        assert_eq!(nothing, b"");
    });
}

#[test]
fn connection_handed_over_is_counted_where_it_came_from_until_it_has_proved_itself() {
    block_on(async {
        let (shared, counted) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(()));
        let (sender, handed_over) = mpsc::channel(HANDED_OVER_LEN_MAX);
        let mut serving = JoinSet::new();
        serving.spawn(serve_handed_over(handed_over, secret(1), Arc::new(Echo)));
        let client = TcpStream::connect(shared.local_addr().unwrap()).await.unwrap();
        let socket = shared.accept().await.unwrap().0.into_std().unwrap();
        let held: Option<Box<dyn std::any::Any + Send>> = Some(Box::new(counted.clone()));
        assert!(sender.send(HandedOver { socket, ahead: Bytes::new(), held }).await.is_ok());
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&counted), 2);
        drop(client);
        tokio::time::timeout(PATIENCE, async {
            while Arc::strong_count(&counted) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    });
}

#[test]
fn connection_from_a_clients_listener_goes_on_where_it_was_handed_over() {
    block_on(async {
        let shared = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = shared.local_addr().unwrap().port();
        let (sender, handed_over) = mpsc::channel(HANDED_OVER_LEN_MAX);
        let mut serving = JoinSet::new();
        serving.spawn(serve_handed_over(handed_over, secret(1), Arc::new(Echo)));
        // What a clients' listener does: reads a length, finds that it is none, and may have read more.
        for more in [0, 1, 3, 20] {
            let (sender, counted) = (sender.clone(), Arc::new(()));
            let held = counted.clone();
            let accept = async {
                let (mut socket, _) = shared.accept().await.unwrap();
                let mut magic = [0; MAGIC.len()];
                socket.read_exact(&mut magic).await.unwrap();
                assert_eq!(magic, MAGIC);
                let mut ahead = vec![0; more];
                socket.read_exact(&mut ahead).await.unwrap();
                let socket = socket.into_std().unwrap();
                assert!(
                    sender.send(HandedOver { socket, ahead: ahead.into(), held: Some(Box::new(held)) }).await.is_ok()
                );
            };
            let mut link = dialer(secret(1)).link(target(port), Purpose::Quorum);
            let (answer, ()) = tokio::join!(link.exchange(Kind::Append, "a".into(), PATIENCE), accept);
            assert_eq!(answer.unwrap().body, "aa", "{more} bytes read ahead");
            assert_eq!(Arc::strong_count(&counted), 1, "who has proved itself is no client's connection any more");
        }
    });
}

#[test]
fn nodes_prove_themselves_while_the_thread_that_serves_them_is_busy() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    let door = Door::open(vec![socket], None, secret(1), Arc::new(Echo)).unwrap();
    // Nobody attends yet: the proof is over all the same.
    let connected = block_on(dialer(secret(1)).connect(&target(port), Purpose::Quorum));
    assert!(connected.is_ok(), "{:?}", connected.as_ref().err());
    drop(connected);
    block_on(async {
        let mut serving = JoinSet::new();
        serving.spawn(door.attend());
        let mut link = dialer(secret(1)).link(target(port), Purpose::Quorum);
        let answer = link.exchange(Kind::Append, "a".into(), PATIENCE).await.unwrap();
        assert_eq!(answer.body, "aa");
        // Its socket is closed when it ends.
        serving.shutdown().await;
        let refused = link.exchange(Kind::Append, "a".into(), PATIENCE).await;
        assert!(matches!(refused, Err(LinkError::Unreachable(_))), "{refused:?}");
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    });
}
