//! The running broker as handlers see it: configuration, lanes, metadata, and what is shared between connections.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stonelog_replication::controller::MetadataHandle;
use stonelog_replication::controller::NewTopic;
use stonelog_replication::controller::validate_topic_name;
use stonelog_replication::metadata::topic::is_internal;
use stonelog_replication::runtime::lanes::Lanes;
use stonelog_replication::runtime::node::Node;
use stonelog_replication::runtime::pool::Pool;

use crate::config::BrokerConfig;
use crate::coordinator;
use crate::fetch::session::Sessions;
use crate::on_demand::OnDemand;
use crate::producer_ids::ProducerIds;

/// Fetch sessions are kept in this many independent caches, so that lanes seldom wait for each other
/// (`FetchSessionCacheShard`).
const SESSION_SHARDS: usize = 8;
/// Partitions that the sessions of one such cache remember together, at some 300 bytes each. Kafka bounds the sessions
/// alone, each of any size.
const SESSION_PARTITIONS_MAX: usize = 128 << 10;

/// The running broker.
pub struct Broker {
    /// What the operator asked for.
    pub config: BrokerConfig,
    /// What all lanes share.
    pub node: Arc<Node>,
    /// The lanes.
    pub lanes: Lanes,
    /// The metadata quorum.
    pub metadata: MetadataHandle,
    /// Producer ids to hand out.
    pub producer_ids: ProducerIds,
    /// Topics being made because somebody asked for them.
    pub on_demand: OnDemand,
    /// Threads that open and validate compressed batches too large for a lane.
    pub validators: Arc<Pool>,
    sessions: [Mutex<Sessions>; SESSION_SHARDS],
    next_session: AtomicI32,
}

impl Broker {
    /// Puts the parts together. `session_seed` is random, so that session ids of different starts differ.
    pub fn new(
        config: BrokerConfig,
        node: Arc<Node>,
        lanes: Lanes,
        metadata: MetadataHandle,
        producer_ids: ProducerIds,
        validators: Arc<Pool>,
        session_seed: u32,
    ) -> Arc<Broker> {
        let slots = (config.fetch.session_slots as usize).div_ceil(SESSION_SHARDS);
        Arc::new(Broker {
            config,
            node,
            lanes,
            metadata,
            producer_ids,
            on_demand: OnDemand::default(),
            validators,
            sessions: std::array::from_fn(|_| Mutex::new(Sessions::new(slots, SESSION_PARTITIONS_MAX))),
            next_session: AtomicI32::new((session_seed & 0x7fff_ffff) as i32),
        })
    }

    /// The cache that holds a fetch session.
    pub fn fetch_sessions(&self, session_id: i32) -> MutexGuard<'_, Sessions> {
        let shard = session_id.unsigned_abs() as usize % SESSION_SHARDS;
        self.sessions[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id for a new fetch session: positive, and not used recently.
    pub fn fresh_session_id(&self) -> i32 {
        // A large odd step spreads consecutive ids over the positive numbers.
        let next = self.next_session.fetch_add(0x2545_F491, Ordering::Relaxed) & i32::MAX;
        next.max(1)
    }

    /// A topic made on demand: with the broker's defaults, or as the internal topic of that name wants it.
    pub fn new_topic(&self, name: &str) -> NewTopic {
        match coordinator::internal_topic(name, &self.config) {
            Some(internal) => internal,
            None => NewTopic {
                name: name.to_owned(),
                partitions: -1,
                replication_factor: -1,
                assignments: Vec::new(),
                configs: Vec::new(),
            },
        }
    }

    /// Whether a topic of this name is made on demand: not an internal one that nothing here keeps yet.
    pub fn may_be_made(&self, name: &str) -> bool {
        !is_internal(name) || coordinator::internal_topic(name, &self.config).is_some()
    }

    /// Whether a topic may have this name.
    pub fn is_legal_topic_name(&self, name: &str) -> bool {
        validate_topic_name(name).is_ok()
    }

    /// Resolves once every lane has applied the newest published metadata: what was answered can be acted on.
    pub async fn applied_everywhere(&self) {
        let index = self.metadata.image().index();
        let waits: Vec<_> =
            (0..self.lanes.count()).map(|lane| self.lanes.call(lane, move |lane| lane.applied(index))).collect();
        for wait in waits {
            wait.await;
        }
    }
}
