//! The accepting end: each proved connection goes to the lane that its dialer's lane corresponds to.
//!
//! Where both brokers have as many lanes, that lane owns all partitions on it and nothing hops.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::BrokerId;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::ProvedSocket;
use super::bytes::{Arrived, Gathered};
use super::converse::{close_ports, converse, frame_bytes_max, open_ports};
use super::wire::{Side, Wire};
use crate::runtime::lane::Lane;
use crate::runtime::lanes::spawn_here;

/// How soon after the proof a dialer says which of its lanes it is.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// Takes over connections for as long as the broker runs.
pub(super) async fn accept(lane: Rc<Lane>, mut accepted: mpsc::Receiver<ProvedSocket>) {
    while let Some(ProvedSocket { socket, ahead, from }) = accepted.recv().await {
        let lane = Rc::clone(&lane);
        spawn_here(async move {
            let begun = timeout(FIRST_WITHIN, begin(&lane, socket, ahead)).await;
            match begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok((host, socket, ahead)) => {
                    let lanes = lane.lanes().clone();
                    let hosted = lanes.call(host, move |lane| {
                        spawn_here(host_connection(lane, socket, ahead, from));
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
) -> io::Result<(usize, std::net::TcpStream, Bytes)> {
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
    if !first.body.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not say for which lane it is"));
    }
    Ok((first.exchange as usize % lane.lanes().count(), socket.into_std()?, arrived.rest()))
}

/// One connection from its beginning to its end.
async fn host_connection(lane: Rc<Lane>, socket: std::net::TcpStream, ahead: Bytes, from: BrokerId) {
    let wire = Wire::new(from, Side::Leader, lane.lanes().count());
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
        tracing::debug!(node = %from, "a follower's connection ended: {error}");
    }
}
