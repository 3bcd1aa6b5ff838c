//! A process that keeps one log directory busy with the storage crate alone, and says what it promised.
//!
//! It starts on the directory, reads all of it back and says what it found, then appends, truncates, deletes, flushes,
//! checkpoints and recycles until it is killed. It judges bytes only; whether everything promised is there is for
//! whoever reads its output ([`super::promises`]). Lines:
//!
//! ```text
//! log <partition> <strict|relaxed> <start> <end> <stamp at the promised end, or -> <stamp at the end, or -> <verdict>
//! wrong <text>                       a byte that nobody wrote there, or derived state that does not fit
//! damage <text>                      a read was refused
//! ready
//! w <partition> <end>                written: survives the end of the process
//! a <partition> <end> <stamp>        acknowledged: survives the power
//! s <partition> <start>              everything below may be gone
//! full <text>                        no space; it goes on trying
//! fault <text>                       the disk failed; the last line
//! ```

mod batch;
mod directory;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use stonelog_protocol::Offset;
use stonelog_protocol::batch::BatchHeader;
use stonelog_storage::Fault;
use stonelog_storage::log::Read;
use stonelog_storage::recovery::Verdict;
use stonelog_storage::segment::read::ReadDone;

use crate::random::Random;
use batch::Origin;
use directory::Directory;

/// Strict logs whose durable batches are acknowledged at once; then one that is truncated; then relaxed ones.
pub const STRICT: [bool; 8] = [true, true, true, true, true, true, false, false];
/// Its acknowledgements lag, and what lies above them is cut off now and then.
const TRUNCATED: usize = 5;
/// A log larger than this loses its older half.
const LOG_BYTES_MAX: u64 = 500 << 10;
/// Exit code after a fault of the disk.
pub const FAULT_EXIT_CODE: u8 = 3;
/// A full disk is tried again after this.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// Arguments of the process.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The log directory.
    #[arg(long)]
    pub directory: PathBuf,
    /// What batches are made from, over all lives.
    #[arg(long)]
    pub seed: u64,
    /// How often it was started before.
    #[arg(long)]
    pub life: i32,
    /// Where each partition's promise ended.
    #[arg(long, value_delimiter = ',')]
    pub promised: Vec<i64>,
    /// Only say what is there.
    #[arg(long)]
    pub check: bool,
}

/// Runs until it is killed, or the disk fails.
pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let mut directory = Directory::open(&arguments.directory, &STRICT)?;
    let mut out = Output::default();
    for at in 0..directory.logs.len() {
        look(&mut directory, at, arguments, &mut out);
    }
    out.line("ready");
    out.send();
    if arguments.check {
        return Ok(());
    }
    let mut writer =
        Writer { announced: Vec::new(), starts: Vec::new(), stamps: Default::default(), stamp: 0, arguments, out };
    writer.announced = directory.logs.iter().map(|log| log.log_end()).collect();
    writer.starts = directory.logs.iter().map(|log| log.log_start()).collect();
    let mut random = Random::new(arguments.seed ^ (arguments.life as u64) << 32);
    loop {
        match writer.step(&mut directory, &mut random) {
            Err(fault) if fault.is_out_of_space() => {
                writer.out.line(&format!("full {fault}"));
                writer.out.send();
                std::thread::sleep(TRY_AGAIN);
            }
            other => other?,
        }
    }
}

/// Says `fault` and returns the exit code that means it.
pub fn end_with(fault: &Fault) -> u8 {
    println!("fault {fault}");
    FAULT_EXIT_CODE
}

/// Lines that wait to be sent together.
#[derive(Debug, Default)]
struct Output {
    lines: String,
}

