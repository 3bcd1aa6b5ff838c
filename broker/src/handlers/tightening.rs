//! A change that makes an acknowledgement mean more is answered when every broker that may lead what it concerns goes by
//! it (DESIGN.md §1): who was told that a topic is strict is not acknowledged by the old rule any more, wherever it is led.
//!
//! Which brokers those are is read from the image after the change, and taken wide: all that hold a replica and are not
//! fenced, for one that was deposed and has not heard of it leads by what it knows. How far each has come its heartbeats
//! tell the controller. A change that cannot have tightened anything waits for nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use stonelog_protocol::{BrokerId, ErrorCode};
use stonelog_replication::controller::{ControllerRequest, ControllerResponse, Reject, WhoIsBehind};
use stonelog_replication::metadata::ConfigResource;
use stonelog_replication::metadata::topic::TopicImage;

use crate::request::RequestContext;

/// The settings that say what an acknowledgement means, of a topic and of a broker.
const DURABILITY_KEYS: [&str; 3] = ["flush.messages", "log.flush.interval.messages", "min.insync.replicas"];
/// Brokers are waited for so long at most: longer than a session, so that one that is gone is fenced by then, and shorter
/// than clients wait for an answer, which names those that are behind.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// How soon it is asked again who is behind, at first and at last.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Whether a setting of this name can change what an acknowledgement means.
pub(super) fn is_durability(key: &str) -> bool {
    DURABILITY_KEYS.contains(&key)
}

/// The other brokers that must go by a change of a resource's durability before it is answered.
pub(super) fn concerned(context: &RequestContext, resource: &ConfigResource) -> BTreeSet<BrokerId> {
    let image = context.image();
    let mut brokers = BTreeSet::new();
    match resource {
        ConfigResource::Topic(name) => {
            if let Some(topic) = image.topic_by_name(name) {
                add_replicas(context, topic, &mut brokers);
            }
        }
        ConfigResource::Broker(_) | ConfigResource::Recorded => {
            image.topics().for_each(|topic| add_replicas(context, topic, &mut brokers));
        }
        ConfigResource::Group(_) => {}
    }
    brokers.remove(&context.broker.node.broker_id);
    brokers
}

/// What is relaxed, and acknowledged by the leader alone, cannot have been tightened.
fn add_replicas(context: &RequestContext, topic: &TopicImage, brokers: &mut BTreeSet<BrokerId>) {
    let config = context.lane.topic_config(topic);
    for partition in &topic.partitions {
        if config.is_strict() || config.effective_min_isr(partition.settled_count()) > 1 {
            brokers.extend(&partition.replicas);
        }
    }
}

/// Returns once these brokers have applied what this one has; fenced ones need not.
///
/// # Errors
/// REQUEST_TIMED_OUT, naming those that have not.
pub(super) async fn applied_by(context: &RequestContext, brokers: BTreeSet<BrokerId>) -> Result<(), Reject> {
    if brokers.is_empty() {
        return Ok(());
    }
    let metadata = &context.broker.metadata;
    let request = WhoIsBehind { index: metadata.image().index(), brokers: brokers.into_iter().collect() };
    let mut behind = request.brokers.clone();
    let all = async {
        let (mut pause, pause_max) = ASK_AGAIN;
        loop {
            match metadata.submit(ControllerRequest::WhoIsBehind(request.clone())).await {
                Ok(ControllerResponse::WhoIsBehind(now)) if now.is_empty() => return,
                Ok(ControllerResponse::WhoIsBehind(now)) => behind = now,
                Ok(_) => unreachable!("the answer's variant is the request's"),
                // Whoever is the next controller hears it from the brokers anew.
                Err(error) => tracing::debug!("who is behind is not known: {error}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    };
    let within = context.broker.config.network.request_timeout.min(WAIT_MAX);
    if tokio::time::timeout(within, all).await.is_ok() {
        return Ok(());
    }
    Err(Reject::new(ErrorCode::RequestTimedOut, message(&behind)))
}

fn message(behind: &[BrokerId]) -> String {
    let names: Vec<String> = behind.iter().map(ToString::to_string).collect();
    let brokers = if behind.len() == 1 { "broker" } else { "brokers" };
    format!("It is set; {brokers} {} may still acknowledge by what was set before.", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_behind_are_named() {
        assert_eq!(message(&[BrokerId(2)]), "It is set; broker 2 may still acknowledge by what was set before.");
        assert!(message(&[BrokerId(2), BrokerId(5)]).contains("brokers 2, 5 may"));
    }
}
