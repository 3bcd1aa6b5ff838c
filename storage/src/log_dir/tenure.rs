//! How a log directory was last left: stopped cleanly, by the death of the process alone, or nobody knows (rule 11).
//!
//! `.stonelog_clean_stop` exists only between a clean stop and the next start that comes to write. `.stonelog_tenure` names the kernel boot
//! and the mount under which the directory was last written: while both are the present ones the page cache still holds
//! every byte, whatever happened to the process.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::Fault;
use crate::disk::{Disk, RealDisk};
use crate::fields::FieldReader;
use crate::small_file::{Envelope, EnvelopeError, EnvelopeKind, read_small_file, remove_small_file, write_small_file};

/// The marker's name.
pub const CLEAN_STOP_NAME: &str = ".stonelog_clean_stop";
/// The tenure's name.
pub const TENURE_NAME: &str = ".stonelog_tenure";
pub(crate) const TENURE_KIND: EnvelopeKind = EnvelopeKind { magic: *b"SLTENURE", format: 1, what: "tenure" };

/// One kernel boot and one mount of a file system in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: [u8; 16],
    /// The mount's identity, never reused within a boot; `None` where the kernel (before 6.8) has none to give, so that
    /// no two tenures are ever known to be the same.
    pub mount_id: Option<u64>,
}

impl Tenure {
    fn is_certainly(&self, other: &Tenure) -> bool {
        self.boot_id == other.boot_id && self.mount_id.is_some() && self.mount_id == other.mount_id
    }

    fn encode(&self) -> Vec<u8> {
        let mut payload = self.boot_id.to_vec();
        payload.extend_from_slice(&self.mount_id.unwrap_or(0).to_le_bytes());
        Envelope::seal(&TENURE_KIND, 1, &payload)
    }

    /// Reads either file.
    pub fn decode(bytes: &[u8]) -> Result<Tenure, EnvelopeError> {
        let (_, payload) = Envelope::open(&TENURE_KIND, bytes)?;
        let mut reader = FieldReader::new(payload);
        let boot_id = reader.array()?;
        let mount_id = Some(reader.u64()?).filter(|id| *id != 0);
        Ok(Tenure { boot_id, mount_id })
    }
}

/// How the last process left a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastStop {
    /// It stopped cleanly: everything written is durable.
    Clean,
    /// It died, under the present kernel boot and mount: everything written is readable.
    ProcessDied,
    /// The power may have gone: only what was synced is certain.
    Unknown,
}

/// The tenure of a directory on the operating system's file system.
pub fn current_tenure(path: &Path) -> io::Result<Tenure> {
    /// `STATX_MNT_ID_UNIQUE`, Linux 6.8.
    const MOUNT_ID_UNIQUE: u32 = 0x4000;
    let file = RealDisk.open(Path::new("/proc/sys/kernel/random/boot_id"), crate::disk::Open::Read)?;
    let mut text = [0; 36];
    let read = file.read_at(0, &mut text)?;
    let boot_id = parse_boot_id(&text[..read]).ok_or(io::ErrorKind::InvalidData)?;
    let wanted = StatxFlags::from_bits_retain(MOUNT_ID_UNIQUE);
    let statx = rustix::fs::statx(CWD, path, AtFlags::empty(), wanted)?;
    let is_given = statx.stx_mask & MOUNT_ID_UNIQUE != 0;
    Ok(Tenure { boot_id, mount_id: is_given.then_some(statx.stx_mnt_id) })
}

fn parse_boot_id(text: &[u8]) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.iter().filter_map(|c| char::from(*c).to_digit(16)).map(|digit| digit as u8).collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok()
}

