//! A cluster as a client sees it: connections by broker, metadata, and routing to leaders, controller and coordinators.
//!
//! Everything that can be tried again is tried again until [`Settings::retry_for`] has passed; afterwards the last
//! error is the answer. Coordinator connections are kept apart from data connections, so that a long poll never delays
//! a heartbeat.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use stonelog_protocol::messages::metadata_request::MetadataRequestTopic;
use stonelog_protocol::messages::{FindCoordinatorRequest, MetadataRequest};
use stonelog_protocol::own::{OwnAnswer, OwnRequest};
use stonelog_protocol::{ErrorCode, Request};

use super::connection::Connection;
use super::error::Error;
use super::metadata::{Broker, Snapshot, Topic};
use super::retry::Retry;
use super::text::{text, topic_name};

/// How a client reaches its cluster and how patient it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to start from, `host:port`.
    pub brokers: Vec<String>,
    /// Name told to the brokers, for their logs.
    pub client_id: String,
    /// Limit of one request or connection attempt.
    pub request_timeout: Duration,
    /// How long one operation is tried again.
    pub retry_for: Duration,
    /// Whether a cluster that cannot be connected to is tried again too: a checker outlives restarts, a person at a
    /// terminal wants to hear at once that nothing listens there.
    pub retry_unreachable: bool,
}

/// Which connection of a broker to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Data(i32),
    Coordinator(i32),
    Bootstrap,
}

/// Connections and metadata of one cluster; one owner, one request at a time.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    connections: HashMap<Lane, Connection>,
    brokers: Vec<Broker>,
    topics: HashMap<String, Topic>,
    coordinators: HashMap<String, i32>,
}

