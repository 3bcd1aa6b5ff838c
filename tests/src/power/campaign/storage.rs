//! Power cuts for the storage crate alone: a writer's promises are held against what its next life finds.

use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;

use super::Place;
use crate::power::canary::Canary;
use crate::power::interrupt;
use crate::power::process::{WriterProcess, WriterSpec, directory_on};
use crate::power::promises::{Event, Promises};
use crate::power::{CutOutcome, Rig, Site, Victim, cut};
use crate::random::Random;

/// The smallest that mkfs.xfs makes, and some.
pub(super) const IMAGE_BYTES: u64 = 320 << 20;
/// Acknowledgements that are waited for, at most, before a cut under load.
const ACKNOWLEDGEMENTS: u64 = 120;
/// Time on top of that.
const UNDER_LOAD_MS: u64 = 12;
/// A start takes a few milliseconds; the cut falls somewhere into it.
const WHILE_STARTING_MS: u64 = 25;
/// Cuts that did not count, at most, per cut that did; and some in any case.
const VOID_PER_CUT: u32 = 1;
const VOID_IN_ANY_CASE: u32 = 5;

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
    /// Acknowledgements heard.
    pub acknowledged: u64,
    /// Promises that were broken.
    pub broken: Vec<String>,
    /// Verdicts seen.
    pub verdicts: String,
}

impl Outcome {
    /// All that counted.
    pub fn cuts(&self) -> u32 {
        self.counted.iter().sum()
    }
}

struct Dying<'a> {
    writer: WriterProcess,
    promises: &'a mut Promises,
}

impl Victim for Dying<'_> {
    fn pid(&self) -> Pid {
        self.writer.pid()
    }

    fn kill(self) -> Result<()> {
        self.writer.kill(self.promises)
    }
}

/// What must not be after a mere loss of power: a promise broken, a wrong byte, or damage, even if it is named.
fn everything_wrong(promises: &mut Promises) -> Vec<String> {
    let broken = promises.take_broken().into_iter().map(|broken| match broken.partition {
        Some(partition) => format!("partition {partition}: {}", broken.what),
        None => broken.what,
    });
    let mut all: Vec<String> = broken.collect();
    all.extend(promises.take_wrong());
    all.extend(promises.take_damage());
    all
}

/// Cuts the power `cuts` times, or until a promise is broken.
pub fn run(place: &Place<'_>, spec: impl Fn(std::path::PathBuf) -> WriterSpec, cuts: u32) -> Result<Outcome> {
    let mut image = place.image(IMAGE_BYTES)?;
    let spec = spec(directory_on(image.mount_point()));
    let mut random = Random::new(place.seed);
    let (mut promises, mut outcome, mut life, mut number) = (Promises::default(), Outcome::default(), 0, 0);
    let mut event = Event::PowerCut;
    while outcome.cuts() < cuts {
        number += 1;
        interrupt::check()?;
        let canary = Canary::plant(image.mount_point(), number, place.rig == Rig::Device)?;
        let moment = match random.below(4) {
            0 => 1,
            1 if number > 1 => 2,
            _ => 0,
        };
        let mut start = |promises: &mut Promises, event| {
            life += 1;
            promises.begin(event);
            WriterProcess::spawn(&spec, life, promises, false)
        };
        let mut writer = start(&mut promises, event)?;
        if moment < 2 {
            let wanted = promises.acknowledgements() + 1 + random.below(ACKNOWLEDGEMENTS);
            if !writer.hear_until(&mut promises, |promises| promises.acknowledgements() >= wanted)? {
                let fault = promises.fault().map(str::to_owned);
                let status = writer.end(&mut promises)?;
                bail!("the writer ended by itself ({status}): {fault:?}");
            }
            writer.hear_for(&mut promises, random.millis_below(UNDER_LOAD_MS))?;
        }
        if moment == 1 {
            // What recovery has read back from the page cache must be on the device when it is ready.
            writer.kill(&mut promises)?;
            writer = start(&mut promises, Event::Kill)?;
            writer.hear_until(&mut promises, Promises::is_ready)?;
        }
        if moment == 2 {
            writer.hear_for(&mut promises, random.millis_below(WHILE_STARTING_MS))?;
        }
        let site = Site { victim: Dying { writer, promises: &mut promises }, image: &mut image, canary };
        let CutOutcome { counts, blocks_dropped, canary_lost } =
            cut(place.rig, vec![site]).with_context(|| format!("cut {number}"))?;
        event = Event::PowerCut;
        outcome.canary_lost += u32::from(canary_lost);
        outcome.blocks_dropped += blocks_dropped;
        if counts {
            outcome.counted[moment] += 1;
        } else {
            outcome.void += 1;
        }
        if outcome.void > VOID_IN_ANY_CASE + cuts * VOID_PER_CUT {
            bail!("{} of {number} cuts lost nothing: this machine cannot run this test", outcome.void);
        }
        outcome.broken = everything_wrong(&mut promises);
        if !outcome.broken.is_empty() {
            break;
        }
    }
    if outcome.broken.is_empty() {
        life += 1;
        promises.begin(event);
        let mut writer = WriterProcess::spawn(&spec, life, &promises, true)?;
        writer.end(&mut promises)?;
        if !promises.is_ready() {
            bail!("the last start did not come to its end: {:?}", promises.fault());
        }
        outcome.broken = everything_wrong(&mut promises);
    }
    outcome.broken.iter_mut().for_each(|what| what.insert_str(0, &format!("cut {number}: ")));
    outcome.acknowledged = promises.acknowledgements();
    outcome.verdicts = promises.verdicts().collect::<Vec<_>>().join(", ");
    image.unmount()?;
    Ok(outcome)
}
