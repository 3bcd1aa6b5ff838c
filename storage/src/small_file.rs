//! Small files that are replaced whole (rule 17): write aside, fsync, rename, fsync the directory.
//!
//! The important ones (`checkpoint`, `meta.properties`) are kept in two copies, `NAME` and `NAME.copy`, written one
//! after the other, each with a checksum and a version; the newest intact copy wins. [`read_two_copies`] brings a
//! lagging or damaged copy up to date before it returns, so that nobody acts on a state that only one copy knows.
//! Not here: what the files mean.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::Fault;
use crate::disk::{Disk, DiskFile, Open};
use crate::fields::{FieldReader, Short};

/// No small file is larger; a longer one is damaged (a checkpoint of 100,000 replicas with producers fits).
pub const SMALL_FILE_BYTES_MAX: u64 = 512 << 20;

const ENVELOPE_BYTES: usize = 40;

/// Replaces a small file so that a power cut leaves the old bytes or the new ones.
pub fn write_small_file(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let path = directory.join(name);
    let aside = directory.join(format!("{name}.tmp"));
    if disk.exists(&aside).map_err(|e| Fault::io("stat", &aside, e))? {
        disk.remove_file(&aside).map_err(|e| Fault::io("remove", &aside, e))?;
    }
    let file = disk.open(&aside, Open::CreateNew).map_err(|e| Fault::io("create", &aside, e))?;
    if !bytes.is_empty() {
        file.allocate(0, bytes.len() as u64).map_err(|e| Fault::io("allocate", &aside, e))?;
    }
    file.write_at(0, &[io::IoSlice::new(bytes)]).map_err(|e| Fault::io_at("write", &aside, 0, e))?;
    sync(&*file, &aside)?;
    disk.rename(&aside, &path).map_err(|e| Fault::io("rename", &aside, e))?;
    disk.sync_dir(directory).map_err(|e| Fault::io("fsync", directory, e))
}

/// What takes a name is durable before: a power cut may keep the new name alone.
fn sync(file: &dyn DiskFile, path: &Path) -> Result<(), Fault> {
    #[cfg(feature = "mutants")]
    if crate::mutants::Guard::ReplacedFileSync.is_off() {
        return Ok(());
    }
    file.sync_data().map_err(|e| Fault::io("fdatasync", path, e))
}

/// Removes a file durably; whether there was one.
pub fn remove_small_file(disk: &dyn Disk, directory: &Path, name: &str) -> Result<bool, Fault> {
    let path = directory.join(name);
    match disk.remove_file(&path) {
        Ok(()) => disk.sync_dir(directory).map(|()| true).map_err(|e| Fault::io("fsync", directory, e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Fault::io("remove", &path, e)),
    }
}

/// The bytes of a small file; `None` when there is none.
pub fn read_small_file(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, Fault> {
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Fault::io("open", path, e)),
    };
    let len = file.len().map_err(|e| Fault::io("stat", path, e))?;
    if len > SMALL_FILE_BYTES_MAX {
        let detail = format!("it has {len} bytes, and at most {SMALL_FILE_BYTES_MAX} are written");
        return Err(Fault::Damage { what: "small file", path: path.to_owned(), position: 0, detail });
    }
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(0, &mut bytes).map_err(|e| Fault::io_at("read", path, 0, e))?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// The second copy's name.
pub fn copy_name(name: &str) -> String {
    format!("{name}.copy")
}

/// Replaces both copies, one after the other. Only when it has returned may anything be done that relies on the new
/// bytes (free the journal, say).
pub fn write_two_copies(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    write_small_file(disk, directory, name, bytes)?;
    write_small_file(disk, directory, &copy_name(name), bytes)
}

/// What two copies held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwoCopies<T> {
    /// The newest intact copy's version.
    pub version: u64,
    /// Its contents.
    pub value: T,
    /// The other copy, when it was missing, damaged or older and has been written anew.
    pub repaired: Option<PathBuf>,
}

