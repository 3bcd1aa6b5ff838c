//! Both directions of one connection, on the lane that hosts it.
//!
//! One task reads, hands each lane what is for its partitions, and reads on when they have taken it. The other asks the
//! lanes that have something to say, and writes what they gather in one go. An end that hears nothing for a while takes
//! the other for dead: each says at least now and then that it is there.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::peer::stream::StreamMessage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::bytes::{Arrived, Gathered, message_in};
use super::leading::WRITE_BYTES_MAX;
use super::wire::{Port, Side, Wire};
use crate::runtime::lane::Lane;

/// An end that has nothing to say says so this often.
const PRESENCE_EVERY: Duration = Duration::from_secs(1);
/// Silence for so long ends the connection.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// So does a write that the other end does not take for so long.
const WRITE_STALL_MAX: Duration = Duration::from_secs(10);
/// What a frame holds besides a batch that a journal file can hold.
const FRAME_EXTRA_BYTES: usize = 1 << 20;

/// The longest frame that is read.
pub(super) fn frame_bytes_max(lane: &Lane) -> usize {
    let entry = usize::try_from(lane.node().settings.entry_bytes_max).unwrap_or(usize::MAX);
    entry.saturating_add(FRAME_EXTRA_BYTES).min(1 << 30)
}

/// Speaks on a connection until it ends. `first` is written before anything else.
pub(super) async fn converse(
    lane: &Rc<Lane>,
    wire: &Arc<Wire>,
    socket: TcpStream,
    arrived: Arrived,
    first: Gathered,
) -> io::Result<()> {
    let (from, to) = socket.into_split();
    let reads = read(lane, wire, from, arrived);
    let writes = write(lane, wire, to, first);
    let ends = async {
        while !wire.is_closed() {
            wire.ended.notified().await;
        }
    };
    let ended = tokio::select! {
        ended = reads => ended,
        ended = writes => ended,
        () = ends => Ok(()),
    };
    wire.close();
    ended
}

/// Every lane has its end of a connection from here on.
pub(super) async fn open_ports(lane: &Rc<Lane>, wire: &Arc<Wire>) {
    for index in 0..lane.lanes().count() {
        let wire = Arc::clone(wire);
        let opened = lane.lanes().call(index, move |lane| {
            let port = Port::new(Arc::clone(&wire), lane.index());
            lane.streams().ports.borrow_mut().insert(wire.id, port);
            std::future::ready(())
        });
        opened.await;
    }
}

/// No lane has one any more.
pub(super) async fn close_ports(lane: &Rc<Lane>, wire: &Arc<Wire>) {
    wire.close();
    for index in 0..lane.lanes().count() {
        let (id, side) = (wire.id, wire.side);
        let closed = lane.lanes().call(index, move |lane| {
            let port = lane.streams().ports.borrow_mut().remove(&id);
            if let Some(port) = port.filter(|_| side == Side::Leader) {
                lane.on_followers_gone(&port);
            }
            std::future::ready(())
        });
        closed.await;
    }
}

async fn read(lane: &Rc<Lane>, wire: &Arc<Wire>, mut from: OwnedReadHalf, mut arrived: Arrived) -> io::Result<()> {
    let lanes = lane.lanes().clone();
    let mut by_lane: Vec<Vec<StreamMessage>> = (0..lanes.count()).map(|_| Vec::new()).collect();
    loop {
        while let Some(frame) = arrived.next()? {
            if let Some(message) = message_in(frame)? {
                by_lane[lanes.owner(message.stamps.partition)].push(message);
            }
        }
        for (index, messages) in by_lane.iter_mut().enumerate().filter(|(_, messages)| !messages.is_empty()) {
            let (id, messages) = (wire.id, std::mem::take(messages));
            let heard = lanes.call(index, move |lane| {
                lane.on_stream_messages(id, messages);
                std::future::ready(())
            });
            heard.await;
        }
        let read = timeout(SILENCE_MAX, from.read_buf(arrived.room())).await;
        if read.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
            return Ok(());
        }
    }
}

