//! Directories that are not what a configuration takes them for: nothing is begun in them, and nothing of them is touched.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_protocol::{BrokerId, Uuid};
use stonelog_replication::controller::duties::DutySettings;
use stonelog_replication::controller::member::ClusterOptions;
use stonelog_replication::runtime::start::{self, StartError, StartOptions};
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log_dir::{MemberMark, MetaProperties};
use support::*;

fn alone(paths: &[&Path], start_number: u8) -> StartOptions {
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    options(Arc::new(RealDisk), paths, Upkeep::AtOnce, start_number)
}

/// As one of three voters, none of which is there.
fn one_of_three(paths: &[&Path], start_number: u8) -> StartOptions {
    let voter = |node| ListedVoter { node: BrokerId(node), host: "127.0.0.1".into(), port: 1 };
    let voters: Vec<ListedVoter> = (1..=3).map(voter).collect();
    let duties = DutySettings {
        session_timeout: Duration::from_secs(9),
        balance_every: None,
        listed: voters.iter().map(|voter| voter.node).collect(),
    };
    let cluster = ClusterOptions {
        voters,
        servers: Vec::new(),
        may_vote: true,
        secret: None,
        sockets: Vec::new(),
        handed_over: None,
        listener: "PLAINTEXT".into(),
        duties,
        request_within: Duration::from_secs(2),
        heartbeat_every: Duration::from_millis(500),
    };
    StartOptions { cluster: Some(cluster), ..alone(paths, start_number) }
}

async fn refused(options: StartOptions) -> StartError {
    let started = tokio::time::timeout(Duration::from_secs(60), start::start(options)).await;
    started.expect("it ends by itself").err().expect("it does not start")
}

fn names_in(directory: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A directory that a lone node has used, with a topic in it.
async fn used(directory: &Path) {
    let first = start::start(alone(&[directory], 1)).await.unwrap();
    let topic = create_topic(&first, "t").await;
    produce_all(&first, topic, 0..3, 100).await;
    first.stop().unwrap();
}

fn forget_metadata(directory: &Path) {
    std::fs::remove_dir_all(directory.join("metadata")).unwrap();
    std::fs::create_dir(directory.join("metadata")).unwrap();
}

#[tokio::test]
async fn an_empty_folder_is_no_metadata_log() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("d");
    used(&directory).await;
    forget_metadata(&directory);
    let before = names_in(&directory);
    let error = refused(alone(&[&directory], 2)).await;
    assert!(matches!(error, StartError::MetadataAbsent { .. }), "{error}");
    assert_eq!(names_in(&directory), before);
}

#[tokio::test]
async fn directory_of_one_that_follows_the_voters_of_a_cluster_is_not_started_alone() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("d");
    used(&directory).await;
    // As a node that does not vote leaves it: before it has registered as well.
    forget_metadata(&directory);
    let meta = MetaProperties::read(&RealDisk, &directory).unwrap().unwrap();
    let (version, meta) = (meta.version, meta.value);
    MetaProperties { broker_epoch: None, follows_epoch: None, ..meta.clone() }
        .write(&RealDisk, &directory, version + 1)
        .unwrap();
    MemberMark { directory_id: meta.directory_id, may_have_voted: false }.write(&RealDisk, &directory).unwrap();
    let before = names_in(&directory);
    let error = refused(alone(&[&directory], 2)).await;
    assert!(error.to_string().contains("controller.quorum.voters"), "{error}");
    assert_eq!(names_in(&directory), before);
}

#[tokio::test]
async fn voters_directory_without_its_log_and_identity_is_not_started_alone() {
    let root = tempfile::tempdir().unwrap();
    let mark = MemberMark { directory_id: Uuid([7; 16]), may_have_voted: true };
    mark.write(&RealDisk, root.path()).unwrap();
    let error = refused(alone(&[root.path()], 1)).await;
    assert!(matches!(error, StartError::OneOfSeveral { .. }), "{error}");
}

#[tokio::test]
async fn voter_forms_no_cluster_in_an_empty_directory_while_another_is_absent() {
    let root = tempfile::tempdir().unwrap();
    let [absent, empty] = ["absent", "empty"].map(|name| root.path().join(name));
    std::fs::create_dir_all(&absent).unwrap();
    std::fs::create_dir_all(&empty).unwrap();
    std::fs::write(absent.join(".stonelog_offline"), "it failed").unwrap();
    let error = refused(one_of_three(&[&absent, &empty], 1)).await;
    let said = error.to_string();
    assert!(matches!(error, StartError::MetadataAbsent { .. }), "{said}");
    assert!(said.contains(absent.to_str().unwrap()), "{said}");
    assert!(!empty.join(".stonelog_member").exists(), "nobody hears of it");
}

#[tokio::test]
async fn metadata_log_whose_files_are_gone_is_damaged_at_every_later_start() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("d");
    used(&directory).await;
    // A spare that was never used has a name of the same kind, and stays.
    let metadata = directory.join("metadata");
    let spare = metadata.join("90000000000000000000.journal");
    for path in names_in(&metadata) {
        if path.extension().is_some_and(|extension| extension == "journal") {
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::remove_file(path).unwrap();
            std::fs::File::create(&spare).unwrap().set_len(length).unwrap();
        }
    }
    for start_number in 2..4 {
        let error = refused(alone(&[&directory], start_number)).await;
        assert!(error.to_string().contains("metadata log"), "{error}");
        assert!(error.to_string().contains("may have forgotten"), "{error}");
    }
}

#[tokio::test]
async fn two_metadata_logs_are_one_too_many() {
    let root = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| root.path().join(name));
    let first = start::start(alone(&[&one, &other], 1)).await.unwrap();
    first.stop().unwrap();
    std::fs::create_dir(other.join("metadata")).unwrap();
    for path in names_in(&one.join("metadata")) {
        std::fs::copy(&path, other.join("metadata").join(path.file_name().unwrap())).unwrap();
    }
    let error = refused(alone(&[&one, &other], 2)).await;
    assert!(matches!(error, StartError::TwoMetadataLogs { .. }), "{error}");
}

#[tokio::test]
async fn directory_of_another_node_ends_a_start_before_any_voter_is_heard() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("d");
    used(&directory).await;
    let error = refused(StartOptions { node_id: BrokerId(2), ..one_of_three(&[&directory], 2) }).await;
    assert!(error.to_string().contains("belongs to node 1, not 2"), "{error}");
}

#[tokio::test]
async fn directory_beside_its_own_copy_is_refused_with_both_names() {
    let root = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| root.path().join(name));
    used(&one).await;
    std::fs::create_dir(&other).unwrap();
    for name in ["meta.properties", "meta.properties.copy"] {
        std::fs::copy(one.join(name), other.join(name)).unwrap();
    }
    let error = refused(alone(&[&one, &other], 2)).await;
    assert!(matches!(&error, StartError::SameDirectory { one: a, other: b } if *a == one && *b == other), "{error}");
}
