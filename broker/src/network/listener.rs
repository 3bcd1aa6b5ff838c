//! Accepts connections and hands each to a lane for life.
//!
//! Lane 0 accepts for all: sockets go to the lanes in turn. When file descriptors run out the acceptor waits a moment
//! rather than spin, and says so once.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stonelog_replication::runtime::lane::Lane;
use stonelog_replication::runtime::lanes::spawn_here;
use tokio::net::{TcpListener, TcpStream};

use super::connection;
use super::limits::{Limits, Place};
use super::nodes::{self, Nodes};
use crate::broker::Broker;
use crate::dispatch::Dispatch;

/// How long to wait after an accept failed for want of descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A bound socket and the listener it is for.
pub struct Bound {
    /// The listener's name.
    pub name: Arc<str>,
    /// The socket, listening and non-blocking.
    pub socket: std::net::TcpListener,
    /// Where it is bound.
    pub address: SocketAddr,
    /// Where connections of other nodes go, if this listener is theirs too.
    pub nodes: Option<Nodes>,
}

/// Accepts connections of one listener on the calling lane, for as long as the lane runs.
pub async fn accept(lane: Rc<Lane>, broker: Arc<Broker>, limits: Arc<Limits>, bound: Bound) {
    let listener = match TcpListener::from_std(bound.socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(listener = %bound.name, "cannot accept connections: {error}");
            return;
        }
    };
    let mut next_lane = 0;
    let (mut said, mut said_full) = (false, false);
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                said = false;
                let Some(place) = limits.place(peer.ip()) else {
                    // Whoever is turned away tries again; the log is not theirs to fill.
                    if !std::mem::replace(&mut said_full, true) {
                        tracing::warn!(%peer, "too many connections; this one and further ones are closed");
                    }
                    continue;
                };
                said_full = false;
                let accepted = Accepted { peer, place, name: Arc::clone(&bound.name), nodes: bound.nodes.clone() };
                hand_over(&lane, next_lane, &broker, &limits, socket, accepted);
                next_lane = (next_lane + 1) % lane.lanes().count();
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::error!(listener = %bound.name, "cannot accept a connection: {error}");
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

struct Accepted {
    peer: SocketAddr,
    place: Place,
    name: Arc<str>,
    nodes: Option<Nodes>,
}

fn hand_over(
    lane: &Rc<Lane>,
    to: usize,
    broker: &Arc<Broker>,
    limits: &Arc<Limits>,
    socket: TcpStream,
    accepted: Accepted,
) {
    // A socket belongs to one runtime's poller; it is taken out here and put in on the other lane.
    let socket = match socket.into_std() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(peer = %accepted.peer, "connection lost: {error}");
            return;
        }
    };
    let (broker, limits) = (Arc::clone(broker), Arc::clone(limits));
    drop(lane.lanes().call(to, move |lane| {
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                let Accepted { peer, place, name, nodes } = accepted;
                let dispatch = Rc::new(Dispatch { broker, lane, listener: name, peer });
                spawn_here(async move {
                    let told = nodes::tell_apart(socket, peer, &limits, nodes, place).await;
                    if let Some((socket, begun, place)) = told {
                        connection::serve(socket, begun, peer, limits, place, dispatch).await;
                    }
                });
            }
            Err(error) => tracing::debug!(peer = %accepted.peer, "connection lost: {error}"),
        }
        std::future::ready(())
    }));
}
