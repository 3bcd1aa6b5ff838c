//! What a start may claim of each replica (rule 11).

use std::fmt;

use crate::log::Contradiction;

/// How a replica starts, as far as its directory can say. Whether the directory is the one that the controller last saw
/// online is for others to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was ever durable here is here.
    Proved,
    /// The same, but the journal ends in a commit that was being written: what it held was not acknowledged.
    Cut,
    /// Everything is here but what its holes name: where it ends, and all else, is certain (rule 9).
    Damaged,
    /// Something that was durable may be missing.
    Lost(Loss),
}

/// Why a replica counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Its topic is relaxed, and more than the process may have died since it was written.
    Relaxed,
    /// The journal is damaged where its newest entries may have been, and nothing says whose were there.
    JournalDamage,
    /// The journal and the checkpoint contradict each other.
    Contradiction(Contradiction),
    /// Its line in the checkpoint makes no sense.
    Checkpoint,
    /// Segments needed to replay a truncation are damaged.
    SegmentDamage,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Relaxed => f.write_str("its topic is relaxed, and more than the process may have died"),
            Loss::JournalDamage => f.write_str("a damaged journal commit may have held its newest records"),
            Loss::Contradiction(what) => write!(f, "journal and checkpoint contradict each other: {what:?}"),
            Loss::Checkpoint => f.write_str("its line in the checkpoint makes no sense"),
            Loss::SegmentDamage => f.write_str("segments needed to replay a truncation are damaged"),
        }
    }
}

impl Verdict {
    /// The verdict on a replica, from what recovery found.
    pub fn of(loss: Option<Loss>, holes: bool, strict: bool, relaxed_survived: bool, torn_tail: bool) -> Verdict {
        match loss {
            Some(loss) => Verdict::Lost(loss),
            None if !strict && !relaxed_survived => Verdict::Lost(Loss::Relaxed),
            None if holes => Verdict::Damaged,
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
        assert_eq!(Verdict::of(None, false, false, false, false), Verdict::Lost(Loss::Relaxed));
        assert_eq!(Verdict::of(None, false, false, true, false), Verdict::Proved);
        assert_eq!(Verdict::of(None, false, true, false, false), Verdict::Proved);
    }

    #[test]
    fn a_torn_tail_cuts_and_a_loss_outweighs_it() {
        let damage = Some(Loss::JournalDamage);
        assert_eq!(Verdict::of(None, false, true, false, true), Verdict::Cut);
        assert_eq!(Verdict::of(damage, false, true, true, true), Verdict::Lost(Loss::JournalDamage));
    }

    #[test]
    fn holes_outweigh_a_torn_tail_and_less_than_a_loss() {
        assert_eq!(Verdict::of(None, true, true, false, true), Verdict::Damaged);
        assert_eq!(Verdict::of(Some(Loss::Checkpoint), true, true, false, true), Verdict::Lost(Loss::Checkpoint));
        assert_eq!(Verdict::of(None, true, false, false, false), Verdict::Lost(Loss::Relaxed));
    }
}
