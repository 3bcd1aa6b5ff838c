//! Connections that have not proved themselves yet: who goes when there are too many. Pure.
//!
//! Anybody can open connections and say nothing behind the first bytes. A node proves itself within a few round trips, so
//! whoever has waited longest goes first: of the same address if that has its share, else of all. Refusing the newest
//! instead would let the silent ones keep the nodes of the cluster out.

use std::collections::VecDeque;
use std::net::IpAddr;

/// All that wait.
pub(super) const UNPROVED_COUNT_MAX: usize = 64;
/// Those of one address. All nodes of a cluster on one machine connect from the same.
pub(super) const UNPROVED_OF_ADDRESS_MAX: usize = 16;

/// Those that wait, oldest first, each with what ends it.
#[derive(Debug)]
pub(super) struct Unproved<T> {
    waiting: VecDeque<(u64, IpAddr, T)>,
}

impl<T> Default for Unproved<T> {
    fn default() -> Unproved<T> {
        Unproved { waiting: VecDeque::new() }
    }
}

impl<T> Unproved<T> {
    /// Counts a connection in; returns the one that has to go for it.
    pub(super) fn enter(&mut self, id: u64, address: IpAddr, end: T) -> Option<T> {
        let address = address.to_canonical();
        let of_address = self.waiting.iter().filter(|(_, other, _)| *other == address).count();
        let goes = if of_address >= UNPROVED_OF_ADDRESS_MAX {
            self.waiting.iter().position(|(_, other, _)| *other == address)
        } else {
            (self.waiting.len() >= UNPROVED_COUNT_MAX).then_some(0)
        };
        let gone = goes.and_then(|place| self.waiting.remove(place));
        self.waiting.push_back((id, address, end));
        gone.map(|(_, _, end)| end)
    }

    /// It has proved itself, or ended.
    pub(super) fn leave(&mut self, id: u64) {
        self.waiting.retain(|(other, _, _)| *other != id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn whoever_has_waited_longest_makes_room_and_who_has_proved_itself_takes_none() {
        let mut unproved = Unproved::default();
        for id in 0..UNPROVED_COUNT_MAX as u64 {
            assert_eq!(unproved.enter(id, address(id as u8), id), None);
        }
        unproved.leave(0);
        assert_eq!(unproved.enter(100, address(100), 100), None);
        assert_eq!(unproved.enter(101, address(101), 101), Some(1));
        assert_eq!(unproved.enter(102, address(102), 102), Some(2));
    }

    #[test]
    fn address_with_more_than_its_share_crowds_out_itself_alone() {
        let mut unproved = Unproved::default();
        assert_eq!(unproved.enter(0, address(1), 0), None);
        for id in 1..=UNPROVED_OF_ADDRESS_MAX as u64 {
            assert_eq!(unproved.enter(id, address(2), id), None);
        }
        assert_eq!(unproved.enter(50, address(2), 50), Some(1));
        // The same address in its other form.
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped());
        assert_eq!(unproved.enter(51, mapped, 51), Some(2));
        assert_eq!(unproved.enter(52, address(1), 52), None);
    }
}
