//! Sends a broker's heartbeats, from a lane: what they say and when is decided in [`crate::presence`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::DirectoryId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::lanes::{Lanes, spawn_vital};
use super::node::Node;
use crate::controller::{BrokerHeartbeat, ControllerRequest, ControllerResponse, HeartbeatState, MetadataHandle};
use crate::metadata::MetadataImage;
use crate::presence::{Presence, PresenceEffect, PresenceEvent};

/// How long an answer is waited for before the heartbeat counts as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long lanes may take to apply an image before it is looked at again.
const APPLY_WITHIN: Duration = Duration::from_secs(1);

type Answer = Pin<Box<dyn Future<Output = Option<HeartbeatState>> + Send>>;

/// A broker's wish to stop, and whether it may.
#[derive(Clone, Debug)]
pub struct Leaving {
    wanted: Arc<watch::Sender<bool>>,
    allowed: Arc<watch::Sender<bool>>,
}

impl Leaving {
    /// Says that the broker wants to stop; returns when nothing is lost by it any more: others lead what it led.
    pub async fn leave(&self) {
        self.wanted.send_replace(true);
        let mut allowed = self.allowed.subscribe();
        // The senders live as long as this.
        let _ = allowed.wait_for(|allowed| *allowed).await;
    }
}

/// Begins to send heartbeats on lane 0.
pub(super) async fn begin(node: &Arc<Node>, lanes: &Lanes, metadata: &MetadataHandle, every: Duration) -> Leaving {
    let leaving = Leaving { wanted: Arc::new(watch::Sender::new(false)), allowed: Arc::new(watch::Sender::new(false)) };
    let beating = Beating {
        node: Arc::clone(node),
        lanes: lanes.clone(),
        metadata: metadata.clone(),
        begun: node.clock.mono().into(),
        presence: Presence::new(node.broker_id, node.broker_epoch, every, Duration::ZERO),
        leaving: leaving.clone(),
        answer: None,
    };
    lanes
        .call(0, move |_| {
            spawn_vital("the heartbeats", beating.run());
            std::future::ready(())
        })
        .await;
    leaving
}

struct Beating {
    node: Arc<Node>,
    lanes: Lanes,
    metadata: MetadataHandle,
    begun: Instant,
    presence: Presence,
    leaving: Leaving,
    answer: Option<Answer>,
}

impl Beating {
    async fn run(mut self) {
        let mut images = self.metadata.subscribe();
        let mut failures = self.node.watch_failures();
        let mut wanted = self.leaving.wanted.subscribe();
        let mut newest: Option<Arc<MetadataImage>> = None;
        let mut settings_changed = false;
        loop {
            // Those that came meanwhile are looked at together.
            while let Ok(published) = images.try_recv() {
                settings_changed |= !published.delta.configs_changed.is_empty();
                newest = Some(published.image);
            }
            if let Some(image) = newest.take() {
                if self.lanes_have(image.index()).await {
                    self.on(PresenceEvent::Applied(&image));
                    if std::mem::take(&mut settings_changed) {
                        self.on(PresenceEvent::SettingsChanged);
                    }
                } else {
                    newest = Some(image);
                }
            }
            let wake = self.presence.wake_at().map(|at| self.begun + at);
            let waiting = self.answer.is_some();
            tokio::select! {
                published = images.recv() => match published {
                    Some(published) => {
                        settings_changed |= !published.delta.configs_changed.is_empty();
                        newest = Some(published.image);
                    }
                    None => return,
                },
                answer = heard(&mut self.answer), if waiting => {
                    self.answer = None;
                    self.on(PresenceEvent::Answered(answer));
                }
                Ok(()) = failures.changed() => {
                    let online: Vec<DirectoryId> = self.node.online().map(|directory| directory.id).collect();
                    self.on(PresenceEvent::Directories(&online));
                }
                Ok(()) = wanted.changed() => self.on(PresenceEvent::WantsToLeave),
                () = sleep_until(wake.unwrap_or(self.begun)), if wake.is_some() => self.on(PresenceEvent::Tick),
                () = tokio::time::sleep(APPLY_WITHIN), if newest.is_some() => {}
            }
        }
    }

    async fn lanes_have(&self, index: u64) -> bool {
        let everywhere = async {
            for lane in 0..self.lanes.count() {
                self.lanes.call(lane, move |lane| lane.applied(index)).await;
            }
        };
        timeout(APPLY_WITHIN, everywhere).await.is_ok()
    }

    fn on(&mut self, event: PresenceEvent<'_>) {
        match self.presence.on_event(event, self.begun.elapsed()) {
            Some(PresenceEffect::Send(beat)) => self.answer = Some(Box::pin(send(self.metadata.clone(), beat))),
            Some(PresenceEffect::MayStop) => drop(self.leaving.allowed.send_replace(true)),
            Some(PresenceEffect::Replaced(epoch)) => self.node.on_superseded(epoch),
            Some(PresenceEffect::Forgotten) => self.node.on_forgotten(),
            None => {}
        }
    }
}

async fn heard(answer: &mut Option<Answer>) -> Option<HeartbeatState> {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

async fn send(metadata: MetadataHandle, beat: BrokerHeartbeat) -> Option<HeartbeatState> {
    match timeout(ANSWER_WITHIN, metadata.submit(ControllerRequest::Heartbeat(beat))).await {
        Ok(Ok(ControllerResponse::Heartbeat(state))) => Some(state),
        Ok(Ok(_)) => unreachable!("the answer's variant is the request's"),
        Ok(Err(error)) => {
            tracing::warn!("the controller has not heard this broker's heartbeat: {error}");
            None
        }
        Err(_) => {
            tracing::warn!("the controller has not answered this broker's heartbeat");
            None
        }
    }
}
