//! Power cuts of all three brokers of a cluster at once, under load.
//!
//! Each node has a file system of its own, so that no fsync of one makes durable what another has forgotten to sync. A
//! strict topic with three replicas and min ISR 2, a stock client's topic and their groups live through all cuts of a part
//! and are judged at its end: nothing acknowledged may be missing, no commit may have gone back. Some cuts come while
//! one node, two or all have just been killed and start, and some before all replicas are in sync again.
//! Beside them each cut under load meets a relaxed topic of its own, as it does with one broker (`super::broker`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::broker::{
    BATCHES_PER_CUT, CONTROL_BATCHES, Control, Dying, JUST_STARTED_MS, Outcome, Plan, RELAXED_BATCHES_PER_CUT,
    SETTINGS, UNDER_LOAD_MS,
};
use super::{Moment, Place};
use crate::clock;
use crate::cluster::NODES;
use crate::cluster::ground::Ground;
use crate::cluster::loads::Loads;
use crate::cluster::nodes::{self, Nodes};
use crate::load::{self, Load};
use crate::power::canary::Canary;
use crate::power::image::Image;
use crate::power::interrupt;
use crate::power::{CutOutcome, Rig, Site, cut};
use crate::random::Random;

/// A journal and the segments of one part fit; there are three of them.
const IMAGE_BYTES: u64 = 3 << 29;
/// A node that finds others starts within some hundred milliseconds; the cut falls somewhere into it.
const WHILE_STARTING_MS: u64 = 400;
/// After one cut in so many all replicas must be in sync again before the next.
const WHOLE_EVERY: u64 = 2;

impl Plan {
    fn nodes(&self, images: &[Image; NODES], directory: &Path) -> Result<Nodes> {
        let plan = nodes::Plan {
            data: images.each_ref().map(|image| image.mount_point().join("data")),
            settings: SETTINGS.map(str::to_owned).to_vec(),
            environment: self.environment(),
            ..nodes::Plan::new(self.binary.clone(), directory)
        };
        Nodes::start(Ground::loopback()?, plan)
    }

    fn strict(&self, nodes: &Nodes, directory: &Path) -> load::Spec {
        load::Spec {
            name: "strict".to_owned(),
            binary: self.binary.clone(),
            brokers: nodes.bootstrap(),
            topic_settings: vec!["min.insync.replicas=2".to_owned()],
            partitions: 6,
            producers: 3,
            groups: self.groups,
            directory: directory.to_owned(),
        }
    }

    fn relaxed(&self, number: u64, nodes: &Nodes, directory: &Path) -> Result<Load> {
        Load::start(load::Spec {
            name: format!("relaxed-{number}"),
            topic_settings: vec!["flush.messages=10000".to_owned(), "min.insync.replicas=2".to_owned()],
            partitions: 2,
            producers: 1,
            groups: 0,
            ..self.strict(nodes, directory)
        })
    }
}

/// Cuts the power of three brokers without the guard until the checker has found an acknowledged record missing, at most
/// `cuts` times. Each cut has a cluster of its own; see [`super::broker::control`].
pub fn control(place: &Place<'_>, plan: &Plan, cuts: u32) -> Result<Control> {
    let mut outcome = Control::default();
    for number in 1..=u64::from(cuts) {
        let mut images = place.images(IMAGE_BYTES)?;
        let directory = fresh(&plan.histories, &format!("control-{}-{number}", place.file_system.name()))?;
        let mut nodes = plan.nodes(&images, &directory)?;
        let canaries = plant(&images, number, place.rig)?;
        let mut load = Load::start(plan.strict(&nodes, &directory))?;
        load.wait_for(CONTROL_BATCHES, 0)?;
        let cut = cut_all(place.rig, &mut nodes, &mut images, canaries)?;
        load.freeze()?;
        outcome.cuts += u32::from(cut.counts);
        nodes.start_all().with_context(|| format!("after cut {number}"))?;
        match load.judge_now() {
            Ok(verdict) => outcome.lost += verdict.lost,
            Err(_) if nodes.view(0)?.unled().is_some() => outcome.refused += 1,
            Err(error) => return Err(error),
        }
        if outcome.lost > 0 {
            break;
        }
    }
    Ok(outcome)
}

/// Cuts the power `cuts` times, and judges at the end.
pub fn run(place: &Place<'_>, plan: &Plan, cuts: u32) -> Result<Outcome> {
    let mut images = place.images(IMAGE_BYTES)?;
    let name = format!("{}-{}-{}-nodes-{NODES}", place.rig.name(), place.file_system.name(), place.seed);
    let directory = fresh(&plan.histories, &name)?;
    let mut nodes = plan.nodes(&images, &directory)?;
    let outcome = run_on(place, plan, cuts, &mut images, &mut nodes, &directory);
    if !matches!(&outcome, Ok(outcome) if outcome.broken.is_empty()) {
        drop(nodes);
        if interrupt::check().is_ok()
            && let Err(error) = keep(&images, &directory)
        {
            eprintln!("the nodes' data is not kept: {error:#}");
        }
        return outcome;
    }
    nodes.stop_all()?;
    for image in &mut images {
        image.unmount()?;
    }
    outcome
}

