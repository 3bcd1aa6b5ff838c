//! rdkafka with the librdkafka it bundles: every codec of its default build, groups, offsets, idempotence, admin.

use std::error::Error;
use std::future::Future;
use std::process::Command;
use std::time::Duration;

use compat::{
    Limits, Outcome, PARTITIONS, Record, STEP, Suite, check, compare, of_partition, record_set, until, whole,
};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::util::get_rdkafka_version;

const VERSION: &str = "0.39.0";
const POLL: Duration = Duration::from_millis(200);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut suite = Suite::new("rdkafka", &format!("{VERSION} (librdkafka {})", get_rdkafka_version().1));
    let nodes = suite.nodes;
    let kafka = Kafka { bootstrap: suite.bootstrap.clone(), nodes, runtime };
    let admin: AdminClient<DefaultClientContext> = kafka.config(&[]).create().expect("an admin client");
    let options = AdminOptions::new().operation_timeout(Some(STEP)).request_timeout(Some(STEP));
    let base_ms = compat::base_timestamp_ms();
    let names: Vec<String> = CODECS.iter().map(|codec| suite.name(codec)).collect();
    let [group, grouped, resumed, idempotent] =
        ["group", "grouped", "resume", "idempotent"].map(|suffix| suite.name(suffix));
    let rebalanced = suite.name("rebalance");
    let unused = suite.name("unused");

    suite.step("create_topic", || {
        let sizes =
            names.iter().chain([&idempotent]).map(|name| (name, PARTITIONS)).chain([(&grouped, 4), (&resumed, 1)]);
        let topics: Vec<NewTopic<'_>> = sizes
            .map(|(name, size)| {
                NewTopic::new(name, size, TopicReplication::Fixed(nodes.into())).set("retention.ms", "-1")
            })
            .collect();
        for answer in kafka.wait(async { Ok(admin.create_topics(&topics, &options).await?) })? {
            answer.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        Ok(())
    });

    for (index, codec) in CODECS.iter().enumerate() {
        let sent = record_set(index as u64, base_ms, Limits::default());
        let (produce_step, consume_step) = (format!("produce.{codec}"), format!("consume.{codec}"));
        suite.step(&produce_step, || {
            kafka.produce(&names[index], &sent, &[("compression.type", codec)])?;
            check_stored(&kafka.bootstrap, &names[index], codec)
        });
        if suite.failed(&produce_step, &consume_step) {
            continue;
        }
        suite.step(&consume_step, || compare(&sent, &kafka.consume(&unused, &names[index], sent.len())?));
    }

    if !suite.failed("produce.none", "offsets_by_time") {
        suite.step("offsets_by_time", || {
            let sent = record_set(0, base_ms, Limits::default());
            let records = of_partition(&sent, 0);
            let consumer = kafka.consumer(&unused, &[])?;
            let (low, high) = consumer.fetch_watermarks(&names[0], 0, STEP)?;
            check((low, high) == (0, records.len() as i64), || format!("{low}..{high}"))?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition_offset(&names[0], 0, Offset::Offset(records[5].timestamp_ms))?;
            let answer = consumer.offsets_for_times(asked, STEP)?;
            let found = answer.elements()[0].offset();
            check(found == Offset::Offset(5), || format!("{found:?}"))
        });
    }

    suite.step("idempotent", || {
        let sent = record_set(99, base_ms, Limits::default());
        kafka.produce(&idempotent, &sent, &[("enable.idempotence", "true")])?;
        compare(&sent, &kafka.consume(&unused, &idempotent, sent.len())?)
    });

    suite.step("group.rebalance", || kafka.rebalance(&rebalanced, &grouped));

    suite.step("group.resume", || kafka.resume(&group, &resumed, base_ms));

    suite.step("describe.group", || {
        let consumer = kafka.consumer(&group, &[])?;
        consumer.subscribe(&[&resumed])?;
        until("the member owns the partition", || {
            kafka.poll(&consumer)?;
            Ok(consumer.assignment()?.count() == 1)
        })?;
        until("the group is stable", || {
            kafka.poll(&consumer)?;
            let list = consumer.fetch_group_list(Some(&group), STEP)?;
            let found = list.groups().iter().find(|entry| entry.name() == group).ok_or("not listed")?;
            Ok(found.state() == "Stable" && found.members().len() == 1 && found.protocol_type() == "consumer")
        })
    });

    suite.step("delete_group", || {
        until("the group is deleted", || {
            let answers = kafka.wait(async { Ok(admin.delete_groups(&[&group], &options).await?) })?;
            Ok(answers.iter().all(Result::is_ok))
        })
    });

    suite.step("describe.topic", || {
        whole()?;
        let metadata = admin.inner().fetch_metadata(Some(&names[0]), STEP)?;
        check(metadata.brokers().len() == nodes as usize, || format!("{} brokers", metadata.brokers().len()))?;
        let found = metadata.topics()[0].partitions().len();
        check(found == PARTITIONS as usize, || format!("{found} partitions"))
    });

    suite.step("describe.configs", || {
        let resource = ResourceSpecifier::Topic(&names[0]);
        let value = |key: &str| -> Result<Option<String>, Box<dyn Error>> {
            let mut answers = kafka.wait(async { Ok(admin.describe_configs([&resource], &options).await?) })?;
            let described = answers.pop().ok_or("no answer")??;
            Ok(described.get(key).and_then(|entry| entry.value.clone()))
        };
        for (key, expected) in [("retention.ms", "-1"), ("max.message.bytes", "1048588")] {
            let found = value(key)?;
            check(found.as_deref() == Some(expected), || format!("{key}: {found:?}"))?;
        }
        // AlterConfigs replaces the whole set.
        let change = AlterConfig::new(resource).set("segment.bytes", "1048576");
        for answer in kafka.wait(async { Ok(admin.alter_configs([&change], &options).await?) })? {
            answer.map_err(|(_, code)| code.to_string())?;
        }
        until("the altered value", || Ok(value("segment.bytes")?.as_deref() == Some("1048576")))?;
        let found = value("retention.ms")?;
        check(found.as_deref() != Some("-1"), || "AlterConfigs kept a key that was not named".to_owned())
    });

    suite.step("delete_records", || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&names[0], 0, Offset::Offset(3))?;
        let answer = kafka.wait(async { Ok(admin.delete_records(&asked, &options).await?) })?;
        let element = &answer.elements()[0];
        element.error()?;
        let (low, _) = kafka.consumer(&unused, &[])?.fetch_watermarks(&names[0], 0, STEP)?;
        check(low == 3, || format!("low watermark {low}"))
    });

    suite.step("create_partitions", || {
        let wanted = PARTITIONS as usize + 2;
        let request = NewPartitions::new(&names[1], wanted);
        for answer in kafka.wait(async { Ok(admin.create_partitions([&request], &options).await?) })? {
            answer.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        until("the added partitions", || {
            let metadata = admin.inner().fetch_metadata(Some(&names[1]), STEP)?;
            Ok(metadata.topics()[0].partitions().len() == wanted)
        })
    });

    suite.step("delete_topic", || {
        let doomed: Vec<&str> = names.iter().chain([&idempotent, &grouped, &resumed]).map(String::as_str).collect();
        for answer in kafka.wait(async { Ok(admin.delete_topics(&doomed, &options).await?) })? {
            answer.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        until("the topics are gone", || {
            let metadata = admin.inner().fetch_metadata(None, STEP)?;
            Ok(!metadata.topics().iter().any(|topic| doomed.contains(&topic.name())))
        })
    });
    suite.finish()
}

/// librdkafka sends uncompressed when it misreads the advertised versions, so the stored batches themselves are asked.
fn check_stored(bootstrap: &str, topic: &str, codec: &str) -> Outcome {
    let Ok(script) = std::env::var("COMPAT_WIRE") else { return Ok(()) };
    let answer = Command::new("python3").args([script.as_str(), bootstrap, topic, &PARTITIONS.to_string()]).output()?;
    let stored = String::from_utf8_lossy(&answer.stdout).into_owned();
    let found: Vec<&str> = stored.split_whitespace().collect();
    // A batch that compression would make larger is sent as it is: the large record.
    let fits = found.contains(&codec) && found.iter().all(|one| [codec, "none"].contains(one));
    check(fits, || format!("asked for {codec}, stored as {found:?} {}", String::from_utf8_lossy(&answer.stderr)))
}

/// Makes clients for one cluster and bounds their waits.
struct Kafka {
    bootstrap: String,
    nodes: i16,
    runtime: tokio::runtime::Runtime,
}

impl Kafka {
    fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        settings.iter().for_each(|(key, value)| _ = config.set(*key, *value));
        config
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Box<dyn Error>>>) -> Result<T, Box<dyn Error>> {
        self.runtime.block_on(async {
            tokio::time::timeout(STEP, work).await.map_err(|_| format!("not done within {STEP:?}"))?
        })
    }

    fn produce(&self, topic: &str, sent: &[Record], settings: &[(&str, &str)]) -> Outcome {
        let mut config =
            self.config(&[("message.max.bytes", "1048588"), ("linger.ms", "20"), ("message.timeout.ms", "30000")]);
        config.set("enable.idempotence", (self.nodes > 1).to_string());
        settings.iter().for_each(|(key, value)| _ = config.set(*key, *value));
        let producer: FutureProducer = config.create()?;
        let mut answers = Vec::with_capacity(sent.len());
        for record in sent {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (name, data)| {
                headers.insert(Header { key: name, value: data.as_ref() })
            });
            let mut one =
                FutureRecord::to(topic).partition(record.partition).timestamp(record.timestamp_ms).headers(headers);
            one.key = record.key.as_ref();
            one.payload = record.value.as_ref();
            answers.push(producer.send_result(one).map_err(|(problem, _)| problem)?);
        }
        producer.flush(STEP)?;
        self.wait(async {
            for answer in answers {
                answer.await?.map_err(|(problem, _)| problem)?;
            }
            Ok(())
        })
    }

    fn consumer(&self, group: &str, settings: &[(&str, &str)]) -> Result<BaseConsumer, Box<dyn Error>> {
        let mut config = self.config(&[
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "300"),
        ]);
        settings.iter().for_each(|(key, value)| _ = config.set(*key, *value));
        Ok(config.create()?)
    }

    /// Waits for a short time; at most one record comes back.
    fn poll(&self, consumer: &BaseConsumer) -> Result<Option<Record>, Box<dyn Error>> {
        let message = match consumer.poll(POLL) {
            Some(Ok(message)) => message,
            // News of a connection: the library goes on by itself.
            Some(Err(problem)) if self.nodes > 1 && problem.rdkafka_error_code().is_some_and(is_of_a_connection) => {
                return Ok(None);
            }
            Some(Err(problem)) => return Err(problem.into()),
            None => return Ok(None),
        };
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Ok(Some(Record {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        }))
    }

    fn read(&self, consumer: &BaseConsumer, count: usize) -> Result<Vec<Record>, Box<dyn Error>> {
        let mut found = Vec::with_capacity(count);
        until("all records", || {
            found.extend(self.poll(consumer)?);
            Ok(found.len() >= count)
        })?;
        Ok(found)
    }

    fn consume(&self, group: &str, topic: &str, count: usize) -> Result<Vec<Record>, Box<dyn Error>> {
        let consumer = self.consumer(group, &[])?;
        let mut assigned = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assigned.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assigned)?;
        let found = self.read(&consumer, count)?;
        let mut ends = 0;
        for partition in 0..PARTITIONS {
            ends += consumer.fetch_watermarks(topic, partition, STEP)?.1;
        }
        check(ends == count as i64, || format!("the ends add up to {ends}, not {count}"))?;
        Ok(found)
    }

    /// Two members share four partitions; when one leaves the other gets all of them.
    fn rebalance(&self, group: &str, topic: &str) -> Outcome {
        let (one, two) = (self.consumer(group, &[])?, self.consumer(group, &[])?);
        one.subscribe(&[topic])?;
        two.subscribe(&[topic])?;
        until("both members own two partitions", || {
            self.poll(&one)?;
            self.poll(&two)?;
            Ok(one.assignment()?.count() == 2 && two.assignment()?.count() == 2)
        })?;
        // Dropping a consumer leaves the group.
        drop(two);
        until("the remaining member owns all four", || {
            self.poll(&one)?;
            Ok(one.assignment()?.count() == 4)
        })
    }

    fn resume(&self, group: &str, topic: &str, base_ms: i64) -> Outcome {
        let sent: Vec<Record> = (0..100)
            .map(|index| Record {
                partition: 0,
                key: None,
                value: Some(index.to_string().into_bytes()),
                headers: vec![],
                timestamp_ms: base_ms + index,
            })
            .collect();
        self.produce(topic, &sent, &[])?;
        let first = self.consumer(group, &[])?;
        first.subscribe(&[topic])?;
        self.read(&first, 40)?;
        let mut position = TopicPartitionList::new();
        position.add_partition_offset(topic, 0, Offset::Offset(40))?;
        first.commit(&position, CommitMode::Sync)?;
        drop(first);
        let second = self.consumer(group, &[])?;
        second.subscribe(&[topic])?;
        let rest = self.read(&second, 60)?;
        check(rest == sent[40..], || format!("resumed at {:?}", rest.first()))?;
        let committed = second.committed(STEP)?;
        let found = committed.elements()[0].offset();
        check(found == Offset::Offset(40), || format!("committed {found:?}"))
    }
}

/// Whether an error says no more than that a connection was lost, or that there is none now.
fn is_of_a_connection(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
}
