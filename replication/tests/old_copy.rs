//! A copy of a log directory, made earlier and put back: what was acknowledged since is missing from it, and it must not
//! pass for the directory (rule 11).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::TopicId;
use stonelog_replication::runtime::start::{self, StartOptions, Started};
use stonelog_storage::disk::{Disk, RealDisk, SimDisk, Survival};
use stonelog_storage::log_dir::{LogDir, current_tenure};
use support::*;

async fn start_on(disk: Arc<dyn Disk>, paths: &[&Path], start_number: u8) -> Started {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    start::start(options(disk, paths, Upkeep::AtOnce, start_number)).await.unwrap()
}

async fn start_for_real(paths: &[&Path], start_number: u8) -> Started {
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    let options = options(Arc::new(RealDisk), paths, Upkeep::AtOnce, start_number);
    start::start(StartOptions { tenure_of: current_tenure, ..options }).await.unwrap()
}

/// The partitions of a topic by where they lie.
fn partitions_in(started: &Started, topic: TopicId, path: &Path) -> Vec<i32> {
    let id = started.node.directories.iter().find(|directory| directory.path == path).unwrap().id;
    let image = started.metadata.image();
    let topic = image.topic_by_id(topic).unwrap();
    let here = (0..).zip(&topic.partitions).filter(|(_, partition)| partition.directories == [id]);
    here.map(|(index, _)| index).collect()
}

#[tokio::test]
async fn an_old_copy_put_back_serves_nothing_and_the_other_directory_serves_all() {
    let root = tempfile::tempdir().unwrap();
    let [a, b, aside, newest] = ["a", "b", "aside", "newest"].map(|name| root.path().join(name));
    let first = start_for_real(&[&a, &b], 1).await;
    let topic = create_topic(&first, "t").await;
    let (in_a, in_b) = (partitions_in(&first, topic, &a), partitions_in(&first, topic, &b));
    produce_all(&first, topic, 0..10, 100).await;
    first.stop().unwrap();
    copy(&b, &aside);

    let second = start_for_real(&[&a, &b], 2).await;
    assert!(second.report.registered.offline.is_empty(), "a normal restart proves both");
    produce_all(&second, topic, 10..20, 100).await;
    second.stop().unwrap();

    std::fs::rename(&b, &newest).unwrap();
    copy(&aside, &b);
    let third = start_for_real(&[&a, &b], 3).await;
    let absent: Vec<_> = third.report.absent.iter().map(|directory| &directory.path).collect();
    assert_eq!(absent, [&b], "left out before it is registered");
    assert!(third.report.absent[0].reason.contains("old copy"), "{:?}", third.report.absent);
    let image = third.metadata.image();
    for index in &in_b {
        let partition = image.partition(partition(topic, *index)).unwrap();
        assert_eq!((partition.leader, partition.isr.len() + partition.elr.len()), (None, 1), "partition {index}");
        assert!(produce(&third, support::partition(topic, *index), value(*index, 20, 100)).await.is_err());
    }
    for index in &in_a {
        produce(&third, partition(topic, *index), value(*index, 20, 100)).await.unwrap();
    }
    third.stop().unwrap();

    // The newest one comes back with everything.
    std::fs::remove_dir_all(&b).unwrap();
    std::fs::rename(&newest, &b).unwrap();
    let fourth = start_for_real(&[&a, &b], 4).await;
    assert!(fourth.report.absent.is_empty() && fourth.report.registered.offline.is_empty());
    assert!(fourth.report.directories.iter().all(|found| !found.is_old_copy));
    for index in &in_b {
        produce(&fourth, partition(topic, *index), value(*index, 20, 100)).await.unwrap();
    }
    assert_holds(&fourth, topic, 21, 100).await;
    fourth.stop().unwrap();

    // Whoever has no other takes the old one, and its replicas count as lost.
    std::fs::remove_dir_all(&b).unwrap();
    copy(&aside, &b);
    let (directory, _) = LogDir::open(Arc::new(RealDisk), &b).unwrap();
    directory.settle_failure().unwrap();
    drop(directory);
    for number in 5..7 {
        let fifth = start_for_real(&[&a, &b], number).await;
        let image = fifth.metadata.image();
        for index in &in_b {
            let partition = image.partition(partition(topic, *index)).unwrap();
            assert_eq!((partition.leader, partition.isr.len(), partition.elr.len()), (None, 0, 0), "partition {index}");
        }
        if number == 5 {
            let offline: Vec<i32> = fifth.report.registered.offline.iter().map(|key| key.partition.0).collect();
            assert_eq!(offline, in_b, "named in the answer");
            let old_copies: Vec<_> = fifth.report.directories.iter().filter(|found| found.is_old_copy).collect();
            assert_eq!(old_copies.iter().map(|found| &found.path).collect::<Vec<_>>(), [&b]);
        }
        assert!(fifth.report.absent.is_empty(), "restarting does not change it: {:?}", fifth.report.absent);
        fifth.stop().unwrap();
    }
}

#[tokio::test]
async fn a_start_that_ends_anywhere_leaves_directories_that_the_next_one_proves() {
    let disk = SimDisk::new();
    let paths = [Path::new("/a"), Path::new("/b")];
    let first = start_on(Arc::new(disk.clone()), &paths, 1).await;
    let topic = create_topic(&first, "t").await;
    produce_all(&first, topic, 0..3, 50).await;
    first.stop().unwrap();
    disk.kill();

    disk.record_images();
    let second = start_on(Arc::new(disk.clone()), &paths, 2).await;
    let images = disk.take_images();
    second.stop().unwrap();
    // The steps of rule 11 are among them: registration, epochs, unfencing.
    let records_epochs = |path: &Path| path.to_string_lossy().contains("meta.properties");
    assert!(images.iter().filter(|image| records_epochs(&image.path)).count() >= 2);
    for image in images {
        let disk = image.after(Survival::Nothing);
        let third = start_on(Arc::new(disk), &paths, 3).await;
        assert!(third.report.registered.offline.is_empty(), "change {}: {:?}", image.change, image.path);
        assert!(third.report.directories.iter().all(|found| !found.is_old_copy), "change {}", image.change);
        assert_holds(&third, topic, 3, 50).await;
        third.stop().unwrap();
    }
}
