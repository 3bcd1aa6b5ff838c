//! Whom to ask when only the active controller may answer, and when to ask again: pure.
//!
//! A node that does not lead says who does, as far as it knows; that one is asked next. A hint that leads back to who was
//! just asked, or none, means that leadership is moving: then the voters are asked in turn, with a pause. A request that
//! was sent and not answered may have had its effect: it is repeated only if that does no harm, and when its time is up
//! its outcome is unknown.

use std::time::Duration;

use stonelog_protocol::BrokerId;

/// Before a question is repeated where nobody is known to lead (Kafka retries AlterPartition after as much).
pub const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The answer.
    Answered,
    /// It does not lead; nothing was written.
    NotController(Option<BrokerId>),
    /// It could not be asked; nothing was sent.
    Unreachable,
    /// It was asked, and there is no answer, or the one that the outcome is unknown.
    Unanswered,
    /// It was asked, and another node was heard to lead before there was an answer.
    Replaced(BrokerId),
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask this node, after a pause.
    Ask(BrokerId, Duration),
    /// There is the answer.
    Done,
    /// The time is up, or it may not be repeated. `may_have_happened`: it was sent and never answered.
    GiveUp {
        /// Whether it may have had its effect.
        may_have_happened: bool,
    },
}

/// What is known of the active controller, from one request to the next.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Those that can lead, in order; never empty.
    voters: Vec<BrokerId>,
    /// Who answered last, or was named.
    known: Option<BrokerId>,
    turn: usize,
}

/// One request on its way.
#[derive(Clone, Debug)]
pub struct Request {
    asked: BrokerId,
    deadline: Duration,
    may_repeat: bool,
    may_have_happened: bool,
}

impl Forwarding {
    /// Nothing known but who can lead: `None` when that is nobody.
    pub fn new(voters: Vec<BrokerId>) -> Option<Forwarding> {
        (!voters.is_empty()).then_some(Forwarding { voters, known: None, turn: 0 })
    }

    /// Others can lead, in this order; never nobody.
    pub fn on_voters(&mut self, voters: Vec<BrokerId>) {
        if !voters.is_empty() {
            self.known = self.known.filter(|known| voters.contains(known));
            self.voters = voters;
        }
    }

    /// Somebody is heard to lead, from elsewhere.
    pub fn on_leader(&mut self, leader: BrokerId) {
        if self.voters.contains(&leader) {
            self.known = Some(leader);
        }
    }

    /// Begins a request. Times are since any fixed moment.
    pub fn begin(&mut self, deadline: Duration, may_repeat: bool) -> (Request, BrokerId) {
        let asked = self.known.unwrap_or_else(|| self.next_in_turn());
        (Request { asked, deadline, may_repeat, may_have_happened: false }, asked)
    }

    /// What came of asking the node that the request was last sent to.
    pub fn on_heard(&mut self, request: &mut Request, heard: Heard, now: Duration) -> Next {
        let asked = request.asked;
        if heard == Heard::Answered {
            self.known = Some(asked);
            return Next::Done;
        }
        let hint = match heard {
            Heard::NotController(hint) => hint,
            Heard::Replaced(leader) => Some(leader),
            Heard::Answered | Heard::Unreachable | Heard::Unanswered => None,
        };
        let hint = hint.filter(|hint| *hint != asked && self.voters.contains(hint));
        // A node that names another has not just been named itself, unless the two disagree: then there is a pause.
        let was_named = self.known == Some(asked);
        self.known = hint;
        if matches!(heard, Heard::Unanswered | Heard::Replaced(_)) {
            request.may_have_happened = true;
            if !request.may_repeat {
                return Next::GiveUp { may_have_happened: true };
            }
        }
        let pause = if hint.is_some() && !was_named { Duration::ZERO } else { ASK_AGAIN_AFTER };
        if now + pause >= request.deadline {
            return Next::GiveUp { may_have_happened: request.may_have_happened };
        }
        request.asked = hint.unwrap_or_else(|| self.next_in_turn());
        Next::Ask(request.asked, pause)
    }

    fn next_in_turn(&mut self) -> BrokerId {
        let voter = self.voters[self.turn % self.voters.len()];
        self.turn = self.turn.wrapping_add(1);
        voter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32) -> BrokerId {
        BrokerId(id)
    }

    fn three() -> Forwarding {
        Forwarding::new(vec![node(1), node(2), node(3)]).unwrap()
    }