async fn write(lane: &Rc<Lane>, wire: &Arc<Wire>, mut to: OwnedWriteHalf, first: Gathered) -> io::Result<()> {
    let lanes = lane.lanes().clone();
    write_out(&mut to, first).await?;
    let mut silence = Silence::after_a_write(Instant::now());
    loop {
        let _ = timeout_at(silence.ends_at(), wire.wake.notified()).await;
        if silence.is_over(Instant::now()) {
            let mut presence = Gathered::default();
            presence.add_presence(lane.index() as u32);
            write_out(&mut to, presence).await?;
            silence = Silence::after_a_write(Instant::now());
        }
        for index in wire.take_speaking() {
            let id = wire.id;
            let gathered = lanes.call(index, move |lane| std::future::ready(lane.gather(id))).await;
            let (gathered, has_more) = gathered;
            if has_more {
                // After the others: a lane that always has more leaves them their turns.
                wire.speak(index);
            }
            if !gathered.is_empty() {
                write_out(&mut to, gathered).await?;
                silence = Silence::after_a_write(Instant::now());
            }
        }
    }
}

/// How long this end may say nothing. Only what was written counts: to be woken and find nothing to say is silence too.
#[derive(Clone, Copy, Debug)]
struct Silence {
    written_at: Instant,
}

impl Silence {
    fn after_a_write(now: Instant) -> Silence {
        Silence { written_at: now }
    }

    fn ends_at(self) -> Instant {
        self.written_at + PRESENCE_EVERY
    }

    /// Whether it must be said now that this end is there, however often it was woken meanwhile.
    fn is_over(self, now: Instant) -> bool {
        now >= self.ends_at()
    }
}

async fn write_out(to: &mut OwnedWriteHalf, gathered: Gathered) -> io::Result<()> {
    let mut gathered = gathered.finish();
    while !gathered.is_empty() {
        let written = timeout(WRITE_STALL_MAX, to.write_buf(&mut gathered)).await;
        if written.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

impl Lane {
    /// What arrived on a connection for this lane's partitions.
    fn on_stream_messages(self: Rc<Self>, wire: u64, messages: Vec<StreamMessage>) {
        let Some(port) = self.streams().port(wire) else { return };
        match port.wire.side {
            Side::Follower => self.on_leaders(&port, messages),
            Side::Leader => self.on_followers(&port, messages),
        }
    }

    /// What this lane has to say on a connection now, and whether there is more.
    fn gather(self: Rc<Self>, wire: u64) -> (Gathered, bool) {
        let mut out = Gathered::default();
        let Some(port) = self.streams().port(wire) else { return (out, false) };
        while let Some(answer) = port.next_answer() {
            out.add(&answer);
        }
        // Each once: who has more to say stands at the end of the row.
        for _ in 0..port.waiting_count() {
            if out.len() >= WRITE_BYTES_MAX {
                break;
            }
            let Some(partition) = port.next_waiting() else { break };
            let Some(partition) = self.partition(partition) else { continue };
            match port.wire.side {
                Side::Follower => self.say(&partition, &port, &mut out),
                Side::Leader => self.push(&partition, &port, &mut out),
            }
        }
        let has_more = port.waiting_count() > 0 && !out.is_empty();
        (out, has_more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_that_lead_to_no_write_do_not_put_the_sign_of_presence_off() {
        let written_at = Instant::now();
        let silence = Silence::after_a_write(written_at);
        let tick = Duration::from_millis(20);
        let wakes = (1..).map(|count| written_at + tick * count);
        let said_at = wakes.take(1_000).find(|woken_at| silence.is_over(*woken_at));
        let heard_after = said_at.expect("it is said at one of these wakes") - written_at;
        assert!(heard_after <= PRESENCE_EVERY + tick && PRESENCE_EVERY + tick < SILENCE_MAX);
    }
}
