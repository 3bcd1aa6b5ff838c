//! From the records field of one partition to the bytes that are appended: validated, packed with the codec the topic
//! demands, stamped.
//!
//! Opening a compressed batch is work by the bytes it opens to, which only opening tells. So a lane tries with a small
//! limit; what passes it is a job for the broker's validators (DESIGN §4). A job holds at most what one batch may open
//! to, and all that one request's batches grow by together is limited too: byte credit was taken for what was sent.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use stonelog_protocol::Timestamp;
use stonelog_protocol::batch::recompress::recompress;
use stonelog_protocol::batch::validate::{self, BatchReject, BatchRules, RejectReason, validate_produced};
use stonelog_protocol::batch::{BatchHeader, Compression, CompressionError};
use stonelog_protocol::error_code::ErrorCode;
use stonelog_replication::settings::topic::{Compression as WantedCompression, TimestampType, TopicConfig};

/// What a compressed batch may open to while it is validated.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// What of one request is validated on the lane: a millisecond or two of it.
pub(super) const LANE_BYTES_MAX: usize = 1 << 20;
/// What is packed anew on the lane: compressing costs some twenty times as much as opening.
const LANE_PACKED_BYTES_MAX: usize = 32 << 10;
/// What one job opens before others have their turn: some hundredths of a second of work.
const JOB_BYTES_MAX: usize = 16 << 20;
/// By how much the batches of one request may grow together when they are packed anew.
const GROWTH_BYTES_MAX: usize = DECOMPRESSED_BYTES_MAX;

/// Why a partition's records are not appended.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: ErrorCode,
    pub(super) message: Option<String>,
    pub(super) records: Vec<(i32, String)>,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Refusal {
        Refusal { error, message: None, records: Vec::new() }
    }
}

impl From<BatchReject> for Refusal {
    fn from(reject: BatchReject) -> Refusal {
        let records = reject.records.iter().map(|record| (record.index, record.reason.to_string())).collect();
        Refusal { error: reject.error, message: Some(reject.reason.to_string()), records }
    }
}

/// One partition's records as they came, with what its topic wants of them.
pub(super) struct Preparation {
    records: Bytes,
    version: i16,
    frame_bytes: usize,
    rules: BatchRules,
    wanted: Option<(Compression, Option<i32>)>,
    now: Timestamp,
}

/// A batch that may be appended.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) batch: BytesMut,
    pub(super) header: BatchHeader,
}

impl Preparation {
    /// `version` is the request's, `frame_bytes` the length of the frame that `records` lies in.
    pub(super) fn new(
        records: Bytes,
        version: i16,
        frame_bytes: usize,
        config: &TopicConfig,
        now: Timestamp,
    ) -> Preparation {
        Preparation { records, version, frame_bytes, rules: rules(config), wanted: wanted_codec(config), now }
    }

    /// Prepares on the lane what is small enough for it, and takes it off what the request may still cost there; gives
    /// the rest back.
    pub(super) fn run_if_small(self, lane_bytes: &mut usize) -> Result<Result<Prepared, Refusal>, Preparation> {
        if self.records.len() > *lane_bytes {
            return Err(self);
        }
        let rules = BatchRules { decompressed_bytes_max: *lane_bytes, ..self.rules.clone() };
        let produced = match validate_produced(&self.records, self.version, &rules, self.now) {
            Err(BatchReject { reason: RejectReason::Compression(CompressionError::TooLarge(_)), .. }) => {
                // As much was opened for nothing.
                *lane_bytes = 0;
                return Err(self);
            }
            Err(reject) => {
                // How much was opened is not known.
                *lane_bytes /= 2;
                return Ok(Err(reject.into()));
            }
            Ok(produced) => produced,
        };
        *lane_bytes = lane_bytes.saturating_sub(produced.records_bytes.max(self.records.len()));
        if self.codec_to_pack(&produced).is_some() && produced.records_bytes > LANE_PACKED_BYTES_MAX {
            return Err(self);
        }
        Ok(self.finish(&produced))
    }

