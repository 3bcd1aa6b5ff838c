//! When a reason to wait is said: when waiting has lasted, then once for each reason, and every minute again. Pure.
//!
//! Reasons that take turns are each said, in their own time: a node that flaps hides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

/// Waiting that is over by then is nobody's business.
const SAY_AFTER: Duration = Duration::from_secs(2);
/// A reason that goes on is said again.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Reasons that are said within a minute; of more, nothing is said.
const SAID_LEN_MAX: usize = 64;

/// What was said, and when. Times are since any fixed moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    is_patient: bool,
    begun: Option<Duration>,
    said: BTreeMap<String, Duration>,
}

impl Default for Saying {
    fn default() -> Saying {
        Saying { is_patient: true, begun: None, said: BTreeMap::new() }
    }
}

impl Saying {
    /// For what does not wait to be said.
    pub fn at_once() -> Saying {
        Saying { is_patient: false, ..Saying::default() }
    }

    /// Whether to say this reason now.
    pub fn is_due(&mut self, now: Duration, reason: &str) -> bool {
        let begun = *self.begun.get_or_insert(now);
        let is_known = self.said.get(reason).is_some_and(|said| now < *said + SAY_AGAIN);
        if is_known || (self.is_patient && now < begun + SAY_AFTER) {
            return false;
        }
        if self.said.len() >= SAID_LEN_MAX {
            self.said.retain(|_, said| now < *said + SAY_AGAIN);
            if self.said.len() >= SAID_LEN_MAX {
                return false;
            }
        }
        self.said.insert(reason.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn reason_is_said_when_it_lasts_and_then_every_minute() {
        let mut saying = Saying::default();
        let said: Vec<u64> = (0..130).filter(|second| saying.is_due(at(*second), "a")).collect();
        assert_eq!(said, [2, 62, 122]);
    }

    #[test]
    fn ever_new_reasons_fill_no_log() {
        let mut saying = Saying::at_once();
        let said = (0..1_000).filter(|number| saying.is_due(at(0), &number.to_string())).count();
        assert_eq!(said, SAID_LEN_MAX);
        assert!(saying.is_due(at(60), "another"));
    }

    #[test]
    fn reasons_that_take_turns_are_all_said() {
        let mut saying = Saying::default();
        let reason = |second: u64| if second.is_multiple_of(2) { "a" } else { "b" };
        let said: Vec<u64> = (0..66).filter(|second| saying.is_due(at(*second), reason(*second))).collect();
        assert_eq!(said, [2, 3, 62, 63]);
    }
}
