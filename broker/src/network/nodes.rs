//! Telling other nodes from clients on a listener that both use: a node begins with bytes that are no legal length.
//!
//! Nothing else of what a node sends is looked at here; whoever takes its connection over has it prove itself first.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use stonelog_protocol::peer::frame::MAGIC;
use stonelog_replication::runtime::peers::HandedOver;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::limits::{FRAME_TIME_MAX, Limits, Place, READ_BUFFER_BYTES};

/// Where connections of nodes go.
pub type Nodes = mpsc::Sender<HandedOver>;

/// Reads how a connection begins. A node's is handed over, and keeps its place among its address's connections until it
/// has proved itself; a client's comes back with what was read of it. `None` as well
/// when it ended, or said nothing for too long.
pub async fn tell_apart(
    mut socket: TcpStream,
    peer: SocketAddr,
    limits: &Limits,
    nodes: Option<Nodes>,
    place: Place,
) -> Option<(TcpStream, BytesMut, Place)> {
    let mut begun = BytesMut::with_capacity(READ_BUFFER_BYTES);
    let Some(nodes) = nodes else { return Some((socket, begun, place)) };
    let idle_until = Instant::now().checked_add(limits.idle_max);
    while MAGIC.starts_with(&begun) && begun.len() < MAGIC.len() {
        let until = if begun.is_empty() { idle_until } else { Some(Instant::now() + FRAME_TIME_MAX) };
        let reading = socket.read_buf(&mut begun);
        let read = match until {
            Some(until) => timeout_at(until, reading).await.ok()?,
            None => reading.await,
        };
        if read.ok()? == 0 {
            return None;
        }
    }
    if !begun.starts_with(&MAGIC) {
        return Some((socket, begun, place));
    }
    begun.advance(MAGIC.len());
    match socket.into_std() {
        Ok(socket) => {
            if nodes.try_send(HandedOver { socket, ahead: begun.freeze(), held: Some(Box::new(place)) }).is_err() {
                tracing::debug!(%peer, "too many nodes connect at the same time; this one tries again");
            }
        }
        Err(error) => tracing::debug!(%peer, "connection lost: {error}"),
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// What becomes of a connection that begins with these pieces.
    async fn told(pieces: &[&[u8]]) -> (Option<Vec<u8>>, Option<HandedOver>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        let (sender, mut handed_over) = mpsc::channel(1);
        let limits = Limits::new(1 << 20, Duration::MAX, 10, 10, 1 << 20);
        let writing = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let place = limits.place(peer.ip()).unwrap();
        let (told, ()) = tokio::join!(tell_apart(socket, peer, &limits, Some(sender), place), writing);
        // A node that has not proved itself is one of its address's connections still, as a client is.
        let handed_over = handed_over.try_recv().ok();
        let is_counted = (0..10).filter_map(|_| limits.place(peer.ip())).collect::<Vec<_>>().len() == 9;
        assert_eq!(is_counted, told.is_some() || handed_over.is_some());
        (told.map(|(_, begun, _)| begun.to_vec()), handed_over)
    }

    #[tokio::test]
    async fn node_is_handed_over_with_what_was_read_behind_its_beginning() {
        let (client, node) = told(&[&MAGIC[..1], &MAGIC[1..], b"hello"]).await;
        assert_eq!(client, None);
        // How much of it was read is the network's doing.
        assert!(b"hello".starts_with(&node.unwrap().ahead));
    }

    #[tokio::test]
    async fn client_keeps_every_byte() {
        for pieces in [&[&b"\0\0\0\x08request!"[..]][..], &[&MAGIC[..2], b"\0\0"]] {
            let (client, node) = told(pieces).await;
            assert!(node.is_none());
            assert!(pieces.concat().starts_with(&client.unwrap()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn connection_that_ends_while_it_begins_is_nobodys() {
        assert!(matches!(told(&[&MAGIC[..3]]).await, (None, None)));
        assert!(matches!(told(&[]).await, (None, None)));
    }
}
