//! The metadata change walk on a lane: from a published image to logs made, led, reconfigured and dropped.
//!
//! Images arrive in order, each with the delta that led to it. Before the first one this broker has applied its own
//! registration (rule 4), so nothing here serves under an earlier incarnation.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stonelog_protocol::{BrokerId, PartitionIndex, TopicPartition};
use stonelog_storage::compaction::CompactionConfig;
use stonelog_storage::log::{Log, LogConfig};
use stonelog_storage::{LogGeneration, ReplicaKey};
use tokio::sync::mpsc;

use super::lane::Lane;
use super::lanes::spawn_vital;
use super::partition::{Partition, Replica};
use crate::metadata::config::{ConfigResource, ConfigValues};
use crate::metadata::delta::MetadataDelta;
use crate::metadata::image::MetadataImage;
use crate::metadata::topic::{PartitionRegistration, TopicImage};
use crate::partition::Leader;
use crate::partition::leader::{Beginning, Leadership, Positions};
use crate::progress::Role;
use crate::quorum::publisher::Published;
use crate::replica::{Follower, Following};
use crate::settings::BrokerLayers;
use crate::settings::topic::{TimestampType, TopicConfig};

/// What a lane is given at the start: the logs that recovery found for it.
#[derive(Default)]
pub struct Recovered {
    /// The logs of this lane, each with the place of its directory. One partition may be in several: one of them is the
    /// replica, by the metadata, the others are strays.
    pub logs: HashMap<(TopicPartition, usize), Log>,
    /// Those that were dropped and whose files may still be there, with the place of the directory.
    pub dropped: Vec<(TopicPartition, usize)>,
}

impl Lane {
    /// Applies images for as long as they come. Returns once the first one has been applied; strays, logs of topics
    /// that the image does not know, are returned to be put aside.
    pub async fn follow_images(
        self: Rc<Self>,
        mut images: mpsc::UnboundedReceiver<Published>,
        mut recovered: Recovered,
    ) -> Vec<(Log, usize)> {
        self.leaving.borrow_mut().extend(recovered.dropped.drain(..));
        if let Some(first) = images.recv().await {
            self.apply(&first.image, &first.delta, &mut recovered);
            self.set_throttles();
        }
        // Taken, not drained: an empty table of ten thousand logs is as large as a full one, and is kept for good.
        let left = std::mem::take(&mut recovered.logs);
        let strays: Vec<_> = left.into_iter().map(|((_, place), log)| (log, place)).collect();
        let lane = Rc::clone(&self);
        spawn_vital("a lane's metadata", async move {
            while let Some(published) = images.recv().await {
                lane.apply(&published.image, &published.delta, &mut recovered);
            }
        });
        strays
    }

    /// Resolves once this lane has applied an image of at least `index`.
    pub async fn applied(self: Rc<Self>, index: u64) {
        while self.image.borrow().index() < index {
            let seen = self.image_changed.version();
            self.image_changed.after(seen).await;
        }
    }

    fn apply(self: &Rc<Self>, image: &Arc<MetadataImage>, delta: &MetadataDelta, recovered: &mut Recovered) {
        let registered = image.broker(self.node().broker_id).map(|broker| broker.epoch);
        if let Some(later) = registered.filter(|epoch| *epoch > self.node().broker_epoch) {
            // What the image says of this broker is another process's: it must not be led under that epoch (rule 4).
            self.node().on_superseded(later);
            return;
        }
        *self.image.borrow_mut() = Arc::clone(image);
        for topic in &delta.topics_deleted {
            self.forget_topic_config(topic.id);
            for index in 0..topic.partitions.len() {
                self.drop_partition(TopicPartition { topic_id: topic.id, partition: PartitionIndex(index as i32) });
            }
        }
        if delta
            .configs_changed
            .iter()
            .any(|resource| matches!(resource, ConfigResource::Broker(_) | ConfigResource::Recorded))
        {
            self.forget_topic_configs();
            self.set_throttles();
            for topic in image.topics() {
                self.reconcile(image, topic, recovered);
            }
        } else {
            let reconfigured = delta.configs_changed.iter().filter_map(|resource| match resource {
                ConfigResource::Topic(name) => image.topic_by_name(name),
                ConfigResource::Broker(_) | ConfigResource::Group(_) | ConfigResource::Recorded => None,
            });
            for topic in reconfigured {
                self.forget_topic_config(topic.id);
                self.reconcile(image, topic, recovered);
            }
            let changed = delta.topics_changed.iter().map(|change| &change.topic);
            for topic in delta.topics_created.iter().chain(changed) {
                self.reconcile(image, topic, recovered);
            }
        }
        self.reconcile_brokers(image, delta);
        self.image_changed.publish();
    }

