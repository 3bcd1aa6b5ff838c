//! Asks for another home for replicas whose directory was replaced: which ones is decided in [`crate::homes`].
//!
//! From the start on, until nothing is left, which may be long after: a partition that nobody leads keeps its copies. While
//! a broker runs no directory of its own is gone for good, only offline, and new partitions are placed into directories
//! that it has registered.

use std::sync::Arc;
use std::time::Duration;

use super::lanes::{Lanes, spawn_vital};
use super::node::Node;
use crate::controller::{AssignReplicas, AssignedReplica, ControllerRequest, ControllerResponse, MetadataHandle};
use crate::homes::{OwnDirectories, plan_homes};

/// Replicas asked for at a time: an entry has room for more.
const REPLICAS_MAX: usize = 1_000;
/// Before it is asked again for those that were not granted, and for those whose partition had no leader.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Begins to ask, on lane 0.
pub(super) async fn begin(node: &Arc<Node>, lanes: &Lanes, metadata: &MetadataHandle) {
    let (node, metadata) = (Arc::clone(node), metadata.clone());
    lanes
        .call(0, move |_| {
            spawn_vital("the homes of replicas", run(node, metadata));
            std::future::ready(())
        })
        .await;
}

/// Never ends: a partition may be led again only much later, and its replica here is homeless until then.
async fn run(node: Arc<Node>, metadata: MetadataHandle) {
    let mut images = metadata.subscribe();
    let mut refused = None;
    loop {
        let image = metadata.image();
        let replicas = plan_homes(&image, node.broker_id, &own(&node), REPLICAS_MAX);
        let is_all = replicas.len() < REPLICAS_MAX;
        if !replicas.is_empty() {
            let request = AssignReplicas { broker: node.broker_id, broker_epoch: node.broker_epoch, replicas };
            match metadata.submit(ControllerRequest::AssignReplicas(request)).await {
                Ok(ControllerResponse::AssignReplicas(assigned)) => {
                    let first = say(&assigned, refused.as_deref());
                    let granted = assigned.iter().any(|replica| replica.result.is_ok());
                    if granted && !is_all {
                        continue;
                    }
                    refused = first;
                }
                Ok(_) => unreachable!("the answer's variant is the request's"),
                Err(error) => tracing::info!("another home for replicas was not granted yet: {error}"),
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
        // Those that came meanwhile are looked at together; without any there is nothing new to ask.
        let Some(_) = images.recv().await else { return };
        while images.try_recv().is_ok() {}
    }
}

fn own(node: &Node) -> OwnDirectories {
    let (online, offline): (Vec<_>, Vec<_>) =
        node.directories.iter().partition::<Vec<_>, _>(|directory| !directory.is_offline());
    let absent = node.absent.iter();
    OwnDirectories {
        online: online.iter().map(|directory| directory.id).collect(),
        absent: offline.iter().map(|directory| directory.id).chain(absent.clone().filter_map(|it| it.id)).collect(),
        has_unknown: absent.clone().any(|directory| directory.id.is_none()),
    }
}

/// Says what came of it, a refusal once; the first refusal.
fn say(assigned: &[AssignedReplica], said: Option<&str>) -> Option<String> {
    let granted = assigned.iter().filter(|replica| replica.result.is_ok()).count();
    if granted > 0 {
        tracing::warn!(
            "{granted} replicas belonged into a log directory that is gone; they begin anew in another and are fetched \
             from their leaders"
        );
    }
    let first = assigned.iter().find_map(|replica| replica.result.as_ref().err()).map(|reject| reject.message.clone());
    if let Some(why) = first.as_deref().filter(|why| Some(*why) != said) {
        let count = assigned.len() - granted;
        tracing::warn!("{count} replicas stay without a log directory for now, the first because: {why}");
    }
    first
}
