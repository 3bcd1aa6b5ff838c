//! A broker asks the active controller through whichever voter it knows.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::control::Answer;
use stonelog_protocol::{BrokerId, Timestamp};

use super::cluster::{ALL, Cluster, Running, block_on, has, identity, others, setting};
use crate::metadata::RecordBatch;
use crate::quorum::control::{ControlHandler, ControlSession, Forwarder};
use crate::quorum::controllers::Controllers;
use crate::quorum::link::Target;
use crate::quorum::node::QuorumNode;
use crate::quorum::publisher::Publisher;
use crate::quorum::type_config::Outcome;
use crate::runtime::peers::TcpDialer;

/// A controller whose only request is a setting's name.
struct Settings {
    node: std::sync::Weak<QuorumNode>,
    publisher: Arc<Publisher>,
}

impl ControlHandler for Settings {
    fn decide(&self, from: BrokerId, request: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let (node, image) = (self.node.upgrade().unwrap(), self.publisher.image());
        Box::pin(async move {
            assert_eq!(from, BrokerId(9));
            let key = String::from_utf8(request.to_vec()).unwrap();
            let batch = RecordBatch {
                base_index: image.index(),
                controller_term: node.leading_term().unwrap_or(0),
                created: Timestamp(0),
                records: vec![setting(&key)],
            };
            match node.propose(batch).await {
                Ok((index, Outcome::Applied)) => Answer::Decided(index.to_be_bytes().to_vec().into()),
                _ => Answer::Unknown,
            }
        })
    }
}

fn serve_control(running: &Running) {
    let node = running.node.clone();
    let handler = Arc::new(Settings { node: Arc::downgrade(&node), publisher: running.publisher.clone() });
    let node = Arc::downgrade(&node);
    running
        .services
        .serve_control(move |hello| Box::new(ControlSession::new(node.clone(), handler.clone(), hello.from.node)));
}

fn forwarder(cluster: &Cluster) -> Forwarder<TcpDialer> {
    let own = identity(9);
    let dialer = TcpDialer::new(Arc::new(move || own.clone()), Some(cluster.secret.clone()), BTreeMap::new());
    let target = |site: &super::cluster::Site| Target {
        node: BrokerId(site.id),
        directory: None,
        host: "127.0.0.1".to_owned(),
        port: site.address.port(),
    };
    Forwarder::new(dialer, &Controllers::new(cluster.sites.iter().map(target)), nobody_is_heard()).unwrap()
}

fn nobody_is_heard() -> tokio::sync::watch::Receiver<Option<BrokerId>> {
    tokio::sync::watch::channel(None).1
}

#[test]
fn request_finds_the_controller_wherever_it_is_and_is_answered_when_it_is_applied() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        for id in ALL {
            serve_control(cluster.running(id));
        }
        let mut forwarder = forwarder(&cluster);
        let patience = Duration::from_secs(30);
        // Nobody need lead yet.
        let answer = forwarder.ask("first".into(), patience, true).await;
        assert!(matches!(answer, Answer::Decided(_)), "{answer:?}");
        let leader = cluster.leader_among(&ALL).await;
        assert!(has(&cluster.image(leader), "first"));
        // It goes, and the next one is found.
        cluster.stop(leader).await;
        let answer = forwarder.ask("second".into(), patience, true).await;
        assert!(matches!(answer, Answer::Decided(_)), "{answer:?}");
        let second = cluster.leader_among(&others(leader)).await;
        assert!(has(&cluster.image(second), "second"));
        // No majority: nobody decides, and nothing was written.
        let last = others(leader).into_iter().find(|id| *id != second).unwrap();
        cluster.stop(second).await;
        // Nor was anything sent over a connection to who is gone.
        let short = Duration::from_millis(1_500);
        assert_eq!(forwarder.ask("third".into(), short, true).await, Answer::NotController(None));
        assert!(!has(&cluster.image(last), "third"));
        cluster.end().await;
    });
}
