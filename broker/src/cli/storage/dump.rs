//! `stonelog storage dump`: what a file of a data directory holds, a line for each thing in it.
//!
//! For people a line is `what name=value …`, for programs a JSON object with the same names. Damaged files are shown as
//! far as they go.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};
use stonelog_protocol::batch::{Records, open_records};
use stonelog_replication::quorum::inspect as metadata;
use stonelog_storage::checkpoint::{Checkpoint, ReplicaCheckpoint};
use stonelog_storage::disk::RealDisk;
use stonelog_storage::journal::{Change, Hurt, HurtRange, Inspection, ReplayedEntry, inspect_file};
use stonelog_storage::scrub::{BatchLine, DumpError, FileContents, ScrubState, read_file, walk_log};
use stonelog_storage::small_file::read_small_file;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use super::output_of;

/// A batch is opened to at most this.
const RECORDS_BYTES_MAX: usize = 64 << 20;

/// What a line says, in the order in which people read it.
type Fields = Vec<(&'static str, Value)>;

macro_rules! fields {
    ({ $($name:literal: $value:expr),* $(,)? }) => {
        vec![$(($name, json!($value))),*]
    };
}

/// Segments, checksums, indexes, journal files, checkpoints, identities, markers, the scrub's state, metadata.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
    0  shown
    1  a file is damaged, or could not be read
    2  wrong usage")]
pub(crate) struct Dump {
    /// Files of a data directory.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Show the records of each batch too.
    #[arg(long)]
    records: bool,
    /// Print JSON, one object for each line; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

impl Dump {
    pub(super) fn run(self, output: Output) -> Result<Exit, Failure> {
        let output = output_of(output, self.json);
        let mut exit = Exit::Done;
        for file in &self.files {
            if !output.is_json() && self.files.len() > 1 {
                output.line(&format!("{}:", file.display()))?;
            }
            let mut lines = Lines { output, file: file.display().to_string(), records: self.records, failed: None };
            let shown = lines.show(file);
            if let Some(failed) = lines.failed {
                return Err(failed.into());
            }
            if let Err(error) = shown {
                note!("error: {error}");
                exit = Exit::Failed;
            }
        }
        Ok(exit)
    }
}

/// Prints the lines of one file.
struct Lines {
    output: Output,
    file: String,
    records: bool,
    /// Nobody reads any more.
    failed: Option<std::io::Error>,
}

impl Lines {
    fn show(&mut self, path: &Path) -> Result<(), DumpError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let base = name.strip_suffix(".copy").unwrap_or(name);
        if base == "metadata.checkpoint" || name.ends_with(".snap") {
            return self.metadata(path, base);
        }
        match read_file(&RealDisk, path)? {
            FileContents::Log => self.log(path)?,
            FileContents::Journal => self.journal(path)?,
            FileContents::Sums(sums) => {
                for sum in sums {
                    let matches = sum.computed.map(|computed| computed == sum.stored);
                    let stored = format!("{:08x}", sum.stored);
                    self.line("sum", fields!({ "block": sum.block, "crc": stored, "matches": matches }));
                }
            }
            FileContents::Index(index) => {
                let (base, log_bytes) = (index.base.0, index.log_bytes);
                let entries = index.entries.len();
                self.line("index", fields!({ "base_offset": base, "log_bytes": log_bytes, "entries": entries }));
                for entry in &index.entries {
                    let offset = base + i64::from(entry.relative_offset);
                    let before = entry.max_timestamp_before.0;
                    let position = entry.position;
                    self.line(
                        "entry",
                        fields!({ "offset": offset, "position": position, "max_timestamp_before": before }),
                    );
                }
            }
            FileContents::Checkpoint(version, checkpoint) => self.checkpoint(version, &checkpoint),
            FileContents::MetaProperties(version, meta) => self.line(
                "identity",
                fields!({
                    "cluster_id": &*meta.cluster_id.0,
                    "node_id": meta.node_id.0,
                    "directory_id": meta.directory_id.to_string(),
                    "broker_epoch": meta.broker_epoch.map(|epoch| epoch.0),
                    "version": version,
                }),
            ),
            FileContents::Tenure(tenure) => {
                let boot_id: String = tenure.boot_id.iter().map(|byte| format!("{byte:02x}")).collect();
                self.line("tenure", fields!({ "boot_id": boot_id, "mount_id": tenure.mount_id }));
            }
            FileContents::Scrub(state) => self.scrub(&state),
        }
        Ok(())
    }

    fn log(&mut self, path: &Path) -> Result<(), DumpError> {
        walk_log(&RealDisk, path, &mut |line| {
            self.batch(&line);
            self.failed.is_none()
        })
    }

    fn batch(&mut self, line: &BatchLine<'_>) {
        let header = &line.header;
        let codec = header.compression().map_or("unknown".to_owned(), |codec| format!("{codec:?}").to_lowercase());
        self.line(
            "batch",
            fields!({
                "position": line.position,
                "bytes": header.batch_bytes,
                "base_offset": header.base_offset.0,
                "last_offset": header.last_offset().0,
                "records": header.records_count,
                "leader_epoch": header.leader_epoch.0,
                "codec": codec,
                "base_timestamp": header.base_timestamp.0,
                "max_timestamp": header.max_timestamp.0,
                "log_append_time": header.is_log_append_time(),
                "transactional": header.is_transactional(),
                "control": header.is_control(),
                "producer_id": header.producer_id.0,
                "producer_epoch": header.producer_epoch.0,
                "base_sequence": header.base_sequence,
                "crc": format!("{:08x}", header.crc),
                "intact": line.is_intact,
            }),
        );
        if self.records && line.is_intact {
            self.records(line);
        }
    }

    fn records(&mut self, line: &BatchLine<'_>) {
        let header = &line.header;
        let opened = match open_records(line.bytes, header, RECORDS_BYTES_MAX) {
            Ok(opened) => opened,
            Err(error) => return self.line("unreadable", fields!({ "detail": error.to_string() })),
        };
        for record in Records::new(&opened, header.records_count) {
            let Ok(record) = record else {
                return self.line("unreadable", fields!({ "detail": "a record is malformed" }));
            };
            let timestamp = match header.is_log_append_time() {
                true => header.max_timestamp.0,
                false => header.base_timestamp.0.saturating_add(record.timestamp_delta),
            };
            let offset = header.base_offset.0 + i64::from(record.offset_delta);
            let mut fields: Fields = fields!({ "offset": offset, "timestamp": timestamp });
            put_bytes(&mut fields, ["key", "key_base64"], record.key);
            put_bytes(&mut fields, ["value", "value_base64"], record.value);
            let headers = record.headers.map(|header| {
                let mut fields = Fields::new();
                put_bytes(&mut fields, ["key", "key_base64"], Some(header.key));
                put_bytes(&mut fields, ["value", "value_base64"], header.value);
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            });
            let headers: Vec<Value> = headers.collect();
            if !headers.is_empty() {
                fields.push(("headers", Value::Array(headers)));
            }
            self.line("record", fields);
        }
    }

    fn journal(&mut self, path: &Path) -> Result<(), DumpError> {
        // The header first: it needs a walk of its own, which visits nothing.
        let found = inspect_file(&RealDisk, path, &mut |_| {})?;
        self.journal_head(&found);
        let mut last_commit = None;
        inspect_file(&RealDisk, path, &mut |found| {
            if self.failed.is_some() {
                return;
            }
            if last_commit.replace(found.commit_position) != Some(found.commit_position) {
                self.line("commit", fields!({ "sequence": found.sequence, "position": found.commit_position.0 }));
            }
            self.entry(&found);
        })?;
        for damage in &found.ends.damage {
            let hurt = match &damage.hurt {
                Hurt::All => "every replica".to_owned(),
                Hurt::Ranges(ranges) => {
                    let range =
                        |range: &HurtRange| format!("{}:{}..{}", range.replica.partition, range.start, range.end);
                    ranges.iter().map(range).collect::<Vec<_>>().join(",")
                }
            };
            self.line("damage", fields!({ "position": damage.position.0, "hurt": hurt }));
        }
        if let Some(torn) = &found.ends.torn_tail {
            self.line("torn_tail", fields!({ "position": torn.position.0, "bytes": torn.bytes }));
        }
        self.line("end", fields!({ "sequence": found.sequence, "position": found.end.0 }));
        Ok(())
    }

    fn journal_head(&mut self, found: &Inspection) {
        for file in &found.files {
            let state = format!("{:?}", file.state).to_lowercase();
            let fields = match &file.header {
                None => fields!({ "state": state, "bytes": file.bytes }),
                Some(header) => fields!({
                    "state": state,
                    "bytes": file.bytes,
                    "generation": header.generation,
                    "recovery_epoch": header.recovery_epoch,
                    "base": header.base.0,
                    "previous_sequence": header.previous_sequence,
                    "previous_checksum": format!("{:08x}", header.previous_checksum),
                    "previous_end": header.previous_end.0,
                    "durable_sequence": header.durable_sequence,
                    "copies_damaged": header.copies_damaged,
                }),
            };
            self.line("journal_file", fields);
        }
    }

    fn entry(&mut self, found: &ReplayedEntry) {
        let key = found.entry.replica;
        let mut fields = fields!({
            "position": found.position.0,
            "topic_id": key.partition.topic_id.to_string(),
            "partition": key.partition.partition.0,
            "generation": key.generation.to_string(),
        });
        let mut put = |change: &str, more: Fields| {
            fields.push(("change", json!(change)));
            fields.extend(more);
        };
        match &found.entry.change {
            Change::Append { base_offset, end_offset, batches } => {
                let (base_offset, end_offset, bytes) = (base_offset.0, end_offset.0, batches.len());
                put("append", fields!({ "base_offset": base_offset, "end_offset": end_offset, "bytes": bytes }));
                if let Some(record) = metadata::show_record(key.partition, batches) {
                    fields.push(("metadata", json!(record)));
                }
            }
            Change::Create { start, strict } => put("create", fields!({ "start_offset": start.0, "strict": strict })),
            Change::Truncate { end } => put("truncate", fields!({ "end_offset": end.0 })),
            Change::Reset { start } => put("reset", fields!({ "start_offset": start.0 })),
            Change::LogStart { start } => put("log_start", fields!({ "start_offset": start.0 })),
            Change::EpochStart { epoch, offset } => {
                put("epoch_start", fields!({ "leader_epoch": epoch.0, "offset": offset.0 }));
            }
            Change::Mode { strict } => put("mode", fields!({ "strict": strict })),
            Change::Drop => put("drop", Fields::new()),
        }
        self.line("entry", fields);
        if let (true, Change::Append { batches, .. }) = (self.records, &found.entry.change) {
            self.batches_in_entry(batches);
        }
    }

    fn batches_in_entry(&mut self, batches: &[u8]) {
        for (at, header) in stonelog_storage::segment::walk::Batches::of(batches) {
            let bytes = &batches[at..at + header.batch_bytes];
            let is_intact = stonelog_protocol::batch::crc_matches(bytes);
            self.batch(&BatchLine { position: at as u64, header, is_intact, bytes });
        }
    }

    fn checkpoint(&mut self, version: u64, checkpoint: &Checkpoint) {
        let replicas = checkpoint.replicas.len();
        let (epoch, covered) = (checkpoint.recovery_epoch, checkpoint.covered_default.0);
        self.line(
            "checkpoint",
            fields!({ "version": version, "recovery_epoch": epoch, "covered": covered, "replicas": replicas }),
        );
        for replica in &checkpoint.replicas {
            self.replica(replica);
        }
    }

    fn replica(&mut self, replica: &ReplicaCheckpoint) {
        let key = replica.replica;
        self.line(
            "replica",
            fields!({
                "topic_id": key.partition.topic_id.to_string(),
                "partition": key.partition.partition.0,
                "generation": key.generation.to_string(),
                "strict": replica.strict,
                "log_start_offset": replica.log_start.0,
                "end_offset": replica.end.0,
                "high_watermark": replica.high_watermark.0,
                "covered": replica.covered.map(|position| position.0),
                "last_block_bytes": replica.last_block.bytes,
                "last_block_crc": format!("{:08x}", replica.last_block.checksum),
            }),
        );
        for segment in &replica.segments {
            let (base, bytes, timestamp) = (segment.base.0, segment.bytes, segment.largest_timestamp.0);
            self.line("segment", fields!({ "base_offset": base, "bytes": bytes, "largest_timestamp": timestamp }));
        }
        for hole in replica.holes.list() {
            let (start, end, why) = (hole.start.0, hole.end.0, hole.why.to_string());
            self.line("hole", fields!({ "first_offset": start, "end_offset": end, "why": why }));
        }
        for start in &replica.epochs {
            self.line("epoch", fields!({ "leader_epoch": start.epoch.0, "start_offset": start.offset.0 }));
        }
        for producer in &replica.producers {
            let last = producer.batches.last();
            self.line(
                "producer",
                fields!({
                    "producer_id": producer.producer_id.0,
                    "producer_epoch": producer.epoch.0,
                    "last_timestamp": producer.last_timestamp.0,
                    "last_sequence": last.map(|batch| batch.last_sequence),
                    "last_offset": last.map(|batch| batch.last_offset.0),
                    "transaction_first_offset": producer.transaction_first_offset.map(|offset| offset.0),
                }),
            );
        }
    }

    fn scrub(&mut self, state: &ScrubState) {
        let (bytes, segments, damage) = (state.bytes_read, state.segments_read, state.damage_found);
        let written = state.written.0;
        self.line(
            "scrub",
            fields!({ "written": written, "bytes_read": bytes, "segments_read": segments, "damage_found": damage }),
        );
        if let Some(round) = state.round {
            let after = round.after.map(|after| format!("{}/{:020}", after.partition, after.base.0));
            self.line(
                "round",
                fields!({
                    "number": round.number,
                    "started": round.started.0,
                    "bytes_done": round.bytes_done,
                    "bytes_total": round.bytes_total,
                    "segments_done": round.segments_done,
                    "after": after,
                }),
            );
        }
        if let Some(last) = state.last {
            let (started, ended) = (last.started.0, last.ended.0);
            let (number, bytes, segments) = (last.number, last.bytes, last.segments);
            self.line(
                "last_round",
                fields!({ "number": number, "started": started, "ended": ended, "bytes": bytes, "segments": segments }),
            );
        }
        for known in &state.damage {
            let damage = &known.damage;
            self.line(
                "damage",
                fields!({
                    "segment": format!("{}/{:020}", known.segment.partition, known.segment.base.0),
                    "position": damage.position,
                    "bytes": damage.bytes,
                    "first_offset": damage.from.0,
                    "end_offset": damage.to.0,
                    "found": known.found.0,
                    "detail": damage.wrong.to_string(),
                }),
            );
        }
    }

    fn metadata(&mut self, path: &Path, base: &str) -> Result<(), DumpError> {
        let damaged = |what| DumpError::Damaged { path: path.to_owned(), what };
        let bytes = read_small_file(&RealDisk, path)?.ok_or_else(|| damaged("it does not exist".to_owned()))?;
        if base == "metadata.checkpoint" {
            let (version, from) = metadata::show_checkpoint(&bytes).map_err(damaged)?;
            let (position, epoch) = (from.position.0, from.recovery_epoch);
            self.line(
                "metadata_checkpoint",
                fields!({ "version": version, "replay_from": position, "recovery_epoch": epoch }),
            );
            return Ok(());
        }
        let (index, records) = metadata::show_snapshot(&bytes).map_err(damaged)?;
        self.line("metadata_snapshot", fields!({ "index": index, "records": records.len() }));
        for record in records {
            self.line("metadata_record", fields!({ "record": record }));
        }
        Ok(())
    }

    /// Prints one line.
    fn line(&mut self, what: &str, fields: Fields) {
        let printed = if self.output.is_json() {
            let mut object: Map<String, Value> =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            object.insert("file".to_owned(), json!(self.file));
            object.insert("what".to_owned(), json!(what));
            self.output.json_line(&object)
        } else {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
            self.output.line(&format!("{what} {}", fields.join(" ")))
        };
        if let Err(error) = printed {
            self.failed.get_or_insert(error);
        }
    }
}

/// For people: text without quotes where it is one plain word.
fn shown(value: &Value) -> String {
    let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"');
    match value {
        Value::String(text) if is_word(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Bytes as text where they are text, else as base64 under another name, so that both read back exactly.
fn put_bytes(fields: &mut Fields, [name, name_base64]: [&'static str; 2], bytes: Option<&[u8]>) {
    fields.push(match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (name, Value::Null),
        Some((_, Ok(text))) => (name, json!(text)),
        Some((bytes, Err(_))) => (name_base64, json!(STANDARD.encode(bytes))),
    });
}
