//! What the network side allows, and the accounts that hold it to that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From a frame's first byte to its last: a client slower than this holds memory for nothing (slowloris).
pub const FRAME_TIME_MAX: Duration = Duration::from_secs(60);
/// A client that takes no byte of its answers for this long is gone.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// Answers waiting on one connection; reading stops there until some are written.
pub const PIPELINE_MAX: usize = 64;
/// What is read at once while a connection waits for a frame. Larger frames get a buffer of their own as their bytes
/// arrive.
pub const READ_BUFFER_BYTES: usize = 16 << 10;

/// Credit that a frame takes before its first byte has arrived. The rest follows its bytes: a client that announces
/// much and sends little holds no more than this.
const CREDIT_AHEAD_BYTES: usize = 4 << 10;

/// Limits and running accounts of all connections.
pub struct Limits {
    /// `socket.request.max.bytes`: the longest frame.
    pub frame_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_max: Duration,
    /// `max.connections`.
    connections_max: usize,
    /// `max.connections.per.ip`.
    connections_per_ip_max: usize,
    /// Bytes of requests being read or worked on, over all connections (`queued.max.request.bytes`).
    credit: Arc<Semaphore>,
    credit_total: usize,
    /// Held by the one frame that may go on without credit, so that half-read frames never wait for each other.
    overdraft: Arc<Semaphore>,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    total: usize,
    per_ip: HashMap<IpAddr, usize>,
}

/// One counted connection; dropping it frees its place.
pub struct Place {
    limits: Arc<Limits>,
    ip: IpAddr,
}

/// Byte credit of one request; dropping it returns the bytes.
pub struct Credit {
    permit: OwnedSemaphorePermit,
    /// Of a frame that goes on without credit.
    overdraft: Option<OwnedSemaphorePermit>,
}

impl Limits {
    /// Limits as configured. `credit_bytes` is at least one longest frame.
    pub fn new(
        frame_bytes_max: usize,
        idle_max: Duration,
        connections_max: usize,
        connections_per_ip_max: usize,
        credit_bytes: usize,
    ) -> Arc<Limits> {
        let credit_total = credit_bytes.max(frame_bytes_max).min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Arc::new(Limits {
            frame_bytes_max,
            idle_max,
            connections_max,
            connections_per_ip_max,
            credit: Arc::new(Semaphore::new(credit_total)),
            credit_total,
            overdraft: Arc::new(Semaphore::new(1)),
            counted: Mutex::default(),
        })
    }

    /// Counts a new connection, unless there are too many.
    pub fn place(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let from_ip = counted.per_ip.get(&ip).copied().unwrap_or(0);
        if counted.total >= self.connections_max || from_ip >= self.connections_per_ip_max {
            return None;
        }
        counted.total += 1;
        counted.per_ip.insert(ip, from_ip + 1);
        Some(Place { limits: Arc::clone(self), ip })
    }

    /// Takes the first credit for a frame, before its body is read; waits while other requests hold it.
    pub async fn credit(&self, frame_bytes: usize) -> Credit {
        let bytes = frame_bytes.min(CREDIT_AHEAD_BYTES).min(self.credit_total) as u32;
        match Arc::clone(&self.credit).acquire_many_owned(bytes).await {
            Ok(permit) => Credit { permit, overdraft: None },
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Takes what `credit` lacks for a frame of which so many bytes are about to be held. When there is none left, one
    /// frame at a time goes on without: all of them hold part of the credit, and none would ever give it back.
    pub async fn raise(&self, credit: &mut Credit, held_bytes: usize) {
        let missing = held_bytes.min(self.credit_total).saturating_sub(credit.permit.num_permits());
        if missing == 0 || credit.overdraft.is_some() {
            return;
        }
        let rest = tokio::select! {
            biased;
            rest = Arc::clone(&self.credit).acquire_many_owned(missing as u32) => rest.map(|rest| (rest, false)),
            rest = Arc::clone(&self.overdraft).acquire_owned() => rest.map(|rest| (rest, true)),
        };
        match rest {
            Ok((rest, false)) => credit.permit.merge(rest),
            Ok((overdraft, true)) => credit.overdraft = Some(overdraft),
            Err(_) => unreachable!("the semaphores are never closed"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counted = self.limits.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.total -= 1;
        match counted.per_ip.get_mut(&self.ip) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counted.per_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_address_and_in_total_and_come_back() {
        let limits = Limits::new(1024, Duration::from_secs(1), 3, 2, 1024);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = limits.place(a).unwrap();
        let _second = limits.place(a).unwrap();
        assert!(limits.place(a).is_none(), "two per address");
        let _third = limits.place(b).unwrap();
        assert!(limits.place(b).is_none(), "three in total");
        drop(first);
        assert!(limits.place(a).is_some());
    }

    #[tokio::test]
    async fn credit_of_a_long_frame_waits_for_the_one_before() {
        let limits = Limits::new(1000, Duration::from_secs(1), 1, 1, 1500);
        let held = limits.credit(1000).await;
        let mut second = std::pin::pin!(limits.credit(1000));
        assert!(is_pending(second.as_mut()).await);
        drop(held);
        second.await;
    }

    #[tokio::test]
    async fn a_long_frame_that_is_only_announced_leaves_credit_to_others() {
        let limits = Limits::new(100 << 20, Duration::from_secs(1), 1, 1, 100 << 20);
        let _announced = limits.credit(100 << 20).await;
        limits.credit(1 << 20).await;
    }

    #[tokio::test]
    async fn of_half_read_frames_without_credit_one_goes_on() {
        let total = 2 * CREDIT_AHEAD_BYTES;
        let limits = Limits::new(total, Duration::from_secs(1), 1, 1, total);
        let (mut first, mut second) = (limits.credit(total).await, limits.credit(total).await);
        limits.raise(&mut first, total).await;
        {
            let mut waiting = std::pin::pin!(limits.raise(&mut second, total));
            assert!(is_pending(waiting.as_mut()).await, "one at a time");
            drop(first);
            waiting.await;
        }
        assert!(second.overdraft.is_none(), "credit was there again");
    }

    async fn is_pending(mut future: std::pin::Pin<&mut impl Future>) -> bool {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }
}
