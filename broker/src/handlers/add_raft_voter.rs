//! AddRaftVoter (key 80): a node that follows the metadata votes from now on (KIP-853).
//!
//! *Behaviour*: done by the active controller, whichever broker is asked: the node is made a voter to be, and votes when it
//! has what the leader has. Answered then, or when the time is up. *Versions*: 0.
//! *Differences from Kafka*: of the addresses one is kept, that of the controllers' listener, or the first. A second
//! change meanwhile is refused with REQUEST_TIMED_OUT, as there.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_protocol::{BrokerId, StrBytes, Uuid};
use stonelog_replication::controller::{Reject, VoterWish};

use super::change_voters;
use crate::request::RequestContext;

/// Answers an AddRaftVoter request.
pub async fn handle(context: &RequestContext, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
    match add(context, request).await {
        Ok(()) => AddRaftVoterResponse::default().with_error_message(None),
        Err(reject) => AddRaftVoterResponse::default()
            .with_error_code(reject.code.code())
            .with_error_message(Some(StrBytes::from_string(reject.message))),
    }
}

async fn add(context: &RequestContext, request: AddRaftVoterRequest) -> Result<(), Reject> {
    let directory = Uuid(*request.voter_directory_id.as_bytes());
    change_voters::check(context, request.cluster_id.as_ref(), directory)?;
    if request.voter_id < 0 {
        return Err(Reject::new(ErrorCode::InvalidRequest, "a voter's id is not negative"));
    }
    let controllers = &context.broker.config.controller_listeners;
    let is_controllers = |name: &StrBytes| controllers.iter().any(|own| own.name.eq_ignore_ascii_case(name));
    let named = request.listeners.iter().find(|listener| is_controllers(&listener.name));
    let missing = || Reject::new(ErrorCode::InvalidRequest, "no address is named that the voter can be reached at");
    let place = named.or(request.listeners.first()).ok_or_else(missing)?;
    let voter = ListedVoter { node: BrokerId(request.voter_id), host: (&*place.host).into(), port: place.port };
    let wish = VoterWish::Add(voter, directory);
    // The leader looks as well; nothing longer is kept, or sent to it, until then.
    if !wish.names_a_place() {
        return Err(missing());
    }
    let within = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    change_voters::change(context, wish, within).await
}
