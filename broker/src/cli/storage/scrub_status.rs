//! `stonelog storage scrub-status`: the state that a broker's scrub writes into its data directory, for people.
//!
//! A status file, not a request: Kafka's protocol has no word for a scrub, and the file is there when the broker is not.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use stonelog_storage::disk::RealDisk;
use stonelog_storage::scrub::{KnownDamage, ScrubState};
use stonelog_storage::segment::SegmentFile;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use super::{Holder, hold, output_of};

/// What the scrub of a running or stopped broker has read and found, as of the last time it wrote that down (at most a
/// minute ago while it reads).
#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
    0  no damage is known
    1  damage is known
    2  wrong usage
    3  no scrub has begun there")]
pub(crate) struct ScrubStatus {
    /// Data directories.
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Print JSON; the same as `--output json`.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Statuses {
    directories: Vec<StatusJson>,
}

#[derive(Serialize)]
struct StatusJson {
    directory: String,
    broker_running: bool,
    written_ms: i64,
    bytes_read: u64,
    segments_read: u64,
    damage_found: u64,
    round: Option<RoundJson>,
    last_round: Option<LastRoundJson>,
    damage: Vec<DamageJson>,
}

#[derive(Serialize)]
struct RoundJson {
    number: u64,
    started_ms: i64,
    bytes_done: u64,
    bytes_total: u64,
    segments_done: u64,
}

#[derive(Serialize)]
struct LastRoundJson {
    number: u64,
    started_ms: i64,
    ended_ms: i64,
    bytes: u64,
    segments: u64,
}

#[derive(Serialize)]
struct DamageJson {
    path: String,
    topic_id: String,
    partition: i32,
    position: u64,
    bytes: u64,
    first_offset: i64,
    end_offset: i64,
    found_ms: i64,
    detail: String,
}

impl ScrubStatus {
    pub(super) fn run(self, output: Output) -> Result<Exit, Failure> {
        let output = output_of(output, self.json);
        let mut directories = Vec::new();
        let mut damaged = false;
        for directory in &self.directories {
            let is_running = matches!(hold(directory)?, Holder::Another);
            let state = ScrubState::read_if_whole(&RealDisk, directory)
                .map_err(|fault| Failure::new(Exit::Failed, fault.to_string()))?;
            let Some(state) = state else {
                let what = format!("{}: no scrub has begun there", directory.display());
                return Err(Failure::new(Exit::NotFound, what).hint(
                    "a broker begins one some time after its start, unless stonelog.scrub.interval.ms is 0; \
                     `stonelog storage check` reads a directory now",
                ));
            };
            damaged |= !state.damage.is_empty();
            if output.is_json() {
                directories.push(in_json(directory, is_running, &state));
            } else {
                print(directory, is_running, &state, output)?;
            }
        }
        if output.is_json() {
            output.document("storage.scrub-status/1", &Statuses { directories })?;
        }
        Ok(if damaged { Exit::Failed } else { Exit::Done })
    }
}

fn print(directory: &Path, is_running: bool, state: &ScrubState, output: Output) -> Result<(), Failure> {
    let running = if is_running { "the broker runs" } else { "no broker runs" };
    output.line(&format!("{}: {running}", directory.display()))?;
    if let Some(round) = state.round {
        let percent = round.bytes_done as f64 * 100.0 / round.bytes_total.max(1) as f64;
        output.line(&format!(
            "  round {}: {percent:.1} %, {} of {} bytes, {} segments, begun at {}",
            round.number, round.bytes_done, round.bytes_total, round.segments_done, round.started.0
        ))?;
    }
    match state.last {
        Some(last) => output.line(&format!(
            "  last whole round {}: {} bytes, {} segments, {} to {}",
            last.number, last.bytes, last.segments, last.started.0, last.ended.0
        ))?,
        None => output.line("  no round is over yet")?,
    }
    output.line(&format!(
        "  since the beginning: {} bytes, {} segments, {} places of damage found",
        state.bytes_read, state.segments_read, state.damage_found
    ))?;
    for known in &state.damage {
        let damage = &known.damage;
        output.line(&format!(
            "damage {} at byte {}, {} bytes, offsets {}..{}, found at {}: {}",
            path(directory, known).display(),
            damage.position,
            damage.bytes,
            damage.from,
            damage.to,
            known.found.0,
            damage.wrong
        ))?;
    }
    Ok(())
}

fn path(directory: &Path, known: &KnownDamage) -> PathBuf {
    directory.join(known.segment.path(SegmentFile::Log))
}

fn in_json(directory: &Path, broker_running: bool, state: &ScrubState) -> StatusJson {
    StatusJson {
        directory: directory.display().to_string(),
        broker_running,
        written_ms: state.written.0,
        bytes_read: state.bytes_read,
        segments_read: state.segments_read,
        damage_found: state.damage_found,
        round: state.round.map(|round| RoundJson {
            number: round.number,
            started_ms: round.started.0,
            bytes_done: round.bytes_done,
            bytes_total: round.bytes_total,
            segments_done: round.segments_done,
        }),
        last_round: state.last.map(|last| LastRoundJson {
            number: last.number,
            started_ms: last.started.0,
            ended_ms: last.ended.0,
            bytes: last.bytes,
            segments: last.segments,
        }),
        damage: state
            .damage
            .iter()
            .map(|known| DamageJson {
                path: path(directory, known).display().to_string(),
                topic_id: known.segment.partition.topic_id.to_string(),
                partition: known.segment.partition.partition.0,
                position: known.damage.position,
                bytes: known.damage.bytes,
                first_offset: known.damage.from.0,
                end_offset: known.damage.to.0,
                found_ms: known.found.0,
                detail: known.damage.wrong.to_string(),
            })
            .collect(),
    }
}
