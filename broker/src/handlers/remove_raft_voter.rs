//! RemoveRaftVoter (key 81): a voter does not vote any more, and is no member of the quorum (KIP-853).
//!
//! *Behaviour*: done by the active controller, whichever broker is asked; one that is to be removed itself has another one
//! lead first. Refused where those that are left, and in touch, could not decide. *Versions*: 0.
//! *Differences from Kafka*: a voter that the leader's `controller.quorum.voters` lists is not removed, for it would be
//! added again. A node that was removed ends its process, and follows when it is started again.

use stonelog_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};
use stonelog_protocol::{BrokerId, StrBytes, Uuid};
use stonelog_replication::controller::{Reject, VoterWish};

use super::change_voters;
use crate::request::RequestContext;

/// Answers a RemoveRaftVoter request.
pub async fn handle(context: &RequestContext, request: RemoveRaftVoterRequest) -> RemoveRaftVoterResponse {
    match remove(context, request).await {
        Ok(()) => RemoveRaftVoterResponse::default().with_error_message(None),
        Err(reject) => RemoveRaftVoterResponse::default()
            .with_error_code(reject.code.code())
            .with_error_message(Some(StrBytes::from_string(reject.message))),
    }
}

async fn remove(context: &RequestContext, request: RemoveRaftVoterRequest) -> Result<(), Reject> {
    let directory = Uuid(*request.voter_directory_id.as_bytes());
    change_voters::check(context, request.cluster_id.as_ref(), directory)?;
    let wish = VoterWish::Remove(BrokerId(request.voter_id), directory);
    change_voters::change(context, wish, context.broker.config.network.request_timeout).await
}
