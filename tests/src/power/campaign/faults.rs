//! Faults of the device under the storage crate alone: I/O errors, a full disk, flipped bits, writes that get lost or go
//! astray, a slow flush.
//!
//! Each fault has an image of its own: a writer at work, the fault, a power cut, and a start that says what it found.
//! What may be missing then depends on the fault. After an I/O error, a full disk or a slow flush nothing may. A bit that
//! flipped, or a write that never happened, costs what lay there, and must be named: a partition that lacks a promised
//! record must not call itself whole. A wrong byte is never served.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use rustix::fs::{FallocateFlags, fallocate};

use super::Place;
use super::storage::IMAGE_BYTES;
use crate::clock;
use crate::power::device::{BLOCK_BYTES, Operation, Trap};
use crate::power::extents::{Extents, FileClass};
use crate::power::image::Image;
use crate::power::process::{WriterProcess, WriterSpec, directory_on};
use crate::power::promises::{Event, Promises};
use crate::power::writer::FAULT_EXIT_CODE;
use crate::random::Random;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultKind {
    /// A read during a start fails.
    EioRead,
    /// A write fails.
    EioWrite,
    /// A flush fails.
    EioFlush,
    /// No space is left, and later there is.
    Full,
    /// One bit of a file flips while nothing runs.
    Flip,
    /// A write to a file never happens.
    Lose,
    /// A write to a file goes to another block of that file.
    Misdirect,
    /// A flush takes long, and the power goes meanwhile.
    Delay,
}

impl FaultKind {
    /// For messages and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::EioRead => "eio-read",
            FaultKind::EioWrite => "eio-write",
            FaultKind::EioFlush => "eio-flush",
            FaultKind::Full => "full",
            FaultKind::Flip => "flip",
            FaultKind::Lose => "lose",
            FaultKind::Misdirect => "misdirect",
            FaultKind::Delay => "delay",
        }
    }

    /// Whether it is done to files of one class after the other.
    pub fn has_class(self) -> bool {
        matches!(self, FaultKind::EioWrite | FaultKind::Flip | FaultKind::Lose | FaultKind::Misdirect)
    }

    /// Whether it destroys bytes that were durable.
    fn destroys(self) -> bool {
        matches!(self, FaultKind::Flip | FaultKind::Lose | FaultKind::Misdirect)
    }
}

/// What one fault led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The writer stopped with a fault, and nothing was lost.
    Stopped,
    /// There was no space, then there was, and the writer went on.
    Resumed,
    /// Nobody needed what was hurt.
    Harmless,
    /// What was hurt is named, and the rest is there.
    Named,
    /// What was hurt was the last commit, which cannot be told from one that was being written.
    TornTail,
    /// The fault did not happen: nothing was read, written or found where it waited.
    Missed,
}

/// Faults in a row that may miss their subject before the test gives up.
const MISSES_MAX: u32 = 60;
/// Acknowledgements before the fault.
const ACKNOWLEDGEMENTS: u64 = 150;
/// An armed fault that nothing meets in this time has missed.
const SPRUNG_WITHIN: Duration = Duration::from_secs(3);
/// A failed write that is only noticed by the next sync of its file is noticed in this time, or never.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
/// A full disk is noticed in this time.
const FULL_WITHIN: Duration = Duration::from_secs(20);
/// Acknowledgements, each of a commit that names those before it, after a write that went astray.
const COMMITS_BEHIND: u64 = 60;
/// How long a slow flush takes.
const DELAY: Duration = Duration::from_millis(300);

/// Lets one fault happen; what is wrong goes into the error.
pub fn run(place: &Place<'_>, writer: &Path, kind: FaultKind, class: Option<FileClass>) -> Result<Effect> {
    let image = place.image(IMAGE_BYTES)?;
    let spec = WriterSpec {
        binary: writer.to_owned(),
        directory: directory_on(image.mount_point()),
        seed: place.seed,
        mutant: None,
    };
    let random = Random::new(place.seed);
    let promises = Promises::default();
    let mut scene = Scene { image, spec, random, promises, life: 0, kind, class };
    for _ in 0..MISSES_MAX {
        match scene.once()? {
            Effect::Missed => {}
            effect => return Ok(effect),
        }
    }
    bail!("the fault never happened")
}

/// Takes all the space but `left` bytes, into the file `ballast`.
pub(super) fn fill(mount_point: &Path, ballast: &Path, left: u64) -> Result<()> {
    let free = rustix::fs::statvfs(mount_point)?;
    let bytes = (free.f_bavail * free.f_frsize).saturating_sub(left);
    let file = File::create(ballast)?;
    // Others take space meanwhile: take what can be had, in ever smaller pieces.
    let (mut at, mut piece) = (0, bytes);
    while at < bytes && piece >= BLOCK_BYTES as u64 {
        match fallocate(&file, FallocateFlags::empty(), at, piece) {
            Ok(()) => at += piece,
            Err(_) => piece = piece / 2 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64,
        }
    }
    Ok(())
}

struct Scene {
    image: Image,
    spec: WriterSpec,
    random: Random,
    promises: Promises,
    life: u32,
    kind: FaultKind,
    class: Option<FileClass>,
}

