//! A thread on which those that dial this node prove themselves, so that nobody is kept waiting by those who cannot.
//!
//! The metadata plane has one thread, and a voter that does not come to answer in time is taken for dead. Whoever may open a
//! connection may have a proof computed; here that is done where nothing waits for it. What has proved itself goes to the
//! thread that serves it, streams to the lanes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::accept::{CONNECTION_COUNT_MAX, HandedOver, Proved, accept, attend, take_over};
use super::framing::PeerSocket;
use super::secret::ClusterSecret;
use crate::quorum::link::PeerService;

/// Connections that have proved themselves and wait to be served; who comes later waits too.
const PROVED_LEN_MAX: usize = 64;

/// The thread, and what comes from it. It ends, and its sockets are closed, when this is dropped.
pub struct Door {
    proved: mpsc::Receiver<Proved>,
    service: Arc<dyn PeerService>,
    thread: DoorThread,
}

struct DoorThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for DoorThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread on which nodes prove themselves has panicked");
        }
    }
}

impl Door {
    /// Accepts from here on, on these sockets (listening, non-blocking) and what clients' listeners hand over.
    pub fn open(
        sockets: Vec<std::net::TcpListener>,
        handed_over: Option<mpsc::Receiver<HandedOver>>,
        secret: Option<ClusterSecret>,
        service: Arc<dyn PeerService>,
    ) -> io::Result<Door> {
        let (sender, proved) = mpsc::channel(PROVED_LEN_MAX);
        let (stop, stopped) = oneshot::channel::<()>();
        let (opened, is_open) = std::sync::mpsc::channel();
        let served = Arc::clone(&service);
        let thread = std::thread::Builder::new().name("node-proofs".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                // Whoever opens is waiting.
                Err(error) => return drop(opened.send(Err(error))),
            };
            runtime.block_on(async move {
                let listeners: io::Result<Vec<_>> = sockets.into_iter().map(TcpListener::from_std).collect();
                let listeners = match listeners {
                    Ok(listeners) => listeners,
                    Err(error) => return drop(opened.send(Err(error))),
                };
                drop(opened.send(Ok(())));
                let mut accepting = JoinSet::new();
                for listener in listeners {
                    accepting.spawn(accept(listener, secret.clone(), served.clone(), Some(sender.clone())));
                }
                if let Some(handed_over) = handed_over {
                    accepting.spawn(take_over(handed_over, secret, served, Some(sender)));
                }
                // Nothing is ever sent: the other end is dropped.
                let _ = stopped.await;
                accepting.shutdown().await;
            });
        })?;
        let thread = DoorThread { stop: Some(stop), thread: Some(thread) };
        is_open.recv().unwrap_or(Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Door { proved, service, thread })
    }

    /// Serves those that have proved themselves, until dropped; every connection ends with it.
    pub async fn attend(self) {
        let Door { mut proved, service, thread } = self;
        let mut connections = JoinSet::new();
        loop {
            let next = tokio::select! {
                next = proved.recv() => next,
                Some(_) = connections.join_next() => continue,
            };
            // The thread lasts as long as this.
            let Some(Proved { socket, ahead, peer, hello }) = next else { break };
            if connections.len() >= CONNECTION_COUNT_MAX {
                tracing::debug!(%peer, "too many connections between nodes; this one is closed");
                continue;
            }
            let taken = TcpStream::from_std(socket).map(|socket| PeerSocket::with(socket, ahead));
            let service = Arc::clone(&service);
            connections.spawn(async move {
                let served = match taken {
                    Ok(socket) => attend(socket, hello, &*service).await,
                    Err(error) => Err(error),
                };
                say_ended(peer, served);
            });
        }
        drop(thread);
    }
}

fn say_ended(peer: SocketAddr, served: io::Result<()>) {
    if let Err(error) = served {
        tracing::debug!(%peer, "connection between nodes ended: {error}");
    }
}
