//! Power cuts for a whole broker under load: `stonelog verify` holds what it acknowledged against what is there.
//!
//! A strict topic with consumer groups lives through all cuts and is judged at the end: nothing acknowledged may be
//! missing, no commit may have gone back. Beside it each cut under load meets a relaxed topic of its own, judged after
//! the cut: what it lost was at its very end, and nothing where the journal was flushed in between.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;

use super::Place;
use crate::broker::{Broker, Spec};
use crate::load::{self, Load};
use crate::power::canary::Canary;
use crate::power::interrupt;
use crate::power::{Rig, Victim, cut};
use crate::random::Random;

/// A journal and the segments of one part fit.
pub(super) const IMAGE_BYTES: u64 = 3 << 30;
/// Batches that must be acknowledged after a restart before the next cut under load.
const BATCHES_PER_CUT: u64 = 20;
/// The same for the relaxed topic.
const RELAXED_BATCHES_PER_CUT: u64 = 5;
/// Batches that are acknowledged before a cut of the negative control.
const CONTROL_BATCHES: u64 = 6;
/// What the banner calls a partition that it does not serve because records of it may be gone.
const REPLICA_LOST: &str = "OFFLINE";
/// Longest time under load after those.
const UNDER_LOAD_MS: u64 = 500;
/// A start takes a few tens of milliseconds; the cut falls somewhere into it.
const WHILE_STARTING_MS: u64 = 80;
/// Just after `ready`.
const JUST_STARTED_MS: u64 = 50;
/// Cuts that did not count, at most, per cut that did; and some in any case.
const VOID_PER_CUT: u32 = 1;
const VOID_IN_ANY_CASE: u32 = 5;
/// What a relaxed topic may come back with after a cut, by the checker's names: acknowledged records are gone, and none
/// behind them is there. A hole, another record in their place or a changed byte has another name.
const RELAXED_MAY: [&str; 1] = ["lost"];

/// What runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The broker.
    pub binary: PathBuf,
    /// The guard to switch off, in a build that has the switch.
    pub mutant: Option<&'static str>,
    /// Consumer groups of the load.
    pub groups: u32,
    /// Where histories go.
    pub histories: PathBuf,
}

/// What a part came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Cuts that counted: under load, just after a SIGKILL and a start, and while starting.
    pub counted: [u32; 3],
    /// Cuts that lost nothing.
    pub void: u32,
    /// Cuts in which the canary lost bytes.
    pub canary_lost: u32,
    /// Blocks that the device lost.
    pub blocks_dropped: u64,
    /// Records acknowledged on the strict topic.
    pub acknowledged: u64,
    /// Offset commits acknowledged.
    pub commits: u64,
    /// Records acknowledged on relaxed topics, and those of them that were lost.
    pub relaxed: (u64, u64),
    /// What was broken, with the checkers' reports.
    pub broken: Vec<String>,
}

impl Outcome {
    /// All that counted.
    pub fn cuts(&self) -> u32 {
        self.counted.iter().sum()
    }
}

struct Dying(Broker);

impl Victim for Dying {
    fn pid(&self) -> Pid {
        self.0.pid()
    }

    fn kill(self) -> Result<()> {
        self.0.end()
    }
}

impl Plan {
    /// How the broker is started on an image.
    pub(super) fn spec(&self, mount_point: &Path) -> Result<Spec> {
        let mut spec = Spec::new(self.binary.clone(), mount_point.join("data"))?;
        spec.dies_with_us = true;
        // Segments end and journal files come round many times in a part.
        spec.settings = vec!["stonelog.journal.bytes=268435456".to_owned(), "log.segment.bytes=4194304".to_owned()];
        if let Some(mutant) = self.mutant {
            spec.environment.push(("STONELOG_MUTANT".to_owned(), mutant.to_owned()));
        }
        Ok(spec)
    }

    pub(super) fn load(&self, name: String, spec: &Spec, relaxed: bool) -> Result<Load> {
        Load::start(load::Spec {
            name,
            binary: self.binary.clone(),
            brokers: spec.address(),
            topic_settings: if relaxed { vec!["flush.messages=10000".to_owned()] } else { Vec::new() },
            partitions: if relaxed { 2 } else { 6 },
            producers: if relaxed { 1 } else { 3 },
            groups: if relaxed { 0 } else { self.groups },
            directory: self.histories.clone(),
        })
    }
}

/// What the negative control came to.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Cuts that counted.
    pub cuts: u32,
    /// Cuts after which a partition was not served at all, since the broker itself had found the loss.
    pub refused: u32,
    /// Acknowledged records that the checker found missing.
    pub lost: u64,
}