/// Reads both copies and takes the newest intact one; `None` when neither exists.
///
/// `decode` checks one copy's bytes and returns its version and contents, or what is wrong with it. Both damaged is a
/// [`Fault::Damage`] that says what to do.
pub fn read_two_copies<T, E: fmt::Display>(
    disk: &dyn Disk,
    directory: &Path,
    name: &'static str,
    decode: impl Fn(&[u8]) -> Result<(u64, T), E>,
) -> Result<Option<TwoCopies<T>>, Fault> {
    let names = [name.to_owned(), copy_name(name)];
    let mut copies = [None, None];
    let mut present = false;
    let mut wrong = Vec::new();
    for (slot, name) in copies.iter_mut().zip(&names) {
        let Some(bytes) = read_small_file(disk, &directory.join(name))? else {
            wrong.push(format!("{name} does not exist"));
            continue;
        };
        present = true;
        match decode(&bytes) {
            Ok((version, value)) => *slot = Some((version, value, bytes)),
            Err(detail) => wrong.push(format!("{name}: {detail}")),
        }
    }
    let [first, second] = copies;
    let (kept, stale, (version, value, bytes)) = match (first, second) {
        (None, None) if !present => return Ok(None),
        (None, None) => {
            return Err(Fault::Damage {
                what: name,
                path: directory.join(name),
                position: 0,
                detail: format!(
                    "neither copy is intact ({}); restore one of the two files from a backup of this directory, or \
                     empty the directory so that its replicas are fetched anew",
                    wrong.join("; ")
                ),
            });
        }
        (Some(first), Some(second)) if first.2 == second.2 => (0, None, first),
        (Some(first), Some(second)) if first.0 >= second.0 => (0, Some(1), first),
        (Some(_), Some(second)) => (1, Some(0), second),
        (Some(first), None) => (0, Some(1), first),
        (None, Some(second)) => (1, Some(0), second),
    };
    let repaired = match stale {
        None => None,
        Some(stale) => {
            let path = directory.join(&names[stale]);
            tracing::warn!(path = %path.display(), from = %names[kept], "second copy written anew");
            write_small_file(disk, directory, &names[stale], &bytes)?;
            Some(path)
        }
    };
    Ok(Some(TwoCopies { version, value, repaired }))
}

/// Names a kind of enveloped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeKind {
    /// The first eight bytes.
    pub magic: [u8; 8],
    /// The payload's format number.
    pub format: u32,
    /// What it is called in messages.
    pub what: &'static str,
}

/// The 40 bytes before a binary small file's payload: magic, format, checksums, version and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Raised by one with every write of the file.
    pub version: u64,
}

impl Envelope {
    /// Envelope and payload, ready to be written.
    pub fn seal(kind: &EnvelopeKind, version: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
        out.extend_from_slice(&kind.magic);
        out.extend_from_slice(&kind.format.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(payload);
        out
    }

    /// The version and the payload, when every check holds.
    pub fn open<'a>(kind: &EnvelopeKind, bytes: &'a [u8]) -> Result<(Envelope, &'a [u8]), EnvelopeError> {
        let (head, payload) = bytes.split_at_checked(ENVELOPE_BYTES).ok_or(EnvelopeError::Short)?;
        let mut reader = FieldReader::new(head);
        if reader.array::<8>()? != kind.magic {
            return Err(EnvelopeError::Magic { what: kind.what });
        }
        let format = reader.u32()?;
        let payload_checksum = reader.u32()?;
        let version = reader.u64()?;
        let len = reader.u64()?;
        if reader.u32()? != crc32c::crc32c(&head[..32]) {
            return Err(EnvelopeError::HeadChecksum);
        }
        if format != kind.format {
            return Err(EnvelopeError::Format { found: format, known: kind.format });
        }
        if len != payload.len() as u64 {
            return Err(EnvelopeError::Length { promised: len, found: payload.len() as u64 });
        }
        if crc32c::crc32c(payload) != payload_checksum {
            return Err(EnvelopeError::Checksum);
        }
        Ok((Envelope { version }, payload))
    }
}

/// Why bytes are no intact copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer bytes than the envelope alone has.
    #[error("it has too few bytes")]
    Short,
    /// Another kind of file.
    #[error("it does not begin as a {what} does")]
    Magic {
        /// What was expected.
        what: &'static str,
    },
    /// The envelope itself is damaged.
    #[error("its head fails its checksum")]
    HeadChecksum,
    /// Written by another release.
    #[error("it has format {found}; this release reads format {known}")]
    Format {
        /// The file's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Cut off or grown.
    #[error("it promises {promised} bytes and has {found}")]
    Length {
        /// By the envelope.
        promised: u64,
        /// In the file.
        found: u64,
    },
    /// The payload is damaged.
    #[error("its contents fail their checksum")]
    Checksum,
}

