//! A version that lane-local tasks wait on. Single-threaded: a lane owns it and everybody who waits.
//!
//! Who stops waiting leaves nothing behind: a partition that never changes keeps no waker of a long poll that is over.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Counts publications and wakes whoever waits for the next one.
#[derive(Default)]
pub struct Changed {
    version: Cell<u64>,
    /// By the number of the wait.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_wait: Cell<u64>,
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
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    /// Resolves once there has been a publication after version `seen`.
    pub fn after(&self, seen: u64) -> After<'_> {
        let wait = self.next_wait.get();
        self.next_wait.set(wait + 1);
        After { changed: self, seen, wait }
    }
}

/// The future of [`Changed::after`].
pub struct After<'a> {
    changed: &'a Changed,
    seen: u64,
    wait: u64,
}

impl Future for After<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.changed.version.get() > self.seen {
            return Poll::Ready(());
        }
        self.changed.waiting.borrow_mut().insert(self.wait, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        self.changed.waiting.borrow_mut().remove(&self.wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_pending(after: &mut After<'_>) -> bool {
        std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *after).poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn waiter_wakes_on_the_next_publication_only() {
        let changed = Changed::default();
        changed.publish();
        let seen = changed.version();
        let mut after = changed.after(seen);
        assert!(is_pending(&mut after).await);
        changed.publish();
        after.await;
        changed.after(seen).await;
    }

    #[tokio::test]
    async fn waiter_that_gives_up_leaves_nothing_behind() {
        let changed = Changed::default();
        let mut stays = changed.after(0);
        assert!(is_pending(&mut stays).await);
        for _ in 0..100 {
            assert!(is_pending(&mut changed.after(0)).await);
        }
        assert_eq!(changed.waiting.borrow().len(), 1);
        changed.publish();
        stays.await;
        assert!(changed.waiting.borrow().is_empty());
    }
}
