//! A leader makes sure that it still leads: enough followers say so after it was asked (rule 15).
//!
//! A leader that was deposed and has not heard of it answers what it knew. Another leader commits nothing without min ISR
//! replicas that have begun its epoch; so once more than the others, replicas − min ISR of them, have followed this one
//! after the question came, nobody else had committed anything when it came.

use std::rc::Rc;
use std::time::Duration;

use stonelog_protocol::{LeaderEpoch, TopicPartition};

use crate::partition::Reject;
use crate::runtime::lane::Lane;
use crate::runtime::partition::{Partition, Replica};

/// Followers that say nothing for so long cannot be asked: then nobody knows who leads.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

impl Lane {
    /// Resolves once this broker is known to have led the partition when this was called, or with why that cannot be
    /// known. Questions that come before the last one went out are answered with it.
    pub async fn confirm_leadership(self: Rc<Self>, id: TopicPartition) -> Result<(), Reject> {
        let partition = self.leading(id, LeaderEpoch::NONE)?;
        let replicas = self.image().partition(id).map_or(1, |registration| registration.settled_count());
        let (probe, leader_epoch) = {
            let mut replica = partition.replica_mut();
            if replica.probe == replica.probe_said {
                replica.probe += 1;
            }
            (replica.probe, replica.leader_epoch)
        };
        let needed = replicas.saturating_sub(partition.progress().min_isr);
        if needed == 0 {
            return Ok(());
        }
        partition.replica().mark_streams(id);
        let confirming = confirmed(&partition, probe, needed, leader_epoch);
        match tokio::time::timeout(CONFIRM_WITHIN, confirming).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(Reject::NotLeader(leader_epoch)),
        }
    }
}

async fn confirmed(
    partition: &Rc<Partition>,
    probe: u64,
    needed: usize,
    leader_epoch: LeaderEpoch,
) -> Result<(), Reject> {
    loop {
        let seen = partition.reported.version();
        {
            let Replica { leader, leader_epoch: now, .. } = &*partition.replica();
            match leader {
                Some(leader) if *now == leader_epoch && leader.confirmed(probe) >= needed => return Ok(()),
                Some(_) if *now == leader_epoch => {}
                _ => return Err(Reject::NotLeader(*now)),
            }
        }
        partition.reported.after(seen).await;
    }
}
