//! Requests become entries: decided one after the other, proposed together, answered when applied.

use std::collections::VecDeque;
use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, ClusterId, TopicId, Uuid};
use tokio::sync::mpsc;

use super::{ControllerError, Entropy, MetadataOptions, Submission, WallClock};
use crate::controller::duties::SoftFacts;
use crate::controller::rules::{ConfigRules, Defaults};
use crate::controller::{
    Activation, ChangeVoters, ControllerRequest, ControllerResponse, Decision, Inputs, Reject, activation_records,
    apply_all, bootstrap_records, decide,
};
use crate::metadata::codec::Writer;
use crate::metadata::record::LossAccepted;
use crate::metadata::{MetadataImage, MetadataRecord, RecordBatch};
use crate::quorum::ENTRY_BYTES_MAX;
use crate::quorum::node::{ProposeError, QuorumNode, StartError};
use crate::quorum::publisher::Publisher;
use crate::quorum::type_config::Outcome;
use crate::settings::CLUSTER_KEYS;
use crate::settings::cluster_keys::Overruled;

/// Requests decided into one entry.
const REQUESTS_PER_BATCH_MAX: usize = 256;
/// What a batch needs besides its records.
const BATCH_OVERHEAD_BYTES: usize = 64;

/// What decides and proposes, for as long as this node leads.
pub(super) struct Active {
    pub(super) node: Arc<QuorumNode>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) node_id: BrokerId,
    pub(super) cluster_id: ClusterId,
    rules: Arc<dyn ConfigRules>,
    pub(super) defaults: Defaults,
    clock: WallClock,
    entropy: Entropy,
    /// Others could lead instead: nothing is said without a lease.
    needs_lease: bool,
    /// An entry was proposed whose outcome is not known; whoever goes on begins anew first.
    pub(super) is_unsettled: bool,
}

/// What a request came to, to be answered when its entry is applied.
struct Pending {
    submission: Submission,
    outcome: Result<ControllerResponse, Reject>,
}

impl Active {
    /// What decides, over a member of the quorum.
    pub(super) fn new(node: Arc<QuorumNode>, publisher: Arc<Publisher>, options: MetadataOptions) -> Active {
        Active {
            node,
            publisher,
            node_id: options.node_id,
            cluster_id: options.cluster_id,
            rules: options.rules,
            defaults: options.defaults,
            clock: options.clock,
            entropy: options.entropy,
            needs_lease: false,
            is_unsettled: false,
        }
    }

    /// For one of several voters, which may be replaced at any time.
    pub(super) fn with_lease(self) -> Active {
        Active { needs_lease: true, ..self }
    }

    /// What comes before any decision: the first records of a cluster, and what holds for all of it.
    pub(super) async fn begin(&self) -> Result<(), StartError> {
        self.settle_cluster().await?;
        self.record_defaults().await
    }

    /// What holds for the whole cluster is as this controller's configuration has it before anything is decided.
    async fn record_defaults(&self) -> Result<(), StartError> {
        loop {
            let image = self.publisher.image();
            let Activation { records, goes_on: _, kept } = activation_records(&image, &*self.rules, !self.needs_lease);
            if records.is_empty() {
                say_kept(&kept);
                return Ok(());
            }
            match self.propose(&image, records).await {
                Ok((_, Outcome::Applied)) => say_defaults(&image, &self.publisher.image()),
                Ok((_, outcome)) => return Err(StartError::Refused(format!("defaults were not applied: {outcome:?}"))),
                Err(error) => return Err(StartError::Refused(error.to_string())),
            }
        }
    }

    /// Begins the cluster in an empty log; refuses the log of another one.
    async fn settle_cluster(&self) -> Result<(), StartError> {
        let image = self.publisher.image();
        if let Some(found) = image.cluster_id() {
            if *found == self.cluster_id {
                return Ok(());
            }
            return Err(StartError::OtherCluster { found: found.to_string(), expected: self.cluster_id.to_string() });
        }
        match self.propose(&image, bootstrap_records(&self.cluster_id)).await {
            Ok((_, Outcome::Applied)) => Ok(()),
            Ok((_, outcome)) => Err(StartError::Refused(format!("the first records were not applied: {outcome:?}"))),
            Err(error) => Err(StartError::Refused(error.to_string())),
        }
    }

