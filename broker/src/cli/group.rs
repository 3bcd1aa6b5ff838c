//! `stonelog group`: which consumer groups there are, who is in them, how far behind they are.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::Output;
use crate::client::group_admin::{Committed, Group as Described};
use crate::client::offsets::At;
use crate::client::{Cluster, Error};

/// `stonelog group …`
#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// List consumer groups.
    List,
    /// Show members, committed offsets and lag of groups.
    Describe(Describe),
}

#[derive(Debug, Args)]
pub(super) struct Describe {
    /// Ids of the groups.
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
}

#[derive(Serialize)]
struct ListedGroups {
    groups: Vec<ListedGroup>,
}

#[derive(Serialize)]
struct ListedGroup {
    group: String,
    state: String,
    protocol_type: String,
}

#[derive(Serialize)]
struct GroupDescription {
    group: String,
    state: String,
    assignor: String,
    /// Records committed offsets are behind, over all partitions with a commit.
    lag: i64,
    members: Vec<MemberDescription>,
    partitions: Vec<PartitionDescription>,
}

#[derive(Serialize)]
struct MemberDescription {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
    partitions: usize,
}

#[derive(Serialize)]
struct PartitionDescription {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    end_offset: Option<i64>,
    lag: Option<i64>,
    member: Option<String>,
}

pub(super) async fn run(command: Group, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    match command {
        Group::List => list(cluster, output).await,
        Group::Describe(describe) => describe.run(cluster, output).await,
    }
}

async fn list(cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let groups: Vec<ListedGroup> = cluster
        .list_groups()
        .await?
        .into_iter()
        .map(|group| ListedGroup { group: group.id, state: group.state, protocol_type: group.protocol_type })
        .collect();
    if output.is_json() {
        output.document("group.list/1", &ListedGroups { groups })?;
    } else if groups.is_empty() {
        note!("no groups; `stonelog consume TOPIC --group NAME` makes one");
    } else {
        let row = |group: &ListedGroup| vec![group.group.clone(), group.state.clone(), group.protocol_type.clone()];
        output.table(&["group", "state", "protocol"], &[], groups.iter().map(row).collect())?;
    }
    Ok(Exit::Done)
}

impl Describe {
    async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        for (index, id) in self.groups.iter().enumerate() {
            let group = cluster.describe_group(id).await?;
            let committed = cluster.committed(id, None).await?;
            // Before GROUP_ID_NOT_FOUND existed, an unknown group was a dead one without offsets.
            if group.state == "Dead" && committed.is_empty() {
                let failure = Failure::new(Exit::NotFound, format!("group {id} does not exist"));
                return Err(failure.hint("`stonelog group list` shows what exists"));
            }
            let ends = ends(cluster, &group, &committed).await?;
            let description = describe(group, &committed, &ends);
            if output.is_json() {
                output.document("group.describe/1", &description)?;
            } else {
                if index > 0 {
                    output.line("")?;
                }
                print_description(&description, output)?;
            }
        }
        Ok(Exit::Done)
    }
}

/// End offsets of everything the group has committed or is assigned. Topics that are gone have none.
async fn ends(
    cluster: &mut Cluster,
    group: &Described,
    committed: &Committed,
) -> Result<BTreeMap<(String, i32), i64>, Error> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    let assigned = group.members.iter().flat_map(|member| &member.assigned);
    for (topic, partition) in committed.keys().chain(assigned) {
        let partitions = by_topic.entry(topic).or_default();
        if !partitions.contains(partition) {
            partitions.push(*partition);
        }
    }
    let mut ends = BTreeMap::new();
    for (topic, partitions) in by_topic {
        if cluster.topic(topic).await.is_ok() {
            let found = cluster.list_offsets(topic, &partitions, At::End).await?;
            ends.extend(found.into_iter().filter_map(|(index, end)| Some(((topic.to_owned(), index), end?))));
        }
    }
    Ok(ends)
}