fn run_on(
    place: &Place<'_>,
    plan: &Plan,
    cuts: u32,
    images: &mut [Image; NODES],
    nodes: &mut Nodes,
    directory: &Path,
) -> Result<Outcome> {
    let mut random = Random::new(place.seed);
    let mut loads = Loads::start(vec![plan.strict(nodes, directory)], &nodes.bootstrap(), directory)?;
    println!("stock client: {}", loads.stock_version().unwrap_or("not installed, SKIPPED"));
    let commits = u64::from(plan.groups > 0);
    loads.get_on(1, commits)?;
    if let Some(partition) = nodes.view(0)?.partitions.iter().find(|partition| partition.replicas != NODES) {
        bail!("not {NODES} replicas: {partition:?}");
    }
    let (mut outcome, mut number) = (Outcome::default(), 0);
    while outcome.cuts() < cuts {
        number += 1;
        interrupt::check()?;
        let canaries = plant(images, number, place.rig)?;
        let context = || format!("before cut {number}");
        loads.get_on(BATCHES_PER_CUT, 0).with_context(context)?;
        let moment = Moment::choose(&mut random);
        let mut relaxed = None;
        if moment == Moment::UnderLoad {
            let mut load = plan.relaxed(number, nodes, directory).with_context(context)?;
            load.wait_for(RELAXED_BATCHES_PER_CUT, 0).with_context(context)?;
            relaxed = Some(load);
        }
        std::thread::sleep(random.millis_below(UNDER_LOAD_MS));
        let is_flushed = random.below(3) == 0;
        if is_flushed && let Some(load) = &mut relaxed {
            // Strict batches that were sent later are acknowledged by every member: so their journals have been flushed.
            load.freeze()?;
            nodes.wait_whole().with_context(context)?;
            loads.get_on(BATCHES_PER_CUT, 0).with_context(context)?;
        }
        if moment != Moment::UnderLoad {
            kill_some(nodes, moment, &mut random).with_context(context)?;
        }
        let cut = cut_all(place.rig, nodes, images, canaries).with_context(|| format!("cut {number}"))?;
        outcome.on_cut(moment, cut, cuts)?;
        if !is_flushed && let Some(load) = &mut relaxed {
            // Before the brokers are back: whatever is missing then was at the end.
            load.freeze()?;
        }
        let context = || format!("after cut {number}, {moment:?}");
        let begun = clock::now();
        nodes.start_all().with_context(context)?;
        nodes.wait_led().with_context(context)?;
        outcome.led_after = outcome.led_after.max(begun.elapsed());
        if let Some(load) = relaxed {
            outcome.on_relaxed(number, is_flushed, load.judge_now().with_context(context)?);
            if !outcome.broken.is_empty() {
                return Ok(outcome);
            }
        }
        if random.below(WHOLE_EVERY) == 0 {
            nodes.wait_whole().with_context(context)?;
        }
    }
    nodes.wait_whole()?;
    loads.get_on(BATCHES_PER_CUT, commits)?;
    for verdict in loads.finish(&plan.binary, &nodes.bootstrap())? {
        outcome.on_verdict(verdict);
    }
    Ok(outcome)
}

/// One node, two or all are killed and started.
fn kill_some(nodes: &mut Nodes, moment: Moment, random: &mut Random) -> Result<()> {
    let (first, count) = (random.below(NODES as u64) as usize, 1 + random.below(NODES as u64) as usize);
    let killed: Vec<usize> = (first..first + count).map(|node| node % NODES).collect();
    for node in &killed {
        nodes.kill9(*node)?;
    }
    for node in &killed {
        nodes.spawn(*node)?;
    }
    if moment == Moment::Starting {
        std::thread::sleep(random.millis_below(WHILE_STARTING_MS));
        return Ok(());
    }
    for node in &killed {
        nodes.wait_ready(*node)?;
    }
    std::thread::sleep(random.millis_below(JUST_STARTED_MS));
    Ok(())
}

fn plant(images: &[Image; NODES], number: u64, rig: Rig) -> Result<Vec<Canary>> {
    images.iter().map(|image| Canary::plant(image.mount_point(), number, rig == Rig::Device)).collect()
}

fn cut_all(rig: Rig, nodes: &mut Nodes, images: &mut [Image; NODES], canaries: Vec<Canary>) -> Result<CutOutcome> {
    let victims = nodes.take_all()?.into_iter().map(Dying);
    let places = images.iter_mut().zip(canaries);
    cut(rig, victims.zip(places).map(|(victim, (image, canary))| Site { victim, image, canary }).collect())
}

fn fresh(histories: &Path, name: &str) -> Result<std::path::PathBuf> {
    let directory = histories.join(name);
    std::fs::create_dir(&directory)?;
    Ok(directory)
}

/// Copies what the nodes had on their disks to where the histories are: for whoever looks for what went wrong.
fn keep(images: &[Image; NODES], directory: &Path) -> Result<()> {
    for (node, image) in images.iter().enumerate() {
        let to = directory.join(format!("node-{}", node + 1));
        let status = Command::new("cp").arg("-a").arg("--sparse=always").arg(image.mount_point()).arg(&to).status()?;
        if !status.success() {
            bail!("cannot copy the data of node {}: {status}", node + 1);
        }
    }
    Ok(())
}