    /// Brokers came, went or changed: whoever shares partitions with them leads or follows under other stamps.
    fn reconcile_brokers(self: &Rc<Self>, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        let changed: BTreeSet<BrokerId> = delta.brokers_changed.iter().chain(&delta.brokers_removed).copied().collect();
        if changed.is_empty() {
            return;
        }
        for partition in self.partitions() {
            let is_shared = image.partition(partition.id()).is_some_and(|registration| {
                let replicas = &registration.replicas;
                replicas.len() > 1 && replicas.iter().any(|replica| changed.contains(replica))
            });
            if is_shared {
                self.reconcile_again(&partition);
            }
        }
        for broker in changed {
            self.check_dialed(broker);
        }
    }

    /// What the present image says of a partition that is here.
    pub(super) fn reconcile_again(self: &Rc<Self>, partition: &Rc<Partition>) {
        let image = self.image();
        let Some(topic) = image.topic_by_id(partition.id().topic_id) else { return };
        let Some(registration) = topic.partition(partition.id().partition) else { return };
        if registration.replicas.contains(&self.node().broker_id) {
            let config = self.topic_config(topic);
            self.reconcile_partition(&image, partition, registration, &config);
        }
    }

    fn set_throttles(&self) {
        let node = self.node();
        node.throttles.set(&self.broker_settings(), node.clock.mono());
    }

    /// What is set of the broker's keys, by this lane's image and the broker's own configuration.
    pub fn broker_settings(&self) -> ConfigValues {
        let node = self.node();
        BrokerLayers::of(&self.image(), node.broker_id, &node.settings.broker_defaults).borrow().merged()
    }

    /// The effective settings of a topic, from this lane's image.
    pub fn topic_config(&self, topic: &TopicImage) -> Rc<TopicConfig> {
        if let Some(known) = self.topic_configs.borrow().get(&topic.id) {
            return Rc::clone(known);
        }
        let image = self.image();
        let empty = ConfigValues::new();
        let broker = self.broker_settings();
        let overrides = image.topic_config(&topic.name).map_or(&empty, |values| values);
        let (config, problems) = TopicConfig::in_force(&topic.name, overrides, &broker);
        if !problems.is_empty() {
            tracing::error!(topic = %topic.name, "settings do not hold together, the rest of them applies: {problems:?}");
        }
        let config = Rc::new(config);
        // A request may still hold a topic that is deleted by now; nobody would take its entry out again.
        if image.topic_by_id(topic.id).is_some() {
            self.topic_configs.borrow_mut().insert(topic.id, Rc::clone(&config));
        }
        config
    }

    fn reconcile(self: &Rc<Self>, image: &MetadataImage, topic: &Arc<TopicImage>, recovered: &mut Recovered) {
        let config = self.topic_config(topic);
        for (index, registration) in topic.partitions.iter().enumerate() {
            let id = TopicPartition { topic_id: topic.id, partition: PartitionIndex(index as i32) };
            if self.lanes().owner(id) != self.index() {
                continue;
            }
            if !registration.replicas.contains(&self.node().broker_id) {
                self.drop_partition(id);
                continue;
            }
            let found = self.partition(id).or_else(|| self.open(id, topic, registration, &config, recovered));
            let Some(partition) = found else {
                self.absent.borrow_mut().insert(id);
                continue;
            };
            self.absent.borrow_mut().remove(&id);
            self.reconcile_partition(image, &partition, registration, &config);
        }
    }

