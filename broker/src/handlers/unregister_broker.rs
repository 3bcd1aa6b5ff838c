//! UnregisterBroker (key 64): forgets a broker that will not come back (KIP-631).
//!
//! *Behaviour*: the broker leaves every in-sync and eligible set, and is no broker of the cluster any more. Done by the
//! active controller, whichever broker is asked. *Versions*: 0.

use stonelog_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use stonelog_protocol::{BrokerId, StrBytes};
use stonelog_replication::controller::{ControllerRequest, UnregisterBrokerRequest as Unregister};

use crate::request::RequestContext;

/// Answers an UnregisterBroker request.
pub async fn handle(context: &RequestContext, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let unregister = ControllerRequest::UnregisterBroker(Unregister { id: BrokerId(request.broker_id.0) });
    let timeout = context.broker.config.network.request_timeout;
    match super::submit(context, unregister, timeout).await {
        Ok(_) => UnregisterBrokerResponse::default().with_error_message(None),
        Err(reject) => UnregisterBrokerResponse::default()
            .with_error_code(reject.code.code())
            .with_error_message(Some(StrBytes::from_string(reject.message))),
    }
}