    /// Decides waiting requests on a scratch image, proposes what they come to as one entry, answers. `facts` says what a
    /// request's decision rests on besides the image. A request that found no room, or not for all of what it comes to, is
    /// left, to be the first of the next. A new incarnation's registration is the last of its entry.
    pub(super) async fn serve(
        &mut self,
        first: Submission,
        waiting: &mut Waiting<'_>,
        mut facts: impl FnMut(&ControllerRequest, &MetadataImage) -> SoftFacts,
    ) -> Option<Submission> {
        let image = self.publisher.image();
        let mut scratch = MetadataImage::clone(&image);
        let mut records = Vec::new();
        let mut bytes = BATCH_OVERHEAD_BYTES;
        let mut pending = Vec::new();
        let mut next = Some(first);
        let mut fenced = Vec::new();
        let mut has_begun = false;
        while let Some(submission) = next {
            if let ControllerRequest::Heartbeat(beat) = &submission.request
                && fenced.contains(&beat.id)
            {
                // It was alive after all. Unfenced by an entry of its own, everybody sees that it was fenced.
                next = Some(submission);
                break;
            }
            let facts = facts(&submission.request, &scratch);
            let outcome = match self.decide(&scratch, &submission.request, facts) {
                Ok(decision) => {
                    let len = encoded_len(&decision.records);
                    if bytes + len > ENTRY_BYTES_MAX && !records.is_empty() {
                        next = Some(submission);
                        break;
                    }
                    if bytes + len > ENTRY_BYTES_MAX {
                        Err(Reject::new(
                            ErrorCode::PolicyViolation,
                            "Unable to perform excessively large batch operation.",
                        ))
                    } else {
                        bytes += len;
                        apply_all(&mut scratch, image.index() + 1, &decision.records)
                            .expect("a decision fits the image it was made on");
                        records.extend(decision.records);
                        if decision.goes_on {
                            // The rest comes in entries of its own, and the answer with the last of them.
                            has_begun = true;
                            next = Some(submission);
                            break;
                        }
                        Ok(decision.response)
                    }
                }
                Err(reject) => Err(reject),
            };
            if let ControllerRequest::FenceBroker(fence) = &submission.request {
                fenced.push(fence.id);
            }
            // Its epoch is the entry's index, which may be a later one than the next: that of a new term's first entry, or
            // of a change of members, lies between. Nothing is decided on a guess.
            let is_guessed = outcome.as_ref().is_ok_and(ControllerResponse::names_its_entry) && !off!(EpochIsSettled);
            pending.push(Pending { submission, outcome });
            next = if pending.len() < REQUESTS_PER_BATCH_MAX && !is_guessed { waiting.take() } else { None };
        }
        let settled = if !records.is_empty() {
            settled(self.propose(&image, records).await)
        } else if self.needs_lease && !self.node.leads_surely() {
            // What rests on no entry would be the word of a controller that may have been replaced.
            Err(ControllerError::NotController(None))
        } else {
            Ok(image.index())
        };
        let is_written = !matches!(settled, Err(ControllerError::NotController(_)));
        self.is_unsettled |= matches!(settled, Err(ControllerError::Unknown));
        answer_all(pending, settled);
        next.map(|next| Submission { is_begun: next.is_begun || has_begun && is_written, ..next })
    }

    fn decide(
        &mut self,
        image: &MetadataImage,
        request: &ControllerRequest,
        facts: SoftFacts,
    ) -> Result<Decision, Reject> {
        if let ControllerRequest::DescribeQuorum = request {
            let facts = self.node.facts((self.clock)());
            let facts = facts.ok_or(Reject::new(ErrorCode::NotLeaderOrFollower, "this node does not lead"))?;
            return Ok(Decision::new(Vec::new(), ControllerResponse::DescribeQuorum(facts)));
        }
        if let ControllerRequest::ChangeVoters(ChangeVoters { wish, is_first }) = request {
            if !self.needs_lease {
                let message = "this node is alone, and its quorum has one voter: see \"From one broker to three\"";
                return Err(Reject::new(ErrorCode::UnsupportedVersion, message));
            }
            let progress = self.node.wish(wish, *is_first).map_err(|(code, message)| Reject::new(code, message))?;
            return Ok(Decision::new(Vec::new(), ControllerResponse::ChangeVoters(progress)));
        }
        if let ControllerRequest::WhoIsBehind(_) = request {
            return Ok(Decision::new(Vec::new(), ControllerResponse::WhoIsBehind(facts.behind)));
        }
        let topic_ids: Vec<TopicId> = (0..request.topic_ids_needed()).map(|_| self.fresh_topic_id(image)).collect();
        let mut seed = [0; 8];
        (self.entropy)(&mut seed);
        let inputs = Inputs {
            cluster_id: &self.cluster_id,
            now: (self.clock)(),
            next_index: image.index() + 1,
            topic_ids: &topic_ids,
            seed: u64::from_be_bytes(seed),
            moves_are_known: facts.moves_are_known,
            previous_is_gone: facts.previous_is_gone,
            brokers_to_come: facts.brokers_to_come,
            defaults: &self.defaults,
            rules: &*self.rules,
        };
        decide(image, request, &inputs)
    }

