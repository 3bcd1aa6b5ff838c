//! A version that lane-local tasks wait on. Single-threaded: a lane owns it and everybody who waits.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Counts publications and wakes whoever waits for the next one.
#[derive(Default)]
pub struct Changed {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Changed {
    /// The number of publications so far.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Counts one publication and wakes every waiter.
    pub fn publish(&self) {
        self.version.set(self.version.get() + 1);
        // Taken out first: a waker may run code that waits again.
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waker in waiting {
            waker.wake();
        }
    }

    /// Resolves once there has been a publication after version `seen`.
    pub fn after(&self, seen: u64) -> After<'_> {
        After { changed: self, seen }
    }
}

/// The future of [`Changed::after`].
pub struct After<'a> {
    changed: &'a Changed,
    seen: u64,
}

impl Future for After<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.changed.version.get() > self.seen {
            return Poll::Ready(());
        }
        let mut waiting = self.changed.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiter_wakes_on_the_next_publication_only() {
        let changed = Changed::default();
        changed.publish();
        let seen = changed.version();
        let mut after = std::pin::pin!(changed.after(seen));
        let pending = std::future::poll_fn(|context| Poll::Ready(after.as_mut().poll(context).is_pending())).await;
        assert!(pending);
        changed.publish();
        after.await;
        changed.after(seen).await;
    }
}