    /// Takes the recovered log, or makes a new one where there can be none. `None` when the replica's directory is not in
    /// use, or damaged and without it: absent is not empty (rule 12).
    fn open(
        self: &Rc<Self>,
        id: TopicPartition,
        topic: &Arc<TopicImage>,
        registration: &PartitionRegistration,
        config: &Rc<TopicConfig>,
        recovered: &mut Recovered,
    ) -> Option<Rc<Partition>> {
        let log_config = self.log_config(config);
        let home = registration.directory_of(self.node().broker_id)?;
        let directory = Arc::clone(self.node().directory(home)?);
        let (mut log, created) = match recovered.logs.remove(&(id, directory.place)) {
            Some(log) => (log, None),
            None if directory.is_offline() => return None,
            None if self.leaving.borrow().contains(&(id, directory.place)) => {
                // [`Lane::on_files_gone`] comes back to it, after the next checkpoint.
                directory.flushed.notify_one();
                return None;
            }
            None if directory.is_whole => {
                let generation = LogGeneration { recovery_epoch: directory.recovery_epoch, counter: 0 };
                let key = ReplicaKey { partition: id, generation };
                let start = stonelog_protocol::Offset::ZERO;
                let ticket = self.next_ticket(&directory);
                let (log, entry) = Log::create(key, log_config.clone(), config.is_strict(), start, ticket);
                (log, Some(entry))
            }
            None => {
                tracing::error!(topic = %topic.name, partition = %id.partition,
                    "the damaged directory {} does not hold this replica: it stays offline", directory.path.display());
                return None;
            }
        };
        log.set_config(log_config);
        let partition = Partition::new(id, Arc::clone(&topic.name), directory, log, Rc::clone(config));
        self.insert_partition(Rc::clone(&partition));
        if let Some(entry) = created {
            drop(self.enqueue_change(&partition, entry));
        } else {
            // What recovery found may have to go to segments yet, and the next checkpoint must know it.
            let unflushed = partition.replica().log.unflushed_bytes();
            partition.directory().unflushed_bytes.fetch_add(unflushed, Ordering::Relaxed);
            partition.uncheckpointed.set(true);
            self.mark_dirty(&partition);
            partition.directory().flushed.notify_one();
        }
        Some(partition)
    }

    fn reconcile_partition(
        self: &Rc<Self>,
        image: &MetadataImage,
        partition: &Rc<Partition>,
        registration: &PartitionRegistration,
        config: &Rc<TopicConfig>,
    ) {
        let me = self.node().broker_id;
        {
            let mut replica = partition.replica_mut();
            let replica = &mut *replica;
            replica.log.set_config(self.log_config(config));
            replica.config = Rc::clone(config);
            if let Some(entry) = replica.log.set_mode(config.is_strict(), self.next_ticket(partition.directory())) {
                drop(self.enqueue_change(partition, entry));
            }
            replica.on_loss_accepted(image.loss_accepted(partition.id()), me);
            replica.leader_epoch = registration.leader_epoch;
            replica.is_in_sync = registration.isr.contains(&me);
            // What lies in another directory than the assigned one is not the replica (rule 12).
            let is_home = registration.directory_of(me) == Some(partition.directory().id);
            let is_offline = partition.directory().is_offline();
            let is_leader = registration.leader == Some(me) && is_home;
            // A cut is durable before anything is appended behind it (rule 6).
            let must_wait = is_leader && replica.leader.is_none() && replica.log.is_changing() && !is_offline;
            // So is a change of the mode, which the log does not take meanwhile.
            partition.deferred.set(must_wait || replica.log.is_strict() != config.is_strict());
            if is_leader && !must_wait && !replica.log.is_changing() {
                replica.follower = None;
                replica.port = None;
                let min_isr = config.effective_min_isr(registration.settled_count());
                let leadership = Leadership::of(image, partition.id(), registration, min_isr, config.is_strict());
                if replica.log.latest_epoch() != Some(registration.leader_epoch) {
                    // The epoch begins at the present end, whether or not anything is appended in it (KIP-101).
                    let entry =
                        replica.log.begin_epoch(registration.leader_epoch, self.next_ticket(partition.directory()));
                    drop(self.enqueue_change(partition, entry));
                }
                let now = self.node().clock.mono();
                let epoch_start = replica.epoch_start().unwrap_or(replica.log.log_end());
                let is_new_epoch = replica
                    .leader
                    .as_ref()
                    .is_some_and(|leader| leader.leadership().leader_epoch < registration.leader_epoch);
                if is_new_epoch {
                    replica.close_streams();
                }
                match &mut replica.leader {
                    Some(leader) => leader.on_leadership(leadership, epoch_start, now),
                    None => {
                        let own = Positions { written: replica.log.written(), durable: replica.log.durable() };
                        let high_watermark = replica.high_watermark.max(replica.log.log_start());
                        let at = Beginning { own, high_watermark, epoch_start };
                        replica.leader = Some(Leader::begin(me, leadership, at, now));
                    }
                }
                replica.role = Role::Leader;
            } else {
                replica.close_streams();
                replica.leader = None;
                replica.role = Role::Follower;
                let following = registration.leader.filter(|_| is_home && !is_leader && !is_offline);
                self.follow(image, partition, replica, registration, following);
            }
            if is_offline {
                replica.role = Role::Offline;
            }
            let is_led = replica.leader.is_some() && registration.replicas.len() > 1;
            self.streams().set_led(partition.id(), is_led);
        }
        partition.publish();
    }

