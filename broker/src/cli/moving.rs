//! Partitions on their way to other brokers: asked for in pieces, told one by one, waited for if wanted.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use stonelog_protocol::ErrorCode;

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

/// Looks at a partition that is not being moved and does not lie where it shall: a controller that has just taken over may
/// not show yet what the one before was asked.
const LOOKS_MAX: u32 = 20;

/// What is asked for together.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Where partitions shall lie, the preferred leader first; `None` gives up what is in progress.
    pub(super) wishes: Vec<(String, i32, Option<Vec<i32>>)>,
    /// What is on its way there already, and is only waited for.
    pub(super) under_way: Vec<(String, i32, Vec<i32>)>,
    /// Every partition shall have as many replicas as before: whoever else asks in between is not undone.
    pub(super) keep_count: bool,
}

impl Moves {
    /// These wishes and nothing else.
    pub(super) fn of(wishes: Vec<(String, i32, Option<Vec<i32>>)>) -> Moves {
        Moves { wishes, ..Moves::default() }
    }
}

/// Asks for every wish, tells what came of each, and with `wait` stays until they have arrived. A refusal makes the exit
/// code that of the first refusal, or 7 when others were taken.
pub(super) async fn ask(
    schema: &'static str,
    moves: Moves,
    wait: bool,
    cluster: &mut Cluster,
    output: Output,
) -> Result<Exit, Failure> {
    let Moves { wishes, under_way, keep_count } = moves;
    let mut told = Vec::with_capacity(wishes.len());
    let mut failure: Option<Error> = None;
    let mut on_the_way: BTreeMap<(String, i32), Vec<i32>> =
        under_way.into_iter().map(|(topic, partition, replicas)| ((topic, partition), replicas)).collect();
    for some in wishes.chunks(AT_ONCE) {
        for (topic, partition, result) in cluster.reassign(some, keep_count).await? {
            let wish = some.iter().find(|(name, index, _)| (name, *index) == (&topic, partition));
            let replicas = wish.and_then(|(_, _, replicas)| replicas.clone());
            let error = result.as_ref().err().map(ToString::to_string);
            match (result, &replicas) {
                (Ok(()), Some(replicas)) => drop(on_the_way.insert((topic.clone(), partition), replicas.clone())),
                (Ok(()), None) => {}
                (Err(error), _) => drop(failure.get_or_insert(error)),
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

/// Waits until all of these lie where they shall and are not being moved any more.
async fn arrive(mut on_the_way: BTreeMap<(String, i32), Vec<i32>>, cluster: &mut Cluster) -> Result<(), Failure> {
    let bar = super::progress::bar("moved", Some(on_the_way.len() as u64));
    let count = on_the_way.len();
    let mut looks = 0;
    while !on_the_way.is_empty() {
        let moving = cluster.reassignments().await?;
        let moving: BTreeSet<(String, i32)> = moving.into_iter().map(|one| (one.topic, one.partition)).collect();
        let settled: BTreeSet<&String> =
            on_the_way.keys().filter(|place| !moving.contains(*place)).map(|(topic, _)| topic).collect();
        let mut lies = BTreeMap::new();
        for topic in settled {
            match cluster.partitions(Some(topic)).await {
                Ok(states) => lies.extend(states.into_iter().map(|one| ((one.topic, one.partition), one.replicas))),
                // Deleted meanwhile: nothing of it lies anywhere.
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let before = on_the_way.len();
        on_the_way.retain(|place, wish| moving.contains(place) || lies.get(place).is_some_and(|at| !is_same(at, wish)));
        bar.set_position((count - on_the_way.len()) as u64);
        let elsewhere = on_the_way.iter().find(|(place, _)| !moving.contains(*place));
        looks = if elsewhere.is_some() && on_the_way.len() == before { looks + 1 } else { 0 };
        if let Some(((topic, partition), wish)) = elsewhere.filter(|_| looks > LOOKS_MAX) {
            let at = lies.get(&(topic.clone(), *partition)).map(|at| join(at)).unwrap_or_default();
            let what = format!("{topic}:{partition} lies on {at} and is not on its way to {} any more", join(wish));
            return Err(Failure::new(Exit::Partial, what).hint("somebody gave that up, or asked for something else"));
        }
        if !on_the_way.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Whether these are the same brokers: who is first may have changed since.
fn is_same(a: &[i32], b: &[i32]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_arrived_on_the_same_brokers_in_whatever_order() {
        assert!(is_same(&[4, 2, 3], &[2, 4, 3]));
        assert!(!is_same(&[2, 4, 3, 1], &[4, 2, 3]) && !is_same(&[2, 3], &[4, 2, 3]));
    }

    #[test]
    fn partitions_are_named_by_topic_and_number() {
        let place = |topic: &str, partition| Ok(Place { topic: topic.to_owned(), partition });
        assert_eq!(parse_place("orders:3"), place("orders", 3));
        for wrong in ["orders", "orders:", ":3", "orders:-1", "orders:x"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }
}