fn describe(group: Described, committed: &Committed, ends: &BTreeMap<(String, i32), i64>) -> GroupDescription {
    let mut owners: BTreeMap<(String, i32), Option<String>> = committed.keys().map(|key| (key.clone(), None)).collect();
    for member in &group.members {
        for key in &member.assigned {
            owners.insert(key.clone(), Some(member.id.clone()));
        }
    }
    let partitions: Vec<PartitionDescription> = owners
        .into_iter()
        .map(|(key, member)| {
            let (committed, end_offset) = (committed.get(&key).copied(), ends.get(&key).copied());
            let lag = committed.zip(end_offset).map(|(committed, end)| (end - committed).max(0));
            PartitionDescription { topic: key.0, partition: key.1, committed, end_offset, lag, member }
        })
        .collect();
    GroupDescription {
        group: group.id,
        state: group.state,
        assignor: group.assignor,
        lag: partitions.iter().filter_map(|partition| partition.lag).sum(),
        members: group
            .members
            .into_iter()
            .map(|member| MemberDescription {
                member: member.id,
                instance: member.instance_id,
                client: member.client_id,
                host: member.host,
                partitions: member.assigned.len(),
            })
            .collect(),
        partitions,
    }
}

fn print_description(group: &GroupDescription, output: Output) -> Result<(), Failure> {
    let assignor = if group.assignor.is_empty() { String::new() } else { format!(", assignor {}", group.assignor) };
    let (state, members, lag) = (&group.state, group.members.len(), group.lag);
    let plural = if members == 1 { "" } else { "s" };
    output.line(&format!("{}   {state}, {members} member{plural}{assignor}, lag {lag}", group.group))?;
    if !group.members.is_empty() {
        let rows = group.members.iter().map(|member| {
            let instance = member.instance.clone().unwrap_or_else(|| "-".to_owned());
            let (id, client, host) = (member.member.clone(), member.client.clone(), member.host.clone());
            vec![id, instance, client, host, member.partitions.to_string()]
        });
        output.table(&["member", "instance", "client", "host", "partitions"], &[4], rows.collect())?;
        output.line("")?;
    }
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let rows = group.partitions.iter().map(|partition| {
        let (committed, end) = (number(partition.committed), number(partition.end_offset));
        let member = partition.member.clone().unwrap_or_else(|| "-".to_owned());
        vec![partition.topic.clone(), partition.partition.to_string(), committed, end, number(partition.lag), member]
    });
    let headings = ["topic", "partition", "committed", "end", "lag", "member"];
    output.table(&headings, &[1, 2, 3, 4], rows.collect())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_what_is_committed_and_names_the_owner() {
        let key = |partition| ("t".to_owned(), partition);
        let member = crate::client::group_admin::Member {
            id: "m".to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            host: "/h".to_owned(),
            assigned: vec![key(1), key(2)],
        };
        let group = Described {
            id: "g".to_owned(),
            state: "Stable".to_owned(),
            assignor: "range".to_owned(),
            members: vec![member],
        };
        let committed = Committed::from([(key(0), 5), (key(1), 7)]);
        let ends = BTreeMap::from([(key(0), 8), (key(1), 7), (key(2), 9)]);
        let described = describe(group, &committed, &ends);
        assert_eq!(described.lag, 3);
        let lags: Vec<_> =
            described.partitions.iter().map(|found| (found.partition, found.lag, found.member.is_some())).collect();
        assert_eq!(lags, [(0, Some(3), false), (1, Some(0), true), (2, None, true)]);
    }

    #[test]
    fn programs_find_the_documented_fields() {
        let group =
            Described { id: "g".to_owned(), state: "Empty".to_owned(), assignor: String::new(), members: Vec::new() };
        let committed = Committed::from([(("t".to_owned(), 0), 5)]);
        let json = serde_json::to_value(describe(group, &committed, &BTreeMap::new())).unwrap();
        let expected = serde_json::json!({
            "group": "g", "state": "Empty", "assignor": "", "lag": 0, "members": [],
            "partitions": [
                {"topic": "t", "partition": 0, "committed": 5, "end_offset": null, "lag": null, "member": null}
            ],
        });
        assert_eq!(json, expected);
    }
}
