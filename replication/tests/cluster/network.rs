//! Connections between nodes: in order within one, with delays; cut in one direction, reset, and late after a reset.

use std::collections::BTreeMap;

use bytes::Bytes;
use stonelog_protocol::BrokerId;

use crate::support::Random;

/// The controller's place in the network.
pub const CONTROLLER: BrokerId = BrokerId(0);

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub from: BrokerId,
    pub to: BrokerId,
    /// Which connection of the pair.
    pub connection: u64,
    pub bytes: Bytes,
}

#[derive(Default)]
struct Connection {
    number: u64,
    /// When the last message of either direction arrives.
    last: [u64; 2],
    reset_scheduled: bool,
}

/// See the module's comment. Times are microseconds.
#[derive(Default)]
pub struct Network {
    connections: BTreeMap<(BrokerId, BrokerId), Connection>,
    /// Directions that lose everything, and until when.
    cuts: BTreeMap<(BrokerId, BrokerId), u64>,
}

/// What became of a message.
pub enum Sent {
    /// It arrives then.
    At(u64, Flight),
    /// It is lost; the connection is reset then.
    LostUntilReset(u64, u64),
    /// It is lost, and a reset is on its way.
    Lost,
}

fn pair(one: BrokerId, other: BrokerId) -> (BrokerId, BrokerId) {
    (one.min(other), one.max(other))
}

impl Network {
    pub fn is_cut(&self, from: BrokerId, to: BrokerId, now: u64) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| now < *until)
    }

    pub fn cut(&mut self, from: BrokerId, to: BrokerId, until: u64) {
        self.cuts.insert((from, to), until);
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    pub fn send(&mut self, from: BrokerId, to: BrokerId, bytes: Bytes, now: u64, random: &mut Random) -> Sent {
        let is_cut = self.is_cut(from, to, now);
        let connection = self.connections.entry(pair(from, to)).or_default();
        if is_cut {
            if std::mem::replace(&mut connection.reset_scheduled, true) {
                return Sent::Lost;
            }
            return Sent::LostUntilReset(now + 100_000 + random.below(2_000_000), connection.number);
        }
        let delay = match random.below(40) {
            0 => random.below(400_000),
            _ => 100 + random.below(3_000),
        };
        let last = &mut connection.last[usize::from(from > to)];
        *last = (*last + 1).max(now + delay);
        Sent::At(*last, Flight { from, to, connection: connection.number, bytes })
    }

    /// A new connection takes the place of this one. Whether it was the present one.
    pub fn reset(&mut self, one: BrokerId, other: BrokerId, number: Option<u64>) -> bool {
        let connection = self.connections.entry(pair(one, other)).or_default();
        if number.is_some_and(|number| number != connection.number) {
            return false;
        }
        connection.number += 1;
        connection.reset_scheduled = false;
        connection.last = [0, 0];
        true
    }

    /// Whether a message's connection is the present one.
    pub fn is_current(&self, flight: &Flight) -> bool {
        self.connections.get(&pair(flight.from, flight.to)).is_none_or(|one| one.number == flight.connection)
    }
}
