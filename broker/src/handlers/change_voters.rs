//! What AddRaftVoter and RemoveRaftVoter share: a change is asked for again until it is done, of whoever leads by then.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{ClusterId, StrBytes, Uuid};
use stonelog_replication::controller::{
    ChangeVoters, ControllerRequest, ControllerResponse, Reject, VoterProgress, VoterWish,
};

use crate::request::RequestContext;

/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Returns when it is so, or will not be.
pub(super) async fn change(context: &RequestContext, wish: VoterWish, within: Duration) -> Result<(), Reject> {
    let mut is_first = true;
    let changing = async {
        loop {
            let request = ControllerRequest::ChangeVoters(ChangeVoters { wish: wish.clone(), is_first });
            match super::submit(context, request, within).await? {
                ControllerResponse::ChangeVoters(VoterProgress::Done) => return Ok(()),
                _ => is_first = false,
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::time::timeout(within, changing).await.unwrap_or_else(|_| {
        let message = "the change has begun at most, and nobody asks for it any more: ask again, or see how far it came \
                       with DescribeQuorum";
        Err(Reject::new(ErrorCode::RequestTimedOut, message))
    })
}

/// Refuses what is meant for another cluster, and what names no directory.
pub(super) fn check(context: &RequestContext, cluster: Option<&StrBytes>, directory: Uuid) -> Result<(), Reject> {
    let image = context.image();
    let is_other = |named: &StrBytes| image.cluster_id().is_none_or(|own: &ClusterId| *own.0 != **named);
    if cluster.is_some_and(is_other) {
        return Err(Reject::from(ErrorCode::InconsistentClusterId));
    }
    if directory == Uuid::ZERO {
        return Err(Reject::new(ErrorCode::InvalidRequest, "a voter is a node with the id of its directory"));
    }
    Ok(())
}
