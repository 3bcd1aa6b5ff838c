//! Power cuts on real file systems that drop what was not fsynced: nothing acknowledged may be lost.
//!
//! Cuts fall under load, just after a SIGKILL and a restart (when recovered bytes may be in the page cache only), and
//! while the victim starts. The negative control runs a victim that acknowledges without fdatasync: the same checks must
//! find its losses, else they prove nothing. See `stonelog_tests::power`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use stonelog_tests::cluster::NODES;
use stonelog_tests::power::Rig;
use stonelog_tests::power::campaign::faults::{Effect, FaultKind};
use stonelog_tests::power::campaign::{Place, broker, broker_faults, cluster, faults, storage};
use stonelog_tests::power::extents::FileClass;
use stonelog_tests::power::image::{FileSystem, obstacle};
use stonelog_tests::power::interrupt;
use stonelog_tests::power::ledger::{Ledger, Part, Series};
use stonelog_tests::power::process::WriterSpec;
use stonelog_tests::power::sandbox::Sandbox;
use stonelog_tests::random::Random;
use stonelog_tests::{binary, clock};

/// Takes the power away from a victim at work and checks that nothing acknowledged is lost.
#[derive(Debug, Parser)]
struct Options {
    /// Cuts that count, on each file system.
    #[arg(long, default_value_t = 20)]
    cuts: u32,
    /// Who is cut.
    #[arg(long, value_enum, default_value = "broker")]
    victim: VictimKind,
    /// Brokers that are cut at once: one, or three that are one cluster.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// How the power goes.
    #[arg(long, value_enum, default_value = "shutdown")]
    rig: Rig,
    /// File systems [default: ext4 and xfs].
    #[arg(long, value_enum)]
    fs: Vec<FileSystem>,
    /// Chooses the moments; a fresh one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Consumer groups of a broker's load.
    #[arg(long, default_value_t = 1)]
    groups: u32,
    /// Faults of the device instead of cuts, this many of each kind and, for the storage crate, class of files.
    #[arg(long)]
    faults: Option<u32>,
    /// Kinds of faults [default: all].
    #[arg(long, value_enum)]
    fault: Vec<FaultKind>,
    /// Switch the fsync guard off, in a build that has the switch, and expect losses within ten cuts.
    #[arg(long)]
    without_fsync: bool,
    /// Counts what was done here on the same code before, and adds what is done now.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Begin no further part after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Keep the histories of a broker's clients.
    #[arg(long)]
    keep: bool,
    /// Fail, instead of saying so, where no image can be mounted.
    #[arg(long)]
    required: bool,
}

/// Who is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VictimKind {
    /// A broker under the load of clients.
    Broker,
    /// A process with the storage crate alone.
    Storage,
}

/// The guard that the negative control switches off.
const FSYNC_GUARD: &str = "journal-fdatasync";
/// The negative control must lose something within these.
const CONTROL_CUTS: u32 = 10;
/// Faults that a whole broker is to meet.
const BROKER_FAULTS: [FaultKind; 3] = [FaultKind::EioWrite, FaultKind::EioFlush, FaultKind::Full];
/// A part has an image of its own, and the ledger a line for it.
const STORAGE_CUTS_PER_PART: u32 = 100;
const BROKER_CUTS_PER_PART: u32 = 25;
const CLUSTER_CUTS_PER_PART: u32 = 10;

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
    if !rustix::process::geteuid().is_root() {
        return skip(options, "loop devices and mounts need root");
    }
    if options.nodes != 1 && options.nodes != NODES {
        bail!("a cluster has {NODES} nodes");
    }
    if options.nodes > 1 && (options.victim != VictimKind::Broker || options.faults.is_some()) {
        bail!("--nodes is for power cuts of brokers");
    }
    let mut sandbox = match Sandbox::enter() {
        Ok(sandbox) => sandbox,
        Err(error) => return skip(options, &format!("this machine cannot mount: {error:#}")),
    };
    interrupt::note_signals()?;
    let chosen = if options.fs.is_empty() { vec![FileSystem::Ext4, FileSystem::Xfs] } else { options.fs.clone() };
    let mut ran = 0;
    for file_system in chosen {
        let is_volatile = options.rig == Rig::Device || options.faults.is_some();
        match obstacle(file_system, &sandbox.fresh()?, is_volatile) {
            None => {
                let on = if options.faults.is_some() { faults_on } else { on };
                if let Err(error) = on(file_system, options, seed, &sandbox) {
                    let kept = sandbox.keep().display().to_string();
                    return Err(error.context(format!("{}, seed {seed}; histories in {kept}", file_system.name())));
                }
                ran += 1;
            }
            Some(why) if options.fs.contains(&file_system) => bail!("{}: {why}", file_system.name()),
            Some(why) => skip_one(&format!("{}: {why}", file_system.name())),
        }
    }
    if options.keep {
        println!("histories in {}", sandbox.keep().display());
    }
    if ran == 0 && options.required {
        bail!("no file system could be cut");
    }
    Ok(())
}

