//! The accepting end: each proved connection goes to the lane that its dialer's lane corresponds to.
//!
//! Where both brokers have as many lanes, that lane owns all partitions on it and nothing hops.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::BrokerId;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::ProvedSocket;
use super::bytes::{Arrived, Gathered};
use super::converse::{close_ports, converse, frame_bytes_max, open_ports};
use super::wire::{Side, Wire};
use crate::runtime::lane::Lane;
use crate::runtime::lanes::spawn_here;

/// How soon after the proof a dialer says which of its lanes it is.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// Connections that have not said it yet. Who comes later is closed, and dials again.
const UNBEGUN_COUNT_MAX: usize = 256;
/// Lanes that a dialer may have.
const DIALING_LANES_COUNT_MAX: u32 = 1024;

/// The newest connection of each node's lane: another one takes the place of the one before, so that a node has no more
/// than it has lanes, whatever it dials.
#[derive(Default)]
struct Hosted {
    newest: BTreeMap<(BrokerId, u32), Arc<Wire>>,
}

impl Hosted {
    fn begin(&mut self, from: BrokerId, dialing_lane: u32, wire: &Arc<Wire>) {
        if let Some(before) = self.newest.insert((from, dialing_lane), Arc::clone(wire)) {
            before.close();
        }
    }
}

/// Takes over connections for as long as the broker runs.
pub(super) async fn accept(lane: Rc<Lane>, mut accepted: mpsc::Receiver<ProvedSocket>) {
    let hosted = Rc::new(RefCell::new(Hosted::default()));
    let unbegun = Arc::new(Semaphore::new(UNBEGUN_COUNT_MAX));
    while let Some(ProvedSocket { socket, ahead, from }) = accepted.recv().await {
        let Ok(place) = Arc::clone(&unbegun).try_acquire_owned() else { continue };
        let (lane, hosted) = (Rc::clone(&lane), Rc::clone(&hosted));
        spawn_here(async move {
            let begun = timeout(FIRST_WITHIN, begin(&lane, socket, ahead)).await;
            drop(place);
            match begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok((dialing_lane, socket, ahead)) => {
                    let lanes = lane.lanes().clone();
                    let wire = Wire::new(from, Side::Leader, lanes.count());
                    hosted.borrow_mut().begin(from, dialing_lane, &wire);
                    let hosted = lanes.call(dialing_lane as usize % lanes.count(), move |lane| {
                        spawn_here(host_connection(lane, wire, socket, ahead));
                        std::future::ready(())
                    });
                    hosted.await;
                }
                Err(error) => tracing::debug!(node = %from, "a follower's connection was lost: {error}"),
            }
        });
    }
}

/// Reads which of its lanes dialed.
async fn begin(
    lane: &Rc<Lane>,
    socket: std::net::TcpStream,
    ahead: Bytes,
) -> io::Result<(u32, std::net::TcpStream, Bytes)> {
    let mut socket = TcpStream::from_std(socket)?;
    let mut arrived = Arrived::new(ahead, frame_bytes_max(lane));
    let first = loop {
        if let Some(frame) = arrived.next()? {
            break frame;
        }
        if socket.read_buf(arrived.room()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    if !first.body.is_empty() || first.exchange >= DIALING_LANES_COUNT_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not say for which lane it is"));
    }
    Ok((first.exchange, socket.into_std()?, arrived.rest()))
}

/// One connection from its beginning to its end.
async fn host_connection(lane: Rc<Lane>, wire: Arc<Wire>, socket: std::net::TcpStream, ahead: Bytes) {
    open_ports(&lane, &wire).await;
    let ended = match TcpStream::from_std(socket) {
        Ok(socket) => {
            let arrived = Arrived::new(ahead, frame_bytes_max(&lane));
            converse(&lane, &wire, socket, arrived, Gathered::default()).await
        }
        Err(error) => Err(error),
    };
    close_ports(&lane, &wire).await;
    if let Err(error) = ended {
        tracing::debug!(node = %wire.peer, "a follower's connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_connection_of_the_same_lane_takes_the_place_of_the_one_before() {
        let mut hosted = Hosted::default();
        let wires: Vec<_> = (0..3).map(|_| Wire::new(BrokerId(2), Side::Leader, 1)).collect();
        hosted.begin(BrokerId(2), 0, &wires[0]);
        hosted.begin(BrokerId(2), 1, &wires[1]);
        hosted.begin(BrokerId(3), 0, &wires[2]);
        assert!(wires.iter().all(|wire| !wire.is_closed()), "each is another lane's");
        hosted.begin(BrokerId(2), 0, &Wire::new(BrokerId(2), Side::Leader, 1));
        assert_eq!(wires.iter().map(|wire| wire.is_closed()).collect::<Vec<_>>(), [true, false, false]);
    }
}
