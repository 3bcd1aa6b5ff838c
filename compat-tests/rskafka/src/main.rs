//! rskafka: a small client with fixed, old request shapes (Fetch v4); every codec, no groups and no idempotence.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use compat::{Limits, PARTITIONS, Record, STEP, Suite, check, compare, of_partition, record_set};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};

const VERSION: &str = "0.6.0";
const FETCH_BYTES: i32 = 4 << 20;
const FETCH_WAIT_MS: i32 = 300;
const POLL: Duration = Duration::from_millis(20);
const CODECS: [(&str, Compression); 5] = [
    ("none", Compression::NoCompression),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
const LIMITS: Limits = Limits { no_repeated_header: true, no_null_header: true };

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut suite = Suite::new("rskafka", VERSION);
    let run = Bounded { runtime };
    let bootstrap = suite.bootstrap.split(',').map(str::to_owned).collect();
    let nodes = suite.nodes;
    let client = run.wait(async { Ok(ClientBuilder::new(bootstrap).build().await?) }).expect("a connection");
    let base_ms = compat::base_timestamp_ms();
    let names: Vec<String> = CODECS.iter().map(|(codec, _)| suite.name(codec)).collect();

    suite.step("create_topic", || {
        run.wait(async {
            let controller = client.controller_client()?;
            for name in &names {
                controller.create_topic(name, PARTITIONS, nodes, 30_000).await?;
            }
            Ok(())
        })
    });

    for (index, (codec, compression)) in CODECS.iter().enumerate() {
        let sent = record_set(index as u64, base_ms, LIMITS);
        let (produce_step, consume_step) = (format!("produce.{codec}"), format!("consume.{codec}"));
        suite.step(&produce_step, || run.wait(produce(&client, &names[index], &sent, *compression)));
        if suite.failed(&produce_step, &consume_step) {
            continue;
        }
        suite.step(&consume_step, || {
            let received = run.wait(consume(&client, &names[index], sent.len()))?;
            compare(&sent, &received)
        });
    }

    if !suite.failed("produce.none", "offsets_by_time") {
        suite.step("offsets_by_time", || {
            let sent = record_set(0, base_ms, LIMITS);
            let records = of_partition(&sent, 0);
            run.wait(async {
                let partition = partition_client(&client, &names[0], 0).await?;
                let fifth = at(records[5].timestamp_ms);
                let end = records.len() as i64;
                for (asked, expected) in
                    [(OffsetAt::Earliest, 0), (OffsetAt::Latest, end), (OffsetAt::Timestamp(fifth), 5)]
                {
                    let found = partition.get_offset(asked).await?;
                    check(found == expected, || format!("{asked:?}: offset {found}, not {expected}"))?;
                }
                Ok(())
            })
        });
        suite.step("delete_records", || {
            run.wait(async {
                let partition = partition_client(&client, &names[0], 0).await?;
                partition.delete_records(3, 20_000).await?;
                let earliest = partition.get_offset(OffsetAt::Earliest).await?;
                check(earliest == 3, || format!("earliest offset {earliest}"))
            })
        });
    }

    suite.step("describe.topic", || {
        run.wait(async {
            let topics = client.list_topics().await?;
            let found = topics.iter().find(|topic| topic.name == names[0]);
            check(found.is_some_and(|topic| topic.partitions.len() == PARTITIONS as usize), || format!("{found:?}"))
        })
    });

    suite.step("delete_topic", || {
        run.wait(async {
            let controller = client.controller_client()?;
            for name in &names {
                controller.delete_topic(name, 30_000).await?;
            }
            while client.list_topics().await?.iter().any(|topic| names.contains(&topic.name)) {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        })
    });

    for step in ["group.rebalance", "group.resume", "describe.group"] {
        suite.lacks(step, "the client has no groups");
    }
    suite.lacks("idempotent", "the client has no idempotent producer");
    suite.lacks("describe.configs", "the client has no configuration calls");
    suite.finish()
}

/// Runs one future to its end, but no longer than a step may take: the client itself retries for ever.
struct Bounded {
    runtime: tokio::runtime::Runtime,
}

impl Bounded {
    fn wait<T>(&self, work: impl Future<Output = Result<T, Box<dyn Error>>>) -> Result<T, Box<dyn Error>> {
        self.runtime.block_on(async {
            tokio::time::timeout(STEP, work).await.map_err(|_| format!("not done within {STEP:?}"))?
        })
    }
}

fn at(timestamp_ms: i64) -> DateTime<Utc> {
    Utc.timestamp_millis_opt(timestamp_ms).single().expect("a time in range")
}

async fn partition_client(client: &Client, topic: &str, partition: i32) -> Result<PartitionClient, Box<dyn Error>> {
    Ok(client.partition_client(topic, partition, UnknownTopicHandling::Retry).await?)
}

async fn produce(
    client: &Client,
    topic: &str,
    sent: &[Record],
    compression: Compression,
) -> Result<(), Box<dyn Error>> {
    for index in 0..PARTITIONS {
        let partition = partition_client(client, topic, index).await?;
        // The large record fills a batch by itself; the order stays.
        let mut batches: Vec<Vec<rskafka::record::Record>> = vec![Vec::new()];
        for record in of_partition(sent, index) {
            let large = record.value.as_ref().is_some_and(|value| value.len() > 100_000);
            if large {
                batches.push(Vec::new());
            }
            let headers = record.headers.iter().map(|(name, data)| (name.clone(), data.clone().unwrap_or_default()));
            let one = rskafka::record::Record {
                key: record.key.clone(),
                value: record.value.clone(),
                headers: headers.collect::<BTreeMap<_, _>>(),
                timestamp: at(record.timestamp_ms),
            };
            batches.last_mut().expect("never empty").push(one);
            if large {
                batches.push(Vec::new());
            }
        }
        for batch in batches {
            let count = batch.len();
            let offsets = partition.produce(batch, compression).await?;
            check(offsets.len() == count, || format!("{} offsets for {count} records", offsets.len()))?;
        }
    }
    Ok(())
}

async fn consume(client: &Client, topic: &str, count: usize) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut found = Vec::with_capacity(count);
    for index in 0..PARTITIONS {
        let partition = partition_client(client, topic, index).await?;
        let end = partition.get_offset(OffsetAt::Latest).await?;
        let mut next = 0;
        while next < end {
            let (records, _high_watermark) = partition.fetch_records(next, 1..FETCH_BYTES, FETCH_WAIT_MS).await?;
            for one in records {
                next = one.offset + 1;
                let headers = one.record.headers.into_iter().map(|(name, data)| (name, Some(data)));
                found.push(Record {
                    partition: index,
                    key: one.record.key,
                    value: one.record.value,
                    headers: headers.collect(),
                    timestamp_ms: one.record.timestamp.timestamp_millis(),
                });
            }
        }
    }
    Ok(found)
}
