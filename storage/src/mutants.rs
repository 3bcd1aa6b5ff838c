//! Guards that one test build can switch off at run time, to show that the tests notice their absence.
//!
//! Only with the feature `mutants`; a release build holds neither the switches nor this file. A guard is switched off by
//! naming it in `STONELOG_MUTANT`.

use std::path::Path;
use std::sync::OnceLock;

/// The environment variable that names the guard to switch off.
pub const VARIABLE: &str = "STONELOG_MUTANT";

/// A guard with a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// `journal-fdatasync`: a commit is durable only after an fdatasync. The metadata log's journal keeps its own, so that
    /// what a test notices is the loss of records.
    JournalFdatasync,
    /// `fault-sticks`: after a failed write or fsync of the journal every part of it refuses (rule 8).
    FaultSticks,
    /// `full-is-no-fault`: running out of space while allocating may be tried again.
    FullIsNoFault,
    /// `offline-marker`: a directory that has failed stays out of use until it is settled.
    OfflineMarker,
    /// `compaction-sync`: a rewritten segment is durable before the log names it.
    CompactionSync,
    /// `compaction-checkpoint`: what was rewritten goes only after a durable checkpoint names the new segment.
    CompactionCheckpoint,
    /// `compaction-bound`: nothing beyond the last stable offset and the checkpoint is compacted.
    CompactionBound,
    /// `compaction-marker-horizon`: a transaction's marker stays until its delete horizon has passed.
    CompactionMarkerHorizon,
    /// `scrub-device-read`: a scrub reads the device, not the page cache.
    ScrubDeviceRead,
    /// `segment-checksum`: no byte of a segment leaves it before its block's checksum matches.
    SegmentChecksum,
    /// `torn-tail-evidence`: what something later names as durable is damage, not a torn tail.
    TornTailEvidence,
    /// `holes-remembered`: the checkpoint keeps what is damaged or missing.
    HolesRemembered,
    /// `segment-length`: a start looks whether segment files are there and long enough.
    SegmentLength,
    /// `segment-names`: the names of new segment files are durable before a checkpoint names them.
    SegmentNames,
    /// `commit-payload`: a commit's batches are checked before they are replayed.
    CommitPayload,
    /// `producers-in-checkpoint`: a checkpoint holds the idempotent producers.
    ProducersInCheckpoint,
    /// `replaced-file-sync`: a small file is durable before it takes its name (rule 17).
    ReplacedFileSync,
    /// `commit-place`: a commit counts only at its place, in its file, behind the one before it.
    CommitPlace,
    /// `index-checks`: an index file is believed only when its checksum, its segment and the length of that match.
    IndexChecks,
    /// `journal-reaches-checkpoint`: a journal that ends before what the checkpoint covers is damage, not an empty one.
    JournalReachesCheckpoint,
    /// `state-is-replay`: a group coordinator applies only what its log took.
    StateIsReplay,
    /// `offsets-outlive-members`: no offset expires that a member reads, or while a group rebalances, or counted from before
    /// its last member left.
    OffsetsOutliveMembers,
    /// `old-copy`: a directory proves nothing unless it was there for the last unfenced incarnation.
    OldCopy,
    /// `report-stamps`: a follower's report counts only with every stamp of its own session (rule 1).
    ReportStamps,
    /// `one-position`: on a strict topic the durable position decides (rule 2).
    OnePosition,
    /// `union-isr`: the high watermark waits for every set that may have been committed (rule 3).
    UnionIsr,
    /// `frozen-below-min-isr`: the high watermark does not move while the committed set is below min ISR (rule 3).
    FrozenBelowMinIsr,
    /// `join-at-watermark`: a follower joins the in-sync set only at the high watermark and the epoch's start (rule 2).
    JoinAtWatermark,
    /// `join-broker-epoch`: a follower joins only under its present registration (rule 5).
    JoinBrokerEpoch,
    /// `join-directory`: a follower joins only from the directory its replica belongs into, while that is online (rule 12).
    JoinDirectory,
    /// `cluster-defaults`: what an acknowledgement means is read from the metadata alone, not from each broker's file.
    ClusterDefaults,
    /// `now-whole`: a replica joins the in-sync set only while its leader says that its log is whole (rule 9).
    NowWhole,
    /// `damaged-leaves`: a damaged replica keeps no place in ISR or ELR while another one has one (rule 9).
    DamagedLeaves,
    /// `fenced-leader`: a partition whose leader is fenced is led by whoever can, as one without a leader.
    FencedLeader,
    /// `coming-members`: a cut replica waits for a whole or longer one that has registered and is not unfenced yet (rule 11).
    ComingMembers,
    /// `added-do-not-count`: replicas being added do not count when an eligible set is given up.
    AddedDoNotCount,
    /// `retry-keeps-directories`: a registration that is tried again changes nothing that the first one settled.
    RetryKeepsDirectories,
    /// `late-registration`: an incarnation takes the place only of the registration it has seen.
    LateRegistration,
    /// `left-strict`: a partition that lost its leader while it was strict is not led again by its last known one because
    /// its owner relaxes it (rule 11).
    LeftStrict,
    /// `recorded-mode`: a lost replica is judged by the mode that its journal recorded (rule 11).
    RecordedMode,
    /// `unregister-the-dead`: a broker that is alive is not unregistered.
    UnregisterTheDead,
    /// `epoch-is-settled`: nothing is decided in one entry on the epoch that a registration in it has yet to get.
    EpochIsSettled,
    /// `epoch-is-given-out`: no record names a broker epoch that no entry has given out.
    EpochIsGivenOut,
    /// `half-fenced`: a broker whose fencing was left half-way does not stay one that is leaving.
    HalfFenced,
    /// `cut-members-tell`: a member that was cut goes on saying where it ends, however it starts (rule 11).
    CutMembersTell,
    /// `cut-ends-known`: among cut members nobody leads before all that are there have said where they end (rule 11).
    CutEndsKnown,
    /// `own-log-first`: a voter records a registration in its directories when its own metadata log holds it for certain.
    OwnLogFirst,
    /// `old-log-asks`: a metadata log of an earlier time votes nowhere, and follows where whoever leads does not count on it.
    OldLogAsks,
    /// `connect-back-proves`: a broker whose connection is closed is not taken for alive because another process answers.
    ConnectBackProves,
    /// `one-process-speaks`: a voter hears one process of another voter's log directory at a time.
    OneProcessSpeaks,
    /// `voters-are-asked`: whatever its own list says, a node asks those that vote by the membership.
    VotersAreAsked,
    /// `log-put-aside`: a log that a leader has said does not vote leaves nothing but its vote where the node votes anew.
    LogPutAside,
    /// `vote-forgotten`: a directory that holds no log votes nowhere where the quorum counts on its vote (rule 13).
    VoteForgotten,
    /// `forgotten-ends`: a process whose broker was unregistered while nobody heard it ends.
    ForgottenEnds,
    /// `starting-is-alive`: what a starting broker holds is not given up while it may be about to serve.
    StartingIsAlive,
    /// `loss-lowers-once`: an accepted loss lowers what a replica knows to be committed once, not at every start.
    LossLowersOnce,
    /// `lost-tells-mode`: a replica that may lack records always says in which mode its journal had it.
    LostTellsMode,
    /// `takeover-tightens`: one controller after another only tightens what an acknowledgement means.
    TakeoverTightens,
    /// `eligible-damaged`: a damaged replica that is only eligible loses its place at once (rule 9).
    EligibleDamaged,
    /// `previous-is-gone`: an incarnation takes the place of one that is not fenced only when that one is gone.
    PreviousIsGone,
    /// `member-directory`: a follower counts only with the directory assigned to it (rule 12).
    MemberDirectory,
    /// `join-deleted`: a replica joins only where its log begins where the leader's does: what was deleted is not back.
    JoinDeleted,
    /// `whole-joins`: a replica that knows of damage in its log neither joins the in-sync set nor stays in it (rule 9).
    WholeJoins,
    /// `leader-lifetime`: a new incarnation raises the leader epoch of what it led (rule 4).
    LeaderLifetime,
    /// `isr-compare-and-set`: an in-sync set changes only from the partition epoch it was decided on (rule 5).
    IsrCompareAndSet,
    /// `stream-number`: a follower takes only its stream's next push, at exactly its log's end.
    StreamNumber,
    /// `credit-bound`: a follower keeps no push beyond the credit it gave.
    CreditBound,
    /// `spare-by-leader`: a damaged replica drops its log only when its leader, too, does not count on it (rule 9).
    SpareByLeader,
    /// `serve-in-step`: a follower answers consumers only on a stream that its present leader has opened (rule 2).
    ServeInStep,
    /// `short-leaves`: a strict member that comes back without what is committed leaves ISR and ELR at once (rule 9).
    ShortLeaves,
    /// `loss-accepted-lowers`: what was committed before a loss that somebody accepted holds no cut up (rule 9).
    LossAcceptedLowers,
    /// `slow-is-no-failure`: a leader that is slow to send a damaged range once more is asked again, as often as it takes.
    SlowIsNoFailure,
    /// `begins-within`: an empty replica begins with the batch that its log end lies in.
    BeginsWithin,
    /// `out-of-turn`: a follower that may not take credit yet stands in nobody's way.
    OutOfTurn,
    /// `repair-number`: what answers an earlier request for damaged offsets does not mend a later one's (rule 9).
    RepairNumber,
    /// `repair-cleaned`: a hole is mended only from a log that is compacted as far as the rest of its own (rule 9).
    RepairCleaned,
    /// `repair-gapless`: a hole in a log that was never compacted is mended without a gap (rule 9).
    RepairGapless,
    /// `divergence`: a stream opens only where the histories agree (KIP-595).
    Divergence,
    /// `truncate-above-watermark`: a strict follower is never cut below its high watermark (rule 9).
    TruncateAboveWatermark,
    /// `truncate-durable`: a truncation is durable before the new end is reported or appended to (rule 6).
    TruncateDurable,
}

