//! The in-sync set as its leader must fear it: the committed one, and every one that may have been committed (rule 3).
//!
//! A proposal is counted in before it is handed out. Its answer takes nothing back: a retry or a late duplicate of it may
//! still be committed, for as long as the partition epoch it is based on is the present one. Only the leader's own image,
//! at a later partition epoch, settles what was proposed. Until the image has reached an answer's index nothing new is
//! proposed, for the answer may rest on what the image does not show yet.

use std::collections::BTreeSet;

use stonelog_protocol::BrokerId;

/// What was proposed on the present partition epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IsrProposed {
    /// Members of all of it.
    members: BTreeSet<BrokerId>,
    /// Handed out, and not answered.
    in_flight: bool,
    /// The index that the image must reach before the next proposal.
    after_index: u64,
}

impl IsrProposed {
    /// Every broker that a committed set may hold.
    pub(super) fn maximal<'a>(&'a self, committed: &'a BTreeSet<BrokerId>) -> impl Iterator<Item = BrokerId> + 'a {
        let proposed = self.members.iter().filter(|broker| !committed.contains(broker) && !off!(UnionIsr));
        committed.iter().chain(proposed).copied()
    }

    /// Whether something was proposed that goes beyond the committed set, and nothing has settled it.
    pub(super) fn exceeds(&self, committed: &BTreeSet<BrokerId>) -> bool {
        !self.members.is_subset(committed)
    }

    /// Whether a new proposal may be made on an image of this index.
    pub(super) fn may_propose(&self, image_index: u64) -> bool {
        !self.in_flight && image_index >= self.after_index
    }

    /// A set is handed out.
    pub(super) fn on_proposed(&mut self, isr: impl IntoIterator<Item = BrokerId>) {
        assert!(!self.in_flight, "one change of a partition at a time");
        self.members.extend(isr);
        self.in_flight = true;
    }

    /// The proposal was answered, one way or the other, on the controller's image of this index; `None` when nobody
    /// knows what became of it.
    pub(super) fn on_answer(&mut self, decided_at: Option<u64>) {
        self.in_flight = false;
        self.after_index = self.after_index.max(decided_at.unwrap_or(0));
    }

    /// The leader's image has a later partition epoch: nothing that was proposed on an earlier one can be committed any
    /// more, whatever became of it.
    pub(super) fn on_settled(&mut self) {
        self.members.clear();
        self.in_flight = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[i32]) -> BTreeSet<BrokerId> {
        ids.iter().map(|id| BrokerId(*id)).collect()
    }

    #[test]
    fn every_proposal_stays_until_the_image_settles_it() {
        let mut proposed = IsrProposed::default();
        let committed = set(&[1]);
        proposed.on_proposed(set(&[1, 2]));
        assert!(!proposed.may_propose(9));
        proposed.on_answer(None);
        proposed.on_proposed(set(&[1, 3]));
        proposed.on_answer(Some(12));
        assert_eq!(proposed.maximal(&committed).collect::<BTreeSet<_>>(), set(&[1, 2, 3]));
        assert!(proposed.exceeds(&committed));
        assert!(!proposed.may_propose(11), "the answer rests on an image that is not here yet");
        assert!(proposed.may_propose(12));
        proposed.on_settled();
        assert_eq!(proposed.maximal(&committed).collect::<BTreeSet<_>>(), committed);
    }
}
