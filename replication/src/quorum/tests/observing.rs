//! A node that does not vote follows three that do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::feed::Leading;
use stonelog_storage::disk::{Disk, RealDisk};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster::{ALL, Cluster, block_on, has, identity, others, setting, until};
use crate::metadata::MetadataImage;
use crate::quorum::node::{QuorumOptions, REQUEST_WITHIN_DEFAULT};
use crate::quorum::observer::Observer;
use crate::quorum::publisher::Publisher;
use crate::quorum::type_config::Voter;
use crate::runtime::peers::TcpDialer;

struct Observing {
    publisher: Arc<Publisher>,
    leading: watch::Receiver<Option<Leading>>,
    running: JoinSet<()>,
}

impl Observing {
    async fn start(cluster: &Cluster, directory: &Path) -> Observing {
        Observing::start_with(cluster, directory, Arc::default()).await
    }

    async fn start_with(cluster: &Cluster, directory: &Path, publisher: Arc<Publisher>) -> Observing {
        let own = identity(9);
        let dialer = TcpDialer::new(Arc::new(move || own.clone()), Some(cluster.secret.clone()), BTreeMap::new());
        let listed =
            cluster.sites.iter().map(|site| (BrokerId(site.id), ("127.0.0.1".to_owned(), site.address.port())));
        let options = QuorumOptions {
            disk: Arc::new(RealDisk) as Arc<dyn Disk>,
            directory: directory.to_owned(),
            node_id: BrokerId(9),
            voter: Voter { directory: [9; 16], host: String::new(), port: 0 },
            request_within: REQUEST_WITHIN_DEFAULT,
        };
        let (observer, leading) = Observer::open(&options, publisher.clone(), dialer, listed.collect()).await.unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let ended = observer.run().await;
            panic!("the observer has ended: {ended:?}");
        });
        Observing { publisher, leading, running }
    }

    async fn sees(&self, key: &str) {
        until(|| has(&self.publisher.image(), key).then_some(())).await;
        assert!(!self.running.is_empty());
    }
}

#[test]
fn observer_applies_what_is_committed_and_knows_who_leads() {
    block_on(async {
        let mut cluster = Cluster::form(3).await;
        let first = cluster.write_leader("before").await;
        let dir = tempfile::tempdir().unwrap();
        let observing = Observing::start(&cluster, &dir.path().join("metadata")).await;
        observing.sees("before").await;
        until(|| (observing.leading.borrow().map(|leading| leading.node) == Some(BrokerId(first))).then_some(())).await;
        // Whoever it followed may be the one that goes.
        cluster.stop(first).await;
        cluster.write(&others(first), "meanwhile").await;
        observing.sees("meanwhile").await;
        let second = cluster.leader_among(&others(first)).await;
        until(|| (observing.leading.borrow().map(|leading| leading.node) == Some(BrokerId(second))).then_some(()))
            .await;
        assert_eq!(observing.publisher.image().controller(), Some(BrokerId(second)));
        assert_eq!(observing.publisher.image().to_records(), cluster.image(second).to_records());
        assert_eq!(observing.publisher.image().index(), cluster.image(second).index());
        // With nobody left it knows that nobody leads, and its image stays.
        for id in others(first) {
            cluster.stop(id).await;
        }
        until(|| observing.leading.borrow().is_none().then_some(())).await;
        observing.sees("meanwhile").await;
        cluster.end().await;
    });
}

#[test]
fn observer_that_missed_what_is_gone_from_the_log_gets_a_snapshot_and_starts_from_it_again() {
    block_on(async {
        let cluster = Cluster::form(3).await;
        for index in 0..20 {
            cluster.write(&ALL, &format!("setting-{index}")).await;
        }
        for id in ALL {
            cluster.sees(id, &["setting-19"]).await;
            cluster.node(id).compact().await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata");
        let observing = Observing::start(&cluster, &path).await;
        observing.sees("setting-19").await;
        assert_eq!(observing.publisher.image().to_records(), cluster.image(1).to_records());
        drop(observing);
        // Its cache is enough to begin with, whoever answers.
        cluster.write(&ALL, "later").await;
        let observing = Observing::start(&cluster, &path).await;
        assert!(has(&observing.publisher.image(), "setting-19"));
        observing.sees("later").await;
        cluster.end().await;
    });
}

#[test]
fn observer_begins_with_no_image_that_another_log_has_left() {
    block_on(async {
        let cluster = Cluster::form(3).await;
        cluster.write_leader("before").await;
        let publisher = Arc::new(Publisher::default());
        // Of a log that was closed since: what it had applied is part of what comes again.
        publisher.publish(MetadataImage::from_records(1_000, &[setting("left")]).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let observing = Observing::start_with(&cluster, &dir.path().join("metadata"), publisher).await;
        observing.sees("before").await;
        assert!(!has(&observing.publisher.image(), "left"));
        cluster.end().await;
    });
}
