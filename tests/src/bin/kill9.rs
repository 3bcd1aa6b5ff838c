//! kill -9, at random moments, again and again, under load: nothing acknowledged may be lost.
//!
//! Loads write with idempotent producers and read with consumer groups: one on a strict topic, one on a relaxed topic
//! (which survives the death of a process as well), and a stock client where its suite is installed. Each round kills
//! the broker under load, just after it has started, or while it starts. At the end each load's checker judges.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use stonelog_tests::broker::{Broker, Spec};
use stonelog_tests::load::{self, Load};
use stonelog_tests::random::Random;
use stonelog_tests::stock::StockClient;
use stonelog_tests::{binary, clock};

/// Kills a broker with SIGKILL under load and checks that nothing acknowledged is lost.
#[derive(Debug, Parser)]
struct Options {
    /// Kills.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Chooses the moments; a fresh one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Consumer groups of each load.
    #[arg(long, default_value_t = 1)]
    groups: u32,
    /// Fail, instead of saying so, when the stock client is not installed.
    #[arg(long)]
    need_stock_client: bool,
}

/// Batches that must be acknowledged after a restart before the next kill under load.
const BATCHES_PER_ROUND: u64 = 20;
/// Longest time under load after those.
const UNDER_LOAD_MS: u64 = 600;
/// A start takes a few tens of milliseconds; the kill falls somewhere into it.
const WHILE_STARTING_MS: u64 = 80;
/// Just after `ready`.
const JUST_STARTED_MS: u64 = 30;

/// When a round's kill falls.
#[derive(Clone, Copy, Debug)]
enum Moment {
    UnderLoad,
    JustStarted,
    WhileStarting,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ (clock::seed() << 16));
    let directory = tempfile::Builder::new().prefix("stonelog-kill9-").tempdir()?;
    let outcome = run_in(directory.path(), options, seed);
    outcome.map_err(|error| error.context(format!("seed {seed}, everything is kept in {}", directory.keep().display())))
}

fn run_in(directory: &Path, options: &Options, seed: u64) -> Result<()> {
    let binary = binary::release_binary()?;
    let mut random = Random::new(seed);
    println!("kill9: {} rounds, seed {seed}, {}", options.rounds, binary.display());
    let spec = Spec::new(binary.clone(), directory.join("data"))?;
    let mut broker = Broker::start(&spec)?;
    let load = |name: &str, producers: u32, topic_settings: &[&str]| {
        Load::start(load::Spec {
            name: name.to_owned(),
            binary: binary.clone(),
            brokers: spec.address(),
            topic_settings: topic_settings.iter().map(|setting| (*setting).to_owned()).collect(),
            partitions: 6,
            producers,
            groups: options.groups,
            directory: directory.to_owned(),
        })
    };
    let mut loads = [load("strict", 3, &[])?, load("relaxed", 1, &["flush.messages=10000"])?];
    let mut stock = StockClient::start(&spec.address(), directory)?;
    match &stock {
        Some(client) => println!("stock client: {}", client.version()),
        None if options.need_stock_client => bail!("the stock client is not installed"),
        None => println!("SKIPPED: the stock client is not installed; compat-tests/confluent-kafka-python/run install"),
    }
    // Everyone is at work before the first kill.
    let settled = u64::from(options.groups > 0);
    for load in &mut loads {
        load.wait_for(1, settled)?;
    }
    if let Some(client) = &mut stock {
        client.wait_for(1, 1)?;
    }
    let (mut kills, mut slowest, mut slowest_commit) = ([0u32; 3], Duration::ZERO, Duration::ZERO);
    for round in 0..options.rounds {
        let moment = match random.below(4) {
            0 => Moment::JustStarted,
            1 => Moment::WhileStarting,
            _ => Moment::UnderLoad,
        };
        kills[moment as usize] += 1;
        match moment {
            Moment::UnderLoad => {
                // Groups take part in some rounds only: most kills are to fall before they have settled again.
                let commits = u64::from(options.groups > 0 && random.below(6) == 0);
                for load in &mut loads {
                    slowest = slowest.max(load.wait_for(BATCHES_PER_ROUND, 0)?);
                    slowest_commit = slowest_commit.max(load.wait_for(0, commits)?);
                }
                if let Some(client) = &mut stock {
                    client.wait_for(BATCHES_PER_ROUND, commits)?;
                }
                std::thread::sleep(random.millis_below(UNDER_LOAD_MS));
            }
            Moment::JustStarted => std::thread::sleep(random.millis_below(JUST_STARTED_MS)),
            Moment::WhileStarting => {
                broker.kill9()?;
                broker = Broker::spawn(&spec)?;
                std::thread::sleep(random.millis_below(WHILE_STARTING_MS));
            }
        }
        broker.kill9()?;
        broker = Broker::start(&spec).map_err(|error| error.context(format!("after kill {}", round + 1)))?;
    }
    let mut sound = true;
    for load in loads {
        sound &= report(load.finish()?);
    }
    if let Some(client) = stock {
        sound &= report(client.finish(&binary, &spec.address())?);
    }
    let [under_load, just_started, while_starting] = kills;
    println!(
        "{under_load} kills under load, {just_started} just after a start, {while_starting} while starting; longest \
         wait for {BATCHES_PER_ROUND} acknowledgements {slowest:?}, for a commit {slowest_commit:?}"
    );
    broker.stop()?;
    if !sound {
        bail!("acknowledged records or commits were lost");
    }
    Ok(())
}

fn report(verdict: load::Verdict) -> bool {
    if verdict.is_sound {
        println!("sound: {}: {} records acknowledged, {} commits", verdict.name, verdict.acknowledged, verdict.commits);
    } else {
        println!("{}", verdict.report);
    }
    verdict.is_sound
}
