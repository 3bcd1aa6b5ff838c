//! `stonelog serve` with `process.roles=controller`: a member of the metadata quorum and nothing else.
//!
//! It opens its controller listeners and no other socket, keeps no records, and needs one log directory: the one that the
//! metadata log is in.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Context as _;
use stonelog_replication::runtime::start;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED, REMOVED_FROM_QUORUM, banner, cluster, end_start_on_signal,
    exit_on_second_signal, start_options, stopped_before_ready,
};
use crate::config::BrokerConfig;

/// Runs a controller until it is told to stop.
pub(super) async fn serve(mut config: BrokerConfig, begun: Instant) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    keep_one_directory(&mut config);
    let cluster = cluster::options(&config, &mut [])?.context("a controller alone is one of several nodes")?;
    let starting = end_start_on_signal();
    let started = tokio::select! {
        started = start::start_controller(start_options(&config, &[], Some(cluster))?) => started?,
        // It may wait for the others for any time.
        _ = interrupt.recv() => return Ok(stopped_before_ready(EXIT_INTERRUPTED)),
        _ = terminate.recv() => return Ok(stopped_before_ready(EXIT_TERMINATED)),
    };
    starting.store(false, Ordering::Relaxed);
    banner::print_controller(&config, &started, begun.elapsed())?;
    let code = tokio::select! {
        _ = interrupt.recv() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::SUCCESS,
        () = started.metadata.removed_from_quorum() => {
            eprintln!("error: {REMOVED_FROM_QUORUM}");
            ExitCode::from(EXIT_FAILED)
        }
        error = started.keep_recording() => {
            eprintln!("error: {error}; the controller stops");
            ExitCode::from(EXIT_FAILED)
        }
    };
    // A second signal ends the process at once.
    exit_on_second_signal(interrupt, terminate);
    started.stop();
    Ok(code)
}

/// Only the metadata log is kept.
fn keep_one_directory(config: &mut BrokerConfig) {
    let kept = config.log_dirs.swap_remove(config.metadata_place);
    if !config.log_dirs.is_empty() {
        config.notes.push(format!("log.dirs: a controller alone keeps what it has in {}", kept.display()));
    }
    (config.log_dirs, config.metadata_place) = (vec![kept], 0);
}