impl Output {
    fn line(&mut self, line: &str) {
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    fn send(&mut self) {
        let mut stdout = std::io::stdout().lock();
        // Nobody listens any more: then nobody is promised anything.
        let sent = stdout.write_all(self.lines.as_bytes()).and_then(|()| stdout.flush());
        self.lines.clear();
        if sent.is_err() {
            std::process::exit(0);
        }
    }
}

/// Reads a log back and says what it holds.
fn look(directory: &mut Directory, at: usize, arguments: &Arguments, out: &mut Output) {
    let Directory { logs, access, .. } = directory;
    let log = &mut logs[at];
    let promised = arguments.promised.get(at).copied();
    let (mut next, mut life, mut stamp) = (log.log_start(), 0, -1);
    let mut promised_stamp = None;
    let mut wrong = Vec::new();
    'reading: while next < log.log_end() {
        let batches = match log.read(next, log.log_end(), 256 << 10, true) {
            Read::Ready(batches, _) => batches.concat(),
            Read::Job(job) => match job.run(access) {
                Ok(ReadDone::Batches { batches, .. }) => batches.concat(),
                Ok(ReadDone::Damaged(hole)) => {
                    out.line(&format!("damage partition {at} at {next}: {hole:?}"));
                    next = hole.end;
                    continue;
                }
                Ok(ReadDone::Moved) => {
                    wrong.push(format!("offset {next} is said to be elsewhere"));
                    break;
                }
                Err(fault) => {
                    out.line(&format!("damage partition {at} at {next}: {fault}"));
                    // As the broker does: the rest of the segment is served around the damage.
                    let surveyed = log.plan_survey(next).and_then(|job| job.run(access).ok());
                    if surveyed.is_some_and(|surveyed| !log.on_surveyed(&surveyed).is_empty()) {
                        continue;
                    }
                    break;
                }
            },
            Read::Damaged(hole) => {
                out.line(&format!("damage partition {at} at {next}: {hole:?}"));
                next = hole.end;
                continue;
            }
            other => {
                wrong.push(format!("offset {next} of {}: {other:?}", log.log_end()));
                break;
            }
        };
        let mut rest = &batches[..];
        if rest.is_empty() {
            wrong.push(format!("nothing at {next} of {}", log.log_end()));
            break;
        }
        while !rest.is_empty() {
            let Ok(header) = BatchHeader::read(rest) else {
                wrong.push(format!("no batch at {next}"));
                break 'reading;
            };
            let found = &rest[..header.batch_bytes];
            rest = &rest[header.batch_bytes..];
            let origin = Origin {
                seed: arguments.seed,
                partition: at as i32,
                // A log may begin within its first batch.
                base: if next == log.log_start() { header.base_offset } else { next },
                life: header.leader_epoch.0,
                stamp: header.max_timestamp.0,
            };
            wrong.extend(origin.difference(&header, found).map(|why| format!("the batch at {next}: {why}")));
            if (origin.life, origin.stamp) <= (life, stamp) {
                wrong.push(format!(
                    "the batch at {next} is older than the one before: {origin:?} after {life}, {stamp}"
                ));
            }
            if log.epochs().epoch_at(header.base_offset.max(log.log_start())) != Some(header.leader_epoch) {
                wrong.push(format!("the batch at {next} is of epoch {}, not as {:?} say", origin.life, log.epochs()));
            }
            (life, stamp) = (origin.life, origin.stamp);
            next = header.next_offset();
            if promised == Some(next.0) {
                promised_stamp = Some(stamp);
            }
        }
    }
    let producer = log.producers().get(Origin::producer(at as i32)).and_then(|state| state.batches().last().copied());
    // What lies in a hole is unknown, also to the producers.
    if log.holes().is_empty()
        && next == log.log_end()
        && next > log.log_start()
        && producer.map(|last| last.last_offset.0 + 1) != Some(next.0)
    {
        wrong.push(format!("the log ends at {next}, its producer at {producer:?}"));
    }
    for why in wrong {
        out.line(&format!("wrong partition {at}: {why}"));
    }
    let mode = if log.is_strict() { "strict" } else { "relaxed" };
    let text = |stamp: Option<i64>| stamp.map_or("-".to_owned(), |stamp| stamp.to_string());
    let stamps = [text(promised_stamp), text(Some(stamp).filter(|stamp| *stamp >= 0))].join(" ");
    let verdict = match directory.verdicts[at] {
        Verdict::Proved => "proved".to_owned(),
        Verdict::Cut => "cut".to_owned(),
        Verdict::Damaged => "damaged".to_owned(),
        Verdict::Lost(loss) => format!("lost:{loss:?}").replace(' ', ""),
    };
    out.line(&format!("log {at} {mode} {} {} {stamps} {verdict}", log.log_start(), log.log_end()));
}

