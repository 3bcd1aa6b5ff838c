//! Faults of the device under a whole broker and its load: I/O errors and a full disk.
//!
//! After a failed write or flush the broker must end by itself, and as the device keeps nothing from then on, whatever it
//! acknowledged afterwards is found missing. After a full disk it must go on without being started again. Either way the
//! same load goes on to its end, and its checker finds everything.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Place;
use super::broker::{IMAGE_BYTES, Plan};
use super::faults::{Effect, FaultKind, fill};
use crate::broker::{Broker, Spec};
use crate::clock;
use crate::power::device::{Operation, Trap};
use crate::power::extents::Extents;
use crate::power::image::Image;
use crate::random::Random;

/// Batches acknowledged before the fault, and after it.
const BATCHES: u64 = 20;
/// An armed fault happens in this time, under load.
const SPRUNG_WITHIN: Duration = Duration::from_secs(20);
/// A broker whose only directory has failed has ended in this time.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
/// A fault waits for so long in one place before it is armed anew.
const ARMED_FOR: Duration = Duration::from_secs(1);
/// Nothing is acknowledged for this long: the disk is full.
const FULL_FOR: Duration = Duration::from_secs(1);
/// A full disk is noticed in this time.
const FULL_WITHIN: Duration = Duration::from_secs(30);

/// Lets one fault happen; what is wrong goes into the error.
pub fn run(place: &Place<'_>, plan: &Plan, kind: FaultKind) -> Result<Effect> {
    let mut image = place.image(IMAGE_BYTES)?;
    let spec = plan.spec(image.mount_point())?;
    let mut random = Random::new(place.seed);
    let mut broker = Broker::start(&spec)?;
    let name = format!("{}-{}-{}", kind.name(), place.file_system.name(), place.seed);
    let mut load = plan.load(name, &spec, false)?;
    load.wait_for(BATCHES, 0)?;
    std::thread::sleep(random.millis_below(300));
    let effect = match kind {
        FaultKind::EioFlush | FaultKind::EioWrite => {
            fail_io(kind, &mut image, &spec, &mut broker)?;
            broker.end()?;
            image.device().cut();
            image.unmount()?;
            image.device().revive();
            image.mount()?;
            broker = start_again(&spec)?;
            Effect::Stopped
        }
        FaultKind::Full => {
            let ballast = image.mount_point().join("ballast");
            fill(image.mount_point(), &ballast, random.below(8) * (1 << 20))?;
            let was_full = load.is_quiet_for(FULL_FOR, FULL_WITHIN)?;
            broker.expect_running().context("on a full disk")?;
            std::fs::remove_file(&ballast)?;
            load.wait_for(BATCHES, 0).context("after a full disk")?;
            broker.expect_running()?;
            if was_full { Effect::Resumed } else { Effect::Missed }
        }
        other => bail!("{} is done to the storage crate alone", other.name()),
    };
    load.wait_for(BATCHES, 0)?;
    let verdict = load.finish()?;
    if !verdict.is_sound {
        bail!("{}", verdict.report);
    }
    broker.stop()?;
    image.unmount()?;
    Ok(effect)
}

/// Lets a flush, or a write to the journal, fail, and waits until the broker has ended for it.
fn fail_io(kind: FaultKind, image: &mut Image, spec: &Spec, broker: &mut Broker) -> Result<()> {
    let before = image.device().sprung();
    let deadline = clock::now() + SPRUNG_WITHIN;
    while image.device().sprung() == before {
        if clock::now() > deadline {
            bail!("nothing met the armed fault");
        }
        // Again and again: the journal may go on in another file, or in another extent of it.
        if kind == FaultKind::EioFlush {
            image.device().arm(Trap::Fail(Operation::Flush), None);
        } else {
            let blocks = Extents::of(&written_last(&journal_of(&spec.data_dir))?)?.longest();
            image.device().arm(Trap::Fail(Operation::Write), blocks);
        }
        let again = clock::now() + ARMED_FOR;
        while image.device().sprung() == before && clock::now() < again {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let status = broker.wait_ended(ENDED_WITHIN).context("its only directory has failed")?;
    if status.success() {
        bail!("the broker ended as if nothing had happened");
    }
    Ok(())
}

/// The journal's file that was written last: others may be kept and not be written for long.
fn written_last(journal: &Path) -> Result<std::path::PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(journal)? {
        let entry = entry?;
        // A file may go between the listing and the look at it.
        let Ok(written) = entry.metadata().and_then(|about| about.modified()) else { continue };
        if entry.path().extension().is_some_and(|extension| extension == "journal") {
            newest = newest.max(Some((written, entry.path())));
        }
    }
    Ok(newest.context("no journal file")?.1)
}

/// The journal of records, not that of the metadata log, whose failure is another matter.
fn journal_of(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("journal")
}

/// Starts the broker; where a marker says that the directory has failed, after the command that reads it again.
fn start_again(spec: &Spec) -> Result<Broker> {
    let refused = match Broker::start(spec) {
        Ok(broker) => return Ok(broker),
        Err(error) => error,
    };
    if !format!("{refused:#}").contains("storage reopen") {
        return Err(refused);
    }
    let output = Command::new(&spec.binary).args(["storage", "reopen"]).arg(&spec.data_dir).output()?;
    if !output.status.success() {
        bail!("storage reopen failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Broker::start(spec)
}
