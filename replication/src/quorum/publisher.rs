//! Hands every new image to whoever watches, in order, with what changed.

use std::sync::{Arc, Mutex, MutexGuard};

use stonelog_protocol::BrokerId;
use tokio::sync::{mpsc, watch};

use crate::metadata::{MetadataDelta, MetadataImage};

/// An image and what led to it.
#[derive(Clone, Debug)]
pub struct Published {
    /// The image.
    pub image: Arc<MetadataImage>,
    /// What differs from the image published before; from the empty one for the first a subscriber gets.
    pub delta: Arc<MetadataDelta>,
}

/// The newest image and its subscribers.
///
/// A subscriber's channel is unbounded because images may not be skipped; it holds two pointers per image, and images
/// come one per committed batch.
#[derive(Debug, Default)]
pub struct Publisher {
    state: Mutex<State>,
    removed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    image: Arc<MetadataImage>,
    subscribers: Vec<mpsc::UnboundedSender<Published>>,
}

impl Publisher {
    /// The newest image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.state().image.clone()
    }

    /// Every image from now on, beginning with the newest one as a whole.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Published> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        let delta = MetadataDelta::between(&MetadataImage::empty(), &state.image);
        let first = Published { image: state.image.clone(), delta: Arc::new(delta) };
        sender.send(first).expect("the receiver is in hand");
        state.subscribers.push(sender);
        receiver
    }

    /// Makes an image the newest one.
    pub(super) fn publish(&self, image: MetadataImage) {
        let mut state = self.state();
        let delta = MetadataDelta::between(&state.image, &image);
        let published = Published { image: Arc::new(image), delta: Arc::new(delta) };
        state.image = published.image.clone();
        state.subscribers.retain(|subscriber| subscriber.send(published.clone()).is_ok());
    }

    /// Nothing is known: whoever publishes from here on begins with no image.
    pub(super) fn begin_anew(&self) {
        if self.image().index() > 0 && !off!(LogPutAside) {
            self.publish(MetadataImage::empty());
        }
    }

    /// Publishes the newest image under another controller, if it differs.
    pub(crate) fn publish_controller(&self, controller: Option<BrokerId>) {
        let image = self.image();
        if image.controller() != controller {
            self.publish(MetadataImage::clone(&image).with_controller(controller));
        }
    }

    /// This node was a voter, and is no member of the quorum any more.
    pub(crate) fn publish_removed(&self) {
        self.removed.send_replace(true);
    }

    /// Returns when this node has been taken out of the quorum.
    pub async fn removed(&self) {
        // The sender is here.
        drop(self.removed.subscribe().wait_for(|removed| *removed).await);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}
