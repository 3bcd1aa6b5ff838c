//! What the load generators share: their arguments, one task for each connection, and percentiles.

use std::future::Future;
use std::time::{Duration, Instant};

/// The command line, `--name value` each.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Those of this process.
    pub fn read() -> Arguments {
        Arguments(std::env::args().skip(1).collect())
    }

    /// The value of an argument, or its default.
    pub fn text(&self, name: &str, default: &str) -> String {
        let at = self.0.iter().position(|argument| argument == name);
        at.and_then(|at| self.0.get(at + 1)).cloned().unwrap_or_else(|| default.to_owned())
    }

    /// The value of an argument that is a number. Panics when it is none.
    pub fn number<T: TryFrom<i64>>(&self, name: &str, default: i64) -> T {
        let text = self.text(name, &default.to_string());
        let number = text.parse::<i64>().ok().and_then(|number| T::try_from(number).ok());
        number.unwrap_or_else(|| panic!("{name} wants a number, not `{text}`"))
    }
}

/// Runs one task for each connection, in one thread, until the time that each is told; what they saw, in their order.
#[allow(clippy::disallowed_methods, reason = "a load generator measures time and runs its own tasks")]
pub fn run_connections<S: 'static, F>(count: usize, seconds: u64, connection: impl Fn(usize, Instant) -> F) -> Vec<S>
where
    F: Future<Output = S> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let until = Instant::now() + Duration::from_secs(seconds);
        let tasks: Vec<_> = (0..count).map(|index| tokio::task::spawn_local(connection(index, until))).collect();
        let mut seen = Vec::new();
        for task in tasks {
            seen.push(task.await.expect("a connection's task"));
        }
        seen
    })
}

/// Microseconds since `begun`.
pub fn micros_since(begun: Instant) -> u32 {
    u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Latencies, sorted.
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// Of all connections together, in microseconds.
    pub fn of(all: impl Iterator<Item = u32>) -> Latencies {
        let mut micros: Vec<u32> = all.collect();
        micros.sort_unstable();
        Latencies(micros)
    }

    /// The value that this share of all lies below; 0 of none.
    pub fn percentile(&self, share: f64) -> u32 {
        self.0.get((self.0.len() as f64 * share) as usize).copied().unwrap_or(0)
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }
}