/// Cuts the power of a broker without the guard until the checker has found an acknowledged record missing, at most `cuts`
/// times. Each cut has a broker of its own and falls before its first checkpoint: with an old one that names what the
/// journal has lost, the broker would find out by itself, and the checker would not be tested.
pub fn control(place: &Place<'_>, plan: &Plan, cuts: u32) -> Result<Control> {
    let mut outcome = Control::default();
    for number in 1..=u64::from(cuts) {
        let (mut image, _directory) = place.image(IMAGE_BYTES)?;
        let spec = plan.spec(image.mount_point())?;
        let broker = Broker::start(&spec)?;
        let canary = Canary::plant(image.mount_point(), number, place.rig == Rig::Device)?;
        let mut load = plan.load(format!("control-{}-{number}", place.file_system.name()), &spec, false)?;
        load.wait_for(CONTROL_BATCHES, 0)?;
        let cut = cut(place.rig, Dying(broker), &mut image, canary)?;
        load.freeze()?;
        outcome.cuts += u32::from(cut.counts);
        let broker = Broker::start(&spec).with_context(|| format!("after cut {number}"))?;
        match load.judge_now() {
            Ok(verdict) => outcome.lost += verdict.lost,
            Err(_) if broker.output().contains(REPLICA_LOST) => outcome.refused += 1,
            Err(error) => return Err(error),
        }
        broker.end()?;
        image.unmount()?;
        if outcome.lost > 0 {
            break;
        }
    }
    Ok(outcome)
}

/// Cuts the power `cuts` times, and judges at the end.
pub fn run(place: &Place<'_>, plan: &Plan, cuts: u32) -> Result<Outcome> {
    let (mut image, _directory) = place.image(IMAGE_BYTES)?;
    let spec = plan.spec(image.mount_point())?;
    let name = format!("{}-{}-{}", place.rig.name(), place.file_system.name(), place.seed);
    let mut random = Random::new(place.seed);
    let mut broker = Broker::start(&spec)?;
    let mut strict = plan.load(name.clone(), &spec, false)?;
    strict.wait_for(1, u64::from(plan.groups > 0))?;
    let (mut outcome, mut number) = (Outcome::default(), 0);
    while outcome.cuts() < cuts {
        number += 1;
        interrupt::check()?;
        let canary = Canary::plant(image.mount_point(), number, place.rig == Rig::Device)?;
        strict.wait_for(BATCHES_PER_CUT, 0)?;
        let moment = match random.below(4) {
            0 => 1,
            1 => 2,
            _ => 0,
        };
        let mut relaxed = None;
        if moment == 0 {
            let mut load = plan.load(format!("{name}-relaxed-{number}"), &spec, true)?;
            load.wait_for(RELAXED_BATCHES_PER_CUT, 0)?;
            relaxed = Some(load);
        }
        std::thread::sleep(random.millis_below(UNDER_LOAD_MS));
        let is_flushed = random.below(3) == 0;
        if is_flushed && let Some(load) = &mut relaxed {
            // Strict batches that were sent later are acknowledged: so the journal has been flushed since.
            load.freeze()?;
            strict.wait_for(BATCHES_PER_CUT, 0)?;
        }
        if moment > 0 {
            broker.kill9()?;
            broker = Broker::spawn(&spec)?;
            if moment == 1 {
                broker.wait_ready().with_context(|| format!("after the kill before cut {number}"))?;
                std::thread::sleep(random.millis_below(JUST_STARTED_MS));
            } else {
                std::thread::sleep(random.millis_below(WHILE_STARTING_MS));
            }
        }
        let cut = cut(place.rig, Dying(broker), &mut image, canary).with_context(|| format!("cut {number}"))?;
        outcome.canary_lost += u32::from(cut.canary_lost);
        outcome.blocks_dropped += cut.blocks_dropped;
        if cut.counts {
            outcome.counted[moment] += 1;
        } else {
            outcome.void += 1;
        }
        if outcome.void > VOID_IN_ANY_CASE + cuts * VOID_PER_CUT {
            bail!("{} of {number} cuts lost nothing: this machine cannot run this test", outcome.void);
        }
        if !is_flushed && let Some(load) = &mut relaxed {
            // Before the broker is back: whatever is missing then was at the end.
            load.freeze()?;
        }
        broker = Broker::start(&spec).with_context(|| format!("after cut {number}"))?;
        if let Some(load) = relaxed {
            let verdict = load.judge_now()?;
            outcome.relaxed.0 += verdict.acknowledged;
            outcome.relaxed.1 += verdict.lost;
            if is_flushed && verdict.lost > 0 {
                outcome
                    .broken
                    .push(format!("cut {number}: a relaxed record was lost after a flush: {}", verdict.report));
                break;
            }
            if verdict.anomalies.iter().any(|anomaly| !RELAXED_MAY.contains(&anomaly.as_str())) {
                outcome.broken.push(format!("cut {number}: {}", verdict.report));
                break;
            }
        }
    }
    let verdict = strict.finish()?;
    if !verdict.is_sound {
        outcome.broken.push(verdict.report);
    }
    (outcome.acknowledged, outcome.commits) = (verdict.acknowledged, verdict.commits);
    broker.stop()?;
    image.unmount()?;
    Ok(outcome)
}
