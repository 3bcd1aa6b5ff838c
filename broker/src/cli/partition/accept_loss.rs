//! `stonelog partition accept-loss`: a partition that nobody may lead goes on with what one replica has.
//!
//! What is lost cannot be counted when those who had it are gone, so what is told is what each replica that can be asked
//! holds, and which brokers may have had more.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use serde::Serialize;
use stonelog_protocol::own::{HeldRecords, OwnAnswer, OwnKind, OwnRequest, PartitionShown};
use stonelog_protocol::{BrokerId, PartitionIndex};

use super::super::exit::{Exit, Failure};
use super::super::moving::{Place, parse_place};
use super::super::output::{Output, join};
use crate::client::Cluster;
use crate::client::cluster_admin::{BrokerState, PartitionState};

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
    0  the replica leads
    3  no such partition
    8  nothing was changed: the partition is led or has changed, the replica is not there, a broker that had more still
       answers, or nobody confirmed")]
pub(super) struct AcceptLoss {
    /// The partition.
    #[arg(value_name = "TOPIC:PARTITION", value_parser = parse_place)]
    partition: Place,
    /// The broker whose replica shall lead with what it has.
    #[arg(long, value_name = "BROKER")]
    replica: i32,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Go on although a broker that may have had more still answers here. It may go on acknowledging records, which will
    /// be lost too, until it is stopped or hears of this.
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Accepted<'a> {
    topic: &'a str,
    partition: i32,
    leader: i32,
    /// What the new leader has: from here,
    log_start: i64,
    /// to before here. Everything else that was acknowledged is lost.
    log_end: i64,
    /// Replicas that held more, or may have.
    instead_of: Vec<i32>,
    replicas: Vec<Replica>,
    accepted_at_ms: i64,
}

/// A replica, and what it says that it holds.
#[derive(Serialize)]
struct Replica {
    broker: i32,
    /// `in sync`, `eligible`, `led last` or `out of sync`, when the partition stopped.
    was: &'static str,
    log_start: Option<i64>,
    log_end: Option<i64>,
}

