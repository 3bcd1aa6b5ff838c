//! The final scan: everything in the topic, and what its groups have committed, handed to the checker.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::ProgressBar;

use super::check::Checker;
use super::history::Event;
use super::observe::content_of;
use crate::client::fetcher::Fetcher;
use crate::client::{Cluster, Error};
use stonelog_protocol::ErrorCode;

const POLL_WAIT: Duration = Duration::from_millis(200);

/// Reads every partition of the run's topic from its start to its end, and the committed offsets of its groups.
///
/// Nobody writes or commits meanwhile. `progress` counts records.
pub async fn scan(cluster: &mut Cluster, checker: &mut Checker, progress: &ProgressBar) -> Result<(), Error> {
    let header = checker.header().clone();
    let bounds = bounds_if_any(cluster, &header.topic).await?;
    progress.set_length(bounds.values().map(|(start, end)| (end - start).max(0) as u64).sum());
    let mut fetcher = Fetcher::new();
    for partition in 0..header.partitions {
        let (start, end) = bounds.get(&partition).copied().unwrap_or((0, 0));
        checker.on_scan_start(partition, start, end);
        if start < end {
            fetcher.seek(&header.topic, partition, start);
        }
    }
    while !fetcher.positions().is_empty() {
        for fetched in fetcher.fetch(cluster, POLL_WAIT).await? {
            for record in &fetched.records {
                let content = content_of(&header.run, &header.topic, fetched.partition, record);
                checker.on_scanned(fetched.partition, record.offset, content);
            }
            progress.inc(fetched.records.len() as u64);
        }
        for ((topic, partition), position) in fetcher.positions().clone() {
            if bounds.get(&partition).is_none_or(|(_, end)| position >= *end) {
                fetcher.remove(&topic, partition);
            }
        }
    }
    for group in &header.groups {
        let committed = cluster.committed(group, None).await?;
        let of_topic = committed.iter().filter(|((topic, _), _)| *topic == header.topic);
        let offsets = of_topic.map(|((_, partition), offset)| (*partition, *offset)).collect();
        checker.on_event(&Event::CommitsRead { group: group.clone(), offsets });
    }
    Ok(())
}

/// Where each partition begins and ends. A topic that stays unknown is one that holds nothing: everything in it is lost.
async fn bounds_if_any(cluster: &mut Cluster, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, Error> {
    let mut retry = cluster.retry();
    loop {
        match cluster.bounds(topic).await {
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                if !retry.pause().await {
                    return Ok(BTreeMap::new());
                }
            }
            outcome => return outcome,
        }
    }
}
