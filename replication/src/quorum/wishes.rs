//! What somebody wants of the quorum's members, and whether it may be: pure (KIP-853's AddRaftVoter and RemoveRaftVoter).
//!
//! A wish is asked for again and again until it is fulfilled, of whoever leads by then: nothing is remembered but the
//! newest one, for as long as it is asked for, and what a leader that stopped half-way has left is in the membership. One
//! step is taken at a time, as [`super::replacing`] takes those of its own.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_protocol::peer::wire::HOST_BYTES_MAX;
use stonelog_protocol::{BrokerId, DirectoryId};

use super::replacing::{Change, IN_TOUCH, MEMBERS_MAX, Seen, SeenMember};
use super::type_config::Voter;

/// A wish that is not asked for again within this time is forgotten. Longer than a change of leaders takes.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterWish {
    /// This node is to vote with this directory, reached there.
    Add(ListedVoter, DirectoryId),
    /// This node with this directory is not to be a member any more.
    Remove(BrokerId, DirectoryId),
}

impl VoterWish {
    /// Whether a membership can name the place where the voter is to be reached: it is kept with every membership, and
    /// must fit each of them, a snapshot's as well.
    pub fn names_a_place(&self) -> bool {
        let VoterWish::Add(ListedVoter { host, .. }, _) = self else { return true };
        let is_plain = |c: char| !c.is_control() && !c.is_whitespace();
        !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.chars().all(is_plain)
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterProgress {
    /// It is to be asked for again.
    UnderWay,
    /// It is so.
    Done,
}

/// A wish that is not granted: the code and words a client gets.
pub(super) type Refusal = (ErrorCode, String);

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is so.
    Done,
    /// Nothing to be done now.
    Wait,
    /// This change.
    Change(Change),
    /// Another voter is to lead first: a leader does not take itself out.
    HandOver(BrokerId),
}

impl Seen {
    /// What a wish comes to. `is_first`: it was not asked for before, so what it wants must not be so already.
    pub(super) fn towards(&self, wish: &VoterWish, is_first: bool) -> Result<Next, Refusal> {
        if !wish.names_a_place() {
            return Err((ErrorCode::InvalidRequest, "that is no address that a voter can be reached at".to_owned()));
        }
        if let Some(voters) = &self.underway {
            return Ok(Next::Change(Change::Settle(voters.clone())));
        }
        match wish {
            VoterWish::Add(voter, directory) => self.towards_adding(voter, *directory, is_first),
            VoterWish::Remove(node, directory) => self.towards_removing(*node, *directory, is_first),
        }
    }

    fn towards_adding(&self, wanted: &ListedVoter, directory: DirectoryId, is_first: bool) -> Result<Next, Refusal> {
        let node = wanted.node;
        let duplicate = |why: &str| Err((ErrorCode::DuplicateVoter, format!("node {node} {why}")));
        let member = self.members.get(&node);
        let known = if node == self.own { Some((&self.own_known_as, true)) } else { member.map(of_member) };
        match known {
            Some((voter, true)) if voter.directory == directory.0 => match is_first {
                true => duplicate("votes already"),
                false => Ok(Next::Done),
            },
            Some((_, true)) => duplicate("votes with another directory: remove that voter first"),
            Some((voter, false)) if voter.directory != directory.0 => {
                duplicate("is being added with another directory: remove that one first")
            }
            Some((_, false)) => {
                let is_ready = member.is_some_and(SeenMember::is_ready);
                // The leader and the new one are there.
                let (there, all) =
                    (self.voters().filter(|(_, voter)| voter.is_ready()).count() + 2, self.voters().count() + 2);
                let promoted = Change::Promote([node].into());
                Ok(if is_ready && is_majority(there, all) { Next::Change(promoted) } else { Next::Wait })
            }
            None if self.members.len() + 1 >= MEMBERS_MAX => {
                let why = format!("the quorum has {MEMBERS_MAX} members: remove one first");
                Err((ErrorCode::InvalidRequest, why))
            }
            None => match self.newcomer(node) {
                Some(found) if found == directory => {
                    let (host, port) = (wanted.host.to_string(), wanted.port);
                    Ok(Next::Change(Change::Add(node, Voter { directory: directory.0, host, port })))
                }
                // Who follows is known to a leader only after a while.
                _ if self.led_for < IN_TOUCH => Ok(Next::Wait),
                _ => {
                    let why = format!(
                        "node {node} with directory {directory} does not follow the metadata, or its directory is a \
                         copy of a voter's: start it with process.roles=controller and \
                         controller.quorum.bootstrap.servers, and wait until it is ready"
                    );
                    Err((ErrorCode::InvalidRequest, why))
                }
            },
        }
    }