    const LATE: Duration = Duration::from_secs(30);
    const NOW: Duration = Duration::from_secs(1);

    fn ask(id: i32, pause: Duration) -> Next {
        Next::Ask(node(id), pause)
    }

    #[test]
    fn hint_is_followed_at_once_and_remembered() {
        let mut forwarding = three();
        let (mut request, asked) = forwarding.begin(LATE, true);
        assert_eq!(asked, node(1));
        let next = forwarding.on_heard(&mut request, Heard::NotController(Some(node(3))), NOW);
        assert_eq!(next, ask(3, Duration::ZERO));
        assert_eq!(forwarding.on_heard(&mut request, Heard::Answered, NOW), Next::Done);
        assert_eq!(forwarding.begin(LATE, true).1, node(3));
    }

    #[test]
    fn nodes_that_name_each_other_are_asked_with_a_pause() {
        let mut forwarding = three();
        let (mut request, _) = forwarding.begin(LATE, true);
        assert_eq!(forwarding.on_heard(&mut request, Heard::NotController(Some(node(2))), NOW), ask(2, Duration::ZERO));
        let back = forwarding.on_heard(&mut request, Heard::NotController(Some(node(1))), NOW);
        assert_eq!(back, ask(1, ASK_AGAIN_AFTER));
        let again = forwarding.on_heard(&mut request, Heard::NotController(Some(node(2))), NOW);
        assert_eq!(again, ask(2, ASK_AGAIN_AFTER));
    }

    #[test]
    fn without_a_usable_hint_the_voters_are_asked_in_turn() {
        let mut forwarding = three();
        let (mut request, _) = forwarding.begin(LATE, true);
        for (heard, next) in [
            (Heard::NotController(None), 2),
            // Itself, and a node that cannot lead, are no hints.
            (Heard::NotController(Some(node(2))), 3),
            (Heard::NotController(Some(node(9))), 1),
            (Heard::Unreachable, 2),
            (Heard::Unanswered, 3),
        ] {
            assert_eq!(forwarding.on_heard(&mut request, heard, NOW), ask(next, ASK_AGAIN_AFTER), "{heard:?}");
        }
    }

    #[test]
    fn what_may_not_be_repeated_is_given_up_once_it_was_sent() {
        let mut forwarding = three();
        let (mut request, _) = forwarding.begin(LATE, false);
        assert_eq!(forwarding.on_heard(&mut request, Heard::Unreachable, NOW), ask(2, ASK_AGAIN_AFTER));
        let next = forwarding.on_heard(&mut request, Heard::Unanswered, NOW);
        assert_eq!(next, Next::GiveUp { may_have_happened: true });
    }

    #[test]
    fn controller_that_is_replaced_before_it_answers_is_not_waited_for() {
        let mut forwarding = three();
        let (mut request, asked) = forwarding.begin(LATE, true);
        assert_eq!(asked, node(1));
        assert_eq!(forwarding.on_heard(&mut request, Heard::Replaced(node(3)), NOW), ask(3, Duration::ZERO));
        let (mut once, _) = forwarding.begin(LATE, false);
        let next = forwarding.on_heard(&mut once, Heard::Replaced(node(2)), NOW);
        assert_eq!(next, Next::GiveUp { may_have_happened: true });
        assert_eq!(forwarding.begin(LATE, true).1, node(2));
    }

    #[test]
    fn when_time_is_up_the_outcome_is_unknown_only_if_it_was_sent() {
        let mut forwarding = three();
        let (mut unsent, _) = forwarding.begin(NOW, true);
        let next = forwarding.on_heard(&mut unsent, Heard::NotController(None), NOW);
        assert_eq!(next, Next::GiveUp { may_have_happened: false });
        let (mut sent, _) = forwarding.begin(LATE, true);
        assert!(matches!(forwarding.on_heard(&mut sent, Heard::Unanswered, NOW), Next::Ask(..)));
        let next = forwarding.on_heard(&mut sent, Heard::Unreachable, LATE);
        assert_eq!(next, Next::GiveUp { may_have_happened: true });
    }

    #[test]
    fn who_is_heard_to_lead_elsewhere_is_asked_first() {
        let mut forwarding = three();
        forwarding.on_leader(node(2));
        forwarding.on_leader(node(9));
        assert_eq!(forwarding.begin(LATE, true).1, node(2));
    }
}
