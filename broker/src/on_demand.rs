//! Topics that are made because somebody asked for them by name: on demand, and those that groups live in.
//!
//! A creation waits for the controller, which may be gone, or wait for brokers itself; whoever asked waits a moment only,
//! for what else it asked can be answered. The creation goes on. While it does, nobody begins another of that name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stonelog_protocol::ErrorCode;
use stonelog_replication::controller::{ControllerRequest, ControllerResponse, CreateTopics};
use stonelog_replication::runtime::lanes::spawn_here;
use tokio::sync::watch;

use crate::broker::Broker;

/// How long a request waits for a topic to be made: some entries of the metadata log.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Topics being made at the same time.
const UNDER_WAY_MAX: usize = 10_000;

/// What came of a creation, once it is known.
type Made = Option<Result<(), ErrorCode>>;

/// The topics being made. See the module's comment.
#[derive(Default)]
pub struct OnDemand(Mutex<HashMap<String, watch::Receiver<Made>>>);

impl OnDemand {
    /// Makes topics that do not exist; there are no two of one name. Returns those that are not there now, each with why:
    /// REQUEST_TIMED_OUT where that is not known yet. On a lane.
    pub async fn make(broker: &Arc<Broker>, names: &[&str]) -> HashMap<String, ErrorCode> {
        let timed_out = |name: &&str| ((*name).to_owned(), ErrorCode::RequestTimedOut);
        let mut missing: HashMap<String, ErrorCode> = names.iter().map(timed_out).collect();
        let begun = begin(broker, names);
        let all = async {
            for (name, mut made) in begun {
                // A sender that is gone went with its lane.
                let Ok(made) = made.wait_for(Option::is_some).await.map(|made| *made) else { continue };
                match made {
                    Some(Err(error)) => missing.insert(name, error),
                    Some(Ok(())) | None => missing.remove(&name),
                };
            }
        };
        // Each says for itself whether it came in time.
        let _ = tokio::time::timeout(WAIT_MAX, all).await;
        missing
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Made>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the controller make those that nobody is making.
fn begin(broker: &Arc<Broker>, names: &[&str]) -> Vec<(String, watch::Receiver<Made>)> {
    let mut under_way = broker.on_demand.lock();
    let mut begun = Vec::with_capacity(names.len());
    let mut fresh = Vec::new();
    for name in names {
        let made = match under_way.get(*name) {
            Some(made) => made.clone(),
            None if under_way.len() >= UNDER_WAY_MAX => continue,
            None => {
                let (sender, made) = watch::channel(None);
                under_way.insert((*name).to_owned(), made.clone());
                fresh.push(((*name).to_owned(), sender));
                made
            }
        };
        begun.push(((*name).to_owned(), made));
    }
    drop(under_way);
    if !fresh.is_empty() {
        spawn_here(create(Arc::clone(broker), fresh));
    }
    begun
}

async fn create(broker: Arc<Broker>, fresh: Vec<(String, watch::Sender<Made>)>) {
    let topics = fresh.iter().map(|(name, _)| broker.new_topic(name)).collect();
    let request = ControllerRequest::CreateTopics(CreateTopics { topics, validate_only: false });
    let results: Vec<Result<(), ErrorCode>> = match broker.metadata.submit(request).await {
        Ok(ControllerResponse::CreateTopics(results)) => {
            let came_to = |result: Result<(), ErrorCode>| match result {
                // Somebody else asked at the same time.
                Err(ErrorCode::TopicAlreadyExists) => Ok(()),
                result => result,
            };
            results.into_iter().map(|topic| came_to(topic.result.map(drop).map_err(|reject| reject.code))).collect()
        }
        Ok(_) => unreachable!("the answer's variant is the request's"),
        Err(error) => {
            tracing::warn!("cannot create topics on demand: {error}");
            vec![Err(ErrorCode::LeaderNotAvailable); fresh.len()]
        }
    };
    broker.applied_everywhere().await;
    let mut under_way = broker.on_demand.lock();
    for ((name, sender), result) in fresh.into_iter().zip(results) {
        under_way.remove(&name);
        sender.send_replace(Some(result));
    }
}