    fn towards_removing(&self, node: BrokerId, directory: DirectoryId, is_first: bool) -> Result<Next, Refusal> {
        let missing =
            || Err((ErrorCode::VoterNotFound, format!("node {node} with directory {directory} is no member")));
        if node == self.own {
            if self.own_known_as.directory != directory.0 {
                return missing();
            }
            let able = self.voters().filter(|(_, voter)| voter.is_ready());
            let heirs: Vec<BrokerId> = able.map(|(id, _)| *id).collect();
            return match heirs.first() {
                _ if self.listed.contains_key(&node) => self.is_listed(node),
                Some(heir) if self.can_do_without(node, SeenMember::is_ready) => Ok(Next::HandOver(*heir)),
                _ => self.wait_for_the_others(node),
            };
        }
        match self.members.get(&node) {
            None if is_first => missing(),
            None => Ok(Next::Done),
            Some(member) if member.voter.directory != directory.0 => missing(),
            Some(_) if self.listed.contains_key(&node) => self.is_listed(node),
            Some(member) if !member.votes => Ok(Next::Change(Change::Forget(node))),
            Some(_) if self.can_do_without(node, SeenMember::is_ready) => Ok(Next::Change(Change::Remove(node))),
            Some(_) => self.wait_for_the_others(node),
        }
    }

    /// It would be added again: its place in the quorum is this leader's configuration's.
    fn is_listed(&self, node: BrokerId) -> Result<Next, Refusal> {
        let why = format!(
            "node {node} is listed in controller.quorum.voters of node {}, which leads, and would be added again: have \
             the controllers find the quorum with controller.quorum.bootstrap.servers instead, and restart them one \
             after the other",
            self.own
        );
        Err((ErrorCode::InvalidRequest, why))
    }

    /// Those that stay may only have to catch up, or to be heard of first.
    fn wait_for_the_others(&self, node: BrokerId) -> Result<Next, Refusal> {
        let may_come = self.led_for < IN_TOUCH || self.can_do_without(node, SeenMember::is_in_touch);
        if may_come { Ok(Next::Wait) } else { self.needed(node) }
    }

    fn needed(&self, node: BrokerId) -> Result<Next, Refusal> {
        let why = format!("without node {node} the voters that are left and in touch are no majority, or none");
        Err((ErrorCode::InvalidRequest, why))
    }

