//! Metadata (key 3): brokers, topics and who leads what; makes topics on demand.
//!
//! *Behaviour*: answers from one image. A topic that does not exist is created when the broker
//! (`auto.create.topics.enable`) and the request both allow it; one that takes longer than a second is
//! LEADER_NOT_AVAILABLE until it is there, and the others are answered.
//! *Versions*: 0–13. Version 0 asks for everything with an empty list, later ones with null; from 10 on topics carry
//! ids, from 12 on they can be asked for by id. A leader that cannot be reached by the client's listener is
//! LISTENER_NOT_FOUND from 6 on, before that LEADER_NOT_AVAILABLE.
//! *Differences from Kafka*: authorized operations are never filled in: there is no authorizer yet. A topic created on
//! demand is answered at once with its leaders, where Kafka first answers LEADER_NOT_AVAILABLE. The controller named is the
//! broker that answers, which hands on what only the active one may do; Kafka names any broker that is alive.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use stonelog_protocol::messages::{BrokerId as WireBrokerId, MetadataRequest, MetadataResponse, TopicName};
use stonelog_protocol::{BrokerId, StrBytes, Uuid};
use stonelog_replication::metadata::MetadataImage;
use stonelog_replication::metadata::topic::{PartitionRegistration, TopicImage, is_internal};

use crate::on_demand::OnDemand;
use crate::request::RequestContext;

/// Answers a Metadata request.
pub async fn handle(context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let version = context.version();
    let everything = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let mut image = context.image();
    let topics = if everything {
        image.topics().map(|topic| describe(context, &image, topic)).collect()
    } else {
        let mut asked = request.topics.unwrap_or_default();
        // As in Kafka, each is answered once: a few bytes asked over and over would make an answer of any size.
        let mut seen = HashSet::new();
        asked.retain(|topic| seen.insert((topic.topic_id, topic.name.clone())));
        // A topic asked for by id has no name, or an empty one: the Java client sends the latter.
        let by_id = |id: &uuid::Uuid| version >= 12 && !id.is_nil();
        let names: Vec<String> = asked
            .iter()
            .filter(|topic| !by_id(&topic.topic_id))
            .filter_map(|topic| topic.name.as_ref())
            .map(|name| name.to_string())
            .collect();
        let may_create = context.broker.config.topics.auto_create && (version < 4 || request.allow_auto_topic_creation);
        let refused = if may_create { create_missing(context, &mut image, &names).await } else { HashMap::new() };
        asked
            .into_iter()
            .map(|topic| match (topic.name, Uuid(*topic.topic_id.as_bytes())) {
                (_, id) if by_id(&topic.topic_id) => match image.topic_by_id(id) {
                    Some(found) => describe(context, &image, found),
                    None => missing(None, id, ErrorCode::UnknownTopicId),
                },
                (Some(name), id) if id.is_zero() => by_name(context, &image, name, &refused),
                (name, _) => missing(name, Uuid::ZERO, ErrorCode::InvalidRequest),
            })
            .collect()
    };
    let mut response = MetadataResponse::default()
        .with_brokers(brokers(context, &image))
        .with_controller_id(WireBrokerId(contact(context, &image).map_or(-1, |id| id.0)))
        .with_topics(topics);
    if version >= 2 {
        response.cluster_id = image.cluster_id().map(|id| StrBytes::from_string(id.to_string()));
    }
    response
}

/// Creates the topics of `names` that do not exist. Returns those that are not there yet, each with its error.
///
/// Afterwards `image` shows what was created.
async fn create_missing(
    context: &RequestContext,
    image: &mut Arc<MetadataImage>,
    names: &[String],
) -> HashMap<String, ErrorCode> {
    let mut missing: Vec<&String> =
        names.iter().filter(|name| image.topic_by_name(name).is_none() && context.broker.may_be_made(name)).collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return HashMap::new();
    }
    let missing: Vec<&str> = missing.into_iter().map(String::as_str).collect();
    let mut refused = OnDemand::make(&context.broker, &missing).await;
    *image = context.image();
    for error in refused.values_mut().filter(|error| **error == ErrorCode::RequestTimedOut) {
        // It may be there the next time.
        *error = ErrorCode::LeaderNotAvailable;
    }
    refused
}

fn by_name(
    context: &RequestContext,
    image: &MetadataImage,
    name: TopicName,
    refused: &HashMap<String, ErrorCode>,
) -> MetadataResponseTopic {
    if let Some(found) = image.topic_by_name(&name) {
        return describe(context, image, found);
    }
    let refusal = refused.get(&**name).copied();
    let error = refusal.unwrap_or_else(|| match context.broker.is_legal_topic_name(&name) {
        true => ErrorCode::UnknownTopicOrPartition,
        false => ErrorCode::InvalidTopicException,
    });
    let internal = is_internal(&name);
    missing(Some(name), Uuid::ZERO, error).with_is_internal(internal)
}