impl AcceptLoss {
    /// Looks, tells, asks, does it, tells again.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let Place { topic, partition } = &self.partition;
        self.state(cluster).await?;
        let (shown, held) = self.look(cluster, self.replica).await?;
        let held = held.ok_or_else(|| {
            let what = format!("broker {} does not have its replica of {topic}:{partition} online", self.replica);
            Failure::new(Exit::Precondition, format!("{what}; nothing was changed"))
        })?;
        // After the look: what is told below is of the state that the request will name, or newer, and then it is refused.
        let state = &self.state(cluster).await?;
        let replicas = self.look_at_all(state, cluster).await;
        if !self.force {
            self.refuse_while_they_answer(state, cluster).await?;
        }
        if !output.is_json() || !self.yes {
            tell(state, &replicas, self.replica, held);
        }
        if !self.yes {
            self.confirm()?;
        }
        let request = self.request(OwnKind::Accept(shown), self.replica);
        let OwnAnswer::Accept { instead_of, at } = cluster.call_own(None, &request).await? else {
            unreachable!("the answer's variant is the request's")
        };
        let accepted = Accepted {
            topic,
            partition: *partition,
            leader: self.replica,
            log_start: held.log_start.0,
            log_end: held.log_end.0,
            instead_of: instead_of.into_iter().map(|id| id.0).collect(),
            replicas,
            accepted_at_ms: at.0,
        };
        if output.is_json() {
            output.document("partition.accept-loss/1", &accepted)?;
        } else {
            output.line(&format!(
                "{topic}:{partition}: led by {} with offsets {} to {}; that is on record",
                accepted.leader, accepted.log_start, accepted.log_end
            ))?;
        }
        Ok(Exit::Done)
    }

    fn request(&self, kind: OwnKind, replica: i32) -> OwnRequest {
        let Place { topic, partition } = self.partition.clone();
        OwnRequest { kind, topic, partition: PartitionIndex(partition), replica: BrokerId(replica) }
    }

    /// The partition, if there is a loss to accept.
    async fn state(&self, cluster: &mut Cluster) -> Result<PartitionState, Failure> {
        let Place { topic, partition } = &self.partition;
        let states = cluster.partitions(Some(topic)).await?;
        let state = states
            .into_iter()
            .find(|state| state.partition == *partition)
            .ok_or_else(|| Failure::new(Exit::NotFound, format!("topic {topic} has no partition {partition}")))?;
        let may = check(&state, self.replica);
        may.map_err(|why| Failure::new(Exit::Precondition, format!("{topic}:{partition} {why}; nothing was changed")))?;
        Ok(state)
    }

    /// A broker that nobody of the cluster hears, and that answers here, does not know that it is passed over: where an
    /// acknowledgement needs it alone it goes on giving them.
    async fn refuse_while_they_answer(&self, state: &PartitionState, cluster: &mut Cluster) -> Result<(), Failure> {
        let brokers = cluster.state().await?.brokers;
        let mut there = Vec::new();
        for broker in to_be_stopped(state, &brokers, self.replica) {
            let look = self.request(OwnKind::Look, broker.id);
            if cluster.call_own_at(&broker.address, &look).await.is_ok() {
                there.push(broker.id);
            }
        }
        if there.is_empty() {
            return Ok(());
        }
        let Place { topic, partition } = &self.partition;
        let what = format!(
            "broker {} is out of touch with the cluster and answers here: it may go on acknowledging records of \
             {topic}:{partition}, which would be lost too; nothing was changed",
            join(&there)
        );
        Err(Failure::new(Exit::Precondition, what).hint("stop it, or bring it back into touch; --force goes on"))
    }

    async fn look(
        &self,
        cluster: &mut Cluster,
        replica: i32,
    ) -> Result<(PartitionShown, Option<HeldRecords>), crate::client::Error> {
        match cluster.call_own(Some(replica), &self.request(OwnKind::Look, replica)).await? {
            OwnAnswer::Look { shown, held } => Ok((shown, held)),
            OwnAnswer::Accept { .. } => unreachable!("the answer's variant is the request's"),
        }
    }

    /// What every replica says that can be asked.
    async fn look_at_all(&self, state: &PartitionState, cluster: &mut Cluster) -> Vec<Replica> {
        let mut all = Vec::with_capacity(state.replicas.len());
        for broker in state.replicas.iter().copied() {
            let is_there = !state.offline.contains(&broker);
            let held = if is_there { self.look(cluster, broker).await.ok().and_then(|(_, held)| held) } else { None };
            all.push(Replica {
                broker,
                was: role(state, broker),
                log_start: held.map(|held| held.log_start.0),
                log_end: held.map(|held| held.log_end.0),
            });
        }
        all
    }

    /// Has the partition's name typed; without a terminal, demands `--yes`.
    fn confirm(&self) -> Result<(), Failure> {
        let name = format!("{}:{}", self.partition.topic, self.partition.partition);
        if !std::io::stdin().is_terminal() {
            let what = format!("nobody is there to confirm that records of {name} are lost; nothing was changed");
            return Err(Failure::new(Exit::Precondition, what).hint("add --yes"));
        }
        write!(std::io::stderr(), "Type {name} to accept that: ")?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() == name {
            return Ok(());
        }
        Err(Failure::new(Exit::Precondition, "something else was typed; nothing was changed"))
    }
}

/// Whether there is a loss to accept, and that replica can lead.
fn check(state: &PartitionState, replica: i32) -> Result<(), String> {
    if state.leader >= 0 {
        return Err(format!("is led by broker {}: there is no loss to accept", state.leader));
    }
    if !state.replicas.contains(&replica) {
        return Err(format!("has no replica on broker {replica}; {} hold it", join(&state.replicas)));
    }
    if state.offline.contains(&replica) {
        return Err(format!("cannot be led by broker {replica}: its replica there is offline"));
    }
    Ok(())
}