impl Guard {
    /// The name that switches it off.
    pub fn name(self) -> &'static str {
        match self {
            Guard::JournalFdatasync => "journal-fdatasync",
            Guard::FaultSticks => "fault-sticks",
            Guard::FullIsNoFault => "full-is-no-fault",
            Guard::OfflineMarker => "offline-marker",
            Guard::CompactionSync => "compaction-sync",
            Guard::CompactionCheckpoint => "compaction-checkpoint",
            Guard::CompactionBound => "compaction-bound",
            Guard::CompactionMarkerHorizon => "compaction-marker-horizon",
            Guard::ScrubDeviceRead => "scrub-device-read",
            Guard::SegmentChecksum => "segment-checksum",
            Guard::TornTailEvidence => "torn-tail-evidence",
            Guard::HolesRemembered => "holes-remembered",
            Guard::SegmentLength => "segment-length",
            Guard::SegmentNames => "segment-names",
            Guard::CommitPayload => "commit-payload",
            Guard::ProducersInCheckpoint => "producers-in-checkpoint",
            Guard::ReplacedFileSync => "replaced-file-sync",
            Guard::CommitPlace => "commit-place",
            Guard::IndexChecks => "index-checks",
            Guard::JournalReachesCheckpoint => "journal-reaches-checkpoint",
            Guard::StateIsReplay => "state-is-replay",
            Guard::OffsetsOutliveMembers => "offsets-outlive-members",
            Guard::OldCopy => "old-copy",
            Guard::ReportStamps => "report-stamps",
            Guard::OnePosition => "one-position",
            Guard::UnionIsr => "union-isr",
            Guard::FrozenBelowMinIsr => "frozen-below-min-isr",
            Guard::JoinAtWatermark => "join-at-watermark",
            Guard::JoinBrokerEpoch => "join-broker-epoch",
            Guard::JoinDirectory => "join-directory",
            Guard::ClusterDefaults => "cluster-defaults",
            Guard::NowWhole => "now-whole",
            Guard::DamagedLeaves => "damaged-leaves",
            Guard::FencedLeader => "fenced-leader",
            Guard::ComingMembers => "coming-members",
            Guard::AddedDoNotCount => "added-do-not-count",
            Guard::RetryKeepsDirectories => "retry-keeps-directories",
            Guard::LateRegistration => "late-registration",
            Guard::LeftStrict => "left-strict",
            Guard::RecordedMode => "recorded-mode",
            Guard::UnregisterTheDead => "unregister-the-dead",
            Guard::EpochIsSettled => "epoch-is-settled",
            Guard::EpochIsGivenOut => "epoch-is-given-out",
            Guard::HalfFenced => "half-fenced",
            Guard::CutMembersTell => "cut-members-tell",
            Guard::CutEndsKnown => "cut-ends-known",
            Guard::OwnLogFirst => "own-log-first",
            Guard::OldLogAsks => "old-log-asks",
            Guard::ConnectBackProves => "connect-back-proves",
            Guard::OneProcessSpeaks => "one-process-speaks",
            Guard::VotersAreAsked => "voters-are-asked",
            Guard::LogPutAside => "log-put-aside",
            Guard::VoteForgotten => "vote-forgotten",
            Guard::ForgottenEnds => "forgotten-ends",
            Guard::StartingIsAlive => "starting-is-alive",
            Guard::LossLowersOnce => "loss-lowers-once",
            Guard::LostTellsMode => "lost-tells-mode",
            Guard::TakeoverTightens => "takeover-tightens",
            Guard::EligibleDamaged => "eligible-damaged",
            Guard::PreviousIsGone => "previous-is-gone",
            Guard::MemberDirectory => "member-directory",
            Guard::JoinDeleted => "join-deleted",
            Guard::WholeJoins => "whole-joins",
            Guard::LeaderLifetime => "leader-lifetime",
            Guard::IsrCompareAndSet => "isr-compare-and-set",
            Guard::StreamNumber => "stream-number",
            Guard::CreditBound => "credit-bound",
            Guard::SpareByLeader => "spare-by-leader",
            Guard::ServeInStep => "serve-in-step",
            Guard::ShortLeaves => "short-leaves",
            Guard::LossAcceptedLowers => "loss-accepted-lowers",
            Guard::SlowIsNoFailure => "slow-is-no-failure",
            Guard::BeginsWithin => "begins-within",
            Guard::OutOfTurn => "out-of-turn",
            Guard::RepairNumber => "repair-number",
            Guard::RepairCleaned => "repair-cleaned",
            Guard::RepairGapless => "repair-gapless",
            Guard::Divergence => "divergence",
            Guard::TruncateAboveWatermark => "truncate-above-watermark",
            Guard::TruncateDurable => "truncate-durable",
        }
    }

    /// Whether this process runs without it in the journal of this directory.
    pub(crate) fn is_off_for(self, journal: &Path) -> bool {
        self.is_off() && !journal.ends_with("metadata")
    }

    /// Whether this process runs without it.
    pub fn is_off(self) -> bool {
        static OFF: OnceLock<Option<String>> = OnceLock::new();
        OFF.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(self.name())
    }
}
