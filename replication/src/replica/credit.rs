//! What leaders may send ahead: one pool of bytes for all followers of a lane in one log directory.
//!
//! Credit that a leader holds and records that are not written yet are taken from the pool and go back to it, so what
//! followers hold in memory is bounded however many there are, and in whatever order they came. Each follower gets a fair
//! part without being asked, which is little where there are many. A leader whose next push needs more says how much
//! ([`stonelog_protocol::peer::stream::StreamBody::Wants`]); a reserve is kept for that, given in the order of asking.
//!
//! Invariant: at most the pool is given away, and one batch. Who is first in the row and lacks something that is not there
//! gets it as a loan, one at a time: it may be a batch larger than the pool, and where many hold a little and wait for
//! more, one of them can always go on, and gives back what it had.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use stonelog_protocol::TopicPartition;

/// What one follower's leader gets without asking, at most and at least.
const FAIR_BYTES_MAX: i64 = 1 << 20;
const FAIR_BYTES_MIN: i64 = 4 << 10;
/// Less than this is not worth a message, unless it is all that is missing.
const GRANT_BYTES_MIN: i64 = 1 << 10;

/// The pool.
#[derive(Debug)]
pub struct CreditPool {
    bytes: i64,
    batch_bytes_max: u32,
    free: Cell<i64>,
    /// Whether a share has a loan that is not given back.
    is_lent: Cell<bool>,
    sharers: Cell<i64>,
    last_turn: Cell<u64>,
    /// Who asked for how much more, in order.
    row: RefCell<BTreeMap<u64, (TopicPartition, i64)>>,
}

/// One follower's part of a pool; what it holds goes back with it.
#[derive(Debug)]
pub struct Share {
    pool: Rc<CreditPool>,
    partition: TopicPartition,
    held: i64,
    /// What of it is a loan.
    loan: i64,
    turn: Option<u64>,
}

impl CreditPool {
    /// A pool of so many bytes, for batches of at most so many.
    pub fn new(bytes: usize, batch_bytes_max: u32) -> Rc<CreditPool> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        Rc::new(CreditPool {
            bytes,
            batch_bytes_max,
            free: Cell::new(bytes),
            is_lent: Cell::default(),
            sharers: Cell::default(),
            last_turn: Cell::default(),
            row: RefCell::default(),
        })
    }

    /// The longest batch that is taken.
    pub fn batch_bytes_max(&self) -> u32 {
        self.batch_bytes_max
    }

    /// What is given away.
    pub fn given_bytes(&self) -> i64 {
        self.bytes - self.free.get()
    }

    /// Whether anybody waits.
    pub fn is_wanted(&self) -> bool {
        !self.row.borrow().is_empty()
    }

    /// Whose turn it is, if there is enough for it.
    pub fn due(&self) -> Option<TopicPartition> {
        let (_, (partition, bytes)) = self.row.borrow().first_key_value().map(|(turn, asked)| (*turn, *asked))?;
        self.has(bytes).then_some(partition)
    }

    /// Whether who is first in the row gets so much.
    fn has(&self, bytes: i64) -> bool {
        self.free.get() >= bytes || !self.is_lent.get()
    }

    fn reserve(&self) -> i64 {
        self.bytes / 4
    }
}

impl Share {
    /// A new part of a pool, which holds nothing.
    pub fn of(pool: &Rc<CreditPool>, partition: TopicPartition) -> Share {
        pool.sharers.set(pool.sharers.get() + 1);
        Share { pool: Rc::clone(pool), partition, held: 0, loan: 0, turn: None }
    }

    /// The pool.
    pub(super) fn pool(&self) -> &CreditPool {
        &self.pool
    }

    /// What this follower's leader should have without asking, while there is so much.
    pub(super) fn fair(&self) -> i64 {
        let each = (self.pool.bytes - self.pool.reserve()) / self.pool.sharers.get().max(1);
        each.clamp(FAIR_BYTES_MIN, FAIR_BYTES_MAX)
    }

    /// What this follower holds now, which is no more than before.
    pub(super) fn hold(&mut self, bytes: i64) {
        self.pool.free.set(self.pool.free.get() + self.held - bytes);
        if self.loan > 0 && self.held > bytes {
            self.loan -= self.held - bytes;
            if self.loan <= 0 {
                self.loan = 0;
                self.pool.is_lent.set(false);
            }
        }
        self.held = bytes;
    }

    /// Takes some of what is missing, and leaves something for the next, and the reserve.
    pub(super) fn take_fair(&mut self, missing: i64) -> i64 {
        let there = (self.pool.free.get() - self.pool.reserve()) / 4;
        let taken = missing.min(there);
        if taken <= 0 || (taken < missing && taken < GRANT_BYTES_MIN) {
            return 0;
        }
        self.take(taken)
    }

    /// Takes all that was asked for, or gets in the row for it.
    pub(super) fn take_in_turn(&mut self, bytes: i64) -> bool {
        if self.loan > 0 {
            // Nobody else goes on before it has what it needs to give the loan back.
            self.step_out();
            self.loan += bytes;
            self.take(bytes);
            return true;
        }
        let turn = match self.turn {
            Some(turn) => turn,
            None => {
                self.pool.last_turn.set(self.pool.last_turn.get() + 1);
                *self.turn.insert(self.pool.last_turn.get())
            }
        };
        self.pool.row.borrow_mut().insert(turn, (self.partition, bytes));
        let is_first = self.pool.row.borrow().first_key_value().is_some_and(|(first, _)| *first == turn);
        if !is_first || !self.pool.has(bytes) {
            return false;
        }
        self.step_out();
        if self.pool.free.get() < bytes {
            self.loan += bytes;
            self.pool.is_lent.set(true);
        }
        self.take(bytes);
        true
    }

