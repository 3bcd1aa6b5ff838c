//! The group partitions of one lane: opened when this broker comes to lead them, found by requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use stonelog_protocol::{ErrorCode, LeaderEpoch, PartitionIndex, TopicPartition};
use stonelog_replication::controller::MetadataHandle;
use stonelog_replication::metadata::MetadataImage;
use stonelog_replication::runtime::lane::Lane;
use stonelog_replication::runtime::lanes::{spawn_here, spawn_vital};

use super::Settings;
use super::group_partition::GroupPartition;
use crate::coordinator::group::{MonoMillis, Now};
use crate::coordinator::internal_topic::OFFSETS_TOPIC;

thread_local! {
    /// The registry of the lane this thread runs.
    static HERE: RefCell<Option<Rc<Registry>>> = const { RefCell::new(None) };
}

/// What the group partitions of one lane share, and where they are found.
pub(super) struct Registry {
    pub(super) lane: Rc<Lane>,
    pub(super) settings: Settings,
    pub(super) metadata: MetadataHandle,
    /// The moment that [`MonoMillis`] counts from.
    begun: Instant,
    partitions: RefCell<HashMap<TopicPartition, Rc<GroupPartition>>>,
}

impl Registry {
    /// Begins to coordinate on the lane this thread runs.
    pub(super) fn begin(lane: Rc<Lane>, settings: Settings, metadata: MetadataHandle) {
        let begun = lane.node().clock.mono();
        let registry = Rc::new(Registry { lane, settings, metadata, begun, partitions: RefCell::default() });
        HERE.set(Some(Rc::clone(&registry)));
        spawn_vital("the group registry", registry.follow_images());
    }

    /// The registry of the lane this thread runs, if it has begun.
    pub(super) fn here() -> Option<Rc<Registry>> {
        HERE.with_borrow(Clone::clone)
    }

    pub(super) fn now(&self) -> Now {
        let clock = self.lane.node().clock;
        let since = clock.mono().duration_since(self.begun);
        Now { mono: MonoMillis::default().after(since), wall: clock.wall() }
    }

    /// When a moment comes, for the timer.
    pub(super) fn instant(&self, at: MonoMillis) -> Instant {
        self.begun + std::time::Duration::from_millis(at.0)
    }

    /// The owner of a partition this broker leads; one that is new begins to load.
    pub(super) fn open(self: &Rc<Self>, id: TopicPartition) -> Result<Rc<GroupPartition>, ErrorCode> {
        let log = self.lane.leading(id, LeaderEpoch::NONE).map_err(|_| ErrorCode::NotCoordinator)?;
        let mut partitions = self.partitions.borrow_mut();
        if let Some(known) = partitions.get(&id) {
            if known.is_current() {
                return Ok(Rc::clone(known));
            }
            known.unload();
        }
        let opened = GroupPartition::begin(Rc::clone(self), log);
        partitions.insert(id, Rc::clone(&opened));
        Ok(opened)
    }

    /// Opens what this broker comes to lead, drops what it leads no longer, and has offsets of deleted topics removed.
    async fn follow_images(self: Rc<Self>) {
        let mut seen = self.lane.image();
        self.open_led(&seen);
        loop {
            Rc::clone(&self.lane).applied(seen.index() + 1).await;
            let image = self.lane.image();
            self.partitions.borrow_mut().retain(|_, partition| {
                let keep = partition.is_current();
                if !keep {
                    partition.unload();
                }
                keep
            });
            self.open_led(&image);
            if seen.topics().any(|topic| image.topic_by_id(topic.id).is_none()) {
                let partitions: Vec<_> = self.partitions.borrow().values().cloned().collect();
                for partition in partitions {
                    spawn_here(partition.forget_topics());
                }
            }
            seen = image;
        }
    }

    fn open_led(self: &Rc<Self>, image: &MetadataImage) {
        let Some(topic) = image.topic_by_name(OFFSETS_TOPIC) else { return };
        let me = self.lane.node().broker_id;
        for (index, registration) in (0..).zip(&topic.partitions) {
            let id = TopicPartition { topic_id: topic.id, partition: PartitionIndex(index) };
            if registration.leader == Some(me) && self.lane.lanes().owner(id) == self.lane.index() {
                // Refused when the log is not at work: a request will ask again.
                let _ = self.open(id);
            }
        }
    }
}