pub(super) fn begin(disk: &dyn Disk, directory: &Path, now: &Tenure) -> Result<LastStop, Fault> {
    let recorded = read_small_file(disk, &directory.join(TENURE_NAME))?.and_then(|bytes| Tenure::decode(&bytes).ok());
    let stopped_cleanly = match read_small_file(disk, &directory.join(CLEAN_STOP_NAME))? {
        Some(bytes) => Tenure::decode(&bytes).is_ok(),
        None => false,
    };
    Ok(match recorded {
        _ if stopped_cleanly => LastStop::Clean,
        Some(recorded) if recorded.is_certainly(now) => LastStop::ProcessDied,
        _ => LastStop::Unknown,
    })
}

pub(super) fn record(disk: &dyn Disk, directory: &Path, now: &Tenure) -> Result<(), Fault> {
    let bytes = now.encode();
    if read_small_file(disk, &directory.join(TENURE_NAME))?.as_ref() != Some(&bytes) {
        write_small_file(disk, directory, TENURE_NAME, &bytes)?;
    }
    // Until here nothing was written that a clean stop would have to make durable.
    remove_small_file(disk, directory, CLEAN_STOP_NAME).map(|_| ())
}

pub(super) fn mark_clean_stop(disk: &dyn Disk, directory: &Path, now: &Tenure) -> Result<(), Fault> {
    write_small_file(disk, directory, CLEAN_STOP_NAME, &now.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, Tearing};

    fn tenure(boot: u8, mount: u64) -> Tenure {
        Tenure { boot_id: [boot; 16], mount_id: Some(mount) }
    }

    #[test]
    fn a_clean_stop_counts_once() {
        let (disk, root) = (SimDisk::new(), Path::new("/"));
        assert_eq!(begin(&disk, root, &tenure(1, 1)).unwrap(), LastStop::Unknown);
        mark_clean_stop(&disk, root, &tenure(1, 1)).unwrap();
        disk.crash(1, Tearing::Sectors);
        // A start that does not come to pass leaves it as it was.
        for boot in 2..4 {
            assert_eq!(begin(&disk, root, &tenure(boot, 1)).unwrap(), LastStop::Clean);
            disk.crash(2, Tearing::Sectors);
        }
        record(&disk, root, &tenure(3, 1)).unwrap();
        disk.crash(2, Tearing::Sectors);
        assert_eq!(begin(&disk, root, &tenure(4, 1)).unwrap(), LastStop::Unknown, "the marker is durably gone");
    }

    #[test]
    fn only_the_same_boot_and_mount_keep_the_page_cache() {
        let (disk, root) = (SimDisk::new(), Path::new("/"));
        record(&disk, root, &tenure(1, 5)).unwrap();
        assert_eq!(begin(&disk, root, &tenure(1, 5)).unwrap(), LastStop::ProcessDied);
        assert_eq!(begin(&disk, root, &tenure(1, 6)).unwrap(), LastStop::Unknown);
        assert_eq!(begin(&disk, root, &tenure(2, 5)).unwrap(), LastStop::Unknown);
        let unknown_mount = Tenure { mount_id: None, ..tenure(1, 5) };
        record(&disk, root, &unknown_mount).unwrap();
        assert_eq!(begin(&disk, root, &unknown_mount).unwrap(), LastStop::Unknown);
    }

    #[test]
    fn a_second_crash_before_the_verdicts_is_no_mere_death_of_the_process() {
        let (disk, root) = (SimDisk::new(), Path::new("/"));
        record(&disk, root, &tenure(1, 5)).unwrap();
        assert_eq!(begin(&disk, root, &tenure(2, 5)).unwrap(), LastStop::Unknown);
        disk.kill();
        assert_eq!(begin(&disk, root, &tenure(2, 5)).unwrap(), LastStop::Unknown);
        record(&disk, root, &tenure(2, 5)).unwrap();
        assert_eq!(begin(&disk, root, &tenure(2, 5)).unwrap(), LastStop::ProcessDied);
    }

    #[test]
    fn the_present_tenure_is_stable() {
        let directory = tempfile::tempdir().unwrap();
        let first = current_tenure(directory.path()).unwrap();
        assert_ne!(first.boot_id, [0; 16]);
        assert_eq!(current_tenure(directory.path()).unwrap(), first);
    }
}