impl Cluster {
    /// A client that has not connected yet.
    pub fn new(settings: Settings) -> Cluster {
        Cluster {
            settings,
            connections: HashMap::new(),
            brokers: Vec::new(),
            topics: HashMap::new(),
            coordinators: HashMap::new(),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A series of tries as patient as the settings say.
    pub(crate) fn retry(&self) -> Retry {
        Retry::within(self.settings.retry_for)
    }

    /// Whether `outcome` is an error worth another try; pauses before saying so.
    pub(crate) async fn again<T>(&self, retry: &mut Retry, outcome: &Result<T, Error>) -> bool {
        match outcome {
            Err(error) if error.is_retriable() && !self.is_out_of_reach(error) => retry.pause().await,
            _ => false,
        }
    }

    /// Whether `error` says that there is nobody to talk to, and nobody is to be waited for.
    ///
    /// One broker of several may be gone; others will lead what it led.
    pub(crate) fn is_out_of_reach(&self, error: &Error) -> bool {
        let Error::Unreachable { advertised_by, .. } = error else { return false };
        !self.settings.retry_unreachable && (advertised_by.is_none() || self.brokers.len() < 2)
    }

    /// Describes one topic, from memory when it was described before. An unknown topic is an error at once.
    pub async fn topic(&mut self, name: &str) -> Result<Topic, Error> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(topic.clone());
        }
        let mut retry = self.retry();
        loop {
            let outcome = self.describe_topic(name).await;
            let unknown = matches!(&outcome, Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition));
            if unknown || !self.again(&mut retry, &outcome).await {
                return outcome;
            }
        }
    }

    /// Describes all topics, sorted by name, with the brokers, the cluster id and the controller.
    pub(crate) async fn describe_all(&mut self) -> Result<Snapshot, Error> {
        let mut retry = self.retry();
        loop {
            let outcome = self.metadata(None).await;
            if !self.again(&mut retry, &outcome).await {
                return outcome;
            }
        }
    }

    /// Forgets what is known of a topic: its leaders may have moved.
    pub fn forget_topic(&mut self, name: &str) {
        self.topics.remove(name);
    }

    /// One try to describe one topic.
    async fn describe_topic(&mut self, name: &str) -> Result<Topic, Error> {
        let mut snapshot = self.metadata(Some(&[name])).await?;
        if let Some((_, error)) = snapshot.failed.pop() {
            return Err(error);
        }
        let topic = snapshot.topics.into_iter().find(|topic| topic.name == name);
        topic.ok_or_else(|| Error::Missing { subject: format!("topic {name}") })
    }

    /// One try to describe `names`, or everything. What comes back is remembered.
    async fn metadata(&mut self, names: Option<&[&str]>) -> Result<Snapshot, Error> {
        let response = self
            .call_any(|version| {
                let wanted = names.map(|names| {
                    names
                        .iter()
                        .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
                        .collect::<Vec<_>>()
                });
                // In version 0 an empty list means all topics; auto-creation can be declined from version 4 on.
                let wanted = if version == 0 { Some(wanted.unwrap_or_default()) } else { wanted };
                MetadataRequest::default().with_topics(wanted).with_allow_auto_topic_creation(version < 4)
            })
            .await?;
        let snapshot = Snapshot::read(response);
        self.brokers.clone_from(&snapshot.brokers);
        for topic in &snapshot.topics {
            self.topics.insert(topic.name.clone(), topic.clone());
        }
        Ok(snapshot)
    }

    /// The broker that leads a partition, asking for metadata when it is not known.
    pub async fn leader(&mut self, topic: &str, partition: i32) -> Result<i32, Error> {
        let subject = || format!("partition {topic}-{partition}");
        let known = self.topics.get(topic).and_then(|topic| topic.partition(partition)).map(|found| found.leader);
        let leader = match known {
            Some(leader) if leader >= 0 => leader,
            _ => {
                let found = self.describe_topic(topic).await?;
                let found = found.partition(partition).map(|found| found.leader);
                found.ok_or_else(|| Error::Refused {
                    subject: subject(),
                    code: ErrorCode::UnknownTopicOrPartition,
                    message: None,
                })?
            }
        };
        if leader < 0 {
            return Err(Error::Refused { subject: subject(), code: ErrorCode::LeaderNotAvailable, message: None });
        }
        Ok(leader)
    }

    /// One try to ask any broker.
    pub(crate) async fn call_any<R: Request>(&mut self, build: impl Fn(i16) -> R) -> Result<R::Response, Error> {
        let open = self.connections.iter().find(|(_, connection)| connection.is_usable()).map(|(lane, _)| *lane);
        let lane = match open {
            Some(lane) => lane,
            None => self.open_any().await?,
        };
        self.call(lane, i16::MAX, build).await
    }

    /// One try to ask the active controller, which knows first what was changed; where brokers do not tell who that is,
    /// whichever one they name instead.
    pub(crate) async fn call_controller<R: Request>(&mut self, build: impl Fn(i16) -> R) -> Result<R::Response, Error> {
        let named = self.metadata(Some(&[])).await?.controller;
        let controller = self.try_state().await.map_or(named, |state| state.controller);
        if self.brokers.iter().any(|broker| broker.id == controller) {
            self.call_broker(controller, i16::MAX, build).await
        } else {
            self.call_any(build).await
        }
    }

    /// One try to ask a broker over its data connection, in at most version `ceiling`.
    pub(crate) async fn call_broker<R: Request>(
        &mut self,
        broker: i32,
        ceiling: i16,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Error> {
        self.call(Lane::Data(broker), ceiling, build).await
    }

    /// One try to ask a broker a request of our own, or with `None` any broker.
    pub(crate) async fn call_own(&mut self, broker: Option<i32>, request: &OwnRequest) -> Result<OwnAnswer, Error> {
        let limit = self.settings.request_timeout;
        let lane = broker.map_or(Lane::Bootstrap, Lane::Data);
        self.connection(lane).await?.call_own(request, limit).await
    }

    /// One try to ask whoever is at an address: a broker that is out of touch with the cluster may be reached from here.
    pub(crate) async fn call_own_at(&self, address: &str, request: &OwnRequest) -> Result<OwnAnswer, Error> {
        self.dial(address).await?.call_own(request, self.settings.request_timeout).await
    }

    /// Sends to a broker over its data connection and awaits nothing.
    pub(crate) async fn send_broker<R: Request>(
        &mut self,
        broker: i32,
        ceiling: i16,
        build: impl FnOnce(i16) -> R,
    ) -> Result<(), Error> {
        let limit = self.settings.request_timeout;
        let connection = self.connection(Lane::Data(broker)).await?;
        let version = connection.version_of::<R>(ceiling)?;
        connection.send(&build(version), version, limit).await
    }

    /// One try to ask the coordinator of a group; on failure the coordinator is looked up again next time.
    pub(crate) async fn call_coordinator<R: Request>(
        &mut self,
        group: &str,
        limit: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Error> {
        let coordinator = match self.coordinators.get(group) {
            Some(coordinator) => *coordinator,
            None => self.find_coordinator(group).await?,
        };
        let outcome = self.call_within(Lane::Coordinator(coordinator), i16::MAX, limit, build).await;
        if outcome.is_err() {
            self.forget_coordinator(group);
        }
        outcome
    }

    /// Forgets where a group's coordinator is.
    pub(crate) fn forget_coordinator(&mut self, group: &str) {
        self.coordinators.remove(group);
    }

    async fn find_coordinator(&mut self, group: &str) -> Result<i32, Error> {
        let answer = self
            .call_any(|version| {
                let request = FindCoordinatorRequest::default();
                // From version 4 on the request carries a list (KIP-699).
                if version < 4 {
                    request.with_key(text(group))
                } else {
                    request.with_coordinator_keys(vec![text(group)])
                }
            })
            .await?;
        let subject = format!("coordinator of group {group}");
        let (code, message, id, host, port) = match answer.coordinators.into_iter().next() {
            Some(found) => (found.error_code, found.error_message, found.node_id, found.host, found.port),
            None => (answer.error_code, answer.error_message, answer.node_id, answer.host, answer.port),
        };
        Error::check(code, subject, message.as_ref().map(|message| message.as_str()))?;
        let broker = Broker { id: id.0, host: host.to_string(), port };
        if !self.brokers.iter().any(|known| known.id == broker.id) {
            self.brokers.push(broker);
        }
        self.coordinators.insert(group.to_owned(), id.0);
        Ok(id.0)
    }

    async fn call<R: Request>(
        &mut self,
        lane: Lane,
        ceiling: i16,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Error> {
        self.call_within(lane, ceiling, self.settings.request_timeout, build).await
    }

    async fn call_within<R: Request>(
        &mut self,
        lane: Lane,
        ceiling: i16,
        limit: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Error> {
        let connection = self.connection(lane).await?;
        let version = connection.version_of::<R>(ceiling)?;
        connection.call(&build(version), version, limit).await
    }

    /// The connection of a lane, dialled again when the last one is not usable.
    async fn connection(&mut self, lane: Lane) -> Result<&mut Connection, Error> {
        let usable = self.connections.get(&lane).is_some_and(Connection::is_usable);
        if !usable {
            self.connections.remove(&lane);
            let connection = match lane {
                Lane::Bootstrap => self.dial_any().await?,
                Lane::Data(id) | Lane::Coordinator(id) => self.dial_broker(id).await?,
            };
            self.connections.insert(lane, connection);
        }
        self.connections.get_mut(&lane).ok_or_else(|| Error::Missing { subject: "connection".to_owned() })
    }

    async fn open_any(&mut self) -> Result<Lane, Error> {
        self.connection(Lane::Bootstrap).await?;
        Ok(Lane::Bootstrap)
    }

    async fn dial_broker(&self, id: i32) -> Result<Connection, Error> {
        let address = self.brokers.iter().find(|broker| broker.id == id).map(Broker::address);
        let address = address.ok_or_else(|| Error::Refused {
            subject: format!("broker {id}"),
            code: ErrorCode::LeaderNotAvailable,
            message: Some("the cluster does not list this broker".to_owned()),
        })?;
        self.dial(&address).await.map_err(|error| match error {
            Error::Unreachable { broker, cause, .. } => Error::Unreachable { broker, advertised_by: Some(id), cause },
            error => error,
        })
    }

    /// Dials the given brokers in turn, then those the cluster has named.
    async fn dial_any(&self) -> Result<Connection, Error> {
        let mut addresses = self.settings.brokers.clone();
        addresses.extend(self.brokers.iter().map(Broker::address));
        addresses.dedup();
        let mut last = None;
        for address in &addresses {
            match self.dial(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Unreachable {
            broker: "no broker".to_owned(),
            advertised_by: None,
            cause: io::Error::new(io::ErrorKind::InvalidInput, "none was given").into(),
        }))
    }

    async fn dial(&self, address: &str) -> Result<Connection, Error> {
        Connection::open(address, &self.settings.client_id, self.settings.request_timeout).await
    }
}
