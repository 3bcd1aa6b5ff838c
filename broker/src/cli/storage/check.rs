//! `stonelog storage check`: is everything there, and is it what was written?

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use stonelog_replication::quorum::inspect;
use stonelog_storage::disk::{Disk as _, RealDisk};
use stonelog_storage::scrub::{Access, CheckOptions, Depth, Finding, Progress, ReplicaReport, Report, check_log_dir};

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use super::super::progress;
use super::{Holder, hold, output_of};
use crate::client::clock::now;

/// A check that is over sooner shows no progress.
const QUIET: Duration = Duration::from_millis(500);

/// Reads past the page cache: identity, checkpoint, journal, segments with their block checksums and batch CRCs,
/// indexes, metadata log. Only reads.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
    0  whole: no damage (what a crash leaves by design is none)
    1  damage was found, or the directory could not be read
    2  wrong usage
    3  no such directory
    8  a running broker has the directory open (see --online)")]
pub(crate) struct Check {
    /// Data directories.
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Check below a running broker: only what does not move under it, sealed segments and small files.
    #[arg(long)]
    online: bool,
    /// Decompress every batch and look at every record too.
    #[arg(long)]
    records: bool,
    /// Print JSON; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Checked {
    directories: Vec<DirectoryJson>,
}

#[derive(Serialize)]
struct DirectoryJson {
    directory: String,
    whole: bool,
    online: bool,
    files: u64,
    bytes: u64,
    findings: Vec<FindingJson>,
    findings_omitted: u64,
    replicas: Vec<ReplicaJson>,
}

#[derive(Serialize)]
struct FindingJson {
    severity: &'static str,
    kind: &'static str,
    path: String,
    position: Option<u64>,
    bytes: Option<u64>,
    topic_id: Option<String>,
    partition: Option<i32>,
    first_offset: Option<i64>,
    end_offset: Option<i64>,
    detail: String,
}

#[derive(Serialize)]
struct ReplicaJson {
    topic_id: String,
    partition: i32,
    strict: bool,
    log_start_offset: i64,
    segments_end_offset: i64,
    log_end_offset: i64,
    segments: u64,
    bytes: u64,
    batches: u64,
    damage: u64,
}

impl Check {
    pub(super) fn run(self, output: Output) -> Result<Exit, Failure> {
        let output = output_of(output, self.json);
        let mut directories = Vec::new();
        let mut whole = true;
        for directory in &self.directories {
            let (access, report) = self.check(directory)?;
            whole &= report.is_whole();
            if output.is_json() {
                directories.push(in_json(directory, access, &report));
            } else {
                print(directory, access, &report, output)?;
            }
        }
        if output.is_json() {
            output.document("storage.check/1", &Checked { directories })?;
        }
        Ok(if whole { Exit::Done } else { Exit::Failed })
    }

    fn check(&self, directory: &Path) -> Result<(Access, Report), Failure> {
        let holder = hold(directory)?;
        let access = match holder {
            Holder::Another if self.online => Access::Online,
            Holder::Another => {
                let what = format!("{} is in use by a running broker", directory.display());
                return Err(Failure::new(Exit::Precondition, what).hint(
                    "stop the broker, or add --online to check sealed segments and small files only; \
                     `stonelog storage scrub-status DIR` shows what its own scrub found",
                ));
            }
            Holder::Unknown => {
                note!("{}: no right to lock it; a broker that writes meanwhile looks like damage", directory.display());
                Access::Offline
            }
            Holder::Us(_) | Holder::Nobody => Access::Offline,
        };
        let depth = if self.records { Depth::Records } else { Depth::Batches };
        let mut bar = LateBar { begun: now(), bar: None };
        let report = check_log_dir(&RealDisk, directory, CheckOptions { access, depth }, &mut |at| bar.show(at));
        bar.end();
        let mut report = report.map_err(|fault| Failure::new(Exit::Failed, fault.to_string()))?;
        let metadata = directory.join("metadata");
        if access == Access::Offline && RealDisk.exists(&metadata)? {
            inspect::check(&RealDisk, &metadata, &mut report);
        }
        Ok((access, report))
    }
}

/// A progress bar that comes only when somebody has had to wait.
struct LateBar {
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl LateBar {
    fn show(&mut self, at: Progress) {
        if self.bar.is_none() && now() - self.begun < QUIET {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| progress::bytes("checking", at.bytes_total));
        bar.set_position(at.bytes_done);
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn print(directory: &Path, access: Access, report: &Report, output: Output) -> Result<(), Failure> {
    let headings = ["replica", "mode", "start", "end", "segments", "bytes", "batches", "damage"];
    let row = |replica: &ReplicaReport| {
        vec![
            replica.partition.to_string(),
            if replica.strict { "strict" } else { "relaxed" }.to_owned(),
            replica.log_start.to_string(),
            replica.log_end.to_string(),
            replica.segments_count.to_string(),
            replica.bytes.to_string(),
            replica.batches_count.to_string(),
            replica.damage_count.to_string(),
        ]
    };
    if !report.replicas.is_empty() {
        output.table(&headings, &[2, 3, 4, 5, 6, 7], report.replicas.iter().map(row).collect())?;
    }
    for finding in &report.findings {
        output.line(&finding.to_string())?;
    }
    if report.omitted_count > 0 {
        output.line(&format!("and {} findings more", report.omitted_count))?;
    }
    let verdict = if report.is_whole() { "whole" } else { "DAMAGED" };
    let left_out = match access {
        Access::Online => "; a broker runs: its journal and active segments were left out",
        Access::Offline => "",
    };
    let (replicas, files, bytes) = (report.replicas.len(), report.files_count, report.bytes);
    let counts = format!("{replicas} replicas, {files} files, {bytes} bytes read");
    output.line(&format!("{}: {verdict} ({counts}{left_out})", directory.display()))?;
    Ok(())
}

fn in_json(directory: &Path, access: Access, report: &Report) -> DirectoryJson {
    DirectoryJson {
        directory: directory.display().to_string(),
        whole: report.is_whole(),
        online: access == Access::Online,
        files: report.files_count,
        bytes: report.bytes,
        findings: report.findings.iter().map(finding_in_json).collect(),
        findings_omitted: report.omitted_count,
        replicas: report.replicas.iter().map(replica_in_json).collect(),
    }
}

fn finding_in_json(finding: &Finding) -> FindingJson {
    FindingJson {
        severity: finding.severity.name(),
        kind: finding.kind.name(),
        path: finding.path.display().to_string(),
        position: finding.position,
        bytes: finding.bytes,
        topic_id: finding.partition.map(|partition| partition.topic_id.to_string()),
        partition: finding.partition.map(|partition| partition.partition.0),
        first_offset: finding.offsets.map(|(from, _)| from.0),
        end_offset: finding.offsets.map(|(_, to)| to.0),
        detail: finding.detail.clone(),
    }
}

fn replica_in_json(replica: &ReplicaReport) -> ReplicaJson {
    ReplicaJson {
        topic_id: replica.partition.topic_id.to_string(),
        partition: replica.partition.partition.0,
        strict: replica.strict,
        log_start_offset: replica.log_start.0,
        segments_end_offset: replica.segments_end.0,
        log_end_offset: replica.log_end.0,
        segments: replica.segments_count,
        bytes: replica.bytes,
        batches: replica.batches_count,
        damage: replica.damage_count,
    }
}
