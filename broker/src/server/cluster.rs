//! What a node of several is started with: sockets for the other nodes, the cluster's secret, the voters.

use std::net::ToSocketAddrs as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_replication::controller::duties::DutySettings;
use stonelog_replication::controller::member::ClusterOptions;
use stonelog_replication::runtime::peers::{ClusterSecret, HANDED_OVER_LEN_MAX};
use tokio::sync::mpsc;

use super::listen;
use crate::config::BrokerConfig;
use crate::network::listener::Bound;

/// No secret is longer; who names another file by mistake is told.
const SECRET_BYTES_MAX: u64 = 4096;

/// The options of a node of several; `None` for a lone one. The listener of brokers hands their connections over.
pub(super) fn options(config: &BrokerConfig, bound: &mut [Bound]) -> anyhow::Result<Option<ClusterOptions>> {
    let Some(cluster) = &config.cluster else { return Ok(None) };
    let secret = cluster.secret_file.as_deref().map(secret).transpose()?;
    let mut sockets = Vec::new();
    for listener in &config.controller_listeners {
        let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
        let explain = |error: std::io::Error| {
            anyhow!(
                "cannot listen on {}://{host}:{}: {error}; is another broker running?",
                listener.name,
                listener.port
            )
        };
        let address = (host, listener.port).to_socket_addrs().map_err(explain)?.next();
        let address = address.ok_or_else(|| explain(std::io::ErrorKind::AddrNotAvailable.into()))?;
        sockets.push(listen(address, config.network.listen_backlog).map_err(explain)?);
    }
    let handed_over = if config.is_broker {
        let (nodes, handed_over) = mpsc::channel(HANDED_OVER_LEN_MAX);
        let brokers = bound.iter_mut().find(|bound| *bound.name == *config.inter_broker_listener_name);
        let brokers = brokers.context("the listener of brokers is one of the listeners")?;
        brokers.nodes = Some(nodes);
        Some(handed_over)
    } else {
        None
    };
    // A controller alone is like the other voters, as far as it knows: no broker is to come of them.
    let brokers_listed = cluster.voters.iter().filter(|_| config.is_broker).map(|voter| voter.node).collect();
    let listed = |voter: &crate::config::QuorumVoter| ListedVoter {
        node: voter.node,
        host: voter.host.as_str().into(),
        port: voter.port,
    };
    Ok(Some(ClusterOptions {
        voters: cluster.voters.iter().map(listed).collect(),
        servers: cluster.servers.clone(),
        may_vote: cluster.may_vote,
        secret,
        sockets,
        handed_over,
        listener: config.inter_broker_listener_name.as_str().into(),
        duties: DutySettings {
            session_timeout: cluster.session_timeout,
            balance_every: cluster.balance_every,
            listed: brokers_listed,
        },
        request_within: cluster.request_timeout,
        heartbeat_every: cluster.heartbeat_interval,
    }))
}

/// The bits of a mode that let in anybody. A group of its own is a usual way to hand a secret to a service.
const ANYBODY_MAY: u32 = 0o007;

/// Reads the cluster's secret.
fn secret(path: &Path) -> anyhow::Result<ClusterSecret> {
    let explain = || format!("cannot read the cluster's secret from {}", path.display());
    let metadata = std::fs::metadata(path).with_context(explain)?;
    let (length, mode) = (metadata.len(), metadata.permissions().mode());
    if mode & ANYBODY_MAY != 0 {
        tracing::warn!(
            "anybody on this machine may read or write the cluster's secret in {} (mode {:03o}): whoever reads it is taken \
             for a node of the cluster; run `chmod o= {}`",
            path.display(),
            mode & 0o777,
            path.display()
        );
    }
    if length > SECRET_BYTES_MAX {
        bail!("{} has {length} bytes; a cluster's secret has at most {SECRET_BYTES_MAX}", path.display());
    }
    let bytes = std::fs::read(path).with_context(explain)?;
    let secret = match bytes.as_slice() {
        [secret @ .., b'\r', b'\n'] | [secret @ .., b'\n'] => secret,
        secret => secret,
    };
    ClusterSecret::new(secret).with_context(|| {
        format!(
            "the cluster's secret in {} is too short: write at least {} random bytes into it",
            path.display(),
            ClusterSecret::BYTES_MIN
        )
    })
}
