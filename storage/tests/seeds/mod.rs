//! The command line of a simulation: many seeds, in parallel, resuming from a ledger. `tests/simulate` calls it.
//!
//! Without arguments, as `cargo test` runs it, a small dose: some seeds, and a few of them twice for the same trace.
//! A failure prints its seed, and `--from SEED --seeds 1` repeats it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Coverage;

/// What is simulated.
pub(crate) struct Simulation {
    /// The test target's name, for `cargo test`'s filters.
    pub(crate) name: &'static str,
    /// The command that runs seeds of it.
    pub(crate) command: &'static str,
    /// How many seeds are lived without arguments, and how many of them twice.
    pub(crate) dose: (u64, u64),
    /// Seeds that are one line of the ledger.
    pub(crate) chunk: u64,
    /// From so many seeds on, each mark must have come up.
    pub(crate) marked_seeds_min: u64,
    /// What must have come up.
    pub(crate) marks: Vec<&'static str>,
    /// Lives a seed: what it did as a number, and what came up. Panics when something is broken.
    pub(crate) live: fn(u64) -> (u64, Coverage),
}

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
    fn read(simulation: &Simulation) -> Option<Arguments> {
        let (seeds, twice) = simulation.dose;
        let mut read = Arguments { seeds, from: 0, jobs: 1, twice, ledger: None, code: "unknown".to_owned() };
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
                    if !simulation.name.contains(filter) {
                        return None;
                    }
                }
            }
        }
        Some(read)
    }
}

/// Chunks of seeds that passed, with what came up in them.
struct Ledger<'a> {
    simulation: &'a Simulation,
    path: Option<String>,
    code: String,
    passed: BTreeMap<u64, Coverage>,
}

impl<'a> Ledger<'a> {
    fn open(simulation: &'a Simulation, arguments: &Arguments) -> Ledger<'a> {
        let (path, code) = (arguments.ledger.clone(), arguments.code.clone());
        let mut ledger = Ledger { simulation, path, code, passed: BTreeMap::new() };
        let text = ledger.path.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        text.lines().for_each(|line| ledger.read(line));
        ledger
    }

    /// A line: code, first seed, seed behind the last, "passed", then mark=count with tabs between. Others, of other code
    /// or cut short when the power went, are passed over.
    fn read(&mut self, line: &str) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [code, from, to, "passed", marks @ ..] = &fields[..] else { return };
        let (Ok(from), Ok(to)) = (from.parse::<u64>(), to.parse::<u64>()) else { return };
        if *code != self.code || to != from + self.simulation.chunk {
            return;
        }
        let mut coverage = Coverage::default();
        for (name, count) in marks.iter().filter_map(|mark| mark.split_once('=')) {
            let known = self.simulation.marks.iter().find(|known| **known == name);
            if let (Some(known), Ok(count)) = (known, count.parse()) {
                coverage.add(known, count);
            }
        }
        self.passed.insert(from, coverage);
    }

    fn note(&mut self, from: u64, coverage: Coverage) {
        if let Some(path) = &self.path {
            let mut line = format!("{}\t{from}\t{}\tpassed", self.code, from + self.simulation.chunk);
            coverage.iter().for_each(|(mark, count)| line.push_str(&format!("\t{mark}={count}")));
            line.push('\n');
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
        self.passed.insert(from, coverage);
    }
}

impl Simulation {
    /// Does what the command line asks; ends the process unless everything passed.
    pub(crate) fn run(&self) {
        let Some(arguments) = Arguments::read(self) else { return };
        let ledger = Mutex::new(Ledger::open(self, &arguments));
        let next = AtomicU64::new(arguments.from);
        let failed = AtomicBool::new(false);
        let end = arguments.from + arguments.seeds;
        std::thread::scope(|scope| {
            for _ in 0..arguments.jobs.max(1) {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let from = next.fetch_add(self.chunk, Ordering::Relaxed);
                        if from >= end {
                            return;
                        }
                        if ledger.lock().unwrap().passed.contains_key(&from) {
                            continue;
                        }
                        let Some(coverage) = self.live_chunk(from, end, &arguments) else {
                            return failed.store(true, Ordering::Relaxed);
                        };
                        let mut ledger = ledger.lock().unwrap();
                        match end >= from + self.chunk {
                            true => ledger.note(from, coverage),
                            false => drop(ledger.passed.insert(from, coverage)),
                        }
                    }
                });
            }
        });
        if failed.into_inner() {
            std::process::exit(1);
        }
        let mut all = Coverage::default();
        for (from, coverage) in &ledger.into_inner().unwrap().passed {
            if *from >= arguments.from && *from < end {
                all.merge(coverage);
            }
        }
        for mark in &self.marks {
            println!("{:>10}  {mark}", all.count(mark));
        }
        println!("{} seeds from {} on passed", arguments.seeds, arguments.from);
        let missed: Vec<&&str> = self.marks.iter().filter(|mark| all.count(mark) == 0).collect();
        if arguments.seeds >= self.marked_seeds_min && !missed.is_empty() {
            eprintln!("never came up: {missed:?}");
            std::process::exit(1);
        }
    }

    fn live_chunk(&self, from: u64, end: u64, arguments: &Arguments) -> Option<Coverage> {
        let mut coverage = Coverage::default();
        for seed in from..end.min(from + self.chunk) {
            coverage.merge(&self.live_one(seed, seed - arguments.from < arguments.twice)?);
        }
        Some(coverage)
    }

    /// Lives a seed, or says that it failed.
    fn live_one(&self, seed: u64, twice: bool) -> Option<Coverage> {
        let lived = catch_unwind(|| {
            let (trace, coverage) = (self.live)(seed);
            if twice {
                assert_eq!((self.live)(seed).0, trace, "seed {seed}: the same seed did something else");
            }
            coverage
        });
        if lived.is_err() {
            eprintln!("seed {seed} failed; again: {} --from {seed} --seeds 1", self.command);
        }
        lived.ok()
    }
}
