//! What a directory remembers of its place in the metadata quorum, apart from the metadata log itself (rule 13).
//!
//! Before a node says for the first time that it is empty, the identity that it would vote with is durable here; before
//! it may vote for the first time, that it is a member is. A log that is gone behind that mark is lost, not empty: the
//! node may have forgotten what it promised.

use std::path::Path;

use stonelog_protocol::{DirectoryId, Uuid};

use crate::Fault;
use crate::disk::Disk;
use crate::fields::FieldReader;
use crate::small_file::{Envelope, EnvelopeKind, read_two_copies, write_two_copies};

/// The file's name.
pub const MEMBER_NAME: &str = ".stonelog_member";
const MEMBER_KIND: EnvelopeKind = EnvelopeKind { magic: *b"SLMEMBER", format: 1, what: "quorum membership" };

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberMark {
    /// The directory's identity: the one it is formatted with.
    pub directory_id: DirectoryId,
    /// It may have voted.
    pub may_have_voted: bool,
}

impl MemberMark {
    /// Reads the mark; `None` in a directory that was never part of a cluster of several nodes.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<MemberMark>, Fault> {
        let read = read_two_copies(disk, directory, MEMBER_NAME, decode)?;
        Ok(read.map(|copies| copies.value))
    }

    /// Writes it durably, unless it says so already.
    pub fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), Fault> {
        let read = read_two_copies(disk, directory, MEMBER_NAME, decode)?;
        if read.as_ref().is_some_and(|copies| copies.value == *self) {
            return Ok(());
        }
        let version = read.map_or(1, |copies| copies.version + 1);
        let mut payload = self.directory_id.0.to_vec();
        payload.push(u8::from(self.may_have_voted));
        write_two_copies(disk, directory, MEMBER_NAME, &Envelope::seal(&MEMBER_KIND, version, &payload))
    }
}

/// One copy: its version and what it says.
fn decode(bytes: &[u8]) -> Result<(u64, MemberMark), String> {
    let (envelope, payload) = Envelope::open(&MEMBER_KIND, bytes).map_err(|error| error.to_string())?;
    let mut reader = FieldReader::new(payload);
    let short = |_| "it is too short".to_owned();
    let directory_id = Uuid(reader.array().map_err(short)?);
    let may_have_voted = match reader.array().map_err(short)? {
        [0] => false,
        [1] => true,
        [other] => return Err(format!("its flag is {other}")),
    };
    Ok((envelope.version, MemberMark { directory_id, may_have_voted }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::log_dir::{DirectoryState, LogDir};
    use std::sync::Arc;

    #[test]
    fn mark_survives_and_leaves_the_directory_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MemberMark::read(&RealDisk, dir.path()).unwrap(), None);
        let mut mark = MemberMark { directory_id: Uuid([7; 16]), may_have_voted: false };
        mark.write(&RealDisk, dir.path()).unwrap();
        assert_eq!(MemberMark::read(&RealDisk, dir.path()).unwrap(), Some(mark));
        mark.may_have_voted = true;
        mark.write(&RealDisk, dir.path()).unwrap();
        // One copy torn: the other one says it.
        std::fs::write(dir.path().join(MEMBER_NAME), b"torn").unwrap();
        assert_eq!(MemberMark::read(&RealDisk, dir.path()).unwrap(), Some(mark));
        let (_, state) = LogDir::open(Arc::new(RealDisk), dir.path()).unwrap();
        assert_eq!(state, DirectoryState::Empty);
    }

    #[test]
    fn mark_of_which_no_copy_is_intact_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        for name in [MEMBER_NAME.to_owned(), crate::small_file::copy_name(MEMBER_NAME)] {
            std::fs::write(dir.path().join(name), b"torn").unwrap();
        }
        assert!(matches!(MemberMark::read(&RealDisk, dir.path()), Err(Fault::Damage { .. })));
    }
}
