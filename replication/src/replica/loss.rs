//! What an accepted loss does to what a replica knows to be committed.
//!
//! What it learnt before that may be what is lost: then it keeps no replica from being cut to where the one that leads now
//! ends. What it learns later counts as ever, also after a start.

use stonelog_protocol::BrokerId;
use stonelog_storage::log::Log;

use crate::metadata::record::LossAccepted;

/// Forgets what was committed before the loss that was accepted last, unless that is forgotten already; the replica that
/// leads since has what it has, and loses nothing by it. Returns whether anything was forgotten.
pub fn forget_committed(log: &mut Log, loss: Option<&LossAccepted>, me: BrokerId) -> bool {
    let is_known = |loss: &LossAccepted| log.high_watermark_epoch() >= loss.leader_epoch && !off!(LossLowersOnce);
    let Some(loss) = loss.filter(|loss| loss.replica != me && !is_known(loss)) else { return false };
    log.set_high_watermark(log.log_start(), loss.leader_epoch);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::test_log::{TestLog, id};
    use stonelog_protocol::{LeaderEpoch, Offset, Timestamp};

    #[test]
    fn what_was_committed_before_an_accepted_loss_is_forgotten_once_and_not_by_who_leads_since() {
        let mut own = TestLog::new(true);
        own.lead(1, 4).sync();
        own.log.set_high_watermark(Offset(3), LeaderEpoch(1));
        let loss = |replica, epoch| LossAccepted {
            partition: id(),
            replica: BrokerId(replica),
            instead_of: vec![BrokerId(2)],
            at: Timestamp(0),
            leader_epoch: LeaderEpoch(epoch),
        };
        assert!(!forget_committed(&mut own.log, None, BrokerId(2)));
        assert!(!forget_committed(&mut own.log, Some(&loss(2, 5)), BrokerId(2)));
        assert_eq!(own.log.high_watermark(), Offset(3));
        assert!(forget_committed(&mut own.log, Some(&loss(1, 5)), BrokerId(2)));
        assert_eq!(own.log.high_watermark(), Offset(0));
        // Its new leader says what is committed now; that it holds for as long as nobody gives up anything again.
        own.log.set_high_watermark(Offset(2), LeaderEpoch(5));
        assert!(!forget_committed(&mut own.log, Some(&loss(1, 5)), BrokerId(2)));
        assert_eq!(own.log.high_watermark(), Offset(2));
        assert!(forget_committed(&mut own.log, Some(&loss(1, 6)), BrokerId(2)));
        assert_eq!(own.log.high_watermark(), Offset(0));
    }
}