    fn fresh_topic_id(&mut self, image: &MetadataImage) -> TopicId {
        loop {
            let mut bytes = [0; 16];
            (self.entropy)(&mut bytes);
            let id = Uuid::from_random(bytes);
            if image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }

    async fn propose(
        &self,
        image: &MetadataImage,
        records: Vec<MetadataRecord>,
    ) -> Result<(u64, Outcome), ProposeError> {
        let term = self.node.leading_term().ok_or(ProposeError::NotLeader(None))?;
        let batch = RecordBatch { base_index: image.index(), controller_term: term, created: (self.clock)(), records };
        if !self.needs_lease {
            return self.node.propose(batch).await;
        }
        tokio::select! {
            proposed = self.node.propose(batch) => proposed,
            () = self.node.lease_lost() => Err(ProposeError::Unknown),
        }
    }
}

/// The requests behind the first one of a batch.
pub(super) struct Waiting<'a> {
    /// Those that this node asks itself, which go first.
    pub(super) own: &'a mut VecDeque<Submission>,
    /// Everybody's.
    pub(super) queue: &'a mut mpsc::Receiver<Submission>,
    /// Whether a request may be decided now; one that may not is not lost.
    pub(super) admit: &'a mut dyn FnMut(Submission) -> Option<Submission>,
}

impl Waiting<'_> {
    fn take(&mut self) -> Option<Submission> {
        if let Some(own) = self.own.pop_front() {
            return Some(own);
        }
        loop {
            let next = self.queue.try_recv().ok()?;
            if let Some(admitted) = (self.admit)(next) {
                return Some(admitted);
            }
        }
    }
}

/// What would have made acknowledgements mean less.
fn say_kept(kept: &[Overruled]) {
    for Overruled { key, own, recorded } in kept {
        tracing::error!(
            "{key} is {own} in this controller's configuration, which is weaker than what the cluster has recorded ({}) \
             and has no effect; whoever wants it sets it for all brokers while they run (kafka-configs --entity-type \
             brokers --entity-default), or for a topic",
            recorded.as_deref().unwrap_or("the default")
        );
    }
}

/// Whoever owns topics is told when what an acknowledgement means changes with the active controller's configuration.
fn say_defaults(before: &MetadataImage, now: &MetadataImage) {
    if before.topics().next().is_none() {
        return;
    }
    for key in CLUSTER_KEYS {
        let (was, is) = (before.recorded_config().get(key), now.recorded_config().get(key));
        if was != is {
            let or_default = |value: Option<&String>| value.map_or("the default", String::as_str).to_owned();
            tracing::warn!(
                "{key} was {} and is {} now, by the configuration of this controller, on every topic that does not set it",
                or_default(was),
                or_default(is)
            );
        }
    }
}

fn encoded_len(records: &[MetadataRecord]) -> usize {
    let mut out = Writer::new();
    for record in records {
        record.encode(&mut out);
    }
    out.finish().len()
}

fn settled(proposed: Result<(u64, Outcome), ProposeError>) -> Result<u64, ControllerError> {
    match proposed {
        Ok((index, Outcome::Applied)) => Ok(index),
        // Nothing was written, and nobody else writes: a retry decides on the right image.
        Ok((_, Outcome::Stale | Outcome::Nothing)) => Err(ControllerError::NotController(None)),
        Err(ProposeError::NotLeader(leader)) => Err(ControllerError::NotController(leader)),
        Err(ProposeError::Unknown) => Err(ControllerError::Unknown),
        Err(ProposeError::Ended) => Err(ControllerError::Stopped),
    }
}

fn answer_all(pending: Vec<Pending>, settled: Result<u64, ControllerError>) {
    for Pending { submission, outcome } in pending {
        let result = match &settled {
            Ok(index) => outcome.map(|response| response.settled_at(*index)).map_err(ControllerError::from),
            Err(error) => Err(error.clone()),
        };
        if let Ok(ControllerResponse::AcceptLoss(loss)) = &result {
            let LossAccepted { partition, replica, instead_of, at: _, leader_epoch: _ } = loss;
            tracing::warn!(%partition, "a loss was accepted: broker {replica} leads with what it has, instead of {instead_of:?}");
        }
        submission.answer(result);
    }
}
