//! Partitions on their way to other brokers: asked for in pieces, told one by one, waited for if wanted.

use std::collections::BTreeSet;

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::{Output, join};
use crate::client::{Cluster, Error};

/// Partitions asked for in one request: the controller writes each as one record, and takes 10,000 at most.
const AT_ONCE: usize = 1_000;
/// Between two looks at whether they have arrived.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// A partition by the name it has on the command line, `TOPIC:PARTITION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
}

/// Reads `TOPIC:PARTITION`.
pub(super) fn parse_place(text: &str) -> Result<Place, String> {
    let wrong = || format!("`{text}` names no partition; write TOPIC:NUMBER");
    let (topic, partition) = text.rsplit_once(':').ok_or_else(wrong)?;
    let partition = partition.parse().ok().filter(|partition| *partition >= 0).ok_or_else(wrong)?;
    if topic.is_empty() { Err(wrong()) } else { Ok(Place { topic: topic.to_owned(), partition }) }
}

/// What came of one partition.
#[derive(Debug, Serialize)]
pub(super) struct Moved {
    topic: String,
    partition: i32,
    /// Where it shall lie, the preferred leader first; none where a move was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<Vec<i32>>,
    /// `null` if it is on its way.
    error: Option<String>,
}

#[derive(Serialize)]
struct All<'a> {
    partitions: &'a [Moved],
}

/// Asks for every wish, tells what came of each, and with `wait` stays until they have arrived. A refusal makes the exit
/// code that of the first refusal, or 7 when others were taken.
pub(super) async fn ask(
    schema: &'static str,
    wishes: Vec<(String, i32, Option<Vec<i32>>)>,
    wait: bool,
    cluster: &mut Cluster,
    output: Output,
) -> Result<Exit, Failure> {
    let mut told = Vec::with_capacity(wishes.len());
    let mut failure: Option<Error> = None;
    let mut on_the_way = BTreeSet::new();
    for some in wishes.chunks(AT_ONCE) {
        for (topic, partition, result) in cluster.reassign(some).await? {
            let wish = some.iter().find(|(name, index, _)| (name, *index) == (&topic, partition));
            let replicas = wish.and_then(|(_, _, replicas)| replicas.clone());
            let error = result.as_ref().err().map(ToString::to_string);
            match result {
                Ok(()) if replicas.is_some() => drop(on_the_way.insert((topic.clone(), partition))),
                Ok(()) => {}
                Err(error) => drop(failure.get_or_insert(error)),
            }
            told.push(Moved { topic, partition, replicas, error });
        }
    }
    if output.is_json() {
        output.document(schema, &All { partitions: &told })?;
    } else {
        for moved in &told {
            let what = match (&moved.error, &moved.replicas) {
                (Some(error), _) => error.clone(),
                (None, Some(replicas)) => format!("on its way to {}", join(replicas)),
                (None, None) => "given up, back to where it was".to_owned(),
            };
            output.line(&format!("{}:{}: {what}", moved.topic, moved.partition))?;
        }
    }
    let taken = told.iter().any(|moved| moved.error.is_none());
    if wait {
        arrive(on_the_way, cluster).await?;
    } else if !on_the_way.is_empty() {
        note!("`stonelog partition status` tells when they have arrived");
    }
    match failure {
        None => Ok(Exit::Done),
        Some(error) => {
            let mut failure = Failure::from(error);
            failure.exit = if taken { Exit::Partial } else { failure.exit };
            Err(failure)
        }
    }
}

/// Waits until none of these is being moved any more.
async fn arrive(mut on_the_way: BTreeSet<(String, i32)>, cluster: &mut Cluster) -> Result<(), Failure> {
    let bar = super::progress::bar("moved", Some(on_the_way.len() as u64));
    let count = on_the_way.len();
    while !on_the_way.is_empty() {
        let moving = cluster.reassignments().await?;
        let moving: BTreeSet<(String, i32)> = moving.into_iter().map(|one| (one.topic, one.partition)).collect();
        on_the_way.retain(|place| moving.contains(place));
        bar.set_position((count - on_the_way.len()) as u64);
        if !on_the_way.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_by_topic_and_number() {
        let place = |topic: &str, partition| Ok(Place { topic: topic.to_owned(), partition });
        assert_eq!(parse_place("orders:3"), place("orders", 3));
        for wrong in ["orders", "orders:", ":3", "orders:-1", "orders:x"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }
}
