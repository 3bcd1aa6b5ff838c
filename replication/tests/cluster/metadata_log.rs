//! The controller, and the metadata log as one serial history: the real decisions on the real image, committed after a
//! delay, one entry at a time. What waits meanwhile is decided for one entry, each request on what those before it come to,
//! as `controller/active/serving.rs` does. A change of the controller loses what waits, and the outstanding entry or its
//! answers; its first entry, which has no records, takes an index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, Timestamp, TopicId, TopicPartition, Uuid};
use stonelog_replication::controller::rules::ConfigRules as _;
use stonelog_replication::controller::{
    BrokerHeartbeat, ControllerRequest, ControllerResponse, Decision, Defaults, FenceBroker, Inputs, Reject,
    SettingsRules, bootstrap_records, decide,
};
use stonelog_replication::metadata::{MetadataImage, MetadataRecord, RecordBatch};

/// Requests that one entry answers.
const REQUESTS_MAX: usize = 8;
/// How long a broker may be silent, in microseconds.
pub const SESSION: u64 = 9_000_000;

/// A request and who waits for its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    pub from: BrokerId,
    pub life: u64,
    /// The number of an ISR request; 0 for any other.
    pub number: u64,
    pub request: ControllerRequest,
}

/// An answer on its way.
#[derive(Clone, Debug)]
pub struct Answer {
    pub to: BrokerId,
    pub life: u64,
    pub number: u64,
    pub decided_at: u64,
    pub response: Result<ControllerResponse, Reject>,
}

struct Outstanding {
    records: Vec<MetadataRecord>,
    /// Those that it answers.
    answers: Vec<(Asked, Result<ControllerResponse, Reject>)>,
    /// One of which a part is in it; the next entry goes on with it.
    goes_on: Option<Asked>,
}

/// See the module's comment.
pub struct MetadataLog {
    /// By index, from the first one.
    pub images: Vec<Arc<MetadataImage>>,
    pub rules: SettingsRules,
    pub term: u64,
    /// Entries without records since the last one that has some: a new term's first, changes of members.
    between: u64,
    queue: VecDeque<Asked>,
    outstanding: Option<Outstanding>,
    /// The most requests that one entry was decided for.
    pub answered_max: usize,
    heard: BTreeMap<BrokerId, u64>,
    topics_count: u8,
    /// The strict topics of the newest image.
    pub strict: BTreeSet<TopicId>,
}

impl MetadataLog {
    pub fn new() -> MetadataLog {
        let image = MetadataImage::from_records(1, &bootstrap_records(&cluster_id())).expect("a new cluster");
        MetadataLog {
            images: vec![Arc::new(image)],
            rules: SettingsRules { static_broker: Default::default(), broker_key: |_| None, group_key: |_| None },
            term: 1,
            between: 0,
            queue: VecDeque::new(),
            outstanding: None,
            answered_max: 0,
            heard: BTreeMap::new(),
            topics_count: 0,
            strict: BTreeSet::new(),
        }
    }

    pub fn newest(&self) -> &Arc<MetadataImage> {
        self.images.last().expect("the first image")
    }

    /// The image at an index, or the newest below it.
    pub fn next_after(&self, index: u64) -> Option<&Arc<MetadataImage>> {
        self.images.get(self.images.partition_point(|image| image.index() <= index))
    }

    /// Whether a topic is strict by the newest image.
    pub fn is_strict(&self, topic: TopicId) -> bool {
        self.strict.contains(&topic)
    }

    /// A request has arrived.
    pub fn ask(&mut self, asked: Asked, now: u64) {
        if let ControllerRequest::Heartbeat(heartbeat) = &asked.request
            && self.newest().broker(heartbeat.id).is_some_and(|broker| broker.epoch == heartbeat.epoch)
        {
            self.heard.insert(heartbeat.id, now);
        }
        self.queue.push_back(asked);
    }

    /// Decides what waits until something is to be committed; answers to what needs no commit.
    pub fn decide(&mut self) -> (Vec<Answer>, bool) {
        let mut answers = Vec::new();
        while self.outstanding.is_none() && !self.queue.is_empty() {
            let entry = self.decide_entry();
            if entry.records.is_empty() {
                answers.extend(entry.answers.into_iter().map(|(asked, outcome)| self.answer(&asked, outcome)));
            } else {
                self.answered_max = self.answered_max.max(entry.answers.len());
                self.outstanding = Some(entry);
                return (answers, true);
            }
        }
        (answers, false)
    }

    /// Decides what waits as far as it goes into one entry.
    fn decide_entry(&mut self) -> Outstanding {
        let base = Arc::clone(self.newest());
        let mut scratch = MetadataImage::clone(&base);
        let mut entry = Outstanding { records: Vec::new(), answers: Vec::new(), goes_on: None };
        let mut fenced = Vec::new();
        while let Some(asked) = self.queue.pop_front() {
            if let ControllerRequest::Heartbeat(beat) = &asked.request
                && fenced.contains(&beat.id)
            {
                // Unfenced by an entry of its own, everybody sees that it was fenced.
                self.queue.push_front(asked);
                break;
            }
            let outcome = match self.decide_one(&scratch, &asked.request) {
                Ok(Decision { records, response, goes_on }) => {
                    for record in &records {
                        scratch.apply_record(base.index() + 1, record).expect("a decision fits its image");
                    }
                    entry.records.extend(records);
                    if goes_on {
                        entry.goes_on = Some(asked);
                        break;
                    }
                    Ok(response)
                }
                Err(reject) => Err(reject),
            };
            if let ControllerRequest::FenceBroker(fence) = &asked.request {
                fenced.push(fence.id);
            }
            // Nothing is decided on an epoch that is a guess until the entry has its index.
            let is_guess = matches!(&outcome, Ok(ControllerResponse::RegisterBroker(answer)) if answer.is_new);
            entry.answers.push((asked, outcome));
            if is_guess || entry.answers.len() == REQUESTS_MAX {
                break;
            }
        }
        entry
    }