/// The brokers out of touch that may have had more: each must be stopped for good, or have heard of it, before it is sure
/// that nothing more is acknowledged that will be lost.
fn to_be_stopped<'a>(
    state: &'a PartitionState,
    brokers: &'a [BrokerState],
    replica: i32,
) -> impl Iterator<Item = &'a BrokerState> {
    let may_have_more = move |id: &i32| {
        *id != replica && [&state.isr, &state.elr, &state.last_known_elr].iter().any(|members| members.contains(id))
    };
    brokers.iter().filter(move |broker| broker.fenced && may_have_more(&broker.id))
}

fn role(state: &PartitionState, broker: i32) -> &'static str {
    if state.isr.contains(&broker) {
        "in sync"
    } else if state.elr.contains(&broker) {
        "eligible"
    } else if state.last_known_elr.contains(&broker) {
        "led last"
    } else {
        "out of sync"
    }
}

/// Says on standard error what there is and what will be lost.
fn tell(state: &PartitionState, replicas: &[Replica], replica: i32, held: HeldRecords) {
    note!("{}:{} has no leader. Its replicas:", state.topic, state.partition);
    for one in replicas {
        match (one.log_start, one.log_end) {
            (Some(start), Some(end)) => note!("  broker {}: {}, has offsets {start} to {end}", one.broker, one.was),
            _ => note!("  broker {}: {}, cannot be asked", one.broker, one.was),
        }
    }
    let whole: Vec<i32> = state.isr.iter().chain(&state.elr).copied().filter(|id| *id != replica).collect();
    if !whole.is_empty() {
        note!("Brokers {} have everything: if one of them can be brought back, nothing need be lost.", join(&whole));
        note!("If not, see that they are stopped: one that still runs may go on acknowledging what will be lost.");
    }
    note!(
        "Every acknowledged record of it that is not among offsets {} to {} of broker {replica} will be lost.",
        held.log_start.0,
        held.log_end.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::survey::tests::partition;

    #[test]
    fn there_is_a_loss_only_where_nobody_leads_and_the_replica_is_there() {
        assert!(check(&partition(0, &[1, 2], &[1]), 2).is_err_and(|why| why.contains("led by broker 1")));
        let mut offline = partition(0, &[1, 2, 3], &[]);
        offline.offline = vec![1];
        assert_eq!(check(&offline, 2), Ok(()));
        assert!(check(&offline, 1).is_err_and(|why| why.contains("offline")));
        assert!(check(&offline, 4).is_err_and(|why| why.contains("1,2,3 hold it")));
    }

    #[test]
    fn who_is_out_of_touch_and_may_have_had_more_has_to_be_stopped() {
        let mut state = partition(0, &[1, 2, 3, 4, 5], &[]);
        (state.isr, state.elr, state.last_known_elr) = (vec![1], vec![2, 4], vec![3]);
        let broker = |id: i32| BrokerState { id, address: String::new(), rack: None, fenced: id != 4 };
        let brokers: Vec<BrokerState> = (1..=5).map(broker).collect();
        let ids: Vec<i32> = to_be_stopped(&state, &brokers, 2).map(|broker| broker.id).collect();
        assert_eq!(ids, [1, 3], "2 shall lead, 4 is in touch, 5 was out of sync");
    }

    #[test]
    fn each_replica_is_told_by_the_best_that_is_known_of_it() {
        let mut state = partition(0, &[1, 2, 3, 4], &[]);
        (state.isr, state.elr, state.last_known_elr) = (vec![1], vec![2], vec![3]);
        let roles: Vec<&str> = state.replicas.iter().map(|id| role(&state, *id)).collect();
        assert_eq!(roles, ["in sync", "eligible", "led last", "out of sync"]);
    }
}
