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
/// What a connection's read buffer starts with. Larger frames get a buffer of their own as their bytes arrive.
pub const READ_BUFFER_BYTES: usize = 16 << 10;

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
    _permit: OwnedSemaphorePermit,
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

    /// Takes credit for a frame before its body is read; waits while other requests hold it.
    pub async fn credit(&self, frame_bytes: usize) -> Credit {
        let bytes = frame_bytes.min(self.credit_total) as u32;
        match Arc::clone(&self.credit).acquire_many_owned(bytes).await {
            Ok(permit) => Credit { _permit: permit },
            Err(_) => unreachable!("the semaphore is never closed"),
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
        let pending =
            std::future::poll_fn(|context| std::task::Poll::Ready(second.as_mut().poll(context).is_pending())).await;
        assert!(pending);
        drop(held);
        second.await;
    }
}
