//! Ctrl-C and SIGTERM: a command ends, after finishing what others would otherwise wait for.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process is asked to end.
pub(super) async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without a handler SIGTERM ends the process by itself.
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
