//! Three brokers, and everything that goes wrong with machines, disks and networks, under load: nothing acknowledged may
//! be lost, doubled or reordered, and no committed offset may go back.
//!
//! Loads write with idempotent producers and read with consumer groups: one on a strict topic, one on a relaxed one,
//! and a stock client where its suite is installed. After each fault everybody must get on; after some, and at the end,
//! every partition must have all its replicas in sync again. At the end each load's checker judges.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use stonelog_tests::cluster::NODES;
use stonelog_tests::cluster::disk::SlowDisk;
use stonelog_tests::cluster::faults::{Allowed, Fault};
use stonelog_tests::cluster::flips::{self, Flips};
use stonelog_tests::cluster::ground::Ground;
use stonelog_tests::cluster::loads::Loads;
use stonelog_tests::cluster::nodes::{self, Nodes};
use stonelog_tests::load;
use stonelog_tests::random::Random;
use stonelog_tests::{binary, clock};

/// Breaks a cluster of three in every way for a while, and checks that nothing acknowledged is lost.
#[derive(Debug, Parser)]
struct Options {
    /// How long things go wrong.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// The same in seconds.
    #[arg(long, conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// So many faults, however long they take.
    #[arg(long, conflicts_with_all = ["minutes", "seconds"])]
    faults: Option<u64>,
    /// Chooses what goes wrong and when; a fresh one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Take disks away as well.
    #[arg(long)]
    wipe: bool,
    /// Bits that flip on the nodes' disks, instead of everything else.
    #[arg(long, conflicts_with_all = ["minutes", "seconds", "faults", "wipe", "only"])]
    flips: Option<u64>,
    /// Let wall clocks jump as well: the nodes are of the build with switches.
    #[arg(long)]
    clocks: bool,
    /// Only this fault, by its name (`Kill`, `Isolate`, …).
    #[arg(long)]
    only: Option<String>,
    /// Everything on loopback: nothing but kills and pauses.
    #[arg(long)]
    loopback: bool,
    /// Fail, instead of saying so, when there is no network to break or no stock client.
    #[arg(long)]
    need_all: bool,
}

/// Batches of each load that must be acknowledged after a fault.
const BATCHES_PER_FAULT: u64 = 20;
/// Longest peace between two faults.
const PEACE_MS: u64 = 1_000;
/// After one fault in so many all replicas must be in sync again before the next.
const WHOLE_EVERY: u64 = 4;
/// Another choice of a fault that was asked for by name comes up within these.
const CHOICES_MAX: u32 = 10_000;

fn main() -> ExitCode {
    let options = Options::parse();
    // Before there is a second thread.
    let ground = match ground(&options) {
        Ok(ground) => ground,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match run(&options, ground) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ground(options: &Options) -> Result<Ground> {
    if options.loopback {
        return Ground::loopback();
    }
    match Ground::namespaces() {
        Ok(ground) => Ok(ground),
        Err(error) if options.need_all => Err(error),
        Err(error) => {
            println!(
                "WARNING: no network namespaces ({error:#}): NOTHING IS CUT OFF OR SLOWED DOWN, only killed and paused"
            );
            Ground::loopback()
        }
    }
}

fn run(options: &Options, ground: Ground) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ (clock::seed() << 16));
    let directory = tempfile::Builder::new().prefix("stonelog-cluster-").tempdir()?;
    let outcome = run_in(directory.path(), options, ground, seed);
    outcome.map_err(|error| error.context(format!("seed {seed}, everything is kept in {}", directory.keep().display())))
}

fn start_loads(options: &Options, nodes: &Nodes, binary: &Path, directory: &Path) -> Result<Loads> {
    let load = |name: &str, producers: u32, topic_settings: &[&str]| load::Spec {
        name: name.to_owned(),
        binary: binary.to_owned(),
        brokers: nodes.bootstrap(),
        topic_settings: topic_settings.iter().map(|setting| (*setting).to_owned()).collect(),
        partitions: 6,
        producers,
        groups: 1,
        directory: directory.to_owned(),
    };
    let own = vec![load("strict", 3, &[]), load("relaxed", 1, &["flush.messages=10000"])];
    let loads = Loads::start(own, &nodes.bootstrap(), directory)?;
    match loads.stock_version() {
        Some(version) => println!("stock client: {version}"),
        None if options.need_all => bail!("the stock client is not installed"),
        None => println!("SKIPPED: the stock client is not installed; compat-tests/confluent-kafka-python/run install"),
    }
    Ok(loads)
}

/// Ends the loads and judges what they did.
fn finish(loads: Loads, binary: &Path, brokers: &str) -> Result<()> {
    let verdicts = loads.finish(binary, brokers)?;
    for verdict in &verdicts {
        if verdict.is_sound {
            let (records, commits) = (verdict.acknowledged, verdict.commits);
            println!("sound: {}: {records} records acknowledged, {commits} commits", verdict.name);
        } else {
            println!("{}", verdict.report);
        }
    }
    if !verdicts.iter().all(|verdict| verdict.is_sound) {
        bail!("acknowledged records or commits were lost, doubled or reordered");
    }
    Ok(())
}