    /// It asks for nothing more.
    pub(super) fn step_out(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.pool.row.borrow_mut().remove(&turn);
        }
    }

    fn take(&mut self, bytes: i64) -> i64 {
        self.pool.free.set(self.pool.free.get() - bytes);
        self.held += bytes;
        bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.step_out();
        self.hold(0);
        self.pool.sharers.set(self.pool.sharers.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;

    const POOL_BYTES: i64 = 64 << 20;

    fn pool() -> Rc<CreditPool> {
        CreditPool::new(POOL_BYTES as usize, 100 << 20)
    }

    fn share(pool: &Rc<CreditPool>, partition: i32) -> Share {
        Share::of(pool, TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(partition) })
    }

    #[test]
    fn ten_thousand_followers_that_come_one_by_one_hold_no_more_than_the_pool() {
        let pool = pool();
        let mut shares = Vec::new();
        for partition in 0..10_000 {
            let mut new = share(&pool, partition);
            let fair = new.fair();
            new.take_fair(fair);
            shares.push(new);
        }
        assert!(pool.given_bytes() <= POOL_BYTES * 3 / 4, "{}", pool.given_bytes());
        assert_eq!(shares[0].held, FAIR_BYTES_MAX);
        assert!(shares[9_999].fair() < 6 << 10);
        drop(shares);
        assert_eq!(pool.given_bytes(), 0);
    }

    #[test]
    fn ten_thousand_followers_that_come_together_all_get_some() {
        let pool = pool();
        let mut shares: Vec<Share> = (0..10_000).map(|partition| share(&pool, partition)).collect();
        let taken = shares.iter_mut().map(|share| share.take_fair(share.fair()));
        let least = taken.take(9_000).min();
        assert!(least >= Some(FAIR_BYTES_MIN), "{least:?}");
        assert!(pool.given_bytes() <= POOL_BYTES * 3 / 4);
    }

    #[test]
    fn what_is_asked_for_is_given_from_the_reserve_in_the_order_of_asking() {
        let pool = pool();
        let mut idle: Vec<Share> = (0..1_000).map(|partition| share(&pool, partition)).collect();
        idle.iter_mut().for_each(|share| {
            share.take_fair(FAIR_BYTES_MAX);
        });
        let [mut one, mut two, mut three] = [2_000, 2_001, 2_002].map(|partition| share(&pool, partition));
        assert_eq!(one.take_fair(FAIR_BYTES_MAX), 0, "the idle ones have it");
        let mut four = share(&pool, 2_003);
        assert!(one.take_in_turn(15 << 20));
        assert!(four.take_in_turn(8 << 20), "as a loan");
        assert!(!two.take_in_turn(8 << 20), "one at a time");
        assert!(!three.take_in_turn(1), "it came later");
        assert_eq!(pool.due(), None);
        one.hold(0);
        assert_eq!(pool.due(), Some(two.partition));
        assert!(!three.take_in_turn(1));
        assert!(two.take_in_turn(8 << 20));
        assert!(three.take_in_turn(1));
        assert!(!pool.is_wanted());
    }

    #[test]
    fn a_batch_larger_than_the_pool_is_a_loan_and_nobody_else_gets_one_meanwhile() {
        let pool = pool();
        let [mut one, mut two, mut three] = [0, 1, 2].map(|partition| share(&pool, partition));
        assert!(one.take_in_turn(50 << 20));
        assert!(two.take_in_turn(100 << 20));
        assert!(!three.take_in_turn(1));
        assert_eq!(pool.given_bytes(), 150 << 20);
        two.hold(90 << 20);
        assert!(!three.take_in_turn(1), "most of it is still lent");
        drop(two);
        assert_eq!(pool.due(), Some(three.partition), "who is gone gives all back");
        assert!(three.take_in_turn(1));
    }

    #[test]
    fn where_all_hold_a_little_and_wait_for_more_one_after_the_other_goes_on() {
        let pool = CreditPool::new(400, 1_000);
        let mut shares: Vec<Share> = (0..4).map(|partition| share(&pool, partition)).collect();
        for share in &mut shares {
            assert!(share.take_in_turn(100));
        }
        // Each has batches of 150 bytes to push, and credit for 100.
        let waits = |share: &mut Share| !share.take_in_turn(50);
        assert_eq!(shares.iter_mut().map(waits).collect::<Vec<_>>(), [false, true, true, true]);
        assert_eq!(pool.due(), None);
        for next in 1..4 {
            shares[next - 1].hold(0);
            assert_eq!(pool.due(), Some(shares[next].partition));
            assert!(shares[next].take_in_turn(50));
        }
        assert_eq!(pool.given_bytes(), 150);
        drop(shares);
        // What a loan was pushed for may come in two parts: the second does not wait behind who waits for the loan.
        let [mut one, mut two] = [0, 1].map(|partition| share(&pool, partition));
        assert!(one.take_in_turn(500));
        assert!(!two.take_in_turn(450));
        one.hold(100);
        assert!(one.take_in_turn(20));
        one.hold(0);
        assert_eq!(pool.due(), Some(two.partition));
    }
}