fn missing(name: Option<TopicName>, id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(name.unwrap_or_default()))
        .with_topic_id(uuid::Uuid::from_bytes(id.0))
}

fn describe(context: &RequestContext, image: &MetadataImage, topic: &TopicImage) -> MetadataResponseTopic {
    let partitions = (0..)
        .zip(&topic.partitions)
        .map(|(index, registration)| partition(context, image, index, registration))
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(uuid::Uuid::from_bytes(topic.id.0))
        .with_is_internal(topic.internal)
        .with_partitions(partitions)
}

fn partition(
    context: &RequestContext,
    image: &MetadataImage,
    index: i32,
    registration: &PartitionRegistration,
) -> MetadataResponsePartition {
    let wire = |ids: &[BrokerId]| ids.iter().map(|id| WireBrokerId(id.0)).collect::<Vec<_>>();
    let reachable = |id: BrokerId| image.broker(id).is_some_and(|broker| broker.endpoint(&context.listener).is_some());
    let leader = led_by(image, registration);
    let error = match leader {
        None => ErrorCode::LeaderNotAvailable,
        Some(leader) if !reachable(leader) && context.version() < 6 => ErrorCode::LeaderNotAvailable,
        Some(leader) if !reachable(leader) => ErrorCode::ListenerNotFound,
        Some(_) => ErrorCode::None,
    };
    let offline: Vec<BrokerId> =
        registration.replicas.iter().copied().filter(|replica| is_offline(image, registration, *replica)).collect();
    let mut response = MetadataResponsePartition::default()
        .with_error_code(error.code())
        .with_partition_index(index)
        .with_leader_id(WireBrokerId(leader.map_or(-1, |leader| leader.0)))
        .with_replica_nodes(wire(&registration.replicas))
        .with_isr_nodes(wire(&registration.isr))
        .with_offline_replicas(wire(&offline));
    if context.version() >= 7 {
        response.leader_epoch = registration.leader_epoch.0;
    }
    response
}

/// Who leads, unless its broker is fenced. One that is leaving serves until it has handed over.
pub(super) fn led_by(image: &MetadataImage, registration: &PartitionRegistration) -> Option<BrokerId> {
    registration.leader.filter(|_| image.is_led(registration))
}

/// Whom a client shall ask what only the controller may do: this very broker, which hands it on. It is there, for it
/// answers. The active controller may have died a moment ago: a client that is told of it then waits for a connection to
/// it, in growing pauses, long after another one has taken over.
fn contact(context: &RequestContext, image: &MetadataImage) -> Option<BrokerId> {
    [Some(context.broker.node.broker_id), image.controller()]
        .into_iter()
        .flatten()
        .find(|id| is_told(context, image, *id))
}

/// Who the controller is said to be: the active one where clients are told of its broker, else this broker.
pub(super) fn controller(context: &RequestContext, image: &MetadataImage) -> Option<BrokerId> {
    [image.controller(), Some(context.broker.node.broker_id)]
        .into_iter()
        .flatten()
        .find(|id| is_told(context, image, *id))
}

fn is_told(context: &RequestContext, image: &MetadataImage, id: BrokerId) -> bool {
    image.broker(id).is_some_and(|broker| !broker.fenced && broker.endpoint(&context.listener).is_some())
}

/// A replica is offline with its broker, and with its directory.
pub(super) fn is_offline(image: &MetadataImage, registration: &PartitionRegistration, replica: BrokerId) -> bool {
    let directory = registration.directory_of(replica);
    let is_there = |id| image.broker(replica).is_some_and(|broker| broker.has_directory(id));
    let is_up = image.broker(replica).is_some_and(|broker| !broker.fenced);
    !is_up || !directory.is_some_and(is_there)
}

fn brokers(context: &RequestContext, image: &MetadataImage) -> Vec<MetadataResponseBroker> {
    image
        .brokers()
        .filter(|broker| !broker.fenced)
        .filter_map(|broker| {
            let endpoint = broker.endpoint(&context.listener)?;
            Some(
                MetadataResponseBroker::default()
                    .with_node_id(WireBrokerId(broker.id.0))
                    .with_host(StrBytes::from_string(endpoint.host.to_string()))
                    .with_port(i32::from(endpoint.port))
                    .with_rack(broker.rack.as_ref().map(|rack| StrBytes::from_string(rack.to_string()))),
            )
        })
        .collect()
}