fn run_in(directory: &Path, options: &Options, ground: Ground, seed: u64) -> Result<()> {
    let binary = if options.clocks { binary::mutant_binary()? } else { binary::release_binary()? };
    let mut random = Random::new(seed);
    if let Some(flips) = options.flips {
        println!("cluster: {flips} flips, seed {seed}, {}", binary.display());
        return flip(directory, options, ground, random, flips);
    }
    let lasts = Duration::from_secs(options.seconds.unwrap_or(60 * options.minutes));
    let extent = options.faults.map_or_else(|| format!("{lasts:?}"), |faults| format!("{faults} faults"));
    let allowed = Allowed {
        network: ground.has_network(),
        slow_disk: SlowDisk::is_possible(directory),
        wipe: options.wipe || options.only.as_deref() == Some("Wipe"),
        clocks: options.clocks,
    };
    println!("cluster: {extent}, seed {seed}, {allowed:?}, {}", binary.display());
    let mut nodes = Nodes::start(ground, nodes::Plan::new(binary.clone(), directory))?;
    let mut loads = start_loads(options, &nodes, &binary, directory)?;
    // Everyone is at work before the first fault.
    loads.get_on(1, 1)?;
    let (begun, mut count, mut slowest, mut longest) = (clock::now(), 0u64, Duration::ZERO, Duration::ZERO);
    let mut struck: BTreeMap<String, (u32, Duration)> = BTreeMap::new();
    while options.faults.map_or(begun.elapsed() < lasts, |faults| count < faults) {
        let fault = choose(&mut random, allowed, options.only.as_deref())?;
        count += 1;
        let context = || format!("fault {count}, {fault:?}, {:?} after the beginning", begun.elapsed());
        fault.strike(&mut nodes, &mut random).with_context(context)?;
        let took = loads.get_on(BATCHES_PER_FAULT, 0).with_context(context)?;
        slowest = slowest.max(took);
        let entry = struck.entry(fault.name()).or_default();
        *entry = (entry.0 + 1, entry.1.max(took));
        if random.below(WHOLE_EVERY) == 0 {
            longest = longest.max(nodes.wait_whole().with_context(context)?);
        }
        std::thread::sleep(random.millis_below(PEACE_MS));
    }
    longest = longest.max(nodes.wait_whole()?);
    slowest = slowest.max(loads.get_on(BATCHES_PER_FAULT, 1)?);
    finish(loads, &binary, &nodes.bootstrap())?;
    for (name, (times, took)) in &struck {
        println!("{name:18} {times:4} times, {BATCHES_PER_FAULT} batches of each load at most {took:.1?} after it");
    }
    println!("{count} faults; longest wait for acknowledgements {slowest:.1?}, for all replicas {longest:.1?}");
    nodes.stop_all()
}

/// Bits flip on one node's disk after the other.
fn flip(directory: &Path, options: &Options, ground: Ground, mut random: Random, count: u64) -> Result<()> {
    let binary = binary::release_binary()?;
    let settings = flips::SETTINGS.map(str::to_owned).to_vec();
    let plan = nodes::Plan { settings, ..nodes::Plan::new(binary.clone(), directory) };
    let mut nodes = Nodes::start(ground, plan)?;
    let mut loads = start_loads(options, &nodes, &binary, directory)?;
    loads.get_on(1, 1)?;
    let mut flips = Flips::new(&binary);
    while flips.count() < count {
        let number = 1 + flips.count() / flips::PER_ROUND;
        let left = (count - flips.count()).min(flips::PER_ROUND);
        flips.round(&mut nodes, &mut loads, &mut random, left).with_context(|| format!("round {number}"))?;
    }
    flips.lead_each(&mut nodes, &mut loads).context("while each node leads")?;
    let said = flips.metadata(&mut nodes, &mut loads, &mut random)?;
    finish(loads, &binary, &nodes.bootstrap())?;
    let histories = ["strict", "relaxed", "stock"].map(|name| directory.join(format!("{name}.history")));
    flips.read_from_each(&mut nodes, &histories.into_iter().filter(|path| path.exists()).collect::<Vec<_>>())?;
    let topics = nodes.view(0)?.partitions;
    let data: [std::path::PathBuf; NODES] = std::array::from_fn(|node| nodes.data(node).to_owned());
    nodes.stop_all()?;
    let compared = flips.compare(data.each_ref().map(std::path::PathBuf::as_path), &topics)?;
    println!("{} bits flipped, {:?}: {flips}", flips.count(), flips.flipped);
    println!("all mended, and the same bytes in all replicas: {compared:?}");
    println!("with a flipped bit in its metadata log a node did not start: {said}; emptied, it votes again");
    Ok(())
}

fn choose(random: &mut Random, allowed: Allowed, only: Option<&str>) -> Result<Fault> {
    for _ in 0..CHOICES_MAX {
        let fault = Fault::choose(random, allowed);
        if only.is_none_or(|only| fault.name() == only) {
            return Ok(fault);
        }
    }
    bail!("there is no fault {only:?} that this machine allows");
}
