//! Many seeds of the simulated cluster (`cluster/`), in parallel, resuming from a ledger. `tests/simulate --cluster`
//! calls it.
//!
//! Without arguments, as `cargo test` runs it, a small dose: some seeds, and a few of them twice for the same trace.
//! A failure prints its seed, and `--from SEED --seeds 1` repeats it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster;
#[path = "../../storage/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cluster::coverage::Coverage;
use cluster::faults;

/// Seeds that are one line of the ledger.
const CHUNK: u64 = 20;
/// From so many seeds on, each mark must have come up.
const MARKED_SEEDS_MIN: u64 = 200;

const ACKNOWLEDGED: &str = "acknowledged batches";

struct Arguments {
    seeds: u64,
    from: u64,
    jobs: usize,
    /// How many of the seeds are lived twice.
    twice: u64,
    ledger: Option<String>,
    /// What the code under test is called in the ledger.
    code: String,
}

impl Arguments {
    /// `None` when a filter of `cargo test` means other tests.
    fn read() -> Option<Arguments> {
        let mut read = Arguments { seeds: 6, from: 0, jobs: 1, twice: 1, ledger: None, code: "unknown".to_owned() };
        let mut arguments = std::env::args().skip(1);
        let number = |value: Option<String>, name: &str| {
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} takes a number"))
        };
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--seeds" => read.seeds = number(arguments.next(), "--seeds"),
                "--from" => read.from = number(arguments.next(), "--from"),
                "--jobs" => read.jobs = number(arguments.next(), "--jobs") as usize,
                "--twice" => read.twice = number(arguments.next(), "--twice"),
                "--ledger" => read.ledger = arguments.next(),
                "--code" => read.code = arguments.next().expect("--code takes a name"),
                "--list" => return None,
                flag if flag.starts_with('-') => {}
                filter => {
                    if !"cluster_simulate".contains(filter) {
                        return None;
                    }
                }
            }
        }
        Some(read)
    }
}

fn all_marks() -> impl Iterator<Item = &'static str> {
    faults::MARKS.into_iter().chain([ACKNOWLEDGED])
}

/// Chunks of seeds that passed, with what came up in them.
fn read_ledger(arguments: &Arguments) -> BTreeMap<u64, Coverage> {
    let text = arguments.ledger.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let mut passed = BTreeMap::new();
    for line in text.lines() {
        // code, first seed, seed behind the last, "passed", then mark=count with tabs between.
        let fields: Vec<&str> = line.split('\t').collect();
        let [code, from, to, "passed", marks @ ..] = &fields[..] else { continue };
        let (Ok(from), Ok(to)) = (from.parse::<u64>(), to.parse::<u64>()) else { continue };
        if *code != arguments.code || to != from + CHUNK {
            continue;
        }
        let mut coverage = Coverage::default();
        for (name, count) in marks.iter().filter_map(|mark| mark.split_once('=')) {
            let known = all_marks().find(|known| *known == name);
            if let (Some(known), Ok(count)) = (known, count.parse()) {
                coverage.add(known, count);
            }
        }
        passed.insert(from, coverage);
    }
    passed
}

fn note(arguments: &Arguments, from: u64, coverage: &Coverage) {
    let Some(path) = &arguments.ledger else { return };
    let mut line = format!("{}\t{from}\t{}\tpassed", arguments.code, from + CHUNK);
    coverage.iter().for_each(|(mark, count)| line.push_str(&format!("\t{mark}={count}")));
    line.push('\n');
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// Lives a seed, or says that it failed.
fn live(seed: u64, twice: bool) -> Option<Coverage> {
    let lived = catch_unwind(|| {
        let cluster = faults::live(seed);
        if twice {
            assert_eq!(faults::live(seed).trace(), cluster.trace(), "seed {seed}: the same seed did something else");
        }
        cluster.coverage
    });
    if lived.is_err() {
        eprintln!("seed {seed} failed; again: tests/simulate --cluster --from {seed} --seeds 1");
    }
    lived.ok()
}

fn main() {
    let Some(arguments) = Arguments::read() else { return };
    let passed = Mutex::new(read_ledger(&arguments));
    let next = AtomicU64::new(arguments.from);
    let failed = AtomicBool::new(false);
    let end = arguments.from + arguments.seeds;
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let from = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if from >= end {
                        return;
                    }
                    if passed.lock().unwrap().contains_key(&from) {
                        continue;
                    }
                    let mut coverage = Coverage::default();
                    for seed in from..end.min(from + CHUNK) {
                        match live(seed, seed - arguments.from < arguments.twice) {
                            Some(one) => coverage.merge(&one),
                            None => {
                                failed.store(true, Ordering::Relaxed);
                                return;
                            }
                        }
                    }
                    let mut passed = passed.lock().unwrap();
                    if end >= from + CHUNK {
                        note(&arguments, from, &coverage);
                    }
                    passed.insert(from, coverage);
                }
            });
        }
    });
    if failed.into_inner() {
        std::process::exit(1);
    }
    let mut all = Coverage::default();
    for (from, coverage) in &passed.into_inner().unwrap() {
        if *from >= arguments.from && *from < end {
            all.merge(coverage);
        }
    }
    for mark in all_marks() {
        println!("{:>10}  {mark}", all.count(mark));
    }
    println!("{} seeds from {} on passed", arguments.seeds, arguments.from);
    let missed: Vec<&str> = all_marks().filter(|mark| all.count(mark) == 0).collect();
    if arguments.seeds >= MARKED_SEEDS_MIN && !missed.is_empty() {
        eprintln!("never came up: {missed:?}");
        std::process::exit(1);
    }
}
