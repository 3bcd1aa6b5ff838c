//! Which change of the quorum's members is due, one at a time: pure (rule 13, KIP-853).
//!
//! A voter whose directory is gone for good is replaced by its node's new directory: it votes no more, is added as one to
//! be, and votes again when it has what the leader has. A node that the leader's configuration lists as a voter, and that
//! is none, is added the same way. Nothing here is remembered from one look to the next: what a leader that stopped
//! half-way has left is in the membership, and the next leader goes on from there. A member that does not vote is always
//! one to be.
//!
//! A node is never given another directory in place, for what the old one had promised and confirmed would count for the
//! new one. It leaves the membership first, and that is on every other voter before it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stonelog_protocol::{BrokerId, DirectoryId};

use super::type_config::Voter;

/// Whoever was heard of within this time is in touch: many signs of life between voters, a few questions of an observer.
pub(super) const IN_TOUCH: Duration = Duration::from_secs(2);
/// A voter that was not heard of for so long by a leader that led all the while may be replaced.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(5);
/// Voters and voters to be.
pub(super) const MEMBERS_MAX: usize = 7;

/// What a leader sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// How long it has led surely.
    pub(super) led_for: Duration,
    /// Whom the membership names besides the leader itself, which votes.
    pub(super) members: BTreeMap<BrokerId, SeenMember>,
    /// The leader.
    pub(super) own: BrokerId,
    /// How the membership is to name the leader.
    pub(super) own_voter: Voter,
    /// How it names it.
    pub(super) own_known_as: Voter,
    /// The voters that a change under way leads to, if there is one.
    pub(super) underway: Option<BTreeSet<BrokerId>>,
    /// Nodes that follow without voting: directory, and how long ago they asked.
    pub(super) observers: BTreeMap<BrokerId, (DirectoryId, Duration)>,
    /// Where the voters by configuration are.
    pub(super) listed: BTreeMap<BrokerId, (String, u16)>,
}

/// A member of the quorum besides the leader.
#[derive(Clone, Debug)]
pub(super) struct SeenMember {
    pub(super) voter: Voter,
    pub(super) votes: bool,
    /// How long ago it answered, if it has under this leader.
    pub(super) heard: Option<Duration>,
    /// Whether it has what the leader has, but for the newest.
    pub(super) has_all: bool,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Finish a change that somebody has left half done: these vote.
    Settle(BTreeSet<BrokerId>),
    /// The membership has an address of the leader that is not its own any more.
    Readdress(Voter),
    /// A voter's directory is gone, and another one of its node is there: it votes no more.
    Remove(BrokerId),
    /// The same of one that did not vote yet.
    Forget(BrokerId),
    /// Have a node follow as a voter to be.
    Add(BrokerId, Voter),
    /// They have caught up: they vote.
    Promote(BTreeSet<BrokerId>),
}

impl SeenMember {
    pub(super) fn is_in_touch(&self) -> bool {
        self.heard.is_some_and(|ago| ago <= IN_TOUCH)
    }

    /// What is proposed now, it can confirm: signs of life also come from one that its journal has no room for.
    pub(super) fn is_ready(&self) -> bool {
        self.is_in_touch() && self.has_all
    }
}

