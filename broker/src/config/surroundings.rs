//! What a configuration depends on besides its own text: environment variables, the host's name, name resolution.
//! Gathered here once, so that loading is a function of its arguments.

use std::net::ToSocketAddrs;
use std::sync::mpsc;
use std::time::Duration;

/// How long one name may take to resolve before nothing is said about it; a start-up must not wait for a dead resolver.
const RESOLVE_WAIT_MAX: Duration = Duration::from_millis(300);

/// The process's surroundings.
pub struct Surroundings<'a> {
    /// The environment, in any order.
    pub variables: Vec<(String, String)>,
    /// The host's own name.
    pub hostname: String,
    /// Whether a host name resolves here; `None` when that cannot be told in time.
    pub resolves: &'a dyn Fn(&str) -> Option<bool>,
}

impl Surroundings<'static> {
    /// The real ones.
    pub fn of_process() -> Surroundings<'static> {
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        Surroundings {
            variables: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            resolves: &resolves,
        }
    }
}

fn resolves(host: &str) -> Option<bool> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let host = host.to_owned();
    std::thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            // Nobody may be waiting any more; then the answer is of no use.
            let _unheard = sender.send((host.as_str(), 0).to_socket_addrs().is_ok());
        })
        .ok()?;
    receiver.recv_timeout(RESOLVE_WAIT_MAX).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_resolves() {
        assert_eq!(resolves("127.0.0.1"), Some(true));
    }

    #[test]
    fn the_process_has_a_host_name() {
        assert!(!Surroundings::of_process().hostname.is_empty());
    }
}