    /// The outstanding entry is committed and applied.
    pub fn commit(&mut self, term: u64) -> Vec<Answer> {
        if term != self.term {
            return Vec::new();
        }
        let Some(Outstanding { records, answers, goes_on }) = self.outstanding.take() else { return Vec::new() };
        self.append(records);
        if let Some(asked) = goes_on {
            self.queue.push_front(asked);
        }
        let index = self.newest().index();
        let settled = answers.into_iter().map(|(asked, mut outcome)| {
            if let Ok(ControllerResponse::RegisterBroker(registered)) = &mut outcome
                && registered.is_new
            {
                registered.epoch = BrokerEpoch(i64::try_from(index).expect("few entries"));
            }
            self.answer(&asked, outcome)
        });
        settled.collect()
    }

    /// Another controller: sessions begin anew, nobody who waits is answered.
    pub fn change_controller(&mut self, keeps_outstanding: bool, now: u64) {
        self.term += 1;
        self.queue.clear();
        // A voter is replaced from time to time, in four entries.
        self.between += if self.term.is_multiple_of(5) { 5 } else { 1 };
        if let Some(outstanding) = self.outstanding.take()
            && keeps_outstanding
        {
            self.append(outstanding.records);
        }
        self.heard.values_mut().for_each(|heard| *heard = now);
    }

    /// The broker whose session is over first.
    pub fn expired(&mut self, now: u64) -> Option<ControllerRequest> {
        let image = self.images.last()?;
        let over = image.brokers().find(|broker| {
            !broker.fenced && now.saturating_sub(*self.heard.entry(broker.id).or_insert(now)) > SESSION
        })?;
        Some(ControllerRequest::FenceBroker(FenceBroker { id: over.id, epoch: over.epoch }))
    }

    /// With `STONELOG_SIMULATION_LOG` every change of the metadata is printed, to follow a failed seed.
    pub fn tell_change(&self, now: u64) {
        static TELLS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let tells = *TELLS.get_or_init(|| std::env::var_os("STONELOG_SIMULATION_LOG").is_some());
        let [.., before, after] = &self.images[..] else { return };
        if !tells {
            return;
        }
        println!("{:>12} image {} strict {:?}", now, after.index(), self.strict);
        for broker in after.brokers() {
            if before.broker(broker.id) != Some(broker) {
                println!("    {broker:?}");
            }
        }
        for (topic, index, partition) in after.partitions() {
            let id = TopicPartition { topic_id: topic.id, partition: index };
            if before.partition(id).is_none_or(|was| was != partition) {
                println!("    {id} {partition:?}");
            }
        }
    }

    fn append(&mut self, records: Vec<MetadataRecord>) {
        let newest = self.newest();
        let batch =
            RecordBatch { base_index: newest.index(), controller_term: self.term, created: Timestamp(0), records };
        let next = newest.apply(newest.index() + 1 + self.between, &batch).expect("a decision fits its image");
        let strict = next.topics().filter(|topic| self.rules.is_strict(&next, &topic.name));
        self.strict = strict.map(|topic| topic.id).collect();
        self.images.push(Arc::new(next));
        self.between = 0;
    }

    fn answer(&self, asked: &Asked, response: Result<ControllerResponse, Reject>) -> Answer {
        let decided_at = self.newest().index();
        Answer { to: asked.from, life: asked.life, number: asked.number, decided_at, response }
    }

    fn decide_one(&mut self, image: &MetadataImage, request: &ControllerRequest) -> Result<Decision, Reject> {
        let topic_ids: Vec<TopicId> = (0..request.topic_ids_needed())
            .map(|_| {
                self.topics_count += 1;
                Uuid([self.topics_count; 16])
            })
            .collect();
        let cluster_id = cluster_id();
        let inputs = Inputs {
            cluster_id: &cluster_id,
            now: Timestamp(0),
            next_index: image.index() + 1,
            topic_ids: &topic_ids,
            seed: 0,
            moves_are_known: true,
            previous_is_gone: true,
            brokers_to_come: 0,
            defaults: &Defaults::default(),
            rules: &self.rules,
        };
        decide(image, request, &inputs)
    }
}

pub fn cluster_id() -> ClusterId {
    ClusterId("simulated".into())
}

/// A heartbeat that fences its broker.
pub fn fence(id: BrokerId, epoch: BrokerEpoch) -> BrokerHeartbeat {
    BrokerHeartbeat { id, epoch, metadata_index: 0, want_fence: true, want_shutdown: false, online_directories: None }
}
