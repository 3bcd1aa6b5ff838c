//! What a node makes of a new image, partition by partition.

use std::sync::Arc;

use stonelog_protocol::{BrokerId, DirectoryId, LeaderEpoch, TopicPartition};
use stonelog_replication::controller::rules::ConfigRules as _;
use stonelog_replication::partition::leader::{Beginning, Positions};
use stonelog_replication::partition::{Leader, Leadership};
use stonelog_replication::replica::{Follower, Following, forget_committed};

use super::node::Up;
use super::oracle::Shadow;
use super::part::{Env, Out, Part, Role};
use super::steps::read_all;

impl Up {
    /// What the image says of one partition.
    pub(super) fn reconcile(&mut self, me: BrokerId, id: TopicPartition, env: &mut Env<'_>) {
        let image = Arc::clone(&self.image);
        // Rule 4: nothing before the own registration is applied.
        let is_own = image.broker(me).is_some_and(|broker| broker.incarnation == self.incarnation);
        if !is_own || self.epoch.is_none() {
            return;
        }
        let found = image.partition(id).filter(|found| found.replicas.contains(&me));
        let Some((registration, home)) = found.and_then(|found| Some((found, found.directory_of(me)?))) else {
            self.forget(id);
            return self.drop_strays(id, None, env);
        };
        if self.directories.home(id).is_some_and(|known| known != home) {
            self.forget(id);
        }
        self.drop_strays(id, Some(home), env);
        if !self.directories.is_open(home) {
            // Absent: somebody else's business until it is given another directory.
            return;
        }
        let topic = image.topic_by_id(id.topic_id).expect("of this image");
        let strict = env.rules.is_strict(&image, &topic.name);
        let is_held = self.directories.holds(home, id);
        if !is_held && self.directories.directory(home).is_vanishing(id) {
            env.out.push(Out::Mark("replica waits for an earlier one's deletion"));
            self.waits_for_deletion.insert(id);
            return;
        }
        if !is_held {
            self.directories.directory(home).create(id, env.options.config.clone(), strict, 0);
        }
        self.directories.settle(id, home);
        if !self.parts.contains_key(&id) {
            let shadow = if is_held { read_all(self.directories.of_mut(id), id, env) } else { Shadow::new() };
            let log = &mut self.directories.hosted(id).log;
            forget_committed(log, image.loss_accepted(id), me);
            let high_watermark = log.high_watermark();
            self.parts.insert(
                id,
                Part {
                    role: Role::Idle,
                    leader_epoch: LeaderEpoch::NONE,
                    high_watermark,
                    shadow,
                    min_isr: 1,
                    deferred: false,
                    checked: 0,
                },
            );
        }
        let ticket = self.directories.ticket(id);
        if let Some(entry) = self.directories.hosted(id).log.set_mode(strict, ticket) {
            self.directories.enqueue(entry);
        }
        let part = self.parts.get_mut(&id).expect("just made");
        part.leader_epoch = registration.leader_epoch;
        part.min_isr = env.rules.min_insync_replicas(&image, &topic.name, registration.replicas.len());
        part.deferred = false;
        match registration.leader {
            Some(leader) if leader == me => {
                let is_led = matches!(part.role, Role::Leader(_));
                if self.directories.log(id).is_changing() && !is_led {
                    part.role = Role::Idle;
                    part.deferred = true;
                    return;
                }
                let epoch = registration.leader_epoch;
                if self.directories.log(id).latest_epoch() != Some(epoch) {
                    let ticket = self.directories.ticket(id);
                    let entry = self.directories.hosted(id).log.begin_epoch(epoch, ticket);
                    self.directories.enqueue(entry);
                }
                let log = self.directories.log(id);
                let leadership = Leadership::of(&image, id, registration, part.min_isr, strict);
                let epoch_start = log.epochs().latest().expect("just begun").start;
                match &mut part.role {
                    Role::Leader(leader) => {
                        if leadership.leader_epoch > leader.leadership().leader_epoch {
                            self.streams.retain(|(of, _), _| *of != id);
                        }
                        leader.on_leadership(leadership, epoch_start, env.moment);
                    }
                    role => {
                        env.out.push(Out::Mark("leader began"));
                        let start = log.log_start().0;
                        env.oracle.forgive(id, &part.shadow, start, epoch);
                        let lacks = env.oracle.missing(id, &part.shadow, start, epoch);
                        if let Some(lacks) = lacks.filter(|_| !env.loss_accepted) {
                            panic!("LeaderCompleteness: {me} leads {id} in {epoch} without {lacks:?}");
                        }
                        let own = Positions { written: log.written(), durable: log.durable() };
                        let at = Beginning { own, high_watermark: part.high_watermark, epoch_start };
                        *role = Role::Leader(Box::new(Leader::begin(me, leadership, at, env.moment)));
                    }
                }
            }
            other => {
                if matches!(part.role, Role::Leader(_)) {
                    env.out.push(Out::Mark("leader stepped down"));
                    self.streams.retain(|(of, _), _| *of != id);
                    self.proposals.forget(id);
                    part.role = Role::Idle;
                }
                let leader = other.and_then(|leader| image.broker(leader));
                let Some((leader, my_epoch)) = leader.zip(self.epoch) else {
                    part.role = Role::Idle;
                    return;
                };
                let following = Following {
                    partition: id,
                    leader_epoch: registration.leader_epoch,
                    leader: leader.id,
                    leader_broker_epoch: leader.epoch,
                    me,
                    my_broker_epoch: my_epoch,
                    my_directory: home,
                };
                match &mut part.role {
                    Role::Follower(follower) => follower.on_following(following, env.moment),
                    role => {
                        let follower = Follower::begin(following, part.high_watermark, &self.pool, env.moment);
                        *role = Role::Follower(Box::new(follower));
                    }
                }
                let (isr, elr) = (&registration.isr, &registration.elr);
                let counts = isr.contains(&me) || elr.contains(&me);
                if let Role::Follower(follower) = &mut part.role {
                    follower.set_standing(counts, isr.len(), self.directories.log(id), env.moment);
                }
            }
        }
    }

    /// Nothing is done for a replica here any more.
    pub(super) fn forget(&mut self, id: TopicPartition) {
        self.parts.remove(&id);
        self.streams.retain(|(of, _), _| *of != id);
        self.proposals.forget(id);
        self.directories.unsettle(id);
    }

    /// What lies in a directory that the metadata does not name goes.
    fn drop_strays(&mut self, id: TopicPartition, home: Option<DirectoryId>, env: &mut Env<'_>) {
        for directory in self.directories.ids() {
            if Some(directory) != home && self.directories.holds(directory, id) {
                env.out.push(Out::Mark(if home.is_some() { "stray dropped" } else { "replica dropped" }));
                self.directories.directory(directory).drop_log(id);
            }
        }
    }
}
