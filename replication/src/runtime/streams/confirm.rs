//! A leader makes sure that it still leads: everybody who could have come to lead says so after it was asked (rule 15).
//!
//! A leader that was deposed and has not heard of it answers what it knew. Who may have deposed it is decided in
//! [`crate::partition::Leader::is_confirmed`]; here the question goes out, and the answers are waited for.

use std::rc::Rc;
use std::time::Duration;

use stonelog_protocol::{LeaderEpoch, TopicPartition};

use crate::partition::Reject;
use crate::runtime::lane::Lane;
use crate::runtime::partition::{Partition, Replica};

impl Lane {
    /// Resolves once this broker is known to have led the partition when this was called, or with why that cannot be
    /// known, at the latest after `within`. Questions that come before the last one went out are answered with it.
    ///
    /// # Errors
    /// [`Reject::NotLeader`] also where nobody said anything in time.
    pub async fn confirm_leadership(self: Rc<Self>, id: TopicPartition, within: Duration) -> Result<(), Reject> {
        let partition = self.leading(id, LeaderEpoch::NONE)?;
        let (probe, leader_epoch) = {
            let mut replica = partition.replica_mut();
            if replica.probe == replica.probe_said {
                replica.probe += 1;
            }
            (replica.probe, replica.leader_epoch)
        };
        partition.replica().mark_streams(id);
        let confirming = confirmed(&partition, probe, leader_epoch);
        tokio::time::timeout(within, confirming).await.unwrap_or(Err(Reject::NotLeader(leader_epoch)))
    }
}

async fn confirmed(partition: &Rc<Partition>, probe: u64, leader_epoch: LeaderEpoch) -> Result<(), Reject> {
    loop {
        let (reported, changed) = (partition.reported.version(), partition.changed().version());
        {
            let Replica { leader, leader_epoch: now, .. } = &*partition.replica();
            match leader {
                Some(leader) if *now == leader_epoch && leader.is_confirmed(probe) => return Ok(()),
                Some(_) if *now == leader_epoch => {}
                _ => return Err(Reject::NotLeader(*now)),
            }
        }
        // The set of those who may lead shrinks with the in-sync set, which is in the progress.
        tokio::select! {
            () = partition.reported.after(reported) => {}
            () = partition.changed().after(changed) => {}
        }
    }
}
