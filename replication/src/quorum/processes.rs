//! Which process speaks for a voter: pure.
//!
//! A running copy of a voter, of a virtual machine say, has its log and its directory id, and a vote that one of the two was
//! given counts for the other. Whoever gives votes hears one process of a directory at a time. The next one is heard when
//! the connections of the one before are closed, as those of a process that ends are, or have been silent for a while, as
//! those of a machine that lost its power are.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_protocol::peer::proof::Identity;
use stonelog_protocol::{BrokerId, DirectoryId, Uuid};

/// A process that has said nothing for so long does not keep another one out: longer than an election takes, and than the
/// signs of life of a leader are apart.
const STILL_THERE: Duration = Duration::from_secs(2);

/// Those that speak at the moment; each has a connection.
#[derive(Debug, Default)]
pub(super) struct Processes(BTreeMap<(BrokerId, DirectoryId), Speaking>);

#[derive(Debug)]
struct Speaking {
    incarnation: Uuid,
    connections: usize,
    /// Since any fixed moment.
    heard: Duration,
}

impl Processes {
    /// Whether this process would be heard.
    pub(super) fn admits(&self, who: &Identity, now: Duration) -> bool {
        let speaking = self.0.get(&(who.node, who.directory));
        let is_other = |speaking: &&Speaking| speaking.incarnation != who.incarnation;
        speaking.filter(is_other).is_none_or(|other| now.saturating_sub(other.heard) > STILL_THERE)
            || off!(OneProcessSpeaks)
    }

    /// A connection begins; whether it is heard.
    pub(super) fn enter(&mut self, who: &Identity, now: Duration) -> bool {
        if !self.admits(who, now) {
            return false;
        }
        let (incarnation, key) = (who.incarnation, (who.node, who.directory));
        let speaking = self.0.entry(key).or_insert(Speaking { incarnation, connections: 0, heard: now });
        if speaking.incarnation != incarnation {
            // Those of the one before are not heard any more.
            (speaking.incarnation, speaking.connections) = (incarnation, 0);
        }
        speaking.connections += 1;
        speaking.heard = now;
        true
    }

    /// A message arrives over a connection that was heard; whether it still is.
    pub(super) fn hear(&mut self, who: &Identity, now: Duration) -> bool {
        let speaking = self.0.get_mut(&(who.node, who.directory));
        let speaking = speaking.filter(|speaking| speaking.incarnation == who.incarnation || off!(OneProcessSpeaks));
        speaking.is_some_and(|speaking| {
            speaking.heard = now;
            true
        })
    }

    /// A connection that was heard has ended.
    pub(super) fn leave(&mut self, who: &Identity) {
        let key = (who.node, who.directory);
        let Some(speaking) = self.0.get_mut(&key) else { return };
        if speaking.incarnation == who.incarnation {
            speaking.connections -= 1;
            if speaking.connections == 0 {
                self.0.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    fn process(directory: u8, incarnation: u8) -> Identity {
        let (directory, incarnation) = (Uuid([directory; 16]), Uuid([incarnation; 16]));
        Identity { node: BrokerId(3), directory, cluster: None, incarnation }
    }

    #[test]
    fn copy_of_a_voter_is_not_heard_while_the_other_one_speaks() {
        let mut processes = Processes::default();
        assert!(processes.enter(&process(3, 1), SOON));
        assert!(processes.enter(&process(3, 1), SOON), "each has several connections");
        assert!(!processes.enter(&process(3, 2), 2 * SOON));
        assert!(processes.enter(&process(4, 2), 2 * SOON), "another directory is another voter");
        assert!(processes.hear(&process(3, 1), STILL_THERE));
        assert!(!processes.enter(&process(3, 2), STILL_THERE + SOON));
        // It has ended.
        processes.leave(&process(3, 1));
        assert!(!processes.admits(&process(3, 2), STILL_THERE + SOON));
        processes.leave(&process(3, 1));
        assert!(processes.enter(&process(3, 2), STILL_THERE + SOON));
    }

    #[test]
    fn process_that_is_silent_makes_room_and_is_not_heard_again() {
        let mut processes = Processes::default();
        assert!(processes.enter(&process(3, 1), Duration::ZERO));
        assert!(!processes.enter(&process(3, 2), STILL_THERE));
        let later = STILL_THERE + SOON;
        assert!(processes.enter(&process(3, 2), later));
        assert!(!processes.hear(&process(3, 1), later));
        assert!(!processes.enter(&process(3, 1), later));
        // Its end is not the other one's.
        processes.leave(&process(3, 1));
        assert!(processes.hear(&process(3, 2), later));
        assert!(!processes.enter(&process(3, 1), later));
    }
}
