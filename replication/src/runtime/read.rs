//! The fetch walk on the lane that owns the partitions: check, read from memory, from segments in the page cache, or
//! hand a job to the read pool.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use stonelog_storage::log::Read;
use stonelog_storage::segment::read::ReadDone as Found;

use super::lane::Lane;
use super::partition::Partition;
use crate::partition::leader::check_reader;
use crate::partition::{ReadsNear, Reject, near};
use crate::progress::{Progress, Role};

/// A read follows a log that moves under it so often; then its files are not where the log knows them.
pub(super) const MOVES_COUNT_MAX: usize = 16;

/// What a lane reads for one request out of segments that are in the page cache, copying and checking each byte. Such a
/// read is done in about half the time when it is small; of large ones the work is most, and a job's threads do it.
const NOW_BYTES_MAX: usize = 128 << 10;

/// What a lane reads for one request on the way to that, from an index entry to the offset asked for, for instance: the
/// rest is a job, and what was read in vain counts.
const PASSED_NOW_BYTES_MAX: u64 = 512 << 10;

/// Partitions that are read in one turn of the lane: everybody else of it has a turn in between.
const READS_PER_TURN_MAX: usize = 1_024;

/// What a lane may still read for one request by itself.
struct Now {
    wanted: usize,
    passed: u64,
}

/// Who reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The leader alone answers: consumers before KIP-392, and the broker itself.
    OfLeader,
    /// A follower in step answers as well, and a leader sends who reads near one of its followers there.
    OfAny {
        /// Where it reads, unless nobody is to be sent anywhere.
        near: Option<ReadsNear>,
    },
}

/// What to read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// From where on; the first batch may begin below it.
    pub fetch_offset: Offset,
    /// At most so many bytes, except for a first batch.
    pub bytes_max: usize,
    /// The epoch the reader believes in, or none.
    pub current_leader_epoch: LeaderEpoch,
    /// The epoch of the last record the reader has, or none.
    pub last_fetched_epoch: LeaderEpoch,
}

/// What became of it.
#[derive(Debug)]
pub struct ReadAnswer {
    /// What was read, or why nothing.
    pub done: Result<ReadDone, Reject>,
    /// The partition as it was before the read; `None` if it is not here.
    pub progress: Option<Progress>,
}

/// Batches as they lie.
#[derive(Debug, Default)]
pub struct ReadDone {
    /// Whole batches in order.
    pub batches: Vec<Bytes>,
    /// Where the reader's history parts from ours: the largest epoch we share, and its end here (KIP-595).
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Who should be asked instead (KIP-392); then nothing was read.
    pub preferred: Option<BrokerId>,
}