impl Scene {
    fn once(&mut self) -> Result<Effect> {
        if self.kind == FaultKind::EioRead && self.life > 0 {
            let stopped = self.fail_start()?;
            self.look()?;
            return Ok(if stopped { Effect::Stopped } else { Effect::Missed });
        }
        let writer = self.start(Event::PowerCut, false)?;
        let wanted = self.promises.acknowledgements() + 20 + self.random.below(ACKNOWLEDGEMENTS);
        if !writer.hear_until(&mut self.promises, |promises| promises.acknowledgements() >= wanted)? {
            bail!("the writer ended by itself: {:?}", self.promises.fault());
        }
        let happened = match self.kind {
            FaultKind::EioRead => {
                writer.kill(&mut self.promises)?;
                self.image.remount()?;
                return Ok(Effect::Missed);
            }
            // Nobody syncs an index: it is a cache, a failed write to it is noticed by nobody and must cost nothing.
            FaultKind::EioWrite if self.class == Some(FileClass::Index) => self.stray(writer)?,
            FaultKind::EioWrite | FaultKind::EioFlush => self.fail_io(writer)?,
            FaultKind::Full => self.fill(writer)?,
            FaultKind::Delay => self.delay(writer)?,
            FaultKind::Lose | FaultKind::Misdirect => self.stray(writer)?,
            FaultKind::Flip => {
                writer.kill(&mut self.promises)?;
                self.flip()?
            }
        };
        self.image.device().cut();
        self.remount()?;
        let found = self.look()?;
        Ok(match happened {
            Effect::Missed => Effect::Missed,
            Effect::Harmless => found,
            other if found == Effect::Harmless => other,
            _ => found,
        })
    }

    fn start(&mut self, event: Event, check: bool) -> Result<WriterProcess> {
        self.life += 1;
        self.promises.begin(event);
        WriterProcess::spawn(&self.spec, self.life, &self.promises, check)
    }

    fn remount(&mut self) -> Result<()> {
        self.image.unmount()?;
        self.image.device().revive();
        self.image.mount()
    }

    fn arm(&self, trap: Trap, blocks: Option<std::ops::Range<u64>>) -> u64 {
        let mut device = self.image.device();
        device.arm(trap, blocks);
        device.sprung()
    }

    fn has_sprung(&self, before: u64) -> bool {
        self.image.device().sprung() > before
    }

    /// Hears the writer until the trap has gone off; whether it has.
    fn wait_sprung(&mut self, writer: &WriterProcess, before: u64) -> Result<bool> {
        let deadline = clock::now() + SPRUNG_WITHIN;
        while !self.has_sprung(before) {
            if clock::now() > deadline {
                self.image.device().disarm();
                return Ok(self.has_sprung(before));
            }
            writer.hear_for(&mut self.promises, Duration::from_millis(1))?;
        }
        Ok(true)
    }

    /// Blocks of a file of the class, with some behind it, where it may grow.
    fn blocks(&mut self) -> Result<Option<std::ops::Range<u64>>> {
        let Some(class) = self.class else { return Ok(None) };
        let Some(path) = class.pick(&self.spec.directory, &mut self.random)? else { return Ok(None) };
        // It may be deleted meanwhile.
        Ok(Extents::of(&path).ok().and_then(|extents| extents.longest()))
    }

    fn fail_io(&mut self, mut writer: WriterProcess) -> Result<Effect> {
        let operation = if self.kind == FaultKind::EioFlush { Operation::Flush } else { Operation::Write };
        let blocks = self.blocks()?;
        let before = self.arm(Trap::Fail(operation), blocks);
        if !self.wait_sprung(&writer, before)? {
            writer.kill(&mut self.promises)?;
            return Ok(Effect::Missed);
        }
        // From here on nothing is durable any more, so that whatever is acknowledged is found missing later.
        if operation == Operation::Flush {
            writer.hear_until(&mut self.promises, |promises| promises.fault().is_some())?;
        } else {
            let deadline = clock::now() + NOTICED_WITHIN;
            while self.promises.fault().is_none() && clock::now() < deadline {
                writer.hear_for(&mut self.promises, Duration::from_millis(2))?;
            }
        }
        if self.promises.fault().is_none() {
            writer.kill(&mut self.promises)?;
            bail!("a failed write to {:?} was not noticed", self.class);
        }
        let status = writer.end(&mut self.promises)?;
        if status.code() != Some(i32::from(FAULT_EXIT_CODE)) {
            bail!("after a fault the writer ended with {status}");
        }
        Ok(Effect::Stopped)
    }

    /// A start that meets a read error acknowledges nothing; whether it met one.
    fn fail_start(&mut self) -> Result<bool> {
        let before = self.arm(Trap::Fail(Operation::Read), None);
        // Not the first read, which is the file system's own.
        let acknowledgements = self.promises.acknowledgements();
        let mut writer = self.start(Event::Kill, true)?;
        writer.end(&mut self.promises)?;
        self.image.device().disarm();
        if self.promises.acknowledgements() > acknowledgements {
            bail!("a start that could not read acknowledged something");
        }
        let wrong = self.promises.take_wrong();
        if !wrong.is_empty() {
            bail!("wrong after a failed read: {}", wrong.join("\n"));
        }
        // What it could not read it may have missed: the next start says what is really there.
        self.promises.take_broken();
        self.promises.take_damage();
        let stopped = self.has_sprung(before);
        self.image.remount()?;
        Ok(stopped)
    }