    /// Whether those that stay, and are such, can decide by themselves.
    fn can_do_without(&self, node: BrokerId, is_such: impl Fn(&SeenMember) -> bool) -> bool {
        let own = usize::from(node != self.own);
        let others = || self.voters().filter(|(id, _)| **id != node);
        let there = own + others().filter(|(_, voter)| is_such(voter)).count();
        own + others().count() > 0 && is_majority(there, own + others().count())
    }
}

fn of_member(member: &SeenMember) -> (&Voter, bool) {
    (&member.voter, member.votes)
}

fn is_majority(there: usize, all: usize) -> bool {
    there > all / 2
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stonelog_protocol::Uuid;

    use super::*;

    const SOON: Duration = Duration::from_millis(100);
    const LONG_AGO: Duration = Duration::from_secs(60);

    fn voter(node: i32) -> Voter {
        Voter { directory: [node as u8; 16], host: format!("h{node}"), port: 1 }
    }

    fn member(node: i32, votes: bool) -> (BrokerId, SeenMember) {
        (BrokerId(node), SeenMember { voter: voter(node), votes, heard: Some(SOON), has_all: true })
    }

    /// Node 1 leads 2 and 3, all in touch; nobody is listed. Node 4 follows.
    fn three() -> Seen {
        Seen {
            led_for: LONG_AGO,
            members: [member(2, true), member(3, true)].into(),
            own: BrokerId(1),
            own_voter: voter(1),
            own_known_as: voter(1),
            underway: None,
            observers: [(BrokerId(4), (Uuid([4; 16]), SOON))].into(),
            listed: BTreeMap::new(),
        }
    }

    fn silent(seen: &mut Seen, node: i32) {
        seen.members.get_mut(&BrokerId(node)).unwrap().heard = Some(LONG_AGO);
    }

    fn add(node: i32) -> VoterWish {
        let voter = ListedVoter { node: BrokerId(node), host: format!("h{node}").into(), port: 1 };
        VoterWish::Add(voter, Uuid([node as u8; 16]))
    }

    fn remove(node: i32) -> VoterWish {
        VoterWish::Remove(BrokerId(node), Uuid([node as u8; 16]))
    }

    fn code(result: Result<Next, Refusal>) -> ErrorCode {
        result.unwrap_err().0
    }

    #[test]
    fn observer_becomes_a_voter_in_two_steps_that_any_leader_goes_on_with() {
        let mut seen = three();
        assert_eq!(seen.towards(&add(4), true), Ok(Next::Change(Change::Add(BrokerId(4), voter(4)))));
        let (id, mut to_be) = member(4, false);
        to_be.has_all = false;
        seen.members.insert(id, to_be);
        assert_eq!(seen.towards(&add(4), false), Ok(Next::Wait));
        seen.members.extend([member(4, false)]);
        assert_eq!(seen.towards(&add(4), true), Ok(Next::Change(Change::Promote([BrokerId(4)].into()))));
        seen.underway = Some([1, 2, 3, 4].map(BrokerId).into());
        assert!(matches!(seen.towards(&add(4), false), Ok(Next::Change(Change::Settle(_)))));
        seen.underway = None;
        seen.members.extend([member(4, true)]);
        assert_eq!(seen.towards(&add(4), false), Ok(Next::Done));
        assert_eq!(code(seen.towards(&add(4), true)), ErrorCode::DuplicateVoter);
    }

    #[test]
    fn voter_is_added_only_with_an_address_that_every_membership_can_hold() {
        let at = |host: &str| {
            let voter = ListedVoter { node: BrokerId(4), host: host.into(), port: 1 };
            three().towards(&VoterWish::Add(voter, Uuid([4; 16])), true)
        };
        assert!(at(&"h".repeat(255)).is_ok());
        for host in [&*"h".repeat(256), "", "a b", "a\n"] {
            assert_eq!(code(at(host)), ErrorCode::InvalidRequest, "{host:?}");
        }
    }

    #[test]
    fn voter_is_promoted_only_where_the_greater_quorum_can_decide() {
        let mut seen = three();
        seen.members.extend([member(4, false)]);
        silent(&mut seen, 2);
        // Three of four are there.
        assert_eq!(seen.towards(&add(4), false), Ok(Next::Change(Change::Promote([BrokerId(4)].into()))));
        silent(&mut seen, 3);
        assert_eq!(seen.towards(&add(4), false), Ok(Next::Wait));
        // A lone voter can be joined by one.
        let lone = Seen { members: [member(4, false)].into(), ..three() };
        assert_eq!(lone.towards(&add(4), false), Ok(Next::Change(Change::Promote([BrokerId(4)].into()))));
        // Nor is one that is not there itself.
        let mut seen = three();
        seen.members.extend([member(4, false)]);
        silent(&mut seen, 4);
        assert_eq!(seen.towards(&add(4), false), Ok(Next::Wait));
    }

    #[test]
    fn node_that_does_not_follow_with_that_directory_is_not_added() {
        let seen = three();
        assert_eq!(code(seen.towards(&add(5), true)), ErrorCode::InvalidRequest);
        let other = |wish| match wish {
            VoterWish::Add(voter, _) => VoterWish::Add(voter, Uuid([9; 16])),
            VoterWish::Remove(node, _) => VoterWish::Remove(node, Uuid([9; 16])),
        };
        assert_eq!(code(seen.towards(&other(add(4)), true)), ErrorCode::InvalidRequest);
        assert_eq!(code(seen.towards(&other(add(2)), true)), ErrorCode::DuplicateVoter);
        assert_eq!(code(seen.towards(&add(1), true)), ErrorCode::DuplicateVoter);
        for wish in [other(remove(2)), other(remove(1)), remove(5)] {
            assert_eq!(code(seen.towards(&wish, true)), ErrorCode::VoterNotFound, "{wish:?}");
        }
        // A leader that has led for a moment does not know yet who follows.
        let young = Seen { led_for: SOON, ..three() };
        assert_eq!(young.towards(&add(5), true), Ok(Next::Wait));
    }

    #[test]
    fn voter_is_removed_and_one_that_is_needed_is_not() {
        let mut seen = three();
        assert_eq!(seen.towards(&remove(3), true), Ok(Next::Change(Change::Remove(BrokerId(3)))));
        silent(&mut seen, 3);
        assert_eq!(seen.towards(&remove(3), true), Ok(Next::Change(Change::Remove(BrokerId(3)))));
        // Of the two that would stay only one is there.
        assert_eq!(code(seen.towards(&remove(2), true)), ErrorCode::InvalidRequest);
        assert_eq!(code(seen.towards(&remove(1), true)), ErrorCode::InvalidRequest);
        seen.members.remove(&BrokerId(3));
        assert_eq!(seen.towards(&remove(3), false), Ok(Next::Done));
        seen.members.remove(&BrokerId(2));
        // Nobody would be left.
        assert_eq!(code(seen.towards(&remove(1), true)), ErrorCode::InvalidRequest);
    }

    #[test]
    fn voters_change_only_when_those_that_stay_have_what_the_leader_has() {
        let mut seen = three();
        seen.members.get_mut(&BrokerId(2)).unwrap().has_all = false;
        // Without node 3 nothing could be committed until node 2 has caught up.
        assert_eq!(seen.towards(&remove(3), true), Ok(Next::Wait));
        assert_eq!(seen.towards(&remove(2), true), Ok(Next::Change(Change::Remove(BrokerId(2)))));
        seen.members.extend([member(4, false)]);
        silent(&mut seen, 3);
        assert_eq!(seen.towards(&add(4), false), Ok(Next::Wait));
        seen.members.extend([member(2, true)]);
        assert_eq!(seen.towards(&add(4), false), Ok(Next::Change(Change::Promote([BrokerId(4)].into()))));
    }

    #[test]
    fn leader_hands_over_before_it_is_removed_and_one_to_be_is_forgotten() {
        let mut seen = three();
        assert_eq!(seen.towards(&remove(1), true), Ok(Next::HandOver(BrokerId(2))));
        seen.members.extend([member(4, false)]);
        assert_eq!(seen.towards(&remove(4), true), Ok(Next::Change(Change::Forget(BrokerId(4)))));
    }

    #[test]
    fn listed_voter_is_not_removed_for_it_would_come_again() {
        let mut seen = three();
        seen.listed = [1, 2, 3].map(|node| (BrokerId(node), (format!("h{node}"), 1))).into();
        for node in 1..=3 {
            let (code, why) = seen.towards(&remove(node), true).unwrap_err();
            assert!(code == ErrorCode::InvalidRequest && why.contains("bootstrap.servers"), "{why}");
        }
    }
}