/// What goes on after the start.
struct Writer<'a> {
    /// The end last announced as durable, for each log.
    announced: Vec<Offset>,
    /// The log start last announced.
    starts: Vec<Offset>,
    /// The stamps of the batches that were appended and not announced, by where they end.
    stamps: [BTreeMap<i64, i64>; STRICT.len()],
    stamp: i64,
    arguments: &'a Arguments,
    out: Output,
}

impl Writer<'_> {
    /// Does one thing.
    fn step(&mut self, directory: &mut Directory, random: &mut Random) -> Result<(), Fault> {
        let at = random.below(STRICT.len() as u64) as usize;
        match random.below(100) {
            0..55 => {
                for _ in 0..1 + random.below(3) {
                    self.stamp += 1;
                    if directory.append(at, self.arguments.seed, self.arguments.life, self.stamp) {
                        self.stamps[at].insert(directory.logs[at].log_end().0, self.stamp);
                    }
                }
            }
            55..80 => {
                self.write(directory)?;
                directory.sync()?;
                self.announce(directory, random);
            }
            80..84 => self.write(directory)?,
            84..92 => directory.flush(at)?,
            92..94 => {
                for at in 0..STRICT.len() {
                    directory.flush(at)?;
                }
                directory.checkpoint()?;
            }
            94 => directory.prepare_spare()?,
            95 => drop(directory.logs[at].evict(random.below(20_000))),
            96 => {
                // Only what nobody was told of.
                directory.truncate(TRUNCATED, self.announced[TRUNCATED])?;
                self.stamps[TRUNCATED].clear();
            }
            97 => directory.idle()?,
            _ => self.delete(directory, at, random),
        }
        if directory.wants_room() {
            self.write(directory)?;
            directory.sync()?;
            for at in 0..STRICT.len() {
                directory.flush(at)?;
            }
            directory.checkpoint()?;
        }
        Ok(())
    }

    fn write(&mut self, directory: &mut Directory) -> Result<(), Fault> {
        directory.write()?;
        for (at, log) in directory.logs.iter().enumerate().filter(|(_, log)| !log.is_strict()) {
            if log.written() > self.announced[at] {
                self.out.line(&format!("w {at} {}", log.written()));
            }
        }
        self.out.send();
        Ok(())
    }

    /// Tells of everything that is durable; of the truncated log only now and then.
    fn announce(&mut self, directory: &Directory, random: &mut Random) {
        for (at, log) in directory.logs.iter().enumerate() {
            let lags = at == TRUNCATED && (log.is_changing() || random.below(4) != 0);
            if log.durable() > self.announced[at] && !lags {
                self.announced[at] = log.durable();
                let stamp = self.stamps[at].get(&log.durable().0).expect("batches end where they were appended");
                self.out.line(&format!("a {at} {} {stamp}", log.durable()));
                self.stamps[at] = self.stamps[at].split_off(&(log.durable().0 + 1));
            }
        }
        self.out.send();
    }

    /// Deletes the older half of a log that has grown large.
    fn delete(&mut self, directory: &mut Directory, at: usize, random: &mut Random) {
        let log = &directory.logs[at];
        if log.size_bytes() < LOG_BYTES_MAX || log.is_changing() {
            return;
        }
        let (start, end) = (log.log_start().0, self.announced[at].0);
        let to = Offset(start + (end - start).max(0) / 2 + random.below(4) as i64).min(self.announced[at]);
        if to > self.starts[at] {
            self.starts[at] = to;
            // Said before it is done: from here on nobody is promised what lies below.
            self.out.line(&format!("s {at} {to}"));
            self.out.send();
            directory.advance_log_start(at, to);
        }
    }
}

/// Reads the arguments, runs, and says how it ended.
pub fn main() -> Result<u8> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.directory).context("no log directory")?;
    Ok(match run(&arguments) {
        Ok(()) => 0,
        Err(fault) => end_with(&fault),
    })
}