fn skip(options: &Options, why: &str) -> Result<()> {
    if options.required {
        bail!("no power cuts: {why}");
    }
    skip_one(why);
    Ok(())
}

fn skip_one(why: &str) {
    println!("******** SKIPPED: no power cuts: {why} ********");
}

fn on(file_system: FileSystem, options: &Options, seed: u64, sandbox: &Sandbox) -> Result<()> {
    let ledger = Ledger::open(options.ledger.clone())?;
    let victim = match options.victim {
        VictimKind::Storage => "storage".to_owned(),
        VictimKind::Broker if options.nodes > 1 => format!("{} brokers", options.nodes),
        VictimKind::Broker => "broker".to_owned(),
    };
    let name = format!("{} {victim} {}", options.rig.name(), file_system.name());
    let series = Series { name: name.clone() };
    if options.without_fsync {
        let place = Place { sandbox, rig: options.rig, file_system, seed };
        return control(&place, options, &name);
    }
    let begun = clock::now();
    let done = ledger.done(&series)?;
    println!("{name}: {} cuts, {done} of them done, seed {seed}, commit {}", options.cuts, ledger.commit());
    let mut left = options.cuts.saturating_sub(done);
    let mut seeds = Random::new(seed);
    let per_part = match options.victim {
        VictimKind::Broker if options.nodes > 1 => CLUSTER_CUTS_PER_PART,
        VictimKind::Broker => BROKER_CUTS_PER_PART,
        VictimKind::Storage => STORAGE_CUTS_PER_PART,
    };
    let mut total = Total::default();
    while left > 0 {
        if options.minutes.is_some_and(|minutes| begun.elapsed() > Duration::from_secs(60 * minutes)) {
            println!("{name}: time is up, {left} cuts were not reached");
            break;
        }
        let cuts = left.min(per_part);
        // The first part's seed is the one that was given.
        let part_seed = if total.cuts == 0 { seed } else { seeds.next_number() >> 16 };
        let place = Place { sandbox, rig: options.rig, file_system, seed: part_seed };
        let part = part(&place, options, cuts).with_context(|| format!("part with seed {part_seed}"))?;
        ledger.add(&series, Part { seed: part_seed, count: part.cuts, acknowledged: part.acknowledged })?;
        left = left.saturating_sub(part.cuts);
        total.add(&part);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{name}: {total}; {:.2} s for a cut", seconds / f64::from(total.cuts.max(1)));
    if total.cuts > 0 && total.canary_lost == 0 {
        bail!("no cut lost what was not synced: this test proves nothing here");
    }
    println!("sound: nothing acknowledged was lost");
    Ok(())
}

/// Faults of each kind, for each class of files.
fn faults_on(file_system: FileSystem, options: &Options, seed: u64, sandbox: &Sandbox) -> Result<()> {
    let ledger = Ledger::open(options.ledger.clone())?;
    let under_broker = options.victim == VictimKind::Broker;
    let all = if under_broker { &BROKER_FAULTS } else { FaultKind::value_variants() };
    let kinds = if options.fault.is_empty() { all } else { &options.fault };
    let wanted = options.faults.unwrap_or(0);
    let (writer, mut seeds, begun) = (binary::writer()?, Random::new(seed), clock::now());
    println!("faults on {}: {wanted} of each, seed {seed}, commit {}", file_system.name(), ledger.commit());
    for kind in kinds {
        let classes: Vec<Option<FileClass>> = match kind {
            _ if under_broker => vec![None],
            kind if kind.has_class() => FileClass::ALL.map(Some).to_vec(),
            _ => vec![None],
        };
        for class in classes {
            let what = if under_broker { "broker" } else { class.map_or("storage", FileClass::name) };
            let name = format!("{} {what} {}", kind.name(), file_system.name());
            let series = Series { name: name.clone() };
            let mut effects: BTreeMap<Effect, u32> = BTreeMap::new();
            for _ in ledger.done(&series)?..wanted {
                if options.minutes.is_some_and(|minutes| begun.elapsed() > Duration::from_secs(60 * minutes)) {
                    println!("{name}: time is up");
                    break;
                }
                interrupt::check()?;
                let seed = seeds.next_number() >> 16;
                let place = Place { sandbox, rig: Rig::Device, file_system, seed };
                let effect = if under_broker {
                    broker_faults::run(&place, &plan(binary::release_binary()?, None, options, &place), *kind)
                } else {
                    faults::run(&place, &writer, *kind, class)
                };
                let effect = effect.with_context(|| format!("{name}: fault with seed {seed}"))?;
                *effects.entry(effect).or_default() += 1;
                ledger.add(&series, Part { seed, count: 1, acknowledged: 0 })?;
            }
            println!("{name}: {effects:?}");
        }
    }
    Ok(())
}

/// What parts came to together.
#[derive(Debug, Default)]
struct Total {
    cuts: u32,
    moments: [u32; 3],
    void: u32,
    canary_lost: u32,
    blocks_dropped: u64,
    acknowledged: u64,
    commits: u64,
    relaxed: (u64, u64),
    led_after: Duration,
    verdicts: String,
}

impl Total {
    fn add(&mut self, part: &Total) {
        self.cuts += part.cuts;
        (0..3).for_each(|at| self.moments[at] += part.moments[at]);
        self.void += part.void;
        self.canary_lost += part.canary_lost;
        self.blocks_dropped += part.blocks_dropped;
        self.acknowledged += part.acknowledged;
        self.commits += part.commits;
        self.relaxed = (self.relaxed.0 + part.relaxed.0, self.relaxed.1 + part.relaxed.1);
        self.led_after = self.led_after.max(part.led_after);
        self.verdicts.clone_from(&part.verdicts);
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [under_load, after_kill, while_starting] = self.moments;
        write!(
            f,
            "{} cuts ({under_load} under load, {after_kill} just after a SIGKILL and a start, {while_starting} while \
             starting), {} more lost nothing and did not count; {} acknowledgements",
            self.cuts, self.void, self.acknowledged
        )?;
        write!(f, "; the canary lost bytes {} times", self.canary_lost)?;
        if self.blocks_dropped > 0 {
            write!(f, ", the device {} blocks", self.blocks_dropped)?;
        }
        if self.commits > 0 {
            write!(f, "; {} commits", self.commits)?;
        }
        if self.relaxed.0 > 0 {
            let (relaxed, lost) = self.relaxed;
            write!(f, "; relaxed: {relaxed} records acknowledged, {lost} of them lost")?;
        }
        if !self.led_after.is_zero() {
            write!(f, "; everything led again at most {:.1?} after a start", self.led_after)?;
        }
        if !self.verdicts.is_empty() {
            write!(f, "; verdicts: {}", self.verdicts)?;
        }
        Ok(())
    }
}

fn part(place: &Place<'_>, options: &Options, cuts: u32) -> Result<Total> {
    let (broken, total) = match options.victim {
        VictimKind::Storage => {
            let outcome = storage::run(place, writer_spec(binary::writer()?, place.seed, None), cuts)?;
            let total = Total {
                cuts: outcome.cuts(),
                moments: outcome.counted,
                void: outcome.void,
                canary_lost: outcome.canary_lost,
                blocks_dropped: outcome.blocks_dropped,
                acknowledged: outcome.acknowledged,
                verdicts: outcome.verdicts,
                ..Total::default()
            };
            (outcome.broken, total)
        }
        VictimKind::Broker => {
            let run = if options.nodes > 1 { cluster::run } else { broker::run };
            let outcome = run(place, &plan(binary::release_binary()?, None, options, place), cuts)?;
            let total = Total {
                cuts: outcome.cuts(),
                moments: outcome.counted,
                void: outcome.void,
                canary_lost: outcome.canary_lost,
                blocks_dropped: outcome.blocks_dropped,
                acknowledged: outcome.acknowledged,
                commits: outcome.commits,
                relaxed: outcome.relaxed,
                led_after: outcome.led_after,
                ..Total::default()
            };
            (outcome.broken, total)
        }
    };
    if !broken.is_empty() {
        bail!("promises were broken:\n{}", broken.join("\n"));
    }
    Ok(total)
}

/// The same against a victim without the guard, which must be found out.
fn control(place: &Place<'_>, options: &Options, name: &str) -> Result<()> {
    println!("{name}: without fdatasync, at most {CONTROL_CUTS} cuts, seed {}", place.seed);
    let (lost, cuts) = match options.victim {
        VictimKind::Storage => {
            let spec = writer_spec(binary::mutant_writer()?, place.seed, Some(FSYNC_GUARD));
            let outcome = storage::run(place, spec, CONTROL_CUTS)?;
            (outcome.broken.iter().find(|what| what.contains("offsets lost")).cloned(), outcome.cuts())
        }
        VictimKind::Broker => {
            let plan = plan(binary::mutant_binary()?, Some(FSYNC_GUARD), options, place);
            // The groups' own topic is hurt as well, and the checker could not ask for their commits.
            let control = if options.nodes > 1 { cluster::control } else { broker::control };
            let outcome = control(place, &broker::Plan { groups: 0, ..plan }, CONTROL_CUTS)?;
            let text =
                format!("{} acknowledged records; {} times the broker itself refused", outcome.lost, outcome.refused);
            ((outcome.lost > 0).then_some(text), outcome.cuts)
        }
    };
    match lost {
        Some(lost) => println!("{name}: without fdatasync lost within {cuts} cuts, as it must be: {lost}"),
        None => bail!("without fdatasync {cuts} cuts lost no acknowledged record: this test proves nothing"),
    }
    Ok(())
}

fn writer_spec(binary: PathBuf, seed: u64, mutant: Option<&'static str>) -> impl Fn(PathBuf) -> WriterSpec {
    move |directory| WriterSpec { binary: binary.clone(), directory, seed, mutant }
}

fn plan(binary: PathBuf, mutant: Option<&'static str>, options: &Options, place: &Place<'_>) -> broker::Plan {
    broker::Plan { binary, mutant, groups: options.groups, histories: place.sandbox.outside().to_owned() }
}