    fn validate(&self) -> Result<validate::ProducedBatch, Refusal> {
        Ok(validate_produced(&self.records, self.version, &self.rules, self.now)?)
    }

    /// The codec the topic demands, if the batch has another one.
    fn codec_to_pack(&self, produced: &validate::ProducedBatch) -> Option<(Compression, Option<i32>)> {
        self.wanted.filter(|(codec, _)| produced.header.compression() != Some(*codec))
    }

    fn finish(self, produced: &validate::ProducedBatch) -> Result<Prepared, Refusal> {
        if produced.header.is_transactional() {
            return Err(ErrorCode::TransactionalIdAuthorizationFailed.into());
        }
        let mut batch = match self.codec_to_pack(produced) {
            Some((codec, level)) => {
                let packed = recompress(&self.records, &produced.header, codec, level, DECOMPRESSED_BYTES_MAX);
                let packed = packed.map_err(|_| ErrorCode::CorruptMessage)?;
                self.check_packed(packed.len())?;
                BytesMut::from(Bytes::from(packed))
            }
            None => own_buffer(self.records, self.frame_bytes),
        };
        if self.rules.timestamp_type == validate::TimestampType::CreateTime {
            produced.stamp(&mut batch, self.rules.timestamp_type, self.now);
        }
        let header = BatchHeader::read(&batch).map_err(|_| ErrorCode::CorruptMessage)?;
        Ok(Prepared { batch, header })
    }

    /// The limits on a batch hold for what is stored too (`UnifiedLog.append`, after `messageSizeMaybeChanged`).
    fn check_packed(&self, bytes: usize) -> Result<(), Refusal> {
        let (error, reason) = if bytes > self.rules.message_bytes_max {
            (ErrorCode::MessageTooLarge, RejectReason::TooLarge { bytes, max: self.rules.message_bytes_max })
        } else if bytes > self.rules.segment_bytes {
            let segment_bytes = self.rules.segment_bytes;
            (ErrorCode::RecordListTooLarge, RejectReason::AboveSegment { bytes, segment_bytes })
        } else {
            return Ok(());
        };
        Err(Refusal { error, message: Some(reason.to_string()), records: Vec::new() })
    }
}

/// The batches of one request that are a job's work, one after the other. A job does a part of them and gives the thread
/// back, so that one request holds up others no longer than that; nothing is begun for a client that has gone meanwhile.
pub(super) struct Batches {
    left: VecDeque<Preparation>,
    done: Vec<Result<Prepared, Refusal>>,
    grown: usize,
}

impl Batches {
    pub(super) fn new(preparations: Vec<Preparation>) -> Batches {
        Batches { done: Vec::with_capacity(preparations.len()), left: preparations.into(), grown: 0 }
    }

    /// The body of one job: as many batches as may open to [`JOB_BYTES_MAX`], at least one. Returns what is left to do,
    /// or all results in order.
    pub(super) fn run_some(mut self) -> Result<Vec<Result<Prepared, Refusal>>, Batches> {
        let mut opened = 0;
        while opened < JOB_BYTES_MAX {
            let Some(next) = self.left.pop_front() else { return Ok(self.done) };
            let done = if self.grown > GROWTH_BYTES_MAX {
                Err(ErrorCode::MessageTooLarge.into())
            } else {
                self.run_one(next, &mut opened)
            };
            self.done.push(done);
        }
        if self.left.is_empty() { Ok(self.done) } else { Err(self) }
    }

    fn run_one(&mut self, next: Preparation, opened: &mut usize) -> Result<Prepared, Refusal> {
        let sent = next.records.len();
        let produced = next.validate();
        // What a batch that fails has opened to is not known.
        *opened += produced.as_ref().map_or(DECOMPRESSED_BYTES_MAX, |produced| produced.records_bytes).max(sent);
        let prepared = next.finish(&produced?)?;
        self.grown += prepared.batch.len().saturating_sub(sent);
        Ok(prepared)
    }
}