impl Lane {
    /// Reads several partitions of this lane in order, together at most `bytes_max` bytes after the first batch.
    pub async fn read_all(
        self: Rc<Self>,
        reader: Reader,
        requests: Vec<ReadRequest>,
        bytes_max: usize,
    ) -> Vec<ReadAnswer> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut left = bytes_max;
        let mut first = true;
        let mut now_left = Now { wanted: NOW_BYTES_MAX, passed: PASSED_NOW_BYTES_MAX };
        for (place, request) in requests.into_iter().enumerate() {
            if place % READS_PER_TURN_MAX == READS_PER_TURN_MAX - 1 {
                tokio::task::yield_now().await;
            }
            let answer = self.read(&reader, &request, left, first, &mut now_left).await;
            let bytes: usize = answer.done.iter().flat_map(|done| &done.batches).map(Bytes::len).sum();
            first &= bytes == 0;
            left = left.saturating_sub(bytes);
            answers.push(answer);
        }
        answers
    }

    /// The partition, if this reader may read it here in an epoch it accepts.
    fn readable(&self, reader: &Reader, request: &ReadRequest) -> Result<Rc<Partition>, Reject> {
        if matches!(reader, Reader::OfLeader) {
            return self.leading(request.partition, request.current_leader_epoch);
        }
        let partition = self.held(request.partition)?;
        let progress = partition.progress();
        check_reader(&progress, request.current_leader_epoch)?;
        // What was published may be older than what has become of the log within this turn.
        let still_serves = progress.role == Role::Leader || partition.replica().serves_as_follower();
        if still_serves { Ok(partition) } else { Err(Reject::NotLeader(progress.leader_epoch)) }
    }

    /// Who should be asked instead of this leader.
    fn preferred(&self, reader: &Reader, partition: &Partition, from: Offset) -> Option<BrokerId> {
        let Reader::OfAny { near: Some(place) } = reader else { return None };
        let replica = partition.replica();
        let leader = replica.leader.as_ref()?;
        near::preferred((leader, self.node().broker_id), &partition.progress(), &self.image(), place, from)
    }

    async fn read(
        self: &Rc<Self>,
        reader: &Reader,
        request: &ReadRequest,
        bytes_left: usize,
        at_least_one: bool,
        now_left: &mut Now,
    ) -> ReadAnswer {
        let partition = match self.readable(reader, request) {
            Ok(partition) => partition,
            Err(reject) => {
                let progress = self.partition(request.partition).map(|partition| partition.progress());
                return ReadAnswer { done: Err(reject), progress };
            }
        };
        // The end is taken before the log is read, so that nothing above it is ever returned.
        let progress = partition.progress();
        if let Some(preferred) = self.preferred(reader, &partition, request.fetch_offset) {
            let done = Ok(ReadDone { preferred: Some(preferred), ..ReadDone::default() });
            return ReadAnswer { done, progress: Some(progress) };
        }
        // What a follower lacks its leader may have.
        let beyond = |reject| match reject {
            Reject::OffsetOutOfRange if progress.is_beyond(request.fetch_offset) => Reject::OffsetNotAvailable,
            reject => reject,
        };
        let diverging = partition.replica().diverging(request.last_fetched_epoch, request.fetch_offset);
        match diverging {
            Ok(None) => {}
            Ok(diverging) => {
                let done = Ok(ReadDone { diverging, ..ReadDone::default() });
                return ReadAnswer { done, progress: Some(progress) };
            }
            Err(reject) => return ReadAnswer { done: Err(beyond(reject)), progress: Some(progress) },
        }
        let bytes_max = request.bytes_max.min(bytes_left);
        let mut moves = 0;
        let (mut from, up_to) = (request.fetch_offset, progress.high_watermark);
        let done = loop {
            // While a job ran, a follower may have been cut and gone on under another leader.
            let now = partition.progress();
            if now.role != progress.role || (now.role != Role::Leader && now.leader_epoch != progress.leader_epoch) {
                break Err(Reject::NotLeader(now.leader_epoch));
            }
            let planned = partition.replica().log.read(from, up_to, bytes_max, at_least_one);
            match planned {
                Read::Ready(batches, _) => break Ok(ReadDone { batches, ..ReadDone::default() }),
                Read::Empty => break Ok(ReadDone::default()),
                Read::OutOfRange => break Err(beyond(Reject::OffsetOutOfRange)),
                Read::Damaged(_) => break Err(Reject::Damaged),
                Read::Job(job) => {
                    let access = Arc::clone(&partition.directory().access);
                    if job.bytes_max() <= now_left.wanted
                        && let Some(Found::Batches { batches, next, .. }) = job.try_now(&access, &mut now_left.passed)
                    {
                        now_left.wanted -= job.bytes_max();
                        if batches.is_empty() && next > from {
                            from = next;
                            continue;
                        }
                        break Ok(ReadDone { batches, ..ReadDone::default() });
                    }
                    match partition.directory().readers.run_wanted(move || job.run(&access)).await {
                        // The segment holds nothing from there on: the next one does.
                        Ok(Ok(Found::Batches { batches, next, .. })) if batches.is_empty() && next > from => {
                            from = next;
                        }
                        Ok(Ok(Found::Batches { batches, .. })) => {
                            break Ok(ReadDone { batches, ..ReadDone::default() });
                        }
                        Ok(Ok(Found::Damaged(_))) => break Err(Reject::Damaged),
                        Ok(Ok(Found::Moved)) if moves == MOVES_COUNT_MAX => {
                            tracing::error!(partition = %request.partition, "a segment's file is missing");
                            self.survey(&partition, from).await;
                            break Err(Reject::Damaged);
                        }
                        // Meanwhile flushed or deleted: the log knows where it is now.
                        Ok(Ok(Found::Moved)) => moves += 1,
                        Ok(Err(fault)) => {
                            tracing::error!(partition = %request.partition, "cannot read: {fault}");
                            if !self.survey_at(&partition, &fault).await {
                                break Err(Reject::Damaged);
                            }
                        }
                        Err(_) => break Err(Reject::Offline),
                    }
                }
            }
        };
        // A follower that has found out what it lacks serves nobody, and its leader sends nobody there: it has the records.
        let done = match done {
            Err(Reject::Damaged) if progress.role != Role::Leader && !partition.replica().serves_as_follower() => {
                Err(Reject::NotLeader(progress.leader_epoch))
            }
            done => done,
        };
        ReadAnswer { done, progress: Some(progress) }
    }
}
