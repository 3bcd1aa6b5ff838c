//! The background scrub: every sealed segment is read again from the device, past the page cache, and checked.
//!
//! A carrier around [`ScrubState`] and [`SegmentScan`]: it asks the lanes what there is, has a thread of its own read a
//! step at a time, and rests between two as [`ScrubPace`] says. What it finds the lane quarantines; it counts only when a
//! second read finds it too and the log still has that segment; then it is said once, and kept in the directory's scrub
//! file.
//! Active segments are not read: they are in memory or in the journal's reach, and are read here once they are sealed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stonelog_protocol::Timestamp;
use stonelog_storage::Fault;
use stonelog_storage::holes::Hole;
use stonelog_storage::scrub::{Depth, KnownDamage, ScrubPace, ScrubState, SegmentReport, SegmentScan, SegmentTarget};
use stonelog_storage::segment::SegmentId;

use super::directory::Directory;
use super::lane::Lane;
use super::lanes::Lanes;
use super::node::Node;

/// The first round begins no sooner after a start: the start's own reads come first.
const BEGIN_AFTER: Duration = Duration::from_secs(30);
/// The state is written down no more often while nothing is found; a restart repeats at most as much reading.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// A clock that is set back, or an interval that is over at once, does not make rounds follow each other faster.
const ROUND_EVERY_MIN: Duration = Duration::from_secs(1);

/// What the scrub of this process has done so far.
#[derive(Debug, Default)]
pub struct ScrubCounters {
    /// Bytes read from segments.
    pub bytes_read: AtomicU64,
    /// Segments read whole.
    pub segments_read: AtomicU64,
    /// Places of damage found that were not known before.
    pub damage_found: AtomicU64,
    /// Rounds ended.
    pub rounds: AtomicU64,
    /// When the last round ended, by the wall clock in ms; 0 when none has since the start.
    pub last_round_ended_ms: AtomicU64,
}

/// The scrub of one log directory.
pub struct Scrubber {
    node: Arc<Node>,
    directory: Arc<Directory>,
    lanes: Lanes,
    pace: ScrubPace,
    state: ScrubState,
}

impl Scrubber {
    /// Goes on where the last process ended.
    pub fn new(node: Arc<Node>, directory: Arc<Directory>, lanes: Lanes, pace: ScrubPace) -> Result<Scrubber, Fault> {
        let state = ScrubState::read(&*directory.disk, &directory.path)?;
        Ok(Scrubber { node, directory, lanes, pace, state })
    }

    /// Reads, round after round, for as long as the broker runs.
    pub async fn run(mut self) {
        tokio::time::sleep(BEGIN_AFTER.min(self.pace.interval)).await;
        loop {
            tokio::time::sleep(self.pace.until_next_round(self.now(), &self.state)).await;
            if self.directory.is_offline() {
                return;
            }
            if let Err(fault) = self.round().await {
                if !fault.is_temporary() {
                    self.node.take_offline(&self.directory, &fault);
                    return;
                }
                tracing::warn!("cannot write down for now how far the scrub is: {fault}");
            }
            tokio::time::sleep(ROUND_EVERY_MIN).await;
        }
    }

    fn now(&self) -> Timestamp {
        self.node.clock.wall()
    }

    /// One round, or the rest of one. An error is one of writing the state down.
    async fn round(&mut self) -> Result<(), Fault> {
        let targets = self.targets().await;
        self.state.begin(self.now(), &targets);
        let mut saved = self.node.clock.mono();
        while let Some(target) = self.state.next(&targets) {
            let has_found = self.segment(target).await;
            if self.directory.is_offline() {
                return Ok(());
            }
            let now = self.node.clock.mono();
            if has_found || now - saved >= SAVE_EVERY {
                saved = now;
                self.save().await?;
            }
        }
        self.state.end_round(self.now(), &targets);
        let counters = &self.directory.scrub;
        counters.rounds.fetch_add(1, Ordering::Relaxed);
        counters.last_round_ended_ms.store(self.now().0.max(0) as u64, Ordering::Relaxed);
        self.save().await
    }

    /// Reads one segment; whether there was damage that was not known.
    async fn segment(&mut self, target: SegmentTarget) -> bool {
        let mut holes = Vec::new();
        let mut report = self.read_if_there(target).await;
        if report.as_ref().is_some_and(|report| !report.damage.is_empty()) {
            // The lane looks too: it quarantines what is damaged, or writes checksums anew that were wrong over bytes
            // that are right. The second read tells what is left, and whether the first met a change under way.
            holes = self.survey(target).await;
            report = self.read_if_there(target).await;
        }
        let Some(report) = report else {
            self.state.pass(target);
            return false;
        };
        self.directory.scrub.segments_read.fetch_add(1, Ordering::Relaxed);
        let fresh = self.state.on_segment(self.now(), target, &report);
        fresh.iter().for_each(|known| self.tell(known, &holes));
        !fresh.is_empty()
    }

