//! Somebody removes the journal's files under a running broker: what only they held is saved, and the directory goes on.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_replication::runtime::start::{self, Started};
use stonelog_storage::disk::{Disk as _, SimDisk, Tearing};
use support::*;

const D: &str = "/d";
const VALUE_BYTES: usize = 1000;

async fn start_on(disk: &SimDisk, start_number: u8) -> Started {
    // Nothing goes to segments by itself: all there is lies in the journal.
    let mut options = options(Arc::new(disk.clone()), vec![PathBuf::from(D)], Upkeep::OnlyForRoom, start_number);
    // So much that room is never wanted: no checkpoint comes by itself.
    options.journal.bytes_max = 64 << 20;
    options.node.unflushed_bytes_max = 64 << 20;
    start::start(options).await.unwrap()
}

/// The journal's files and its spares.
fn journal_files(disk: &SimDisk) -> Vec<PathBuf> {
    let directory = Path::new(D).join("journal");
    let names = disk.list(&directory).unwrap().into_iter().map(|entry| entry.name);
    names
        .filter(|name| name.ends_with(".journal") || name.ends_with(".spare"))
        .map(|name| directory.join(name))
        .collect()
}

#[tokio::test]
async fn what_only_a_removed_journal_file_held_is_saved_and_the_directory_goes_on() {
    for crash in 0..4 {
        let disk = SimDisk::new();
        let started = start_on(&disk, 1).await;
        let topic = create_topic(&started, "t").await;
        produce_all(&started, topic, 0..20, VALUE_BYTES).await;
        let removed = journal_files(&disk);
        removed.iter().for_each(|path| disk.remove_file(path).unwrap());
        let directory = &started.node.directories[0];
        if crash % 2 == 0 {
            // Also what comes before anybody has noticed.
            produce_all(&started, topic, 20..30, VALUE_BYTES).await;
        }
        // Until a checkpoint has what they held.
        let maintenance = directory.journal.maintenance();
        eventually(|| maintenance.check_names().unwrap().is_none() && !directory.lacks_journal_files()).await;
        assert!(!directory.is_offline());
        let from = if crash % 2 == 0 { 30 } else { 20 };
        produce_all(&started, topic, from..40, VALUE_BYTES).await;
        let after = disk.fork();
        started.stop().unwrap();
        after.crash(crash, Tearing::Sectors);
        let again = start_on(&after, 2).await;
        assert!(again.report.absent.is_empty());
        let verdicts = again.report.directories[0].verdicts;
        assert_eq!((verdicts.damaged, verdicts.lost), (0, 0), "{:?}", again.report.directories[0]);
        assert_holds(&again, topic, 40, VALUE_BYTES).await;
        again.stop().unwrap();
    }
}
