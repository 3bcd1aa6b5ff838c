//! Power cuts for a whole broker under load: `stonelog verify` holds what it acknowledged against what is there.
//!
//! A strict topic with consumer groups lives through all cuts and is judged at the end: nothing acknowledged may be
//! missing, no commit may have gone back. Beside it each cut under load meets a relaxed topic of its own, judged after
//! the cut: what it lost was at its very end, and nothing where the journal was flushed in between.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;

use super::{Moment, Place};
use crate::broker::{Broker, Spec};
use crate::clock;
use crate::load::{self, Load, Verdict};
use crate::power::canary::Canary;
use crate::power::interrupt;
use crate::power::{CutOutcome, Rig, Site, Victim, cut};
use crate::random::Random;

/// A journal and the segments of one part fit.
pub(super) const IMAGE_BYTES: u64 = 3 << 30;
/// Batches that must be acknowledged after a restart before the next cut under load.
pub(super) const BATCHES_PER_CUT: u64 = 20;
/// The same for the relaxed topic.
pub(super) const RELAXED_BATCHES_PER_CUT: u64 = 5;
/// Batches that are acknowledged before a cut of the negative control.
pub(super) const CONTROL_BATCHES: u64 = 6;
/// Segments end and journal files come round many times in a part.
pub(super) const SETTINGS: [&str; 2] = ["stonelog.journal.bytes=268435456", "log.segment.bytes=4194304"];
/// What the banner calls a partition that it does not serve because records of it may be gone.
const REPLICA_LOST: &str = "OFFLINE";
/// Longest time under load after those.
pub(super) const UNDER_LOAD_MS: u64 = 500;
/// A start takes a few tens of milliseconds; the cut falls somewhere into it.
const WHILE_STARTING_MS: u64 = 80;
/// Just after `ready`.
pub(super) const JUST_STARTED_MS: u64 = 50;
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
    /// Records acknowledged on strict topics.
    pub acknowledged: u64,
    /// Offset commits acknowledged.
    pub commits: u64,
    /// Records acknowledged on relaxed topics, and those of them that were lost.
    pub relaxed: (u64, u64),
    /// Longest time from the start after a cut until everything was led again.
    pub led_after: Duration,
    /// What was broken, with the checkers' reports.
    pub broken: Vec<String>,
}

impl Outcome {
    /// All that counted.
    pub fn cuts(&self) -> u32 {
        self.counted.iter().sum()
    }

    /// Notes a cut; fails when too many of `wanted` have lost nothing.
    pub(super) fn on_cut(&mut self, moment: Moment, cut: CutOutcome, wanted: u32) -> Result<()> {
        self.canary_lost += u32::from(cut.canary_lost);
        self.blocks_dropped += cut.blocks_dropped;
        if cut.counts {
            self.counted[moment as usize] += 1;
        } else {
            self.void += 1;
        }
        if self.void > VOID_IN_ANY_CASE + wanted * VOID_PER_CUT {
            bail!("{} of {} cuts lost nothing: this machine cannot run this test", self.void, self.void + self.cuts());
        }
        Ok(())
    }

    /// Notes a verdict on what strict topics hold at the end.
    pub(super) fn on_verdict(&mut self, verdict: Verdict) {
        if !verdict.is_sound {
            self.broken.push(verdict.report);
        }
        self.acknowledged += verdict.acknowledged;
        self.commits += verdict.commits;
    }

    /// Notes what a relaxed topic holds after a cut: it may have lost its very end, and nothing that was flushed.
    pub(super) fn on_relaxed(&mut self, cut: u64, is_flushed: bool, verdict: Verdict) {
        self.relaxed.0 += verdict.acknowledged;
        self.relaxed.1 += verdict.lost;
        if is_flushed && verdict.lost > 0 {
            self.broken.push(format!("cut {cut}: a relaxed record was lost after a flush: {}", verdict.report));
        } else if verdict.anomalies.iter().any(|anomaly| !RELAXED_MAY.contains(&anomaly.as_str())) {
            self.broken.push(format!("cut {cut}: {}", verdict.report));
        }
    }
}

/// A broker that goes with its power.
pub(super) struct Dying(pub(super) Broker);

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
        spec.settings = SETTINGS.map(str::to_owned).to_vec();
        spec.environment = self.environment();
        Ok(spec)
    }

    /// What switches a guard off.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        self.mutant.map(|mutant| ("STONELOG_MUTANT".to_owned(), mutant.to_owned())).into_iter().collect()
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
        let mut image = place.image(IMAGE_BYTES)?;
        let spec = plan.spec(image.mount_point())?;
        let broker = Broker::start(&spec)?;
        let canary = Canary::plant(image.mount_point(), number, place.rig == Rig::Device)?;
        let mut load = plan.load(format!("control-{}-{number}", place.file_system.name()), &spec, false)?;
        load.wait_for(CONTROL_BATCHES, 0)?;
        let cut = cut(place.rig, vec![Site { victim: Dying(broker), image: &mut image, canary }])?;
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
    let mut image = place.image(IMAGE_BYTES)?;
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
        let moment = Moment::choose(&mut random);
        let mut relaxed = None;
        if moment == Moment::UnderLoad {
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
        if moment != Moment::UnderLoad {
            broker.kill9()?;
            broker = Broker::spawn(&spec)?;
            if moment == Moment::JustStarted {
                broker.wait_ready().with_context(|| format!("after the kill before cut {number}"))?;
                std::thread::sleep(random.millis_below(JUST_STARTED_MS));
            } else {
                std::thread::sleep(random.millis_below(WHILE_STARTING_MS));
            }
        }
        let site = Site { victim: Dying(broker), image: &mut image, canary };
        let cut = cut(place.rig, vec![site]).with_context(|| format!("cut {number}"))?;
        outcome.on_cut(moment, cut, cuts)?;
        if !is_flushed && let Some(load) = &mut relaxed {
            // Before the broker is back: whatever is missing then was at the end.
            load.freeze()?;
        }
        let begun = clock::now();
        broker = Broker::start(&spec).with_context(|| format!("after cut {number}"))?;
        outcome.led_after = outcome.led_after.max(begun.elapsed());
        if let Some(load) = relaxed {
            outcome.on_relaxed(number, is_flushed, load.judge_now()?);
            if !outcome.broken.is_empty() {
                break;
            }
        }
    }
    outcome.on_verdict(strict.finish()?);
    broker.stop()?;
    image.unmount()?;
    Ok(outcome)
}