    /// The replica follows this leader from now on, or nobody.
    fn follow(
        self: &Rc<Self>,
        image: &MetadataImage,
        partition: &Rc<Partition>,
        replica: &mut Replica,
        registration: &PartitionRegistration,
        leader: Option<BrokerId>,
    ) {
        let Some(leader) = leader.and_then(|leader| image.broker(leader)) else {
            replica.follower = None;
            replica.port = None;
            self.streams().set_idle(partition.id(), false);
            return;
        };
        let following = Following {
            partition: partition.id(),
            leader_epoch: registration.leader_epoch,
            leader: leader.id,
            leader_broker_epoch: leader.epoch,
            me: self.node().broker_id,
            my_broker_epoch: self.node().broker_epoch,
            my_directory: partition.directory().id,
        };
        let now = self.node().clock.mono();
        match &mut replica.follower {
            Some(follower) => follower.on_following(following, now),
            None => {
                let high_watermark = replica.high_watermark.max(replica.log.log_start());
                let credit = self.credit_in(partition.directory());
                replica.follower = Some(Box::new(Follower::begin(following, high_watermark, &credit, now)));
            }
        }
        let me = self.node().broker_id;
        let counts = registration.isr.contains(&me) || registration.elr.contains(&me);
        if let Some(follower) = &mut replica.follower {
            follower.set_standing(counts, registration.isr.len(), &replica.log, now);
        }
        if !replica.log.holes().is_empty() {
            self.streams().note_damaged(partition.id());
        }
        let is_idle = replica.follower.as_ref().is_some_and(|follower| follower.is_idle());
        self.streams().set_idle(partition.id(), is_idle);
        self.dial(leader.id);
    }

    /// The replica is no longer this broker's: waiters hear it, the journal records it, the files go later.
    fn drop_partition(self: &Rc<Self>, id: TopicPartition) {
        self.absent.borrow_mut().remove(&id);
        let Some(partition) = self.remove_partition(id) else { return };
        self.streams().set_led(id, false);
        self.streams().set_idle(id, false);
        partition.deferred.set(false);
        if let Some(compaction) = &*partition.compacting.borrow() {
            compaction.stop();
        }
        let entry = {
            let mut replica = partition.replica_mut();
            replica.role = Role::Removed;
            replica.close_streams();
            replica.leader = None;
            replica.follower = None;
            replica.port = None;
            partition.directory().unflushed_bytes.fetch_sub(replica.log.unflushed_bytes(), Ordering::Relaxed);
            replica.log.drop_log(self.next_ticket(partition.directory()))
        };
        drop(self.enqueue_change(&partition, entry));
        partition.publish();
        self.leaving.borrow_mut().insert((id, partition.directory().place));
        self.dropped.borrow_mut().push(partition);
    }

    /// The files of replicas that left a directory are removed: those that have come back meanwhile are made.
    pub(super) fn on_files_gone(self: Rc<Self>, place: usize, gone: &[TopicPartition]) {
        let image = self.image();
        for id in gone {
            let was_leaving = self.leaving.borrow_mut().remove(&(*id, place));
            if was_leaving
                && self.absent.borrow().contains(id)
                && let Some(topic) = image.topic_by_id(id.topic_id)
            {
                self.reconcile(&image, topic, &mut Recovered::default());
            }
        }
    }

    fn log_config(&self, config: &TopicConfig) -> LogConfig {
        let compact = config.cleanup_policy.compact;
        // What is to be compacted in time must leave the active segment in time (`LogConfig.maxSegmentMs`).
        let segment_ms_max = config.max_compaction_lag.filter(|_| compact).unwrap_or(config.segment_age_max);
        LogConfig {
            segment_bytes: config.segment_bytes,
            segment_ms: config.segment_age_max.min(segment_ms_max),
            segment_jitter: config.segment_jitter,
            preallocate: config.preallocate,
            segment_index_bytes: config.segment_index_bytes,
            index_interval_bytes: config.index_interval_bytes,
            retention_ms: config.retention,
            retention_bytes: config.retention_bytes,
            delete: config.cleanup_policy.delete,
            compaction: compact.then_some(CompactionConfig {
                dirty_ratio_min: config.min_cleanable_dirty_ratio,
                lag_min: config.min_compaction_lag,
                lag_max: config.max_compaction_lag,
                delete_retention: config.delete_retention,
            }),
            log_append_time: config.timestamp_type == TimestampType::LogAppendTime,
            producer_expiration: self.node().settings.producer_id_expiration,
        }
    }
}

#[cfg(test)]
mod tests;
