//! One file for each API: from kafka-protocol's structs to our types at the top, and back at the bottom.
//!
//! `dispatch` calls them; they call lanes, the controller and the coordinators.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_replication::controller::{ControllerError, ControllerRequest, ControllerResponse, Reject};

use crate::request::RequestContext;

pub mod accept_loss;
pub mod add_raft_voter;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod api_versions;
mod change_voters;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
mod group_names;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
mod per_partition;
pub mod produce;
pub mod remove_raft_voter;
pub mod sync_group;
mod tightening;
pub mod unregister_broker;
pub mod update_features;

/// Asks the controller and waits until every lane has applied what it decided: the answer can be acted on at once.
async fn submit(
    context: &RequestContext,
    request: ControllerRequest,
    timeout: Duration,
) -> Result<ControllerResponse, Reject> {
    let decided = async {
        let response = context.broker.metadata.submit(request).await.map_err(|error| match error {
            ControllerError::Rejected(reject) => reject,
            error => Reject::new(error.code(), error.to_string()),
        })?;
        context.broker.applied_everywhere().await;
        Ok(response)
    };
    match tokio::time::timeout(timeout, decided).await {
        Ok(decided) => decided,
        Err(_) => Err(Reject::from(ErrorCode::RequestTimedOut)),
    }
}
