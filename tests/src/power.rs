//! Power cuts on real file systems that lose what was not fsynced, and the faults of real devices.
//!
//! Two rigs. [`Rig::Shutdown`]: the victim is stopped and all its threads stand still ([`standstill`]), then the file
//! system is shut down without flushing ([`shutdown`]), then the process is killed and the image is mounted anew. The
//! order matters: with the shutdown first, an fdatasync in flight may say OK for bytes that are gone, and a correct
//! broker would be blamed. [`Rig::Device`]: the file system lies on a device of ours ([`device`], [`fuse`]) that dies in
//! the middle of whatever goes on, and forgets a part of what was not flushed; the victim sees I/O errors until it is
//! killed. A cut counts only if it lost what it should and kept what it must ([`canary`]).
//!
//! Three victims: a broker under the load of clients, three of them that are one cluster and are cut at once, each with a
//! file system of its own, and a small process with the storage crate alone ([`writer`]), whose promises are held against
//! what it finds ([`promises`]).

pub mod campaign;
pub mod canary;
pub mod device;
pub mod extents;
pub mod fuse;
pub mod image;
pub mod interrupt;
pub mod ledger;
mod loop_device;
pub mod process;
pub mod promises;
pub mod sandbox;
mod shutdown;
mod standstill;
pub mod writer;

use anyhow::Result;
use clap::ValueEnum;
use rustix::process::Pid;

use canary::Canary;
use image::Image;

/// How the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rig {
    /// The file system's shutdown ioctl: what only the page cache held is gone.
    Shutdown,
    /// A device with a volatile write cache: a part of what it was not told to flush is gone as well.
    Device,
}

impl Rig {
    /// For messages and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Rig::Shutdown => "shutdown",
            Rig::Device => "device",
        }
    }
}

/// Who uses the file system, and must be dead before it is mounted again.
pub trait Victim {
    /// The process.
    fn pid(&self) -> Pid;
    /// Kills it, if it has not ended by itself, and waits until it is gone.
    fn kill(self) -> Result<()>;
}

/// What a cut came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutOutcome {
    /// Something that was not synced was lost.
    pub counts: bool,
    /// Blocks that devices lost.
    pub blocks_dropped: u64,
    /// Every canary lost bytes.
    pub canary_lost: bool,
}

/// One victim, and the file system under its directory.
#[derive(Debug)]
pub struct Site<'a, V> {
    /// Who uses the file system.
    pub victim: V,
    /// Where.
    pub image: &'a mut Image,
    /// Planted there.
    pub canary: Canary,
}

/// Takes the power away from all victims at once and from the file systems under their directories, and gives the latter
/// back.
///
/// Whatever the canaries say, every file system is mounted again and every victim is gone.
pub fn cut<V: Victim>(rig: Rig, sites: Vec<Site<'_, V>>) -> Result<CutOutcome> {
    if rig == Rig::Shutdown {
        standstill::stop(sites.iter().map(|site| site.victim.pid()))?;
    }
    let mut exposed = Vec::new();
    for Site { victim, image, canary } in sites {
        let canary = canary.expose(image.mount_point())?;
        exposed.push((victim, image, canary));
    }
    let mut blocks_dropped = 0;
    // One right after the other. With the shutdown nobody runs meanwhile; devices die within microseconds, as machines on
    // one supply do.
    for (_, image, _) in &exposed {
        match rig {
            Rig::Shutdown => shutdown::without_flush(image.mount_point())?,
            Rig::Device => blocks_dropped += image.device().cut().dropped,
        }
    }
    let mut dark = Vec::new();
    for (victim, image, canary) in exposed {
        victim.kill()?;
        dark.push((image, canary));
    }
    let mut canary_lost = true;
    for (image, canary) in dark {
        image.unmount()?;
        if rig == Rig::Device {
            image.device().revive();
        }
        image.mount()?;
        canary_lost &= canary.judge(image.mount_point())?;
    }
    Ok(CutOutcome { counts: canary_lost || blocks_dropped > 0, blocks_dropped, canary_lost })
}
