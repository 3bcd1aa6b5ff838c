//! A leader looks after the quorum's membership: carries out what [`super::replacing`] decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::Precondition;
use stonelog_protocol::BrokerId;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::peer::probe::ListedVoter;
use tokio::time::{Instant, sleep, timeout};

use super::node::{QuorumNode, StartError, refused};
use super::replacing::{Change, Seen, SeenMember};
use super::type_config::{LogId, Voter};
use super::wire::{broker, node};
use super::wishes::{FORGOTTEN_AFTER, Next, Refusal, VoterProgress, VoterWish};

/// How often a leader looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that one change is waited for; it may come to pass later, and the next look sees what it came to.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);
/// So many entries behind the leader, a copy has caught up: the rest comes while it begins to vote.
const BEHIND_MAX: u64 = 8;

/// What somebody wants of the membership.
pub(super) struct Wished {
    wish: VoterWish,
    /// No step towards it was taken yet.
    is_first: bool,
    /// When it was last asked for.
    asked: Instant,
    /// What it came to.
    verdict: Option<Result<(), Refusal>>,
}

impl Wished {
    fn is_wanted(&self) -> bool {
        self.asked.elapsed() <= FORGOTTEN_AFTER
    }
}

impl QuorumNode {
    /// Looks again and again at the others and at the membership, whenever this node leads: for ever. `own` is how this
    /// node is reached, `listed` who votes by its configuration.
    pub async fn tend(&self, own: Voter, listed: &[ListedVoter]) {
        let address = |voter: &ListedVoter| (voter.node, (voter.host.to_string(), voter.port));
        let listed: BTreeMap<BrokerId, (String, u16)> = listed.iter().map(address).collect();
        let mut led: Option<(u64, Instant)> = None;
        loop {
            sleep(LOOK_EVERY).await;
            let Some(term) = self.leading_term().filter(|_| self.leads_surely()) else {
                led = None;
                continue;
            };
            let since = match led {
                Some((known, since)) if known == term => since,
                _ => led.insert((term, Instant::now())).1,
            };
            let Some((seen, based_on)) = self.look(&own, &listed, since.elapsed()) else { continue };
            let change = match self.towards_wish(&seen) {
                Some(Next::Change(change)) => change,
                Some(Next::HandOver(to)) => {
                    tracing::warn!("node {to} is to lead the metadata quorum, for this node is to leave it");
                    // It may not come to it: then the next look tries again.
                    drop(self.transfer_leader(to).await);
                    continue;
                }
                _ => match seen.decide() {
                    Some(change) => change,
                    None => continue,
                },
            };
            tracing::warn!(?change, "the metadata quorum's members change");
            match timeout(CHANGE_WITHIN, self.carry_out(&change, based_on)).await {
                Ok(Ok(())) => tracing::warn!(?change, "the metadata quorum's members have changed"),
                Ok(Err(error)) => tracing::warn!(?change, "the metadata quorum's members have not changed: {error}"),
                Err(_) => tracing::warn!(?change, "it is not known yet whether the quorum's members have changed"),
            }
        }
    }

    /// Takes a wish, or says how far it has come. It is carried out by [`QuorumNode::tend`].
    pub(crate) fn wish(&self, wish: &VoterWish, is_first: bool) -> Result<VoterProgress, Refusal> {
        let mut wished = self.wished();
        match &mut *wished {
            Some(known) if known.wish == *wish => {
                known.asked = Instant::now();
                match known.verdict.take() {
                    None => Ok(VoterProgress::UnderWay),
                    Some(verdict) => {
                        *wished = None;
                        verdict.map(|()| VoterProgress::Done)
                    }
                }
            }
            Some(other) if other.is_wanted() => {
                let why = "another change of the voters is under way: try again when it is over";
                Err((ErrorCode::RequestTimedOut, why.to_owned()))
            }
            _ => {
                *wished = Some(Wished { wish: wish.clone(), is_first, asked: Instant::now(), verdict: None });
                Ok(VoterProgress::UnderWay)
            }
        }
    }

    /// The next step towards what somebody wants; what it came to is kept for whoever asks again.
    fn towards_wish(&self, seen: &Seen) -> Option<Next> {
        let mut wished = self.wished();
        let known = wished.as_mut().filter(|known| known.is_wanted() && known.verdict.is_none())?;
        match seen.towards(&known.wish, known.is_first) {
            Err(refusal) => known.verdict = Some(Err(refusal)),
            Ok(Next::Done) => known.verdict = Some(Ok(())),
            Ok(Next::Wait) => {}
            Ok(next) => {
                known.is_first = false;
                return Some(next);
            }
        }
        None
    }

    fn wished(&self) -> MutexGuard<'_, Option<Wished>> {
        self.wished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this leader sees, and which membership that is based on.
    fn look(
        &self,
        own: &Voter,
        listed: &BTreeMap<BrokerId, (String, u16)>,
        led_for: Duration,
    ) -> Option<(Seen, Option<LogId>)> {
        let copies = self.sample()?;
        let stored = self.raft.metrics().borrow_watched().membership_config.clone();
        let membership = stored.membership();
        let configs = membership.get_joint_config();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let member = |(id, voter): (&u64, &Voter)| {
            let (end, heard) = copies.others.get(id).copied().unwrap_or_default();
            let has_all = end.is_some_and(|end| end + BEHIND_MAX >= copies.log_end);
            let seen = SeenMember { voter: voter.clone(), votes: voters.contains(id), heard, has_all };
            (broker(*id), seen)
        };
        let observers = self.observers().into_iter().filter(|(_, seen, _)| seen.may_vote);
        let observers = observers.map(|(id, seen, ago)| (id, (seen.directory, ago)));
        let to_broker = |config: &BTreeSet<u64>| config.iter().copied().map(broker).collect();
        let seen = Seen {
            led_for,
            members: membership.nodes().filter(|(id, _)| **id != self.node_id).map(member).collect(),
            own: broker(self.node_id),
            own_voter: own.clone(),
            own_known_as: membership.get_node(&self.node_id)?.clone(),
            underway: if configs.len() > 1 { configs.last().map(to_broker) } else { None },
            observers: observers.collect(),
            listed: listed.clone(),
        };
        Some((seen, *stored.log_id()))
    }

    /// Carries out one change, if the membership is still the one that it was decided on.
    async fn carry_out(&self, change: &Change, based_on: Option<LogId>) -> Result<(), StartError> {
        let voters = || self.raft.metrics().borrow_watched().membership_config.membership().voter_ids().collect();
        let change = match change {
            Change::Settle(voters) => ChangeMembers::ReplaceAllVoters(voters.iter().copied().map(node).collect()),
            Change::Readdress(own) => ChangeMembers::SetNodes([(self.node_id, own.clone())].into()),
            Change::Remove(gone) => {
                let mut staying: BTreeSet<u64> = voters();
                staying.remove(&node(*gone));
                ChangeMembers::ReplaceAllVoters(staying)
            }
            Change::Forget(gone) => ChangeMembers::RemoveNodes([node(*gone)].into()),
            Change::Add(new, voter) => ChangeMembers::AddNodes([(node(*new), voter.clone())].into()),
            Change::Promote(ready) => {
                let mut all: BTreeSet<u64> = voters();
                all.extend(ready.iter().copied().map(node));
                ChangeMembers::ReplaceAllVoters(all)
            }
        };
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: based_on };
        self.raft.change_membership_if(change, false, [unchanged]).await.map(|_| ()).map_err(refused)
    }
}
