//! Topics: create, delete, add partitions, read and change their settings.

use std::time::Duration;

use stonelog_protocol::ErrorCode;
use stonelog_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use stonelog_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use stonelog_protocol::messages::delete_topics_request::DeleteTopicState;
use stonelog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use stonelog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use stonelog_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};

use super::cluster::Cluster;
use super::error::Error;
use super::text::{text, topic_name};

/// `ConfigResource.Type.TOPIC`.
const TOPIC_RESOURCE: i8 = 2;
/// CreateTopics takes -1 for "the broker's default" from this version on (KIP-464).
const DEFAULTS_SINCE: i16 = 4;

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Partitions; `None` for the cluster's default.
    pub partitions: Option<i32>,
    /// Replicas of each; `None` for the cluster's default.
    pub replicas: Option<i16>,
    /// Settings that differ from the defaults.
    pub configs: Vec<(String, String)>,
    /// Only check whether it could be created.
    pub dry_run: bool,
}

/// One setting of a topic and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The key.
    pub name: String,
    /// The value; `None` when it is secret or unset.
    pub value: Option<String>,
    /// Level that sets the value.
    pub source: ConfigSource,
}

/// The level a setting's value comes from (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on a broker, or for all brokers, at run time.
    DynamicBroker,
    /// Set in a broker's file.
    BrokerFile,
    /// Not set anywhere.
    Default,
    /// A level unknown here.
    Other(i8),
}

impl ConfigSource {
    fn read(wire: i8) -> ConfigSource {
        match wire {
            1 => ConfigSource::Topic,
            2 | 3 => ConfigSource::DynamicBroker,
            4 => ConfigSource::BrokerFile,
            5 => ConfigSource::Default,
            other => ConfigSource::Other(other),
        }
    }

    /// A word for tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            ConfigSource::Topic => "topic",
            ConfigSource::DynamicBroker => "broker",
            ConfigSource::BrokerFile => "file",
            ConfigSource::Default => "default",
            ConfigSource::Other(_) => "other",
        }
    }
}

/// A change of one setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Give it this value.
    Set(String, String),
    /// Back to the inherited value.
    Unset(String),
}

impl Cluster {
    /// Creates a topic. When the answer to a try does not come, and the next try finds the topic there, it was created.
    pub async fn create_topic(&mut self, new: &NewTopic) -> Result<(), Error> {
        let mut retry = self.retry();
        let mut may_be_there = false;
        loop {
            let outcome = self.try_create_topic(new).await;
            match &outcome {
                Err(error) if may_be_there && error.code() == Some(ErrorCode::TopicAlreadyExists) => return Ok(()),
                Err(error) => may_be_there |= !new.dry_run && error.may_have_acted(),
                Ok(()) => {}
            }
            if !self.again(&mut retry, &outcome).await {
                return outcome;
            }
        }
    }

    async fn try_create_topic(&mut self, new: &NewTopic) -> Result<(), Error> {
        let timeout_ms = self.timeout_ms();
        let answer = self
            .call_controller(|version| {
                // Before KIP-464 the broker has no word for its own default.
                let unset = if version >= DEFAULTS_SINCE { -1 } else { 1 };
                let configs = new.configs.iter().map(|(name, value)| {
                    CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
                });
                let topic = CreatableTopic::default()
                    .with_name(topic_name(&new.name))
                    .with_num_partitions(new.partitions.unwrap_or(unset))
                    .with_replication_factor(new.replicas.unwrap_or(unset as i16))
                    .with_configs(configs.collect());
                CreateTopicsRequest::default()
                    .with_topics(vec![topic])
                    .with_timeout_ms(timeout_ms)
                    .with_validate_only(new.dry_run)
            })
            .await?;
        let subject = format!("topic {}", new.name);
        let result = answer.topics.first().ok_or_else(|| Error::Missing { subject: subject.clone() })?;
        Error::check(result.error_code, subject, result.error_message.as_deref())
    }

    /// Deletes a topic.
    pub async fn delete_topic(&mut self, name: &str) -> Result<(), Error> {
        let timeout_ms = self.timeout_ms();
        let answer = self
            .call_controller(|version| {
                let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
                // From version 6 on a topic is named by a structure that may hold its id instead (KIP-516).
                if version < 6 {
                    request.with_topic_names(vec![topic_name(name)])
                } else {
                    request.with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(name)))])
                }
            })
            .await?;
        self.forget_topic(name);
        let subject = format!("topic {name}");
        let result = answer.responses.first().ok_or_else(|| Error::Missing { subject: subject.clone() })?;
        Error::check(result.error_code, subject, result.error_message.as_deref())
    }

    /// Raises the number of a topic's partitions to `count`.
    pub async fn grow_topic(&mut self, name: &str, count: i32) -> Result<(), Error> {
        let timeout_ms = self.timeout_ms();
        let answer = self
            .call_controller(|_| {
                let topic = CreatePartitionsTopic::default()
                    .with_name(topic_name(name))
                    .with_count(count)
                    .with_assignments(None);
                CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms)
            })
            .await?;
        self.forget_topic(name);
        let subject = format!("topic {name}");
        let result = answer.results.first().ok_or_else(|| Error::Missing { subject: subject.clone() })?;
        Error::check(result.error_code, subject, result.error_message.as_deref())
    }

    /// Every setting of a topic, sorted by key.
    pub async fn topic_configs(&mut self, name: &str) -> Result<Vec<Config>, Error> {
        let answer = self
            .call_any(|_| {
                let resource = DescribeConfigsResource::default()
                    .with_resource_type(TOPIC_RESOURCE)
                    .with_resource_name(text(name))
                    .with_configuration_keys(None);
                DescribeConfigsRequest::default().with_resources(vec![resource])
            })
            .await?;
        let subject = format!("settings of topic {name}");
        let result = answer.results.into_iter().next().ok_or_else(|| Error::Missing { subject: subject.clone() })?;
        Error::check(result.error_code, subject, result.error_message.as_deref())?;
        let mut configs: Vec<Config> = result
            .configs
            .into_iter()
            .map(|config| Config {
                name: config.name.to_string(),
                value: config.value.map(|value| value.to_string()),
                source: ConfigSource::read(config.config_source),
            })
            .collect();
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(configs)
    }

    /// Changes settings of a topic, all or none.
    pub async fn alter_topic(&mut self, name: &str, changes: &[ConfigChange]) -> Result<(), Error> {
        let answer = self
            .call_controller(|_| {
                let configs = changes.iter().map(|change| match change {
                    ConfigChange::Set(key, value) => AlterableConfig::default()
                        .with_name(text(key))
                        .with_config_operation(0)
                        .with_value(Some(text(value))),
                    ConfigChange::Unset(key) => {
                        AlterableConfig::default().with_name(text(key)).with_config_operation(1).with_value(None)
                    }
                });
                let resource = AlterConfigsResource::default()
                    .with_resource_type(TOPIC_RESOURCE)
                    .with_resource_name(text(name))
                    .with_configs(configs.collect());
                IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
            })
            .await?;
        let subject = format!("settings of topic {name}");
        let result = answer.responses.first().ok_or_else(|| Error::Missing { subject: subject.clone() })?;
        Error::check(result.error_code, subject, result.error_message.as_deref())
    }

    /// How long a broker may take over a change, in milliseconds: a little less than this side waits.
    pub(crate) fn timeout_ms(&self) -> i32 {
        let limit = self.settings().request_timeout;
        let limit = limit.saturating_sub(Duration::from_millis(500)).max(limit / 2);
        i32::try_from(limit.as_millis()).unwrap_or(i32::MAX)
    }
}