    async fn survey(&self, target: SegmentTarget) -> Vec<Hole> {
        let SegmentId { partition, base, .. } = target.id;
        let lane = self.lanes.owner(partition);
        self.lanes.call(lane, move |lane| lane.survey_segment(partition, base)).await
    }

    fn tell(&self, known: &KnownDamage, holes: &[Hole]) {
        self.directory.scrub.damage_found.fetch_add(1, Ordering::Relaxed);
        let damage = &known.damage;
        let is_quarantined = holes.iter().any(|hole| hole.start < damage.to && damage.from < hole.end);
        let follows = match is_quarantined {
            true => "it is quarantined",
            false => "the page cache has it still, and the device does not",
        };
        tracing::error!(
            partition = %known.segment.partition,
            segment = known.segment.base.0,
            position = damage.position,
            bytes = damage.bytes,
            "the scrub found damage in offsets {}..{}: {}; {follows}",
            damage.from,
            damage.to,
            damage.wrong,
        );
    }

    /// Reads a segment that its log has before and after.
    async fn read_if_there(&mut self, target: SegmentTarget) -> Option<SegmentReport> {
        if !self.is_still_there(target).await {
            return None;
        }
        let report = self.read(target).await?;
        self.is_still_there(target).await.then_some(report)
    }

    /// Reads one segment at the pace; `None` when its files cannot be opened, or a checkpoint has yet to write its
    /// checksums: the next round comes to it.
    async fn read(&mut self, target: SegmentTarget) -> Option<SegmentReport> {
        let directory = Arc::clone(&self.directory);
        let open = move || {
            // Asked before the `.sum` file is read: what is not pending any more is in it.
            if directory.access.has_pending_sums(target.id) {
                return Ok(None);
            }
            SegmentScan::open(&*directory.disk, &directory.path, target, Depth::Batches)
        };
        let mut scan = match self.directory.scrubbers.run(open).await {
            Ok(Ok(Some(scan))) => scan,
            Ok(Ok(None)) => return None,
            Ok(Err(fault)) => {
                tracing::warn!("the scrub passes a segment over: {fault}");
                return None;
            }
            // The broker stops.
            Err(_) => std::future::pending().await,
        };
        loop {
            let step = move || {
                let bytes = scan.step();
                (scan, bytes)
            };
            let Ok((back, bytes)) = self.directory.scrubbers.run(step).await else { std::future::pending().await };
            scan = back;
            if bytes == 0 {
                return Some(scan.finish());
            }
            self.state.on_read(bytes);
            self.directory.scrub.bytes_read.fetch_add(bytes, Ordering::Relaxed);
            let total = self.state.round.map_or(0, |round| round.bytes_total);
            tokio::time::sleep(self.pace.rest(bytes, total)).await;
        }
    }

    async fn save(&mut self) -> Result<(), Fault> {
        let (directory, now, mut state) = (Arc::clone(&self.directory), self.now(), self.state.clone());
        let write = move || state.write(&*directory.disk, &directory.path, now);
        match self.directory.scrubbers.run(write).await {
            Ok(done) => done,
            Err(_) => std::future::pending().await,
        }
    }

    /// Every sealed segment of the directory, in order.
    async fn targets(&self) -> Vec<SegmentTarget> {
        let place = self.directory.place;
        let asks: Vec<_> = (0..self.lanes.count())
            .map(|lane| self.lanes.call(lane, move |lane| std::future::ready(lane.sealed_segments(place))))
            .collect();
        let mut targets = Vec::new();
        for ask in asks {
            targets.extend(ask.await);
        }
        targets.sort_unstable_by_key(|target| target.id);
        targets
    }

    async fn is_still_there(&self, target: SegmentTarget) -> bool {
        let lane = self.lanes.owner(target.id.partition);
        self.lanes.call(lane, move |lane| std::future::ready(lane.has_sealed(target))).await
    }
}

impl Lane {
    /// Of the directory in that place.
    fn sealed_segments(&self, place: usize) -> Vec<SegmentTarget> {
        let mut targets = Vec::new();
        for partition in self.partitions() {
            if partition.directory().place != place {
                continue;
            }
            let replica = partition.replica();
            let sealed = replica.log.sealed_segments();
            targets.extend(sealed.map(|segment| SegmentTarget::sealed(partition.id(), segment)));
        }
        targets
    }

    fn has_sealed(&self, target: SegmentTarget) -> bool {
        self.partition(target.id.partition).is_some_and(|partition| {
            let replica = partition.replica();
            let mut sealed = replica.log.sealed_segments();
            sealed.any(|segment| SegmentTarget::sealed(target.id.partition, segment) == target)
        })
    }
}