impl Seen {
    /// The change that is due, if one is.
    pub(super) fn decide(&self) -> Option<Change> {
        if let Some(voters) = &self.underway {
            return Some(Change::Settle(voters.clone()));
        }
        // Only with all the others there: whatever was committed is then on each of them, and stays committed.
        let missing: Vec<&BrokerId> =
            self.voters().filter(|(_, voter)| !voter.is_in_touch()).map(|(id, _)| id).collect();
        match missing[..] {
            [] => self.grow(),
            // Whoever could not be added again is not taken out: the quorum would only be smaller.
            [gone] if self.listed.contains_key(gone) && self.is_replaced(*gone) => Some(Change::Remove(*gone)),
            _ => None,
        }
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = (&BrokerId, &SeenMember)> {
        self.members.iter().filter(|(_, member)| member.votes)
    }

    /// Whether a member is gone, and its node is there with another directory.
    fn is_replaced(&self, node: BrokerId) -> bool {
        let Some(member) = self.members.get(&node) else { return false };
        let is_gone = self.led_for >= GONE_AFTER && member.heard.is_none_or(|ago| ago >= GONE_AFTER);
        is_gone && self.newcomer(node).is_some_and(|directory| directory.0 != member.voter.directory)
    }

    /// The directory of a node that follows without voting and is in touch; not if a member has it: one of the two would
    /// be a copy.
    pub(super) fn newcomer(&self, node: BrokerId) -> Option<DirectoryId> {
        let (directory, ago) = self.observers.get(&node)?;
        let is_taken = |voter: &Voter| voter.directory == directory.0;
        let is_copy = self.members.values().any(|member| is_taken(&member.voter)) || is_taken(&self.own_known_as);
        (*ago <= IN_TOUCH && !is_copy).then_some(*directory)
    }

    /// All voters are in touch.
    fn grow(&self) -> Option<Change> {
        if self.own_voter != self.own_known_as && !self.own_voter.host.is_empty() {
            return Some(Change::Readdress(self.own_voter.clone()));
        }
        let to_be = || self.members.iter().filter(|(_, member)| !member.votes);
        if let Some((node, _)) = to_be().find(|(node, _)| self.is_replaced(**node)) {
            return Some(Change::Forget(*node));
        }
        if self.led_for >= IN_TOUCH
            && self.members.len() + 1 < MEMBERS_MAX
            && let Some((node, voter)) = self.listed.keys().find_map(|node| self.joining(*node))
        {
            return Some(Change::Add(node, voter));
        }
        let mut ready: BTreeSet<BrokerId> =
            to_be().filter(|(_, member)| member.is_ready()).map(|(id, _)| *id).collect();
        // An even number of voters stands no more failures than one less, and needs more of them.
        if (self.voters().count() + 1 + ready.len()).is_multiple_of(2) {
            ready.pop_last();
        }
        (!ready.is_empty()).then_some(Change::Promote(ready))
    }

    /// A listed node that is no member and follows.
    fn joining(&self, node: BrokerId) -> Option<(BrokerId, Voter)> {
        if node == self.own || self.members.contains_key(&node) {
            return None;
        }
        let (host, port) = self.listed.get(&node)?.clone();
        let directory = self.newcomer(node)?.0;
        Some((node, Voter { directory, host, port }))
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Uuid;

    use super::*;

    const SOON: Duration = Duration::from_millis(100);

    fn voter(node: i32, directory: u8) -> Voter {
        Voter { directory: [directory; 16], host: format!("h{node}"), port: 1 }
    }

    fn member(node: i32, votes: bool) -> (BrokerId, SeenMember) {
        (BrokerId(node), SeenMember { voter: voter(node, node as u8), votes, heard: Some(SOON), has_all: true })
    }

    /// Node 1 leads 2 and 3, all in touch; the three are listed.
    fn three() -> Seen {
        let listed = [1, 2, 3].map(|node| (BrokerId(node), (format!("h{node}"), 1)));
        Seen {
            led_for: Duration::from_secs(60),
            members: [member(2, true), member(3, true)].into(),
            own: BrokerId(1),
            own_voter: voter(1, 1),
            own_known_as: voter(1, 1),
            underway: None,
            observers: BTreeMap::new(),
            listed: listed.into(),
        }
    }

    fn follows(seen: &mut Seen, node: i32, directory: u8) {
        seen.observers.insert(BrokerId(node), (Uuid([directory; 16]), SOON));
    }

    fn silent(seen: &mut Seen, node: i32) {
        seen.members.get_mut(&BrokerId(node)).unwrap().heard = Some(GONE_AFTER);
    }

    fn nodes<const N: usize>(nodes: [i32; N]) -> BTreeSet<BrokerId> {
        nodes.map(BrokerId).into()
    }

    #[test]
    fn nothing_is_due_while_all_vote_or_one_is_merely_away() {
        let mut seen = three();
        assert_eq!(seen.decide(), None);
        silent(&mut seen, 3);
        assert_eq!(seen.decide(), None);
        // Somebody else's new directory replaces nobody.
        follows(&mut seen, 4, 9);
        assert_eq!(seen.decide(), None);
    }

    #[test]
    fn wiped_voter_is_replaced_in_steps_that_any_leader_goes_on_with() {
        let mut seen = three();
        silent(&mut seen, 3);
        follows(&mut seen, 3, 9);
        assert_eq!(seen.decide(), Some(Change::Remove(BrokerId(3))));
        seen.underway = Some(nodes([1, 2]));
        assert_eq!(seen.decide(), Some(Change::Settle(nodes([1, 2]))));
        seen.underway = None;
        seen.members.remove(&BrokerId(3));
        assert_eq!(seen.decide(), Some(Change::Add(BrokerId(3), voter(3, 9))));
        let to_be = SeenMember { voter: voter(3, 9), votes: false, heard: None, has_all: false };
        seen.members.insert(BrokerId(3), to_be);
        assert_eq!(seen.decide(), None);
        let caught_up = SeenMember { voter: voter(3, 9), votes: false, heard: Some(SOON), has_all: true };
        seen.members.insert(BrokerId(3), caught_up);
        assert_eq!(seen.decide(), Some(Change::Promote(nodes([3]))));
    }

    #[test]
    fn voter_is_replaced_only_when_it_is_gone_and_every_other_one_is_there() {
        let wiped = || {
            let mut seen = three();
            silent(&mut seen, 3);
            follows(&mut seen, 3, 9);
            seen
        };
        // Another one is away as well.
        let mut seen = wiped();
        silent(&mut seen, 2);
        assert_eq!(seen.decide(), None);
        // The old directory was heard of a moment ago.
        let mut seen = wiped();
        seen.members.get_mut(&BrokerId(3)).unwrap().heard = Some(GONE_AFTER - SOON);
        assert_eq!(seen.decide(), None);
        // The leader has not led long enough to know.
        let mut seen = wiped();
        seen.members.get_mut(&BrokerId(3)).unwrap().heard = None;
        seen.led_for = GONE_AFTER - SOON;
        assert_eq!(seen.decide(), None);
        seen.led_for = GONE_AFTER;
        assert_eq!(seen.decide(), Some(Change::Remove(BrokerId(3))));
        // The new one is away again.
        let mut seen = wiped();
        seen.observers.insert(BrokerId(3), (Uuid([9; 16]), IN_TOUCH + SOON));
        assert_eq!(seen.decide(), None);
        // It is the old directory, which follows for some reason.
        let mut seen = wiped();
        follows(&mut seen, 3, 3);
        assert_eq!(seen.decide(), None);
        // It is a copy of another voter's.
        let mut seen = wiped();
        follows(&mut seen, 3, 2);
        assert_eq!(seen.decide(), None);
    }

    #[test]
    fn wiped_voter_that_the_leader_would_not_add_again_stays() {
        let mut seen = three();
        silent(&mut seen, 3);
        follows(&mut seen, 3, 9);
        seen.listed.remove(&BrokerId(3));
        assert_eq!(seen.decide(), None);
    }

    #[test]
    fn one_to_be_that_is_wiped_before_it_votes_makes_room_for_itself() {
        let mut seen = three();
        let gone = SeenMember { voter: voter(3, 9), votes: false, heard: Some(GONE_AFTER), has_all: true };
        seen.members.insert(BrokerId(3), gone);
        assert_eq!(seen.decide(), None);
        follows(&mut seen, 3, 10);
        assert_eq!(seen.decide(), Some(Change::Forget(BrokerId(3))));
        seen.members.remove(&BrokerId(3));
        assert_eq!(seen.decide(), Some(Change::Add(BrokerId(3), voter(3, 10))));
    }

    #[test]
    fn lone_voter_becomes_three_at_once_and_never_two() {
        let mut seen = Seen { members: BTreeMap::new(), ..three() };
        seen.own_known_as = Voter { host: String::new(), port: 0, ..voter(1, 1) };
        follows(&mut seen, 2, 2);
        assert_eq!(seen.decide(), Some(Change::Readdress(voter(1, 1))));
        seen.own_known_as = voter(1, 1);
        assert_eq!(seen.decide(), Some(Change::Add(BrokerId(2), voter(2, 2))));
        seen.members.extend([member(2, false)]);
        assert_eq!(seen.decide(), None);
        follows(&mut seen, 3, 3);
        assert_eq!(seen.decide(), Some(Change::Add(BrokerId(3), voter(3, 3))));
        seen.members.extend([member(3, false)]);
        assert_eq!(seen.decide(), Some(Change::Promote(nodes([2, 3]))));
        seen.members.get_mut(&BrokerId(3)).unwrap().has_all = false;
        assert_eq!(seen.decide(), None);
    }

    #[test]
    fn node_that_is_not_listed_is_not_added() {
        let mut seen = three();
        follows(&mut seen, 4, 4);
        assert_eq!(seen.decide(), None);
        seen.listed.insert(BrokerId(4), ("h4".to_owned(), 1));
        assert_eq!(seen.decide(), Some(Change::Add(BrokerId(4), voter(4, 4))));
    }
}