impl From<Short> for EnvelopeError {
    fn from(_: Short) -> EnvelopeError {
        EnvelopeError::Short
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, SimFault, SimOperation, Tearing};

    const KIND: EnvelopeKind = EnvelopeKind { magic: *b"TESTTEST", format: 2, what: "test file" };

    fn root() -> &'static Path {
        Path::new("/")
    }

    fn sealed(version: u64) -> Vec<u8> {
        Envelope::seal(&KIND, version, format!("contents {version}").repeat(900).as_bytes())
    }

    fn read(disk: &SimDisk) -> Result<Option<TwoCopies<Vec<u8>>>, Fault> {
        read_two_copies(disk, root(), "f", |bytes| {
            let (envelope, payload) = Envelope::open(&KIND, bytes)?;
            Ok::<_, EnvelopeError>((envelope.version, payload.to_vec()))
        })
    }

    #[test]
    fn a_power_cut_at_any_change_leaves_the_old_or_the_new_file() {
        let prepare = || {
            let disk = SimDisk::new();
            write_two_copies(&disk, root(), "f", &sealed(1)).unwrap();
            disk
        };
        let disk = prepare();
        let before = disk.changes();
        write_two_copies(&disk, root(), "f", &sealed(2)).unwrap();
        for cut in before..disk.changes() {
            for seed in 0..20 {
                let disk = prepare();
                disk.cut_power_at(cut);
                assert!(write_two_copies(&disk, root(), "f", &sealed(2)).is_err());
                disk.crash(seed, Tearing::Sectors);
                let found = read(&disk).unwrap().unwrap();
                assert!(found.version == 1 || found.version == 2);
                // Whatever was read stays: the copies agree, whichever is lost next.
                disk.crash(seed, Tearing::Sectors);
                assert_eq!(disk.contents(Path::new("/f")), disk.contents(Path::new("/f.copy")));
                write_two_copies(&disk, root(), "f", &sealed(3)).unwrap();
                disk.crash(seed, Tearing::Sectors);
                assert_eq!(read(&disk).unwrap().unwrap().version, 3);
            }
        }
    }

    #[test]
    fn the_newest_intact_copy_wins_and_the_other_is_repaired() {
        let disk = SimDisk::new();
        assert_eq!(read(&disk).unwrap(), None);
        write_small_file(&disk, root(), "f", &sealed(5)).unwrap();
        write_small_file(&disk, root(), "f.copy", &sealed(6)).unwrap();
        let found = read(&disk).unwrap().unwrap();
        assert_eq!((found.version, found.repaired), (6, Some(PathBuf::from("/f"))));
        disk.flip_bit(Path::new("/f.copy"), 5000, 1);
        let found = read(&disk).unwrap().unwrap();
        assert_eq!((found.version, found.repaired), (6, Some(PathBuf::from("/f.copy"))));
        assert_eq!(read(&disk).unwrap().unwrap().repaired, None);
        disk.flip_bit(Path::new("/f.copy"), 5, 1);
        disk.flip_bit(Path::new("/f"), 20, 1);
        assert!(matches!(read(&disk), Err(Fault::Damage { what: "f", .. })));
    }

    #[test]
    fn each_flipped_bit_of_an_envelope_is_noticed() {
        let bytes = Envelope::seal(&KIND, 7, b"payload");
        assert_eq!(Envelope::open(&KIND, &bytes), Ok((Envelope { version: 7 }, &b"payload"[..])));
        for bit in (0..36 * 8).chain(40 * 8..bytes.len() * 8) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Envelope::open(&KIND, &flipped).is_err(), "bit {bit}");
        }
        assert_eq!(Envelope::open(&KIND, &bytes[..39]), Err(EnvelopeError::Short));
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_file() {
        for operation in [SimOperation::Create, SimOperation::Write, SimOperation::SyncData, SimOperation::Rename] {
            let disk = SimDisk::new();
            write_small_file(&disk, root(), "f", b"old").unwrap();
            disk.fail(operation, "f.tmp", 0, SimFault::InputOutput);
            assert!(write_small_file(&disk, root(), "f", b"new").is_err());
            assert_eq!(read_small_file(&disk, Path::new("/f")).unwrap().unwrap(), b"old");
        }
    }
}
