//! What a start may claim of each replica (rule 11).

use crate::log::Contradiction;

/// How a replica starts, as far as its directory can say. Whether the directory is the one that the controller last saw
/// online is for others to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was ever durable here is here.
    Proved,
    /// The same, but the journal ends in a commit that was being written: what it held was not acknowledged.
    Cut,
    /// Something that was durable may be missing.
    Lost(Loss),
}

/// Why a replica counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its topic is relaxed, and more than the process may have died since it was written.
    Relaxed,
    /// The journal is damaged where its entries were.
    JournalDamage,
    /// The journal and the checkpoint contradict each other.
    Contradiction(Contradiction),
    /// The checkpoint names files that are not there.
    FilesMissing,
    /// Its line in the checkpoint makes no sense.
    Checkpoint,
    /// Segments needed to replay a truncation are damaged.
    SegmentDamage,
}

impl Verdict {
    /// The verdict on a replica, from what recovery found.
    pub fn of(loss: Option<Loss>, strict: bool, relaxed_survived: bool, torn_tail: bool) -> Verdict {
        match loss {
            Some(loss) => Verdict::Lost(loss),
            None if !strict && !relaxed_survived => Verdict::Lost(Loss::Relaxed),
            None if torn_tail => Verdict::Cut,
            None => Verdict::Proved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relaxed_replica_is_proved_only_when_no_more_than_the_process_died() {
        assert_eq!(Verdict::of(None, false, false, false), Verdict::Lost(Loss::Relaxed));
        assert_eq!(Verdict::of(None, false, true, false), Verdict::Proved);
        assert_eq!(Verdict::of(None, true, false, false), Verdict::Proved);
    }

    #[test]
    fn a_torn_tail_cuts_and_a_loss_outweighs_it() {
        assert_eq!(Verdict::of(None, true, false, true), Verdict::Cut);
        assert_eq!(Verdict::of(Some(Loss::JournalDamage), true, true, true), Verdict::Lost(Loss::JournalDamage));
    }
}