/// The batch in a buffer of its own. Where it is most of its frame, and alone in it, it stays as it arrived; else it is
/// copied, so that in memory it keeps no more than its own bytes alive.
fn own_buffer(batch: Bytes, frame_bytes: usize) -> BytesMut {
    if batch.len() < frame_bytes / 2 {
        return BytesMut::from(&batch[..]);
    }
    batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

fn rules(config: &TopicConfig) -> BatchRules {
    let ms = |limit: Option<std::time::Duration>| {
        limit.map_or(i64::MAX, |limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
    };
    BatchRules {
        message_bytes_max: config.max_message_bytes as usize,
        segment_bytes: config.segment_bytes as usize,
        is_compacted: config.cleanup_policy.compact,
        timestamp_type: match config.timestamp_type {
            TimestampType::CreateTime => validate::TimestampType::CreateTime,
            TimestampType::LogAppendTime => validate::TimestampType::LogAppendTime,
        },
        timestamp_before_ms_max: ms(config.timestamp_before_max),
        timestamp_after_ms_max: ms(config.timestamp_after_max),
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
    }
}

/// The codec that the topic demands, with its level.
fn wanted_codec(config: &TopicConfig) -> Option<(Compression, Option<i32>)> {
    match config.compression {
        WantedCompression::Producer => None,
        WantedCompression::Uncompressed => Some((Compression::None, None)),
        WantedCompression::Gzip => Some((Compression::Gzip, Some(config.gzip_level))),
        WantedCompression::Snappy => Some((Compression::Snappy, None)),
        WantedCompression::Lz4 => Some((Compression::Lz4, Some(config.lz4_level))),
        WantedCompression::Zstd => Some((Compression::Zstd, Some(config.zstd_level))),
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::batch::{BatchBuilder, NewRecord};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn batch(codec: Compression, value_bytes: usize) -> Bytes {
        let mut builder = BatchBuilder::new().compressed(codec, None);
        builder.push(NewRecord::new(NOW, None, Some(&vec![7; value_bytes])));
        builder.build().unwrap().into()
    }

    fn preparation(records: Bytes, wanted: Option<Compression>) -> Preparation {
        let frame_bytes = records.len();
        let wanted = wanted.map(|codec| (codec, None));
        Preparation { records, version: 9, frame_bytes, rules: BatchRules::default(), wanted, now: NOW }
    }

    fn run_all(preparations: Vec<Preparation>) -> Vec<Result<Prepared, Refusal>> {
        let mut batches = Batches::new(preparations);
        loop {
            match batches.run_some() {
                Ok(all) => return all,
                Err(rest) => batches = rest,
            }
        }
    }

    #[test]
    fn a_job_gives_its_thread_back_before_a_request_of_many_batches_is_done() {
        let one = batch(Compression::Zstd, JOB_BYTES_MAX / 2);
        let mut batches = Batches::new((0..5).map(|_| preparation(one.clone(), None)).collect());
        let mut jobs = 1;
        let done = loop {
            match batches.run_some() {
                Ok(all) => break all,
                Err(rest) => batches = rest,
            }
            jobs += 1;
        };
        assert_eq!((jobs, done.len()), (3, 5));
        assert!(done.iter().all(|prepared| prepared.as_ref().is_ok_and(|prepared| prepared.batch == one)));
    }

    #[test]
    fn small_batch_does_not_keep_its_large_frame_alive() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let mut batch = frame.clone();
        drop(frame);
        drop(batch.split_to((1 << 20) - 100));
        let owned = own_buffer(batch, 1 << 20);
        assert_eq!(owned.len(), 100);
        assert!(owned.capacity() < 1 << 10);
    }

    #[test]
    fn batch_that_is_most_of_its_frame_is_not_copied() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let at = frame.as_ptr();
        let owned = own_buffer(frame, (1 << 20) + 100);
        assert_eq!(owned.as_ptr(), at);
    }

    #[test]
    fn batch_that_opens_to_much_is_given_back_and_prepared_the_same_by_a_job() {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let small = batch(codec, LANE_BYTES_MAX / 2);
            assert!(
                preparation(small, None)
                    .run_if_small(&mut LANE_BYTES_MAX.clone())
                    .is_ok_and(|prepared| prepared.is_ok()),
                "{codec:?}"
            );
            let large = batch(codec, LANE_BYTES_MAX + 1);
            let Err(given_back) = preparation(large.clone(), None).run_if_small(&mut LANE_BYTES_MAX.clone()) else {
                panic!("{codec:?}")
            };
            let [Ok(prepared)] = &run_all(vec![given_back])[..] else { panic!("{codec:?}") };
            assert_eq!(prepared.batch, large);
        }
    }

    #[test]
    fn small_batches_of_one_request_open_to_no_more_on_the_lane_than_one_does() {
        let mut lane_bytes = LANE_BYTES_MAX;
        let mut prepare =
            || preparation(batch(Compression::Gzip, LANE_BYTES_MAX / 3), None).run_if_small(&mut lane_bytes);
        let on_the_lane = (0..20).filter(|_| prepare().is_ok()).count();
        assert!((1..=3).contains(&on_the_lane), "{on_the_lane}");
    }

    #[test]
    fn refusals_are_those_of_the_lane() {
        let mut broken = BytesMut::from(&batch(Compression::Zstd, LANE_BYTES_MAX + 1)[..]);
        let last = broken.len() - 1;
        broken[last] ^= 1;
        let refused = preparation(broken.freeze(), None).run_if_small(&mut LANE_BYTES_MAX.clone());
        assert!(refused.is_ok_and(|refused| refused.is_err_and(|refusal| refusal.error == ErrorCode::CorruptMessage)));
        let bomb = batch(Compression::Zstd, DECOMPRESSED_BYTES_MAX + 1);
        let Err(given_back) = preparation(bomb, None).run_if_small(&mut LANE_BYTES_MAX.clone()) else {
            panic!("it opens to much")
        };
        let [Err(refusal)] = &run_all(vec![given_back])[..] else { panic!("it opens to too much") };
        assert_eq!(refusal.error, ErrorCode::MessageTooLarge);
    }

    #[test]
    fn batch_that_is_packed_anew_keeps_the_topics_limits() {
        let large = batch(Compression::Zstd, LANE_BYTES_MAX + 100);
        let Err(given_back) = preparation(large, Some(Compression::None)).run_if_small(&mut LANE_BYTES_MAX.clone())
        else {
            panic!("large")
        };
        let [Err(refusal)] = &run_all(vec![given_back])[..] else { panic!("above max.message.bytes as it is stored") };
        assert_eq!(refusal.error, ErrorCode::MessageTooLarge);

        let mut tight = preparation(batch(Compression::Zstd, 20_000), Some(Compression::None));
        tight.rules.segment_bytes = 10_000;
        let refused = tight.run_if_small(&mut LANE_BYTES_MAX.clone());
        let is_above = |refusal: Refusal| refusal.error == ErrorCode::RecordListTooLarge;
        assert!(refused.is_ok_and(|refused| refused.is_err_and(is_above)));
    }

    #[test]
    fn batches_of_one_request_grow_by_so_much_and_no_more() {
        let one = batch(Compression::Zstd, 32 << 20);
        let preparations = (0..4).map(|_| {
            let mut preparation = preparation(one.clone(), Some(Compression::None));
            preparation.rules.message_bytes_max = usize::MAX;
            preparation
        });
        let prepared = run_all(preparations.collect());
        let taken: Vec<bool> = prepared.iter().map(Result::is_ok).collect();
        assert_eq!(taken, [true, true, true, false], "the last began when the limit was passed");
    }

    #[test]
    fn what_is_to_be_packed_anew_leaves_the_lane_earlier() {
        let records = batch(Compression::None, LANE_PACKED_BYTES_MAX + 1);
        assert!(
            preparation(records.clone(), Some(Compression::Gzip)).run_if_small(&mut LANE_BYTES_MAX.clone()).is_err()
        );
        assert!(preparation(records, Some(Compression::None)).run_if_small(&mut LANE_BYTES_MAX.clone()).is_ok());
    }
}
