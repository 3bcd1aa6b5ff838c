//! Power cuts under load, on a real file system that drops what was not fsynced: nothing acknowledged may be lost.
//!
//! A cut falls under load, just after a SIGKILL and a restart (when recovered bytes may be in the page cache only), or
//! while the broker starts. The negative control runs a broker that acknowledges without fdatasync: the same checker
//! must find its losses, else this test proves nothing.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use stonelog_tests::broker::{Broker, Spec};
use stonelog_tests::load::{self, Load};
use stonelog_tests::power::canary::Canary;
use stonelog_tests::power::cut;
use stonelog_tests::power::image::{FileSystem, Image, obstacle};
use stonelog_tests::random::Random;
use stonelog_tests::{binary, clock};

/// Takes the power away from a broker under load and checks that nothing acknowledged is lost.
#[derive(Debug, Parser)]
struct Options {
    /// Cuts that count, on each file system.
    #[arg(long, default_value_t = 20)]
    cuts: u32,
    /// File systems [default: those whose mkfs is installed].
    #[arg(long, value_enum)]
    fs: Vec<FileSystem>,
    /// Chooses the moments; a fresh one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Consumer groups of the load.
    #[arg(long, default_value_t = 1)]
    groups: u32,
    /// Switch the fsync guard off, in a build that has the switch, and expect losses.
    #[arg(long)]
    without_fsync: bool,
    /// Fail, instead of saying so, where no image can be mounted.
    #[arg(long)]
    required: bool,
}

/// Batches that must be acknowledged after a restart before the next cut under load.
const BATCHES_PER_CUT: u64 = 20;
/// Longest time under load after those.
const UNDER_LOAD_MS: u64 = 800;
/// A start takes a few tens of milliseconds; the cut falls somewhere into it.
const WHILE_STARTING_MS: u64 = 80;
/// Just after `ready`.
const JUST_STARTED_MS: u64 = 50;
/// Cuts that did not count, at most, per cut that did.
const VOID_CUTS_MAX: u32 = 1;

/// What the banner calls a partition that it does not serve because records of it may be gone.
const REPLICA_LOST: &str = "OFFLINE";

/// When a cut falls.
#[derive(Clone, Copy, Debug)]
enum Moment {
    UnderLoad,
    AfterKill,
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
    let chosen = if options.fs.is_empty() { vec![FileSystem::Ext4, FileSystem::Xfs] } else { options.fs.clone() };
    let mut ran = 0;
    for file_system in chosen {
        match obstacle(file_system) {
            None => {
                on(file_system, options, seed).with_context(|| format!("{file_system:?}, seed {seed}"))?;
                ran += 1;
            }
            Some(why) if options.fs.contains(&file_system) => bail!("{file_system:?}: {why}"),
            Some(why) => println!("******** SKIPPED: no power cuts on {file_system:?}: {why} ********"),
        }
    }
    if ran == 0 && options.required {
        bail!("no file system could be cut");
    }
    Ok(())
}

fn on(file_system: FileSystem, options: &Options, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let directory = tempfile::Builder::new().prefix("stonelog-power-").tempdir()?;
    let mut image = Image::create(directory.path(), file_system)?;
    let binary = if options.without_fsync { binary::mutant_binary()? } else { binary::release_binary()? };
    println!("power: {} cuts on {file_system:?}, seed {seed}, {}", options.cuts, binary.display());
    let mut spec = Spec::new(binary.clone(), image.mount_point().join("data"))?;
    if options.without_fsync {
        spec.environment.push(("STONELOG_MUTANT".to_owned(), "journal-fdatasync".to_owned()));
    }
    // Without fdatasync the groups' own topic is hurt as well, and the checker could not ask for their commits.
    let groups = if options.without_fsync { 0 } else { options.groups };
    let mut broker = Broker::start(&spec)?;
    let mut load = Load::start(load::Spec {
        name: format!("{file_system:?}").to_lowercase(),
        binary,
        brokers: spec.address(),
        topic_settings: Vec::new(),
        partitions: 6,
        producers: 4,
        groups,
        directory: directory.path().to_owned(),
    })?;
    load.wait_for(1, u64::from(groups > 0))?;
    let (mut counted, mut void, mut number) = ([0u32; 3], 0, 0);
    while counted.iter().sum::<u32>() < options.cuts {
        number += 1;
        let canary = Canary::plant(image.mount_point(), number)?;
        match load.wait_for(BATCHES_PER_CUT, 0) {
            Ok(_) => {}
            // Clients that find their past gone may be unable to go on: then enough has been lost.
            Err(_) if options.without_fsync && number > 1 => break,
            Err(error) => return Err(error),
        }
        std::thread::sleep(random.millis_below(UNDER_LOAD_MS));
        let moment = match random.below(4) {
            // What the page cache alone holds at this moment has been acknowledged a moment ago.
            _ if options.without_fsync => Moment::UnderLoad,
            0 => Moment::AfterKill,
            1 => Moment::WhileStarting,
            _ => Moment::UnderLoad,
        };
        match moment {
            Moment::UnderLoad => {}
            Moment::AfterKill => {
                broker.kill9()?;
                broker = Broker::start(&spec)?;
                std::thread::sleep(random.millis_below(JUST_STARTED_MS));
            }
            Moment::WhileStarting => {
                broker.kill9()?;
                broker = Broker::spawn(&spec)?;
                std::thread::sleep(random.millis_below(WHILE_STARTING_MS));
            }
        }
        if cut(broker, &mut image, canary)? {
            counted[moment as usize] += 1;
        } else {
            void += 1;
        }
        if void > options.cuts * VOID_CUTS_MAX {
            bail!("{void} of {number} cuts kept what was not synced: this machine cannot run this test");
        }
        broker = Broker::start(&spec).with_context(|| format!("after cut {number}"))?;
    }
    if options.without_fsync && broker.output().contains(REPLICA_LOST) {
        println!("without fdatasync the broker itself found that acknowledged records may be gone, as it must");
        return Ok(());
    }
    let verdict = if options.without_fsync { load.judge_now()? } else { load.finish()? };
    broker.stop()?;
    let [under_load, after_kill, while_starting] = counted;
    println!(
        "{under_load} cuts under load, {after_kill} just after a SIGKILL and a start, {while_starting} while starting; \
         {void} more did not count; {} records acknowledged, {} commits",
        verdict.acknowledged, verdict.commits
    );
    match (verdict.is_sound, options.without_fsync) {
        (true, false) => println!("sound: nothing acknowledged was lost"),
        (false, true) if verdict.lost > 0 => {
            println!(
                "without fdatasync {} acknowledged records were lost, and found lost, as they must be",
                verdict.lost
            );
        }
        (_, true) => bail!("a broker without fdatasync lost nothing that was noticed: this test proves nothing"),
        (false, false) => {
            println!("{}", verdict.report);
            drop(image);
            bail!("acknowledged records or commits were lost; everything is kept in {}", directory.keep().display());
        }
    }
    Ok(())
}
