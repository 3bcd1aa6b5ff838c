//! Whether a directory is the one the controller last saw, or an old copy of it put back (rule 11).
//!
//! A start takes three steps, each durable before the next: registration gives the incarnation its broker epoch, the
//! epoch is recorded in every online directory, the controller unfences the broker. Only what an unfenced incarnation
//! wrote can have been acknowledged, so a directory is whole when it was there for the last incarnation that was
//! unfenced with it. It may have seen registrations since that never got so far; `follows` carries it over those.

use stonelog_protocol::BrokerEpoch;

/// The broker epochs a directory has recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordedEpochs {
    /// The last one recorded; `None` before the first registration.
    pub last: Option<BrokerEpoch>,
    /// With what the controller had last unfenced this directory when `last` was registered; `None` when it never had,
    /// or when the directory was an old copy then.
    pub follows: Option<BrokerEpoch>,
}

impl RecordedEpochs {
    /// Whether the directory was there for the incarnation the controller last unfenced with it; a directory that never
    /// was unfenced has nothing to lose.
    pub fn were_there_for(&self, unfenced: Option<BrokerEpoch>) -> bool {
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::OldCopy.is_off() {
            return true;
        }
        match unfenced {
            None => true,
            Some(_) => unfenced == self.last || unfenced == self.follows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(last: i64, follows: Option<i64>) -> RecordedEpochs {
        RecordedEpochs { last: Some(BrokerEpoch(last)), follows: follows.map(BrokerEpoch) }
    }

    fn unfenced(epoch: i64) -> Option<BrokerEpoch> {
        Some(BrokerEpoch(epoch))
    }

    #[test]
    fn the_last_unfenced_incarnation_must_have_known_the_directory() {
        assert!(recorded(5, Some(3)).were_there_for(unfenced(5)));
        assert!(!recorded(5, Some(3)).were_there_for(unfenced(7)), "an old copy");
        assert!(!RecordedEpochs::default().were_there_for(unfenced(7)), "an older copy still");
        assert!(RecordedEpochs::default().were_there_for(None));
    }

    #[test]
    fn a_start_that_was_never_unfenced_loses_nothing_and_proves_nothing() {
        assert!(recorded(9, Some(7)).were_there_for(unfenced(7)), "it was whole before that start");
        assert!(!recorded(9, None).were_there_for(unfenced(7)), "it was an old copy already");
        assert!(!recorded(9, Some(5)).were_there_for(unfenced(7)));
    }
}
