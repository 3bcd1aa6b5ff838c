//! The dialing end: one task for each broker that leads what this lane follows.
//!
//! Where a broker is, its registration says, as of the image at each attempt. A connection to an earlier incarnation is
//! closed when the image has a later one.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use stonelog_protocol::peer::proof::Purpose;
use stonelog_protocol::{BrokerEpoch, BrokerId};
use tokio::time::{Instant, timeout};

use super::bytes::{Arrived, Gathered};
use super::converse::{close_ports, converse, frame_bytes_max, open_ports};
use super::wire::{Port, Side, Wire};
use crate::quorum::link::Target;
use crate::quorum::saying::Saying;
use crate::runtime::changed::Changed;
use crate::runtime::lane::Lane;
use crate::runtime::lanes::spawn_vital;
use crate::runtime::peers::backoff::Backoff;

/// The longest that connecting and proving may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A connection that ended sooner may end as soon again, by what was said on it: the pauses before the next one grow.
const LASTS_MIN: Duration = Duration::from_secs(5);
/// How often an attempt is made while pauses allow it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A broker that is dialed.
#[derive(Default)]
pub(super) struct Dialed {
    /// The connection, and the incarnation it leads to.
    open: RefCell<Option<(Rc<Port>, BrokerEpoch)>>,
    /// Published when the lane begins to follow it.
    pub(super) wanted: Changed,
}

impl Dialed {
    /// The connection, while there is one.
    pub(super) fn port(&self) -> Option<Rc<Port>> {
        self.open.borrow().as_ref().map(|(port, _)| Rc::clone(port)).filter(|port| !port.wire.is_closed())
    }

    /// The incarnation that is registered now: a connection to another one leads nowhere.
    fn check(&self, registered: Option<BrokerEpoch>) {
        if let Some((port, reached)) = &*self.open.borrow()
            && registered != Some(*reached)
        {
            port.wire.close();
        }
    }
}

impl Lane {
    /// This lane follows a broker from now on: it is dialed, unless it is already.
    pub(in crate::runtime) fn dial(self: &Rc<Self>, leader: BrokerId) {
        let streams = self.streams();
        if streams.setup.get().is_none() {
            return;
        }
        let known = streams.dialed.borrow().get(&leader).cloned();
        if let Some(known) = known {
            return known.wanted.publish();
        }
        let dialed = Rc::new(Dialed::default());
        streams.dialed.borrow_mut().insert(leader, Rc::clone(&dialed));
        spawn_vital("a connection to a leader", Rc::clone(self).keep_connected(leader, dialed));
    }

    /// A broker may have another incarnation: a connection to the one before leads nowhere.
    pub(in crate::runtime) fn check_dialed(&self, broker: BrokerId) {
        let dialed = self.streams().dialed.borrow().get(&broker).cloned();
        let Some(dialed) = dialed else { return };
        let epoch = self.image().broker(broker).map(|registered| registered.epoch);
        dialed.check(epoch);
    }

    /// Connects to a leader for as long as this lane follows anything of it.
    async fn keep_connected(self: Rc<Self>, leader: BrokerId, dialed: Rc<Dialed>) {
        let began = Instant::now();
        let (mut backoff, mut saying) = (Backoff::default(), Saying::default());
        loop {
            let seen = dialed.wanted.version();
            if !self.follows(leader) {
                dialed.wanted.after(seen).await;
                continue;
            }
            while !backoff.may_dial(began.elapsed()) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let (connected, lasted) = self.connect(leader, &dialed).await;
            if lasted {
                backoff.on_success();
                saying = Saying::default();
            }
            // An end that came at once is a failure as well: nobody dials without a pause.
            backoff.on_failure(began.elapsed(), variation());
            if let Err(error) = connected {
                let reason = format!("node {leader} leads partitions and cannot be followed: {error}");
                if saying.is_due(began.elapsed(), &reason) {
                    tracing::warn!("{reason}");
                }
            }
        }
    }

    /// One connection from its beginning to its end; whether it lasted.
    async fn connect(self: &Rc<Self>, leader: BrokerId, dialed: &Dialed) -> (io::Result<()>, bool) {
        let image = self.image();
        let setup = self.streams().setup.get().expect("who dials was started");
        let Some(registered) = image.broker(leader) else {
            return (Err(io::Error::other("it is not registered")), false);
        };
        let Some(endpoint) = registered.endpoint(&setup.listener) else {
            return (Err(io::Error::other(format!("it has no listener {}", setup.listener))), false);
        };
        let target = Target { node: leader, directory: None, host: endpoint.host.to_string(), port: endpoint.port };
        let proved = timeout(CONNECT_WITHIN, setup.dialer.connect(&target, Purpose::Streams)).await;
        let (socket, ahead) = match proved {
            Ok(Ok(proved)) => proved,
            Ok(Err(error)) => return (Err(io::Error::other(error)), false),
            Err(_) => return (Err(io::ErrorKind::TimedOut.into()), false),
        };
        let proved_at = Instant::now();
        let wire = Wire::new(leader, Side::Follower, self.lanes().count());
        open_ports(self, &wire).await;
        let port = self.streams().port(wire.id).expect("just opened");
        *dialed.open.borrow_mut() = Some((port, registered.epoch));
        // An image may have come while it was dialed.
        self.check_dialed(leader);
        if !wire.is_closed() {
            self.on_leaders_changed(leader, true);
        }
        let mut first = Gathered::default();
        first.add_presence(self.index() as u32);
        let arrived = Arrived::new(ahead, frame_bytes_max(self));
        let ended = converse(self, &wire, socket, arrived, first).await;
        *dialed.open.borrow_mut() = None;
        close_ports(self, &wire).await;
        self.on_leaders_changed(leader, false);
        (ended, proved_at.elapsed() >= LASTS_MIN)
    }
}

/// So that brokers that lost a leader together do not dial together.
fn variation() -> u8 {
    let mut byte = [0];
    // Without it the pause is merely not varied.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_an_incarnation_that_is_not_registered_any_more_is_closed() {
        let dialed = Dialed::default();
        dialed.check(Some(BrokerEpoch(7)));
        let open = |dialed: &Dialed| {
            let port = Port::new(Wire::new(BrokerId(2), Side::Follower, 1), 0);
            *dialed.open.borrow_mut() = Some((port, BrokerEpoch(7)));
        };
        for (registered, stays) in [(Some(BrokerEpoch(7)), true), (Some(BrokerEpoch(8)), false), (None, false)] {
            open(&dialed);
            dialed.check(registered);
            assert_eq!(dialed.port().is_some(), stays, "{registered:?}");
        }
    }
}