    fn fill(&mut self, writer: WriterProcess) -> Result<Effect> {
        let ballast = self.image.mount_point().join("ballast");
        fill(self.image.mount_point(), &ballast, self.random.below(6) * (100 << 10))?;
        let deadline = clock::now() + FULL_WITHIN;
        while self.promises.full() == 0 && self.promises.fault().is_none() && clock::now() < deadline {
            writer.hear_for(&mut self.promises, Duration::from_millis(2))?;
        }
        if let Some(fault) = self.promises.fault() {
            bail!("a full disk was taken for a broken one: {fault}");
        }
        let was_full = self.promises.full() > 0;
        writer.hear_for(&mut self.promises, self.random.millis_below(50))?;
        std::fs::remove_file(&ballast)?;
        let wanted = self.promises.acknowledgements() + 200;
        if !writer.hear_until(&mut self.promises, |promises| promises.acknowledgements() >= wanted)? {
            bail!("the writer did not go on after a full disk: {:?}", self.promises.fault());
        }
        writer.kill(&mut self.promises)?;
        Ok(if was_full { Effect::Resumed } else { Effect::Missed })
    }

    fn delay(&mut self, writer: WriterProcess) -> Result<Effect> {
        let before = self.arm(Trap::Delay(Operation::Flush, DELAY), None);
        let sprung = self.wait_sprung(&writer, before)?;
        writer.hear_for(&mut self.promises, self.random.millis_below(DELAY.as_millis() as u64))?;
        // Dead before the process: what it says from here on it says without a device.
        self.image.device().cut();
        writer.kill(&mut self.promises)?;
        Ok(if sprung { Effect::Harmless } else { Effect::Missed })
    }

    /// A write is lost, refused, or goes to another block of the same file, and the writer goes on.
    fn stray(&mut self, writer: WriterProcess) -> Result<Effect> {
        let Some(blocks) = self.blocks()? else {
            writer.kill(&mut self.promises)?;
            return Ok(Effect::Missed);
        };
        let trap = match self.kind {
            FaultKind::Lose => Trap::Lose,
            FaultKind::EioWrite => Trap::Refuse,
            _ => Trap::Misdirect(blocks.start + self.random.below(blocks.end - blocks.start)),
        };
        let before = self.arm(trap, Some(blocks));
        let sprung = self.wait_sprung(&writer, before)?;
        // Commits that follow name it as durable: were it the last one, nothing could tell that it had ever been.
        let wanted = self.promises.acknowledgements() + COMMITS_BEHIND;
        writer.hear_until(&mut self.promises, |promises| promises.acknowledgements() >= wanted)?;
        writer.kill(&mut self.promises)?;
        Ok(if sprung { Effect::Harmless } else { Effect::Missed })
    }

    fn flip(&mut self) -> Result<Effect> {
        let Some(class) = self.class else { bail!("which file?") };
        let Some(path) = class.pick(&self.spec.directory, &mut self.random)? else { return Ok(Effect::Missed) };
        let extents = Extents::of(&path)?;
        let at = self.random.below(extents.len_bytes());
        let Some(byte) = extents.device_byte(at) else { return Ok(Effect::Missed) };
        // Written back and unused: what is on the device is all there is.
        self.image.unmount()?;
        self.image.device().flip(byte, self.random.below(8) as u8);
        self.image.mount()?;
        Ok(Effect::Harmless)
    }

    /// The next start, and whether what it found is what may be found.
    fn look(&mut self) -> Result<Effect> {
        let mut writer = self.start(Event::PowerCut, true)?;
        writer.end(&mut self.promises)?;
        let wrong = self.promises.take_wrong();
        if !wrong.is_empty() {
            bail!("wrong bytes were served:\n{}", wrong.join("\n"));
        }
        if !self.promises.is_ready() {
            bail!("the log directory does not start: {:?}", self.promises.fault());
        }
        let damage = self.promises.take_damage();
        let broken = self.promises.take_broken();
        if !self.kind.destroys() && (!damage.is_empty() || !broken.is_empty()) {
            bail!("after {}:\n{}\n{broken:?}", self.kind.name(), damage.join("\n"));
        }
        let mut effect = if damage.is_empty() { Effect::Harmless } else { Effect::Named };
        for broken in broken {
            let partition = broken.partition.with_context(|| broken.what.clone())?;
            let is_named = damage.iter().any(|text| text.starts_with(&format!("partition {partition} ")));
            match self.promises.verdict(partition) {
                "cut" => effect = effect.max(Effect::TornTail),
                "proved" if !is_named => bail!("partition {partition} is called whole: {}", broken.what),
                _ => effect = Effect::Named,
            }
        }
        Ok(effect)
    }
}
