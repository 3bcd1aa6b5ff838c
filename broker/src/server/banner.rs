//! What `serve` says when it is up: who, where, what it promises, how long it took; then `ready`.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use stonelog_replication::metadata::Endpoint;
use stonelog_replication::runtime::start::{StartReport, StartedController};
use stonelog_storage::disk::{Disk, RealDisk, filesystem_of, probe_fsync};

use super::recovery_report;
use crate::broker::Broker;
use crate::config::BrokerConfig;

/// Prints the banner and the line `ready` to standard output.
pub(super) fn print(broker: &Broker, report: &StartReport, endpoints: &[Endpoint], took: Duration) -> io::Result<()> {
    let node = &broker.node;
    let config = &broker.config;
    let mut out = io::stdout().lock();
    writeln!(out, "stonelog {} · node {}", env!("CARGO_PKG_VERSION"), node.broker_id)?;
    match report.is_new_cluster {
        true => writeln!(out, "NEW CLUSTER {}", report.cluster_id)?,
        false => writeln!(out, "cluster   {}", report.cluster_id)?,
    }
    for (listener, endpoint) in config.listeners.iter().zip(endpoints) {
        let host = match listener.host.as_deref().unwrap_or("0.0.0.0") {
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        writeln!(
            out,
            "listener  {}://{host}:{} → {}:{}",
            endpoint.listener, endpoint.port, endpoint.host, endpoint.port
        )?;
    }
    for directory in &node.directories {
        print_directory(&mut out, "data    ", &*directory.disk, &directory.path)?;
    }
    for absent in &report.absent {
        writeln!(out, "ABSENT    {}: {}; its partitions are unavailable", absent.path.display(), absent.reason)?;
    }
    writeln!(out, "promise   an acknowledgement means fsynced on every in-sync replica, unless a topic relaxes it")?;
    for relaxation in &config.relaxations {
        writeln!(out, "RELAXED   {relaxation}")?;
    }
    for warning in &config.warnings {
        writeln!(out, "warning   {warning}")?;
    }
    for note in &config.notes {
        writeln!(out, "note      {note}")?;
    }
    for found in &report.directories {
        recovery_report::print(&mut out, found)?;
    }
    for old in report.directories.iter().filter(|directory| directory.is_old_copy) {
        let path = old.path.display();
        writeln!(
            out,
            "OLD COPY  {path}: newer data has been served from this log directory; what only it holds here stays offline"
        )?;
    }
    for partition in &report.registered.offline {
        writeln!(out, "OFFLINE   {partition}: its only replica may lack acknowledged records")?;
    }
    for partition in &report.registered.may_lack_records {
        writeln!(out, "relaxed   {partition} may lack its newest records")?;
    }
    for stray in &report.strays {
        writeln!(out, "stray     {} belongs to no topic and was put aside", stray.display())?;
    }
    writeln!(out, "started in {} ms", took.as_millis())?;
    writeln!(out, "ready")?;
    out.flush()
}

/// The same of a controller alone, which serves no clients.
pub(super) fn print_controller(config: &BrokerConfig, started: &StartedController, took: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "stonelog {} · node {} · controller alone", env!("CARGO_PKG_VERSION"), config.node_id)?;
    match started.is_new_cluster {
        true => writeln!(out, "NEW CLUSTER {}", started.cluster_id)?,
        false => writeln!(out, "cluster   {}", started.cluster_id)?,
    }
    for listener in &config.controller_listeners {
        let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
        writeln!(out, "listener  {}://{host}:{}, for nodes of the cluster", listener.name, listener.port)?;
    }
    print_directory(&mut out, "metadata", &RealDisk, &started.directory())?;
    for warning in &config.warnings {
        writeln!(out, "warning   {warning}")?;
    }
    for note in &config.notes {
        writeln!(out, "note      {note}")?;
    }
    writeln!(out, "started in {} ms", took.as_millis())?;
    writeln!(out, "ready")?;
    out.flush()
}

/// Where something is kept, and what to think of the place.
fn print_directory(out: &mut impl io::Write, what: &str, disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let fsync = match measure_fsync(disk, path) {
        Ok(fsync) => format!("fsync {:.2} ms", fsync.as_secs_f64() * 1000.0),
        Err(error) => format!("fsync not measured: {error}"),
    };
    let (kind, volatile) = match filesystem_of(path) {
        Ok(found) => (found.kind, found.volatile),
        Err(error) => (format!("unknown file system ({error})"), false),
    };
    writeln!(out, "{what}  {} ({kind}, {fsync})", path.display())?;
    if volatile {
        writeln!(out, "WARNING   this file system forgets on power loss; what is acknowledged is only as safe as it")?;
    }
    Ok(())
}

/// The time of one small durable write, as an acknowledgement pays it.
#[allow(clippy::disallowed_methods, reason = "a measurement for a person, not a decision")]
fn measure_fsync(disk: &dyn Disk, path: &Path) -> io::Result<Duration> {
    let mut took = Duration::ZERO;
    probe_fsync(disk, path, |write_durably| {
        let begun = Instant::now();
        write_durably()?;
        took = begun.elapsed();
        Ok(())
    })?;
    Ok(took)
}
