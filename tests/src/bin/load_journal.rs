//! A load for the journal alone, for benchmarks: rounds of small records over many partitions, each round one commit that
//! is made durable before the next begins.
//!
//! Prints one line of JSON. It measures and judges nothing; what no checkpoint takes is recycled at once, as if it did.
//!
//! ```text
//! load_journal --directory /somewhere/empty --partitions 1000 --in-flight 64 --record-bytes 1024 --seconds 5
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use stonelog_protocol::batch::{BatchBuilder, NewRecord};
use stonelog_protocol::{Offset, PartitionIndex, Timestamp, TopicPartition, Uuid};
use stonelog_storage::disk::{Disk, RealDisk};
use stonelog_storage::journal::{Change, JournalEntry, JournalOptions, ReplayFrom, recover};
use stonelog_storage::{LogGeneration, ReplicaKey};
use stonelog_tests::generator::{Arguments, Latencies, micros_since};

/// Rounds before the clock runs, so that files are recycled rather than made.
const WARM_UP: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let arguments = Arguments::read();
    let directory = PathBuf::from(arguments.text("--directory", "journal-load"));
    let partitions: i32 = arguments.number("--partitions", 1);
    let in_flight: usize = arguments.number("--in-flight", 64);
    let record_bytes: usize = arguments.number("--record-bytes", 1024);
    let seconds: u64 = arguments.number("--seconds", 5);

    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let from = ReplayFrom::default();
    let mut journal = recover(&disk, &directory.join("journal"), JournalOptions::default(), from, &mut |_| {})?;
    let batch = batch(record_bytes)?;
    let mut ends = vec![Offset::ZERO; usize::try_from(partitions)?];
    let mut micros = Vec::new();
    let mut next = 0;
    let mut entries = Vec::with_capacity(in_flight);
    let (warm_until, mut until) = (now() + WARM_UP, now() + WARM_UP);
    until += Duration::from_secs(seconds);
    loop {
        let begun = now();
        if begun >= until {
            break;
        }
        entries.clear();
        for _ in 0..in_flight {
            // A step that is prime to the count visits all partitions, and no two neighbours in turn.
            next = (next + 7_919) % partitions;
            entries.push(append(next, &mut ends, &batch));
        }
        let end = journal.writer.write(&entries)?.end;
        journal.flusher.sync()?;
        if begun >= warm_until {
            micros.push(micros_since(begun));
        }
        journal.maintenance.recycle(end)?;
        while journal.maintenance.spare_wanted() {
            journal.maintenance.prepare_spare()?;
        }
    }
    let latencies = Latencies::of(micros.into_iter());
    println!(
        "{{\"records_per_s\":{},\"commits_per_s\":{},\"p50_us\":{},\"p99_us\":{}}}",
        latencies.count() * in_flight as u64 / seconds,
        latencies.count() / seconds,
        latencies.percentile(0.50),
        latencies.percentile(0.99),
    );
    Ok(())
}

/// One record, as a producer sends it.
fn batch(record_bytes: usize) -> Result<Bytes> {
    let mut batch = BatchBuilder::new();
    batch.push(NewRecord::new(Timestamp(1), None, Some(&vec![b'x'; record_bytes])));
    Ok(batch.build().context("a batch")?.into())
}

fn append(partition: i32, ends: &mut [Offset], batch: &Bytes) -> JournalEntry {
    let end = &mut ends[partition as usize];
    let base_offset = *end;
    *end = end.next();
    let partition = TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(partition) };
    let generation = LogGeneration { recovery_epoch: 1, counter: 0 };
    JournalEntry {
        replica: ReplicaKey { partition, generation },
        change: Change::Append { base_offset, end_offset: *end, batches: batch.clone() },
    }
}

#[allow(clippy::disallowed_methods, reason = "a load measures time")]
fn now() -> Instant {
    Instant::now()
}
