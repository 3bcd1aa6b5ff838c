//! Whose metadata log it is: recorded beside the log before it holds anything, and compared at every start.
//!
//! Every voter's log looks alike, and only its own holds what that voter promised: a log copied from another directory
//! must not vote (rule 13). Not here: what the log says of its members.

use std::io;
use std::path::Path;

use stonelog_protocol::{BrokerId, DirectoryId};
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use stonelog_storage::small_file::{Envelope, EnvelopeKind, read_two_copies, write_two_copies};

use crate::metadata::codec::{DecodeError, Reader, Writer};

/// The file's name, in `metadata/`.
pub(super) const OWNER_NAME: &str = "metadata.owner";
const OWNER_KIND: EnvelopeKind = EnvelopeKind { magic: *b"SLMETAOW", format: 1, what: "owner of a metadata log" };

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The log directory that the log was begun in.
    pub directory: DirectoryId,
    /// Its node.
    pub node: BrokerId,
    /// It was begun by one of several nodes: a lone one must not write a first membership into it.
    pub is_of_several: bool,
}

impl Owner {
    /// Reads it; `None` where nobody has recorded it.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Owner>, Fault> {
        Ok(read_two_copies(disk, directory, OWNER_NAME, decode)?.map(|copies| copies.value))
    }

    /// Records it durably; the directory is made if it is not there.
    pub fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), Fault> {
        let fault = |operation, path: &Path, source: io::Error| {
            Err(Fault::Io { operation, path: path.to_owned(), position: None, source })
        };
        match disk.exists(directory) {
            Ok(true) => {}
            Ok(false) => {
                if let Err(source) = disk.create_dir(directory) {
                    return fault("create", directory, source);
                }
                let parent = directory.parent().unwrap_or(Path::new("/"));
                if let Err(source) = disk.sync_dir(parent) {
                    return fault("fsync", parent, source);
                }
            }
            Err(source) => return fault("stat", directory, source),
        }
        let mut payload = Writer::new();
        payload.uuid(self.directory);
        payload.i32(self.node.0);
        payload.flag(self.is_of_several);
        write_two_copies(disk, directory, OWNER_NAME, &Envelope::seal(&OWNER_KIND, 1, &payload.finish()))
    }
}

/// One copy: its version and what it says.
pub(super) fn decode(bytes: &[u8]) -> Result<(u64, Owner), String> {
    let (envelope, payload) = Envelope::open(&OWNER_KIND, bytes).map_err(|error| error.to_string())?;
    let read = |payload| -> Result<Owner, DecodeError> {
        let mut input = Reader::new(payload);
        let (directory, node) = (input.uuid()?, BrokerId(input.i32()?));
        let owner = Owner { directory, node, is_of_several: input.flag()? };
        input.end()?;
        Ok(owner)
    };
    read(payload).map(|owner| (envelope.version, owner)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Uuid;
    use stonelog_storage::disk::RealDisk;

    use super::*;

    #[test]
    fn owner_is_read_as_it_was_written_and_from_either_copy() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("metadata");
        assert_eq!(Owner::read(&RealDisk, &directory).unwrap(), None);
        let owner = Owner { directory: Uuid([7; 16]), node: BrokerId(3), is_of_several: true };
        owner.write(&RealDisk, &directory).unwrap();
        std::fs::write(directory.join(OWNER_NAME), b"torn").unwrap();
        assert_eq!(Owner::read(&RealDisk, &directory).unwrap(), Some(owner));
    }
}
